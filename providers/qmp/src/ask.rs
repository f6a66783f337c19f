//! Asking a QEMU: the part of its statistics to ask for, one command and its outcome, the limits of
//! waiting, and the way to end a wait.
//!
//! Invariant: every wait has an end, and ends at once when the [`Wake`] says so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, write};
use vmstrobe_core::{Error, ErrorKind, Result};

use super::message::{Deserialize, Refusal};

/// The longest that one answer is waited for.
pub(super) const REPLY_LIMIT: Duration = Duration::from_secs(1);
/// The longest that a greeting is waited for. QEMU greets its only client within ms.
pub(super) const GREETING_LIMIT: Duration = Duration::from_secs(2);
/// The part of a QEMU's statistics to take over QMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QmpShare {
    /// Everything.
    All,
    /// Everything but what KVM counts of the vCPUs, which a quicker way gives
    /// (`AttachedKvm`). QEMU is not asked for it either.
    BesideKvm,
}

/// Someone who answers commands.
pub(super) trait Ask {
    /// One command and its answer.
    fn ask<'a, T: Deserialize<'a>>(
        &'a mut self,
        command: &str,
        arguments: Option<&str>,
    ) -> Asked<T>;

    /// Now, in ns of `CLOCK_MONOTONIC`.
    fn clock_ns(&self) -> u64;
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// We are to end.
    Stopped,
    /// None came in time. The connection is as good as before.
    Late,
    /// QEMU will not do that.
    Refused(Refusal),
    /// The connection is of no more use.
    Lost(Error),
}

/// The result of asking.
pub(super) type Asked<T> = std::result::Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}

/// Ends every wait of a thread, from another one, for good.
#[derive(Debug)]
pub(super) struct Wake(OwnedFd);

impl Wake {
    /// # Errors
    /// `Io` if the system has no fd for it.
    pub(super) fn new() -> Result<Arc<Self>> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| Error::caused(ErrorKind::Io, "cannot make an eventfd", errno))?;
        Ok(Arc::new(Self(fd)))
    }

    pub(super) fn signal(&self) {
        // Fails only when the counter is full, and then it is readable as it is.
        let _ = write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until that time, or until one of these fds is as asked (or closed), which gives true.
    pub(super) fn wait(
        &self,
        others: &[(BorrowedFd<'_>, PollFlags)],
        until: Instant,
    ) -> Asked<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left)
            .map_err(|error| Error::caused(ErrorKind::Io, "no wait is that long", error))?;
        let mut fds = vec![PollFd::new(&self.0, PollFlags::IN)];
        fds.extend(others.iter().map(|&(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("wait for", errno).into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        if ready.next() == Some(true) {
            return Err(Fault::Stopped);
        }
        Ok(ready.any(|is_ready| is_ready))
    }
}

impl AsFd for Wake {
    /// Returns the descriptor that is readable for good once it was signalled.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the error for a call that the system refused on the QMP socket.
pub(super) fn failed(what: &str, errno: Errno) -> Error {
    Error::caused(ErrorKind::Io, format!("cannot {what} the QMP socket"), errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(10);

    #[test]
    fn a_wait_ends_by_itself_and_for_good_when_it_is_woken() {
        let wake = Wake::new().unwrap();
        let before = Instant::now();
        assert!(matches!(wake.wait(&[], before + PAUSE), Ok(false)));
        assert!(before.elapsed() >= PAUSE);
        wake.signal();
        for _ in 0..2 {
            assert!(matches!(wake.wait(&[], before + GREETING_LIMIT), Err(Fault::Stopped)));
        }
        assert!(before.elapsed() < GREETING_LIMIT);
    }
}
