//! The limit of open files: raised for this process, and explained in errors.
//!
//! The usual soft limit of 1024 exists for programs that use `select`; a host with some hundred
//! vCPUs needs more descriptors. Invariant: a measured command gets the soft limit that this
//! process was started with, and an error that a limit caused names that limit.

use std::error::Error as StdError;
use std::fs;
use std::process::Child;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::text::thousands;

/// The soft limit of open files that this process was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    before: Option<u64>,
}

impl OpenFiles {
    /// Raises the soft limit to the hard limit, if the system permits it.
    pub(crate) fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        // If the limit cannot be raised, the old one remains.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        Self { before: limit.current }
    }

    /// Restores the limit that this process was started with for a command that was just started.
    pub(crate) fn restore_for(self, command: &Child) {
        let limit = Rlimit { current: self.before, ..getrlimit(Resource::Nofile) };
        // This fails if the command has ended or changed its user, which is no error here.
        let _ = prlimit(Some(Pid::from_child(command)), Resource::Nofile, limit);
    }
}

/// Returns a text on the limit of open files that caused this error, and how to raise it; `None`
/// for any other error.
pub(crate) fn exceeded(error: &(dyn StdError + 'static)) -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    let number = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), thousands);
    let by_std = || error.downcast_ref().and_then(Errno::from_io_error);
    match error.downcast_ref().copied().or_else(by_std)? {
        Errno::MFILE => Some(format!(
            "vmstrobe may have {} open files (hard limit {}): raise the limit (ulimit -Hn, \
             LimitNOFILE=)",
            number(limit.current),
            number(limit.maximum)
        )),
        Errno::NFILE => {
            let most = fs::read_to_string("/proc/sys/fs/file-max").unwrap_or_default();
            let most = most.trim().parse().map_or("unknown".to_owned(), thousands);
            Some(format!(
                "the whole system may have {most} open files: raise the limit (sysctl fs.file-max)"
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_command_gets_the_limit_from_before() {
        let limit = getrlimit(Resource::Nofile);
        let before = limit.maximum.map_or(1000, |most| most.min(1000));
        let ours = OpenFiles { before: Some(before) };
        // The shell reads its limit after a line of input, so that the limit is restored by then.
        let mut child = Command::new("sh")
            .args(["-c", "read go; ulimit -Sn"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh is installed");
        ours.restore_for(&child);
        drop(child.stdin.take());
        let said = child.wait_with_output().expect("the shell ends").stdout;
        assert_eq!(String::from_utf8_lossy(&said).trim(), before.to_string());
    }

    #[test]
    fn an_exceeded_limit_is_named() {
        let said = |errno: Errno| {
            let by_std = exceeded(&std::io::Error::from(errno));
            assert_eq!(exceeded(&errno), by_std);
            by_std
        };
        let own = said(Errno::MFILE).expect("the error is caused by a limit");
        assert!(own.starts_with("vmstrobe may have ") && own.contains("(hard limit "), "{own}");
        let whole = said(Errno::NFILE).expect("the error is caused by a limit");
        assert!(whole.contains("fs.file-max") && !whole.contains("unknown"), "{whole}");
        assert_eq!(said(Errno::PERM), None);
        assert_eq!(exceeded(&std::io::Error::other("x")), None);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_limit() {
        OpenFiles::raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
