//! System calls that rustix does not have: which open files are one, the process behind a socket;
//! and memory given back.
//!
//! The C library's functions are declared here, by their manual pages, because nothing else here
//! needs the crate `libc`. std links the C library anyway.
//!
//! Invariant: each function is safe for every argument, and changes no descriptor.

#![allow(unsafe_code, reason = "no safe crate offers kcmp, malloc_trim and such a SO_PEERCRED")]

use std::cmp::Ordering;
use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use linux_raw_sys::general::__NR_kcmp;
use linux_raw_sys::net::{SO_PEERCRED, SOL_SOCKET};
use rustix::io::Errno;

// SAFETY: the declarations must be those of the C library: as in the manual pages.
unsafe extern "C" {
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
pub(crate) struct Place {
    pub(crate) pid: u32,
    pub(crate) fd: RawFd,
}

/// Compares the open files behind two descriptors, by an order of the kernel's: equal if they are
/// one.
///
/// # Errors
/// `NOSYS` if this kernel does not compare, `PERM` if we may not look into one of the processes,
/// `SRCH` or `BADF` if one is not there.
pub(crate) fn compare(a: Place, b: Place) -> Result<Ordering, Errno> {
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
    use std::os::fd::AsFd;

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
