//! The columns of a chart: the lowest, the mean and the highest rate in each.
//!
//! Invariant: every stretch whose rate is known counts in exactly one column, that of its middle,
//! and the column's lowest and highest rate enclose it. The mean is over time, so that means times
//! their times add up to the change. A column in which no stretch has its middle shows the one that
//! covers it; one that none covers is empty: a gap is a gap.

/// The edges of columns of equal width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edges {
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) columns: usize,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    /// The lowest rate.
    pub(crate) min: f64,
    /// The highest rate.
    pub(crate) max: f64,
    /// The change in all of its stretches, and their time.
    pub(crate) change: f64,
    pub(crate) seconds: f64,
}

/// The columns of a chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Envelope {
    /// The columns, from left to right; `None` where nothing is known.
    pub(crate) columns: Vec<Option<Extent>>,
    /// All columns together; `None` if nothing is known in any.
    pub(crate) all: Option<Extent>,
}

impl Edges {
    /// Returns the edges of so many columns of which the last holds `end_ns`. Columns begin at
    /// multiples of their width, so that they do not change while time goes on.
    pub(crate) fn until(end_ns: u64, span_ns: u64, columns: usize) -> Self {
        let width_ns = (span_ns / columns.max(1) as u64).max(1);
        let end_ns = (end_ns / width_ns + 1) * width_ns;
        // On a clock that has just begun to run, the columns end in the future.
        let all_ns = width_ns * columns as u64;
        let begin_ns = end_ns.saturating_sub(all_ns);
        Self { begin_ns, end_ns: begin_ns + all_ns, columns }
    }

    /// Returns the width of a column, in ns.
    pub(crate) fn width_ns(self) -> u64 {
        ((self.end_ns - self.begin_ns) / self.columns.max(1) as u64).max(1)
    }

    /// Returns the column that holds a time.
    pub(crate) fn column(self, at_ns: u64) -> Option<usize> {
        let column = (at_ns.checked_sub(self.begin_ns)? / self.width_ns()) as usize;
        (column < self.columns).then_some(column)
    }

    /// Returns the middle of a column.
    fn middle_ns(self, column: usize) -> u64 {
        self.begin_ns + column as u64 * self.width_ns() + self.width_ns() / 2
    }
}

impl Extent {
    fn of(rate: f64, seconds: f64) -> Self {
        Self { min: rate, max: rate, change: rate * seconds, seconds }
    }

    /// Returns the mean over time.
    pub(crate) fn mean(self) -> f64 {
        // A column that only shows a stretch has no time of its own.
        if self.seconds > 0.0 { self.change / self.seconds } else { self.min }
    }

    fn join(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            change: self.change + other.change,
            seconds: self.seconds + other.seconds,
        }
    }
}

impl Envelope {
    /// Makes the columns of stretches in the order of time: begin, end and rate, which is NaN where
    /// it is not known.
    pub(crate) fn new(stretches: impl Iterator<Item = (u64, u64, f64)>, edges: Edges) -> Self {
        let mut columns = vec![None; edges.columns];
        let mut covered: Vec<Option<f64>> = vec![None; edges.columns];
        for (begin_ns, end_ns, rate) in stretches.filter(|(.., rate)| !rate.is_nan()) {
            let length_ns = end_ns.saturating_sub(begin_ns);
            if let Some(column) = edges.column(begin_ns + length_ns / 2) {
                let own = Extent::of(rate, length_ns as f64 * 1e-9);
                let known: &mut Option<Extent> = &mut columns[column];
                *known = Some(known.map_or(own, |known| known.join(own)));
            }
            if length_ns < edges.width_ns() {
                continue;
            }
            let first = edges.column(begin_ns.max(edges.begin_ns)).unwrap_or(edges.columns);
            let covers = |column: &usize| edges.middle_ns(*column) <= end_ns;
            for column in (first..edges.columns).take_while(covers) {
                if edges.middle_ns(column) > begin_ns {
                    covered[column] = Some(rate);
                }
            }
        }
        let all = columns.iter().copied().flatten().reduce(Extent::join);
        for (column, rate) in columns.iter_mut().zip(covered) {
            *column = column.or_else(|| rate.map(|rate| Extent::of(rate, 0.0)));
        }
        let shown = || columns.iter().copied().flatten().reduce(Extent::join);
        let all = all.or_else(shown);
        Self { columns, all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn edges(end_ms: u64, columns: usize) -> Edges {
        Edges { begin_ns: 0, end_ns: end_ms * MS, columns }
    }

    /// Stretches of random lengths and rates, some of them unknown.
    fn stretches(seed: u64, count: usize) -> Vec<(u64, u64, f64)> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut random = move |below: u64| rng.u64(..below);
        let mut begin_ns = random(MS);
        let stretch = |_| {
            let from_ns = begin_ns;
            begin_ns += match random(20) {
                0 => random(30 * MS),
                _ => 900_000 + random(200_000),
            };
            let rate = if random(10) == 0 { f64::NAN } else { random(100_000) as f64 };
            (from_ns, begin_ns, rate)
        };
        (0..count).map(stretch).collect()
    }

    #[test]
    fn every_stretch_is_enclosed_by_its_column_and_all_add_up() {
        for seed in 1..60 {
            let all = stretches(seed, 500);
            let end_ns = all.last().map_or(0, |last| last.1);
            for columns in [1, 7, 100, 480] {
                let width_ns = end_ns / columns as u64 + 1;
                let end_ns = width_ns * columns as u64;
                let edges = Edges { begin_ns: 0, end_ns, columns };
                let envelope = Envelope::new(all.iter().copied(), edges);
                let known = all.iter().filter(|(.., rate)| !rate.is_nan());
                let mut change = 0.0;
                for &(begin_ns, end_ns, rate) in known {
                    let column = edges.column(begin_ns + (end_ns - begin_ns) / 2);
                    let extent = column.and_then(|column| envelope.columns[column]);
                    let extent = extent.expect("the column of a stretch is known");
                    assert!(extent.min <= rate && rate <= extent.max);
                    change += rate * (end_ns - begin_ns) as f64 * 1e-9;
                }
                let extents = || envelope.columns.iter().flatten();
                let sum: f64 = extents().map(|it| it.mean() * it.seconds).sum();
                assert!((sum - change).abs() <= change * 1e-9, "{sum} {change}");
                assert!(extents().all(|it| {
                    let mean = it.mean();
                    mean >= it.min - mean * 1e-12 && mean <= it.max + mean * 1e-12
                }));
                let whole = envelope.all.expect("something is known");
                assert!((whole.change - change).abs() <= change * 1e-9);
            }
        }
    }

    #[test]
    fn a_long_stretch_is_held_over_its_whole_interval() {
        let envelope =
            Envelope::new([(0, 4 * MS, 5.0), (4 * MS, 6 * MS, 9.0)].into_iter(), edges(8, 8));
        let means: Vec<Option<f64>> =
            envelope.columns.iter().map(|it| it.map(Extent::mean)).collect();
        let (five, nine) = (Some(5.0), Some(9.0));
        assert_eq!(means, [five, five, five, five, nine, nine, None, None]);
        assert_eq!(envelope.all.map(|all| all.change.round()), Some(0.0));
        let all = envelope.all.expect("it is known");
        assert!((all.change - 0.038).abs() < 1e-12 && (all.seconds - 0.006).abs() < 1e-12);
    }

    #[test]
    fn a_gap_is_a_gap() {
        let stretches = [(0, MS, 1.0), (MS, 5 * MS, f64::NAN), (5 * MS, 6 * MS, 2.0)];
        let envelope = Envelope::new(stretches.into_iter(), edges(6, 6));
        let known: Vec<bool> = envelope.columns.iter().map(Option::is_some).collect();
        assert_eq!(known, [true, false, false, false, false, true]);
        assert_eq!(Envelope::new(std::iter::empty(), edges(6, 2)).all, None);
    }

    #[test]
    fn edges_stay_while_time_goes_on() {
        let first = Edges::until(1_000 * MS, 100 * MS, 10);
        for later_ms in 0..10 {
            let later = Edges::until((1_000 + later_ms) * MS, 100 * MS, 10);
            assert_eq!(later, first, "{later_ms}");
            assert_eq!(later.column((1_000 + later_ms) * MS), Some(9));
        }
        let next = Edges::until(1_010 * MS, 100 * MS, 10);
        assert_eq!(next.begin_ns, first.begin_ns + 10 * MS);
        assert_eq!(first.column(first.end_ns), None);
        assert_eq!(Edges::until(5, 100, 10), Edges { begin_ns: 0, end_ns: 100, columns: 10 });
    }
}
