//! How many files this process may have open: as many as the system allows.
//!
//! The soft limit of shells and services, 1024, is there for programs that use `select`; a host of
//! some hundred vCPUs takes more descriptors than that. A command that is measured gets the limit
//! that this process was started with. An error that comes from a limit says which.

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
    /// Raises the soft limit to the hard one, as far as the system lets us.
    pub(crate) fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        // One that cannot be raised is no worse than before.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        Self { before: limit.current }
    }

    /// Gives a command that was just started the limit that this process had.
    pub(crate) fn restore_for(self, command: &Child) {
        let limit = Rlimit { current: self.before, ..getrlimit(Resource::Nofile) };
        // It may have ended already, or be another user's by now.
        let _ = prlimit(Some(Pid::from_child(command)), Resource::Nofile, limit);
    }
}

/// Says which limit of open files was met and how to raise it, if that is what this error is.
pub(crate) fn exceeded(error: &(dyn StdError + 'static)) -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    let number = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), thousands);
    let by_std = || error.downcast_ref().and_then(Errno::from_io_error);
    match error.downcast_ref().copied().or_else(by_std)? {
        Errno::MFILE => Some(format!(
            "vmstrobe may have {} open files (hard limit {}): raise it (ulimit -Hn, LimitNOFILE=)",
            number(limit.current),
            number(limit.maximum)
        )),
        Errno::NFILE => {
            let most = fs::read_to_string("/proc/sys/fs/file-max").unwrap_or_default();
            let most = most.trim().parse().map_or("unknown".to_owned(), thousands);
            Some(format!(
                "the whole system may have {most} open files: raise it (sysctl fs.file-max)"
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
    fn a_command_has_the_limit_that_we_had() {
        let limit = getrlimit(Resource::Nofile);
        let before = limit.maximum.map_or(1000, |most| most.min(1000));
        let ours = OpenFiles { before: Some(before) };
        // Asked once it is told to go on, so that the limit is given back by then.
        let mut child = Command::new("sh")
            .args(["-c", "read go; ulimit -Sn"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        ours.restore_for(&child);
        drop(child.stdin.take());
        let said = child.wait_with_output().expect("it ends").stdout;
        assert_eq!(String::from_utf8_lossy(&said).trim(), before.to_string());
    }

    #[test]
    fn a_limit_that_was_met_is_named() {
        let said = |errno: Errno| {
            let by_std = exceeded(&std::io::Error::from(errno));
            assert_eq!(exceeded(&errno), by_std);
            by_std
        };
        let own = said(Errno::MFILE).expect("it is a limit");
        assert!(own.starts_with("vmstrobe may have ") && own.contains("(hard limit "), "{own}");
        let whole = said(Errno::NFILE).expect("it is a limit");
        assert!(whole.contains("fs.file-max") && !whole.contains("unknown"), "{whole}");
        assert_eq!(said(Errno::PERM), None);
        assert_eq!(exceeded(&std::io::Error::other("x")), None);
    }

    #[test]
    fn the_limit_is_the_hard_one() {
        OpenFiles::raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
