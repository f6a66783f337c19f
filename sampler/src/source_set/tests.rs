//! Ticks with sources that know when they read: the tick's window, and the rows that it counts.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Desc, Registry, RowState, Rows, Schema, Target, Window};

use super::*;
use crate::{Catalog, Control, Counts, Fanout, HealthWriter, Roster, Sampler, Tick, clock};

/// A margin beside each reading, by which a window of the source's is told from the tick's own.
const MARGIN: Duration = Duration::from_micros(100);

/// The time that a source says it has read at.
#[derive(Clone, Debug)]
enum Way {
    /// It does not know.
    Never,
    /// The true time.
    Always,
    /// The true time of every other reading, from the first on; no time of those between.
    Alternately,
    /// This time, whenever it has read.
    Says(Range<u64>),
    /// The true time of its first reading, also after later ones.
    Stuck,
}

/// A provider of one source for each of these: so many rows, read so.
#[derive(Debug)]
struct Sweepers {
    schema: Arc<Schema>,
    sources: Mutex<Vec<(usize, Way)>>,
    /// The times at which its rows were really read, since the last look.
    read_ns: Arc<Mutex<Vec<Range<u64>>>>,
}

struct Sweeper {
    rows: usize,
    way: Way,
    reads: u64,
    says: Option<Range<u64>>,
    read_ns: Arc<Mutex<Vec<Range<u64>>>>,
}

impl Source for Sweeper {
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
        self.says = match &self.way {
            Way::Never => None,
            Way::Always => Some(when.clone()),
            Way::Alternately => (self.reads % 2 == 1).then(|| when.clone()),
            Way::Says(range) => Some(range.clone()),
            Way::Stuck if self.reads == 1 => Some(when.clone()),
            Way::Stuck => self.says.take(),
        };
        if self.rows > 0 {
            self.read_ns.lock().unwrap().push(when);
        }
    }

    fn read_ns(&self) -> Option<Range<u64>> {
        self.says.clone()
    }
}

impl Provider for Sweepers {
    fn name(&self) -> &str {
        "sweepers"
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
        let open = |(rows, way): &(usize, Way)| -> Box<dyn Source> {
            let says = if matches!(way, Way::Never) { None } else { Some(0..0) };
            let read_ns = Arc::clone(&self.read_ns);
            Box::new(Sweeper { rows: *rows, way: way.clone(), reads: 0, says, read_ns })
        };
        Ok(self.sources.lock().unwrap().iter().map(open).collect())
    }
}

struct Rig {
    sweepers: Arc<Sweepers>,
    roster: Roster,
    sampler: Sampler,
    control: Control,
}

/// The window of a tick's snapshot, the counts behind it, and the true time of reading.
struct Seen {
    window: Window,
    counts: Counts,
    /// From the first begin to the last end.
    really_ns: Range<u64>,
}

impl Sweepers {
    fn new(sources: &[(usize, Way)]) -> (Arc<Self>, Registry) {
        let schema = Schema::new("sweepers", Target::Vcpu, vec![Desc::counter("reads", 0)]);
        let sources = Mutex::new(sources.to_vec());
        let sweepers = Arc::new(Self { schema, sources, read_ns: Arc::default() });
        let registry = Registry::default();
        registry.add(Arc::clone(&sweepers) as Arc<dyn Provider>);
        (sweepers, registry)
    }
}

impl Rig {
    fn new(sources: &[(usize, Way)], fanout: Fanout) -> Self {
        let (sweepers, registry) = Sweepers::new(sources);
        let mut roster = Roster::new(registry, vec![Filter::all(Target::Vcpu)]);
        let sources = roster.open().unwrap();
        let (sampler, control) = Sampler::new(sources, HealthWriter::default(), fanout).unwrap();
        Self { sweepers, roster, sampler, control }
    }

    fn tick(&mut self) -> Seen {
        assert_eq!(self.sampler.inside(Sampler::tick), Tick::Published);
        let times = std::mem::take(&mut *self.sweepers.read_ns.lock().unwrap());
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
fn the_window_is_the_union_of_what_all_sources_say() {
    let sources = [(3, Way::Always), (0, Way::Never), (2, Way::Always), (0, Way::Always)];
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
fn the_window_is_the_ticks_own_if_one_source_does_not_know() {
    for fanout in [Fanout::Inline, Fanout::Threads(2)] {
        let mut rig = Rig::new(&[(3, Way::Always), (1, Way::Never)], fanout);
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
        let mut rig = Rig::new(&[(2, Way::Alternately), (3, Way::Always)], fanout);
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
fn what_several_sources_fell_back_in_is_one_tick() {
    let mut rig =
        Rig::new(&[(2, Way::Alternately), (1, Way::Alternately), (1, Way::Never)], Fanout::Inline);
    assert_eq!(rig.tick().bulk_and_fallbacks(), (3, 0));
    assert_eq!(rig.tick().bulk_and_fallbacks(), (0, 1));
}

#[test]
fn what_a_source_says_of_another_time_it_has_not_said() {
    let mut rig = Rig::new(&[(1, Way::Stuck)], Fanout::Inline);
    rig.tick().has_the_sources_window();
    let seen = rig.tick();
    seen.has_its_own_window();
    assert_eq!(seen.bulk_and_fallbacks(), (0, 1));
    #[expect(clippy::reversed_empty_ranges, reason = "it is what must not be believed")]
    let wrong = [0..0, 0..1, u64::MAX..u64::MAX, u64::MAX..0, u64::MAX - 1..u64::MAX];
    for range in wrong {
        let seen = Rig::new(&[(1, Way::Says(range)), (1, Way::Always)], Fanout::Inline).tick();
        seen.has_its_own_window();
        assert_eq!(seen.bulk_and_fallbacks(), (1, 1));
    }
}

#[test]
fn what_a_source_says_does_not_widen_the_window() {
    let mut rig = Rig::new(&[(1, Way::Says(0..u64::MAX))], Fanout::Inline);
    let before_ns = clock::now_ns();
    let seen = rig.tick();
    let after_ns = clock::now_ns();
    seen.has_its_own_window();
    assert!(before_ns <= seen.window.begin_ns && seen.window.end_ns <= after_ns);
    assert_eq!(seen.bulk_and_fallbacks(), (1, 0));
}

#[test]
fn a_sweep_of_no_rows_has_its_own_window_and_sweeps_nothing() {
    for sources in [vec![], vec![(0, Way::Always), (0, Way::Alternately)]] {
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
fn a_new_sweep_is_asked_anew() {
    let mut rig = Rig::new(&[(2, Way::Always)], Fanout::Inline);
    rig.tick().has_the_sources_window();
    for (sources, bulk) in [
        (vec![(1, Way::Never)], 0),
        (vec![(3, Way::Always)], 3),
        (vec![(1, Way::Always), (1, Way::Never)], 1),
        (vec![], 0),
    ] {
        *rig.sweepers.sources.lock().unwrap() = sources;
        rig.control.replace(rig.roster.refresh().0.unwrap()).unwrap();
        assert_eq!(rig.tick().bulk_and_fallbacks(), (bulk, 0));
    }
}

#[test]
fn a_probe_has_no_window_whatever_its_sources_say() {
    let (_, registry) = Sweepers::new(&[(2, Way::Always)]);
    let mut reader = Catalog::look(&registry).0.reader(&Filter::all(Target::Vcpu)).unwrap();
    assert_eq!(reader.read().unwrap().window(), Window::default());
}
