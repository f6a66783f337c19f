//! What is borrowed of one process: taken, named, followed, and given back.
//!
//! Invariant: what is borrowed is of the kind and of the process that was meant: its link is read
//! again after it is ours, and the process is found living after all was read. An object whose fd
//! the VMM has closed is gone from the list and from every open row.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use vmstrobe_core::{ErrorKind, Object, Result, Target};

use super::wanted::{Wanted, leave_passing, wanted};
use crate::fd::{FdKind, KvmFd, Lender, Opener};
use crate::kvm::Opened;
use crate::kvm::proc::KvmLink;
use crate::kvm::scan::{self, Place};
use crate::process::{DeathWatch, Process};
use crate::procfs;
use crate::qmp::{CpuNames, thread_of};

/// Of an object that has no key yet.
const NO_KEY: u64 = u64::MAX;

/// A process with what was borrowed from it.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) process: Arc<Process>,
    /// What its first VM is called in paths, unlike any other process's.
    pub(super) name: String,
    /// What its VMM calls its vCPUs, where that is known.
    pub(super) cpu_names: CpuNames,
    /// By the number in the process and the link; VM by VM, each vCPU by id.
    lent: Vec<(Place, Opened)>,
}

impl Attached {
    /// Nothing is borrowed yet.
    pub(super) fn new(process: Process, name: String) -> Self {
        let cpu_names = CpuNames::default();
        Self { process: Arc::new(process), name, cpu_names, lent: Vec::new() }
    }

    /// What is borrowed now.
    pub(super) fn opened(&self) -> impl Iterator<Item = &Opened> {
        self.lent.iter().map(|(_, opened)| opened)
    }

    /// Looks again at what fds the process has, and borrows those that are new.
    ///
    /// # Errors
    /// If it cannot be seen, nothing changes. If one fd cannot be borrowed, the first such error;
    /// the others are.
    pub(super) fn refresh(
        &mut self,
        opener: &Opener,
        watch: &Arc<DeathWatch>,
        next_key: &mut u64,
    ) -> Result<()> {
        let pid = self.process.pid();
        let vms = scan::vm_fds(pid);
        // Only now is it certain that this was the process, and not a later one of its number.
        if !self.process.lives() {
            return Err(procfs::no_process(pid));
        }
        let vms = match vms {
            // The VMM has closed its VM, and lives on.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.lent.is_empty() => {
                Vec::new()
            }
            vms => vms?,
        };
        // Asked even if every object has a stats fd: any of these may be gone in a moment.
        let plain_too = opener.accel().is_open();
        let mut known: HashMap<_, _> = self.lent.drain(..).collect();
        let is_known = |place| known.contains_key(&place);
        let mut wanted = wanted(&vms, &self.name, plain_too, is_known);
        leave_passing(&mut wanted, is_known, thread::sleep, |(fd, link)| {
            procfs::link(pid, fd).is_some_and(|held| KvmLink::parse(&held) == Some(link))
        });
        let mut outcome = Ok(());
        for wanted in wanted {
            let mut kept = known.remove(&wanted.place);
            kept.take_if(|opened| !self.calls_it_so(opened, &wanted));
            let lent = match kept {
                Some(opened) => Ok(Some(opened)),
                None => self.borrow(opener, watch, &wanted),
            };
            match lent {
                Ok(lent) => self.lent.extend(lent.map(|opened| (wanted.place, opened))),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        known.values().for_each(|opened| opened.fd.retire());
        self.give_keys(next_key);
        outcome
    }

    fn borrow(
        &self,
        opener: &Opener,
        watch: &Arc<DeathWatch>,
        wanted: &Wanted,
    ) -> Result<Option<Opened>> {
        let (fd, link) = wanted.place;
        // Before it is ours, so that there is nothing to be given back if it cannot be had.
        let schema = match link {
            KvmLink::Vm => Some(opener.accel().vm_schema()?),
            KvmLink::Vcpu(_) => Some(opener.accel().vcpu_schema()?),
            KvmLink::VmStats | KvmLink::VcpuStats(_) => None,
        };
        let Some(borrowed) = self.process.borrow(fd, |held| KvmLink::parse(held) == Some(link))?
        else {
            return Ok(None);
        };
        let alive = Arc::clone(self.process.alive());
        let lender = Some(Lender { alive, _watch: Arc::clone(watch) as _ });
        let target = if vcpu_id(link).is_some() { Target::Vcpu } else { Target::Vm };
        let fd = match schema {
            Some(schema) => opener.open_plain(borrowed, schema, lender),
            None => opener.open(borrowed, target, lender)?,
        };
        let (path, index) = self.called(&fd, wanted);
        Ok(Some(Opened::new(&path, index, NO_KEY, fd)))
    }

    /// Gives those that are new their keys in the order in which they were made: the VMs, then the
    /// vCPUs by the threads that made them, whose numbers grow, but for once in some four million.
    /// Those that are held by their own fds, which do not tell, come last, by id.
    fn give_keys(&mut self, next_key: &mut u64) {
        let new = self.lent.iter_mut().map(|(_, opened)| opened);
        let mut new: Vec<&mut Opened> = new.filter(|new| new.object.key == NO_KEY).collect();
        new.sort_by_key(|opened| {
            (opened.fd.kind() == FdKind::Vcpu, opened.fd.id().and_then(thread_of))
        });
        for opened in new {
            opened.object.key = *next_key;
            *next_key += 1;
        }
    }

    /// The path and index of an object.
    fn called(&self, fd: &KvmFd, wanted: &Wanted) -> (Box<str>, Option<u32>) {
        let path = &*wanted.path;
        let Some(id) = vcpu_id(wanted.place.1) else { return (path.into(), None) };
        match fd.id().and_then(|id| self.cpu_names.of_stats(self.process.pid(), id)) {
            Some(name) => (name.path, Some(name.index)),
            None => (path.into(), Some(id)),
        }
    }

    fn calls_it_so(&self, opened: &Opened, wanted: &Wanted) -> bool {
        let Object { path: now, index, .. } = &opened.object;
        self.called(&opened.fd, wanted) == (now.clone(), *index)
    }
}

fn vcpu_id(link: KvmLink) -> Option<u32> {
    match link {
        KvmLink::Vcpu(id) | KvmLink::VcpuStats(id) => Some(id),
        KvmLink::Vm | KvmLink::VmStats => None,
    }
}
