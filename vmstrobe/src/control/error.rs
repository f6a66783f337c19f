//! Errors of reaching recorders.
//!
//! Invariant: the text names its subject, and includes the texts of its causes. What a recorder
//! answered is printable.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The reason why a recorder cannot be reached, or what it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// There is no directory for the sockets of this user.
    #[error("XDG_RUNTIME_DIR does not name a directory for sockets of this user")]
    NoDirectory,
    /// The directory of the sockets is not safe.
    #[error("the directory {} {why}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Why it is not.
        why: UnsafeDirectory,
    },
    /// The directory of the sockets cannot be made or read.
    #[error("the directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A recorder cannot be connected to, or has closed the connection.
    #[error("the recorder at {} cannot be reached: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A recorder did not answer in time.
    #[error("the recorder at {} does not answer: its process may be stopped", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// The process at a socket does not answer as a recorder does.
    #[error("the process that listens at {} is not a recorder", path.display())]
    NotARecorder {
        /// The socket.
        path: PathBuf,
    },
    /// A recorder refused what it was asked.
    #[error("{text}")]
    Refused {
        /// Its reason, which is printable.
        text: String,
    },
}

/// Why a directory is not safe for the sockets of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsafeDirectory {
    /// It is another kind of file, or a link.
    NotADirectory,
    /// It belongs to another user.
    OfUser(u32),
    /// Other users may write in it, by its mode.
    Mode(u32),
}

impl fmt::Display for UnsafeDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADirectory => f.write_str("is not a directory: remove it"),
            Self::OfUser(uid) => write!(f, "belongs to user {uid}: remove it"),
            Self::Mode(mode) => write!(
                f,
                "may be written by other users (mode {mode:03o}): remove it, or give it mode 700"
            ),
        }
    }
}
