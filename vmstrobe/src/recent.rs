//! The samples of the last second: one for each 100 ms, and the newest; and what changed in it.
//!
//! Invariant: a change comes from two samples of one object; without them there is none. At most
//! [`POINTS_PER_SECOND`] + 2 of the sampler's snapshots are held at a time, so that it has buffers
//! left.

use std::collections::VecDeque;
use std::sync::Arc;

use vmstrobe_core::{Change, Interval, ObjectView, Snapshot, Target, change};

/// The number of points in a second: samples that [`RecentSamples`] keeps.
pub const POINTS_PER_SECOND: usize = 10;
const POINT_NS: u64 = 1_000_000_000 / POINTS_PER_SECOND as u64;

/// An object, and the change of one of its statistics if that is known.
pub type ObjectChange<'a> = (ObjectView<'a>, Option<Change>);

/// The samples of the last second, for a view that shows rates whatever the rate of sampling.
///
/// ```no_run
/// use vmstrobe::{RecentSamples, Target};
/// let mut session = vmstrobe::attach(4711)?.sample("vcpu: exits", 1000.0)?;
/// let mut recent = RecentSamples::new(session.first());
/// for sample in session.samples().take(1000) {
///     recent.add(&sample);
/// }
/// let [exits] = recent.changes(&Target::Vcpu, ["exits"]);
/// for (vcpu, change) in exits {
///     let rate = change.and_then(|change| change.rate());
///     println!("{} {:?}", vcpu.object().path, rate.map(|rate| rate.per_second));
/// }
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Debug)]
pub struct RecentSamples {
    /// One sample for each of the last points; the oldest is one second old.
    points: VecDeque<Arc<Snapshot>>,
    newest: Arc<Snapshot>,
}

impl RecentSamples {
    /// Begins with this sample.
    pub fn new(first: &Arc<Snapshot>) -> Self {
        Self { points: VecDeque::from([Arc::clone(first)]), newest: Arc::clone(first) }
    }

    /// Adds a sample. If it becomes a point, returns the point before.
    pub fn add(&mut self, sample: &Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        self.newest = Arc::clone(sample);
        let begin_ns = |snapshot: &Snapshot| snapshot.window().begin_ns;
        let point = Arc::clone(self.points.back()?);
        if begin_ns(sample) < begin_ns(&point) + POINT_NS {
            return None;
        }
        self.points.push_back(Arc::clone(sample));
        if self.points.len() > POINTS_PER_SECOND + 1 {
            self.points.pop_front();
        }
        Some(point)
    }

    /// Returns the newest sample.
    pub fn newest(&self) -> &Snapshot {
        &self.newest
    }

    /// Returns the changes of these statistics of each object in the last second.
    pub fn changes<const N: usize>(
        &self,
        target: &Target,
        names: [&str; N],
    ) -> [Vec<ObjectChange<'_>>; N] {
        let base = self.points.front().unwrap_or(&self.newest);
        names.map(|name| changes_between(base, &self.newest, target, name))
    }
}

/// Returns the change of one statistic of each object of a target between two samples.
pub fn changes_between<'a>(
    before: &Snapshot,
    after: &'a Snapshot,
    target: &Target,
    name: &str,
) -> Vec<ObjectChange<'a>> {
    let interval = Interval::between(before.window(), after.window());
    let objects = after.objects().filter(|view| view.object().schema.target() == target);
    let changed = |view: &ObjectView<'_>| {
        let earlier = before.object(&view.object().path)?.get(name)?;
        Some(change(earlier, view.get(name)?, interval?))
    };
    objects.map(|view| (view, changed(&view))).collect()
}

#[cfg(test)]
mod tests {
    use vmstrobe_testing::snapshots::{snapshot, vcpu};

    use super::*;

    #[test]
    fn changes_are_of_the_last_second() {
        let sample = |at_ms: u64, exits: u64| {
            snapshot(at_ms + 1, at_ms, &[(vcpu(0), Some([exits, 0, 0, 0, 0, 0]))])
        };
        let mut recent = RecentSamples::new(&sample(0, 0));
        let exits = |recent: &RecentSamples| {
            let [changes] = recent.changes(&Target::Vcpu, ["exits"]);
            let [(view, change)] = &changes[..] else { panic!("there is one vCPU") };
            assert_eq!(&*view.object().path, "/vm/web/vcpu[0]");
            change.as_ref().and_then(Change::rate).map(|rate| rate.per_second)
        };
        assert_eq!(exits(&recent), None, "one sample has no interval");
        // Points are 100 ms apart, whatever the rate.
        for at_ms in (10..=2000).step_by(10) {
            let point = recent.add(&sample(at_ms, at_ms * at_ms));
            assert_eq!(point.is_some(), at_ms % 100 == 0, "{at_ms}");
            assert!(recent.points.len() <= POINTS_PER_SECOND + 1);
        }
        assert_eq!(exits(&recent), Some(4e6 - 1e6));
        assert_eq!(recent.newest().window().begin_ns, 2_000_000_000);
    }

    #[test]
    fn an_object_that_came_has_no_change() {
        let row = |index| (vcpu(index), Some([7; 6]));
        let (before, after) = (snapshot(1, 0, &[row(0)]), snapshot(2, 500, &[row(0), row(1)]));
        let changes = changes_between(&before, &after, &Target::Vcpu, "exits");
        let known: Vec<bool> = changes.iter().map(|(_, change)| change.is_some()).collect();
        assert_eq!(known, [true, false]);
        assert!(changes_between(&before, &after, &Target::Vm, "exits").is_empty());
    }
}
