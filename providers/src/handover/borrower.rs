//! The borrower's side, as a program uses it: a connection, and the providers of what comes by it.
//!
//! Invariant: connecting is bounded in time. The connection lasts as long as anybody needs it, be
//! it for a single row, and the lender is there.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};
use vmstrobe_core::{Error, ErrorKind, Provider, Result};

use super::kvm::LentKvm;
use super::reader::Reader;
use super::socket::connected;
use crate::fd::Lender;
use crate::kvm::Accel;
use crate::procfs;
use crate::reaper::Reaper;
use crate::table::Tables;

/// How long a lender may take until all that he has now is here.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// What another process hands over, and goes on handing over: see [`HandOver`](crate::HandOver).
///
/// It is there as long as the lender is, and this or one of its providers or any row of theirs.
/// What the lender adds or withdraws is noticed within some 0.2 s, his end at once: then there are
/// no objects, and all rows are gone. One who was found not to keep to the protocol is at an end
/// too, and his provider of stats fds says so.
///
/// Objects bear the lender's paths and indexes; of two with one path, the later gets a number
/// behind it.
///
/// ```no_run
/// # use std::path::Path;
/// use vmstrobe_core::Registry;
/// use vmstrobe_providers::{HandedOver, Reaper};
///
/// let registry = Registry::default();
/// let vmm = HandedOver::connect(Path::new("/run/vmm/stats"), Reaper::new()?)?;
/// vmm.providers().into_iter().for_each(|provider| registry.add(provider));
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct HandedOver {
    connection: Arc<Connection>,
    kvm: Arc<LentKvm>,
    tables: Arc<Tables>,
}

/// Ends when nobody has it any more: what is lent has it, and whatever reads that.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Arc<OwnedFd>,
}

impl HandedOver {
    /// Connects to whoever hands over at that path, and waits until all that he has now is here.
    /// The reaper will close what was lent.
    ///
    /// # Errors
    /// `NotFound` if nobody hands over there (any more), `Denied` if we may not connect,
    /// `Malformed` if it is something else that listens there, `Unsupported` if it speaks another
    /// version, `Busy` if it is not done within [`CONNECT_LIMIT`] or serves as many as it may,
    /// `TooLarge` if it lends more than [`MAX_LOANS`](crate::MAX_LOANS) or
    /// [`MAX_TABLES`](crate::MAX_TABLES), `Io` if we have no room for it.
    pub fn connect(path: &Path, reaper: Reaper) -> Result<Self> {
        Self::connect_with(path, reaper, Accel::off())
    }

    /// As [`HandedOver::connect`], with the kernel-side tick: what was handed over is then read in
    /// one call, where that is allowed.
    ///
    /// # Errors
    /// As [`HandedOver::connect`].
    pub fn connect_with(path: &Path, reaper: Reaper, accel: Accel) -> Result<Self> {
        let deadline = Instant::now() + CONNECT_LIMIT;
        let socket = Arc::new(connected(path, deadline)?);
        let connection = Arc::new(Connection { socket: Arc::clone(&socket) });
        let alive = Arc::new(AtomicBool::new(true));
        let lender = Lender { alive, _watch: Arc::clone(&connection) as _ };
        let kvm = Arc::new(LentKvm::new(reaper.clone(), accel, lender.clone()));
        let tables = Arc::new(Tables::new()?);
        let mut reader = Reader::new(socket, &lender, &connection, &kvm, &tables, reaper);
        reader.take_all(deadline).map_err(|error| {
            let text = format!("cannot borrow what {} hands over", path.display());
            Error::caused(error.kind(), text, error)
        })?;
        thread::Builder::new()
            .name("vmstrobe-borrow".to_owned())
            .spawn(move || reader.run())
            .map_err(|error| Error::caused(ErrorKind::Io, "cannot start the borrower", error))?;
        Ok(Self { connection, kvm, tables })
    }

    /// What was handed over: a provider of stats fds, and one of tables. Each is there even if
    /// nothing of its kind was lent yet.
    pub fn providers(&self) -> Vec<Arc<dyn Provider>> {
        vec![Arc::clone(&self.kvm) as _, Arc::clone(&self.tables) as _]
    }

    /// The process that began to listen. `None` in a pid namespace, where not every process has a
    /// number that we could see.
    pub fn peer_pid(&self) -> Option<u32> {
        procfs::peer_pid(&*self.connection.socket)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The reader finds it ended, and ends. If the lender was quicker there is nothing to do.
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }
}
