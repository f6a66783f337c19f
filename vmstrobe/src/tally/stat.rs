//! One statistic over one interval: how much, how fast, of how many objects.
//!
//! Invariant: what was counted is never lost in a sum: a sum that would overflow stays at the top.
//! A rate stands only where every part of it has one.

use std::sync::Arc;

use vmstrobe_core::{Desc, Rate, Schema, total};

/// A summary of the samples of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The number of samples.
    pub samples: u64,
    /// The number of samples in which it was not 0.
    pub trues: u64,
    /// The lowest.
    pub min: u64,
    /// The highest.
    pub max: u64,
    /// The sum of all.
    pub sum: u128,
    /// The last; of several objects, the sum of theirs.
    pub last: u64,
}

/// One statistic of one object, or of all together.
#[derive(Clone, Debug, PartialEq)]
pub struct StatTally {
    /// The object's path; `None` for all together.
    pub path: Option<Box<str>>,
    /// The schema of the statistic.
    pub schema: Arc<Schema>,
    /// Its index among the schema's descriptors.
    pub desc: usize,
    /// The amount.
    pub amount: Amount,
    /// The rate; `None` of a level, and if a counter was reset meanwhile.
    pub rate: Option<Rate>,
    /// The number of objects in it.
    pub objects: usize,
    /// The time for which they were there, added up, in s.
    pub object_seconds: f64,
}

/// The amount that was counted, in stored units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// The growth of a counter; what was counted since, if it was reset.
    Count(u64),
    /// The growth of each bucket of a histogram, ascending.
    Buckets(Vec<u64>),
    /// The samples of an instant, a peak or a boolean.
    Level(Level),
}

impl Level {
    /// Returns the share of samples in which it was not 0, for a boolean.
    pub fn true_share(&self) -> f64 {
        self.trues as f64 / self.samples.max(1) as f64
    }

    /// Returns the mean of the samples; of several objects, that of one of them.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.samples.max(1) as f64
    }

    /// Adds a sample.
    pub(super) fn note(&mut self, word: u64) {
        self.note_times(word, 1);
    }

    /// Adds so many samples of one word, at least one.
    pub(super) fn note_times(&mut self, word: u64, times: u64) {
        (self.min, self.max) = match self.samples {
            0 => (word, word),
            _ => (self.min.min(word), self.max.max(word)),
        };
        self.samples += times;
        self.trues += if word == 0 { 0 } else { times };
        self.sum = self.sum.saturating_add(u128::from(word) * u128::from(times));
        self.last = word;
    }

    /// Adds another object's: the range is that of any one, the last value the sum of all.
    fn add(&mut self, other: Self) {
        (self.min, self.max) = match (self.samples, other.samples) {
            (_, 0) => (self.min, self.max),
            (0, _) => (other.min, other.max),
            _ => (self.min.min(other.min), self.max.max(other.max)),
        };
        self.samples += other.samples;
        self.trues += other.trues;
        self.sum = self.sum.saturating_add(other.sum);
        self.last = self.last.saturating_add(other.last);
    }
}

impl StatTally {
    /// Returns the descriptor.
    pub fn desc(&self) -> &Desc {
        &self.schema.descs()[self.desc]
    }

    /// Returns true if a counter was set back meanwhile: it has no rate then.
    pub fn was_reset(&self) -> bool {
        self.rate.is_none() && !matches!(self.amount, Amount::Level(_))
    }

    /// Returns true if nothing happened. A reset is something; a level of 0 all the time is not.
    pub fn is_at_rest(&self) -> bool {
        match &self.amount {
            Amount::Level(level) => level.max == 0,
            amount => amount.total() == 0 && !self.was_reset(),
        }
    }

    /// Returns true if it would be the sum of numbers that have none, such as ids.
    pub fn has_no_sum(&self) -> bool {
        self.objects > 1 && self.desc().is_id()
    }

    /// Adds the same statistic of another object.
    pub(super) fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.object_seconds += other.object_seconds;
        // One that was reset takes the rate from all.
        self.rate = self.rate.and(other.rate);
        match (&mut self.amount, other.amount) {
            (Amount::Count(sum), Amount::Count(count)) => *sum = sum.saturating_add(count),
            (Amount::Buckets(sums), Amount::Buckets(counts)) => {
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum = sum.saturating_add(count);
                }
            }
            (Amount::Level(sum), Amount::Level(level)) => sum.add(level),
            // One statistic is of one kind.
            _ => {}
        }
    }
}

impl Amount {
    /// Returns how much was counted, all buckets together; of a level, its last value.
    pub fn total(&self) -> u64 {
        match self {
            Self::Count(count) => *count,
            Self::Buckets(counts) => total(counts),
            Self::Level(level) => level.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstrobe_core::{Interval, StatType, Target};

    fn line(amount: Amount, rate: Option<Rate>) -> StatTally {
        let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
        StatTally { path: None, schema, desc: 0, amount, rate, objects: 1, object_seconds: 2.0 }
    }

    fn level(words: &[u64]) -> Level {
        let mut level = Level::default();
        words.iter().for_each(|&word| level.note(word));
        level
    }

    #[test]
    fn levels_know_all_their_samples() {
        let level = level(&[3, 0, 7, 5]);
        assert_eq!(level, Level { samples: 4, trues: 3, min: 0, max: 7, sum: 15, last: 5 });
        assert_eq!((level.true_share(), level.mean()), (0.75, 3.75));
        assert_eq!((Level::default().true_share(), Level::default().mean()), (0.0, 0.0));
    }

    #[test]
    fn a_sum_has_all_parts() {
        let interval = Interval { seconds: 2.0, seconds_min: 2.0, seconds_max: 2.0 };
        let rate = Some(Rate::of(5, interval));
        let mut sum = line(Amount::Count(5), rate);
        sum.add(line(Amount::Count(u64::MAX), rate));
        assert_eq!((sum.amount.total(), sum.objects, sum.object_seconds), (u64::MAX, 2, 4.0));
        assert!(sum.rate.is_some());
        sum.add(line(Amount::Count(1), None));
        assert_eq!(sum.rate, None, "one was reset");

        let mut buckets = line(Amount::Buckets(vec![1, 2]), rate);
        buckets.add(line(Amount::Buckets(vec![10, 0]), rate));
        assert_eq!(buckets.amount, Amount::Buckets(vec![11, 2]));

        let mut levels = line(Amount::Level(level(&[4, 4])), None);
        levels.add(line(Amount::Level(level(&[0, 9])), None));
        let want = Level { samples: 4, trues: 3, min: 0, max: 9, sum: 17, last: 13 };
        assert_eq!(levels.amount, Amount::Level(want));
    }

    #[test]
    fn which_one_it_is_has_no_sum() {
        let named = |name, stat_type| {
            let desc = Desc { stat_type, ..Desc::counter(name, 0) };
            let schema = Schema::new("sched", Target::Vcpu, vec![desc]);
            let line = StatTally { schema, ..line(Amount::Level(level(&[7])), None) };
            let mut sum = line.clone();
            sum.add(line.clone());
            [line.has_no_sum(), sum.has_no_sum()]
        };
        assert_eq!(named("thread_id", StatType::Instant), [false, true]);
        assert_eq!(named("depth", StatType::Instant), [false, false]);
        assert_eq!(named("lost_id", StatType::Cumulative), [false, false]);
    }

    #[test]
    fn rest_is_nothing_counted_or_0_throughout() {
        let interval = Interval { seconds: 2.0, seconds_min: 2.0, seconds_max: 2.0 };
        let rate = Some(Rate::of(0, interval));
        let rests = |amount, rate| line(amount, rate).is_at_rest();
        assert!(rests(Amount::Count(0), rate) && rests(Amount::Buckets(vec![0, 0]), rate));
        assert!(!rests(Amount::Count(0), None), "it was reset");
        assert!(rests(Amount::Level(level(&[0, 0])), None));
        assert!(!rests(Amount::Level(level(&[1, 0])), None));
    }
}
