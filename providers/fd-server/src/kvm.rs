//! The provider of the stats fds that a server exports.
//!
//! Invariant: what is in here is a stats fd of KVM's, whatever the server calls it. Two objects
//! never have one path. Once the server is gone there are no objects, and every open row is marked.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vmstrobe_core::{Error, ErrorKind, Object, Provider, ReadPlan, Result, Schema, Source, Target};
use vmstrobe_host::{FdOwner, GoneEpoch, KvmLink, Process, Reaper, procfs, release::refusal};
use vmstrobe_kvm::{BulkOpener, KvmFd, Opened, Opener, schemas_of};

use super::message::{Key, Kind, malformed};

/// The statistics of VMs of a server. Named as its VMM has named them.
#[derive(Debug)]
pub(super) struct ExportedKvm {
    opener: Opener,
    server: FdOwner,
    /// The process that began to listen, if it was there when the connection was made.
    peer: Option<Process>,
    /// The kernel's release, if statistics descriptors must not be held on it.
    unsafe_release: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Offer by offer: the VM, then its vCPUs by index.
    opened: Vec<(Key, Opened)>,
    next_key: u64,
    /// Why the server is gone, if it did not just end.
    refused: Option<String>,
}

impl ExportedKvm {
    pub(super) fn new(
        reaper: Reaper,
        bulk: Option<Arc<dyn BulkOpener>>,
        server: FdOwner,
        peer: Option<Process>,
        unsafe_release: Option<String>,
    ) -> Self {
        let opener = Opener::new(reaper, bulk);
        Self { opener, server, peer, unsafe_release, state: Mutex::default() }
    }

    /// Opens a stats fd that [`is_stats_fd`] has let pass.
    ///
    /// # Errors
    /// `Malformed` if another object has its path, or it is no block of statistics; `Io` if it
    /// cannot be read; `Unsupported` if it must not be held on this kernel.
    pub(super) fn add(&self, key: Key, kind: Kind, fd: OwnedFd) -> Result<Weak<KvmFd>> {
        let (target, index, path) = match kind {
            Kind::Vcpu { index, path } => (Target::Vcpu, Some(index), path),
            Kind::Vm { path } => (Target::Vm, None, path),
            Kind::Table => return Err(malformed("a table in the place of a stats fd")),
        };
        if let Some(release) = &self.unsafe_release {
            return Err(refusal("a VM that is exported", release));
        }
        let stats = self.opener.open(fd, target, Some(self.server.clone()))?;
        let mut state = self.state();
        let path = state.free_path(&path, key)?;
        let opened = Opened::new(&path, index, state.next_key, stats);
        state.next_key += 1;
        let stats = Arc::downgrade(&opened.fd);
        // The VM has no index, which is less than any.
        let place = |(key, opened): &(Key, Opened)| (key.offer, opened.object.index, key.export);
        let at = state.opened.partition_point(|o| place(o) < (key.offer, index, key.export));
        state.opened.insert(at, (key, opened));
        Ok(stats)
    }

    /// Forgets an object, if it is there. Its rows are another's business: they may outlive this.
    pub(super) fn remove(&self, key: Key) {
        self.state().opened.retain(|(known, _)| *known != key);
    }

    /// Forgets all objects, because the server is gone; `refused` is what it did wrong, if so.
    pub(super) fn end(&self, refused: Option<String>) {
        let mut state = self.state();
        state.opened.clear();
        state.refused = refused;
    }

    /// Moves when an object goes.
    pub(super) fn gone_epoch(&self) -> &GoneEpoch {
        self.opener.gone_epoch()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one insertion or removal: no panic leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns that path, or if it is taken, the path with the key behind it.
    fn free_path(&self, path: &str, key: Key) -> Result<String> {
        let is_free = |path: &String| self.opened.iter().all(|(_, o)| *o.object.path != **path);
        let mut paths = [path.to_owned(), format!("{path}.{key}")].into_iter();
        paths.find(is_free).ok_or_else(|| malformed(format!("the path {path} again and again")))
    }
}

impl Provider for ExportedKvm {
    fn name(&self) -> &str {
        vmstrobe_kvm::PROVIDER
    }

    /// Returns the schemas of the objects that are exported now.
    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(schemas_of(self.state().opened.iter().map(|(_, opened)| opened)))
    }

    /// None after the server has ended, and an error after it was found not to keep to the
    /// protocol.
    fn objects(&self) -> Result<Vec<Object>> {
        let state = self.state();
        match &state.refused {
            Some(why) => Err(Error::new(ErrorKind::Malformed, why)),
            None => Ok(state.opened.iter().map(|(_, opened)| opened.object.clone()).collect()),
        }
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        let state = self.state();
        self.opener.sources(objects, plan, |key| {
            let mut all = state.opened.iter().map(|(_, opened)| opened);
            all.find(|opened| opened.object.key == key).map(|opened| Arc::clone(&opened.fd))
        })
    }

    fn ended(&self) -> Vec<u32> {
        self.peer.iter().filter(|peer| !peer.lives()).map(Process::pid).collect()
    }

    fn warnings(&self) -> Vec<Error> {
        self.opener.warnings()
    }
}

/// Whether that is what the server calls it: by the kernel's word for it, which nobody can forge. A
/// read of anything else could wait for ever.
///
/// # Errors
/// `Io` if /proc cannot be read.
pub(super) fn is_stats_fd(fd: &OwnedFd, kind: &Kind) -> Result<bool> {
    let link = procfs::link_of(fd)
        .map_err(|error| Error::caused(ErrorKind::Io, "cannot read /proc/self/fd", error))?;
    let link = KvmLink::parse(&link);
    Ok(match kind {
        Kind::Vm { .. } => link == Some(KvmLink::VmStats),
        Kind::Vcpu { .. } => matches!(link, Some(KvmLink::VcpuStats(_))),
        Kind::Table => false,
    })
}
