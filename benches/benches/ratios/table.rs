//! A whole tick over tables, over a bare loop of relaxed loads of the same words; and a counter's
//! bump over a bare one. Both also beside a core that does the other side's work all the while.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use vmstrobe::table::{OwnedCounter, StatKey, TableObject, TableSchema, TableWriter, Tables};
use vmstrobe_core::{Registry, RowState, Target};
use vmstrobe_sampler::{Control, Fanout, HealthWriter, Roster, Sampler, Tick};

use crate::pairs::{Effort, Medians, ns_each};
use crate::words::BareWords;
use crate::{Goal, Line};

/// The statistics of an object, as many as a vCPU of Linux 6.18 has on x86.
const STATS: usize = 47;
/// The distance of the sampled statistics: 8 of them, spread over all.
const EVERY: usize = 6;
/// The number of pairs of one figure.
const PAIRS: usize = 301;
/// Objects that are read by one side of a pair.
const READS: usize = 65_536;
/// Bumps of one side of a pair.
const BUMPS: u32 = 200_000;

type Measured = std::result::Result<Line, Box<dyn Error>>;

pub(crate) fn tick_64(name: &str, effort: Effort) -> Measured {
    let medians = ticks(&mut Rig::new(64)?, effort, 64);
    Ok(line(name, medians, Goal::RatioAtMost(1.5)))
}

pub(crate) fn tick_1024(name: &str, effort: Effort) -> Measured {
    let medians = ticks(&mut Rig::new(1024)?, effort, 1024);
    Ok(line(name, medians, Goal::RatioAtMost(1.5)))
}

pub(crate) fn tick_64_live(name: &str, effort: Effort) -> Measured {
    live(name, effort, 64)
}

pub(crate) fn tick_1024_live(name: &str, effort: Effort) -> Measured {
    live(name, effort, 1024)
}

/// The peer has the address of every word in a list, and nothing to find out.
pub(crate) fn tick_64_found(name: &str, effort: Effort) -> Measured {
    let mut rig = Rig::new(64)?;
    let (sampler, bare) = (&mut rig.sampler, &mut rig.bare);
    let times = (READS / 64) as u32;
    let medians = effort.pairs(
        PAIRS,
        || ns_each(times, || assert_eq!(sampler.tick(), Tick::Published)),
        || ns_each(times, || bare.read_found()),
    );
    Ok(line(name, medians, Goal::None))
}

/// Every statistic of every table is bumped in turn on the other core.
fn live(name: &str, effort: Effort, tables: usize) -> Measured {
    let mut rig = Rig::new(tables)?;
    let mut counters = std::mem::take(&mut rig.counters);
    let medians = beside(
        move || counters.iter_mut().for_each(|counter| counter.add(1)),
        || ticks(&mut rig, effort, tables),
    );
    Ok(line(name, medians, Goal::None))
}

pub(crate) fn counter_add(name: &str, effort: Effort) -> Measured {
    let medians = bumps(&mut Rig::new(1)?, effort);
    Ok(line(name, medians, Goal::RatioAtMost(1.2)))
}

/// The table is sampled on the other core; the bare word is loaded there.
pub(crate) fn counter_add_live(name: &str, effort: Effort) -> Measured {
    let mut rig = Rig::new(1)?;
    let Rig { sampler, .. } = Rig::over(&rig.tables)?;
    let mut sampler = sampler;
    let medians =
        beside(move || assert_eq!(sampler.tick(), Tick::Published), || bumps(&mut rig, effort));
    Ok(line(name, medians, Goal::None))
}

/// A counter that many threads may bump, over a bare `fetch_add`.
pub(crate) fn counter_shared(name: &str, effort: Effort) -> Measured {
    let mut schema = TableSchema::new(Target::from_name("queue"));
    let key = schema.counter("n");
    let table = TableWriter::new("bench")?;
    let object = table.add("/bench/0", &schema)?;
    let (counter, bare) = (object.get(key), Box::new(AtomicU64::new(0)));
    let medians = effort.pairs(
        101,
        || ns_each(BUMPS, || counter.add(black_box(1))),
        || {
            ns_each(BUMPS, || {
                bare.fetch_add(black_box(1), Relaxed);
            })
        },
    );
    Ok(line(name, medians, Goal::RatioAtMost(1.2)))
}

fn ticks(rig: &mut Rig, effort: Effort, tables: usize) -> Medians {
    let (sampler, bare) = (&mut rig.sampler, &mut rig.bare);
    let times = (READS / tables) as u32;
    effort.pairs(
        PAIRS,
        || ns_each(times, || assert_eq!(sampler.tick(), Tick::Published)),
        || ns_each(times, || bare.read()),
    )
}

fn bumps(rig: &mut Rig, effort: Effort) -> Medians {
    // Each is a local of the thread that bumps it, as a device's is.
    let mut counter = rig.counters.swap_remove(0);
    let bare = Box::new(AtomicU64::new(0));
    effort.pairs(
        101,
        || ns_each(BUMPS, || counter.add(black_box(1))),
        || {
            ns_each(BUMPS, || {
                let count = black_box(1);
                bare.store(bare.load(Relaxed).wrapping_add(count), Relaxed);
            })
        },
    )
}

/// Measures while another thread does `work` over and over.
fn beside(mut work: impl FnMut() + Send, measure: impl FnOnce() -> Medians) -> Medians {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                work();
            }
        });
        let medians = measure();
        done.store(true, Relaxed);
        medians
    })
}

/// Tables of one object each, a sampler of 8 of their statistics, and the bare loop over the same.
struct Rig {
    sampler: Sampler,
    bare: BareWords,
    counters: Vec<OwnedCounter>,
    tables: Vec<(TableWriter, TableObject)>,
    _control: Option<Control>,
}

impl Rig {
    fn new(tables: usize) -> Result<Self, Box<dyn Error>> {
        let mut schema = TableSchema::new(Target::from_name("queue"));
        let keys: Vec<StatKey<OwnedCounter>> =
            (0..STATS).map(|n| schema.owned_counter(format!("n{n}").as_str())).collect();
        let mut written = Vec::new();
        let mut counters = Vec::new();
        for number in 0..tables {
            let table = TableWriter::new("bench")?;
            let object = table.add(&format!("/bench/{number}"), &schema)?;
            for (key, n) in keys.iter().zip(1..) {
                let mut counter = object.own(*key).ok_or("it was not given out before")?;
                counter.add(n + number as u64 * 100);
                counters.push(counter);
            }
            written.push((table, object));
        }
        Ok(Self { counters, ..Self::over(&written)? }.with(written))
    }

    fn with(self, tables: Vec<(TableWriter, TableObject)>) -> Self {
        Self { tables, ..self }
    }

    /// A sampler and a bare loop over these tables.
    fn over(written: &[(TableWriter, TableObject)]) -> Result<Self, Box<dyn Error>> {
        let tables = Tables::new()?;
        for (table, _) in written {
            // As another process would read it: by a mapping of its own, read-only.
            tables.add_fd(table.descriptor()?)?;
        }
        let registry = Registry::default();
        registry.add(Arc::new(tables));
        let names: Vec<String> = (0..STATS).step_by(EVERY).map(|n| format!("n{n}")).collect();
        let filter = format!("queue: {}", names.join(",")).parse()?;
        let sources = Roster::new(registry, vec![filter]).open()?;
        let (mut sampler, control) =
            Sampler::new(sources, HealthWriter::default(), Fanout::Inline)?;
        assert_eq!(sampler.tick(), Tick::Published);
        let newest = control.latest().load_full();
        assert!(newest.objects().all(|view| view.state() == RowState::Good));
        let sampled: Vec<u64> =
            newest.objects().flat_map(|view| view.stats()).map(|v| v.words()[0]).collect();
        let fds =
            written.iter().map(|(table, object)| Ok((table.descriptor()?, object.data_word())));
        let fds = fds.collect::<Result<Vec<_>, vmstrobe_core::Error>>()?;
        let mut bare = BareWords::new(&fds, (0..STATS).step_by(EVERY).collect())?;
        bare.read();
        assert_eq!(bare.values(), sampled, "both read the same words");
        bare.read_found();
        assert_eq!(bare.values(), sampled, "and so does this");
        Ok(Self {
            sampler,
            bare,
            counters: Vec::new(),
            tables: Vec::new(),
            _control: Some(control),
        })
    }
}

fn line(name: &str, medians: Medians, goal: Goal) -> Line {
    Line {
        name: name.into(),
        ours: medians.ours,
        peer: medians.peer,
        ratio: medians.ratio,
        goal,
        unit: "ns",
    }
}
