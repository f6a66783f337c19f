//! One tick, immutable: the words of every object, whether each could be read, and when.
//!
//! A [`Layout`] says whose words are where; it is shared by all snapshots until the roster changes.
//! Values are reached through views that borrow the snapshot; nothing here copies or allocates
//! after a snapshot was made.
//!
//! Invariant: a value can only be had from a row that was read in this very tick, or that says how
//! old it is. Counters within one object are not read at one instant, nor are the objects: the
//! [`Window`] bounds them all.

use std::sync::Arc;

use crate::plan::ReadPlan;
use crate::schema::{Desc, Object};

/// The time in which a snapshot was read: every word of a good row was loaded between begin and
/// end, or arrived since the tick before, from a source that is slower than the ticks
/// ([`RowState::Aged`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Before the first row, in ns of `CLOCK_MONOTONIC`.
    pub begin_ns: u64,
    /// After the last row, in ns of `CLOCK_MONOTONIC`.
    pub end_ns: u64,
    /// The number to add to get ns since 1970 (`CLOCK_REALTIME`). Renewed about once a second.
    pub wall_offset_ns: i64,
}

impl Window {
    /// The middle of the reading, in ns of `CLOCK_MONOTONIC`.
    pub fn middle_ns(&self) -> u64 {
        self.begin_ns + (self.end_ns.saturating_sub(self.begin_ns)) / 2
    }

    /// The middle of the reading, in ns since 1970.
    pub fn wall_ns(&self) -> u64 {
        self.middle_ns().saturating_add_signed(self.wall_offset_ns)
    }
}

/// The result of reading one object's row in this tick. A tick has no other errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowState {
    /// Nobody read it.
    #[default]
    Missing,
    /// Read.
    Good,
    /// Read some ticks ago, so many ms: its source is asked less often than there are ticks.
    Aged(u32),
    /// Its source no longer answers, so that its last values may be out of date.
    Stale,
    /// It changed all the while, or arrived short.
    Torn,
    /// Its object is no more: what could still be read is the past.
    Gone,
    /// The system call failed with this errno.
    Io(i32),
}

impl RowState {
    /// Has the row values: of this tick, or of an earlier one that it names?
    pub fn has_values(self) -> bool {
        matches!(self, Self::Good | Self::Aged(_))
    }
}

/// Objects of one schema, read by one plan.
#[derive(Clone, Debug)]
pub struct Group {
    /// The plan that each is read by.
    pub plan: Arc<ReadPlan>,
    /// The objects, whose rows follow each other.
    pub objects: Box<[Object]>,
    /// The row of the first object.
    pub first_row: usize,
    /// The first word of that row.
    pub first_word: usize,
}

/// The place of each object's words, in every snapshot of one generation.
#[derive(Clone, Debug)]
pub struct Layout {
    generation: u64,
    groups: Box<[Group]>,
    rows: usize,
    words: usize,
}

impl Layout {
    /// Lays out the objects of each plan one after the other.
    ///
    /// `generation` tells layouts of one sampler apart; it grows with every change of the roster.
    pub fn new(generation: u64, parts: Vec<(Arc<ReadPlan>, Vec<Object>)>) -> Arc<Self> {
        let (mut rows, mut words) = (0, 0);
        let groups = parts.into_iter().map(|(plan, objects)| {
            let group = Group { plan, objects: objects.into(), first_row: rows, first_word: words };
            rows += group.objects.len();
            words += group.objects.len() * group.plan.row_words();
            group
        });
        let groups = groups.collect();
        Arc::new(Self { generation, groups, rows, words })
    }

    /// Tells layouts of one sampler apart.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Objects of one schema each.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The number of objects.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of words of all rows.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Looks a statistic of one object up, so that each later snapshot gives its value by index.
    pub fn find(&self, path: &str, name: &str) -> Option<Cell> {
        self.groups.iter().find_map(|group| {
            let at = group.objects.iter().position(|object| &*object.path == path)?;
            let column = group.plan.column(name)?;
            let word = group.first_word + at * group.plan.row_words() + column.words.start;
            Some(Cell { generation: self.generation, row: group.first_row + at, word })
        })
    }
}

/// The place of one value in the snapshots of one layout; see [`Layout::find`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    generation: u64,
    row: usize,
    word: usize,
}

/// One tick: immutable once published.
#[derive(Debug)]
pub struct Snapshot {
    layout: Arc<Layout>,
    generation: u64,
    tick: u64,
    window: Window,
    states: Box<[RowState]>,
    words: Box<[u64]>,
}

impl Snapshot {
    /// An empty snapshot of that layout, all rows missing.
    pub fn new(layout: &Arc<Layout>) -> Self {
        Self {
            layout: Arc::clone(layout),
            generation: layout.generation,
            tick: 0,
            window: Window::default(),
            states: vec![RowState::Missing; layout.rows].into(),
            words: vec![0; layout.words].into(),
        }
    }

    /// For a sampler: forgets what the rows held, and gives them out for reading.
    pub fn begin(&mut self, tick: u64) -> (&mut [u64], &mut [RowState]) {
        self.tick = tick;
        self.states.fill(RowState::Missing);
        (&mut self.words, &mut self.states)
    }

    /// For a sampler: says when the rows were read. Last, before it publishes.
    pub fn stamp(&mut self, window: Window) {
        self.window = window;
    }

    /// Returns the layout, which says where the words of each object are.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The number of this tick since the sampler's start. A gap is a tick that was not taken.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// Returns the time in which it was read.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The first word of a statistic found before; `None` if the row could not be read, or the
    /// cell is of another layout.
    #[inline]
    pub fn get(&self, cell: Cell) -> Option<u64> {
        let known = cell.generation == self.generation;
        let good = known && self.states.get(cell.row).is_some_and(|state| state.has_values());
        if good { self.words.get(cell.word).copied() } else { None }
    }

    /// Every object, in the order of the layout.
    pub fn objects(&self) -> impl DoubleEndedIterator<Item = ObjectView<'_>> {
        self.layout
            .groups
            .iter()
            .flat_map(move |group| (0..group.objects.len()).map(move |at| self.view(group, at)))
    }

    /// The object of that path.
    pub fn object(&self, path: &str) -> Option<ObjectView<'_>> {
        self.objects().find(|view| &*view.object.path == path)
    }

    /// One statistic of every object that has it and could be read.
    pub fn stat<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (ObjectView<'a>, Value<'a>)> + 'a {
        self.objects().filter_map(move |view| view.get(name).map(|value| (view, value)))
    }

    fn view<'a>(&'a self, group: &'a Group, at: usize) -> ObjectView<'a> {
        let row_words = group.plan.row_words();
        let first = group.first_word + at * row_words;
        ObjectView {
            object: &group.objects[at],
            plan: &group.plan,
            state: self.states[group.first_row + at],
            row: &self.words[first..first + row_words],
        }
    }
}

/// One object in a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct ObjectView<'a> {
    object: &'a Object,
    plan: &'a ReadPlan,
    state: RowState,
    row: &'a [u64],
}

impl<'a> ObjectView<'a> {
    /// Returns the object.
    pub fn object(&self) -> &'a Object {
        self.object
    }

    /// Whether it could be read. It may have no values ([`RowState::has_values`]).
    pub fn state(&self) -> RowState {
        self.state
    }

    /// The words of all kept statistics, where the plan's columns say; none if the row has no
    /// values. For who has looked up once what stands where.
    pub fn words(&self) -> &'a [u64] {
        if self.state.has_values() { self.row } else { &[] }
    }

    /// The kept statistics with their values in schema order; none if the row has no values.
    pub fn stats(&self) -> impl DoubleEndedIterator<Item = Value<'a>> + use<'a> {
        let (plan, row) = (self.plan, self.row);
        let columns = if self.state.has_values() { plan.columns() } else { &[] };
        columns.iter().map(move |column| Value {
            desc: &plan.schema().descs()[column.desc],
            words: &row[column.words.clone()],
        })
    }

    /// The value of the first kept statistic of that name.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.stats().find(|value| &*value.desc.name == name)
    }
}

/// One statistic's value with what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    desc: &'a Desc,
    words: &'a [u64],
}

impl<'a> Value<'a> {
    /// A value outside a snapshot; `words` should be as many as the descriptor's size.
    pub fn new(desc: &'a Desc, words: &'a [u64]) -> Self {
        Self { desc, words }
    }

    /// Returns the descriptor of the statistic.
    pub fn desc(&self) -> &'a Desc {
        self.desc
    }

    /// Its words: one for a scalar, the buckets of a histogram in ascending order.
    pub fn words(&self) -> &'a [u64] {
        self.words
    }

    /// The number of a scalar that is no boolean.
    pub fn number(&self) -> Option<u64> {
        match self.words {
            [number] if !self.desc.is_boolean() => Some(*number),
            _ => None,
        }
    }

    /// The truth of a boolean: of its first word, whatever its size (as QAPI has it).
    pub fn boolean(&self) -> Option<bool> {
        self.desc.is_boolean().then(|| self.words.first().is_some_and(|&word| word != 0))
    }

    /// The buckets of a histogram, ascending.
    pub fn buckets(&self) -> Option<&'a [u64]> {
        (self.desc.stat_type.is_histogram() && !self.desc.is_boolean()).then_some(self.words)
    }

    /// The number in its unit without prefix (59910818 ns is 0.0599 s), for a scalar of a known
    /// base.
    pub fn in_units(&self) -> Option<f64> {
        Some(self.number()? as f64 * self.desc.scale.factor()?)
    }

    /// The text of its unit and scale, as `info stats` writes it: `ns`, `KiB`, `* 2^70 bytes`.
    pub fn unit_text(&self) -> String {
        self.desc.scale.text(self.desc.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Mask;
    use crate::schema::{Schema, Target};
    use crate::stat::{Scale, StatType, Unit};

    fn layout() -> Arc<Layout> {
        let descs = vec![
            Desc { unit: Unit::Seconds, scale: Scale::NANO, ..Desc::counter("wait_ns", 0) },
            Desc { size: 3, stat_type: StatType::Log2Histogram, ..Desc::counter("wait_hist", 8) },
            Desc {
                unit: Unit::Boolean,
                stat_type: StatType::Instant,
                ..Desc::counter("blocking", 32)
            },
        ];
        let vcpus = Schema::new("kvm", Target::Vcpu, descs);
        let vms = Schema::new("kvm", Target::Vm, vec![Desc::counter("flushes", 0)]);
        let object = |schema: &Arc<Schema>, path: &str, key| Object {
            path: path.into(),
            index: None,
            schema: Arc::clone(schema),
            key,
        };
        let plan = |schema: &Arc<Schema>| ReadPlan::new(schema, &Mask::all(schema));
        Layout::new(
            7,
            vec![
                (plan(&vcpus), vec![object(&vcpus, "/vm/a/vcpu[0]", 1), object(&vcpus, "b", 2)]),
                (plan(&vms), vec![object(&vms, "/vm/a", 3)]),
            ],
        )
    }

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::new(&layout());
        let (words, states) = snapshot.begin(1);
        words.copy_from_slice(&[1500, 1, 2, 3, 1, 0, 0, 0, 0, 0, 9]);
        states[0] = RowState::Good;
        states[2] = RowState::Good;
        snapshot
    }

    #[test]
    fn values_lie_where_the_layout_says() {
        let snapshot = snapshot();
        let view = snapshot.object("/vm/a/vcpu[0]").expect("it is laid out");
        assert_eq!(view.get("wait_ns").and_then(|v| v.number()), Some(1500));
        assert_eq!(view.get("wait_ns").and_then(|v| v.in_units()), Some(1500.0 * 1e-9));
        assert_eq!(view.get("wait_ns").map(|v| v.unit_text()), Some("ns".into()));
        assert_eq!(view.get("wait_hist").and_then(|v| v.buckets()), Some(&[1, 2, 3][..]));
        assert_eq!(view.get("wait_hist").and_then(|v| v.number()), None);
        assert_eq!(view.get("blocking").and_then(|v| v.boolean()), Some(true));
        assert_eq!(view.get("blocking").and_then(|v| v.number()), None);
        let flushes: Vec<u64> = snapshot.stat("flushes").map(|(_, v)| v.words()[0]).collect();
        assert_eq!(flushes, [9]);
    }

    #[test]
    fn a_row_that_was_not_read_has_no_values() {
        let snapshot = snapshot();
        let view = snapshot.object("b").expect("it is laid out");
        assert_eq!(view.state(), RowState::Missing);
        assert_eq!(view.stats().count(), 0);
        assert_eq!(snapshot.stat("wait_ns").count(), 1);
        let cell = snapshot.layout().find("b", "wait_ns").expect("it is laid out");
        assert_eq!(snapshot.get(cell), None);
    }

    #[test]
    fn a_row_of_an_earlier_tick_has_values_and_a_silent_one_none() {
        let mut snapshot = snapshot();
        let cell = snapshot.layout().find("/vm/a", "flushes").expect("it is laid out");
        for (state, want) in [(RowState::Aged(3), Some(9)), (RowState::Stale, None)] {
            snapshot.states[2] = state;
            assert_eq!(snapshot.get(cell), want);
            assert_eq!(snapshot.stat("flushes").count(), usize::from(want.is_some()));
        }
    }

    #[test]
    fn a_new_tick_forgets_the_old_one() {
        let mut snapshot = snapshot();
        snapshot.begin(2);
        assert!(snapshot.objects().all(|view| view.stats().count() == 0));
    }

    #[test]
    fn a_cell_of_another_layout_gives_nothing() {
        let snapshot = snapshot();
        let cell = snapshot.layout().find("/vm/a", "flushes").expect("it is laid out");
        assert_eq!(snapshot.get(cell), Some(9));
        let other = Cell { generation: 8, ..cell };
        assert_eq!(snapshot.get(other), None);
    }

    #[test]
    fn wall_time_is_the_middle_plus_the_offset() {
        let window = Window { begin_ns: 100, end_ns: 300, wall_offset_ns: -50 };
        assert_eq!(window.middle_ns(), 200);
        assert_eq!(window.wall_ns(), 150);
    }
}
