//! The statistics of VMs of other processes, by fds that their VMMs keep open.
//!
//! Invariant: the VMM is never stopped nor asked, and notices nothing. An object whose fd it has
//! closed, or whose process has ended, is gone: from `objects` and from every open row. An object's
//! own fd is borrowed only if the kernel-side tick can read it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstrobe_core::{Error, ErrorKind, Object, Provider, ReadPlan, Result, Schema, Source};

use super::bpf::{Accel, AccelMode};
use super::sched::{Vcpu, VcpuOwner};
use super::{Opened, scan, schemas_of};
use crate::fd::Opener;
use crate::process::{DeathWatch, Process};
use crate::qmp::CpuNames;
use crate::reaper::Reaper;

mod wanted;
mod lent;

use lent::Attached;

/// The statistics of VMs of other processes, attached by process id.
///
/// It needs the right to trace the process (the same user, or `CAP_SYS_PTRACE`), and fds that the
/// VMM keeps open. Best are stats fds: QEMU 8.1 and later keep the vCPUs', a VMM that embeds
/// [`OwnKvm`](crate::OwnKvm) the VM's as well. Where there is none, the VM's or vCPU's own fd will
/// do, which every VMM has, if the kernel-side tick can be used ([`Borrowed::with_accel`]); an
/// object that is read by its own fd stays so until the VMM closes that. A VM's object is
/// `/vm/<name>`, by the VMM's command line or else its pid; a vCPU's is `/vm/<name>/vcpu[<n>]` with
/// the kernel's vCPU id, which for some CPU topologies is not QEMU's `cpu-index`;
/// [`Borrowed::use_names`] puts QEMU's own in their place.
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

#[derive(Debug, Default)]
struct State {
    attached: Vec<Attached>,
    next_key: u64,
}

impl Borrowed {
    /// Attached to nothing yet, and without the kernel-side tick: what keeps no stats fds open
    /// cannot be read. The reaper will close what was borrowed.
    ///
    /// # Errors
    /// `Io` if the system has no thread or fd for the watcher.
    pub fn new(reaper: Reaper) -> Result<Self> {
        Self::with_accel(reaper, Accel::off())
    }

    /// As [`Borrowed::new`], with the kernel-side tick. The first look at a process tries whether
    /// it can be used, unless it was tried before: some 50 ms.
    ///
    /// # Errors
    /// As [`Borrowed::new`].
    pub fn with_accel(reaper: Reaper, accel: Accel) -> Result<Self> {
        let watch = Arc::new(DeathWatch::new()?);
        Ok(Self { opener: Opener::new(reaper, accel), watch, state: Mutex::default() })
    }

    /// Borrows what there is to read all VMs of a process by. Does nothing if it is attached
    /// already.
    ///
    /// # Errors
    /// `NotFound` if there is no such process or it has no VM, `Denied` if we may not look into
    /// it, `Unsupported` if its VMM keeps no stats fds open and the kernel-side tick cannot be
    /// used, `Io` if we have no room for them. Then it is not attached.
    pub fn attach(&self, pid: u32) -> Result<()> {
        let mut state = self.state();
        state.drop_dead(&self.watch);
        if state.attached.iter().any(|attached| attached.process.pid() == pid) {
            return Ok(());
        }
        let process = Process::open(pid, self.opener.departures())?;
        let mut attached = Attached::new(process, state.free_name(pid));
        attached.refresh(&self.opener, &self.watch, &mut state.next_key)?;
        if attached.opened().next().is_none() {
            let accel = self.opener.accel();
            return Err(unreadable(pid, accel.mode(), accel.check()));
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
    /// that is not in `names` keeps its own, and so does one that is read by its own fd, which does
    /// not tell its thread; one whose name changes is another object. False if the process is not
    /// attached.
    pub fn use_names(&self, pid: u32, names: CpuNames) -> bool {
        let mut state = self.state();
        let attached = state.attached.iter_mut().find(|attached| attached.process.pid() == pid);
        attached.map(|attached| attached.cpu_names = names).is_some()
    }

    /// Looks again at every attached process; one that has ended is attached no more.
    fn looked(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let State { attached, next_key } = &mut *state;
        for attached in attached {
            // What could not be borrowed is left out, and tried again next time.
            let _ = attached.refresh(&self.opener, &self.watch, next_key);
        }
        state.drop_dead(&self.watch);
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A refresh cut short by a panic has lost objects, which the next one finds again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to say of a VM of which nothing could be borrowed, though nothing was refused.
fn unreadable(pid: u32, mode: AccelMode, accel: Result<()>) -> Error {
    let how = match accel {
        // Then any VM can be read that is there.
        Ok(()) => {
            let text = format!("the VMM of pid {pid} has closed its VM just now");
            return Error::new(ErrorKind::NotFound, text);
        }
        Err(_) if mode == AccelMode::Off => "is switched off (--accel)".to_owned(),
        Err(error) => format!("cannot be used: {error}"),
    };
    let text = format!(
        "the VMM of pid {pid} keeps no stats fds open (QEMU does from 8.1 on, and any VMM that \
         embeds vmstrobe), and the kernel-side tick, which needs none, {how}"
    );
    Error::new(ErrorKind::Unsupported, text)
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
        self.attached.iter().flat_map(Attached::opened)
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
        Ok(self.looked().opened().map(|opened| opened.object.clone()).collect())
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        let state = self.state();
        let by_key: HashMap<_, _> =
            state.opened().map(|opened| (opened.object.key, &opened.fd)).collect();
        self.opener.sources(objects, plan, |key| by_key.get(&key).map(|&fd| Arc::clone(fd)))
    }

    fn warnings(&self) -> Vec<Error> {
        self.opener.accel().warnings()
    }
}

impl VcpuOwner for Borrowed {
    fn look(&self) {
        drop(self.looked());
    }

    fn vcpus(&self) -> Vec<Vcpu> {
        let state = self.state();
        let of_one = |attached: &Attached| -> Vec<Vcpu> {
            let process = Some(&attached.process);
            attached.opened().filter_map(|opened| Vcpu::of(opened, process)).collect()
        };
        state.attached.iter().flat_map(of_one).collect()
    }

    fn opener(&self) -> &Opener {
        &self.opener
    }
}

#[cfg(test)]
mod tests;
