//! The statistics of VMs of other processes, by stats fds that their VMMs keep open.
//!
//! Invariant: what is borrowed is a stats fd, of the process that was meant: its link is read again
//! after it is ours, and the process is found living after all was read. The VMM is never stopped
//! nor asked, and notices nothing. An object whose fd the VMM has closed, or whose process has
//! ended, is gone: from `objects` and from every open row.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Error, ErrorKind, Object, Provider, ReadPlan, Result, Schema, Source, Target};

use super::proc::KvmLink;
use super::scan::{self, VmFds};
use super::{Opened, schemas_of, vcpu_path, vm_path};
use crate::fd::{Lender, Opener, StatsFd, sources};
use crate::process::{DeathWatch, Process};
use crate::procfs;
use crate::qmp::{CpuNames, thread_of};
use crate::reaper::Reaper;

/// The statistics of VMs of other processes, attached by process id.
///
/// It needs the right to trace the process (the same user, or `CAP_SYS_PTRACE`), and stats fds that
/// the VMM keeps open: QEMU 8.1 and later keep the vCPUs', a VMM that embeds
/// [`OwnKvm`](crate::OwnKvm) the VM's as well. A VM's object is `/vm/<name>`, by the VMM's command
/// line or else its pid; a vCPU's is `/vm/<name>/vcpu[<n>]` with the kernel's vCPU id, which for
/// some CPU topologies is not QEMU's `cpu-index`; [`Borrowed::use_names`] puts QEMU's own in their
/// place.
///
/// vCPUs that come and go are noticed whenever [`Provider::objects`] is called. Limits:
///
/// * A VMM that replaces a stats fd by another under the same number and vCPU id between two such
///   calls is not seen to do so.
/// * fds of several VMs in one process are told apart by the order of their numbers.
/// * Kernels before 6.4.8 (and stable ones older than that) read freed memory through a stats fd
///   that outlives its VM: do not attach there.
///
/// ```no_run
/// use vmstrobe_core::Provider;
/// use vmstrobe_providers::{Borrowed, Reaper, scan_all};
///
/// let kvm = Borrowed::new(Reaper::new()?)?;
/// for vm in scan_all()?.vms {
///     kvm.attach(vm.pid)?;
/// }
/// for object in kvm.objects()? {
///     println!("{}", object.path);
/// }
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Borrowed {
    opener: Opener,
    watch: Arc<DeathWatch>,
    state: Mutex<State>,
}

/// How long to wait before each further look at an fd that is new, until it is taken for one that
/// stays: 25 ms in all, so that a VMM which is interrupted while it has it open is not mistaken.
const LOOK_PAUSES: [Duration; 5] = [
    Duration::from_micros(300),
    Duration::from_micros(700),
    Duration::from_millis(2),
    Duration::from_millis(6),
    Duration::from_millis(16),
];

/// Of an object that has no key yet.
const NO_KEY: u64 = u64::MAX;

#[derive(Debug, Default)]
struct State {
    attached: Vec<Attached>,
    next_key: u64,
}

/// A process with what was borrowed from it.
#[derive(Debug)]
struct Attached {
    process: Arc<Process>,
    /// What its first VM is called in paths, unlike any other process's.
    name: String,
    /// What its VMM calls its vCPUs, where that is known.
    cpu_names: CpuNames,
    /// By the number in the process and the link; VM by VM, each vCPU by id.
    lent: Vec<((RawFd, KvmLink), Opened)>,
}

impl Borrowed {
    /// Attached to nothing yet. The reaper will close what was borrowed.
    ///
    /// # Errors
    /// `Io` if the system has no thread or fd for the watcher.
    pub fn new(reaper: Reaper) -> Result<Self> {
        let watch = Arc::new(DeathWatch::new()?);
        Ok(Self { opener: Opener::new(reaper), watch, state: Mutex::default() })
    }

    /// Borrows the stats fds of all VMs of a process. Does nothing if it is attached already.
    ///
    /// # Errors
    /// `NotFound` if there is no such process or it has no VM, `Denied` if we may not look into
    /// it, `Unsupported` if its VMM keeps no stats fds open, `Io` if we have no room for them. Then
    /// it is not attached.
    pub fn attach(&self, pid: u32) -> Result<()> {
        let mut state = self.state();
        state.drop_dead(&self.watch);
        if state.attached.iter().any(|attached| attached.process.pid() == pid) {
            return Ok(());
        }
        let process = Arc::new(Process::open(pid, self.opener.departures())?);
        let name = state.free_name(pid);
        let cpu_names = CpuNames::default();
        let mut attached = Attached { process, name, cpu_names, lent: Vec::new() };
        self.refresh(&mut attached, &mut state.next_key)?;
        if attached.lent.is_empty() {
            let text = format!(
                "the VMM of pid {pid} keeps no stats fds open: QEMU does from 8.1 on, and any VMM \
                 that embeds vmstrobe"
            );
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        self.watch.add(&attached.process);
        state.attached.push(attached);
        Ok(())
    }

    /// Gives everything of a process back: its objects are no more, and open rows say so. False if
    /// it was not attached.
    pub fn detach(&self, pid: u32) -> bool {
        let mut state = self.state();
        let at = state.attached.iter().position(|attached| attached.process.pid() == pid);
        let Some(at) = at else { return false };
        let Attached { process, .. } = state.attached.remove(at);
        process.give_up();
        self.watch.remove(&process);
        true
    }

    /// From the next [`Provider::objects`] on, the vCPUs of an attached process bear the paths and
    /// indexes that `names` has for the threads that made them, also those that come later. One
    /// that is not in `names` keeps its own; one whose name changes is another object. False if the
    /// process is not attached.
    pub fn use_names(&self, pid: u32, names: CpuNames) -> bool {
        let mut state = self.state();
        let attached = state.attached.iter_mut().find(|attached| attached.process.pid() == pid);
        attached.map(|attached| attached.cpu_names = names).is_some()
    }

    /// Looks again at what stats fds the process has, and borrows those that are new.
    ///
    /// # Errors
    /// If it cannot be seen, nothing changes. If one fd cannot be borrowed, the first such error;
    /// the others are.
    fn refresh(&self, attached: &mut Attached, next_key: &mut u64) -> Result<()> {
        let pid = attached.process.pid();
        let vms = scan::vm_fds(pid);
        // Only now is it certain that this was the process, and not a later one of its number.
        if !attached.process.lives() {
            return Err(procfs::no_process(pid));
        }
        let vms = match vms {
            // The VMM has closed its VM, and lives on.
            Err(error) if error.kind() == ErrorKind::NotFound && !attached.lent.is_empty() => {
                Vec::new()
            }
            vms => vms?,
        };
        let mut known: HashMap<_, _> = attached.lent.drain(..).collect();
        let mut wanted = wanted(&vms, &attached.name);
        let is_known = |fd, link| known.contains_key(&(fd, link));
        leave_passing(&mut wanted, is_known, thread::sleep, |fd, link| {
            procfs::link(pid, fd).is_some_and(|held| KvmLink::parse(&held) == Some(link))
        });
        let mut outcome = Ok(());
        for (fd, link, path) in wanted {
            let mut kept = known.remove(&(fd, link));
            kept.take_if(|opened| !attached.calls_it_so(opened, link, &path));
            let lent = match kept {
                Some(opened) => Ok(Some(opened)),
                None => self.borrow(attached, fd, link, &path),
            };
            match lent {
                Ok(lent) => attached.lent.extend(lent.map(|opened| ((fd, link), opened))),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        known.values().for_each(|opened| opened.stats.retire());
        attached.give_keys(next_key);
        outcome
    }

    fn borrow(
        &self,
        attached: &Attached,
        fd: RawFd,
        link: KvmLink,
        path: &str,
    ) -> Result<Option<Opened>> {
        let process = &attached.process;
        let Some(borrowed) = process.borrow(fd, |held| KvmLink::parse(held) == Some(link))? else {
            return Ok(None);
        };
        let target = match link {
            KvmLink::VcpuStats(_) => Target::Vcpu,
            _ => Target::Vm,
        };
        let watch = Arc::clone(&self.watch);
        let lender = Lender { alive: Arc::clone(process.alive()), _watch: watch };
        let stats = self.opener.open(borrowed, target, Some(lender))?;
        let (path, index) = attached.called(&stats, link, path);
        Ok(Some(Opened::new(&path, index, NO_KEY, stats)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A refresh cut short by a panic has lost objects, which the next one finds again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stats fds of a process's VMs, each with its link and its object's path.
fn wanted(vms: &[VmFds], name: &str) -> Vec<(RawFd, KvmLink, String)> {
    let mut wanted = Vec::new();
    for (at, vm) in vms.iter().enumerate() {
        let vm_path = vm_path(&scan::numbered(name, at));
        wanted.extend(vm.stats().map(|(fd, link)| match link {
            KvmLink::VcpuStats(id) => (fd, link, vcpu_path(&vm_path, id)),
            _ => (fd, link, vm_path.clone()),
        }));
    }
    wanted
}

/// Leaves out those that are not known yet and do not stay: a QEMU opens the VM's for each query
/// that it is asked itself, for some µs, and up to 8.0 the vCPUs' too.
fn leave_passing(
    wanted: &mut Vec<(RawFd, KvmLink, String)>,
    is_known: impl Fn(RawFd, KvmLink) -> bool,
    wait: impl Fn(Duration),
    is_there: impl Fn(RawFd, KvmLink) -> bool,
) {
    for pause in LOOK_PAUSES {
        if wanted.iter().all(|(fd, link, _)| is_known(*fd, *link)) {
            return;
        }
        wait(pause);
        wanted.retain(|(fd, link, _)| is_known(*fd, *link) || is_there(*fd, *link));
    }
}

impl Attached {
    /// Gives those that are new their keys in the order in which they were made: by the threads
    /// that made them, whose numbers grow, but for once in some four million.
    fn give_keys(&mut self, next_key: &mut u64) {
        let new = self.lent.iter_mut().map(|(_, opened)| opened);
        let mut new: Vec<&mut Opened> = new.filter(|new| new.object.key == NO_KEY).collect();
        new.sort_by_key(|opened| thread_of(opened.stats.id()));
        for opened in new {
            opened.object.key = *next_key;
            *next_key += 1;
        }
    }

    /// The path and index of an object that is `path` if nobody knows better.
    fn called(&self, stats: &StatsFd, link: KvmLink, path: &str) -> (Box<str>, Option<u32>) {
        let KvmLink::VcpuStats(id) = link else { return (path.into(), None) };
        match self.cpu_names.of_stats(self.process.pid(), stats.id()) {
            Some(name) => (name.path, Some(name.index)),
            None => (path.into(), Some(id)),
        }
    }

    fn calls_it_so(&self, opened: &Opened, link: KvmLink, path: &str) -> bool {
        let Object { path: now, index, .. } = &opened.object;
        self.called(&opened.stats, link, path) == (now.clone(), *index)
    }
}

impl State {
    /// The VM's name, or the process's number; with the number too if the name is taken.
    fn free_name(&self, pid: u32) -> String {
        let mut name = scan::vm_name(pid).unwrap_or_else(|| pid.to_string());
        while self.attached.iter().any(|attached| attached.name == name) {
            name = format!("{name}.{pid}");
        }
        name
    }

    fn drop_dead(&mut self, watch: &DeathWatch) {
        self.attached.retain(|attached| {
            let lives = attached.process.lives();
            if !lives {
                watch.remove(&attached.process);
            }
            lives
        });
    }

    fn opened(&self) -> impl Iterator<Item = &Opened> {
        self.attached.iter().flat_map(|attached| &attached.lent).map(|(_, opened)| opened)
    }
}

impl Provider for Borrowed {
    fn name(&self) -> &str {
        "kvm"
    }

    /// Those of what is attached.
    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(schemas_of(self.state().opened()))
    }

    /// Looks again at every attached process; one that has ended is attached no more.
    fn objects(&self) -> Result<Vec<Object>> {
        let mut state = self.state();
        let State { attached, next_key } = &mut *state;
        for attached in attached {
            // What could not be borrowed is left out, and tried again next time.
            let _ = self.refresh(attached, next_key);
        }
        state.drop_dead(&self.watch);
        Ok(state.opened().map(|opened| opened.object.clone()).collect())
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        let state = self.state();
        let by_key: HashMap<_, _> =
            state.opened().map(|opened| (opened.object.key, &opened.stats)).collect();
        sources(objects, plan, self.opener.departures(), |key| {
            by_key.get(&key).map(|&stats| Arc::clone(stats))
        })
    }
}

#[cfg(test)]
mod tests;
