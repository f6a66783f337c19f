//! A recording as samples again: all of them, or what filters want of them.
//!
//! Invariant: a sample has the tick, the window, the states and the words that were recorded, and
//! is later than the one before it, in ticks and on the clock: what is not so is damage. What a
//! filter leaves out is in no layout.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmstrobe_core::{Filter, Layout, Object, ReadPlan, Schema, Snapshot, Window};
use vmstrobe_export::{Batch, Columns, End, Event, Item, Metadata};
use vmstrobe_host::Broker;

use super::reader::Reader;
use super::replay_session::{cut, period_ns};
use crate::condition::{Trigger, TriggerRule, Triggered};
use crate::error::{Error, Result};
use crate::notice::Notice;

pub use find::Moment;

mod find;

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
    reader: Reader,
    filters: Option<Vec<Filter>>,
    layouts: Option<Layouts>,
    generation: u64,
    /// The tick and the time of the last sample that was checked.
    last: Option<(u64, Window)>,
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

/// A trigger that a condition would have caused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DryTrigger {
    /// The trigger.
    pub triggered: Triggered,
    /// The time from the first sample to the one that triggered, in ns.
    pub after_ns: u64,
    /// The time of the sample that triggered, in ns since 1970.
    pub wall_ns: u64,
}

/// The result of [`Replay::dry_run`].
#[derive(Debug)]
#[non_exhaustive]
pub struct DryRun {
    /// The number of samples.
    pub samples: u64,
    /// The number of triggers.
    pub triggers: u64,
    /// The time from the first sample to the last, in ns.
    pub length_ns: u64,
    /// The notice on a tail that was left out.
    pub cut: Option<Notice>,
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
        Self::open_by(path, &Broker::default())
    }

    /// Opens a recording as [`Replay::open`] does, with the rights of a broker. It is read without
    /// them.
    ///
    /// # Errors
    /// As [`Replay::open`].
    pub fn open_by(path: &Path, broker: &Broker) -> Result<Self> {
        let theirs = path.to_owned();
        let path = path.to_owned();
        let file = match broker.run_apart(move || File::open(theirs))? {
            Ok(file) => file,
            Err(source) => return Err(Error::RecordFile { path, source }),
        };
        match Reader::new(file) {
            Ok(reader) => {
                Ok(Self { path, reader, filters: None, layouts: None, generation: 0, last: None })
            }
            Err(source) => Err(Error::Recording { path, source }),
        }
    }

    /// Returns the path of the recording.
    pub fn path(&self) -> &Path {
        &self.path
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

    /// Returns the time from one tick to the next, in ns; 0 if the recording does not say it.
    pub fn period_ns(&self) -> u64 {
        period_ns(self.metadata().hz)
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
    pub fn run(self, mut receive: impl FnMut(Replayed) -> Result<bool>) -> Result<Option<End>> {
        self.run_batches(|item| match item {
            Item::Event(event) => receive(Replayed::Event(event)),
            Item::Batch(batch) => pass_on(&batch, &mut receive),
        })
    }

    /// Passes every batch and event on, as [`Replay::run`] does with samples. What takes changes
    /// need not look at the values that stay as they are, which are most.
    ///
    /// # Errors
    /// As [`Replay::run`].
    pub fn run_batches(
        mut self,
        mut receive: impl FnMut(Item) -> Result<bool>,
    ) -> Result<Option<End>> {
        while let Some(item) = self.next_item()? {
            let item = match item {
                Item::Batch(batch) => Item::Batch(self.wanted(batch)),
                event => event,
            };
            if !receive(item)? {
                return Ok(None);
            }
        }
        Ok(self.reader.end())
    }

    /// Evaluates a condition over the recording, as a flight recorder would have while it was made,
    /// until the receiver of the triggers returns false.
    ///
    /// # Errors
    /// [`Error::Condition`] if the condition does not fit the recorded statistics; else as
    /// [`Replay::run`].
    pub fn dry_run(
        self,
        rule: TriggerRule,
        mut receive: impl FnMut(DryTrigger) -> bool,
    ) -> Result<DryRun> {
        let mut trigger = Trigger::new(rule, &self.schemas())?;
        let mut done = DryRun { samples: 0, triggers: 0, length_ns: 0, cut: None };
        let (path, mut begin_ns) = (self.path.clone(), None);
        let end = self.run(|replayed| {
            let Replayed::Sample(sample) = replayed else { return Ok(true) };
            let window = sample.window();
            let after_ns = window.middle_ns() - *begin_ns.get_or_insert(window.middle_ns());
            (done.samples, done.length_ns) = (done.samples + 1, after_ns);
            let Some(triggered) = trigger.sample(&sample) else { return Ok(true) };
            done.triggers += 1;
            Ok(receive(DryTrigger { triggered, after_ns, wall_ns: window.wall_ns() }))
        })?;
        done.cut = end.and_then(|end| cut(&path, end));
        Ok(done)
    }

    /// Reads the next item. The samples of a batch are later than those before it.
    fn next_item(&mut self) -> Result<Option<Item>> {
        let offset = self.reader.whole_bytes();
        let item = self.reader.next_item().and_then(|item| match item {
            Some(Item::Batch(batch)) if !self.is_later(&batch) => {
                let reason = "its samples are not later than those before".to_owned();
                Err(vmstrobe_export::Error::Damaged { offset, reason })
            }
            item => Ok(item),
        });
        item.map_err(|source| Error::Recording { path: self.path.clone(), source })
    }

    /// Returns whether each sample of a batch is later than the one before, on a clock that runs
    /// for less than 292 years.
    fn is_later(&mut self, batch: &Batch) -> bool {
        batch.ticks().iter().zip(batch.windows()).all(|(&tick, &window)| {
            let last = self.last.replace((tick, window));
            let Window { begin_ns, end_ns, .. } = window;
            let follows = |(before, earlier): (u64, Window)| {
                tick > before && begin_ns >= earlier.begin_ns && end_ns >= earlier.end_ns
            };
            begin_ns <= end_ns && end_ns <= i64::MAX as u64 && last.is_none_or(follows)
        })
    }

    /// Returns what the filters want of a batch.
    fn wanted(&mut self, batch: Batch) -> Batch {
        let known = self.layouts.take();
        let known = known.filter(|known| Arc::ptr_eq(&known.recorded, batch.layout()));
        let layouts = known.unwrap_or_else(|| {
            self.generation += 1;
            Layouts::new(batch.layout(), self.filters.as_deref(), self.generation)
        });
        let layouts = self.layouts.insert(layouts);
        batch.select(&layouts.wanted, &layouts.rows, &layouts.words)
    }
}

/// Passes on the samples of a batch, until the receiver returns false.
fn pass_on(batch: &Batch, mut receive: impl FnMut(Replayed) -> Result<bool>) -> Result<bool> {
    let mut ticks = batch.by_tick();
    while let Some(tick) = ticks.next() {
        let mut sample = Snapshot::new(batch.layout());
        let (words, states) = sample.begin(tick.tick);
        words.copy_from_slice(tick.words);
        states.copy_from_slice(tick.states);
        sample.stamp(tick.window);
        if !receive(Replayed::Sample(sample))? {
            return Ok(false);
        }
    }
    Ok(true)
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
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{recording, recording_of, sample};
    use super::*;

    #[test]
    fn a_condition_triggers_as_it_would_have() {
        // `level` falls from 99 to 0 in 100 samples of 1 ms, and begins again.
        let file = recording(1000, 64);
        let rule = |hold_for: u64, hold_off: u64| TriggerRule {
            condition: "level < 5".parse().expect("it is a condition"),
            hold_for: Duration::from_millis(hold_for),
            hold_off: Duration::from_millis(hold_off),
            triggers_max: None,
        };
        let triggers = |rule| {
            let mut ticks = Vec::new();
            let replay = Replay::open(file.path()).expect("it is a recording");
            let done = replay.dry_run(rule, |it| {
                assert_eq!(it.triggered.hits[0].objects, 2);
                assert_eq!(it.wall_ns % 1_000_000_000, it.after_ns + 1_000_000);
                ticks.push(it.after_ns / 1_000_000 + 1);
                true
            });
            let done = done.expect("the statistics are there");
            assert_eq!((done.samples, done.length_ns), (1000, 999_000_000));
            assert!(done.triggers == ticks.len() as u64 && done.cut.is_none());
            ticks
        };
        assert_eq!(triggers(rule(2, 50)), (0..10).map(|n| 98 + 100 * n).collect::<Vec<_>>());
        assert_eq!(triggers(rule(0, 350)), [96, 496, 896]);
        assert_eq!(triggers(rule(5, 0)), [0; 0]);
        let replay = Replay::open(file.path()).expect("it is a recording");
        let other = TriggerRule { condition: "exit > 5".parse().expect("it is one"), ..rule(0, 0) };
        let error = replay.dry_run(other, |_| true).expect_err("there is no such statistic");
        assert!(matches!(error, Error::Condition { .. }), "{error:?}");
    }

    #[test]
    fn samples_that_are_not_later_are_damage() {
        let rows = [(0, Some([1; 6]))];
        for ticks in [[1, 2, 2], [1, 3, 2], [1, 2, u64::MAX / 1_000_000]] {
            let file = recording_of(ticks.into_iter().map(|tick| sample(tick, &rows)), 1);
            let replay = Replay::open(file.path()).expect("it is a recording");
            let mut seen = 0;
            let ended = replay.run(|_| {
                seen += 1;
                Ok(true)
            });
            let error = ended.expect_err("the last is not later").to_string();
            assert!(error.contains("are not later than those before"), "{error}");
            assert_eq!(seen, 2, "{ticks:?}");
        }
    }
}
