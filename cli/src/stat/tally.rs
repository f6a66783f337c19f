//! What happened to every statistic over one interval, from its samples.
//!
//! Counters and histograms are compared between an object's first and last sample; of booleans,
//! instants and peaks every sample counts.
//!
//! Invariant: an object that came or went within the interval counts for as long as it was there,
//! and is named; a row that could not be read adds nothing and is counted.

use std::sync::Arc;

use vmstrobe_core::{
    Cell, Change, Interval, Object, Rate, ReadPlan, RowState, Snapshot, StatType, Window, change,
};

use super::line::{Amount, Level, Line};

/// The samples of one interval.
pub(super) struct Tally {
    begin: Arc<Snapshot>,
    end: Arc<Snapshot>,
    /// Samples behind the first.
    samples: u64,
    unread_rows: u64,
    members: Vec<Member>,
    /// Who has each row of the present layout.
    rows: Vec<usize>,
    generation: Option<u64>,
}

/// One object.
struct Member {
    object: Object,
    plan: Arc<ReadPlan>,
    first: Option<Arc<Snapshot>>,
    last: Option<Arc<Snapshot>>,
    /// The last sample in which it was there, be its values new or not.
    seen: Option<Arc<Snapshot>>,
    levels: Vec<Watched>,
}

/// A statistic of which every sample counts.
struct Watched {
    desc: usize,
    cell: Option<Cell>,
    level: Level,
}

impl Tally {
    /// An interval that begins with this sample.
    pub(super) fn new(begin: &Arc<Snapshot>) -> Self {
        let mut tally = Self {
            begin: Arc::clone(begin),
            end: Arc::clone(begin),
            samples: 0,
            unread_rows: 0,
            members: Vec::new(),
            rows: Vec::new(),
            generation: None,
        };
        tally.take(begin, false);
        tally
    }

    /// The interval behind this one: it begins with this one's last sample.
    pub(super) fn next(&self) -> Self {
        Self::new(&self.end)
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, sample: &Arc<Snapshot>) {
        self.take(sample, true);
        self.samples += 1;
        self.end = Arc::clone(sample);
    }

    /// Notes what was read. The first sample only opens the interval: the one before has had it.
    fn take(&mut self, sample: &Arc<Snapshot>, counts: bool) {
        if self.generation != Some(sample.layout().generation()) {
            self.enrol(sample);
        }
        for (view, &at) in sample.objects().zip(&self.rows) {
            let member = &mut self.members[at];
            match view.state() {
                RowState::Good => {
                    member.first.get_or_insert_with(|| Arc::clone(sample));
                    member.last = Some(Arc::clone(sample));
                    member.seen = Some(Arc::clone(sample));
                }
                // Its values have been counted, at the time when they were new.
                RowState::Aged(_) => {
                    member.seen = Some(Arc::clone(sample));
                    continue;
                }
                RowState::Gone => continue,
                RowState::Missing | RowState::Stale | RowState::Torn | RowState::Io(_) => {
                    self.unread_rows += u64::from(counts);
                    continue;
                }
            }
            for watched in member.levels.iter_mut().filter(|_| counts) {
                if let Some(word) = watched.cell.and_then(|cell| sample.get(cell)) {
                    watched.level.note(word);
                }
            }
        }
    }

    /// Finds out who has which row of a new layout.
    fn enrol(&mut self, sample: &Snapshot) {
        self.generation = Some(sample.layout().generation());
        self.rows.clear();
        for group in sample.layout().groups() {
            for object in &group.objects {
                let is_it = |member: &Member| {
                    member.object.path == object.path && member.object.key == object.key
                };
                let at = self.members.iter().position(is_it).unwrap_or_else(|| {
                    self.members.push(Member::new(object, &group.plan));
                    self.members.len() - 1
                });
                self.members[at].look_up(sample);
                self.rows.push(at);
            }
        }
    }

    /// When its first sample was read.
    pub(super) fn begin(&self) -> Window {
        self.begin.window()
    }

    /// When its last sample was read.
    pub(super) fn end(&self) -> Window {
        self.end.window()
    }

    /// How long it is; `None` as long as it has but one sample.
    pub(super) fn interval(&self) -> Option<Interval> {
        Interval::between(self.begin(), self.end())
    }

    /// How many samples it has behind the first.
    pub(super) fn samples(&self) -> u64 {
        self.samples
    }

    /// How many ticks lie between its first and its last sample, sampled or not.
    pub(super) fn ticks(&self) -> u64 {
        self.end.tick().saturating_sub(self.begin.tick())
    }

    pub(super) fn unread_rows(&self) -> u64 {
        self.unread_rows
    }

    /// How many objects it saw.
    pub(super) fn objects(&self) -> usize {
        self.members.iter().filter(|member| member.first.is_some()).count()
    }

    /// The path of the only object, or the one above them all: that of their virtual machine.
    pub(super) fn path(&self) -> Option<&str> {
        if let [member] = &self.members[..] {
            return Some(&member.object.path);
        }
        let parent = |path: &'_ str| path.rsplit_once('/').map_or(0, |(parent, _)| parent.len());
        let mut paths = self.paths(|_| true).map(|path| &path[..parent(path)]);
        let first = paths.next().filter(|path| !path.is_empty())?;
        paths.all(|path| path == first).then_some(first)
    }

    /// Who was not there at the beginning.
    pub(super) fn joined(&self) -> impl Iterator<Item = &str> {
        let late = |first: &Arc<Snapshot>| !Arc::ptr_eq(first, &self.begin);
        self.paths(move |member| member.first.as_ref().is_some_and(late))
    }

    /// Who was not there at the end.
    pub(super) fn left(&self) -> impl Iterator<Item = &str> {
        let early = |last: &Arc<Snapshot>| !Arc::ptr_eq(last, &self.end);
        self.paths(move |member| member.seen.as_ref().is_some_and(early))
    }

    fn paths(&self, wanted: impl Fn(&&Member) -> bool) -> impl Iterator<Item = &str> {
        self.members.iter().filter(wanted).map(|member| &*member.object.path)
    }

    /// What happened to each statistic, of each object by itself or of all together.
    pub(super) fn lines(&self, per_object: bool) -> Vec<Line> {
        let each = self.members.iter().flat_map(Member::lines);
        if per_object {
            return each.collect();
        }
        let mut lines: Vec<Line> = Vec::new();
        for mut line in each {
            line.path = None;
            let same = |sum: &&mut Line| sum.is_of_the_same(&line);
            match lines.iter_mut().find(same) {
                Some(sum) => sum.add(line),
                None => lines.push(line),
            }
        }
        // Not all were there all the time: the rate is that of the whole interval.
        for line in lines.iter_mut().filter(|line| line.objects > 1) {
            let rate = self.interval().zip(line.rate);
            line.rate = rate.map(|(interval, _)| Rate::of(line.amount.total(), interval));
        }
        lines
    }
}

impl Member {
    fn new(object: &Object, plan: &Arc<ReadPlan>) -> Self {
        let is_level = |desc: &usize| {
            let desc = &object.schema.descs()[*desc];
            let level =
                matches!(desc.stat_type, StatType::Instant | StatType::Peak | StatType::Unknown(_));
            level || desc.is_boolean()
        };
        let descs = plan.columns().iter().map(|column| column.desc).filter(is_level);
        let watched = |desc| Watched { desc, cell: None, level: Level::default() };
        Self {
            object: object.clone(),
            plan: Arc::clone(plan),
            first: None,
            last: None,
            seen: None,
            levels: descs.map(watched).collect(),
        }
    }

    /// Finds its levels in the layout of this sample.
    fn look_up(&mut self, sample: &Snapshot) {
        for watched in &mut self.levels {
            let name = &self.object.schema.descs()[watched.desc].name;
            watched.cell = sample.layout().find(&self.object.path, name);
        }
    }

    fn lines(&self) -> Vec<Line> {
        let (Some(first), Some(last)) = (&self.first, &self.last) else { return Vec::new() };
        let interval = Interval::between(first.window(), last.window());
        let (path, schema) = (&self.object.path, &self.object.schema);
        let (Some(interval), Some(was), Some(is)) =
            (interval, first.object(path), last.object(path))
        else {
            return Vec::new();
        };
        let values = was.stats().zip(is.stats()).zip(self.plan.columns());
        values
            .map(|((was, is), column)| {
                let (amount, rate) = match change(was, is, interval) {
                    Change::Delta { delta, rate } => (Amount::Count(delta), Some(rate)),
                    Change::Buckets { deltas, rate } => (Amount::Buckets(deltas), Some(rate)),
                    Change::Reset { since } => match since[..] {
                        [count] if is.number().is_some() => (Amount::Count(count), None),
                        _ => (Amount::Buckets(since), None),
                    },
                    Change::Level(_) => (Amount::Level(self.level(column.desc)), None),
                };
                Line {
                    path: Some(path.clone()),
                    schema: Arc::clone(schema),
                    desc: column.desc,
                    amount,
                    rate,
                    objects: 1,
                    object_seconds: interval.seconds,
                }
            })
            .collect()
    }

    fn level(&self, desc: usize) -> Level {
        let watched = self.levels.iter().find(|watched| watched.desc == desc);
        watched.map(|watched| watched.level).unwrap_or_default()
    }
}

#[cfg(test)]
pub(super) mod tests;
