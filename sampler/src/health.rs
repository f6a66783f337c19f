//! Statistics of the sampler itself: the lateness of ticks, their duration, and losses. The only
//! file that uses hdrhistogram.
//!
//! The sampler's thread records into two fixed histograms (no allocation, a few ns) and keeps a
//! group of words under a sequence lock, from which the sources of the [`Health`] provider read, in
//! this or any other sampler. Counts and the log2 histograms are written with every tick, and the
//! quantiles, which cost µs, about once a second (and after 1, 2, 4 … ticks).
//!
//! Invariant: there is one writer, the sampler that owns the [`HealthWriter`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;
use vmstrobe_core::seq::AtomicU64;
use vmstrobe_core::{
    Desc, Object, Provider, ReadPlan, Result, RowState, Rows, Scale, Schema, Source, StatType,
    Target, Unit, WORD_BYTES, seq,
};

/// The provider's name.
pub const PROVIDER: &str = "vmstrobe";
/// The name of its one target.
pub const TARGET: &str = "sampler";

/// The number of buckets of a log2 histogram, as in KVM's; the last begins at 2^30 ns.
const BUCKETS: usize = 32;
/// The longest time that the histograms tell from longer ones.
const TIME_NS_MAX: u64 = 60_000_000_000;
/// The significant digits of a time: with two, a quantile is right to 1 %.
const DIGITS: u8 = 2;
const QUANTILES_PERIOD_NS: u64 = 1_000_000_000;
/// The number of tries at a consistent reading. The writer changes a few dozen words in some 10 ns.
const READ_TRIES: u32 = 64;

const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];
const COUNTS: [(&str, StatType); 9] = [
    ("ticks", StatType::Cumulative),
    ("missed_ticks", StatType::Cumulative),
    ("starved_ticks", StatType::Cumulative),
    ("lost_samples", StatType::Cumulative),
    ("unread_rows", StatType::Cumulative),
    ("fallback_ticks", StatType::Cumulative),
    ("rows", StatType::Instant),
    ("bulk_rows", StatType::Instant),
    ("subscribers", StatType::Instant),
];
const TIMES: [&str; 8] = [
    "lateness_ns_p50",
    "lateness_ns_p99",
    "lateness_ns_p999",
    "lateness_ns_max",
    "tick_ns_p50",
    "tick_ns_p99",
    "tick_ns_p999",
    "tick_ns_max",
];
const HISTOGRAMS: [&str; 2] = ["lateness_ns_hist", "tick_ns_hist"];
/// The index of the first word of each part: the counts begin at 0, then come times and histograms.
const FIRST_TIME: usize = COUNTS.len();
const LATENESS_HIST: usize = FIRST_TIME + TIMES.len();
const TICK_HIST: usize = LATENESS_HIST + BUCKETS;
const WORDS: usize = TICK_HIST + BUCKETS;

/// The counts of a sampler since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// The ticks that published a snapshot.
    pub ticks: u64,
    /// The deadlines that passed while an earlier tick ran or the thread slept too long.
    pub missed_ticks: u64,
    /// The ticks that found every snapshot held by a reader.
    pub starved_ticks: u64,
    /// The samples that found no room in a subscriber's queue, over all subscribers.
    pub lost_samples: u64,
    /// The rows of published snapshots that could not be read.
    pub unread_rows: u64,
    /// The ticks in which a source that can read all its rows in one call did not.
    pub fallback_ticks: u64,
    /// The number of rows of a snapshot, now.
    pub rows: u64,
    /// The number of these rows whose source read all of its rows in one call in the last tick.
    pub bulk_rows: u64,
    /// The number of subscribers, now.
    pub subscribers: u64,
}

/// Quantiles of a time over all ticks, in ns, right to 1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeQuantiles {
    /// The number of recorded ticks.
    pub count: u64,
    /// The time that half of the ticks did not exceed.
    pub p50_ns: u64,
    /// The time that 99 % of the ticks did not exceed.
    pub p99_ns: u64,
    /// The time that 99.9 % of the ticks did not exceed.
    pub p999_ns: u64,
    /// The longest time.
    pub max_ns: u64,
}

/// The sampler's own statistics as a provider: target `sampler`, one object, `/sampler`.
///
/// ```
/// use vmstrobe_core::Provider;
/// use vmstrobe_sampler::Health;
/// let (health, _health_writer) = Health::new();
/// assert_eq!(health.name(), "vmstrobe");
/// assert!(health.schemas()?[0].find("missed_ticks").is_some());
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    schema: Arc<Schema>,
    seq: AtomicU64,
    words: Box<[AtomicU64]>,
}

/// The sampler's end of [`Health`], an argument of [`crate::Sampler::new`].
#[derive(Debug)]
pub struct HealthWriter {
    shared: Arc<Shared>,
    counts: Counts,
    lateness: Time,
    tick: Time,
    quantiles_ns: u64,
}

#[derive(Debug)]
struct Time {
    exact: Histogram<u64>,
    log2: [u64; BUCKETS],
}

impl Default for HealthWriter {
    /// Returns a writer for a sampler whose health is not sampled.
    fn default() -> Self {
        Health::new().1
    }
}

impl Health {
    /// Returns a provider, and the writer for the sampler whose health it reports.
    pub fn new() -> (Self, HealthWriter) {
        let shared = Arc::new(Shared {
            schema: schema(),
            seq: AtomicU64::new(0),
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
        });
        let health_writer = HealthWriter {
            shared: Arc::clone(&shared),
            counts: Counts::default(),
            lateness: Time::new(),
            tick: Time::new(),
            quantiles_ns: 0,
        };
        (Self { shared }, health_writer)
    }
}

fn schema() -> Arc<Schema> {
    let counts = COUNTS.map(|(name, stat_type)| (name, stat_type, Unit::None, 1));
    let times = TIMES.map(|name| {
        let peak = name.ends_with("_max");
        let stat_type = if peak { StatType::Peak } else { StatType::Instant };
        (name, stat_type, Unit::Seconds, 1)
    });
    let histograms =
        HISTOGRAMS.map(|name| (name, StatType::Log2Histogram, Unit::Seconds, BUCKETS as u16));
    let mut offset = 0;
    let descs =
        counts.into_iter().chain(times).chain(histograms).map(|(name, stat_type, unit, size)| {
            let scale = if unit == Unit::Seconds { Scale::NANO } else { Scale::ONE };
            let desc = Desc { stat_type, unit, scale, size, ..Desc::counter(name, offset) };
            offset += u32::from(size) * WORD_BYTES as u32;
            desc
        });
    Schema::new(PROVIDER, Target::from_name(TARGET), descs.collect())
}

impl Provider for Health {
    fn name(&self) -> &str {
        PROVIDER
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(vec![Arc::clone(&self.shared.schema)])
    }

    fn objects(&self) -> Result<Vec<Object>> {
        let schema = Arc::clone(&self.shared.schema);
        Ok(vec![Object { path: "/sampler".into(), index: None, schema, key: 0 }])
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        let source = |_| -> Box<dyn Source> {
            Box::new(HealthSource { shared: Arc::clone(&self.shared), plan: Arc::clone(plan) })
        };
        Ok(objects.iter().map(source).collect())
    }
}

struct HealthSource {
    shared: Arc<Shared>,
    plan: Arc<ReadPlan>,
}

impl Source for HealthSource {
    fn rows(&self) -> usize {
        1
    }

    fn read(&mut self, rows: Rows<'_>) {
        let Self { shared, plan } = self;
        let bytes = plan.span_bytes();
        let words = &shared.words[bytes.start / WORD_BYTES..bytes.end / WORD_BYTES];
        rows.fill(|_, row| match seq::read(&shared.seq, READ_TRIES, || plan.load(words, row)) {
            Ok(()) => RowState::Good,
            Err(seq::Torn) => RowState::Torn,
        });
    }
}

impl Time {
    fn new() -> Self {
        let exact = Histogram::new_with_bounds(1, TIME_NS_MAX, DIGITS)
            .expect("1 to a minute with two digits is a range that hdrhistogram takes");
        Self { exact, log2: [0; BUCKETS] }
    }

    /// Records a time and returns the index of the log2 bucket that counted it.
    fn record(&mut self, time_ns: u64) -> usize {
        self.exact.saturating_record(time_ns);
        let bits = (u64::BITS - time_ns.leading_zeros()) as usize;
        let bucket = bits.min(BUCKETS - 1);
        self.log2[bucket] += 1;
        bucket
    }

    fn quantiles(&self) -> TimeQuantiles {
        let [p50_ns, p99_ns, p999_ns] = QUANTILES.map(|q| self.exact.value_at_quantile(q));
        TimeQuantiles { count: self.exact.len(), p50_ns, p99_ns, p999_ns, max_ns: self.exact.max() }
    }
}

impl HealthWriter {
    pub(crate) fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// Records one tick's times and writes the words that change. `lateness_ns` is `None` for a
    /// tick without a deadline.
    #[inline]
    pub(crate) fn record(&mut self, lateness_ns: Option<u64>, begin_ns: u64, end_ns: u64) {
        let late = lateness_ns.map(|lateness_ns| self.lateness.record(lateness_ns));
        let cost = self.tick.record(end_ns.saturating_sub(begin_ns));
        let words = &self.shared.words[..];
        seq::write(&self.shared.seq, || {
            show(words, 0, &self.counts.in_order());
            if let Some(late) = late {
                show(words, LATENESS_HIST + late, &[self.lateness.log2[late]]);
            }
            show(words, TICK_HIST + cost, &[self.tick.log2[cost]]);
        });
        // More often in the beginning, so that a short run has quantiles too.
        let early = self.tick.exact.len().is_power_of_two();
        if early || end_ns.saturating_sub(self.quantiles_ns) >= QUANTILES_PERIOD_NS {
            self.quantiles_ns = end_ns;
            self.show_quantiles();
        }
    }

    fn show_quantiles(&self) {
        let times = [self.lateness.quantiles(), self.tick.quantiles()].map(|t| t.in_order());
        seq::write(&self.shared.seq, || show(&self.shared.words, FIRST_TIME, times.as_flattened()));
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the times from the deadlines to the begins of their ticks.
    pub fn lateness(&self) -> TimeQuantiles {
        self.lateness.quantiles()
    }

    /// Returns the times that ticks took, from their begin until their snapshot was published, or
    /// for [`Sampler::tick`](crate::Sampler::tick) until everything had been read.
    pub fn tick_cost(&self) -> TimeQuantiles {
        self.tick.quantiles()
    }
}

#[inline]
fn show(words: &[AtomicU64], at: usize, values: &[u64]) {
    // The slice has the length of the values: the compiler knows the number of counts, and stores
    // them without a loop (measured: a few ns per tick).
    for (word, value) in words[at..][..values.len()].iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
}

impl Counts {
    /// Returns the counts in the order of [`COUNTS`].
    fn in_order(&self) -> [u64; COUNTS.len()] {
        let Self {
            ticks,
            missed_ticks,
            starved_ticks,
            lost_samples,
            unread_rows,
            fallback_ticks,
            rows,
            bulk_rows,
            subscribers,
        } = *self;
        [
            ticks,
            missed_ticks,
            starved_ticks,
            lost_samples,
            unread_rows,
            fallback_ticks,
            rows,
            bulk_rows,
            subscribers,
        ]
    }
}

impl TimeQuantiles {
    /// Returns the quantiles in the order of one half of [`TIMES`].
    fn in_order(&self) -> [u64; TIMES.len() / 2] {
        [self.p50_ns, self.p99_ns, self.p999_ns, self.max_ns]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstrobe_core::{Layout, Mask, Snapshot};

    #[test]
    fn recorded_times_and_counts_are_read_through_the_provider() {
        let (health, mut health_writer) = Health::new();
        *health_writer.counts_mut() = Counts {
            ticks: 1000,
            missed_ticks: 3,
            starved_ticks: 4,
            lost_samples: 5,
            unread_rows: 6,
            fallback_ticks: 7,
            rows: 8,
            bulk_rows: 9,
            subscribers: 10,
        };
        for i in 1..=1000_u64 {
            health_writer.record(Some(i * 1000), 0, 2000);
        }
        // The first call wrote the quantiles of one tick; a second later they are of all ticks.
        health_writer.record(Some(1000), QUANTILES_PERIOD_NS * 2, QUANTILES_PERIOD_NS * 2 + 500);

        let objects = health.objects().expect("health has one object");
        let plan = ReadPlan::new(&objects[0].schema, &Mask::all(&objects[0].schema));
        let mut sources = health.open(&objects, &plan).expect("health can be opened");
        let mut snapshot = Snapshot::new(&Layout::new(0, vec![(Arc::clone(&plan), objects)]));
        let (words, states) = snapshot.begin(1);
        sources[0].read(Rows::new(words, states, plan.row_words()));

        let view = snapshot.object("/sampler").expect("the layout has the object");
        let number =
            |name| view.get(name).and_then(|v| v.number()).expect("the statistic is a number");
        let first = ["ticks", "missed_ticks", "starved_ticks", "lost_samples", "unread_rows"];
        assert_eq!(first.map(number), [1000, 3, 4, 5, 6]);
        let others = ["fallback_ticks", "rows", "bulk_rows", "subscribers"];
        assert_eq!(others.map(number), [7, 8, 9, 10]);
        let p50 = number("lateness_ns_p50");
        assert!((495_000..=506_000).contains(&p50), "{p50}");
        assert!(number("lateness_ns_max") >= 990_000);
        let hist = view
            .get("tick_ns_hist")
            .and_then(|v| v.buckets())
            .expect("the statistic is a histogram");
        assert_eq!((hist[11], hist[9]), (1000, 1));
        assert_eq!(health_writer.tick_cost().count, 1001);
    }
}
