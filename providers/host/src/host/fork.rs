//! The start of the helper process: a fork that does its job and ends.
//!
//! The C library's functions are declared here, by their manual pages, because rustix has none of
//! these calls, and nothing else here needs the crate `libc`. std links the C library anyway.
//!
//! Invariant: between `fork` and `_exit` the child does its [`Job`] and nothing else: system calls
//! over memory that was allocated before. No file descriptor of the parent changes.

#![allow(unsafe_code, reason = "no safe crate offers fork and close_range")]

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use linux_raw_sys::general::{__NR_close_range, __NR_rt_sigprocmask, SIG_SETMASK};
use rustix::io::Errno;
use rustix::process::Pid;

use super::child::{self, Scratch};

// SAFETY: the declarations must be those of the C library: as in the manual pages.
unsafe extern "C" {
    fn fork() -> c_int;
    fn _exit(status: c_int) -> !;
    fn syscall(number: c_long, ...) -> c_long;
}

/// A set of signals as the kernel has it: a bit for each.
type SignalSet = u64;

/// The work of a helper, until the other end of its socket is closed.
pub(super) enum Job {
    /// Looks at other processes and borrows from them.
    Serve { socket: OwnedFd, scratch: Scratch },
    /// Passes on what a server hands over.
    Relay { server: OwnedFd, socket: OwnedFd },
}

/// Starts a helper: a copy of this process that does that job and nothing else.
///
/// # Errors
/// If the system has no process or memory for it.
pub(super) fn start(mut job: Job) -> io::Result<Pid> {
    let signals = Signals::block()?;
    // SAFETY: the child of a process with several threads may only do what is async-signal-safe,
    // until it ends: locks that other threads held stay locked in it for ever.
    // - Both jobs make system calls by rustix and this crate, which hold no lock, and
    //   allocate and free nothing: `scratch` was allocated by the parent.
    // - `_exit` runs no destructor and no handler of this program, and all signals are blocked, so
    //   no handler of this program runs in the child either.
    // - The child closes its copies of all descriptors but its own; the parent's stay as they are.
    match unsafe { fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // Borrowed, so that nothing is freed, either.
            match &mut job {
                Job::Serve { socket, scratch } => {
                    close_all_but([socket.as_fd()]);
                    child::serve(socket.as_fd(), scratch);
                }
                Job::Relay { server, socket } => {
                    close_all_but([server.as_fd(), socket.as_fd()]);
                    child::relay(server.as_fd(), socket.as_fd());
                }
            }
            // SAFETY: ends the process; nothing is asked of the caller.
            unsafe { _exit(0) }
        }
        pid => {
            drop(signals);
            Pid::from_raw(pid).ok_or_else(|| Errno::SRCH.into())
        }
    }
}

/// All signals, blocked on this thread until this is dropped.
struct Signals {
    before: SignalSet,
}

impl Signals {
    fn block() -> io::Result<Self> {
        set_blocked(SignalSet::MAX).map(|before| Self { before })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // It cannot fail: the earlier set is one that the kernel has given.
        let _ = set_blocked(self.before);
    }
}

/// Blocks these signals on this thread and no others, and returns those that were blocked before.
fn set_blocked(signals: SignalSet) -> io::Result<SignalSet> {
    let mut before: SignalSet = 0;
    let number = c_long::from(__NR_rt_sigprocmask);
    // SAFETY: both pointers must be valid for a set of so many bytes, the first to be read, the
    // second to be written.
    // - Both are of this function's own variables, which are there until the call returns, and the
    //   size is theirs.
    let answer = unsafe {
        let sets = (&raw const signals, &raw mut before);
        syscall(number, SIG_SETMASK, sets.0, sets.1, size_of::<SignalSet>())
    };
    if answer == 0 { Ok(before) } else { Err(io::Error::last_os_error()) }
}

/// Closes all descriptors of this process but these. For the child alone.
fn close_all_but<const N: usize>(kept: [BorrowedFd<'_>; N]) {
    let mut kept = kept.map(|fd| fd.as_raw_fd().cast_unsigned());
    kept.sort_unstable();
    let mut first = 0;
    for end in kept.into_iter().chain([u32::MAX]) {
        if first < end {
            // SAFETY: no owner of a descriptor may go on to use it.
            // - The child is a copy whose owners never run again: it ends by `_exit`.
            // - The call takes numbers and no pointer.
            unsafe { syscall(__NR_close_range.into(), first, end - 1, 0) };
        }
        first = end.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_as_they_were_once_the_helper_is_started() {
        let blocked = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_owned()
        };
        let before = blocked();
        let signals = Signals::block().unwrap();
        assert_ne!(blocked(), before);
        drop(signals);
        assert_eq!(blocked(), before);
    }
}
