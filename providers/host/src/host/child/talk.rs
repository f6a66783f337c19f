//! The helper's end of the socket, and small files of /proc, without an allocation.

use std::ffi::CStr;
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat, readlinkat_raw};
use rustix::io::{Errno, read};
use rustix::net::{RecvFlags, SendFlags};

use crate::scm;

/// `O_CLOEXEC`, as fdinfo has it (x86-64 and arm64 alike).
const CLOSED_BY_EXECVE: u64 = 0o2_000_000;

/// The kernel's data on a descriptor, from `/proc/<pid>/fdinfo/<fd>`.
pub(super) struct FdInfo {
    /// The mount that its file lies on.
    pub(super) mount: u64,
    pub(super) inode: u64,
    /// The position in the file of the next read or write.
    pub(super) position: u64,
    pub(super) is_closed_by_execve: bool,
}

/// Reads an fdinfo: the kernel alone answers, and no lock of the process is waited for.
pub(super) fn fdinfo(proc: BorrowedFd<'_>, path: &CStr) -> Option<FdInfo> {
    let file = openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0; 512];
    let got = read(&file, &mut text[..]).ok()?;
    let text = std::str::from_utf8(text.get(..got)?).ok()?;
    let field = |name, radix| {
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
        u64::from_str_radix(values.next()?.trim(), radix).ok()
    };
    let flags = field("flags:", 8)?;
    Some(FdInfo {
        mount: field("mnt_id:", 10)?,
        inode: field("ino:", 10)?,
        position: field("pos:", 10)?,
        is_closed_by_execve: flags & CLOSED_BY_EXECVE != 0,
    })
}

/// A short path below /proc, put together without allocating.
pub(super) struct Path([u8; 64]);

impl Default for Path {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Path {
    /// `None` if it is too long.
    pub(super) fn of(&mut self, path: std::fmt::Arguments<'_>) -> Option<&CStr> {
        // The last byte stays the NUL.
        let mut room = self.0.split_last_mut()?.1;
        room.write_fmt(path).ok()?;
        CStr::from_bytes_until_nul(&self.0).ok()
    }
}

/// Reads the link in /proc of a descriptor of the helper's.
pub(super) fn own_link<'b>(
    proc: BorrowedFd<'_>,
    fd: &OwnedFd,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Errno> {
    let mut path = Path::default();
    let path = path.of(format_args!("self/fd/{}", fd.as_raw_fd()));
    let bytes = readlinkat_raw(proc, path.ok_or(Errno::NAMETOOLONG)?, &mut *buffer)?;
    Ok(buffer.get(..bytes).unwrap_or_default())
}

/// Waits for a request; returns its length, and the descriptor that came with it.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    packet: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), Errno> {
    let got = scm::receive(socket, packet, RecvFlags::empty())?;
    if got.bytes == 0 {
        return Err(Errno::PIPE);
    }
    Ok((got.bytes, got.fds.into_iter().flatten().next()))
}

/// Sends a packet of these parts; waits for room.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    parts: &[&[u8]],
    fd: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut slices = [IoSlice::new(&[]); 2];
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    scm::send(socket, &slices, fd.as_slice(), SendFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_whole_or_none() {
        let mut path = Path::default();
        assert_eq!(path.of(format_args!("{}/fd/{}", 1, 2)), Some(c"1/fd/2"));
        let long = "x".repeat(64);
        assert_eq!(Path::default().of(format_args!("{long}")), None);
    }
}
