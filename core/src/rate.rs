//! The change of one statistic between two readings.
//!
//! A cumulative statistic has grown by a delta, or was reset if it is smaller than before; a
//! histogram likewise, bucket by bucket; anything else is a level and has no rate. A reading is
//! known to lie within its window and nowhere more exactly, so every rate has bounds.
//!
//! Invariant: no rate is negative, and the true rate lies between the bounds.

use crate::hist::total;
use crate::snapshot::{Value, Window};
use crate::stat::StatType;

/// The time between two readings, as well as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// From the middle of one window to the middle of the other, in s.
    pub seconds: f64,
    /// The shortest it can have been: from the end of one to the begin of the other.
    pub seconds_min: f64,
    /// The longest it can have been: from the begin of one to the end of the other.
    pub seconds_max: f64,
}

impl Interval {
    /// From an earlier window to a later one; `None` if the later did not start after the earlier.
    pub fn between(earlier: Window, later: Window) -> Option<Self> {
        let seconds = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 * 1e-9;
        (later.begin_ns > earlier.begin_ns).then(|| Self {
            seconds: seconds(earlier.middle_ns(), later.middle_ns()),
            seconds_min: seconds(earlier.end_ns, later.begin_ns),
            seconds_max: seconds(earlier.begin_ns, later.end_ns),
        })
    }
}

/// A rate with its error bar, in stored units per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// By the middles of the windows.
    pub per_second: f64,
    /// The least it can have been.
    pub low: f64,
    /// The most it can have been; infinite if the windows touch.
    pub high: f64,
}

impl Rate {
    /// So many in that time.
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
        /// By so many stored units.
        delta: u64,
        /// So fast.
        rate: Rate,
    },
    /// A cumulative statistic or a bucket is smaller than before: someone reset it. How much was
    /// counted since then is known, when that was is not, so it has no rate.
    Reset {
        /// Counted since the reset: one word, or one a bucket.
        since: Vec<u64>,
    },
    /// A histogram grew.
    Buckets {
        /// By so many in each bucket, ascending.
        deltas: Vec<u64>,
        /// All buckets together, so fast.
        rate: Rate,
    },
    /// An instant, a peak, a boolean or a type that we do not know: its words as they are now.
    Level(Vec<u64>),
}

/// Compares two readings of one statistic. The earlier one must be of the same descriptor; if it
/// has another number of words, the statistic is taken as reset.
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
        check(typed(StatType::Cumulative, 1), &[10], &[15], grown);
        let reset = Change::Reset { since: vec![3] };
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
        let interval = Interval::between(window(0, 200), window(1000, 1200)).expect("it is later");
        let rate = Rate::of(8, interval);
        assert_eq!(
            [rate.low, rate.per_second, rate.high].map(f64::round),
            [(8.0_f64 / 1200e-9).round(), 8_000_000.0, 10_000_000.0]
        );
        let touching = Interval::between(window(0, 1000), window(1000, 1200)).expect("it is later");
        assert_eq!(Rate::of(1, touching).high, f64::INFINITY);
        assert_eq!(Rate::of(0, touching).high, 0.0);
        assert_eq!(Interval::between(window(5, 6), window(5, 6)), None);
    }
}
