//! Tests of ticks whose sources report times: the tick's window, and the rows that it counts.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Desc, Registry, RowState, Rows, Schema, Target, Window};

use super::*;
use crate::{Catalog, Control, Counts, Fanout, HealthWriter, Roster, Sampler, Tick, clock};

/// The pause before and after each reading, which tells a source's window from the tick's own.
const MARGIN: Duration = Duration::from_micros(100);

/// The time that a source reports of a reading.
#[derive(Clone, Debug)]
enum Reports {
    /// It reports none.
    Never,
    /// The true time.
    Always,
    /// The true time of every other reading, from the first on; no time of the others.
    Alternately,
    /// This time, whatever the true one is.
    Fixed(Range<u64>),
    /// The true time of its first reading, also after later ones.
    Stuck,
}

/// A provider with a source for each of these: its number of rows, and the times it reports.
#[derive(Debug)]
struct TimedProvider {
    schema: Arc<Schema>,
    sources: Mutex<Vec<(usize, Reports)>>,
    /// The times at which its rows were really read, since the last tick.
    read_ns: Arc<Mutex<Vec<Range<u64>>>>,
}

struct TimedSource {
    rows: usize,
    reports: Reports,
    reads: u64,
    reported: Option<Range<u64>>,
    read_ns: Arc<Mutex<Vec<Range<u64>>>>,
}

impl Source for TimedSource {
    fn rows(&self) -> usize {
        self.rows
    }

    fn read(&mut self, rows: Rows<'_>) {
        thread::sleep(MARGIN);
        let begin_ns = clock::now_ns();
        rows.fill(|_, row| {
            row.fill(self.reads);
            RowState::Good
        });
        let when = begin_ns..clock::now_ns();
        thread::sleep(MARGIN);
        self.reads += 1;
        self.reported = match &self.reports {
            Reports::Never => None,
            Reports::Always => Some(when.clone()),
            Reports::Alternately => (self.reads % 2 == 1).then(|| when.clone()),
            Reports::Fixed(range) => Some(range.clone()),
            Reports::Stuck if self.reads == 1 => Some(when.clone()),
            Reports::Stuck => self.reported.take(),
        };
        if self.rows > 0 {
            self.read_ns.lock().unwrap().push(when);
        }
    }

    fn read_ns(&self) -> Option<Range<u64>> {
        self.reported.clone()
    }
}

impl Provider for TimedProvider {
    fn name(&self) -> &str {
        "timed"
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(vec![Arc::clone(&self.schema)])
    }

    fn objects(&self) -> Result<Vec<Object>> {
        let rows: usize = self.sources.lock().unwrap().iter().map(|(rows, _)| rows).sum();
        let object = |key| {
            let schema = Arc::clone(&self.schema);
            Object { path: format!("/s[{key}]").into(), index: None, schema, key }
        };
        Ok((0..rows as u64).map(object).collect())
    }

    fn open(&self, _: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        let open = |(rows, reports): &(usize, Reports)| -> Box<dyn Source> {
            let reported = if matches!(reports, Reports::Never) { None } else { Some(0..0) };
            let read_ns = Arc::clone(&self.read_ns);
            Box::new(TimedSource {
                rows: *rows,
                reports: reports.clone(),
                reads: 0,
                reported,
                read_ns,
            })
        };
        Ok(self.sources.lock().unwrap().iter().map(open).collect())
    }
}

/// A sampler of a [`TimedProvider`], ticked by hand.
struct Rig {
    provider: Arc<TimedProvider>,
    roster: Roster,
    sampler: Sampler,
    control: Control,
}

/// The window of a tick's snapshot, the counts after it, and the true time of reading.
struct Seen {
    window: Window,
    counts: Counts,
    /// The time from the first begin to the last end.
    really_ns: Range<u64>,
}

impl TimedProvider {
    fn new(sources: &[(usize, Reports)]) -> (Arc<Self>, Registry) {
        let schema = Schema::new("timed", Target::Vcpu, vec![Desc::counter("reads", 0)]);
        let sources = Mutex::new(sources.to_vec());
        let provider = Arc::new(Self { schema, sources, read_ns: Arc::default() });
        let registry = Registry::default();
        registry.add(Arc::clone(&provider) as Arc<dyn Provider>);
        (provider, registry)
    }
}

impl Rig {
    fn new(sources: &[(usize, Reports)], fanout: Fanout) -> Self {
        let (provider, registry) = TimedProvider::new(sources);
        let mut roster = Roster::new(registry, vec![Filter::all(Target::Vcpu)]);
        let sources = roster.open().unwrap();
        let (sampler, control) = Sampler::new(sources, HealthWriter::default(), fanout).unwrap();
        Self { provider, roster, sampler, control }
    }

    fn tick(&mut self) -> Seen {
        assert_eq!(self.sampler.inside(Sampler::tick), Tick::Published);
        let times = std::mem::take(&mut *self.provider.read_ns.lock().unwrap());
        let begin_ns = times.iter().map(|time| time.start).min().unwrap_or_default();
        let end_ns = times.iter().map(|time| time.end).max().unwrap_or_default();
        Seen {
            window: self.control.latest().load_full().window(),
            counts: self.sampler.health().counts(),
            really_ns: begin_ns..end_ns,
        }
    }
}

impl Seen {
    #[track_caller]
    fn has_the_sources_window(&self) {
        assert_eq!(self.window.begin_ns..self.window.end_ns, self.really_ns);
    }

    #[track_caller]
    fn has_its_own_window(&self) {
        let margin_ns = MARGIN.as_nanos() as u64;
        assert!(self.window.begin_ns + margin_ns <= self.really_ns.start);
        assert!(self.window.end_ns >= self.really_ns.end + margin_ns);
    }

    fn bulk_and_fallbacks(&self) -> (u64, u64) {
        (self.counts.bulk_rows, self.counts.fallback_ticks)
    }
}

#[test]
fn the_window_is_the_union_of_the_reported_times() {
    let sources =
        [(3, Reports::Always), (0, Reports::Never), (2, Reports::Always), (0, Reports::Always)];
    for fanout in [Fanout::Inline, Fanout::Threads(2)] {
        let mut rig = Rig::new(&sources, fanout);
        for _ in 0..3 {
            let seen = rig.tick();
            seen.has_the_sources_window();
            assert_eq!((seen.bulk_and_fallbacks(), seen.counts.rows), ((5, 0), 5));
        }
    }
}

#[test]
fn the_window_is_the_ticks_own_if_one_source_reports_no_time() {
    for fanout in [Fanout::Inline, Fanout::Threads(2)] {
        let mut rig = Rig::new(&[(3, Reports::Always), (1, Reports::Never)], fanout);
        for _ in 0..3 {
            let seen = rig.tick();
            seen.has_its_own_window();
            assert_eq!(seen.bulk_and_fallbacks(), (3, 0));
        }
    }
}

#[test]
fn a_tick_in_which_one_source_fell_back_has_its_own_window_and_is_counted() {
    for fanout in [Fanout::Inline, Fanout::Threads(2)] {
        let mut rig = Rig::new(&[(2, Reports::Alternately), (3, Reports::Always)], fanout);
        for fallbacks in 0..3 {
            let seen = rig.tick();
            seen.has_the_sources_window();
            assert_eq!(seen.bulk_and_fallbacks(), (5, fallbacks));
            let seen = rig.tick();
            seen.has_its_own_window();
            assert_eq!(seen.bulk_and_fallbacks(), (3, fallbacks + 1));
        }
    }
}

#[test]
fn a_tick_in_which_several_sources_fell_back_counts_once() {
    let mut rig = Rig::new(
        &[(2, Reports::Alternately), (1, Reports::Alternately), (1, Reports::Never)],
        Fanout::Inline,
    );
    assert_eq!(rig.tick().bulk_and_fallbacks(), (3, 0));
    assert_eq!(rig.tick().bulk_and_fallbacks(), (0, 1));
}

#[test]
fn a_report_of_another_time_does_not_count() {
    let mut rig = Rig::new(&[(1, Reports::Stuck)], Fanout::Inline);
    rig.tick().has_the_sources_window();
    let seen = rig.tick();
    seen.has_its_own_window();
    assert_eq!(seen.bulk_and_fallbacks(), (0, 1));
    #[expect(clippy::reversed_empty_ranges, reason = "a source may report such a range")]
    let wrong = [0..0, 0..1, u64::MAX..u64::MAX, u64::MAX..0, u64::MAX - 1..u64::MAX];
    for range in wrong {
        let seen =
            Rig::new(&[(1, Reports::Fixed(range)), (1, Reports::Always)], Fanout::Inline).tick();
        seen.has_its_own_window();
        assert_eq!(seen.bulk_and_fallbacks(), (1, 1));
    }
}

#[test]
fn a_report_does_not_widen_the_window() {
    let mut rig = Rig::new(&[(1, Reports::Fixed(0..u64::MAX))], Fanout::Inline);
    let before_ns = clock::now_ns();
    let seen = rig.tick();
    let after_ns = clock::now_ns();
    seen.has_its_own_window();
    assert!(before_ns <= seen.window.begin_ns && seen.window.end_ns <= after_ns);
    assert_eq!(seen.bulk_and_fallbacks(), (1, 0));
}

#[test]
fn a_tick_without_rows_has_its_own_window() {
    for sources in [vec![], vec![(0, Reports::Always), (0, Reports::Alternately)]] {
        let mut rig = Rig::new(&sources, Fanout::Inline);
        for _ in 0..2 {
            let before_ns = clock::now_ns();
            let seen = rig.tick();
            assert!(before_ns <= seen.window.begin_ns);
            assert!(seen.window.begin_ns <= seen.window.end_ns);
            assert_eq!((seen.bulk_and_fallbacks(), seen.counts.rows), ((0, 0), 0));
        }
    }
}

#[test]
fn new_sources_are_asked_for_their_times() {
    let mut rig = Rig::new(&[(2, Reports::Always)], Fanout::Inline);
    rig.tick().has_the_sources_window();
    for (sources, bulk) in [
        (vec![(1, Reports::Never)], 0),
        (vec![(3, Reports::Always)], 3),
        (vec![(1, Reports::Always), (1, Reports::Never)], 1),
        (vec![], 0),
    ] {
        *rig.provider.sources.lock().unwrap() = sources;
        rig.control.replace(rig.roster.refresh().0.unwrap()).unwrap();
        assert_eq!(rig.tick().bulk_and_fallbacks(), (bulk, 0));
    }
}

#[test]
fn an_on_demand_reading_has_no_window() {
    let (_, registry) = TimedProvider::new(&[(2, Reports::Always)]);
    let mut reader = Catalog::look(&registry).0.reader(&Filter::all(Target::Vcpu)).unwrap();
    assert_eq!(reader.read().unwrap().window(), Window::default());
}
