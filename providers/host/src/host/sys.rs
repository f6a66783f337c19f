//! All the unsafe code of this crate: starting the helper process, closing what it inherited,
//! comparing files of other processes; the process behind a socket; and memory given back.
//!
//! The C library's functions are declared here, by their manual pages, because rustix has none of
//! these calls, and nothing else here needs the crate `libc`. std links the C library anyway.
//!
//! Invariant: between `fork` and `_exit` the child does its [`Job`] and nothing else: system calls
//! over memory that was allocated before. No file descriptor of the parent changes.

#![allow(unsafe_code, reason = "no safe crate offers fork, close_range and such a SO_PEERCRED")]

use std::cmp::Ordering;
use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use linux_raw_sys::general::{__NR_close_range, __NR_kcmp, __NR_rt_sigprocmask, SIG_SETMASK};
use linux_raw_sys::net::{SO_PEERCRED, SOL_SOCKET};
use rustix::io::Errno;
use rustix::process::Pid;

use super::child::{self, Scratch};

// SAFETY: the declarations must be those of the C library: as in the manual pages.
unsafe extern "C" {
    fn fork() -> c_int;
    fn _exit(status: c_int) -> !;
    fn syscall(number: c_long, ...) -> c_long;
    fn getsockopt(
        socket: c_int,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        bytes: *mut u32,
    ) -> c_int;
    #[cfg(target_env = "gnu")]
    fn malloc_trim(pad: usize) -> c_int;
}

/// A set of signals as the kernel has it: a bit for each.
type SignalSet = u64;

/// The credentials of a socket's peer: the kernel's `struct ucred`.
#[repr(C)]
#[derive(Default)]
struct Credentials {
    pid: i32,
    uid: u32,
    gid: u32,
}

/// The kernel's `KCMP_FILE`.
const KCMP_FILE: c_long = 0;

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
    // - Both jobs make system calls by rustix and the functions below, which hold no lock, and
    //   allocate and free nothing: `scratch` was allocated by the parent.
    // - `_exit` runs no destructor and no handler of this program, and all signals are blocked, so
    //   no handler of this program runs in the child either.
    // - The child closes its copies of all descriptors but its own; the parent's stay as they are.
    match unsafe { fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // Borrowed, so that nothing is freed, either.
            match &mut job {
                Job::Serve { socket, scratch } => child::serve(socket.as_fd(), scratch),
                Job::Relay { server, socket } => child::relay(server.as_fd(), socket.as_fd()),
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
pub(super) fn close_all_but<const N: usize>(kept: [BorrowedFd<'_>; N]) {
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

/// Compares the open files behind two descriptors, by an order of the kernel's: equal if they are
/// one.
///
/// # Errors
/// `NOSYS` if this kernel does not compare, `PERM` if we may not look into one of the processes,
/// `SRCH` or `BADF` if one is not there.
pub(super) fn compare(a: Place, b: Place) -> Result<Ordering, Errno> {
    let [pid_a, pid_b] = [a, b].map(|place| c_long::from(place.pid));
    let [fd_a, fd_b] = [a, b].map(|place| c_long::from(place.fd));
    // SAFETY: the call takes five numbers and no pointer. (The kernel reads those of descriptors as
    // `long`.)
    let order = unsafe { syscall(__NR_kcmp.into(), pid_a, pid_b, KCMP_FILE, fd_a, fd_b) };
    match order {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 | 3 => Ok(Ordering::Greater),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// Returns the process that made the other end's socket listen, by its number in our pid namespace;
/// 0 if it has none there. (rustix has no place for that 0.)
///
/// # Errors
/// If the kernel does not tell.
pub(crate) fn peer_process(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let mut peer = Credentials::default();
    let mut bytes = size_of_val(&peer) as u32;
    let (level, name) = (SOL_SOCKET as c_int, SO_PEERCRED as c_int);
    let at = (&raw mut peer).cast();
    // SAFETY: the kernel must be given that many bytes to write to, and their number.
    // - `peer` has as many, is plain numbers, and like `bytes` is there until the call returns.
    match unsafe { getsockopt(socket.as_raw_fd(), level, name, at, &raw mut bytes) } {
        0 => Ok(peer.pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives memory that this process has freed back to the system, as far as its C library keeps any:
/// glibc keeps what many threads have used for a while, for good. Takes some ms for each 100 MiB
/// that was kept, for which other threads can allocate no memory; one that does not is not delayed.
///
/// ```
/// vmstrobe_host::trim_memory();
/// ```
pub fn trim_memory() {
    // SAFETY: any thread may call it at any time (`malloc_trim(3)` is MT-safe), and it touches only
    // memory that is free. What it returns says whether there was some.
    #[cfg(target_env = "gnu")]
    unsafe {
        malloc_trim(0)
    };
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
    #[test]
    fn the_process_behind_a_socket_is_told() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = std::process::id().cast_signed();
        assert_eq!(peer_process(ours.as_fd()).unwrap(), own);
        let file = File::open("/dev/null").unwrap();
        assert_eq!(
            peer_process(file.as_fd()).unwrap_err().raw_os_error(),
            Some(Errno::NOTSOCK.raw_os_error())
        );
    }
}
