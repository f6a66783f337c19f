//! Who has come and who has gone, by comparing what was found with what is served; and what is said
//! of those that cannot be served.
//!
//! Invariant: pure decisions. A virtual machine that was missed by one look has not gone, and one
//! that is refused is named once, however often it is tried: a VMM that is just starting has
//! nothing to read yet.

use std::collections::{HashMap, HashSet};

use crate::engine::Vmm;

/// After how many looks in a row without it a virtual machine has gone, although its process has
/// not ended.
const MISSED_MAX: u32 = 3;
/// At which refusal in a row it is said, of one that came later. Of those that were there at the
/// start it is said at once.
const REFUSED_SAID: u32 = 3;

/// What a look has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// To be opened now, in the order in which they were found.
    pub(super) came: Vec<Vmm>,
    /// To be closed now.
    pub(super) gone: Vec<Vmm>,
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Roll {
    looks: u64,
    /// For how many looks each that is served has not been found.
    missed: HashMap<Vmm, u32>,
    refused: HashMap<Vmm, Refused>,
}

#[derive(Debug)]
struct Refused {
    times: u32,
    was_there_at_the_start: bool,
}

impl Roll {
    /// Compares.
    pub(super) fn compare(&mut self, found: &[Vmm], served: &[Vmm]) -> Changes {
        self.looks += 1;
        let here: HashSet<Vmm> = found.iter().copied().collect();
        let known: HashSet<Vmm> = served.iter().copied().collect();
        // What is not there any more is forgotten, so that nothing grows.
        self.refused.retain(|vmm, _| here.contains(vmm));
        self.missed.retain(|vmm, _| known.contains(vmm) && !here.contains(vmm));
        let came = found.iter().filter(|vmm| !known.contains(vmm)).copied().collect();
        let is_gone = |vmm: &&Vmm| {
            if here.contains(vmm) {
                return false;
            }
            let missed = self.missed.entry(**vmm).or_default();
            *missed += 1;
            *missed >= MISSED_MAX
        };
        Changes { came, gone: served.iter().filter(is_gone).copied().collect() }
    }

    /// Notes that one that came could not be served. True if that is to be said now.
    pub(super) fn refuse(&mut self, vmm: Vmm) -> bool {
        let was_there_at_the_start = self.looks <= 1;
        let first = Refused { times: 0, was_there_at_the_start };
        let refused = self.refused.entry(vmm).or_insert(first);
        refused.times = refused.times.saturating_add(1);
        refused.times == if refused.was_there_at_the_start { 1 } else { REFUSED_SAID }
    }

    /// Notes that it is served.
    pub(super) fn accept(&mut self, vmm: Vmm) {
        self.refused.remove(&vmm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [u32; 0] = [];

    fn vmm(pid: u32) -> Vmm {
        Vmm { pid, start_time_ticks: 1 }
    }

    fn vmms(pids: &[u32]) -> Vec<Vmm> {
        pids.iter().map(|&pid| vmm(pid)).collect()
    }

    #[test]
    fn who_is_new_comes_and_who_is_missed_for_long_goes() {
        let mut roll = Roll::default();
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
            let changes = roll.compare(&vmms(found), &vmms(served));
            let want = Changes { came: vmms(came), gone: vmms(gone) };
            assert_eq!(changes, want, "{found:?} {served:?}");
        }
        assert!(roll.missed.is_empty());
    }

    #[test]
    fn a_later_process_of_the_same_number_is_another() {
        let mut roll = Roll::default();
        let (old, new) = (vmm(1), Vmm { start_time_ticks: 2, ..vmm(1) });
        assert_eq!(roll.compare(&[new], &[old]).came, [new]);
    }

    #[test]
    fn a_refusal_is_said_once() {
        let mut roll = Roll::default();
        let mut look = |found: &[u32], served: &[u32]| {
            let came = roll.compare(&vmms(found), &vmms(served)).came;
            let said = came.into_iter().filter(|vmm| roll.refuse(*vmm)).map(|vmm| vmm.pid);
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
        assert!(roll.refused.is_empty());
    }

    #[test]
    fn who_is_served_has_not_been_refused() {
        let mut roll = Roll::default();
        for _ in 0..4 {
            roll.compare(&vmms(&[1]), &[]);
        }
        assert!(!roll.refuse(vmm(1)) && !roll.refuse(vmm(1)));
        roll.accept(vmm(1));
        assert!(!roll.refuse(vmm(1)) && !roll.refuse(vmm(1)) && roll.refuse(vmm(1)));
    }
}
