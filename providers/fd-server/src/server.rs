//! The server's side, as a program uses it: a socket that listens, and what is offered there.
//!
//! Invariant: no call here waits for a client; a thread of its own serves them. What was offered
//! is exported until it is withdrawn or all ends.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::{Result, Thread, ThreadStart};

use super::ExportFds;
use super::offers::Offers;
use super::serve::Serving;
use super::socket::listening;

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
    offers: Arc<Offers>,
    thread: Option<Thread<()>>,
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
        let offers = Arc::new(Offers::new()?);
        let serving = Serving::new(Arc::clone(&offers), listening(path)?);
        let thread = threads.spawn("vmstrobe-export", move || serving.run())?;
        Ok(Self { offers, thread: Some(thread) })
    }

    /// Exports all that this has and will have, to all that are connected or will be, within some
    /// 0.1 s. It is held until it is withdrawn or this is dropped. Does nothing if it is offered
    /// already.
    ///
    /// # Errors
    /// The error of its [`ExportFds::exports`]: `Unsupported` for a table in a file, which is
    /// opened by its path. `TooLarge` if it is a table and 16 are offered.
    pub fn offer(&self, what: Arc<dyn ExportFds>) -> Result<()> {
        self.offers.add(what)
    }

    /// Exports it no more: its rows are gone wherever they are, within some 0.1 s. False if it was
    /// not offered.
    pub fn withdraw(&self, what: &dyn ExportFds) -> bool {
        self.offers.remove(what)
    }
}

impl Drop for FdServer {
    fn drop(&mut self) {
        self.offers.stop();
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and if it did, a drop is no place to say so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
