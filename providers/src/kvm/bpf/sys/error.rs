//! Why the kernel refuses a program, in the verifier's words, or another command.
//!
//! Invariant: what is kept of the verifier's words is their end, where the reason is.

use std::fmt;
use std::io;

use rustix::io::Errno;
use vmstrobe_core::{Error, ErrorKind};

/// How much is kept of what the verifier said.
pub(super) const LOG_LINES_KEPT: usize = 6;

/// Why nothing works that takes a privilege.
const DENIED: &str = "this host lets us use no BPF, which takes CAP_BPF and CAP_PERFMON";

/// Why a program was not loaded.
#[derive(Debug)]
pub(crate) struct LoadError {
    /// `EPERM` if we may not, or the host's policy is against it. `EINVAL`, `EACCES` or `E2BIG` is
    /// the verifier's.
    pub(crate) errno: Errno,
    /// The end of what the verifier said; empty if it was not asked.
    pub(crate) log: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel does not take the BPF program: {}", self.errno)?;
        match self.log.as_str() {
            "" => Ok(()),
            log => write!(f, "; the verifier: {}", log.replace('\n', "; ")),
        }
    }
}

impl std::error::Error for LoadError {}

/// What it means if a command other than that to load is refused.
pub(crate) fn refused(error: io::Error) -> Error {
    let (kind, context) = match Errno::from_io_error(&error) {
        Some(Errno::PERM) => (ErrorKind::Denied, DENIED),
        _ => (ErrorKind::Io, "cannot use the kernel's BPF"),
    };
    Error::caused(kind, context, error)
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        let (kind, context) = match error.errno {
            Errno::PERM => (ErrorKind::Denied, DENIED),
            _ => (ErrorKind::Unsupported, "this kernel cannot run our BPF program"),
        };
        Self::caused(kind, context, error)
    }
}

/// The last lines of a log, which ends at the first NUL, that say something.
pub(super) fn end_of(log: &[u8]) -> String {
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES_KEPT)..].join("\n")
}
