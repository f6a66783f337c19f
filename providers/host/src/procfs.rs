//! Facts about processes, from /proc and from sockets: which there are, their users and names, the
//! targets of fds, the peer of a socket.
//!
//! Invariant: looks only; nothing is opened in another process. A fact may be out of date a moment
//! later: a caller that acts on it checks again.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::fs::MetadataExt;

use vmstrobe_core::{Error, ErrorKind, Result};

use crate::refusal::proc::mounted;
use crate::status::Status;
use crate::sys::peer_process;

/// The inode of the pid namespace in which every process has a number (`PROC_PID_INIT_INO` in the
/// kernel's `proc_ns.h`).
const INIT_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Returns the numbers of all processes, ascending.
///
/// # Errors
/// `Unsupported` if /proc is not mounted, `Io` if it cannot be read.
pub fn pids() -> Result<Vec<u32>> {
    mounted()?;
    let unreadable = |error| Error::caused(ErrorKind::Io, "cannot read /proc", error);
    let mut pids: Vec<u32> = Vec::new();
    for entry in fs::read_dir("/proc").map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

/// Reads the /proc link of an fd of ours, on this thread, which may have descriptors of its own.
pub fn link_of(fd: impl AsFd) -> io::Result<String> {
    let link = fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd()))?;
    Ok(link.to_string_lossy().into_owned())
}

/// Returns when the process of this `/proc/<pid>/stat` started, in clock ticks since boot: field
/// 22. (The file is read by the helper alone: the kernel lets us wait for a process that is in
/// `execve`.)
pub(crate) fn start_time_in(stat: &str) -> Option<u64> {
    // Field 2 is the command in parentheses, and may itself hold parentheses and spaces.
    let (_, from_field_3) = stat.rsplit_once(')')?;
    from_field_3.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// Returns the user of a process: its real user id. `None` if it has ended.
pub fn uid(pid: u32) -> Option<u32> {
    Some(Status::of(pid)?.users.real)
}

/// Whether a thread of that number belongs to that process.
pub fn has_thread(pid: u32, thread: u32) -> bool {
    fs::exists(format!("/proc/{pid}/task/{thread}")).unwrap_or(false)
}

/// Whether there is a thread of that number, of whichever process.
pub fn is_thread(thread: u32) -> bool {
    fs::exists(format!("/proc/{thread}")).unwrap_or(false)
}

/// Returns the name that a process has given itself (its `comm`), as it was written: see
/// [`vmstrobe_core::text`]. Empty if it has ended.
pub fn comm(pid: u32) -> String {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned()
}

/// Makes the error for a number that no process has.
pub fn no_process(pid: u32) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no process {pid}: it may have ended"))
}

/// Whether every process has a number that we could see, which is the kernel's own: not so in a pid
/// namespace, nor where /proc does not say.
pub fn sees_every_process() -> bool {
    let namespace = fs::metadata("/proc/self/ns/pid");
    namespace.is_ok_and(|namespace| namespace.st_ino() == INIT_PID_NAMESPACE)
}

/// Returns the process that made the other end's socket listen. `None` if it has no number that we
/// could see: it is outside of our pid namespace.
pub fn peer_pid(socket: impl AsFd) -> Option<u32> {
    let pid = peer_process(socket.as_fd()).ok()?;
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_field_22_whatever_the_command_is_called() {
        let after = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 8242 20 21";
        for comm in ["bash", "a b", "a) S 1 (b", "", ")))", "(x"] {
            let stat = format!("4711 ({comm}) {after}\n");
            assert_eq!(start_time_in(&stat), Some(8242), "{stat}");
        }
        for garbage in ["", ")", "1 (a) S 1 2", "1 (a", ") a b c d e f g h i j k l m n o p q r s t"]
        {
            assert_eq!(start_time_in(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_process_is_its_real_users() {
        let own = rustix::process::getuid().as_raw();
        assert_eq!(uid(std::process::id()), Some(own));
        assert_eq!(uid(u32::MAX), None);
    }
}
