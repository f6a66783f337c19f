//! The values that counters take within a batch, tick by tick.
//!
//! Invariant: the values of one tick are in the order in which they were added. They are put in
//! place by counting, in two passes: a comparing sort of so many short runs took a third of the
//! time of a trace.

/// A value that a counter takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) track: u64,
    pub(super) value: i64,
}

/// The values of a batch.
#[derive(Debug, Default)]
pub(super) struct Changes {
    added: Vec<(u32, Value)>,
    sorted: Vec<Value>,
    /// The place in `sorted` behind the values of each tick.
    ends: Vec<usize>,
}

impl Changes {
    /// Begins a batch of that many ticks. Memory is kept.
    pub(super) fn clear(&mut self, ticks: usize) {
        self.added.clear();
        self.ends.clear();
        self.ends.resize(ticks, 0);
    }

    /// Adds a value at a tick, an index into the batch.
    pub(super) fn add(&mut self, at: usize, track: u64, value: i64) {
        self.ends[at] += 1;
        self.added.push((at as u32, Value { track, value }));
    }

    /// Puts the values in the order of the ticks.
    pub(super) fn sort(&mut self) {
        let mut total = 0;
        for end in &mut self.ends {
            // Begins as the start, and becomes the end as the values are put there.
            total += std::mem::replace(end, total);
        }
        self.sorted.resize(total, Value::default());
        for &(at, value) in &self.added {
            let end = &mut self.ends[at as usize];
            self.sorted[*end] = value;
            *end += 1;
        }
    }

    /// Returns the values of a tick, once they are sorted.
    pub(super) fn of(&self, at: usize) -> &[Value] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.sorted[start..self.ends[at]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_tick_by_tick_in_the_order_in_which_they_were_added() {
        let mut changes = Changes::default();
        for batch in 0..2 {
            changes.clear(4);
            for (at, track) in [(0, 1), (3, 1), (1, 2), (3, 2), (3, 3), (0, 9)] {
                changes.add(at, track, batch);
            }
            changes.sort();
            let tracks = |at| changes.of(at).iter().map(|v| v.track).collect::<Vec<_>>();
            assert_eq!([0, 1, 2, 3].map(tracks), [vec![1, 9], vec![2], vec![], vec![1, 2, 3]]);
            assert!(changes.of(3).iter().all(|value| value.value == batch));
        }
    }
}
