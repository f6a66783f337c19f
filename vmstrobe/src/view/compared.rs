//! A sample, the earlier ones that it is compared with, and the numbers that this gives.
//!
//! Invariant: a change comes from two values of one object that were read; a counter that was reset
//! in between has none. The sum over a VM is that of its objects that have a value.

use std::sync::Arc;

use vmstrobe_core::{Desc, RowState, Snapshot, StatType, Unit};

use super::objects::{LayoutMap, ObjectId, Placed};

/// A sample with the objects of its layout.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) map: Arc<LayoutMap>,
}

/// A sample, and earlier ones.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    pub(super) now: Sample,
    /// The sample of a second before, or the oldest.
    pub(super) second: Option<Sample>,
    /// The sample of ten seconds before, or the oldest.
    pub(super) ten: Option<Sample>,
    /// The sample from which changes are counted.
    pub(super) baseline: Option<Sample>,
}

/// The words of a statistic of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Words<'a> {
    /// The object has no such statistic.
    Absent,
    /// It could not be read.
    Unread,
    /// Its properties and words.
    Read(&'a Desc, &'a [u64]),
}

/// The change of a statistic over some objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Grown<'a> {
    /// Its properties; `None` if no object has it.
    pub(super) desc: Option<&'a Desc>,
    /// The number of objects that have it, and of those whose change is known.
    pub(super) objects: usize,
    /// See `objects`.
    pub(super) known: usize,
    /// The change of each word.
    pub(super) words: Vec<u64>,
    /// The time in which it changed, in s.
    pub(super) seconds: f64,
}

impl Sample {
    /// Returns the words of a statistic of an object.
    pub(super) fn words(&self, placed: &Placed, name: &str) -> Words<'_> {
        for part in &placed.parts {
            let group = &self.snapshot.layout().groups()[part.group];
            let Some(column) = group.plan.column(name) else { continue };
            let Some(view) = self.snapshot.object_at(part.group, part.object) else { continue };
            let desc = &group.plan.schema().descs()[column.desc];
            return match view.words().get(column.words.clone()) {
                Some(words) => Words::Read(desc, words),
                None => Words::Unread,
            };
        }
        Words::Absent
    }

    /// Returns the words of a statistic of the object of that id.
    pub(super) fn words_of(&self, id: ObjectId, name: &str) -> Words<'_> {
        self.map.find(id).map_or(Words::Absent, |placed| self.words(placed, name))
    }

    /// Returns why an object has no values, if it has none of any provider.
    pub(super) fn state(&self, placed: &Placed) -> Option<RowState> {
        let states = || {
            let views = placed.parts.iter();
            let views = views.filter_map(|it| self.snapshot.object_at(it.group, it.object));
            views.map(|view| view.state())
        };
        let first = states().next()?;
        (!states().any(RowState::has_values)).then_some(first)
    }

    /// Returns true if the object is no more.
    pub(super) fn is_gone(&self, placed: &Placed) -> bool {
        self.state(placed) == Some(RowState::Gone)
    }

    /// Returns the time of the sample, in ns of `CLOCK_MONOTONIC`.
    pub(super) fn at_ns(&self) -> u64 {
        self.snapshot.window().middle_ns()
    }

    /// Returns whether an object has other values than in an earlier sample.
    pub(super) fn has_moved(&self, placed: &Placed, before: &Self) -> bool {
        let Some(earlier) = before.map.find(placed.id) else { return true };
        let words = |sample: &Self, placed: &Placed| {
            let views = placed.parts.iter();
            let views = views.filter_map(|it| sample.snapshot.object_at(it.group, it.object));
            views.flat_map(|view| view.words().to_vec()).collect::<Vec<u64>>()
        };
        words(self, placed) != words(before, earlier)
    }
}

impl<'a> Grown<'a> {
    /// Returns the change of a statistic over some objects between two samples.
    pub(super) fn between<'p>(
        before: Option<&'a Sample>,
        now: &'a Sample,
        objects: impl Iterator<Item = &'p Placed>,
        name: &str,
    ) -> Self {
        let ns = before.map_or(0, |before| now.at_ns().saturating_sub(before.at_ns()));
        let mut grown = Self { seconds: ns as f64 * 1e-9, ..Self::default() };
        for placed in objects {
            let desc = match now.words(placed, name) {
                Words::Absent => continue,
                Words::Unread => None,
                Words::Read(desc, words) => {
                    grown.add(
                        before.map_or(Words::Unread, |it| it.words_of(placed.id, name)),
                        words,
                    );
                    Some(desc)
                }
            };
            grown.objects += 1;
            grown.desc = grown.desc.or(desc);
        }
        grown
    }

    fn add(&mut self, before: Words<'_>, now: &[u64]) {
        let Words::Read(_, before) = before else { return };
        let is_reset = before.len() != now.len() || now.iter().zip(before).any(|(n, b)| n < b);
        if is_reset || self.seconds <= 0.0 {
            return;
        }
        self.known += 1;
        self.words.resize(now.len().max(self.words.len()), 0);
        let sums = self.words.iter_mut().zip(now.iter().zip(before));
        sums.for_each(|(sum, (now, before))| *sum = sum.saturating_add(now - before));
    }

    /// Returns the change of all words together, if it is known.
    pub(super) fn total(&self) -> Option<u64> {
        (self.known > 0).then(|| vmstrobe_core::total(&self.words))
    }
}

/// Returns whether a statistic counts, so that it has a rate.
pub(super) fn counts(desc: &Desc) -> bool {
    let is_level = matches!(desc.stat_type, StatType::Instant | StatType::Peak);
    !is_level && !matches!(desc.stat_type, StatType::Unknown(_)) && !desc.is_boolean()
}

/// Returns true if the values of a statistic are times. Those of a histogram of times are counts.
pub(super) fn is_time(desc: &Desc) -> bool {
    has_times(desc) && !desc.stat_type.is_histogram()
}

/// Returns true if the values of a statistic, or the bounds of its buckets, are times.
pub(super) fn has_times(desc: &Desc) -> bool {
    desc.unit == Unit::Seconds
}

/// Returns the factor from stored values to ns for a time, to the plain unit for anything else, and
/// 1 for the counts of a histogram.
pub(super) fn factor(desc: &Desc) -> f64 {
    if desc.stat_type.is_histogram() { 1.0 } else { unit_factor(desc) }
}

/// Returns the factor from stored units, as the bounds of buckets have, to ns or the plain unit.
pub(super) fn unit_factor(desc: &Desc) -> f64 {
    let factor = desc.scale.factor().unwrap_or(1.0);
    if has_times(desc) { factor * 1e9 } else { factor }
}
