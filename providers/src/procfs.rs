//! What the system shows of other processes: which there are, what their fds lead to, what they are
//! called, who is behind a socket; and the errors of those who may not look.
//!
//! Invariant: looks only; nothing is opened in another process. What it shows may be the past a
//! moment later: whoever acts on it checks again.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::linux::fs::MetadataExt;

use rustix::net::sockopt::socket_peercred;
use vmstrobe_core::{Error, ErrorKind, Result};

/// The most fds of one process that are looked at. A VM of 1024 vCPUs has some 3000.
const FDS_MAX: usize = 1 << 16;

/// The inode of the pid namespace in which every process has a number (`PROC_PID_INIT_INO` in the
/// kernel's `proc_ns.h`).
const INIT_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The most of a command line that is searched for a name.
const CMDLINE_BYTES_MAX: u64 = 1 << 18;

/// The processes there are, ascending.
///
/// # Errors
/// `Io` if /proc cannot be read.
pub(crate) fn pids() -> Result<Vec<u32>> {
    let unreadable = |error| Error::caused(ErrorKind::Io, "cannot read /proc", error);
    let mut pids: Vec<u32> = Vec::new();
    for entry in fs::read_dir("/proc").map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

/// The fds of a process whose links `parse` knows, ascending.
pub(crate) fn links<T>(pid: u32, parse: impl Fn(&str) -> Option<T>) -> io::Result<Vec<(RawFd, T)>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.take(FDS_MAX) {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match fs::read_link(entry.path()) {
            Ok(link) => links.extend(link.to_str().and_then(&parse).map(|l| (fd, l))),
            Err(error) if is_denied(&error) => return Err(error),
            // Closed meanwhile.
            Err(_) => {}
        }
    }
    links.sort_unstable_by_key(|(fd, _)| *fd);
    Ok(links)
}

/// What an fd of a process leads to now; nothing if it is closed.
pub(crate) fn link(pid: u32, fd: RawFd) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// What an fd of ours leads to.
pub(crate) fn link_of(fd: impl AsFd) -> io::Result<String> {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))?;
    Ok(link.to_string_lossy().into_owned())
}

pub(crate) fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// A process's arguments, each with a NUL behind it; nothing if it has ended.
pub(crate) fn cmdline(pid: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{pid}/cmdline")) {
        // What could be read is good enough for a name.
        let _ = file.take(CMDLINE_BYTES_MAX).read_to_end(&mut bytes);
    }
    bytes
}

/// What a process calls itself, harmless to a terminal.
pub(crate) fn comm(pid: u32) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim_end().escape_debug().to_string()
}

/// Why the fds of a process cannot be seen.
pub(crate) fn unseen(pid: u32, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => no_process(pid),
        _ if is_denied(&error) => denied(pid),
        _ => Error::caused(ErrorKind::Io, format!("cannot see the fds of pid {pid}"), error),
    }
}

/// There is no process of that id.
pub(crate) fn no_process(pid: u32) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no process {pid}"))
}

/// We may not look into that process, or not take its fds.
pub(crate) fn denied(pid: u32) -> Error {
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let is_root = rustix::process::geteuid().is_root();
    Error::new(ErrorKind::Denied, denied_text(pid, is_root, yama.trim()))
}

fn denied_text(pid: u32, is_root: bool, yama_scope: &str) -> String {
    let advice = "run as root, or give vmstrobe CAP_SYS_PTRACE";
    match yama_scope {
        // Root in a container, or one that has laid its capabilities down.
        "" | "0" if is_root => {
            format!("pid {pid} has more rights than vmstrobe: give vmstrobe CAP_SYS_PTRACE")
        }
        "" | "0" => format!("pid {pid} belongs to another user: {advice}"),
        "3" => format!(
            "pid {pid} cannot be looked into: kernel.yama.ptrace_scope is 3, which forbids it to \
             everyone until the next boot"
        ),
        scope => format!(
            "pid {pid} belongs to another user, or kernel.yama.ptrace_scope={scope} forbids it: \
             {advice}"
        ),
    }
}

/// Whether every process has a number that we could see, which is the kernel's own: not so in a pid
/// namespace, nor where /proc does not say.
pub(crate) fn sees_every_process() -> bool {
    let namespace = fs::metadata("/proc/self/ns/pid");
    namespace.is_ok_and(|namespace| namespace.st_ino() == INIT_PID_NAMESPACE)
}

/// The process that made the other end's socket listen. `None` where not every process has a number
/// that we could see.
pub(crate) fn peer_pid(socket: impl AsFd) -> Option<u32> {
    // There the kernel may say 0, which rustix has no place for.
    if !sees_every_process() {
        return None;
    }
    let peer = socket_peercred(socket).ok()?;
    u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let plain = "pid 7 belongs to another user: run as root, or give vmstrobe CAP_SYS_PTRACE";
        for (scope, want) in [("", plain), ("0", plain)] {
            assert_eq!(denied_text(7, false, scope), want);
        }
        let root = "pid 7 has more rights than vmstrobe: give vmstrobe CAP_SYS_PTRACE";
        assert_eq!(denied_text(7, true, ""), root);
        for scope in ["1", "2"] {
            let text = denied_text(7, false, scope);
            assert!(text.contains(&format!("kernel.yama.ptrace_scope={scope}")), "{text}");
            assert!(text.contains("CAP_SYS_PTRACE"), "{text}");
        }
        assert!(denied_text(7, true, "3").contains("until the next boot"));
    }
}
