//! The sources of statistics as a user names them, and the options for opening them.
//!
//! Invariant: both are plain data; nothing is opened, and no thread started, before they are used.

use std::path::PathBuf;

use crate::parts::{AttachOptions, Bpf, BpfMode};
use vmstrobe_core::ThreadStart;
use vmstrobe_host::{FdBudget, Host};

/// The sources of statistics. If none is named, the only virtual machine on this host is meant, or
/// else the only program with tables.
///
/// ```
/// use vmstrobe::Sources;
/// let sources = Sources { pids: vec![4711], ..Sources::default() };
/// assert!(sources.is_any() && !Sources::default().is_any());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The virtual machines and the tables of these processes.
    pub pids: Vec<u32>,
    /// All virtual machines and tables on this host that can be read; `pids` is ignored then.
    pub all: bool,
    /// The QEMUs behind these QMP sockets. Alone: all of their statistics. With processes: their
    /// names for the vCPUs, and the data that only they have, such as crypto devices.
    pub qmp: Vec<PathBuf>,
    /// The tables in these files, which are on tmpfs.
    pub tables: Vec<PathBuf>,
    /// The descriptors that programs offer on these sockets.
    pub sockets: Vec<PathBuf>,
}

impl Sources {
    /// Returns one process.
    pub fn pid(pid: u32) -> Self {
        Self { pids: vec![pid], ..Self::default() }
    }

    /// Returns true if any source is named.
    pub fn is_any(&self) -> bool {
        let Self { pids, all, qmp, tables, sockets } = self;
        let named = !pids.is_empty() || !qmp.is_empty() || !tables.is_empty();
        *all || named || !sockets.is_empty()
    }

    /// Returns true if processes are meant, by name or because nothing else is named.
    pub(crate) fn has_processes(&self) -> bool {
        self.all || !self.pids.is_empty() || !self.is_any()
    }
}

/// The options for opening and reading sources.
///
/// ```
/// use vmstrobe::{Bpf, Options};
/// let options = Options { bpf: Bpf::off(), ..Options::default() };
/// assert!(!options.sched);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// The BPF reader, and the broker that has the rights that opening takes.
    pub bpf: Bpf,
    /// Adds the host scheduler's statistics of the threads of vCPUs, as provider `sched`.
    pub sched: bool,
    /// Attaches also on a kernel before 6.5 (6.4.8, 6.1.43, 5.15.124), which reads freed memory if
    /// a virtual machine ends while it is read, unless it has the fix under another version number.
    pub on_any_kernel: bool,
    /// The function that each thread of the library runs first: to drop capabilities, or to choose
    /// CPUs. Only the threads of the BPF reader's broker do not run it, which are there to keep
    /// their capabilities.
    pub threads: ThreadStart,
}

impl Default for Options {
    /// Returns the options of most programs: the BPF reader where it is permitted and faster, and
    /// no statistics of the scheduler.
    fn default() -> Self {
        Self {
            bpf: Bpf::new(BpfMode::Auto),
            sched: false,
            on_any_kernel: false,
            threads: ThreadStart::default(),
        }
    }
}

impl Options {
    /// Returns the options for attaching. From a process that was named, as many descriptors are
    /// borrowed as there is room for; from each of all processes, no more than its share.
    pub(crate) fn attach(&self, all: bool) -> AttachOptions {
        let budget = if all { FdBudget::shared() } else { FdBudget::of_this_process() };
        AttachOptions {
            bulk: self.bpf.clone().into(),
            host: self.host(),
            budget,
            on_any_kernel: self.on_any_kernel,
        }
    }

    /// Returns this host, as seen with the broker's rights, with the start of threads.
    pub(crate) fn host(&self) -> Host {
        Host::new(self.bpf.broker().clone(), self.threads.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_meant_by_name_or_if_nothing_else_is_named() {
        let tables = Sources { tables: vec!["/dev/shm/t".into()], ..Sources::default() };
        let all = Sources { all: true, ..tables.clone() };
        let of = |sources: &Sources| (sources.is_any(), sources.has_processes());
        assert_eq!(of(&Sources::default()), (false, true));
        assert_eq!(of(&Sources::pid(1)), (true, true));
        assert_eq!((of(&tables), of(&all)), ((true, false), (true, true)));
    }
}
