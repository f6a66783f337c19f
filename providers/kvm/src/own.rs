//! The statistics of a VM of this process, for a VMM that embeds us.
//!
//! `KVM_GET_STATS_FD` on a vCPU waits for the kernel's `vcpu->mutex`, which `KVM_RUN` holds for as
//! long as the vCPU is in the kernel: with an idle guest, for ever.
//!
//! Invariant: no call here waits longer than [`VCPU_BUSY_LIMIT`]. vCPUs come and go while others
//! sample: sources hold their stats fds themselves and never see the lock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use vmstrobe_core::{
    Error, ErrorKind, Object, Provider, ReadPlan, Result, Schema, Source, Target, ThreadStart,
    vm_path,
};
use vmstrobe_host::{Broker, Reaper};

use super::bulk::BulkOpener;
use super::opened::{Opened, schemas_of, vcpu_path};
use super::vcpu::Vcpu;
use super::vcpu_owner::VcpuOwner;
use crate::fd::KvmFd;
use crate::opener::Opener;
use crate::sys::{CAP_BINARY_STATS_FD, kvm_check_extension, kvm_get_stats_fd};

/// The longest that [`OwnKvm::add_vcpu`] waits for a vCPU that runs.
const VCPU_BUSY_LIMIT: Duration = Duration::from_secs(1);

/// The statistics of a VM of this process: the provider for a VMM.
///
/// Add each vCPU before its first `KVM_RUN`, which takes some 0.1 ms, or on its own thread
/// ([`NewVcpu::here`]). The VM's object is `/vm/<name>`, a vCPU's `/vm/<name>/vcpu[<n>]`.
///
/// It keeps stats fds open, not the VM's and vCPUs' own. As long as they are, the kernel keeps what
/// is left of a VM that is closed, and rows go on showing its last values: drop the provider, and
/// the sampler's sources, with the VM. (On kernels before 6.4.8, and stable ones older than that,
/// do so *before* the VM is closed: there a stats fd must not outlive its VM.)
///
/// A VMM that confines itself with seccomp does all this first, or allows ioctl 0xAECE and what a
/// new thread needs. Sampling needs `pread64`, and closing `close` and `futex`.
///
/// ```no_run
/// # use std::os::fd::OwnedFd;
/// # use vmstrobe_core::{Provider, Result};
/// # use vmstrobe_kvm::{NewVcpu, OwnKvm};
/// # fn vmm(vm: OwnedFd, vcpus: Vec<OwnedFd>) -> Result<()> {
/// // `vm` came from KVM_CREATE_VM, `vcpus` from KVM_CREATE_VCPU; none has run yet.
/// let kvm = OwnKvm::new("web", &vm)?;
/// for (index, vcpu) in (0..).zip(&vcpus) {
///     kvm.add_vcpu(NewVcpu::new(index, vcpu))?;
/// }
/// let paths: Vec<_> = kvm.objects()?.into_iter().map(|object| object.path).collect();
/// assert_eq!(paths[..2], ["/vm/web".into(), "/vm/web/vcpu[0]".into()]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OwnKvm {
    vm_path: String,
    opener: Opener,
    threads: ThreadStart,
    state: Mutex<State>,
}

/// A borrowed descriptor of a VM or a vCPU of this process: a `BorrowedFd` or `OwnedFd`,
/// and with the feature `kvm-ioctls` a `VmFd` or `VcpuFd` of that crate.
#[derive(Clone, Copy, Debug)]
pub struct KvmFdRef<'a>(pub(crate) BorrowedFd<'a>);

impl<'a> From<BorrowedFd<'a>> for KvmFdRef<'a> {
    fn from(fd: BorrowedFd<'a>) -> Self {
        Self(fd)
    }
}

impl<'a> From<&'a OwnedFd> for KvmFdRef<'a> {
    fn from(fd: &'a OwnedFd) -> Self {
        Self(fd.as_fd())
    }
}

/// A vCPU to be added to an [`OwnKvm`].
///
/// ```no_run
/// # use std::os::fd::OwnedFd;
/// # use vmstrobe_kvm::{NewVcpu, OwnKvm};
/// # fn vmm(kvm: &OwnKvm, vcpu: OwnedFd) -> vmstrobe_core::Result<()> {
/// let qom = Some("/machine/unattached/device[0]");
/// kvm.add_vcpu(NewVcpu { path: qom, ..NewVcpu::new(0, &vcpu) })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NewVcpu<'a> {
    /// The index by which users call it.
    pub index: u32,
    /// Its descriptor, from `KVM_CREATE_VCPU`.
    pub fd: BorrowedFd<'a>,
    /// The path of its object: the QOM path, if the VMM has such; else `/vm/<name>/vcpu[<n>]`.
    pub path: Option<&'a str>,
    /// Whether the thread that adds it is the one that runs it. Then it cannot be in `KVM_RUN`,
    /// however often it has run, and [`Sched`](crate::Sched) knows its thread. On any other thread,
    /// adding it so may wait for ever.
    pub is_own_thread: bool,
}

impl<'a> NewVcpu<'a> {
    /// Describes a vCPU that has not run yet, under a path of its VM.
    pub fn new(index: u32, vcpu: impl Into<KvmFdRef<'a>>) -> Self {
        Self { index, fd: vcpu.into().0, path: None, is_own_thread: false }
    }

    /// Describes a vCPU that is run by this thread, under a path of its VM.
    pub fn here(index: u32, vcpu: impl Into<KvmFdRef<'a>>) -> Self {
        Self { is_own_thread: true, ..Self::new(index, vcpu) }
    }
}

#[derive(Debug)]
struct State {
    /// The VM, then its vCPUs by index.
    opened: Vec<Opened>,
    next_key: u64,
}

impl OwnKvm {
    /// Opens the statistics of the VM as a whole, under that name. `vm` is from `KVM_CREATE_VM`.
    ///
    /// # Errors
    /// `Unsupported` if the kernel has no such statistics (Linux before 5.14) or the fd is no VM,
    /// `Denied` if the VM belongs to another process, `Io` if the system has no thread or no
    /// descriptor for it.
    pub fn new<'a>(name: &str, vm: impl Into<KvmFdRef<'a>>) -> Result<Self> {
        Self::with_bulk(name, vm, None)
    }

    /// As [`OwnKvm::new`], with a method that reads many vCPUs in one call, where that is allowed:
    /// the BPF reader.
    ///
    /// # Errors
    /// As [`OwnKvm::new`].
    pub fn with_bulk<'a>(
        name: &str,
        vm: impl Into<KvmFdRef<'a>>,
        bulk: impl Into<Option<Arc<dyn BulkOpener>>>,
    ) -> Result<Self> {
        Self::with_threads(name, vm, bulk, ThreadStart::default())
    }

    /// As [`OwnKvm::with_bulk`], with all threads started so: the one that closes descriptors,
    /// those that wait for a vCPU, and the one of [`OwnKvm::sched`].
    ///
    /// # Errors
    /// As [`OwnKvm::new`] and [`ThreadStart::spawn`].
    pub fn with_threads<'a>(
        name: &str,
        vm: impl Into<KvmFdRef<'a>>,
        bulk: impl Into<Option<Arc<dyn BulkOpener>>>,
        threads: ThreadStart,
    ) -> Result<Self> {
        let vm = vm.into().0;
        if kvm_check_extension(vm, CAP_BINARY_STATS_FD).map_err(|e| refused("VM", e))? <= 0 {
            let text = "this kernel has no binary statistics of KVM: Linux 5.14 is needed";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let opener = Opener::new(Reaper::with_threads(&threads)?, bulk.into());
        let fd = kvm_get_stats_fd(vm).map_err(|error| refused("VM", error))?;
        let stats = opener.open(fd, Target::Vm, None)?;
        let vm_path = vm_path(name);
        let opened = vec![Opened::new(&vm_path, None, 0, stats)];
        let state = Mutex::new(State { opened, next_key: 1 });
        Ok(Self { vm_path, opener, threads, state })
    }

    /// Adds a vCPU: best before its first run, or on its own thread ([`NewVcpu::here`]).
    ///
    /// # Errors
    /// `Busy` if the vCPU does not leave `KVM_RUN` within a second, which it does not do
    /// to one that is added on its own thread; a thread then goes on waiting for it, and holds the
    /// vCPU open until it does. `Unsupported` if there is one of that index or an object of that
    /// path, or the descriptor is no vCPU's; `Denied` if the vCPU belongs to another process; `Io`
    /// if the system has no thread or no descriptor for it.
    pub fn add_vcpu(&self, vcpu: NewVcpu<'_>) -> Result<()> {
        let NewVcpu { index, fd, path, is_own_thread } = vcpu;
        let path = path.map_or_else(|| vcpu_path(&self.vm_path, index), str::to_owned);
        // Asked before, for a clear answer, and again after, because this waits without the lock.
        self.state().check_free(index, &path)?;
        let (stats_fd, thread_id) = if is_own_thread {
            let thread_id = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            let stats_fd = kvm_get_stats_fd(fd).map_err(|error| refused("vCPU", error))?;
            (stats_fd, Some(thread_id))
        } else {
            (stats_fd_in_time(&self.threads, index, fd)?, None)
        };
        let stats = self.opener.open(stats_fd, Target::Vcpu, None)?;
        check_vcpu(&stats)?;
        let mut state = self.state();
        state.check_free(index, &path)?;
        let key = state.next_key;
        state.next_key += 1;
        // The VM has no index, which is less than any.
        let at = state.opened.partition_point(|opened| opened.object.index < Some(index));
        let opened = Opened::new(&path, Some(index), key, stats);
        state.opened.insert(at, Opened { thread_id, ..opened });
        Ok(())
    }

    /// Removes a vCPU: its object is no more, and rows that are still read from it are marked so.
    /// False if there is none of that index.
    pub fn remove_vcpu(&self, index: u32) -> bool {
        let mut state = self.state();
        let at = state.opened.iter().position(|opened| opened.object.index == Some(index));
        let removed = at.map(|at| state.opened.remove(at));
        removed.inspect(|opened| opened.fd.retire()).is_some()
    }

    /// Returns the objects with their stats fds. For an `FdServer`, which exports them.
    #[doc(hidden)]
    pub fn stats_fds(&self) -> Vec<(Object, Arc<KvmFd>)> {
        let state = self.state();
        let each = state.opened.iter();
        each.map(|opened| (opened.object.clone(), Arc::clone(&opened.fd))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one insertion or removal: no panic leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_free(&self, index: u32, path: &str) -> Result<()> {
        let taken =
            |opened: &&Opened| opened.object.index == Some(index) || *opened.object.path == *path;
        match self.opened.iter().find(taken) {
            None => Ok(()),
            Some(Opened { object, .. }) => {
                let text = format!("there is {} already: remove it first", object.path);
                Err(Error::new(ErrorKind::Unsupported, text))
            }
        }
    }
}

impl Provider for OwnKvm {
    fn name(&self) -> &str {
        crate::PROVIDER
    }

    /// The VM's, and the vCPUs' as soon as there is one.
    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(schemas_of(self.state().opened.iter()))
    }

    fn objects(&self) -> Result<Vec<Object>> {
        Ok(self.state().opened.iter().map(|opened| opened.object.clone()).collect())
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        let state = self.state();
        self.opener.sources(objects, plan, |key| {
            let opened = state.opened.iter().find(|opened| opened.object.key == key)?;
            Some(Arc::clone(&opened.fd))
        })
    }

    fn warnings(&self) -> Vec<Error> {
        self.opener.warnings()
    }
}

impl VcpuOwner for OwnKvm {
    /// It knows of each when it is added.
    fn look(&self) {}

    fn vcpus(&self) -> Vec<Vcpu> {
        self.state().opened.iter().filter_map(|opened| Vcpu::of(opened, None)).collect()
    }

    fn opener(&self) -> &Opener {
        &self.opener
    }

    /// /proc always shows the threads of this process.
    fn broker(&self) -> Broker {
        Broker::default()
    }

    fn threads(&self) -> &ThreadStart {
        &self.threads
    }
}

/// Asks for a vCPU's stats fd on a thread of its own, and waits for it no longer than the limit.
fn stats_fd_in_time(threads: &ThreadStart, index: u32, vcpu: BorrowedFd<'_>) -> Result<OwnedFd> {
    let io = |error| Error::caused(ErrorKind::Io, "cannot ask for a vCPU's stats fd", error);
    // The thread may outlive the caller's fd.
    let vcpu = vcpu.try_clone_to_owned().map_err(io)?;
    let (answer, answered) = mpsc::sync_channel(1);
    // If nobody waits any more, the fd comes back in the error, and closes there.
    let ask = move || drop(answer.send(kvm_get_stats_fd(vcpu.as_fd())));
    threads.spawn("vmstrobe-stats", ask)?;
    match answered.recv_timeout(VCPU_BUSY_LIMIT) {
        Ok(outcome) => outcome.map_err(|error| refused("vCPU", error)),
        Err(RecvTimeoutError::Timeout) => Err(Error::new(
            ErrorKind::Busy,
            format!(
                "vCPU {index} has been in KVM_RUN for {VCPU_BUSY_LIMIT:?}: add it before its \
                 first KVM_RUN, or on its own thread (NewVcpu::here)"
            ),
        )),
        Err(RecvTimeoutError::Disconnected) => {
            Err(io(io::Error::other("the thread that asked has died")))
        }
    }
}

/// A VM's fd gives the VM's statistics, which are not a vCPU's. The id of a future kernel that we
/// cannot judge passes.
fn check_vcpu(stats: &KvmFd) -> Result<()> {
    if stats.id().is_some_and(|id| id.starts_with("kvm-") && !id.contains("/vcpu-")) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this descriptor is a VM's, not a vCPU's: give that of KVM_CREATE_VCPU",
        ));
    }
    Ok(())
}

fn refused(what: &str, error: io::Error) -> Error {
    let (kind, text) = match Errno::from_io_error(&error) {
        Some(Errno::IO) => (
            ErrorKind::Denied,
            format!(
                "the {what} is dead or belongs to another process: only the process that created \
                 it can ask for its stats fd"
            ),
        ),
        Some(Errno::NOTTY | Errno::INVAL) => {
            (ErrorKind::Unsupported, format!("this descriptor is not that of a KVM {what}"))
        }
        _ => (ErrorKind::Io, format!("cannot get the stats fd of the {what}")),
    };
    Error::caused(kind, text, error)
}

#[cfg(test)]
mod tests;
