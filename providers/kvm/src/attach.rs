//! The statistics of VMs of other processes, by fds that their VMMs keep open.
//!
//! Invariant: the VMM is never stopped nor asked, and notices nothing. An object whose fd it has
//! closed, or whose process has ended, is gone: from `objects` and from every open row. An object's
//! own fd is borrowed only if the BPF reader can read it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstrobe_core::{
    Error, ErrorKind, Object, Provider, ReadPlan, Result, Schema, Source, ThreadStart,
};
use vmstrobe_host::{
    Broker, CpuNames, DeathWatch, FdBudget, Host, Process, Reaper,
    release::{refusal, unsafe_release},
};

use super::bulk::BulkOpener;
use super::opened::{Opened, schemas_of};
use super::scan;
use super::vcpu::Vcpu;
use super::vcpu_owner::VcpuOwner;
use crate::opener::Opener;

mod options;
mod names;
mod wanted;
mod attached;

use attached::{Attached, Parts};
pub use options::AttachOptions;
use options::unreadable;
use wanted::Wanted;

/// The statistics of VMs of other processes, attached by process id.
///
/// It needs the right to trace the process (the same user, or `CAP_SYS_PTRACE`), and fds that the
/// VMM keeps open. Best are stats fds: QEMU 8.1 and later keep the vCPUs', a VMM that embeds
/// [`OwnKvm`](crate::OwnKvm) the VM's as well. Where there is none, the VM's or vCPU's own fd will
/// do, which every VMM has, if the BPF reader can be used ([`AttachOptions::bulk`]); an
/// object that is read by its own fd stays so until the VMM closes that. A VM's object is
/// `/vm/<name>`, by the VMM's command line or else its pid; a vCPU's is `/vm/<name>/vcpu[<n>]` with
/// the kernel's vCPU id, which for some CPU topologies is not QEMU's `cpu-index`;
/// [`AttachedKvm::use_names`] puts QEMU's own in their place.
///
/// vCPUs that come and go are noticed whenever [`Provider::objects`] is called. Limits:
///
/// * A VMM that replaces an fd by another under the same number and vCPU id between two such calls
///   is not seen to do so.
/// * fds of several VMs in one process are told apart by the order of their numbers.
/// * What is borrowed, of either kind, keeps what the kernel has of a VM (not the guest's memory)
///   until it is given back, though the VMM has closed its VM or has ended; the VM's own fd its
///   irqfds as well (`kvm_vm_release`). That is at the next such call, or when the last source that
///   reads it is dropped.
/// * A VM's or vCPU's own fd grants next to nothing that the right to trace does not: KVM refuses
///   each ioctl on it with EIO to any process but the one that made the VM (`kvm->mm`). Only the
///   page that a vCPU shares with its VMM could be mapped, which is not done.
/// * Kernels before 6.5 (6.4.8, 6.1.43, 5.15.124) read freed memory through a stats fd that
///   outlives its VM. None is borrowed there, unless [`AttachOptions::on_any_kernel`] says so.
///
/// ```no_run
/// use vmstrobe_core::Provider;
/// use vmstrobe_host::Reaper;
/// use vmstrobe_kvm::AttachedKvm;
///
/// let kvm = AttachedKvm::new(Reaper::new()?)?;
/// kvm.attach(4711)?;
/// for object in kvm.objects()? {
///     println!("{}", object.path);
/// }
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct AttachedKvm {
    opener: Opener,
    host: Host,
    budget: FdBudget,
    /// The kernel's release, if statistics descriptors must not be held on it.
    unsafe_release: Option<String>,
    watch: Arc<DeathWatch>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    attached: Vec<Attached>,
    next_key: u64,
}

impl AttachedKvm {
    /// Makes a provider that is attached to nothing yet, without the BPF reader: a VM whose VMM
    /// keeps no stats fds open cannot be read. The reaper will close what was borrowed.
    ///
    /// # Errors
    /// `Io` if the system has no thread or fd for the watcher.
    pub fn new(reaper: Reaper) -> Result<Self> {
        Self::with_options(reaper, AttachOptions::default())
    }

    /// As [`AttachedKvm::new`], with a method that reads many objects in one call. The first look
    /// at a process tries whether it can be used, unless it was tried before: some 50 ms.
    ///
    /// # Errors
    /// As [`AttachedKvm::new`].
    pub fn with_bulk(reaper: Reaper, bulk: impl Into<Option<Arc<dyn BulkOpener>>>) -> Result<Self> {
        let bulk = bulk.into();
        Self::with_options(reaper, AttachOptions { bulk, ..AttachOptions::default() })
    }

    /// As [`AttachedKvm::new`], with all that can be said.
    ///
    /// # Errors
    /// As [`AttachedKvm::new`].
    pub fn with_options(reaper: Reaper, options: AttachOptions) -> Result<Self> {
        let AttachOptions { bulk, host, budget, on_any_kernel } = options;
        let (opener, watch) =
            (Opener::new(reaper, bulk), Arc::new(DeathWatch::new(host.threads())?));
        let unsafe_release = if on_any_kernel { None } else { unsafe_release() };
        Ok(Self { opener, host, budget, unsafe_release, watch, state: Mutex::default() })
    }

    fn parts(&self) -> Parts<'_> {
        let Self { opener, host, budget, watch, .. } = self;
        let stats_too = self.unsafe_release.is_none();
        Parts { opener, host, budget, stats_too, watch }
    }

    /// Borrows what there is to read all VMs of a process by. Does nothing if it is attached
    /// already.
    ///
    /// # Errors
    /// `NotFound` if there is no such process or it has no VM, `Denied` if we may not look into
    /// it, `Unsupported` if its VMM keeps no stats fds open and the BPF reader cannot be
    /// used, `TooLarge` if there is no room for all of them, `Busy` if the process does not let
    /// itself be looked at. Then it is not attached.
    pub fn attach(&self, pid: u32) -> Result<()> {
        self.attach_all(&[pid]).pop().unwrap_or(Ok(()))
    }

    /// Attaches to each of these processes as [`AttachedKvm::attach`] does, in about the time that
    /// one takes: most of it is spent waiting to see which new fds stay open. Returns the outcomes
    /// in the order of `pids`.
    pub fn attach_all(&self, pids: &[u32]) -> Vec<Result<()>> {
        let mut state = self.state();
        state.drop_dead();
        let by = self.parts();
        let mut names: Vec<String> = state.attached.iter().map(|one| one.name.clone()).collect();
        let mut outcomes: Vec<Result<()>> = Vec::new();
        // The processes that are new, each with its place among `pids`, and the fds wanted of each.
        let (mut new, mut wanted): (Vec<(usize, Attached)>, Vec<_>) = (Vec::new(), Vec::new());
        for (at, &pid) in pids.iter().enumerate() {
            let is_known = state.attached.iter().any(|one| one.process.pid() == pid)
                || new.iter().any(|(_, one)| one.process.pid() == pid);
            let found = if is_known { Ok(None) } else { self.find(pid, &names).map(Some) };
            outcomes.push(found.map(|found| {
                let Some((attached, of_it)) = found else { return };
                names.push(attached.name.clone());
                new.push((at, attached));
                wanted.push(of_it);
            }));
        }
        let all: Vec<&Attached> = new.iter().map(|(_, attached)| attached).collect();
        Attached::settle(&all, &mut wanted, &by);
        for ((at, mut attached), wanted) in new.into_iter().zip(wanted) {
            let held = attached.hold(&by, wanted, &mut state.next_key);
            outcomes[at] = held.and_then(|()| self.keep(&mut state, attached));
        }
        outcomes
    }

    /// Returns a process that is not attached yet, and the fds to hold of it.
    fn find(&self, pid: u32, names: &[String]) -> Result<(Attached, Vec<Wanted>)> {
        let process = Process::open(pid, self.opener.gone_epoch())?;
        let attached = Attached::new(process, free_name(&self.host, pid, names), &self.host);
        let wanted = attached.find(&self.parts())?;
        Ok((attached, wanted))
    }

    fn keep(&self, state: &mut State, attached: Attached) -> Result<()> {
        if attached.opened().next().is_none() {
            let pid = attached.process.pid();
            return Err(match &self.unsafe_release {
                Some(release) => refusal(&format!("pid {pid}"), release),
                None => unreadable(pid, self.opener.bulk()),
            });
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
        // First, or its thread could take what is given up for an end.
        self.watch.remove(pid);
        process.give_up();
        true
    }

    /// Gives the vCPUs of an attached process, from the next [`Provider::objects`] on, the paths
    /// and indexes that `names` has for the threads that made them, also those that come later. One
    /// that is not in `names` keeps its own, and so does one that is read by its own fd, which does
    /// not tell its thread; one whose name changes is another object. In a pid namespace threads
    /// are told by the order in which they were made, and vCPUs keep their own names unless there
    /// are as many as in `names`, in the same order. False if the process is not attached.
    pub fn use_names(&self, pid: u32, names: CpuNames) -> bool {
        let mut state = self.state();
        let attached = state.attached.iter_mut().find(|attached| attached.process.pid() == pid);
        attached.map(|attached| attached.vcpu_names.replace(names)).is_some()
    }

    /// Looks again at every attached process; one that has ended is attached no more.
    fn looked(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let State { attached, next_key } = &mut *state;
        for attached in attached {
            // Objects that could not be borrowed are left out, and tried again next time.
            attached.refused = attached.refresh(&self.parts(), next_key).err();
        }
        state.drop_dead();
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A refresh cut short by a panic has lost objects, which the next one finds again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The VM's name, or the process's number; with the number too if the name is taken.
fn free_name(host: &Host, pid: u32, taken: &[String]) -> String {
    let mut name = scan::vm_name(host, pid).unwrap_or_else(|| pid.to_string());
    while taken.contains(&name) {
        name = format!("{name}.{pid}");
    }
    name
}

impl State {
    fn drop_dead(&mut self) {
        self.attached.retain(|attached| attached.process.lives());
    }

    fn opened(&self) -> impl Iterator<Item = &Opened> {
        self.attached.iter().flat_map(Attached::opened)
    }
}

impl Provider for AttachedKvm {
    fn name(&self) -> &str {
        crate::PROVIDER
    }

    /// Returns the schemas of the objects borrowed at the last look.
    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(schemas_of(self.state().opened()))
    }

    /// Looks again at every attached process; one that has ended is attached no more.
    fn objects(&self) -> Result<Vec<Object>> {
        Ok(self.looked().opened().map(|opened| opened.object.clone()).collect())
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        let state = self.state();
        let by_key: HashMap<_, _> =
            state.opened().map(|opened| (opened.object.key, &opened.fd)).collect();
        self.opener.sources(objects, plan, |key| by_key.get(&key).map(|&fd| Arc::clone(fd)))
    }

    /// Also those that have been dropped from the list of attached processes.
    fn ended(&self) -> Vec<u32> {
        self.watch.ended()
    }

    /// Returns a warning if the BPF reader was given up, one for each attached process of
    /// which the last look could not borrow everything, and one for each whose vCPUs could not be
    /// given the names of [`AttachedKvm::use_names`].
    fn warnings(&self) -> Vec<Error> {
        let mut warnings = self.opener.warnings();
        let state = self.state();
        let refused = state.attached.iter().filter_map(|one| one.refused.as_ref());
        // A process that has ended needs no warning: its rows say so.
        let refused = refused.filter(|error| error.kind() != ErrorKind::NotFound);
        warnings.extend(refused.cloned());
        warnings.extend(state.attached.iter().filter_map(Attached::unnamed));
        warnings
    }
}

impl VcpuOwner for AttachedKvm {
    fn look(&self) {
        drop(self.looked());
    }

    fn vcpus(&self) -> Vec<Vcpu> {
        let state = self.state();
        let of_one = |attached: &Attached| -> Vec<Vcpu> {
            let process = Some(&attached.process);
            let threads = attached.vcpu_names.threads();
            let vcpu = |opened| Some(Vcpu::of(opened, process)?.run_by(&threads));
            attached.opened().filter_map(vcpu).collect()
        };
        state.attached.iter().flat_map(of_one).collect()
    }

    fn opener(&self) -> &Opener {
        &self.opener
    }

    fn broker(&self) -> Broker {
        self.host.broker().clone()
    }

    fn threads(&self) -> &ThreadStart {
        self.host.threads()
    }
}

#[cfg(test)]
mod tests;
