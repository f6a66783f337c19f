//! The ends of VMs: which have ended, and when.
//!
//! Invariant: the end is the first sample that lacks the VM, as exactly as samples tell, however
//! far apart the samples are that frames look at.

use std::sync::Arc;

use vmstrobe_core::Layout;

use super::View;
use super::compared::Sample;
use super::objects::{Ended, OwnerId};
use super::table::summed;
use crate::history::Place;

impl View {
    /// Notes a layout when its first sample comes, so that no owner is missed that comes and goes
    /// between two frames.
    pub(super) fn note_layout(&mut self, layout: &Arc<Layout>, at_ns: u64) {
        if self.last_layout.as_ref().is_some_and(|last| Arc::ptr_eq(last, layout)) {
            return;
        }
        let map = self.objects.map(layout);
        self.objects.note_alive(map.owners.iter().map(|owner| owner.id), at_ns);
        self.last_layout = Some(Arc::clone(layout));
    }

    /// Notes the VMs that the newest sample lacks.
    pub(super) fn note_ends(&mut self) {
        let Some((_, newest_ns)) = self.history.span() else { return };
        if newest_ns == self.noted_ns {
            return;
        }
        self.noted_ns = newest_ns;
        let newest = self.sample_at(newest_ns, 0);
        let owners = newest.map.owners.iter().map(|owner| owner.id);
        let alive: Vec<OwnerId> = owners.filter(|&id| lives(&newest, id)).collect();
        self.objects.note_alive(alive.into_iter(), newest_ns);
        for (id, seen_ns) in self.objects.missing(newest_ns) {
            if let Some(ended) = self.end_of(id, seen_ns, newest_ns) {
                self.objects.note_end(id, ended);
            }
        }
        self.objects.forget(&newest.map);
    }

    /// Searches for the first sample without an owner, between one with it and one without it.
    fn end_of(&mut self, id: OwnerId, alive_ns: u64, ended_ns: u64) -> Option<Ended> {
        let (begin_ns, _) = self.history.span()?;
        let mut alive = self.history.find(alive_ns.max(begin_ns))?;
        let mut ended = self.history.find(ended_ns)?;
        loop {
            let (from_ns, to_ns) = (self.history.time_ns(alive), self.history.time_ns(ended));
            let mut middle = self.history.find(from_ns.midpoint(to_ns))?;
            if middle == alive {
                middle = self.history.step(alive, 1);
            }
            if middle == ended || from_ns >= to_ns {
                break;
            }
            let is_alive = lives(&self.sample_of(middle), id);
            *(if is_alive { &mut alive } else { &mut ended }) = middle;
        }
        let last = self.sample_of(alive);
        let first = self.sample_of(ended);
        Some(Ended {
            at_ns: first.at_ns(),
            wall_ns: first.snapshot.window().wall_ns(),
            alive_ns: last.at_ns(),
            vcpus: last.map.owner(id).map_or(0, |owner| owner.objects.len()),
            is_dismissed: false,
        })
    }

    fn sample_of(&mut self, place: Place) -> Sample {
        let snapshot = self.history.sample(place);
        let map = self.objects.map(snapshot.layout());
        Sample { snapshot, map }
    }
}

/// Returns whether any object of an owner is there in a sample.
fn lives(sample: &Sample, id: OwnerId) -> bool {
    let owner = sample.map.owner(id);
    let mut placed = owner.into_iter().flat_map(|owner| summed(&sample.map, owner));
    placed.any(|placed| !sample.is_gone(placed))
}
