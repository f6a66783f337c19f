//! The rates of some series over a moving range of time: as the range moves on, only what is new is
//! read.
//!
//! Invariant: what is held covers the range of the last update, as far as there are samples.
//! Stretches do not change while the range moves forward, so that a chart of them does not flicker.

use std::collections::VecDeque;
use std::sync::Arc;

use vmstrobe_core::Layout;

use super::follow::{Follower, Rates, Spot};
use super::{History, begin_ns, end_ns};

/// The part of a range that is held beside it, so that small steps back cost nothing.
const MARGIN: u64 = 2;

/// The rates of some series over a range of time.
#[derive(Debug)]
pub(crate) struct Strip {
    width_ns: u64,
    series_of_cells: Box<[usize]>,
    follower: Follower,
    held: VecDeque<Rates>,
    /// The time from which on all is held, and up to which samples were followed; `None` before the
    /// first.
    followed: Option<(u64, u64)>,
}

impl Strip {
    /// Makes one for stretches of a width, and statistics each of which is added to a series.
    pub(crate) fn new(width_ns: u64, series_of_cells: Vec<usize>) -> Self {
        Self {
            width_ns,
            follower: Follower::new(width_ns, &series_of_cells),
            series_of_cells: series_of_cells.into(),
            held: VecDeque::new(),
            followed: None,
        }
    }

    /// Returns the width of the stretches, in ns.
    pub(crate) fn width_ns(&self) -> u64 {
        self.width_ns
    }

    /// Reads what is missing of a range of time, but no more than about so many lists of changes at
    /// once. `find` gives the places of all statistics in a layout. Returns true if all is there.
    pub(crate) fn update(
        &mut self,
        history: &History,
        from_ns: u64,
        to_ns: u64,
        mut lists: usize,
        mut find: impl FnMut(&Arc<Layout>) -> Vec<Option<Spot>>,
    ) -> bool {
        let Some((oldest_ns, _)) = history.span() else { return true };
        let margin_ns = to_ns.saturating_sub(from_ns) / MARGIN;
        let keep_ns = from_ns.saturating_sub(margin_ns);
        let is_covered = |(begin_ns, reached_ns): &(u64, u64)| {
            *begin_ns <= from_ns.max(oldest_ns) && *reached_ns >= from_ns.max(oldest_ns)
        };
        let known = self.followed.filter(is_covered);
        if known.is_none() {
            self.follower = Follower::new(self.width_ns, &self.series_of_cells);
            self.held.clear();
        }
        let (mut begin, mut reached_ns) = known.unwrap_or((keep_ns, keep_ns));
        let mut is_complete = true;
        for batch in history.later_than(reached_ns) {
            is_complete = begin_ns(batch) > to_ns;
            if is_complete || lists == 0 {
                break;
            }
            lists = lists.saturating_sub(self.series_of_cells.len());
            self.follower.follow(batch, &mut find, |rates| self.held.push_back(rates));
            reached_ns = end_ns(batch);
            is_complete = true;
        }
        while let Some(oldest) = self.held.front().filter(|oldest| oldest.end_ns < keep_ns) {
            begin = oldest.end_ns;
            self.held.pop_front();
        }
        self.followed = Some((begin, reached_ns));
        is_complete
    }

    /// Returns the stretches that overlap a range of time.
    pub(crate) fn between(
        &self,
        from_ns: u64,
        to_ns: u64,
    ) -> impl DoubleEndedIterator<Item = &Rates> {
        let first = self.held.partition_point(|rates| rates.end_ns <= from_ns);
        let end = self.held.partition_point(|rates| rates.begin_ns < to_ns);
        self.held.range(first..end.max(first))
    }

    /// Returns the stretches of one series that overlap a range of time: begin, end and rate.
    pub(crate) fn series(
        &self,
        series: usize,
        from_ns: u64,
        to_ns: u64,
    ) -> impl Iterator<Item = (u64, u64, f64)> {
        let stretches = self.between(from_ns, to_ns);
        stretches.map(move |it| {
            (it.begin_ns, it.end_ns, it.rates.get(series).copied().unwrap_or(f32::NAN).into())
        })
    }
}
