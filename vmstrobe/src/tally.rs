//! The change of every statistic over one interval, from its samples.
//!
//! Counters and histograms are compared between an object's first and last sample; of booleans,
//! instants and peaks every sample counts.
//!
//! Invariant: an object that came or went within the interval counts for as long as it was there,
//! and is named; a row that could not be read adds nothing and is counted. However many objects
//! come and go, a sample takes time for its own rows alone, and what is kept of those that are gone
//! is bounded: the earliest are forgotten but for their sums.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use vmstrobe_core::{Interval, Layout, Rate, RowState, Snapshot, Window};

use object::ObjectTally;
pub use stat::{Amount, Level, StatTally};
use sums::Sums;

#[cfg(feature = "export")]
mod batch;
mod object;
mod stat;
mod sums;

#[cfg(feature = "export")]
pub(crate) use batch::BatchRow;
#[cfg(feature = "export")]
pub(crate) use sums::Statistic;

/// The most objects that are gone and still stand by themselves.
const MAX_GONE: usize = 1024;
/// The memory that they may take, roughly, and so may the sums of those that are forgotten, in
/// bytes.
const MAX_GONE_BYTES: usize = 16 << 20;

/// The samples of one interval, added up.
///
/// ```no_run
/// use std::time::Duration;
/// use vmstrobe::Tally;
/// let session = vmstrobe::attach(4711)?.sample("vcpu: exits, halt_exits", 1000.0)?;
/// let mut tally = Tally::new(session.first());
/// while tally.samples() < 1000 {
///     if let Some(sample) = session.recv(Duration::from_secs(1)) {
///         tally.add(&sample);
///     }
/// }
/// for stat in tally.stats(false) {
///     println!("{} {} in {:?} s", stat.desc().name, stat.amount.total(), tally.interval());
/// }
/// # Ok::<(), vmstrobe::Error>(())
/// ```
pub struct Tally {
    begin: Point,
    end: Point,
    /// The newest sample, which has the last readings of the present objects; `None` if samples
    /// come in batches.
    newest: Option<Arc<Snapshot>>,
    /// Samples behind the first.
    samples: u64,
    unread_rows: u64,
    /// The objects of the present layout, by row.
    present: Vec<ObjectTally>,
    /// Objects of former layouts, the earliest first.
    gone: VecDeque<ObjectTally>,
    forgotten: Forgotten,
    generation: Option<u64>,
}

/// A sample, by its tick and the time of its reading.
#[derive(Clone, Copy, Default)]
struct Point {
    tick: u64,
    window: Window,
}

/// The sums and numbers that are left of objects that came and went.
struct Forgotten {
    objects: usize,
    joined: usize,
    sums: Sums,
    /// The memory that the sums may still take, in bytes.
    room: usize,
    /// Statistics of an object for which there was no room.
    lost_stats: usize,
}

impl Point {
    fn of(sample: &Snapshot) -> Self {
        Self { tick: sample.tick(), window: sample.window() }
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").field("samples", &self.samples).finish_non_exhaustive()
    }
}

impl Tally {
    /// Returns an interval that begins with this sample.
    pub fn new(begin: &Arc<Snapshot>) -> Self {
        let mut tally = Self::empty(Point::of(begin));
        tally.take(begin, false);
        tally.newest = Some(Arc::clone(begin));
        tally
    }

    /// Returns an interval of which only the begin is known.
    fn empty(begin: Point) -> Self {
        Self {
            begin,
            end: begin,
            newest: None,
            samples: 0,
            unread_rows: 0,
            present: Vec::new(),
            gone: VecDeque::new(),
            forgotten: Forgotten {
                objects: 0,
                joined: 0,
                sums: Sums::default(),
                room: MAX_GONE_BYTES,
                lost_stats: 0,
            },
            generation: None,
        }
    }

    /// Returns the interval behind this one: it begins with this one's last sample.
    #[must_use]
    pub fn next(&self) -> Self {
        // Without a sample, objects begin with their next reading.
        self.newest.as_ref().map_or_else(|| Self::empty(self.end), Self::new)
    }

    /// Adds a sample.
    pub fn add(&mut self, sample: &Arc<Snapshot>) {
        self.take(sample, true);
        self.samples += 1;
        self.end = Point::of(sample);
        self.newest = Some(Arc::clone(sample));
    }

    /// Notes what was read. The first sample only opens the interval: the one before has had it.
    fn take(&mut self, sample: &Arc<Snapshot>, counts: bool) {
        self.enrol(sample.layout());
        // Of another layout, all has been kept.
        let is_of_layout =
            |newest: &&Arc<Snapshot>| newest.layout().generation() == sample.layout().generation();
        let newest = self.newest.as_ref().filter(is_of_layout);
        let mut before =
            newest.iter().flat_map(|newest| newest.objects().map(move |v| (v, newest)));
        for (view, member) in sample.objects().zip(&mut self.present) {
            let before = before.next();
            if view.state() == RowState::Good {
                member.read(view, sample, counts);
                continue;
            }
            if let Some((before, newest)) = before {
                member.keep(before, newest);
            }
            match view.state() {
                RowState::Good | RowState::Gone => {}
                // Its values have been counted, at the time when they were new.
                RowState::Aged(_) => member.is_there(sample),
                _ => self.unread_rows += u64::from(counts),
            }
        }
    }

    /// Finds out which object has which row of a layout that is new, and which has none any more.
    fn enrol(&mut self, layout: &Layout) {
        if self.generation == Some(layout.generation()) {
            return;
        }
        self.generation = Some(layout.generation());
        if let Some(newest) = &self.newest {
            for (view, member) in newest.objects().zip(&mut self.present) {
                member.keep(view, newest);
            }
        }
        // One that comes again goes on where it was.
        let gone = std::mem::take(&mut self.gone);
        let mut known: Vec<Option<ObjectTally>> =
            gone.into_iter().chain(self.present.drain(..)).map(Some).collect();
        let key = |member: &ObjectTally| (member.object.key, member.object.path.clone());
        let places = known.iter().flatten().map(key).zip(0..);
        let places: HashMap<_, usize> = places.collect();
        for group in layout.groups() {
            for object in &group.objects {
                let at = places.get(&(object.key, object.path.clone()));
                // A recording may claim that an object has other statistics now: it is another one.
                let is_same = |member: &mut ObjectTally| member.is_read_by(&group.plan);
                let member = at.and_then(|&at| known[at].take_if(is_same));
                self.present.push(member.unwrap_or_else(|| ObjectTally::new(object, &group.plan)));
            }
        }
        self.gone.extend(known.into_iter().flatten());
        self.forget();
    }

    /// Forgets the earliest of those that are gone, as far as there are too many.
    fn forget(&mut self) {
        let mut bytes: usize = self.gone.iter().map(ObjectTally::bytes).sum();
        while (self.gone.len() > MAX_GONE || bytes > MAX_GONE_BYTES)
            && let Some(member) = self.gone.pop_front()
        {
            bytes -= member.bytes();
            let forgotten = &mut self.forgotten;
            forgotten.objects += usize::from(member.was_read());
            forgotten.joined += usize::from(member.came_after(self.begin.tick));
            for line in member.stats(None) {
                let added = forgotten.sums.add_within(&line, &mut forgotten.room);
                forgotten.lost_stats += usize::from(!added);
            }
        }
    }

    /// Returns when its first sample was read.
    pub fn begin(&self) -> Window {
        self.begin.window
    }

    /// Returns when its last sample was read.
    pub fn end(&self) -> Window {
        self.end.window
    }

    /// Returns how long it is; `None` as long as it has but one sample.
    pub fn interval(&self) -> Option<Interval> {
        Interval::between(self.begin(), self.end())
    }

    /// Returns how many samples it has behind the first.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Returns how many ticks lie between its first and its last sample, sampled or not.
    pub fn ticks(&self) -> u64 {
        self.end.tick.saturating_sub(self.begin.tick)
    }

    /// Returns how many of these ticks were not sampled, if so many samples were lost on the way.
    pub fn missed_ticks(&self, lost_samples: u64) -> u64 {
        self.ticks().saturating_sub(self.samples + lost_samples)
    }

    /// Returns how many rows of its samples could not be read.
    pub fn unread_rows(&self) -> u64 {
        self.unread_rows
    }

    /// Returns how many objects it saw.
    pub fn objects(&self) -> usize {
        self.members().filter(|member| member.was_read()).count() + self.forgotten.objects
    }

    /// Returns how many of them came or went and no longer stand by themselves.
    pub fn forgotten_objects(&self) -> usize {
        self.forgotten.objects
    }

    /// Returns how many statistics of those are not in any sum.
    pub fn lost_stats(&self) -> usize {
        self.forgotten.lost_stats
    }

    /// Returns the path of the only object, or the one that the others are below, or the one above
    /// them all: that of their virtual machine; `None` if there is none.
    pub fn path(&self) -> Option<&str> {
        if self.forgotten.objects > 0 {
            return None;
        }
        let paths = || self.members().map(|member| &*member.object.path);
        let parent = |path: &str| path.rsplit_once('/').map_or(0, |(parent, _)| parent.len());
        let first = paths().next()?;
        let is_shared = |above: &&str| {
            !above.is_empty()
                && paths().all(|path| path == *above || path[..parent(path)] == **above)
        };
        [first, &first[..parent(first)]].into_iter().find(is_shared)
    }

    /// Returns the paths of objects that were not there at the beginning.
    pub fn joined(&self) -> impl Iterator<Item = &str> {
        let begin = self.begin.tick;
        let late = self.members().filter(move |member| member.came_after(begin));
        late.map(|member| &*member.object.path)
    }

    /// Returns how many of those that are forgotten were not there at the beginning. None of them
    /// was at the end.
    pub fn joined_and_forgotten(&self) -> usize {
        self.forgotten.joined
    }

    /// Returns the paths of objects that were not there at the end.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        let end = self.end.tick;
        let early = self.members().filter(move |member| member.went_before(end));
        early.map(|member| &*member.object.path)
    }

    fn members(&self) -> impl Iterator<Item = &ObjectTally> {
        self.present.iter().chain(&self.gone)
    }

    /// Returns each statistic, of each object by itself or of all together. Objects that are
    /// forgotten are together in either.
    pub fn stats(&self, per_object: bool) -> Vec<StatTally> {
        let newest = self.newest.iter();
        let newest = newest.flat_map(|newest| newest.objects().map(move |v| Some((v, &**newest))));
        let present = self.present.iter().zip(newest.chain(std::iter::repeat(None)));
        let gone = self.gone.iter().map(|member| (member, None));
        let each = present.chain(gone).flat_map(|(member, newest)| member.stats(newest));
        let forgotten = self.forgotten.sums.lines().iter().cloned();
        if per_object {
            return each.chain(forgotten.map(|line| self.over_all(line))).collect();
        }
        let mut sums = Sums::default();
        each.chain(forgotten).for_each(|line| sums.add(line));
        sums.into_lines().into_iter().map(|line| self.over_all(line)).collect()
    }

    /// Returns it with the rate of the whole interval: not all were there all the time.
    fn over_all(&self, mut line: StatTally) -> StatTally {
        if line.objects > 1 {
            let rate = self.interval().zip(line.rate);
            line.rate = rate.map(|(interval, _)| Rate::of(line.amount.total(), interval));
        }
        line
    }
}

#[cfg(test)]
mod tests;
