//! A child process that ends with its handle.

use std::ops::{Deref, DerefMut};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// The pause between two looks of a wait.
pub const POLL: Duration = Duration::from_millis(2);

/// The longest time that a process may take to end after SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A [`Child`] that is killed and reaped when this is dropped, if it still runs. One that not even
/// SIGKILL ends is left behind: it must not keep the test.
#[derive(Debug)]
pub struct Reaped(pub Child);

impl Reaped {
    /// Waits for the end, at most this long; `None` if the process still runs then.
    pub fn wait_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.0.try_wait().expect("waiting for a child of our own works");
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Deref for Reaped {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Reaped {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only when it has ended and was reaped already. A drop must not panic.
        let _ = self.0.kill();
        let deadline = Instant::now() + END_LIMIT;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }
}
