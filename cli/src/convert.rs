//! `vmstrobe convert`: a recording in another format, or with less in it.
//!
//! Invariant: what is whole in the recording is written, and what was left out is said.

use std::path::Path;

use vmstrobe::export::{End, Metadata};
use vmstrobe::{Broker, Converted, FileOptions, Filter, Notice, Replay, Selection, convert};

use crate::args::{ConvertArgs, NameArgs, SelectEachArgs, VcpuArgs};
use crate::error::Result;
use crate::messages::of_notices;
use crate::out::{say, say_each};
use crate::privileges::Needs;
use crate::record::format;
use crate::record::report::format_notes;
use crate::text::{bytes, counted, thousands};

/// Converts, and returns the exit status: 1 if the recording is damaged in its middle.
///
/// # Errors
/// If the recording cannot be read at all, or the file cannot be written.
pub(crate) fn run(args: &ConvertArgs) -> Result<u8> {
    // The files are opened with the rights of whoever runs this: nothing else is needed.
    let broker: Broker = Needs::of_files().move_to_broker()?;
    let filters = filters(&args.input, &args.select, &args.vcpus, &broker)?;
    let options = FileOptions {
        format: format(&args.output, &args.write),
        compression: args.write.compress,
        every: args.write.every,
        overwrite: args.write.overwrite,
        metadata: Metadata { labels: args.write.labels.clone(), ..Metadata::default() },
        broker,
        ..FileOptions::default()
    };
    let converted = convert(&args.input, &args.output, filters, options)?;
    report(args, &converted);
    Ok(u8::from(converted.damage.is_some()))
}

/// Returns the filters for a recording, if the user chose any statistics.
///
/// # Errors
/// If it cannot be read, or has no such statistics.
pub(crate) fn filters(
    recording: &Path,
    select: &SelectEachArgs,
    vcpus: &VcpuArgs,
    broker: &Broker,
) -> Result<Option<Vec<Filter>>> {
    let SelectEachArgs { targets, of: NameArgs { names, provider } } = select;
    if targets.is_empty() && names.is_none() && provider.is_none() && vcpus.vcpus.is_empty() {
        return Ok(None);
    }
    let selection: Selection = select.selection(vcpus);
    let schemas = Replay::open_by(recording, broker)?.schemas();
    let (filters, unknown) = selection.filters(&select.targets(), &schemas)?;
    say_each(of_notices(unknown.into_iter().map(Notice::UnknownName)));
    Ok(Some(filters))
}

fn report(args: &ConvertArgs, converted: &Converted) {
    let size: u64 = converted.files.iter().map(|file| file.bytes).sum();
    let (samples, events) = (converted.samples, converted.events);
    let events = match events {
        0 => String::new(),
        events => format!(" and {}", counted(events as usize, "event")),
    };
    let files = match converted.files.len() {
        1 => args.output.display().to_string(),
        files => format!("{} from {} on", counted(files, "file"), args.output.display()),
    };
    say(format_args!(
        "wrote {files}: {} samples{events}, {}",
        thousands(samples),
        bytes(size as f64)
    ));
    say_each(format_notes(&converted.files));
    if let Some(text) = &converted.damage {
        say(format_args!("what stands behind the damage is lost: {text}"));
    }
    say_each(converted.end.and_then(|end| end_text(&args.input, end)));
}

/// Returns the message about the end of a recording that was read, if it was not finished.
pub(crate) fn end_text(recording: &Path, end: End) -> Option<String> {
    let recording = recording.display();
    Some(match end {
        End::Torn { whole_bytes, cut_bytes } => format!(
            "{recording} is torn: {} of its end were cut off, behind byte {}",
            bytes(cut_bytes as f64),
            thousands(whole_bytes)
        ),
        End::Trailing { whole_bytes, cut_bytes } => format!(
            "{recording} has {} behind its end, at byte {}: they were left out",
            bytes(cut_bytes as f64),
            thousands(whole_bytes)
        ),
        End::Unfinished => format!("{recording} was not finished; nothing was cut off"),
        _ => return None,
    })
}
