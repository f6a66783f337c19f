//! The offers of a server, which its thread shares with the [`FdServer`](crate::FdServer).
//!
//! Invariant: an offer keeps its number for as long as it is there, and no other ever gets that
//! number. Whatever changes wakes the thread.

use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use vmstrobe_core::{Error, ErrorKind, Result};

use super::message::Kind;
use super::{ExportFds, MAX_TABLES};

/// All that is offered, and the word to stop.
#[derive(Debug)]
pub(super) struct Offers {
    list: Mutex<OfferList>,
    stop: AtomicBool,
    /// Readable when either of the above has changed.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct OfferList {
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

impl Offer {
    fn is(&self, what: &dyn ExportFds) -> bool {
        ptr::addr_eq(&raw const *self.what, what)
    }
}

impl Offers {
    /// Returns an empty list.
    ///
    /// # Errors
    /// `Io` if the system has no descriptor for it.
    pub(super) fn new() -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| Error::caused(ErrorKind::Io, "cannot make an eventfd", errno))?;
        Ok(Self { list: Mutex::default(), stop: AtomicBool::new(false), wake })
    }

    /// Adds an offer, unless it is there.
    ///
    /// # Errors
    /// As [`FdServer::offer`](crate::FdServer::offer).
    pub(super) fn add(&self, what: Arc<dyn ExportFds>) -> Result<()> {
        let is_table = what.exports()?.iter().any(|export| export.kind == Kind::Table);
        let mut list = self.list();
        if list.all.iter().any(|offer| offer.is(&*what)) {
            return Ok(());
        }
        if is_table && list.all.iter().filter(|offer| offer.is_table).count() >= MAX_TABLES {
            let text = format!(
                "more than {MAX_TABLES} tables are offered, which is the limit: put more objects \
                 into one table"
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        list.last += 1;
        let number = list.last;
        list.all.push(Offer { number, what, is_table });
        drop(list);
        self.wake();
        Ok(())
    }

    /// Removes an offer. False if it is not there.
    pub(super) fn remove(&self, what: &dyn ExportFds) -> bool {
        let mut list = self.list();
        let at = list.all.iter().position(|offer| offer.is(what));
        let removed = at.map(|at| list.all.remove(at));
        drop(list);
        self.wake();
        removed.is_some()
    }

    /// Returns all that is offered now.
    pub(super) fn all(&self) -> Vec<Offer> {
        self.list().all.clone()
    }

    /// Tells the thread to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
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

    fn list(&self) -> MutexGuard<'_, OfferList> {
        // Each change is one insertion or removal: no panic leaves it half done.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
