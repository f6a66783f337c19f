//! A recording as samples again: all of them, or what filters want of them.
//!
//! Invariant: a sample has the tick, the window, the states and the words that were recorded. What
//! a filter leaves out is in no layout.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmstrobe_core::{Filter, Layout, Object, ReadPlan, Schema, Snapshot};
use vmstrobe_export::{ArrowsReader, Batch, Columns, End, Event, Item, Metadata, TickRows};

use crate::error::{Error, Result};

/// The bytes that are read at a time.
const READ_BYTES: usize = 1 << 18;

/// A recording that is read.
///
/// ```no_run
/// use std::path::Path;
/// use vmstrobe::{Replay, Replayed};
///
/// let replay = Replay::open(Path::new("run.arrows"))?;
/// let end = replay.run(|replayed| {
///     if let Replayed::Sample(sample) = replayed {
///         println!("{}: {} objects", sample.tick(), sample.objects().count());
///     }
///     Ok(true)
/// })?;
/// println!("{end:?}");
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    reader: ArrowsReader<BufReader<File>>,
    filters: Option<Vec<Filter>>,
    layouts: Option<Layouts>,
    generation: u64,
}

/// A part of a recording.
#[derive(Debug)]
#[non_exhaustive]
pub enum Replayed {
    /// A sample.
    Sample(Snapshot),
    /// An event. It stands before the samples of the batch with which it was written.
    Event(Event),
}

/// A recorded layout, and what is left of it.
#[derive(Debug)]
struct Layouts {
    recorded: Arc<Layout>,
    wanted: Arc<Layout>,
    /// The recorded row of each row that is wanted, ...
    rows: Vec<usize>,
    /// ... and the recorded place of each word.
    words: Vec<usize>,
}

impl Replay {
    /// Opens a recording.
    ///
    /// # Errors
    /// [`Error::RecordFile`] if it cannot be opened; [`Error::Recording`] if it is none.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::RecordFile { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let reader = ArrowsReader::new(BufReader::with_capacity(READ_BYTES, file));
        let reader = reader.map_err(|source| Error::Recording { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), reader, filters: None, layouts: None, generation: 0 })
    }

    /// Keeps of each sample only what these filters want; of each target, the first counts.
    #[must_use]
    pub fn with_filters(self, filters: Vec<Filter>) -> Self {
        Self { filters: Some(filters), ..self }
    }

    /// Returns the circumstances of the recording.
    pub fn metadata(&self) -> &Metadata {
        self.reader.metadata()
    }

    /// Returns the columns of the recording.
    pub fn columns(&self) -> &Columns {
        self.reader.columns()
    }

    /// Returns the schemas of the recorded objects.
    pub fn schemas(&self) -> Vec<Arc<Schema>> {
        self.columns().schemas().iter().map(|kept| Arc::clone(&kept.schema)).collect()
    }

    /// Passes every sample and event on, until the recording ends or the receiver returns false.
    /// Returns the end of the recording, if it was reached.
    ///
    /// # Errors
    /// [`Error::Recording`] at the first damaged place, after all that stands before it; an error
    /// of the receiver.
    pub fn run(mut self, mut receive: impl FnMut(Replayed) -> Result<bool>) -> Result<Option<End>> {
        loop {
            let item = self.reader.next_item();
            let failed = |source| Error::Recording { path: self.path.clone(), source };
            match item.map_err(failed)? {
                None => return Ok(self.reader.end()),
                Some(Item::Event(event)) => {
                    if !receive(Replayed::Event(event))? {
                        return Ok(None);
                    }
                }
                Some(Item::Batch(batch)) => {
                    if !self.pass_on(&batch, &mut receive)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn pass_on(
        &mut self,
        batch: &Batch,
        receive: &mut impl FnMut(Replayed) -> Result<bool>,
    ) -> Result<bool> {
        let known = self.layouts.take();
        let known = known.filter(|known| Arc::ptr_eq(&known.recorded, batch.layout()));
        let layouts = known.unwrap_or_else(|| {
            self.generation += 1;
            Layouts::new(batch.layout(), self.filters.as_deref(), self.generation)
        });
        let mut ticks = batch.by_tick();
        while let Some(tick) = ticks.next() {
            if !receive(Replayed::Sample(layouts.sample(tick)))? {
                return Ok(false);
            }
        }
        self.layouts = Some(layouts);
        Ok(true)
    }
}

impl Layouts {
    fn new(recorded: &Arc<Layout>, filters: Option<&[Filter]>, generation: u64) -> Self {
        let (mut parts, mut rows, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for group in recorded.groups() {
            let schema = group.plan.schema();
            let filter = filters
                .map(|filters| filters.iter().find(|filter| filter.target == *schema.target()));
            let plan = match filter {
                None => Arc::clone(&group.plan),
                Some(None) => continue,
                Some(Some(filter)) => ReadPlan::new(schema, &filter.compile(schema)),
            };
            if plan.row_words() == 0 {
                continue;
            }
            let is_wanted = |object: &Object| filter.flatten().is_none_or(|f| f.wants(object));
            let kept: Vec<usize> = group.plan.kept().collect();
            let place = |word: usize| kept.iter().position(|&kept| kept == word);
            let places: Vec<usize> = plan.kept().filter_map(place).collect();
            let mut objects = Vec::new();
            for (at, object) in group.objects.iter().enumerate().filter(|(_, o)| is_wanted(o)) {
                let first_word = group.first_word + at * group.plan.row_words();
                rows.push(group.first_row + at);
                words.extend(places.iter().map(|place| first_word + place));
                objects.push(object.clone());
            }
            parts.push((plan, objects));
        }
        let wanted = Layout::new(generation, parts);
        debug_assert_eq!(words.len(), wanted.words(), "every kept word was recorded");
        Self { recorded: Arc::clone(recorded), wanted, rows, words }
    }

    fn sample(&self, tick: TickRows<'_>) -> Snapshot {
        let mut sample = Snapshot::new(&self.wanted);
        let (words, states) = sample.begin(tick.tick);
        for (to, &from) in words.iter_mut().zip(&self.words) {
            *to = tick.words[from];
        }
        for (to, &from) in states.iter_mut().zip(&self.rows) {
            *to = tick.states[from];
        }
        sample.stamp(tick.window);
        sample
    }
}
