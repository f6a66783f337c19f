//! A thread with descriptors of its own, which nobody sees who looks at those of this process.

use std::io;
use std::panic::resume_unwind;
use std::thread::{self, Builder};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use vmstrobe_core::{Error, ErrorKind, Result};

/// Runs `work` on a thread that has a copy of this process's descriptors. The descriptors that it
/// opens are in no other thread and not in `/proc/<pid>/fd`, and are closed when the thread ends.
///
/// The result of `work` must hold no descriptor, and `work` must not close one that it borrows.
///
/// # Errors
/// `Unsupported` if the system has no such thread.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let failed = |error: io::Error| {
        let text = "cannot start a thread with descriptors of its own";
        Error::caused(ErrorKind::Unsupported, text, error)
    };
    let confined = || {
        // SAFETY: no thread may observe descriptors of another's table.
        // - What was open before is open in the copy, under the same numbers.
        // - What is opened from here on is opened, used and closed by this thread and by those that
        //   it starts, which share its table: the two callers (`Kernel::prove` and
        //   `Bpf::try_threads`) give back schemas, steps and errors, and close nothing that
        //   they borrow.
        unsafe { unshare_unsafe(UnshareFlags::FILES) }?;
        Ok(work())
    };
    thread::scope(|scope| {
        let thread = Builder::new().name("vmstrobe-proof".to_owned()).spawn_scoped(scope, confined);
        let thread = thread.map_err(failed)?;
        let done: io::Result<T> = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        done.map_err(failed)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_is_opened_apart_is_not_seen_here() {
        let shared = File::open("/dev/null").unwrap();
        let own = apart(|| {
            // Far above what other tests open.
            let own = rustix::io::fcntl_dupfd_cloexec(&shared, 900).unwrap();
            let is_seen = std::fs::exists(format!("/proc/self/fd/{}", own.as_raw_fd())).unwrap();
            (own.as_raw_fd(), is_seen)
        });
        let (own, is_seen) = own.unwrap();
        assert!(own >= 900 && !is_seen);
        assert!(shared.metadata().is_ok(), "what was open before stays");
    }
}
