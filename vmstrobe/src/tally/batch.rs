//! Batches of samples, added up as the samples themselves would be.
//!
//! Invariant: a tally of batches is that of their samples: it has the same first and last readings
//! and the same levels. It takes time for what changed, and for each batch, not for each value.

use std::ops::Range;

use vmstrobe_core::{RowState, Window};
use vmstrobe_export::{Batch, Changes};

use super::{Point, Tally};

/// The rows of one object in a batch.
pub(crate) struct BatchRow<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) group: usize,
    /// The place of the object in its group.
    object: usize,
    /// Its row in the layout.
    pub(crate) row: usize,
}

impl<'a> BatchRow<'a> {
    /// Returns the rows of each object, in the order of the layout.
    pub(crate) fn all(batch: &'a Batch) -> impl Iterator<Item = Self> {
        let groups = batch.layout().groups().iter().enumerate();
        groups.flat_map(move |(number, group)| {
            let row =
                move |object| Self { batch, group: number, object, row: group.first_row + object };
            (0..group.objects.len()).map(row)
        })
    }

    /// Returns the ranges of ticks with one state each.
    pub(super) fn states(&self) -> impl Iterator<Item = (Range<usize>, RowState)> + use<'a> {
        self.batch.states(self.row).runs(self.batch.ticks().len())
    }

    /// Returns the ranges of ticks in which it was read.
    pub(crate) fn good_runs(&self) -> Vec<Range<usize>> {
        let good = self.states().filter(|(_, state)| *state == RowState::Good);
        good.map(|(range, _)| range).collect()
    }

    /// Returns its words at a tick.
    pub(super) fn words_at(&self, tick: usize) -> Box<[u64]> {
        let words = self.batch.layout().groups()[self.group].plan.row_words();
        (0..words).map(|word| self.word(word).value_at(tick)).collect()
    }

    /// Passes on each value of a word, with the range of ticks in which it was read. `good` are
    /// the ranges in which any was.
    pub(crate) fn each_good(
        &self,
        word: usize,
        good: &[Range<usize>],
        mut receive: impl FnMut(Range<usize>, u64),
    ) {
        let Changes { first, at, values } = self.word(word);
        let mut changes = at.iter().map(|&at| at as usize).zip(values.iter().copied()).peekable();
        let mut value = first;
        for run in good {
            let mut start = run.start;
            while let Some((at, next)) = changes.next_if(|(at, _)| *at < run.end) {
                if at > start {
                    receive(start..at, value);
                    start = at;
                }
                value = next;
            }
            receive(start..run.end, value);
        }
    }

    fn word(&self, word: usize) -> Changes<'a, u64> {
        self.batch.word(self.group, self.object, word)
    }
}

impl Tally {
    /// Returns an interval that begins with the first sample of this batch, before it is added.
    pub(crate) fn of_batches(first: &Batch) -> Self {
        Self::empty(Point { tick: first.ticks()[0], window: first.windows()[0] })
    }

    /// Makes place for the objects of a batch, so that [`Tally::last_reading`] knows them.
    pub(crate) fn enrol_batch(&mut self, batch: &Batch) {
        self.enrol(batch.layout());
    }

    /// Returns the words that were read last in earlier batches of the object with this row, and
    /// when.
    pub(crate) fn last_reading(&self, row: usize) -> Option<(&[u64], Window)> {
        self.present[row].last_reading()
    }

    /// Adds the samples of a batch.
    pub(crate) fn add_batch(&mut self, batch: &Batch) {
        self.enrol(batch.layout());
        let (ticks, windows) = (batch.ticks(), batch.windows());
        // The first sample of all only opens the interval.
        let counted_from = usize::from(self.samples == 0 && ticks[0] == self.begin.tick);
        for (row, member) in BatchRow::all(batch).zip(&mut self.present) {
            self.unread_rows += member.read_batch(&row, counted_from);
        }
        self.samples += (ticks.len() - counted_from) as u64;
        let last = ticks.len() - 1;
        self.end = Point { tick: ticks[last], window: windows[last] };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmstrobe_core::{Layout, Snapshot};
    use vmstrobe_export::{BatchLimits, Batcher};
    use vmstrobe_testing::snapshots::laid_out;
    use vmstrobe_testing::snapshots::vcpu;

    use super::*;

    /// Samples of three vCPUs of which one comes, one goes, and rows are lost, aged and reset.
    fn samples() -> Vec<Arc<Snapshot>> {
        let mut layouts: Vec<Arc<Layout>> = Vec::new();
        let sample = |tick: u64| {
            let words = |n: u64| match tick {
                700.. if n == 0 => [tick - 700, 0, 0, 0, 1, 3],
                _ => [tick * n, tick / 3, tick / 2, 7 * n, tick % 2, 1000 - tick],
            };
            let here = |n: u64| match n {
                0 => true,
                1 => tick >= 300,
                _ => tick < 500,
            };
            let present: Vec<u64> = (0..3).filter(|&n| here(n)).collect();
            let rows: Vec<_> = present.iter().map(|&n| (vcpu(n as u32), Some(words(n)))).collect();
            let generation = u64::from(tick >= 300) + u64::from(tick >= 500);
            let made = laid_out(generation, tick, tick, &rows);
            if layouts.len() <= generation as usize {
                layouts.push(Arc::clone(made.layout()));
            }
            let mut sample = Snapshot::new(&layouts[generation as usize]);
            let (to, states) = sample.begin(tick);
            let from = made.objects().flat_map(|view| view.words().to_vec());
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from);
            let state = |n: u64| match (tick + n) % 97 {
                0 => RowState::Torn,
                1..=7 => RowState::Aged(3),
                8 if n == 0 => RowState::Gone,
                9 => RowState::Io(5),
                _ => RowState::Good,
            };
            present.iter().zip(states).for_each(|(&n, to)| *to = state(n));
            sample.stamp(made.window());
            Arc::new(sample)
        };
        (1..=1000).map(sample).collect()
    }

    #[test]
    fn a_tally_of_batches_is_that_of_their_samples() {
        let samples = samples();
        let mut want = Tally::new(&samples[0]);
        samples[1..].iter().for_each(|sample| want.add(sample));
        assert!(want.unread_rows() > 20 && want.objects() == 3);
        for ticks in [1, 2, 33, 100, 1000] {
            let mut batcher = Batcher::new(BatchLimits { ticks, ..BatchLimits::default() });
            let mut tally: Option<Tally> = None;
            let mut add = |batch: &Batch| {
                tally.get_or_insert_with(|| Tally::of_batches(batch)).add_batch(batch);
            };
            for sample in &samples {
                batcher.push(sample).expect("it is small").iter().for_each(&mut add);
            }
            batcher.take().iter().for_each(&mut add);
            let tally = tally.expect("there are samples");
            for per_object in [true, false] {
                assert_eq!(tally.stats(per_object), want.stats(per_object), "{ticks}");
            }
            let facts = |tally: &Tally| {
                let [begin, end] = [tally.begin(), tally.end()];
                let counts = [tally.samples(), tally.ticks(), tally.unread_rows()];
                (begin, end, counts, tally.objects())
            };
            assert_eq!(facts(&tally), facts(&want), "{ticks}");
            assert!(tally.joined().eq(want.joined()) && tally.left().eq(want.left()), "{ticks}");
        }
    }
}
