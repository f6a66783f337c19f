//! The bins of a report: stretches of one width, of which two become one where there are too many.
//!
//! Invariant: the bins follow each other without a gap between them, from the first sample to the
//! last, and each sample is in one of them.

use std::ops::Range;

use vmstrobe_core::Window;

use crate::stretch::{Stretch, StretchKind, Stretches};

/// The bins so far.
#[derive(Debug)]
pub(super) struct Axis {
    stretches: Stretches,
    /// The stretches that have ended.
    ended: u64,
    /// A bin is 2 to this power stretches.
    joined: u32,
    begin_ns: u64,
    /// The end of each bin; of the last one, as far as it has come.
    ends_ns: Vec<u64>,
}

/// Bins that are joined to longer ones.
#[derive(Debug)]
pub(super) struct Spans {
    pub(super) width_ns: u64,
    pub(super) spans: Vec<Span>,
}

/// Bins that follow each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) bins: Range<usize>,
    /// Its begin and end, in ns of `CLOCK_MONOTONIC`.
    pub(super) time_ns: Range<u64>,
    pub(super) kind: StretchKind,
}

impl Axis {
    /// Begins with the first sample, in bins of this width.
    pub(super) fn new(width_ns: u64, first: Window) -> Self {
        let (stretches, begin_ns) = (Stretches::new(width_ns), first.middle_ns());
        Self { stretches, ended: 0, joined: 0, begin_ns, ends_ns: Vec::new() }
    }

    /// Returns the width of a bin, in ns.
    pub(super) fn width_ns(&self) -> u64 {
        self.stretches.width_ns() << self.joined
    }

    /// Returns the number of bins.
    pub(super) fn len(&self) -> usize {
        self.ends_ns.len()
    }

    /// Adds the next samples. Returns the bin of each.
    pub(super) fn add(&mut self, windows: &[Window]) -> Vec<u32> {
        let mut bins = Vec::with_capacity(windows.len());
        for (range, stretch) in self.stretches.split(windows) {
            let bin = (self.ended >> self.joined) as usize;
            bins.resize(range.end, bin as u32);
            let end_ns = windows[range.end - 1].middle_ns();
            match self.ends_ns.get_mut(bin) {
                Some(end) => *end = end_ns,
                None => self.ends_ns.push(end_ns),
            }
            self.ended += u64::from(stretch.is_some());
        }
        bins
    }

    /// Joins each two bins: bin n becomes bin n / 2.
    pub(super) fn halve(&mut self) {
        self.joined += 1;
        let pairs = self.ends_ns.chunks(2);
        self.ends_ns = pairs.filter_map(<[u64]>::last).copied().collect();
    }

    /// Returns the bins whose end lies between two times.
    pub(super) fn ending_between(&self, times_ns: Range<u64>) -> Range<usize> {
        let start = self.ends_ns.partition_point(|&end| end <= times_ns.start);
        let end = self.ends_ns.partition_point(|&end| end < times_ns.end);
        start..end.max(start)
    }

    /// Returns the end of a bin, in ns of `CLOCK_MONOTONIC`.
    pub(super) fn end_ns(&self, bin: usize) -> u64 {
        self.ends_ns[bin]
    }

    /// Joins the bins to spans of this width, which is at least that of a bin.
    pub(super) fn spans(&self, width_ns: u64) -> Spans {
        let width_ns = width_ns.max(self.width_ns());
        let mut stretches = Stretches::new(width_ns);
        let at = |at_ns| Window { begin_ns: at_ns, end_ns: at_ns, wall_offset_ns: 0 };
        stretches.push(at(self.begin_ns));
        let (mut spans, mut first) = (Vec::new(), 0);
        let mut add = |bins: Range<usize>, stretch: Stretch| {
            let time_ns = stretch.begin_ns..stretch.end_ns;
            spans.push(Span { bins, time_ns, kind: stretch.kind });
        };
        for (&end_ns, next) in self.ends_ns.iter().zip(1..) {
            // Of bins of this width, each is a span.
            let is_bin = width_ns == self.width_ns();
            let ended = stretches.push(at(end_ns));
            if let Some(stretch) = ended.or_else(|| is_bin.then(|| stretches.cut())?) {
                add(first..next, stretch);
                first = next;
            }
        }
        if first < self.len()
            && let Some(stretch) = stretches.cut()
        {
            add(first..self.len(), stretch);
        }
        Spans { width_ns, spans }
    }
}

impl Spans {
    /// Returns the number of spans in which samples are missing, and their time in ns.
    pub(super) fn gaps(&self) -> (u64, u64) {
        let gaps = self.spans.iter().filter(|span| span.kind == StretchKind::Gap);
        gaps.fold((0, 0), |(number, time_ns), span| {
            (number + 1, time_ns + (span.time_ns.end - span.time_ns.start))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at_ms(at_ms: u64) -> Window {
        Window { begin_ns: at_ms * MS, end_ns: at_ms * MS, wall_offset_ns: 0 }
    }

    fn axis(times_ms: impl IntoIterator<Item = u64>) -> (Axis, Vec<u32>) {
        let windows: Vec<Window> = times_ms.into_iter().map(at_ms).collect();
        let mut axis = Axis::new(10 * MS, windows[0]);
        let bins = windows.chunks(7).flat_map(|windows| axis.add(windows)).collect();
        (axis, bins)
    }

    fn lengths_ms(spans: &Spans) -> Vec<(u64, StretchKind)> {
        let length = |span: &Span| (span.time_ns.end - span.time_ns.start) / MS;
        spans.spans.iter().map(|span| (length(span), span.kind)).collect()
    }

    #[test]
    fn each_sample_has_a_bin() {
        use StretchKind::{Gap, Short, Whole};
        let (axis, bins) = axis((0..=25).chain([90, 95]));
        assert_eq!(bins[..11], [0; 11]);
        assert_eq!(bins[11..21], [1; 10]);
        assert_eq!((&bins[21..27], bins[27]), (&[2; 6][..], 3));
        assert_eq!(axis.len(), 4);
        let want = [(10, Whole), (10, Whole), (70, Gap), (5, Short)];
        assert_eq!(lengths_ms(&axis.spans(10 * MS)), want);
        // The gap is a part of what is longer.
        assert_eq!(lengths_ms(&axis.spans(50 * MS)), [(90, Whole), (5, Short)]);
        assert_eq!(axis.spans(50 * MS).spans[0].bins, 0..3);
        assert_eq!(axis.ending_between(10 * MS..90 * MS), 1..2);
        assert_eq!(axis.ending_between(9 * MS..91 * MS), 0..3);
    }

    #[test]
    fn pairs_are_joined_wherever_the_samples_have_come_to() {
        use StretchKind::{Short, Whole};
        for halved_at in [20, 25, 30, 33, 100] {
            let mut axis = Axis::new(10 * MS, at_ms(0));
            let early: Vec<Window> = (0..=halved_at).map(at_ms).collect();
            axis.add(&early);
            axis.halve();
            let late: Vec<Window> = (halved_at + 1..=105).map(at_ms).collect();
            let bins = axis.add(&late);
            assert_eq!(bins.last(), Some(&5), "{halved_at}");
            let want = [[(20, Whole); 5].as_slice(), &[(5, Short)]].concat();
            assert_eq!(lengths_ms(&axis.spans(0)), want, "{halved_at}");
        }
    }
}
