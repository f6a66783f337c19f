//! Closes stats fds where nobody waits for it.
//!
//! The last close of a dead VM's stats fds destroys what is left of the VM, on the closing thread:
//! 4 to 27 ms (measured with 1 to 64 vCPUs). That must not be the sampler.
//!
//! Invariant: every fd handed over is closed exactly once. The thread ends after the last handle is
//! gone and everything is closed. It has no capabilities, whoever started it.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use vmstrobe_core::{Result, ThreadStart};

/// A handle to a thread that closes fds. Clones share the thread.
///
/// ```
/// let reaper = vmstrobe_host::Reaper::new()?;
/// reaper.close(std::fs::File::open("/dev/null")?.into());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reaper {
    fds: Sender<OwnedFd>,
}

impl Reaper {
    /// Starts the thread, `vmstrobe-reaper`.
    ///
    /// # Errors
    /// `Io` if the system has no thread for it.
    pub fn new() -> Result<Self> {
        Self::with_threads(&ThreadStart::default())
    }

    /// As [`Reaper::new`], with the thread started so.
    ///
    /// # Errors
    /// As [`ThreadStart::spawn`].
    pub fn with_threads(threads: &ThreadStart) -> Result<Self> {
        let (fds, handed_over) = mpsc::channel();
        let (has_rights, rights_are_gone) = mpsc::channel::<()>();
        threads.spawn("vmstrobe-reaper", move || {
            drop_capabilities();
            drop(has_rights);
            handed_over.into_iter().for_each(drop::<OwnedFd>);
        })?;
        // Nothing is ever sent. A thread that waits for a CPU has the rights of the one that
        // started it, so that one goes on only when they are gone.
        let _ = rights_are_gone.recv();
        Ok(Self { fds })
    }

    /// Closes the fd soon, on the reaper's thread; returns at once.
    pub fn close(&self, fd: OwnedFd) {
        // If the thread is gone, the fd comes back in the error, and closes here.
        drop(self.fds.send(fd));
    }

    /// Makes a reaper that closes nothing: a test sees what is handed to it, and closes it.
    #[doc(hidden)]
    pub fn held() -> (Self, mpsc::Receiver<OwnedFd>) {
        let (fds, handed_over) = mpsc::channel();
        (Self { fds }, handed_over)
    }
}

/// It only closes descriptors, which takes none. One that cannot give them up is no worse than
/// whoever started it.
fn drop_capabilities() {
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let _ = set_capabilities(None, none);
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::*;

    #[test]
    fn what_was_handed_over_is_closed_although_the_handle_is_gone() {
        let (mut reader, writer) = io::pipe().unwrap();
        let reaper = Reaper::new().unwrap();
        reaper.clone().close(writer.into());
        drop(reaper);
        let mut bytes = Vec::new();
        // Ends only when the writer is closed.
        assert_eq!(reader.read_to_end(&mut bytes).unwrap(), 0);
    }

    #[test]
    fn closing_without_a_thread_closes_here() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (reaper, _) = Reaper::held();
        reaper.close(writer.into());
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn the_sender_does_not_wait() {
        // Nobody closes them: a sender that waited would wait for ever.
        let (reaper, held) = Reaper::held();
        for _ in 0..100 {
            reaper.close(std::fs::File::open("/dev/null").unwrap().into());
        }
        assert_eq!(held.try_iter().count(), 100);
    }
}
