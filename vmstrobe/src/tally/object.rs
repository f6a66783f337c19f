//! One object over one interval: its first and its last reading, and its levels in between.
//!
//! Invariant: it holds words of its own and no snapshot, so that it takes no buffer from the
//! sampler however long its object has been gone.

#[cfg(feature = "export")]
use std::ops::Range;
use std::sync::Arc;

#[cfg(feature = "export")]
use vmstrobe_core::RowState;
use vmstrobe_core::{
    Change, Column, Interval, Object, ObjectView, ReadPlan, Snapshot, StatType, Value, WORD_BYTES,
    Window, change,
};

#[cfg(feature = "export")]
use super::batch::BatchRow;
use super::stat::{Amount, Level, StatTally};

/// Memory of a descriptor and the start of its name, roughly, in bytes.
const DESC_BYTES: usize = 128;

/// One object over the interval.
pub(super) struct ObjectTally {
    pub(super) object: Object,
    plan: Arc<ReadPlan>,
    first: Option<Reading>,
    /// The last reading but for one in the newest sample: see `is_current`.
    last: Option<Reading>,
    /// True if the newest sample has the last reading.
    is_current: bool,
    /// The tick of the last sample in which it was there, be its values new or not.
    seen: Option<u64>,
    /// In the order of the columns.
    levels: Vec<Watched>,
}

/// The words of a row, when they were read.
#[derive(Clone)]
struct Reading {
    tick: u64,
    window: Window,
    words: Box<[u64]>,
}

/// A statistic of which every sample counts.
struct Watched {
    column: usize,
    level: Level,
}

impl Reading {
    fn of(view: ObjectView<'_>, sample: &Snapshot) -> Self {
        Self { tick: sample.tick(), window: sample.window(), words: view.words().into() }
    }
}

impl ObjectTally {
    pub(super) fn new(object: &Object, plan: &Arc<ReadPlan>) -> Self {
        let is_level = |desc: usize| {
            let desc = &object.schema.descs()[desc];
            let level =
                matches!(desc.stat_type, StatType::Instant | StatType::Peak | StatType::Unknown(_));
            level || desc.is_boolean()
        };
        let columns = plan.columns().iter().enumerate();
        let levels = columns.filter(|(_, column)| is_level(column.desc));
        Self {
            object: object.clone(),
            plan: Arc::clone(plan),
            first: None,
            last: None,
            is_current: false,
            seen: None,
            levels: levels.map(|(column, _)| Watched { column, level: Level::default() }).collect(),
        }
    }

    /// Returns whether its words are at the places of this plan.
    pub(super) fn is_read_by(&self, plan: &Arc<ReadPlan>) -> bool {
        Arc::ptr_eq(&self.plan, plan) || self.plan == *plan
    }

    /// Takes new values. Unless it `counts`, the sample only opens the interval, and levels are
    /// those of the samples behind it.
    pub(super) fn read(&mut self, view: ObjectView<'_>, sample: &Snapshot, counts: bool) {
        self.first.get_or_insert_with(|| Reading::of(view, sample));
        (self.is_current, self.seen) = (true, Some(sample.tick()));
        if counts {
            for Watched { column, level } in &mut self.levels {
                level.note(view.words()[self.plan.columns()[*column].words.start]);
            }
        }
    }

    /// Notes that it is there, with values that were taken when they were new.
    pub(super) fn is_there(&mut self, sample: &Snapshot) {
        self.seen = Some(sample.tick());
    }

    /// Keeps what it has of the newest sample, whose row this is: the next one has nothing newer.
    pub(super) fn keep(&mut self, view: ObjectView<'_>, newest: &Snapshot) {
        if std::mem::take(&mut self.is_current) {
            self.last = Some(Reading::of(view, newest));
        }
    }

    /// Adds its rows of a batch, of which those from `counted_from` on count. Returns the number of
    /// rows that could not be read.
    #[cfg(feature = "export")]
    pub(super) fn read_batch(&mut self, row: &BatchRow<'_>, counted_from: usize) -> u64 {
        let (ticks, windows) = (row.batch.ticks(), row.batch.windows());
        let good = row.good_runs();
        let reading =
            |at: usize| Reading { tick: ticks[at], window: windows[at], words: row.words_at(at) };
        if let (Some(first), Some(last)) = (good.first(), good.last()) {
            self.first.get_or_insert_with(|| reading(first.start));
            self.last = Some(reading(last.end - 1));
        }
        let counted =
            |range: &Range<usize>| range.end.saturating_sub(range.start.max(counted_from)) as u64;
        let mut unread = 0;
        for (range, state) in row.states() {
            match state {
                RowState::Good | RowState::Aged(_) => self.seen = Some(ticks[range.end - 1]),
                RowState::Gone => {}
                _ => unread += counted(&range),
            }
        }
        for Watched { column, level } in &mut self.levels {
            let word = self.plan.columns()[*column].words.start;
            row.each_good(word, &good, |range, value| match counted(&range) {
                0 => {}
                times => level.note_times(value, times),
            });
        }
        unread
    }

    /// Returns the words that were read last and kept, and when.
    #[cfg(feature = "export")]
    pub(super) fn last_reading(&self) -> Option<(&[u64], Window)> {
        self.last.as_ref().map(|last| (&*last.words, last.window))
    }

    /// Has it ever been read?
    pub(super) fn was_read(&self) -> bool {
        self.first.is_some()
    }

    /// Was it first read behind that tick?
    pub(super) fn came_after(&self, tick: u64) -> bool {
        self.first.as_ref().is_some_and(|first| first.tick != tick)
    }

    /// Was it last there before that tick?
    pub(super) fn went_before(&self, tick: u64) -> bool {
        self.seen.is_some_and(|seen| seen != tick)
    }

    /// Returns how much memory it takes, roughly, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let names = self.object.schema.descs().iter().map(|desc| desc.name.len() + DESC_BYTES);
        let readings = 2 * self.plan.row_words() * WORD_BYTES;
        size_of::<Self>() + self.object.path.len() + names.sum::<usize>() + readings
    }

    /// Returns each of its statistics; `newest` is its row in the newest sample and that sample,
    /// if it has one there.
    pub(super) fn stats(&self, newest: Option<(ObjectView<'_>, &Snapshot)>) -> Vec<StatTally> {
        let newest = newest.filter(|_| self.is_current);
        let last = match (&newest, &self.last) {
            (Some((view, sample)), _) => Some((view.words(), sample.window())),
            (None, last) => last.as_ref().map(|last| (&*last.words, last.window)),
        };
        let (Some(first), Some((words, window))) = (&self.first, last) else { return Vec::new() };
        let Some(interval) = Interval::between(first.window, window) else { return Vec::new() };
        let columns = self.plan.columns().iter().enumerate();
        let line = |(at, column): (usize, &Column)| {
            let desc = &self.object.schema.descs()[column.desc];
            let value = |words| Value::new(desc, words);
            let was = value(&first.words[column.words.clone()]);
            let is = value(&words[column.words.clone()]);
            let (amount, rate) = match change(was, is, interval) {
                Change::Delta { delta, rate } => (Amount::Count(delta), Some(rate)),
                Change::Buckets { deltas, rate } => (Amount::Buckets(deltas), Some(rate)),
                Change::Reset { since } => match since[..] {
                    [count] if is.number().is_some() => (Amount::Count(count), None),
                    _ => (Amount::Buckets(since), None),
                },
                Change::Level(_) => (Amount::Level(self.level(at)), None),
            };
            StatTally {
                path: Some(self.object.path.clone()),
                schema: Arc::clone(&self.object.schema),
                desc: column.desc,
                amount,
                rate,
                objects: 1,
                object_seconds: interval.seconds,
            }
        };
        columns.map(line).collect()
    }

    fn level(&self, column: usize) -> Level {
        let at = self.levels.binary_search_by_key(&column, |watched| watched.column);
        at.map(|at| self.levels[at].level).unwrap_or_default()
    }
}
