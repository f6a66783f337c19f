//! Chooses the fds of a process to borrow: the stats fd of each object, or else its own fd.
//!
//! A stats fd comes first because it can be read without any further right. An object's own fd is
//! there as long as the object is, in every VMM, but only the BPF reader can use it.
//!
//! Invariant: one fd an object, and only such as stay. An object that is held by its own fd is held
//! by that one until the VMM closes it.

use std::collections::HashSet;
use std::time::Duration;

use vmstrobe_core::vm_path;

use crate::opened::vcpu_path;
use crate::scan::{self, ObjectFds, Place, VmFds};

/// The pauses before each further look at a new fd, which is taken for one that stays if it is
/// there every time. They are 25 ms in all, because a VMM may be interrupted while it has an fd
/// open that does not stay.
const LOOK_PAUSES: [Duration; 5] = [
    Duration::from_micros(300),
    Duration::from_micros(700),
    Duration::from_millis(2),
    Duration::from_millis(6),
    Duration::from_millis(16),
];

/// An fd to borrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) place: Place,
    /// The object's own fd, to take instead if `place` is its stats fd and does not stay.
    or_else: Option<Place>,
    /// The object's path, unless its VMM's names have a better one.
    pub(super) path: String,
}

/// The kinds of fds that can be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Which {
    pub(super) stats: bool,
    /// Objects' own fds.
    pub(super) object_fds: bool,
}

/// Returns the fds by which to read a process's VMs, called `name`: VM by VM, the VM's own and then
/// each vCPU's, by id. `is_held` tells whether an fd is borrowed already.
pub(super) fn wanted(
    vms: &[VmFds],
    name: &str,
    which: Which,
    is_held: impl Fn(Place) -> bool,
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (at, vm) in vms.iter().enumerate() {
        let vm_path = vm_path(&scan::numbered(name, at));
        wanted.extend(vm.objects().filter_map(|object| {
            let ObjectFds { vcpu, stats, object_fds } = object;
            let object_fds = if which.object_fds { &object_fds[..] } else { &[] };
            let stats = stats.filter(|_| which.stats);
            let path = vcpu.map_or_else(|| vm_path.clone(), |id| vcpu_path(&vm_path, id));
            let held = object_fds.iter().find(|&&place| is_held(place));
            // An object that changed over to its stats fd would be another one, with its counts
            // begun anew, and back again when that is closed: in a QEMU of before 8.1 at each of
            // its own queries.
            let (place, or_else) = match (held, stats, object_fds.first()) {
                (Some(&held), _, _) => (held, None),
                (None, Some(stats), object_fds) => (stats, object_fds.copied()),
                (None, None, object_fd) => (*object_fd?, None),
            };
            Some(Wanted { place, or_else, path })
        }));
    }
    wanted
}

/// Leaves out the fds that are not known yet and do not stay, or takes the object's own fd instead:
/// a QEMU opens the VM's stats fd for each query that it is asked itself, for some µs, and up to
/// 8.0 the vCPUs' too. It waits once for several processes, `all`; `look` returns the fds that the
/// one at an index in `all` has then.
pub(super) fn drop_transient(
    all: &mut [Vec<Wanted>],
    is_known: impl Fn(usize, Place) -> bool,
    wait: impl Fn(Duration),
    look: impl Fn(usize) -> HashSet<Place>,
) {
    for pause in LOOK_PAUSES {
        let is_new = |at: usize, wanted: &Wanted| !is_known(at, wanted.place);
        let has_new = |(at, wanted): &(usize, &mut Vec<Wanted>)| {
            wanted.iter().any(|wanted| is_new(*at, wanted))
        };
        let mut with_new: Vec<_> = all.iter_mut().enumerate().filter(has_new).collect();
        if with_new.is_empty() {
            return;
        }
        wait(pause);
        for (at, wanted) in &mut with_new {
            let there = look(*at);
            wanted.retain_mut(|wanted| {
                !is_new(*at, wanted) || there.contains(&wanted.place) || wanted.fall_back()
            });
        }
    }
}

impl Wanted {
    /// Takes the object's own fd, which was seen at the same time. False if there is none.
    fn fall_back(&mut self) -> bool {
        let own = self.or_else.take();
        own.map(|own| self.place = own).is_some()
    }
}

#[cfg(test)]
mod tests;
