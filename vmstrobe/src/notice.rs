//! Notices: what a user should know although nothing failed.
//!
//! Invariant: a notice is a value. The library prints nothing; whoever holds an
//! [`Attachment`](crate::Attachment) or a [`Session`](crate::Session) takes its notices from it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::survey::LeftOut;

use crate::error::Error;
use crate::unknown_name::UnknownName;

/// The most notices that are kept for someone who never takes them.
const MAX_NOTICES: usize = 10_000;

/// Something that a user should know although nothing failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice {
    /// These processes were not looked at.
    LeftOut(Vec<LeftOut>),
    /// A process that came later is read from now on.
    Came {
        /// The title of the member: `VM web (pid 4711)`.
        title: String,
    },
    /// A process of all cannot be read, for this reason.
    NotRead(Error),
    /// Of this process, the virtual machine is read and not the tables.
    OnlyVm {
        /// The process.
        pid: u32,
        /// Why the tables are not read.
        error: vmstrobe_core::Error,
    },
    /// Of this process, the tables are read and not the virtual machine.
    OnlyTables {
        /// The process.
        pid: u32,
        /// Why the virtual machine is not read.
        error: vmstrobe_core::Error,
    },
    /// A provider warns of something, or cannot list or open its objects at present.
    Provider(vmstrobe_core::Error),
    /// A recording was replayed up to its torn end, or has bytes behind its end.
    #[cfg(feature = "export")]
    CutRecording {
        /// Its path.
        path: std::path::PathBuf,
        /// The bytes that were read.
        whole_bytes: u64,
        /// The bytes behind them, which were not.
        cut_bytes: u64,
    },
    /// A recording was replayed up to a damaged place.
    #[cfg(feature = "export")]
    DamagedRecording(Error),
    /// A name that was asked for among others is the name of no statistic.
    UnknownName(UnknownName),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOut(processes) => {
                let one = |one: &LeftOut| format!("pid {} ({}): {}", one.pid, one.comm, one.why);
                let processes: Vec<String> = processes.iter().map(one).collect();
                write!(f, "left out: {}", processes.join("; "))
            }
            Self::Came { title } => write!(f, "{title} has come and is read, too"),
            Self::NotRead(error) => write!(f, "left out: {error}"),
            Self::OnlyVm { pid, error } => {
                write!(f, "pid {pid}: only the VM is read, not the tables: {error:#}")
            }
            Self::OnlyTables { pid, error } => {
                write!(f, "pid {pid}: only the tables are read, not the VM: {error:#}")
            }
            Self::Provider(error) => write!(f, "{error:#}"),
            #[cfg(feature = "export")]
            Self::CutRecording { path, whole_bytes, cut_bytes } => write!(
                f,
                "{} is torn: it was read up to byte {whole_bytes}, and {cut_bytes} bytes behind it \
                 were left out",
                path.display()
            ),
            #[cfg(feature = "export")]
            Self::DamagedRecording(error) => write!(f, "{error}: what is behind that is lost"),
            Self::UnknownName(name) => name.fmt(f),
        }
    }
}

/// The notices that were not taken yet. Clones are one list, which threads may share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notices(Arc<Mutex<Vec<Notice>>>);

impl Notices {
    /// Adds a notice, unless there are too many that nobody has taken.
    pub(crate) fn add(&self, notice: Notice) {
        let mut notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < MAX_NOTICES {
            notices.push(notice);
        }
    }

    /// Takes all that there are.
    pub(crate) fn take(&self) -> Vec<Notice> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::ErrorKind;

    use super::*;

    #[test]
    fn a_notice_is_taken_once_by_whichever_clone() {
        let notices = Notices::default();
        let error = || vmstrobe_core::Error::caused(ErrorKind::Io, "no table", "torn");
        notices.clone().add(Notice::OnlyVm { pid: 7, error: error() });
        notices.add(Notice::Provider(error()));
        let texts: Vec<String> = notices.take().iter().map(Notice::to_string).collect();
        let only = "pid 7: only the VM is read, not the tables: no table: torn";
        assert_eq!(texts, [only, "no table: torn"]);
        assert!(notices.take().is_empty());
    }

    #[test]
    fn notices_that_nobody_takes_are_bounded() {
        let notices = Notices::default();
        for _ in 0..=MAX_NOTICES {
            notices.add(Notice::LeftOut(Vec::new()));
        }
        assert_eq!(notices.take().len(), MAX_NOTICES);
    }
}
