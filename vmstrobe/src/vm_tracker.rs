//! Tracks virtual machines that come and go, by comparing what was found with what is served; and
//! keeps a record of those that wait: since when, whether that was said, when to try again.
//!
//! Invariant: pure decisions. A virtual machine that was missed by one look has not gone. One that
//! is refused is named once, and tried less and less often: a VMM that is just starting has nothing
//! to read yet, and one that never has anything must not cost much.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// After how many looks in a row without it a virtual machine has gone, although its process has
/// not ended.
const MISSED_MAX: u32 = 3;
/// At which refusal in a row it is said, of one that came later, and the tries become rarer. Of
/// those that were there at the start it is said at once.
const REFUSED_SAID: u32 = 3;
/// The pause before the try after that one; each further pause is twice as long, ...
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// ... up to this.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// A process with virtual machines, told from all others there have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vmm {
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot. With it, a later process of the same number is
    /// another.
    pub start_time_ticks: u64,
    /// The user that it runs as: its real user id.
    pub uid: u32,
}

/// The changes that a look has found.
#[derive(Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// The VMMs that are not served and due to be tried now, those first that have waited longest.
    pub came: Vec<Vmm>,
    /// The VMMs to be closed now.
    pub gone: Vec<Vmm>,
}

/// Decides which virtual machines to open and to close, from look to look.
///
/// ```
/// use std::time::Instant;
/// use vmstrobe::{VmTracker, Vmm};
/// let mut tracker = VmTracker::default();
/// let vmm = Vmm { pid: 4711, start_time_ticks: 1, uid: 0 };
/// assert_eq!(tracker.compare(&[vmm], &[], Instant::now()).came, [vmm]);
/// tracker.accept(vmm);
/// assert!(tracker.compare(&[vmm], &[vmm], Instant::now()).came.is_empty());
/// ```
#[derive(Debug, Default)]
pub struct VmTracker {
    looks: u64,
    arrivals: u64,
    /// For how many looks each that is served has not been found.
    missed: HashMap<Vmm, u32>,
    /// The virtual machines that are there and not served.
    waiting: HashMap<Vmm, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    arrival: u64,
    was_there_at_the_start: bool,
    refusals: u32,
    /// It was said that there is no socket left for it.
    is_reported_full: bool,
    not_before: Option<Instant>,
}

impl VmTracker {
    /// Compares what a look has found with what is served.
    pub fn compare(&mut self, found: &[Vmm], served: &[Vmm], now: Instant) -> Changes {
        self.looks += 1;
        let here: HashSet<Vmm> = found.iter().copied().collect();
        let known: HashSet<Vmm> = served.iter().copied().collect();
        // What is not there any more is forgotten, so that nothing grows.
        self.waiting.retain(|vmm, _| here.contains(vmm) && !known.contains(vmm));
        self.missed.retain(|vmm, _| known.contains(vmm) && !here.contains(vmm));
        for vmm in found.iter().filter(|vmm| !known.contains(vmm)) {
            self.arrive(*vmm);
        }
        let is_due = |waiting: &Waiting| waiting.not_before.is_none_or(|due| due <= now);
        let due = self.waiting.iter().filter(|(_, waiting)| is_due(waiting));
        let mut came: Vec<(u64, Vmm)> = due.map(|(vmm, one)| (one.arrival, *vmm)).collect();
        came.sort_by_key(|(arrival, _)| *arrival);
        let processes: HashSet<_> = found.iter().map(|vmm| process(*vmm)).collect();
        let is_gone = |vmm: &&Vmm| {
            if here.contains(vmm) {
                return false;
            }
            // It has changed its user, and comes again as that user's: under another name, maybe.
            if processes.contains(&process(**vmm)) {
                return true;
            }
            let missed = self.missed.entry(**vmm).or_default();
            *missed += 1;
            *missed >= MISSED_MAX
        };
        let gone = served.iter().filter(is_gone).copied().collect();
        Changes { came: came.into_iter().map(|(_, vmm)| vmm).collect(), gone }
    }

    fn arrive(&mut self, vmm: Vmm) -> &mut Waiting {
        let (arrivals, was_there_at_the_start) = (&mut self.arrivals, self.looks <= 1);
        self.waiting.entry(vmm).or_insert_with(|| {
            *arrivals += 1;
            let arrival = *arrivals;
            let (refusals, is_reported_full, not_before) = (0, false, None);
            Waiting { arrival, was_there_at_the_start, refusals, is_reported_full, not_before }
        })
    }

    /// Notes that there is no socket left for one that came. True if that is to be said now. It is
    /// due at each look, for it costs nothing to find that out again.
    pub fn wait(&mut self, vmm: Vmm) -> bool {
        !std::mem::replace(&mut self.arrive(vmm).is_reported_full, true)
    }

    /// Notes that one that came could not be served. True if that is to be said now.
    pub fn refuse(&mut self, vmm: Vmm) -> bool {
        let waiting = self.arrive(vmm);
        waiting.refusals = waiting.refusals.saturating_add(1);
        waiting.refusals == if waiting.was_there_at_the_start { 1 } else { REFUSED_SAID }
    }

    /// Lets one that was refused wait before it is tried again, because trying costs something.
    pub fn put_off(&mut self, vmm: Vmm, now: Instant) {
        let waiting = self.arrive(vmm);
        waiting.not_before = Some(now + retry_pause(waiting.refusals));
    }

    /// Notes that it is served.
    pub fn accept(&mut self, vmm: Vmm) {
        self.waiting.remove(&vmm);
    }
}

/// Returns what tells a process from all others there have been, whatever its user: its id and the
/// time at which it started.
fn process(vmm: Vmm) -> (u32, u64) {
    (vmm.pid, vmm.start_time_ticks)
}

/// Returns how long to wait after so many refusals in a row.
fn retry_pause(refusals: u32) -> Duration {
    match refusals.checked_sub(REFUSED_SAID) {
        // It may be just starting.
        None => Duration::ZERO,
        Some(further) => {
            RETRY_PAUSE.saturating_mul(2_u32.saturating_pow(further)).min(RETRY_PAUSE_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [u32; 0] = [];

    fn vmm(pid: u32) -> Vmm {
        Vmm { pid, start_time_ticks: 1, uid: 0 }
    }

    fn vmms(pids: &[u32]) -> Vec<Vmm> {
        pids.iter().map(|&pid| vmm(pid)).collect()
    }

    #[test]
    fn who_is_new_comes_and_who_is_missed_for_long_goes() {
        let mut tracker = VmTracker::default();
        for (found, served, came, gone) in [
            (&[2, 1][..], &[][..], &[2, 1][..], &[][..]),
            (&[1, 2, 3], &[1, 2], &[3], &[]),
            (&[2], &[1, 2], &[], &[]),
            (&[2], &[1, 2], &[], &[]),
            // It was only not seen for a while.
            (&[1, 2], &[1, 2], &[], &[]),
            (&[1], &[1, 2], &[], &[]),
            (&[1], &[1, 2], &[], &[]),
            (&[1], &[1, 2], &[], &[2]),
            (&[1], &[1], &[], &[]),
            (&[], &[], &[], &[]),
        ] {
            let changes = tracker.compare(&vmms(found), &vmms(served), Instant::now());
            let want = Changes { came: vmms(came), gone: vmms(gone) };
            assert_eq!(changes, want, "{found:?} {served:?}");
        }
        assert!(tracker.missed.is_empty());
    }

    #[test]
    fn a_later_process_of_the_same_number_is_another() {
        let mut tracker = VmTracker::default();
        let (old, new) = (vmm(1), Vmm { start_time_ticks: 2, ..vmm(1) });
        assert_eq!(tracker.compare(&[new], &[old], Instant::now()).came, [new]);
    }

    /// A QEMU that is told to run as another user does so after it has made its virtual machine.
    #[test]
    fn one_that_changes_its_user_goes_at_once_and_comes_again() {
        let mut tracker = VmTracker::default();
        let (before, after) = (vmm(1), Vmm { uid: 7, ..vmm(1) });
        let want = Changes { came: vec![after], gone: vec![before] };
        assert_eq!(tracker.compare(&[after], &[before], Instant::now()), want);
    }

    #[test]
    fn whoever_waits_longest_comes_first() {
        let (mut tracker, now) = (VmTracker::default(), Instant::now());
        tracker.compare(&vmms(&[9]), &[], now);
        tracker.compare(&vmms(&[5, 9]), &[], now);
        let came = |tracker: &mut VmTracker| tracker.compare(&vmms(&[1, 5, 9]), &[], now).came;
        assert_eq!(came(&mut tracker), vmms(&[9, 5, 1]));
        // Without a socket it keeps its place, and that is said once.
        assert!(tracker.wait(vmm(9)) && !tracker.wait(vmm(9)));
        assert_eq!(came(&mut tracker), vmms(&[9, 5, 1]));
    }

    #[test]
    fn a_refusal_is_said_once() {
        let mut tracker = VmTracker::default();
        let mut look = |found: &[u32], served: &[u32]| {
            let now = Instant::now();
            let came = tracker.compare(&vmms(found), &vmms(served), now).came;
            let said = came.into_iter().filter(|vmm| tracker.refuse(*vmm)).map(|vmm| vmm.pid);
            said.collect::<Vec<_>>()
        };
        // At once, of one that is there at the start; later, of one that may be just starting.
        assert_eq!(look(&[1], &[]), [1]);
        assert_eq!(look(&[1, 2], &[]), NOBODY);
        assert_eq!(look(&[1, 2], &[]), NOBODY);
        assert_eq!(look(&[1, 2], &[]), [2]);
        assert_eq!(look(&[1, 2], &[]), NOBODY);
        // Nothing is remembered of who has gone.
        assert_eq!(look(&[], &[]), NOBODY);
        assert!(tracker.waiting.is_empty());
    }

    #[test]
    fn what_is_refused_is_tried_less_and_less_often() {
        let (mut tracker, begin) = (VmTracker::default(), Instant::now());
        let tries: Vec<u64> = (0..300)
            .filter(|second| {
                let now = begin + Duration::from_secs(*second);
                let came = tracker.compare(&vmms(&[1]), &[], now).came;
                for vmm in &came {
                    tracker.refuse(*vmm);
                    tracker.put_off(*vmm, now);
                }
                !came.is_empty()
            })
            .collect();
        assert_eq!(tries, [0, 1, 2, 4, 8, 16, 32, 64, 124, 184, 244]);
        assert_eq!(retry_pause(u32::MAX), RETRY_PAUSE_MAX);
    }

    #[test]
    fn who_is_served_has_not_been_refused() {
        let (mut tracker, now) = (VmTracker::default(), Instant::now());
        for _ in 0..4 {
            tracker.compare(&vmms(&[1]), &[], now);
        }
        // It came at the first look: each first refusal is said.
        assert!(tracker.refuse(vmm(1)) && !tracker.refuse(vmm(1)));
        tracker.accept(vmm(1));
        let mut refuse = || tracker.refuse(vmm(1));
        assert!(!refuse() && !refuse() && refuse());
    }
}
