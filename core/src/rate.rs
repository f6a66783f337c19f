//! The change of one statistic between two readings.
//!
//! A cumulative statistic has grown by a delta, or was reset if it is smaller than before. The same
//! holds for each bucket of a histogram. Any other statistic has a value and no rate. The moment of
//! a reading is known only to lie within its window, so every rate has bounds.
//!
//! Invariant: no rate is negative, and the true rate lies between the bounds.

use crate::hist::total;
use crate::snapshot::{Value, Window};
use crate::stat::StatType;

/// The time between two readings, with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The time from the middle of one window to the middle of the other, in s.
    pub seconds: f64,
    /// The shortest possible time: from the end of one window to the begin of the other, in s.
    pub seconds_min: f64,
    /// The longest possible time: from the begin of one window to the end of the other, in s.
    pub seconds_max: f64,
}

impl Interval {
    /// Returns the time from an earlier window to a later one; `None` if the later window did not
    /// begin after the earlier one.
    pub fn between(earlier: Window, later: Window) -> Option<Self> {
        let seconds = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 * 1e-9;
        (later.begin_ns > earlier.begin_ns).then(|| Self {
            seconds: seconds(earlier.middle_ns(), later.middle_ns()),
            seconds_min: seconds(earlier.end_ns, later.begin_ns),
            seconds_max: seconds(earlier.begin_ns, later.end_ns),
        })
    }
}

/// A rate with its bounds, in stored units per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The rate by the middles of the windows.
    pub per_second: f64,
    /// The lowest possible rate.
    pub low: f64,
    /// The highest possible rate; infinite if the windows touch.
    pub high: f64,
}

impl Rate {
    /// Makes the rate of a count over an interval.
    pub fn of(delta: u64, interval: Interval) -> Self {
        let per = |seconds: f64| if delta == 0 { 0.0 } else { delta as f64 / seconds };
        Self {
            per_second: per(interval.seconds),
            low: per(interval.seconds_max),
            high: per(interval.seconds_min),
        }
    }
}

/// The change of one statistic between two readings.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A cumulative statistic grew.
    Delta {
        /// The growth in stored units.
        delta: u64,
        /// The rate of the growth.
        rate: Rate,
    },
    /// A cumulative statistic or a bucket is smaller than before, so it was reset. The count since
    /// the reset is known, but not the time of the reset, so there is no rate.
    Reset {
        /// The counts since the reset: one word, or one for each bucket.
        since: Vec<u64>,
    },
    /// A histogram grew.
    Buckets {
        /// The growth of each bucket, ascending.
        deltas: Vec<u64>,
        /// The rate of the growth of all buckets together.
        rate: Rate,
    },
    /// An instant, a peak, a boolean or an unknown type: its words as they are now.
    Level(Vec<u64>),
}

impl Change {
    /// Returns the rate; `None` for a counter that was reset, and for a level.
    pub fn rate(&self) -> Option<Rate> {
        match self {
            Self::Delta { rate, .. } | Self::Buckets { rate, .. } => Some(*rate),
            Self::Reset { .. } | Self::Level(_) => None,
        }
    }
}

/// Compares two readings of one statistic. Both must have the same descriptor. If the earlier one
/// has another number of words, the statistic counts as reset.
///
/// ```
/// use vmstrobe_core::{Change, Desc, Interval, Value, Window, change};
/// let exits = Desc::counter("exits", 0);
/// let window = |begin_ns| Window { begin_ns, end_ns: begin_ns + 1000, wall_offset_ns: 0 };
/// let interval = Interval::between(window(0), window(1_000_000)).unwrap();
/// let change = change(Value::new(&exits, &[100]), Value::new(&exits, &[150]), interval);
/// let Change::Delta { delta: 50, rate } = change else { panic!("it grew") };
/// assert_eq!(rate.per_second, 50_000.0);
/// assert!(rate.low < rate.per_second && rate.per_second < rate.high);
/// ```
pub fn change(earlier: Value<'_>, later: Value<'_>, interval: Interval) -> Change {
    let counts = match later.desc().stat_type {
        StatType::Cumulative => true,
        StatType::LinearHistogram | StatType::Log2Histogram => true,
        StatType::Instant | StatType::Peak | StatType::Unknown(_) => false,
    };
    let now = later.words();
    if !counts || later.desc().is_boolean() {
        return Change::Level(now.to_vec());
    }
    let same_size = earlier.words().len() == now.len();
    let deltas: Option<Vec<u64>> =
        now.iter().zip(earlier.words()).map(|(now, before)| now.checked_sub(*before)).collect();
    match deltas.filter(|_| same_size) {
        None => Change::Reset { since: now.to_vec() },
        Some(deltas) => match deltas[..] {
            [delta] if !later.desc().stat_type.is_histogram() => {
                Change::Delta { delta, rate: Rate::of(delta, interval) }
            }
            _ => {
                let rate = Rate::of(total(&deltas), interval);
                Change::Buckets { deltas, rate }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Desc;
    use crate::stat::Unit;

    const SECOND: Interval = Interval { seconds: 1.0, seconds_min: 0.9, seconds_max: 1.1 };

    fn check(desc: Desc, earlier: &[u64], later: &[u64], want: Change) {
        let got = change(Value::new(&desc, earlier), Value::new(&desc, later), SECOND);
        assert_eq!(got, want, "{desc:?} {earlier:?} {later:?}");
    }

    fn typed(stat_type: StatType, size: u16) -> Desc {
        Desc { stat_type, size, ..Desc::counter("n", 0) }
    }

    #[test]
    fn counters_grow_or_are_reset() {
        let grown = Change::Delta { delta: 5, rate: Rate::of(5, SECOND) };
        let reset = Change::Reset { since: vec![3] };
        assert_eq!((grown.rate(), reset.rate()), (Some(Rate::of(5, SECOND)), None));
        check(typed(StatType::Cumulative, 1), &[10], &[15], grown);
        check(typed(StatType::Cumulative, 1), &[10], &[3], reset);
    }

    #[test]
    fn levels_have_no_rate() {
        for stat_type in [StatType::Instant, StatType::Peak, StatType::Unknown(9)] {
            check(typed(stat_type, 1), &[10], &[15], Change::Level(vec![15]));
            check(typed(stat_type, 1), &[15], &[10], Change::Level(vec![10]));
        }
        let boolean = Desc { unit: Unit::Boolean, ..typed(StatType::Cumulative, 1) };
        check(boolean, &[1], &[0], Change::Level(vec![0]));
    }

    #[test]
    fn histograms_go_bucket_by_bucket() {
        let desc = typed(StatType::Log2Histogram, 3);
        let grown = Change::Buckets { deltas: vec![0, 2, 1], rate: Rate::of(3, SECOND) };
        check(desc.clone(), &[1, 1, 1], &[1, 3, 2], grown);
        let reset = Change::Reset { since: vec![1, 3, 0] };
        check(desc.clone(), &[1, 1, 1], &[1, 3, 0], reset);
        check(desc, &[1, 1], &[1, 3, 0], Change::Reset { since: vec![1, 3, 0] });
        let single = typed(StatType::LinearHistogram, 1);
        let grown = Change::Buckets { deltas: vec![4], rate: Rate::of(4, SECOND) };
        check(single, &[1], &[5], grown);
    }

    #[test]
    fn the_error_bar_comes_from_the_windows() {
        let window = |begin_ns, end_ns| Window { begin_ns, end_ns, wall_offset_ns: 0 };
        let interval = Interval::between(window(0, 200), window(1000, 1200))
            .expect("the second window is later");
        let rate = Rate::of(8, interval);
        assert_eq!(
            [rate.low, rate.per_second, rate.high].map(f64::round),
            [(8.0_f64 / 1200e-9).round(), 8_000_000.0, 10_000_000.0]
        );
        let touching = Interval::between(window(0, 1000), window(1000, 1200))
            .expect("the second window is later");
        assert_eq!(Rate::of(1, touching).high, f64::INFINITY);
        assert_eq!(Rate::of(0, touching).high, 0.0);
        assert_eq!(Interval::between(window(5, 6), window(5, 6)), None);
    }
}
