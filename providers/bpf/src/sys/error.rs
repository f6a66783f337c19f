//! Why the kernel refuses a program, in the verifier's words, or another command.
//!
//! Invariant: what is kept of the verifier's words is their end, where the reason is.

use std::fmt;
use std::io;

use rustix::io::Errno;
use vmstrobe_core::{Error, ErrorKind};
use vmstrobe_host::refusal;

/// The number of lines that are kept of what the verifier said.
pub(super) const LOG_LINES_KEPT: usize = 6;

/// Why nothing works that takes a privilege.
fn denied() -> String {
    format!("the kernel does not let vmstrobe use BPF: {}", refusal::of_bpf())
}

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
        write!(f, "the kernel rejects the BPF program: {}", self.errno)?;
        match self.log.as_str() {
            "" => Ok(()),
            log => write!(f, "; the verifier: {}", log.replace('\n', "; ")),
        }
    }
}

impl std::error::Error for LoadError {}

/// Converts the error of a `bpf(2)` command, other than that to load a program.
pub(crate) fn refused(error: io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(Errno::PERM) => Error::new(ErrorKind::Denied, denied()),
        Some(Errno::NOSYS) => {
            let text = "there is no bpf(2): the kernel was built without it, or a seccomp filter \
                        forbids it (let the filter allow bpf)";
            Error::new(ErrorKind::Unsupported, text)
        }
        _ => Error::caused(ErrorKind::Io, "cannot use the kernel's BPF", error),
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        // The verifier's words where CAP_PERFMON is missing: every kernel has that helper.
        let is_forbidden = error.log.contains("helper bpf_get_current_task#")
            || error.log.contains("func bpf_get_current_task#");
        if error.errno == Errno::PERM || is_forbidden {
            return Self::new(ErrorKind::Denied, denied());
        }
        Self::caused(ErrorKind::Unsupported, "this kernel cannot run our BPF program", error)
    }
}

/// The last lines of a log, which ends at the first NUL, that say something.
pub(super) fn end_of(log: &[u8]) -> String {
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES_KEPT)..].join("\n")
}
