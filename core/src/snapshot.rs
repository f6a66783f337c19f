//! The result of one tick: the words of every object, the state of each row, and the time of the
//! reading.
//!
//! A [`Layout`] gives the place of each object's words. All snapshots share it until the roster
//! changes. Views that borrow a snapshot give its values; they copy and allocate nothing.
//!
//! Invariant: only a row that was read in this tick, or that says how old it is, has values.
//! Neither the objects nor the counters of one object are read at the same instant; the [`Window`]
//! bounds all of them.

use std::sync::Arc;

use crate::plan::ReadPlan;
use crate::schema::{Desc, Object};

/// The time in which a snapshot was read. Every word of a good row was loaded between begin and
/// end, or arrived since the previous tick from a source that is slower than the ticks
/// ([`RowState::Aged`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The time before the first row, in ns of `CLOCK_MONOTONIC`.
    pub begin_ns: u64,
    /// The time after the last row, in ns of `CLOCK_MONOTONIC`.
    pub end_ns: u64,
    /// The difference to ns since 1970 (`CLOCK_REALTIME`), to be added. It is renewed about once a
    /// second.
    pub wall_offset_ns: i64,
}

impl Window {
    /// Returns the middle of the reading, in ns of `CLOCK_MONOTONIC`.
    pub fn middle_ns(&self) -> u64 {
        self.begin_ns + (self.end_ns.saturating_sub(self.begin_ns)) / 2
    }

    /// Returns the begin of the reading, in ns since 1970.
    pub fn begin_wall_ns(&self) -> u64 {
        self.begin_ns.saturating_add_signed(self.wall_offset_ns)
    }

    /// Returns the middle of the reading, in ns since 1970.
    pub fn wall_ns(&self) -> u64 {
        self.middle_ns().saturating_add_signed(self.wall_offset_ns)
    }
}

/// The result of reading one object's row in this tick. A tick has no other errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowState {
    /// The row was not read.
    #[default]
    Missing,
    /// The row was read in this tick.
    Good,
    /// The row was read this many ms ago, in an earlier tick, because its source is slower than the
    /// ticks.
    Aged(u32),
    /// The source no longer answers, so that the last values may be out of date.
    Stale,
    /// The row kept changing while it was read, or was too short.
    Torn,
    /// The object no longer exists. Words that could still be read are from the past.
    Gone,
    /// The system call failed with this errno.
    Io(i32),
}

impl RowState {
    /// Returns whether the row has values, of this tick or of a given age.
    pub fn has_values(self) -> bool {
        matches!(self, Self::Good | Self::Aged(_))
    }
}

/// Objects of one schema, read by one plan.
#[derive(Clone, Debug)]
pub struct Group {
    /// The plan by which each object is read.
    pub plan: Arc<ReadPlan>,
    /// The objects. Their rows follow each other.
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

    /// Returns the generation, which differs between the layouts of one sampler.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the groups, each of objects with the same schema.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Returns the number of rows, one for each object.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of words of all rows.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Finds a statistic of one object, so that each later snapshot gives its value by index.
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

/// The result of one tick. It is immutable once it is published.
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
    /// Makes an empty snapshot of a layout. All rows are missing.
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

    /// Forgets the rows and returns their words and states for the next reading. For samplers.
    pub fn begin(&mut self, tick: u64) -> (&mut [u64], &mut [RowState]) {
        self.tick = tick;
        self.states.fill(RowState::Missing);
        (&mut self.words, &mut self.states)
    }

    /// Sets the time of the reading. A sampler does so last, before it publishes.
    pub fn stamp(&mut self, window: Window) {
        self.window = window;
    }

    /// Returns the layout, which says where the words of each object are.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Returns the number of the tick since the sampler's start. A gap means that a tick was not
    /// taken.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// Returns the time in which the snapshot was read.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Returns the first word of a statistic; `None` if the row has no values or the cell belongs
    /// to another layout.
    #[inline]
    pub fn get(&self, cell: Cell) -> Option<u64> {
        let known = cell.generation == self.generation;
        let good = known && self.states.get(cell.row).is_some_and(|state| state.has_values());
        if good { self.words.get(cell.word).copied() } else { None }
    }

    /// Returns every object, in the order of the layout.
    pub fn objects(&self) -> impl DoubleEndedIterator<Item = ObjectView<'_>> {
        self.layout
            .groups
            .iter()
            .flat_map(move |group| (0..group.objects.len()).map(move |at| self.view(group, at)))
    }

    /// Returns an object by the numbers of its group and of its place there.
    pub fn object_at(&self, group: usize, object: usize) -> Option<ObjectView<'_>> {
        let group = self.layout.groups.get(group).filter(|group| object < group.objects.len())?;
        Some(self.view(group, object))
    }

    /// Returns the object of that path.
    pub fn object(&self, path: &str) -> Option<ObjectView<'_>> {
        self.objects().find(|view| &*view.object.path == path)
    }

    /// Returns one statistic of every object that has it and has values.
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

    /// Returns the state of the row. Not every state has values ([`RowState::has_values`]).
    pub fn state(&self) -> RowState {
        self.state
    }

    /// Returns the words of all kept statistics, at the places that the plan's columns give; none
    /// if the row has no values.
    pub fn words(&self) -> &'a [u64] {
        if self.state.has_values() { self.row } else { &[] }
    }

    /// Returns the kept statistics with their values, in schema order; none if the row has no
    /// values.
    pub fn stats(&self) -> impl DoubleEndedIterator<Item = Value<'a>> + use<'a> {
        let (plan, row) = (self.plan, self.row);
        let columns = if self.state.has_values() { plan.columns() } else { &[] };
        columns.iter().map(move |column| Value {
            desc: &plan.schema().descs()[column.desc],
            words: &row[column.words.clone()],
        })
    }

    /// Returns the value of the first kept statistic of that name.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.stats().find(|value| &*value.desc.name == name)
    }
}

/// The value of one statistic, with its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    desc: &'a Desc,
    words: &'a [u64],
}

impl<'a> Value<'a> {
    /// Makes a value outside a snapshot. There should be as many words as the descriptor's size.
    pub fn new(desc: &'a Desc, words: &'a [u64]) -> Self {
        Self { desc, words }
    }

    /// Returns the descriptor of the statistic.
    pub fn desc(&self) -> &'a Desc {
        self.desc
    }

    /// Returns the words: one for a scalar, the buckets of a histogram in ascending order.
    pub fn words(&self) -> &'a [u64] {
        self.words
    }

    /// Returns the number of a scalar that is no boolean.
    pub fn number(&self) -> Option<u64> {
        match self.words {
            [number] if !self.desc.is_boolean() => Some(*number),
            _ => None,
        }
    }

    /// Returns the truth of a boolean, which as in QAPI is that of its first word, whatever its
    /// size.
    pub fn boolean(&self) -> Option<bool> {
        self.desc.is_boolean().then(|| self.words.first().is_some_and(|&word| word != 0))
    }

    /// Returns the buckets of a histogram, ascending.
    pub fn buckets(&self) -> Option<&'a [u64]> {
        (self.desc.stat_type.is_histogram() && !self.desc.is_boolean()).then_some(self.words)
    }

    /// Returns the number in its unit without a prefix (59910818 ns is 0.0599 s), for a scalar with
    /// a known base.
    pub fn in_units(&self) -> Option<f64> {
        Some(self.number()? as f64 * self.desc.scale.factor()?)
    }

    /// Returns the text of the unit and scale, as `info stats` writes it: `ns`, `KiB`, `* 2^70
    /// bytes`.
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
        let view = snapshot.object("/vm/a/vcpu[0]").expect("the layout has this object");
        assert_eq!(view.get("wait_ns").and_then(|v| v.number()), Some(1500));
        assert_eq!(view.get("wait_ns").and_then(|v| v.in_units()), Some(1500.0 * 1e-9));
        assert_eq!(view.get("wait_ns").map(|v| v.unit_text()), Some("ns".into()));
        assert_eq!(view.get("wait_hist").and_then(|v| v.buckets()), Some(&[1, 2, 3][..]));
        assert_eq!(view.get("wait_hist").and_then(|v| v.number()), None);
        assert_eq!(view.get("blocking").and_then(|v| v.boolean()), Some(true));
        assert_eq!(view.get("blocking").and_then(|v| v.number()), None);
        let path = |group, object| snapshot.object_at(group, object).map(|v| &*v.object().path);
        assert_eq!([path(0, 1), path(1, 0)], [Some("b"), Some("/vm/a")]);
        assert_eq!([path(0, 2), path(2, 0)], [None, None]);
        let flushes: Vec<u64> = snapshot.stat("flushes").map(|(_, v)| v.words()[0]).collect();
        assert_eq!(flushes, [9]);
    }

    #[test]
    fn a_row_that_was_not_read_has_no_values() {
        let snapshot = snapshot();
        let view = snapshot.object("b").expect("the layout has this object");
        assert_eq!(view.state(), RowState::Missing);
        assert_eq!(view.stats().count(), 0);
        assert_eq!(snapshot.stat("wait_ns").count(), 1);
        let cell = snapshot.layout().find("b", "wait_ns").expect("the layout has this object");
        assert_eq!(snapshot.get(cell), None);
    }

    #[test]
    fn a_row_of_an_earlier_tick_has_values_and_a_silent_one_none() {
        let mut snapshot = snapshot();
        let cell = snapshot.layout().find("/vm/a", "flushes").expect("the layout has this object");
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
        let cell = snapshot.layout().find("/vm/a", "flushes").expect("the layout has this object");
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
