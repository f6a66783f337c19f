//! One subscription: a sampler of its own, whose samples become events.
//!
//! The tick wakes no thread. The connection's thread looks into the queue when a batch should be
//! complete and writes all of it, so the samples of a batch share the cost of one wake-up.
//!
//! Invariant: every tick since the last event is in the next event, or counted there as lost, or
//! had no object. A sample follows the `STATS_OBJECTS` of its generation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstrobe_core::{Filter, Layout, Registry, Result, Snapshot, WORD_BYTES};
use vmstrobe_sampler::{
    Control, Fanout, HealthWriter, MAX_QUEUE_SAMPLES, Roster, Running, Sampler, SourceSet,
    Subscriber, Timing, Watch,
};

use super::event::{self, Batch};
use crate::qmp::budget::Lease;
use crate::qmp::cost::Cost;
use crate::qmp::inventory::LOOK_PERIOD;

/// The longest time between two looks into the queue, however large the batch is, and so the
/// longest delay of `STATS_OBJECTS`.
const DRAIN_PERIOD_MAX: Duration = Duration::from_millis(250);
/// The time after the deadline of a batch's last tick at which the batch is looked for, because a
/// tick begins a little after its deadline.
const SETTLING_TIME: Duration = Duration::from_millis(1);
/// The time in s for which the queue has room while a client does not read, ...
const QUEUE_SECONDS: usize = 1;
/// ... the most memory of the queue in words (32 subscriptions: 256 MiB), ...
const QUEUE_WORDS_MAX: usize = 1 << 20;
/// ... and the least depth of the queue, whatever memory it takes.
const QUEUE_SAMPLES_MIN: usize = 8;
/// The bytes of samples from which an event is complete, even if its batch is larger.
pub(super) const MAX_EVENT_BYTES: usize = 1 << 20;

/// The arguments of `stats-subscribe`, checked.
pub(super) struct Ask {
    pub(super) filter: Filter,
    pub(super) rate_hz: u32,
    pub(super) batch: usize,
}

/// A subscription being served. Dropping it ends its threads, within 50 ms.
#[derive(Debug)]
pub(super) struct Subscription {
    number: u64,
    batch: usize,
    period: Duration,
    depth: usize,
    due: Instant,
    /// The generation of the objects that the client knows.
    generation: u64,
    next_tick: u64,
    /// The ticks since the last event with samples that are in no event.
    lost: u64,
    /// The number of events so far.
    events: u64,
    pending: Pending,
    samples: Subscriber,
    control: Control,
    // The fields from here on are dropped in this order: looking ends, then ticking, then the
    // leases are returned.
    _watch: Watch,
    _running: Running,
    _leases: Vec<Lease>,
}

/// The samples of the next event as text, so that the sampler can use their snapshots again.
#[derive(Debug, Default)]
struct Pending {
    text: Vec<u8>,
    samples: usize,
    wall_offset_ns: i64,
}

impl Subscription {
    /// Opens the present objects, takes the first sample, and starts to tick.
    ///
    /// # Errors
    /// The error of opening the objects, or `Io` if no thread can be started.
    pub(super) fn start(
        number: u64,
        registry: &Registry,
        ask: Ask,
        leases: Vec<Lease>,
    ) -> Result<(Self, Arc<Layout>)> {
        let mut roster = Roster::new(registry.clone(), vec![ask.filter]);
        let sources = open(&mut roster)?;
        let layout = Arc::clone(sources.layout());
        let timing = Timing::hz(ask.rate_hz.into())?;
        let depth = queue_depth(ask.rate_hz, layout.words());
        // Inline, because spreading would start as many threads for each subscription as there are
        // CPUs.
        let (mut sampler, control) =
            Sampler::new(sources, HealthWriter::default(), Fanout::Inline)?;
        let samples = control.subscribe(depth)?;
        sampler.tick();
        let running = sampler.start(timing)?;
        // The inventory looks at the same providers as often and reports their errors.
        let watch = roster.watch(control.clone(), LOOK_PERIOD, |_| ())?;
        let mut started = Self {
            number,
            batch: ask.batch,
            period: Duration::from_nanos(timing.period_ns),
            depth,
            due: Instant::now(),
            generation: layout.generation(),
            next_tick: 1,
            lost: 0,
            events: 0,
            pending: Pending::default(),
            samples,
            control,
            _watch: watch,
            _running: running,
            _leases: leases,
        };
        // The first sample was taken above.
        started.due += started.until_complete(1);
        Ok((started, layout))
    }

    /// Returns the number by which the client refers to the subscription.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the time of its next event.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Tells its threads to end, without waiting for them.
    pub(super) fn stop(&self) {
        self.control.stop();
    }

    /// Appends the events that are complete, of about [`MAX_EVENT_BYTES`] at most, and returns
    /// their number. If there are more, the next ones are due at once.
    pub(super) fn write_events(&mut self, now: Instant, out: &mut Vec<u8>) -> u64 {
        let (full, before) = (out.len() + MAX_EVENT_BYTES, self.events);
        self.due = now;
        for _ in 0..=self.depth {
            if out.len() >= full {
                break;
            }
            let Some(sample) = self.samples.try_recv() else {
                self.due = now + self.until_complete(self.pending.samples);
                break;
            };
            self.take(&sample, out);
        }
        self.events - before
    }

    fn until_complete(&self, samples: usize) -> Duration {
        until_complete(self.period, self.batch, self.depth, samples)
    }

    fn take(&mut self, sample: &Snapshot, out: &mut Vec<u8>) {
        let layout = sample.layout();
        if layout.generation() != self.generation {
            self.write_batch(out);
            self.generation = layout.generation();
            event::objects(out, self.number, layout);
            self.events += 1;
        }
        self.lost += sample.tick().saturating_sub(self.next_tick);
        self.next_tick = sample.tick() + 1;
        if layout.rows() == 0 {
            return;
        }
        event::sample(&mut self.pending.text, sample);
        self.pending.samples += 1;
        self.pending.wall_offset_ns = sample.window().wall_offset_ns;
        if self.pending.samples == self.batch || self.pending.text.len() >= MAX_EVENT_BYTES {
            self.write_batch(out);
        }
    }

    /// Appends the pending samples as an event.
    fn write_batch(&mut self, out: &mut Vec<u8>) {
        if self.pending.samples == 0 {
            return;
        }
        let batch = Batch {
            subscription: self.number,
            generation: self.generation,
            lost: std::mem::take(&mut self.lost),
            wall_offset_ns: self.pending.wall_offset_ns,
        };
        batch.write(out, &self.pending.text);
        self.events += 1;
        self.pending.text.clear();
        self.pending.samples = 0;
    }
}

/// Returns the time until a batch is complete that has `samples` already, or until the queue must
/// be looked into anyway.
fn until_complete(period: Duration, batch: usize, depth: usize, samples: usize) -> Duration {
    // At most half the depth of a queue, and a period is at most a second.
    let ticks = (batch - samples).min(depth / 2) as u32;
    (period * ticks).min(DRAIN_PERIOD_MAX.max(period)) + SETTLING_TIME
}

/// Opens the present objects. A provider that fails to list its objects is left out, unless no
/// other has any.
fn open(roster: &mut Roster) -> Result<SourceSet> {
    match roster.refresh() {
        (Some(sources), _) => Ok(sources),
        // There are no objects, which is no change for a new roster, or every provider failed.
        // Opening returns an empty set, or the error.
        (None, _) => roster.open(),
    }
}

/// Returns the most bytes of memory that a subscription takes: its sources, its queue, and the
/// samples that wait to become an event or to be sent.
pub(super) fn queue_bytes(ask: &Ask, cost: &Cost) -> usize {
    let snapshots = queue_depth(ask.rate_hz, cost.words) + QUEUE_SAMPLES_MIN;
    let snapshot_bytes = size_of::<Snapshot>() + cost.words * WORD_BYTES;
    let batch_bytes = ask.batch.saturating_mul(cost.reply_bytes).min(MAX_EVENT_BYTES);
    cost.bytes + snapshots * snapshot_bytes + 2 * (batch_bytes + cost.reply_bytes)
}

/// Returns the depth of the queue for samples of so many words.
fn queue_depth(rate_hz: u32, words: usize) -> usize {
    let affordable = (QUEUE_WORDS_MAX / words.max(1)).clamp(QUEUE_SAMPLES_MIN, MAX_QUEUE_SAMPLES);
    (rate_hz as usize * QUEUE_SECONDS).clamp(QUEUE_SAMPLES_MIN, affordable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmp::stream::tests::Numbers;
    use serde_json::Value as Json;
    use vmstrobe_core::{Object, ReadPlan, RowState, Schema, Target};

    /// Makes a subscription whose sampler is too slow to disturb the test.
    fn subscription(batch: usize) -> Subscription {
        let ask = Ask { filter: Filter::all(Target::Vcpu), rate_hz: 1, batch };
        let registry = Numbers::new(1, 1).registry();
        let (mut subscription, layout) =
            Subscription::start(7, &registry, ask, Vec::new()).unwrap();
        assert_eq!(layout.generation(), 1);
        assert!(subscription.samples.try_recv().is_some(), "the first is there at once");
        subscription.next_tick = 1;
        subscription
    }

    /// Makes a layout of `objects` with `words` each.
    fn layout(generation: u64, objects: u64, words: u16) -> Arc<Layout> {
        let desc = vmstrobe_core::Desc { size: words, ..vmstrobe_core::Desc::counter("n", 0) };
        let schema = Schema::new("numbers", Target::Vcpu, vec![desc]);
        let plan = ReadPlan::new(&schema, &vmstrobe_core::Mask::all(&schema));
        let object = |key| Object {
            path: format!("/n[{key}]").into(),
            index: None,
            schema: Arc::clone(&schema),
            key,
        };
        Layout::new(generation, vec![(plan, (0..objects).map(object).collect())])
    }

    fn sample(layout: &Arc<Layout>, tick: u64) -> Snapshot {
        let mut snapshot = Snapshot::new(layout);
        let (words, states) = snapshot.begin(tick);
        words.fill(u64::MAX);
        states.fill(RowState::Good);
        snapshot
    }

    /// Takes these ticks, and returns the generation, losses and ticks of each complete event.
    fn taken(
        subscription: &mut Subscription,
        samples: &[(&Arc<Layout>, u64)],
    ) -> Vec<(u64, Option<u64>, Vec<u64>)> {
        let mut out = Vec::new();
        for (layout, tick) in samples {
            subscription.take(&sample(layout, *tick), &mut out);
        }
        let told = |line: &str| {
            let event: Json = serde_json::from_str(line).unwrap();
            let data = &event["data"];
            let ticks = data["samples"].as_array().into_iter().flatten();
            let ticks = ticks.map(|sample| sample["tick"].as_u64().unwrap()).collect();
            (data["generation"].as_u64().unwrap(), data["lost"].as_u64(), ticks)
        };
        String::from_utf8(out).unwrap().split_terminator("\r\n").map(told).collect()
    }

    #[test]
    fn gaps_are_counted_in_the_event_behind_them() {
        let (one, mut subscription) = (layout(1, 1, 1), subscription(3));
        let ticks = [1, 2, 5, 6, 7, 8, 11].map(|tick| (&one, tick));
        let want = [(1, Some(2), vec![1, 2, 5]), (1, Some(0), vec![6, 7, 8])];
        assert_eq!(taken(&mut subscription, &ticks), want);
        let ticks = [12, 20].map(|tick| (&one, tick));
        assert_eq!(taken(&mut subscription, &ticks), [(1, Some(2 + 7), vec![11, 12, 20])]);
    }

    #[test]
    fn a_new_generation_cuts_the_batch() {
        let (one, two, mut subscription) = (layout(1, 1, 1), layout(2, 2, 1), subscription(2));
        let want = [(1, Some(0), vec![1]), (2, None, vec![]), (2, Some(1), vec![3, 4])];
        assert_eq!(taken(&mut subscription, &[(&one, 1), (&two, 3), (&two, 4)]), want);
    }

    #[test]
    fn ticks_without_objects_are_neither_sent_nor_lost() {
        let (one, none, mut subscription) = (layout(1, 1, 1), layout(2, 0, 1), subscription(1));
        let (again, want) = (layout(3, 1, 1), [(1, Some(0), vec![1]), (2, None, vec![])]);
        let ticks = [(&one, 1), (&none, 2), (&none, 3), (&none, 5)];
        assert_eq!(taken(&mut subscription, &ticks), want);
        // It is unknown whether there was an object in tick 4, so the tick is lost.
        let want = [(3, None, vec![]), (3, Some(1), vec![6])];
        assert_eq!(taken(&mut subscription, &[(&again, 6)]), want);
    }

    #[test]
    fn an_event_is_bounded_whatever_the_batch() {
        // Each word takes 22 bytes, so a sample has 1.3 MB in the one layout and 0.2 MB in the
        // other.
        let (large, mut subscription) = (layout(1, 1, 60_000), subscription(10_000));
        let ticks = [(&large, 1), (&large, 2)];
        let want = [(1, Some(0), vec![1]), (1, Some(0), vec![2])];
        assert_eq!(taken(&mut subscription, &ticks), want);
        let small = layout(1, 1, 10_000);
        let ticks: Vec<_> = (3..=12).map(|tick| (&small, tick)).collect();
        let want = [(1, Some(0), (3..=7).collect()), (1, Some(0), (8..=12).collect())];
        assert_eq!(taken(&mut subscription, &ticks), want);
    }

    #[test]
    fn it_is_due_when_a_batch_should_be_complete() {
        let before = Instant::now();
        let subscription = subscription(1);
        assert!(subscription.due() <= Instant::now() + SETTLING_TIME);
        assert!(subscription.due() >= before);
        let at = |rate_hz: u32, batch, depth, samples| {
            let period = Duration::from_secs(1) / rate_hz;
            until_complete(period, batch, depth, samples) - SETTLING_TIME
        };
        assert_eq!(at(1000, 100, 1000, 0), Duration::from_millis(100));
        assert_eq!(at(1000, 100, 1000, 40), Duration::from_millis(60));
        assert_eq!(at(1000, 100, 16, 0), Duration::from_millis(8), "the queue is half full then");
        assert_eq!(at(1000, 10_000, 1000, 0), DRAIN_PERIOD_MAX);
        assert_eq!(at(1, 10, 8, 0), Duration::from_secs(1), "there is nothing new before");
    }

    #[test]
    fn a_queue_lasts_a_second_unless_that_is_too_much_memory() {
        assert_eq!(queue_depth(1000, 40), 1000);
        assert_eq!(queue_depth(1, 40), QUEUE_SAMPLES_MIN);
        assert_eq!(queue_depth(1_000_000, 1), MAX_QUEUE_SAMPLES);
        assert_eq!(queue_depth(1000, 10_000) * 10_000 / QUEUE_WORDS_MAX, 0);
        assert_eq!(queue_depth(1000, QUEUE_WORDS_MAX), QUEUE_SAMPLES_MIN);
        assert_eq!(queue_depth(1000, 0), 1000);
    }
}
