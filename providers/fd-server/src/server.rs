//! The server's side, as a program uses it: a socket that listens, and what is offered there.
//!
//! Invariant: no call here waits for a client; a thread of its own serves them. What was offered
//! is exported until it is withdrawn or all ends.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use vmstrobe_core::{Error, ErrorKind, Result, Thread, ThreadStart};

use super::message::Kind;
use super::serve::Serving;
use super::socket::listening;
use super::{ExportFds, MAX_TABLES};

/// Exports descriptors of statistics to the processes that connect to a Unix socket: the side of a
/// VMM.
///
/// The socket is for this user and root; who else may connect is the business of its file's owner
/// and mode, to be changed behind [`FdServer::listen`]. What clients get can only be read. They
/// may keep it for as long as they like: on kernels before 6.4.8 (and stable ones older than that),
/// where a stats fd must not outlive its VM, export nothing.
///
/// One thread does everything, `vmstrobe-export`; it sleeps while nobody is connected. A VMM that
/// confines itself with seccomp makes this first; the thread then needs `ppoll` or `poll`, `read`,
/// `accept4`, `setsockopt`, `shutdown`, `sendmsg`, `fcntl`, `close` and `futex`.
///
/// ```
/// # use std::sync::Arc;
/// use vmstrobe_fd_server::{FdClient, FdServer};
/// use vmstrobe_host::Reaper;
/// use vmstrobe_table::TableWriter;
///
/// # let path = std::env::temp_dir().join(format!("vmstrobe-handover-{}", std::process::id()));
/// let table = TableWriter::new("xyz")?;
/// let server = FdServer::listen(&path)?;
/// server.offer(Arc::new(table.clone()))?; // and an Arc<OwnKvm> as well
///
/// // In another process:
/// let client = FdClient::connect(&path, Reaper::new()?)?;
/// assert_eq!(client.providers().len(), 2);
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct FdServer {
    shared: Arc<Shared>,
    thread: Option<Thread<()>>,
}

/// The state that the thread shares with its [`FdServer`].
#[derive(Debug)]
pub(super) struct Shared {
    offers: Mutex<Offers>,
    stop: AtomicBool,
    /// Readable when either of the above has changed.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Offers {
    all: Vec<Offer>,
    last: u64,
}

/// Something offered, under a number that no other ever gets.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) number: u64,
    pub(super) what: Arc<dyn ExportFds>,
    is_table: bool,
}

impl FdServer {
    /// Listens at that path, and has nothing to export yet. A socket at which nobody listens any
    /// more is replaced. The file is removed when this is dropped; then, everything that was
    /// exported is marked as gone wherever it is.
    ///
    /// # Errors
    /// `Busy` if somebody listens there, `Unsupported` if another kind of file is there, `TooLarge`
    /// if the path is too long for a socket (108 bytes), `NotFound` or `Denied` if its directory is
    /// not there or not ours to write, `Io` if the system has no thread or fd for it.
    pub fn listen(path: &Path) -> Result<Self> {
        Self::with_threads(path, &ThreadStart::default())
    }

    /// Listens as [`FdServer::listen`] does, with its thread started so.
    ///
    /// # Errors
    /// As [`FdServer::listen`] and [`ThreadStart::spawn`].
    pub fn with_threads(path: &Path, threads: &ThreadStart) -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| Error::caused(ErrorKind::Io, "cannot make an eventfd", errno))?;
        let stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { offers: Mutex::default(), stop, wake });
        let serving = Serving::new(Arc::clone(&shared), listening(path)?);
        let thread = threads.spawn("vmstrobe-export", move || serving.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Exports all that this has and will have, to all that are connected or will be, within some
    /// 0.1 s. It is held until it is withdrawn or this is dropped. Does nothing if it is offered
    /// already.
    ///
    /// # Errors
    /// The error of its [`ExportFds::exports`]: `Unsupported` for a table in a file, which is
    /// opened by its path. `TooLarge` if it is a table and 16 are offered.
    pub fn offer(&self, what: Arc<dyn ExportFds>) -> Result<()> {
        let is_table = what.exports()?.iter().any(|export| export.kind == Kind::Table);
        let mut offers = self.shared.offers();
        if offers.all.iter().any(|offer| offer.is(&*what)) {
            return Ok(());
        }
        if is_table && offers.all.iter().filter(|offer| offer.is_table).count() >= MAX_TABLES {
            let text = format!("over {MAX_TABLES} tables: one table can hold many objects");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        offers.last += 1;
        let number = offers.last;
        offers.all.push(Offer { number, what, is_table });
        drop(offers);
        self.shared.wake();
        Ok(())
    }

    /// Exports it no more: its rows are gone wherever they are, within some 0.1 s. False if it was
    /// not offered.
    pub fn withdraw(&self, what: &dyn ExportFds) -> bool {
        let mut offers = self.shared.offers();
        let at = offers.all.iter().position(|offer| offer.is(what));
        let withdrawn = at.map(|at| offers.all.remove(at));
        drop(offers);
        self.shared.wake();
        withdrawn.is_some()
    }
}

impl Drop for FdServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and if it did, a drop is no place to say so.
            let _ = thread.join();
        }
    }
}

impl Offer {
    fn is(&self, what: &dyn ExportFds) -> bool {
        ptr::addr_eq(&raw const *self.what, what)
    }
}

impl Shared {
    /// Returns all that is offered now.
    pub(super) fn all(&self) -> Vec<Offer> {
        self.offers().all.clone()
    }

    pub(super) fn is_stopped(&self) -> bool {
        // Relaxed: nothing is read because of the flag, and the wake-up follows it.
        self.stop.load(Ordering::Relaxed)
    }

    /// Readable when something has changed.
    pub(super) fn changed(&self) -> &OwnedFd {
        &self.wake
    }

    /// Forgets the last wake-up. To be called before looking what has changed, so that none is
    /// missed.
    pub(super) fn settle(&self) {
        let _ = read(&self.wake, &mut [0; 8]);
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then it is readable as it is.
        let _ = write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn offers(&self) -> MutexGuard<'_, Offers> {
        // Each change is one insertion or removal: no panic leaves it half done.
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
