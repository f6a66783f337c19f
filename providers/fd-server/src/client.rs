//! The client's side, as a program uses it: a connection, and the providers of what comes by it.
//!
//! Invariant: connecting is bounded in time. The connection lasts as long as anybody needs it, be
//! it for a single row, and the server is there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use vmstrobe_core::{Error, Provider, Result};
use vmstrobe_host::{FdOwner, GoneEpoch, Process, Reaper, Relay, procfs, release::unsafe_release};
use vmstrobe_kvm::AttachOptions;
use vmstrobe_table::Tables;

use super::kvm::ExportedKvm;
use super::reader::Reader;
use super::socket::{CONNECT_LIMIT, Connection, connected};

/// A client of an [`FdServer`](crate::FdServer): the statistics that another process exports, now
/// and later.
///
/// The connection lasts as long as the server does, and this or one of its providers or any row of
/// theirs. It is noticed within some 0.2 s if the server adds or withdraws something, and at once
/// if it ends: then there are no objects, and all rows are gone. A server that does not keep to the
/// protocol is treated as one that has ended, and the provider of stats fds says so.
///
/// Objects bear the server's paths and indexes; of two with one path, the later gets a number
/// behind it.
///
/// ```no_run
/// # use std::path::Path;
/// use vmstrobe_core::Registry;
/// use vmstrobe_fd_server::FdClient;
/// use vmstrobe_host::Reaper;
///
/// let registry = Registry::default();
/// let vmm = FdClient::connect(Path::new("/run/vmm/stats"), Reaper::new()?)?;
/// vmm.providers().into_iter().for_each(|provider| registry.add(provider));
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct FdClient {
    #[expect(dead_code, reason = "held: its end is that of the connection")]
    connection: Arc<Connection>,
    peer_pid: Option<u32>,
    kvm: Arc<ExportedKvm>,
    tables: Arc<Tables>,
}

impl FdClient {
    /// Connects to the server at that path, and waits until all that it has now has arrived.
    /// The reaper will close what was exported.
    ///
    /// # Errors
    /// `NotFound` if nobody exports there (any more), `Denied` if we may not connect,
    /// `Malformed` if it is something else that listens there, `Unsupported` if it speaks another
    /// version, `Busy` if it is not done within 2 s or serves as many as it may,
    /// `TooLarge` if it exports more than 8192 descriptors or 16 tables, `Io` if
    /// there is no room for it.
    pub fn connect(path: &Path, reaper: Reaper) -> Result<Self> {
        Self::connect_with(path, reaper, AttachOptions::default())
    }

    /// As [`FdClient::connect`], with the BPF reader, by which the exported objects are read
    /// in one call where that is allowed; on any kernel; connected by the broker of the host, and
    /// with its start of threads. Nothing else of the options counts.
    ///
    /// # Errors
    /// As [`FdClient::connect`].
    pub fn connect_with(path: &Path, reaper: Reaper, options: AttachOptions) -> Result<Self> {
        let AttachOptions { bulk, host, on_any_kernel, .. } = options;
        let unsafe_release = if on_any_kernel { None } else { unsafe_release() };
        let deadline = Instant::now() + CONNECT_LIMIT;
        let server = connected(path, host.broker(), deadline)?;
        let peer_pid = procfs::peer_pid(&server);
        // No source asks for its end: the connection tells.
        let peer = peer_pid.and_then(|pid| Process::open(pid, &GoneEpoch::default()).ok());
        let socket = Arc::new(Relay::start(server)?);
        let connection = Arc::new(Connection::new(&socket));
        let alive = Arc::new(AtomicBool::new(true));
        let server = FdOwner { alive, watch: Arc::clone(&connection) as _, seat: None };
        let kvm = ExportedKvm::new(reaper.clone(), bulk, server.clone(), peer, unsafe_release);
        let kvm = Arc::new(kvm);
        let tables = Arc::new(Tables::on_host(host.clone())?);
        let mut reader = Reader::new(path, socket, &server, &connection, &kvm, &tables, reaper);
        reader.take_all(deadline).map_err(|error| {
            let text = format!("cannot use the descriptors offered at {}", path.display());
            Error::caused(error.kind(), text, error)
        })?;
        host.threads().spawn("vmstrobe-import", move || reader.run())?;
        Ok(Self { connection, peer_pid, kvm, tables })
    }

    /// Returns the providers of what is exported: one of stats fds, and one of tables. Each is
    /// there even if nothing of its kind was exported yet.
    pub fn providers(&self) -> Vec<Arc<dyn Provider>> {
        vec![Arc::clone(&self.kvm) as _, Arc::clone(&self.tables) as _]
    }

    /// Returns the process that began to listen. `None` if it has no number in our pid namespace.
    pub fn peer_pid(&self) -> Option<u32> {
        self.peer_pid
    }
}
