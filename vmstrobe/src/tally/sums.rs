//! Lines of several objects, added up: one for each statistic that is the same.
//!
//! Invariant: what is the same is found by its hash, so that the time grows with the lines alone,
//! whoever chose the names.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use vmstrobe_core::{Desc, Schema};

use super::stat::{Amount, StatTally};

/// Sums in the order in which their statistics came.
#[derive(Default)]
pub(super) struct Sums {
    lines: Vec<StatTally>,
    places: HashMap<Statistic, usize>,
}

/// A statistic, wherever it stands among those of its object.
#[derive(Debug)]
pub(crate) struct Statistic {
    pub(crate) schema: Arc<Schema>,
    pub(crate) desc: usize,
}

impl Sums {
    /// Adds a line of one object, or a sum.
    pub(super) fn add(&mut self, mut line: StatTally) {
        line.path = None;
        match self.places.get(&Statistic::of(&line)) {
            Some(&at) => self.lines[at].add(line),
            None => {
                self.places.insert(Statistic::of(&line), self.lines.len());
                self.lines.push(line);
            }
        }
    }

    /// Adds a line of one object without keeping its schema, and takes what that costs of `room`,
    /// in bytes. Returns false if there is no sum yet, and no room for another.
    pub(super) fn add_within(&mut self, line: &StatTally, room: &mut usize) -> bool {
        let of = Statistic::of(line);
        if let Some(&at) = self.places.get(&of) {
            self.lines[at].add(line.clone());
            return true;
        }
        let Some(left) = room.checked_sub(bytes(line)) else { return false };
        *room = left;
        let (provider, target) = (line.schema.provider(), line.schema.target().clone());
        let alone = Desc { offset: 0, ..line.desc().clone() };
        let schema = Schema::new(provider, target, vec![alone]);
        self.add(StatTally { schema, desc: 0, ..line.clone() });
        true
    }

    /// Returns the sums.
    pub(super) fn lines(&self) -> &[StatTally] {
        &self.lines
    }

    /// As [`Sums::lines`], for good.
    pub(super) fn into_lines(self) -> Vec<StatTally> {
        self.lines
    }
}

/// Memory of a sum beside its name and its buckets, roughly, in bytes.
const SUM_BYTES: usize = 512;

fn bytes(line: &StatTally) -> usize {
    let buckets = match &line.amount {
        Amount::Buckets(counts) => size_of_val(&counts[..]),
        Amount::Count(_) | Amount::Level(_) => 0,
    };
    SUM_BYTES + line.desc().name.len() + buckets
}

impl Statistic {
    pub(crate) fn of(line: &StatTally) -> Self {
        Self { schema: Arc::clone(&line.schema), desc: line.desc }
    }

    /// Returns all that tells it from others: everything but its place.
    fn key(&self) -> impl Eq + Hash {
        let desc = &self.schema.descs()[self.desc];
        let kind = (desc.stat_type, desc.unit, desc.scale, desc.other_flags);
        let size = (desc.size, desc.bucket_size);
        (&desc.name, self.schema.provider(), self.schema.target(), kind, size)
    }
}

impl Hash for Statistic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Statistic {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.schema, &other.schema) && self.desc == other.desc
            || self.key() == other.key()
    }
}

impl Eq for Statistic {}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstrobe_core::{Target, Unit};

    /// A count of 1 of the last of these statistics.
    fn line(target: &str, descs: Vec<Desc>) -> StatTally {
        let schema = Schema::new("xyz", Target::from_name(target), descs);
        let desc = schema.descs().len() - 1;
        let path = Some("/xyz".into());
        let amount = Amount::Count(1);
        StatTally { path, schema, desc, amount, rate: None, objects: 1, object_seconds: 1.0 }
    }

    fn ops(offset: u32) -> Desc {
        Desc::counter("ops", offset)
    }

    #[test]
    fn a_statistic_is_the_same_beside_others() {
        let mut sums = Sums::default();
        let bytes = || Desc::counter("bytes", 0);
        for (target, descs, want) in [
            ("queue", vec![ops(0)], 1),
            ("queue", vec![bytes(), ops(8)], 1),
            ("disk", vec![ops(0)], 2),
            ("queue", vec![bytes()], 3),
            ("queue", vec![Desc { unit: Unit::Seconds, ..ops(0) }], 4),
            ("disk", vec![bytes(), ops(8)], 4),
        ] {
            sums.add(line(target, descs));
            assert_eq!(sums.lines().len(), want);
        }
        let totals: Vec<_> = sums.lines().iter().map(|line| line.amount.total()).collect();
        assert_eq!(totals, [2, 2, 1, 1]);
        assert!(sums.into_lines().iter().all(|line| line.path.is_none()));
    }

    #[test]
    fn sums_take_no_more_than_their_room() {
        let (mut sums, mut room) = (Sums::default(), 2 * SUM_BYTES);
        let of = |name: &str| line("queue", vec![ops(0), Desc::counter(name, 8)]);
        assert!(sums.add_within(&of("a"), &mut room) && sums.add_within(&of("a"), &mut room));
        assert_eq!(room, SUM_BYTES - 1);
        assert!(!sums.add_within(&of("b"), &mut room), "it has a name, too");
        assert!(sums.add_within(&of("a"), &mut room));
        let [sum] = sums.lines() else { panic!("there is one") };
        assert_eq!((sum.amount.total(), sum.schema.descs().len()), (3, 1));
    }
}
