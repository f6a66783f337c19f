//! A reader of tables by the code under test, as a sampler would be; each call against a clock.
//!
//! Invariant: every call is bounded. The bounds are no benchmark: what passes them would be called
//! a hang by whoever waits for it.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use vmstrobe::table::Tables;
use vmstrobe_core::{
    Mask, Object, Provider, ReadPlan, Result, RowState, Rows, Schema, Source, Value,
};

/// The time that a call takes or may take: of the CPU, and of real time, which is longer if other
/// processes run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The CPU time of this thread.
    pub cpu: Duration,
    /// The real time.
    pub wall: Duration,
}

/// The bound of a look at small tables.
pub const LOOK: Spent = Spent { cpu: Duration::from_secs(1), wall: Duration::from_secs(2) };
/// The bound of a source's part of a tick.
pub const TICK: Spent = Spent { cpu: Duration::from_millis(50), wall: Duration::from_secs(1) };

/// A reader of tables that records the longest time of a call.
#[derive(Debug)]
pub struct Reader {
    tables: Tables,
    opened: Vec<Opened>,
    /// The bound of what may look at tables.
    pub look_bound: Spent,
    /// The bound of a source's part of a tick.
    pub tick_bound: Spent,
    /// The longest of those so far.
    pub longest_look: Spent,
    /// The longest tick so far.
    pub longest_tick: Spent,
    /// The rows of all ticks so far, by how they ended: good, torn, gone, stale.
    pub ends: [u64; 4],
}

/// Objects of one schema, and where their rows come from.
struct Opened {
    objects: Vec<Object>,
    plan: Arc<ReadPlan>,
    sources: Vec<Box<dyn Source>>,
}

/// The result of a tick for one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The object's path.
    pub path: String,
    /// The state of its row.
    pub state: RowState,
    /// The statistics by name, if the row is good.
    pub values: Vec<(String, Vec<u64>)>,
}

impl Reader {
    /// Returns a reader without tables.
    ///
    /// # Panics
    ///
    /// If the system has no thread for it.
    #[allow(clippy::new_without_default, reason = "it starts a thread and can fail")]
    pub fn new() -> Self {
        Self {
            tables: Tables::new().expect("a thread can be started"),
            opened: Vec::new(),
            look_bound: LOOK,
            tick_bound: TICK,
            longest_look: Spent::default(),
            longest_tick: Spent::default(),
            ends: [0; 4],
        }
    }

    /// Attaches to all tables of that process; see [`Tables::attach`].
    ///
    /// # Errors
    ///
    /// The errors of [`Tables::attach`].
    ///
    /// # Panics
    ///
    /// If it takes longer than a look may.
    pub fn attach(&mut self, pid: u32) -> Result<usize> {
        let (outcome, spent) = timed("attach", self.look_bound, || self.tables.attach(pid));
        self.longest_look = self.longest_look.max(spent);
        outcome
    }

    /// Opens the table in that file; see [`Tables::open_file`].
    ///
    /// # Errors
    ///
    /// The errors of [`Tables::open_file`].
    ///
    /// # Panics
    ///
    /// If it takes longer than a look may.
    pub fn open_file(&mut self, path: &Path) -> Result<()> {
        let (outcome, spent) = timed("open_file", self.look_bound, || self.tables.open_file(path));
        self.longest_look = self.longest_look.max(spent);
        outcome
    }

    /// Returns the objects that the tables have now.
    ///
    /// # Panics
    ///
    /// If it takes longer than a look may, or a schema is over its limits.
    pub fn look(&mut self) -> Vec<Object> {
        let (objects, spent) = timed("objects", self.look_bound, || self.tables.objects());
        self.longest_look = self.longest_look.max(spent);
        let objects = objects.expect("the provider lists its objects");
        objects.iter().for_each(|object| is_sound(&object.schema));
        objects
    }

    /// Returns the reasons why some objects are not read; see [`Provider::warnings`].
    pub fn warnings(&self) -> Vec<vmstrobe_core::Error> {
        self.tables.warnings()
    }

    /// Opens objects, for all that they have, in place of what was open.
    ///
    /// # Panics
    ///
    /// If it takes longer than a look may.
    pub fn open(&mut self, objects: &[Object]) {
        let (opened, spent) = timed("open", self.look_bound, || {
            let alike = |a: &Object, b: &Object| Arc::ptr_eq(&a.schema, &b.schema);
            objects.chunk_by(alike).map(|objects| open(&self.tables, objects)).collect()
        });
        self.longest_look = self.longest_look.max(spent);
        self.opened = opened;
    }

    /// Counts what another saw as its own.
    pub fn count(&mut self, other: &Self) {
        self.longest_look = self.longest_look.max(other.longest_look);
        self.longest_tick = self.longest_tick.max(other.longest_tick);
        self.ends.iter_mut().zip(other.ends).for_each(|(end, count)| *end += count);
    }

    /// Reads all open objects.
    ///
    /// # Panics
    ///
    /// If it takes longer than it may, or a row ends in a way that tables do not have.
    pub fn tick(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut spent_all = Spent::default();
        for opened in &mut self.opened {
            for (source, objects) in opened.sources.iter_mut().zip(opened.objects.chunks(64)) {
                let (row_words, count) = (opened.plan.row_words(), source.rows());
                assert_eq!(count, objects.len());
                let mut states = vec![RowState::Missing; count];
                let mut words = vec![0; count * row_words];
                let read = || source.read(Rows::new(&mut words, &mut states, row_words));
                let ((), spent) = timed("a tick", self.tick_bound, read);
                spent_all = spent_all + spent;
                let words = (0..count).map(|row| &words[row * row_words..][..row_words]);
                let each = objects.iter().zip(states).zip(words);
                rows.extend(
                    each.map(|((object, state), words)| row(object, &opened.plan, state, words)),
                );
            }
        }
        self.longest_tick = self.longest_tick.max(spent_all);
        for row in &rows {
            self.ends[end(row.state)] += 1;
        }
        rows
    }
}

impl std::ops::Add for Spent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, wall: self.wall + other.wall }
    }
}

impl Spent {
    fn max(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), wall: self.wall.max(other.wall) }
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("objects", &self.objects).finish_non_exhaustive()
    }
}

/// Returns for how long threads of this machine have waited for a CPU so far, as the kernel tells
/// (`/proc/pressure/cpu`); zero if it does not.
fn waited_for_cpus() -> Duration {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = text.lines().find(|line| line.starts_with("some "));
    let total = some.and_then(|line| line.rsplit_once("total=")?.1.parse().ok());
    Duration::from_micros(total.unwrap_or_default())
}

/// Returns the same as of a moment ago: asking takes the kernel a while.
fn waited_for_cpus_lately() -> Duration {
    /// The time for which an answer is used again.
    const LATELY: Duration = Duration::from_millis(100);
    thread_local! {
        static LAST: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    }
    let fresh = LAST.get().filter(|(when, _)| when.elapsed() < LATELY);
    let (when, waited) = fresh.unwrap_or_else(|| (Instant::now(), waited_for_cpus()));
    LAST.set(Some((when, waited)));
    waited
}

/// Calls it, and says how long it took.
///
/// # Panics
///
/// If that is longer than the bound. What a busy machine takes away does not count: a look waits
/// for a helper process, and either for a CPU.
pub fn timed<T>(what: &str, bound: Spent, call: impl FnOnce() -> T) -> (T, Spent) {
    let cpu = || {
        Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("CPU time is not negative")
    };
    let waited_before = waited_for_cpus_lately();
    let (wall_before, cpu_before) = (Instant::now(), cpu());
    let value = call();
    let spent = Spent { cpu: cpu() - cpu_before, wall: wall_before.elapsed() };
    let is_bounded = spent.cpu <= bound.cpu
        && (spent.wall <= bound.wall
            || spent.wall <= bound.wall + waited_for_cpus().saturating_sub(waited_before));
    assert!(is_bounded, "{what} took {spent:?}; the bound is {bound:?}");
    (value, spent)
}

fn open(tables: &Tables, objects: &[Object]) -> Opened {
    let schema = &objects[0].schema;
    let plan = ReadPlan::new(schema, &Mask::all(schema));
    let sources = tables.open(objects, &plan).expect("the provider opens its objects");
    Opened { objects: objects.to_vec(), plan, sources }
}

fn row(object: &Object, plan: &ReadPlan, state: RowState, words: &[u64]) -> Row {
    let value = |column: &vmstrobe_core::Column| {
        let desc = &plan.schema().descs()[column.desc];
        let value = Value::new(desc, &words[column.words.clone()]);
        (desc.name.to_string(), value.words().to_vec())
    };
    let is_good = state == RowState::Good;
    let values = plan.columns().iter().filter(|_| is_good).map(value).collect();
    Row { path: object.path.to_string(), state, values }
}

fn end(state: RowState) -> usize {
    match state {
        RowState::Good => 0,
        RowState::Torn => 1,
        RowState::Gone => 2,
        RowState::Stale => 3,
        other => panic!("a row of a table is {other:?}"),
    }
}

/// Asserts the limits that every schema keeps.
fn is_sound(schema: &Schema) {
    assert!(schema.descs().len() <= vmstrobe_core::wire::MAX_DESCS as usize);
    assert!(schema.data_bytes() <= vmstrobe_core::wire::MAX_DATA_BYTES);
    assert!(schema.descs().iter().all(|desc| desc.words().end * 8 <= schema.data_bytes()));
}
