//! A connection to a server, behind a helper of its own that looks at each descriptor first.
//!
//! Invariant: no descriptor that a server sent is in this process unless it is KVM's statistics
//! or memory. So nothing that it sends can keep this process from ending.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vmstrobe_core::Result;

use super::fork::Job;
use super::helper::Helper;

/// The helper of one connection; it ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    // `None` only while it is dropped.
    helper: Option<Helper>,
}

impl Relay {
    /// Starts the helper of that connection, which alone has it from now on.
    ///
    /// # Errors
    /// `Io` if the system has no process or descriptors for it.
    pub fn start(server: OwnedFd) -> Result<Self> {
        let helper = Helper::start(|socket| Job::Relay { server, socket })?;
        Ok(Self { helper: Some(helper) })
    }
}

impl AsFd for Relay {
    /// Returns the socket on which the packets of the server arrive.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.helper.as_ref().expect("only drop takes the helper").socket()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // One that does not end waits for a file's server: it is the system's to wait for.
        let _ = self.helper.take().map(Helper::end);
    }
}
