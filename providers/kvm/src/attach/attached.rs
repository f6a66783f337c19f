//! Borrows the KVM fds of one process, names their objects, follows their changes, and gives them
//! back.
//!
//! Invariant: a borrowed fd is of the kind and of the process that was meant: its link is read
//! again once it is held, before it comes here, and the process is found living after all was read.
//! An object whose fd the VMM has closed is gone from the list and from every open row.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use vmstrobe_core::{Error, ErrorKind, Object, Result, Schema, Target};
use vmstrobe_host::{
    Care, DeathWatch, FdBudget, FdOwner, FdSeat, Host, KvmLink, Process, procfs, refusal::Step,
    thread_of,
};

use super::names::VcpuNames;
use super::wanted::{Wanted, Which, drop_transient, wanted};
use crate::fd::{FdKind, KvmFd};
use crate::opened::Opened;
use crate::opener::Opener;
use crate::scan::{self, Place};

/// The key of an object that has not been given one yet.
const NO_KEY: u64 = u64::MAX;

/// The parts of [`AttachedKvm`](crate::AttachedKvm) by which descriptors are taken from other
/// processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) opener: &'a Opener,
    pub(super) host: &'a Host,
    pub(super) budget: &'a FdBudget,
    /// Stats fds may be held on this kernel.
    pub(super) stats_too: bool,
    pub(super) watch: &'a Arc<DeathWatch>,
}

/// A process with what was borrowed from it.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) process: Arc<Process>,
    /// The name of its first VM in paths; no other attached process has the same.
    pub(super) name: String,
    /// The names that its VMM gives to its vCPUs, where they are known.
    pub(super) vcpu_names: VcpuNames,
    /// The borrowed objects, each with its fd number in the process and its link; VM by VM, each
    /// VM's vCPUs by id.
    held: Vec<(Place, Opened)>,
    /// Why the last look could not borrow all that there is.
    pub(super) refused: Option<Error>,
}

impl Attached {
    /// Makes a process of which nothing is held yet.
    pub(super) fn new(process: Process, name: String, host: &Host) -> Self {
        let vcpu_names = VcpuNames::new(process.pid(), host.broker().clone());
        Self { process: Arc::new(process), name, vcpu_names, held: Vec::new(), refused: None }
    }

    /// Returns the objects that are borrowed now.
    pub(super) fn opened(&self) -> impl Iterator<Item = &Opened> {
        self.held.iter().map(|(_, opened)| opened)
    }

    /// Returns a warning if its VMM has names for its vCPUs, and none bears them. (One that was
    /// plugged in just now may have to wait for its own.)
    pub(super) fn unnamed(&self) -> Option<Error> {
        let pid = self.process.pid();
        let vcpus = self.held.iter().filter(|((_, link), _)| vcpu_id(*link).is_some());
        let mut ids = vcpus.filter_map(|(_, opened)| opened.fd.id()).peekable();
        ids.peek()?;
        let is_named = ids.any(|id| self.vcpu_names.of_stats(id).is_some());
        if is_named || self.vcpu_names.is_empty() {
            return None;
        }
        let why = self.vcpu_names.why_not();
        let text = format!("the vCPUs of pid {pid} are shown without QEMU's names for them: {why}");
        Some(Error::new(ErrorKind::Unsupported, text))
    }

    /// Returns whether the fd is held already.
    pub(super) fn has(&self, place: Place) -> bool {
        self.held.iter().any(|(held, _)| *held == place)
    }

    /// Returns the fds of the process that could be held now, also if they are open for a moment
    /// only; none, if the VMM has closed the VMs that were borrowed and lives on.
    ///
    /// # Errors
    /// As [`scan`](crate::scan).
    pub(super) fn find(&self, by: &Parts<'_>) -> Result<Vec<Wanted>> {
        let pid = self.process.pid();
        let held: HashSet<Place> = self.held.iter().map(|(place, _)| *place).collect();
        let vms = scan::vm_fds(by.host, pid, |place| held.contains(&place));
        // Only now is it certain that this was the process, and not a later one of its number.
        if !self.process.lives() {
            return Err(procfs::no_process(pid));
        }
        let vms = match vms {
            Err(error) if error.kind() == ErrorKind::NotFound && !held.is_empty() => Vec::new(),
            vms => vms?,
        };
        // Asked even if every object has a stats fd: any of these may be gone in a moment.
        let which = Which { stats: by.stats_too, object_fds: by.opener.reads_object_fds() };
        Ok(wanted(&vms, &self.name, which, |place| held.contains(&place)))
    }

    /// Leaves out the fds that these processes have open for a moment only.
    pub(super) fn settle(all: &[&Self], wanted: &mut [Vec<Wanted>], by: &Parts<'_>) {
        let is_known = |at: usize, place| all[at].has(place);
        drop_transient(wanted, is_known, thread::sleep, |at| {
            let care = Care { makers: false, ..Care::FULL };
            let seen = by.host.look(all[at].process.pid(), care);
            let kvm = seen.map(|seen| seen.kvm).unwrap_or_default();
            kvm.into_iter().map(|seen| (seen.fd, seen.link)).collect()
        });
    }

    /// Looks again at what fds the process has, and holds these.
    ///
    /// # Errors
    /// If it cannot be seen, nothing changes. If some cannot be borrowed, why.
    pub(super) fn refresh(&mut self, by: &Parts<'_>, next_key: &mut u64) -> Result<()> {
        let mut wanted = [self.find(by)?];
        Self::settle(&[self], &mut wanted, by);
        let [wanted] = wanted;
        let vcpus = self
            .held
            .iter()
            .filter_map(|((_, link), opened)| Some((vcpu_id(*link)?, opened.fd.id()?)));
        self.vcpu_names.follow(vcpus);
        self.hold(by, wanted, next_key)
    }

    /// Holds these and nothing else: borrows those that are new.
    ///
    /// # Errors
    /// If those that are new cannot be borrowed; then none of them is.
    pub(super) fn hold(
        &mut self,
        by: &Parts<'_>,
        wanted: Vec<Wanted>,
        next_key: &mut u64,
    ) -> Result<()> {
        let mut known: HashMap<Place, Opened> = self.held.drain(..).collect();
        let mut new = Vec::new();
        for wanted in &wanted {
            let mut kept = known.remove(&wanted.place);
            kept.take_if(|opened| !self.has_same_name(opened, wanted));
            match kept {
                Some(opened) => self.held.push((wanted.place, opened)),
                None => new.push(wanted),
            }
        }
        let borrowed = self.borrow(by, new);
        known.values().for_each(|opened| opened.fd.retire());
        let outcome = borrowed.map(|borrowed| self.held.extend(borrowed));
        let order: HashMap<Place, usize> = wanted.iter().map(|w| w.place).zip(0..).collect();
        self.held.sort_by_key(|(place, _)| order.get(place).copied());
        self.give_keys(next_key);
        outcome
    }

    /// Borrows these; what is something else by now is left out.
    ///
    /// # Errors
    /// If they are too many, or one of them may not be had.
    fn borrow(&self, by: &Parts<'_>, wanted: Vec<&Wanted>) -> Result<Vec<(Place, Opened)>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let pid = self.process.pid();
        let mut seats = by.budget.take(pid, self.held.len(), wanted.len())?;
        // Before it is ours, so that there is nothing to be given back if it cannot be had.
        let schemas = wanted.iter().map(|wanted| match wanted.place.1 {
            KvmLink::Vm => by.opener.object_schema(&Target::Vm).map(Some),
            KvmLink::Vcpu(_) => by.opener.object_schema(&Target::Vcpu).map(Some),
            KvmLink::VmStats | KvmLink::VcpuStats(_) => Ok(None),
        });
        let schemas = schemas.collect::<Result<Vec<_>>>()?;
        let places: Vec<_> =
            wanted.iter().map(|wanted| (wanted.place.0, Some(wanted.place.1))).collect();
        let borrowed = by.host.borrow(&self.process, &places)?;
        let mut opened = Vec::new();
        for ((wanted, schema), borrowed) in wanted.into_iter().zip(schemas).zip(borrowed) {
            let fd = match borrowed {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::BADF | Errno::SRCH) => continue,
                Err(errno) => return Err(by.host.refused(pid, Step::Borrow, errno)),
            };
            opened.push((wanted.place, self.open(by, wanted, schema, fd, seats.pop())?));
        }
        Ok(opened)
    }

    fn open(
        &self,
        by: &Parts<'_>,
        wanted: &Wanted,
        schema: Option<Arc<Schema>>,
        fd: OwnedFd,
        seat: Option<FdSeat>,
    ) -> Result<Opened> {
        let alive = Arc::clone(self.process.alive());
        let (watch, seat) = (Arc::clone(by.watch) as _, seat.map(Arc::new));
        let owner = Some(FdOwner { alive, watch, seat });
        let target = if vcpu_id(wanted.place.1).is_some() { Target::Vcpu } else { Target::Vm };
        let fd = match schema {
            Some(schema) => by.opener.open_object_fd(fd, schema, owner),
            None => by.opener.open(fd, target, owner)?,
        };
        let (path, index) = self.called(&fd, wanted);
        Ok(Opened::new(&path, index, NO_KEY, fd))
    }

    /// Gives the new objects their keys in the order in which they were made: the VMs, then the
    /// vCPUs by the ids of the threads that made them, which grow until they wrap around after some
    /// four million. The vCPUs that are held by their own fds, which name no thread, come last, by
    /// id.
    fn give_keys(&mut self, next_key: &mut u64) {
        let new = self.held.iter_mut().map(|(_, opened)| opened);
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
        match fd.id().and_then(|id| self.vcpu_names.of_stats(id)) {
            Some(name) => (name.path, Some(name.index)),
            None => (path.into(), Some(id)),
        }
    }

    fn has_same_name(&self, opened: &Opened, wanted: &Wanted) -> bool {
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
