//! The unsafe code of the helper process: starting it, closing what it inherited, and comparing
//! files of other processes.
//!
//! Invariant: between `fork` and `_exit` the child does its [`Job`] and nothing else: system calls
//! over memory that was allocated before. No file descriptor of the parent
//! changes.

#![allow(unsafe_code, reason = "no safe crate offers fork, close_range or kcmp")]

use std::cmp::Ordering;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

use super::child::{self, Scratch};

/// The kernel's `KCMP_FILE`.
const KCMP_FILE: i32 = 0;

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pid: u32,
    pub(super) fd: RawFd,
}

/// The work of a helper, until the other end of its socket is closed.
pub(super) enum Job {
    /// Looks at other processes and borrows from them.
    Serve { socket: OwnedFd, scratch: Scratch },
    /// Passes on what a lender hands over.
    Relay { lender: OwnedFd, socket: OwnedFd },
}

/// Starts a helper: a copy of this process that does that job and nothing else.
///
/// # Errors
/// If the system has no process or memory for it.
pub(super) fn start(mut job: Job) -> io::Result<Pid> {
    let signals = Signals::block()?;
    // SAFETY: the child of a process with several threads may only do what is async-signal-safe,
    // until it ends: locks that other threads held stay locked in it for ever.
    // - Both jobs make system calls by rustix and the functions below, which hold no lock, and
    //   allocate and free nothing: `scratch` was allocated by the parent.
    // - `_exit` runs no destructor and no handler of this program, and all signals are blocked, so
    //   no handler of this program runs in the child either.
    // - The child closes its copies of all descriptors but its own; the parent's stay as they are.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // Borrowed, so that nothing is freed, either.
            match &mut job {
                Job::Serve { socket, scratch } => child::serve(socket.as_fd(), scratch),
                Job::Relay { lender, socket } => child::relay(lender.as_fd(), socket.as_fd()),
            }
            // SAFETY: ends the process; nothing is asked of the caller.
            unsafe { libc::_exit(0) }
        }
        pid => {
            drop(signals);
            Pid::from_raw(pid).ok_or_else(|| Errno::SRCH.into())
        }
    }
}

/// All signals, blocked on this thread until this is dropped.
struct Signals {
    before: libc::sigset_t,
}

impl Signals {
    fn block() -> io::Result<Self> {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both must point to sets that can be written.
        // - They are of that type, and `sigfillset` fills the first before it is read.
        // - If it succeeds, `pthread_sigmask` has filled the second.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
                0 => Ok(Self { before: before.assume_init() }),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: the set must be one that can be read: `block` has filled it. Where the earlier
        // set goes, nobody asks.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Closes all descriptors of this process but these. For the child alone.
pub(super) fn close_all_but<const N: usize>(kept: [BorrowedFd<'_>; N]) {
    let mut kept = kept.map(|fd| fd.as_raw_fd().cast_unsigned());
    kept.sort_unstable();
    let mut first = 0;
    for end in kept.into_iter().chain([u32::MAX]) {
        if first < end {
            // SAFETY: no owner of a descriptor may go on to use it.
            // - The child is a copy whose owners never run again: it ends by `_exit`.
            // - The call takes numbers and no pointer.
            unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) };
        }
        first = end.saturating_add(1);
    }
}

/// Compares the open files behind two descriptors, by an order of the kernel's: equal if they are
/// one.
///
/// # Errors
/// `NOSYS` if this kernel does not compare, `PERM` if we may not look into one of the processes,
/// `SRCH` or `BADF` if one is not there.
pub(super) fn compare(a: Place, b: Place) -> Result<Ordering, Errno> {
    // SAFETY: the call takes five numbers and no pointer.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, a.pid, b.pid, KCMP_FILE, a.fd, b.fd) };
    match order {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 | 3 => Ok(Ordering::Greater),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_is_compared_by_itself_and_not_by_its_path() {
        let file = File::open("/dev/null").unwrap();
        let (again, other) = (file.try_clone().unwrap(), File::open("/dev/null").unwrap());
        let pid = std::process::id();
        let place = |file: &File| Place { pid, fd: file.as_raw_fd() };
        match compare(place(&file), place(&again)) {
            // Not built into every kernel.
            Err(errno) => assert_eq!(errno, Errno::NOSYS),
            Ok(order) => {
                assert_eq!(order, Ordering::Equal);
                assert_ne!(compare(place(&file), place(&other)), Ok(Ordering::Equal));
                let closed = Place { pid, fd: 1 << 20 };
                assert_eq!(compare(place(&file), closed), Err(Errno::BADF));
            }
        }
    }

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
