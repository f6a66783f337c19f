//! Recordings in another format, or in the same with less in them.
//!
//! Invariant: what is written is good whatever the recording's end: a torn or damaged tail is left
//! out, and what was left out is returned.

use std::path::{Path, PathBuf};

use vmstrobe_core::Filter;
use vmstrobe_export::{Batch, BatchLimits, Batcher, End, Event, Metadata, Thinning};

use super::files::{FileOptions, Files, RecordedFile};
use super::replay::{Replay, Replayed};
use super::sink::Sink;
use crate::error::{Error, Result};

/// The ticks of a batch that is written, as of a recording at 1 kHz.
const BATCH_TICKS: usize = 500;

/// A recording that was converted.
#[derive(Debug)]
#[non_exhaustive]
pub struct Converted {
    /// The samples that were written.
    pub samples: u64,
    /// The events that were written.
    pub events: u64,
    /// The files that were written.
    pub files: Vec<RecordedFile>,
    /// The end of the recording: whether a tail was left out. `None` if it is damaged.
    pub end: Option<End>,
    /// The damage behind what was written.
    pub damage: Option<Error>,
}

/// Converts a recording into the format that the name of the output tells, or the options do. Only
/// what the filters want is written, if there are any, and of each stretch of time of
/// [`FileOptions::every`] only the first sample. The circumstances are those of the recording; the
/// options' labels are added.
///
/// # Errors
/// [`Error::SameFile`] if both are one file; an error of opening the one or writing the other.
pub fn convert(
    input: &Path,
    output: &Path,
    filters: Option<Vec<Filter>>,
    mut options: FileOptions,
) -> Result<Converted> {
    if is_same(input, output) {
        return Err(Error::SameFile { path: output.to_owned() });
    }
    let mut replay = Replay::open_by(input, &options.broker)?;
    // Here, where every format has it.
    let mut thinning = Thinning::new(options.every.take());
    let labels = std::mem::take(&mut options.metadata.labels);
    options.metadata = Metadata { ..replay.metadata().clone() };
    options.metadata.labels.extend(labels);
    if let Some(filters) = filters {
        replay = replay.with_filters(filters);
    }
    let mut files = Files::new(output, options, false)?;
    let limits = BatchLimits { ticks: BATCH_TICKS, ..BatchLimits::default() };
    let mut batcher = Batcher::new(limits);
    let (mut samples, mut events) = (0, 0);
    let read = replay.run(|replayed| {
        match replayed {
            Replayed::Event(event) => {
                events += 1;
                files.event(&event)?;
            }
            Replayed::Sample(sample) if !thinning.keeps(sample.window()) => {}
            Replayed::Sample(sample) => {
                samples += 1;
                if let Some(batch) = batcher.push(&sample).map_err(Error::Export)? {
                    files.write(batch)?;
                }
            }
        }
        Ok(true)
    });
    let (end, damage) = match read {
        Ok(end) => (end, None),
        // What is behind the damage is lost; what stands before it is written.
        Err(error @ Error::Recording { .. }) if is_of(&error, input) => (None, Some(error)),
        Err(error) => return Err(error),
    };
    if let Some(batch) = batcher.take() {
        files.write(batch)?;
    }
    files.finish()?;
    Ok(Converted { samples, events, files: files.files(), end, damage })
}

/// Writes batches into files, each with the events before it.
///
/// # Errors
/// As [`convert`], of the output.
pub(crate) fn write_batches(
    output: &Path,
    options: FileOptions,
    items: impl Iterator<Item = (Vec<Event>, Batch)>,
) -> Result<Vec<RecordedFile>> {
    let mut files = Files::new(output, options, true)?;
    for (events, batch) in items {
        for event in &events {
            files.event(event)?;
        }
        files.write(batch)?;
    }
    files.finish()?;
    Ok(files.files())
}

/// Returns whether an error is about this recording.
fn is_of(error: &Error, input: &Path) -> bool {
    matches!(error, Error::Recording { path, .. } if path == input)
}

fn is_same(input: &Path, output: &Path) -> bool {
    let canonical = |path: &Path| -> Option<PathBuf> { std::fs::canonicalize(path).ok() };
    canonical(input).is_some_and(|input| canonical(output) == Some(input))
}
