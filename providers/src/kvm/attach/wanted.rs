//! Which fds of a process to borrow: of each object its stats fd, or else its own.
//!
//! A stats fd comes first because it can be read without any further right. An object's own fd is
//! there as long as the object is, in every VMM, but only the kernel-side tick can use it.
//!
//! Invariant: one fd an object, and only such as stay. An object that is held by its own fd is held
//! by that one until the VMM closes it.

use std::time::Duration;

use crate::kvm::scan::{self, ObjectFds, Place, VmFds};
use crate::kvm::{vcpu_path, vm_path};

/// How long to wait before each further look at an fd that is new, until it is taken for one that
/// stays: 25 ms in all, so that a VMM which is interrupted while it has it open is not mistaken.
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
    /// The object's own, if that is its stats fd and does not stay.
    or_else: Option<Place>,
    /// The object's, if nobody knows a better one.
    pub(super) path: String,
}

/// The fds by which to read a process's VMs, called `name`: VM by VM, the VM's and each vCPU's by
/// id. `is_held` says which are borrowed already, `plain_too` whether objects' own fds can be read.
pub(super) fn wanted(
    vms: &[VmFds],
    name: &str,
    plain_too: bool,
    is_held: impl Fn(Place) -> bool,
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (at, vm) in vms.iter().enumerate() {
        let vm_path = vm_path(&scan::numbered(name, at));
        wanted.extend(vm.objects().filter_map(|object| {
            let ObjectFds { vcpu, stats, plain } = object;
            let plain = if plain_too { &plain[..] } else { &[] };
            let path = vcpu.map_or_else(|| vm_path.clone(), |id| vcpu_path(&vm_path, id));
            let held = plain.iter().find(|&&place| is_held(place));
            // An object that changed over to its stats fd would be another one, with its counts
            // begun anew, and back again when that is closed: in a QEMU of before 8.1 at each of
            // its own queries.
            let (place, or_else) = match (held, stats, plain.first()) {
                (Some(&held), _, _) => (held, None),
                (None, Some(stats), plain) => (stats, plain.copied()),
                (None, None, plain) => (*plain?, None),
            };
            Some(Wanted { place, or_else, path })
        }));
    }
    wanted
}

/// Leaves out those that are not known yet and do not stay, or takes the object's own fd instead: a
/// QEMU opens the VM's stats fd for each query that it is asked itself, for some µs, and up to 8.0
/// the vCPUs' too.
pub(super) fn leave_passing(
    wanted: &mut Vec<Wanted>,
    is_known: impl Fn(Place) -> bool,
    wait: impl Fn(Duration),
    is_there: impl Fn(Place) -> bool,
) {
    for pause in LOOK_PAUSES {
        if wanted.iter().all(|wanted| is_known(wanted.place)) {
            return;
        }
        wait(pause);
        wanted.retain_mut(|wanted| {
            is_known(wanted.place) || is_there(wanted.place) || wanted.fall_back()
        });
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
