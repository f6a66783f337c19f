//! The provider: a QEMU's statistics, as its poller knows them.
//!
//! Invariant: no call waits for QEMU, but for one that connects or refreshes, for a bounded time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::{
    Error, ErrorKind, Object, Provider, ReadPlan, Result, Schema, Source, Target, Thread,
};
use vmstrobe_host::{CpuNames, Host, PolledSource, Process};

use super::ask::{QmpShare, REPLY_LIMIT, Wake};
use super::peer::Peer;
use super::poller::{Poller, Shared};
use super::talk;

/// The most objects of one source: so that several threads can share what one QEMU has.
const ROWS_PER_SOURCE: usize = 64;

/// The provider's name.
pub const PROVIDER: &str = "qmp";

/// The longest that one call for newer values takes: as long as QEMU is waited for.
pub(crate) const REFRESH_LIMIT: Duration = REPLY_LIMIT;

/// A running QEMU (7.1 or later), asked by `query-stats` over its own QMP socket.
///
/// Its schemas and objects are QEMU's: of provider `kvm` the VM and its vCPUs, of `cryptodev` its
/// crypto devices, and whatever a later QEMU adds. Paths are QOM paths; the VM itself, which has
/// none, is `/vm/<name>`, and what else has none `/<provider>/<target>[<n>]`.
///
/// QEMU is asked every 100 ms, or less often if it takes longer than half of that to answer, and at
/// once by [`Provider::refresh`]. A row is good in the first tick that sees an answer and aged
/// until the next; stale when the answer is more than 1 s old; gone when QEMU has the object no
/// more, or has closed the connection. Then it is tried again about once a second, and what it has
/// then are new objects.
///
/// QEMU serves one client a socket: this one keeps it as long as the provider or a source lives.
///
/// ```no_run
/// use vmstrobe_core::Provider;
/// use vmstrobe_qmp::{Qmp, QmpShare};
///
/// let qemu = Qmp::connect("/run/web.qmp".as_ref(), QmpShare::All)?;
/// for object in qemu.objects()? {
///     println!("{}", object.path);
/// }
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Qmp {
    socket: String,
    vm_name: String,
    host: Host,
    shared: Arc<Shared>,
    worker: Arc<Worker>,
}

impl Qmp {
    /// Connects to the socket and asks for everything once. Takes at most 10 s.
    ///
    /// # Errors
    /// `NotFound` if there is no such socket or nobody listens on it, `Denied` if we may not
    /// connect, `Busy` if QEMU serves another client there or does not answer, `Malformed` if it
    /// is not QMP that is spoken, `TooLarge` if one of the limits does not hold, `Unsupported` if
    /// QEMU is older than 7.1, `Io` otherwise.
    pub fn connect(socket: &Path, share: QmpShare) -> Result<Self> {
        Self::connect_by(socket, share, &Host::default())
    }

    /// As [`Qmp::connect`], but the host's broker connects, now and whenever QEMU has closed the
    /// connection: the thread that asks needs no capability to reach another user's socket. It is
    /// started as the host says. If QEMU does not answer, the host looks whether its process is
    /// stopped.
    ///
    /// # Errors
    /// As [`Qmp::connect`].
    pub fn connect_by(socket: &Path, share: QmpShare, host: &Host) -> Result<Self> {
        let (wake, shared) = (Wake::new()?, Arc::new(Shared::new()?));
        let path = PathBuf::from(socket);
        let (poller, vm_name) = Poller::connect(path, share, host.clone(), &wake, &shared)?;
        let thread = host.threads().spawn("vmstrobe-qmp", move || poller.run())?;
        let worker = Arc::new(Worker { wake, thread: Some(thread) });
        let socket = socket.display().to_string();
        Ok(Self { socket, vm_name, host: host.clone(), shared, worker })
    }

    /// Returns the process behind the socket: QEMU, or the one that started it and handed it the
    /// socket. `None` if it has no number in our pid namespace.
    pub fn peer_pid(&self) -> Option<u32> {
        self.shared.known().peer_pid
    }

    /// Returns QEMU's name for its VM (`-name`), or else the name of the socket's file without its
    /// extension. At most 128 characters, none of which disturbs a terminal.
    pub fn vm_name(&self) -> &str {
        &self.vm_name
    }

    /// Returns QEMU's names for its vCPUs, kept up to date, for
    /// `AttachedKvm::use_names`.
    pub fn cpu_names(&self) -> CpuNames {
        self.shared.cpu_names.clone()
    }

    /// Reads recorded answers of a QEMU, without a QEMU: returns the objects with their words in
    /// the layout of their schemas. `answers` is QEMU's side of a connection byte for byte, from
    /// the greeting on, to the commands that [`Qmp::connect`] and its rounds send.
    ///
    /// It does no I/O, and takes time and memory in proportion to the bytes.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `Unsupported` and `Io` as [`Qmp::connect`]. An answer that is not
    /// whole is no error: what comes before it counts.
    // Public for the fuzz target alone.
    #[doc(hidden)]
    pub fn replay(answers: &[u8], share: QmpShare) -> Result<Vec<(Object, Vec<u64>)>> {
        talk::replay(answers, share)
    }
}

impl Provider for Qmp {
    fn name(&self) -> &str {
        PROVIDER
    }

    /// As QEMU says, whether it has such an object or not; with histograms of as many buckets as
    /// its answers have shown.
    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(self.shared.known().schemas.clone())
    }

    /// Returns the objects that QEMU had at the last round or refresh; none while it is not
    /// connected. Never waits for QEMU.
    fn objects(&self) -> Result<Vec<Object>> {
        Ok(self.shared.known().objects.iter().map(|(object, _)| object.clone()).collect())
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        let known = self.shared.known();
        let by_key: HashMap<_, _> =
            known.objects.iter().map(|(object, block)| (object.key, (object, block))).collect();
        let block = |object: &Object| {
            let Some((known, block)) = by_key.get(&object.key) else { return Ok(None) };
            // Else the plan's words would be other statistics' here.
            if known.schema != *plan.schema() {
                let text = format!("{} has other statistics than the plan is for", object.path);
                return Err(Error::new(ErrorKind::Malformed, text));
            }
            Ok(Some(Arc::clone(block)))
        };
        let source = |objects: &[Object]| {
            let blocks: Vec<_> = objects.iter().map(block).collect::<Result<_>>()?;
            Ok(Box::new(PolledSource::new(plan, blocks, &self.worker)) as Box<dyn Source>)
        };
        objects.chunks(ROWS_PER_SOURCE).map(source).collect()
    }

    /// Has QEMU asked for the values of that target now, beside the rounds, and waits until they
    /// are there, at most 1 s; then [`Provider::objects`] is as new as they. Many callers at a time
    /// share one query. Nothing is asked of a target that none of the schemas has, nor while QEMU
    /// is not connected, when all rows are gone.
    ///
    /// # Errors
    /// `Busy` if QEMU does not answer in time, `Io` if it answers that it cannot: it does so for
    /// all vCPUs if it cannot read one.
    fn refresh(&self, target: &Target) -> Result<()> {
        let is_of_target = |schema: &Arc<Schema>| schema.target() == target;
        if !self.shared.known().schemas.iter().any(is_of_target) {
            return Ok(());
        }
        let called = self.shared.calls.call(target, REFRESH_LIMIT);
        let peer = || Peer::of(self.peer_pid(), &self.host);
        called.map_err(|fault| talk::in_words(fault, &self.socket, peer))
    }

    /// The process that was behind the socket when it was connected to last: QEMU, or the one that
    /// started it.
    fn ended(&self) -> Vec<u32> {
        let known = self.shared.known();
        known.peer.iter().filter(|peer| !peer.lives()).map(Process::pid).collect()
    }
}

/// The poller's thread. It ends when this is dropped, by the provider or the last source.
#[derive(Debug)]
struct Worker {
    wake: Arc<Wake>,
    thread: Option<Thread<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.wake.signal();
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and if it did, a drop is no place to say so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
