//! The one error of the library. Its variants are data: a program can act on them, and a command
//! can add what its own options do about them.
//!
//! Invariant: the text names its subject and says what happened; it includes the texts of its
//! causes, so that nothing is lost by printing it.

use std::path::PathBuf;

use crate::parts::BpfStatus;
use crate::parts::FoundTable;
use crate::survey::{Hidden, LeftOut};
use vmstrobe_core::{Object, Target, VcpuRef};
use vmstrobe_host::VmInfo;

use crate::notice::Notice;
#[cfg(feature = "server")]
use crate::serve::{Account, DirectoryRefusal, LimitReached};
use crate::unknown_name::UnknownName;

/// Result of a call of the library.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A provider or the sampler failed.
    #[error("{0:#}")]
    Core(#[from] vmstrobe_core::Error),
    /// No source was named, or all, and there is none on this host.
    #[error(
        "no virtual machine and no table of statistics found on this host{}",
        hidden.as_ref().map(|hidden| format!(" ({hidden})")).unwrap_or_default()
    )]
    NothingFound {
        /// The processes that this process may not examine.
        hidden: Option<Hidden>,
        /// The processes that were not looked at for other reasons.
        left_out: Vec<LeftOut>,
    },
    /// No source was named, and there are several.
    #[error("{}: name one, or all", several(vms))]
    SeveralFound {
        /// The virtual machines.
        vms: Vec<VmInfo>,
        /// The tables.
        tables: Vec<FoundTable>,
    },
    /// None of the virtual machines and tables on this host can be read.
    #[error("none of the virtual machines and tables on this host can be read")]
    NothingReadable {
        /// One for each: why it cannot be read.
        notices: Vec<Notice>,
    },
    /// A process that was named has nothing to be read.
    #[error("pid {pid} ({comm}) has neither a KVM virtual machine nor a table of statistics open")]
    NoStatistics {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// The virtual machine of a process that was named cannot be read.
    #[error("{0:#}")]
    VmRefused(#[source] vmstrobe_core::Error),
    /// It is not clear which of the virtual machines a QMP socket belongs to.
    #[error("cannot tell which VM the socket {} belongs to: its peer is {peer}", socket.display())]
    UnclearSocket {
        /// The socket.
        socket: PathBuf,
        /// The process at its other end.
        peer: SocketPeer,
    },
    /// A QMP socket belongs to another QEMU than the process that was named with it.
    #[error(
        "{} is the socket of another QEMU, which calls its VM '{socket_vm}': that of pid {pid} is \
         '{vm}'",
        socket.display()
    )]
    OtherQemu {
        /// The socket.
        socket: PathBuf,
        /// The name of the socket's VM.
        socket_vm: String,
        /// The process that was named.
        pid: u32,
        /// The name of its VM.
        vm: String,
    },
    /// Several virtual machines were named where there must be one.
    #[error("one virtual machine is needed, and these are several: {}", titles.join(", "))]
    SeveralVms {
        /// Their titles: `VM web (pid 4711)`.
        titles: Vec<String>,
    },
    /// There is no provider of that name.
    #[error(
        "there is no provider '{name}' here, only {}",
        joined(known.iter().map(String::as_str))
    )]
    UnknownProvider {
        /// The name.
        name: String,
        /// The names of the providers that there are, or would be if they were asked for.
        known: Vec<String>,
    },
    /// The sources have statistics, but of no object that is meant.
    #[error("{}", no_objects(target, provider.as_deref(), known))]
    NoObjects {
        /// The target that is meant.
        target: Target,
        /// The provider that is meant, if one was named.
        provider: Option<String>,
        /// The targets of the objects that there are, each once.
        known: Vec<Target>,
        /// The warnings of that provider, which may say why it has none.
        warnings: Vec<vmstrobe_core::Error>,
    },
    /// There are vCPUs, but no statistics of the virtual machine as a whole.
    #[error(
        "there are no statistics of the virtual machine as a whole: its VMM keeps no stats fd of \
         it open (QEMU opens one only while it answers query-stats), and the BPF reader, which \
         needs none, cannot be used: {bpf}"
    )]
    NoVmStatistics {
        /// Why the BPF reader is no help.
        bpf: BpfStatus,
    },
    /// The sources have no objects now.
    #[error("no source has objects with statistics at present; try again when it has some")]
    NoObjectsNow,
    /// vCPUs were named for another target.
    #[error("vCPUs cannot be selected for target {target}")]
    VcpusOfTarget {
        /// The target.
        target: Target,
    },
    /// No target was named, there are no vCPUs, and there are several other targets.
    #[error(
        "there are no vCPUs here, but objects of target {}: select one",
        joined(targets.iter().map(Target::name))
    )]
    UnclearTarget {
        /// The targets.
        targets: Vec<Target>,
    },
    /// The names select no statistic.
    #[error("{}", no_statistic(unknown))]
    NoSuchStatistic {
        /// The names that no statistic has; none if the names exclude all.
        unknown: Vec<UnknownName>,
    },
    /// There is no such vCPU.
    #[error("there is no vCPU {}, only {}", vcpu_text(vcpu), paths(known))]
    NoSuchVcpu {
        /// The vCPU as it was named.
        vcpu: VcpuRef,
        /// The vCPUs that there are.
        known: Vec<Object>,
    },
    /// The demo's guest cannot be built or run.
    #[cfg(feature = "demo")]
    #[error(transparent)]
    Guest(#[from] vmstrobe_guest::Error),
    /// There is no such user or group on this host.
    #[cfg(feature = "server")]
    #[error(
        "there is no {account} '{name}' in /etc/{}: if this host knows it from another source, \
         give its number",
        account.file_name()
    )]
    UnknownAccount {
        /// The kind of account.
        account: Account,
        /// The name.
        name: String,
    },
    /// A directory cannot have the sockets of virtual machines.
    #[cfg(feature = "server")]
    #[error("the directory {} {why}", path.display())]
    SocketDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: DirectoryRefusal,
    },
    /// There is no socket left for a virtual machine that was named.
    #[cfg(feature = "server")]
    #[error("no socket is left: {0}")]
    NoSocketLeft(LimitReached),
    /// The process that was found is another now, or its virtual machine has ended.
    #[cfg(feature = "server")]
    #[error("pid {pid} ended or changed while it was opened")]
    ChangedWhileOpened {
        /// The process.
        pid: u32,
    },
    /// The sampler ended by an error that was returned before.
    #[error("the sampler has failed")]
    SamplerFailed,
    /// The first sample of a session did not arrive: a fault of the library.
    #[error("the first sample did not arrive")]
    NoFirstSample,
}

/// The process at the other end of a QMP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketPeer {
    /// A process without a virtual machine: a launcher, or a relay.
    WithoutVm {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A VMM that was not named.
    NotRead {
        /// The process.
        pid: u32,
    },
    /// A process that the kernel does not name: it is in another pid namespace.
    Unknown,
}

impl std::fmt::Display for SocketPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WithoutVm { pid, comm } => write!(f, "pid {pid} ({comm}), which has no VM"),
            Self::NotRead { pid } => write!(f, "pid {pid}, which is not read"),
            Self::Unknown => f.write_str("a process that the kernel does not name"),
        }
    }
}

fn several(vms: &[VmInfo]) -> &'static str {
    match vms {
        [] => "several processes on this host have tables of statistics",
        _ => "several virtual machines run on this host",
    }
}

fn no_objects(target: &Target, provider: Option<&str>, known: &[Target]) -> String {
    let of = provider.map(|name| format!(" of provider '{name}'")).unwrap_or_default();
    match known {
        [] => format!("there are no objects of target '{target}'{of} here"),
        _ => {
            let known = joined(known.iter().map(Target::name));
            format!("there are no objects of target '{target}'{of} here, only of {known}")
        }
    }
}

fn no_statistic(unknown: &[UnknownName]) -> String {
    match unknown {
        [] => "no statistic is selected".to_owned(),
        _ => unknown.iter().map(UnknownName::to_string).collect::<Vec<_>>().join("; "),
    }
}

/// Returns a vCPU as a user names it.
fn vcpu_text(vcpu: &VcpuRef) -> String {
    match vcpu {
        VcpuRef::Path(path) => format!("'{path}'"),
        VcpuRef::Index(index) => index.to_string(),
    }
}

fn paths(objects: &[Object]) -> String {
    objects.iter().map(|object| &*object.path).collect::<Vec<_>>().join(", ")
}

/// Returns a list of names, each once, in the order of the alphabet: `a`, `a and b`, `a, b and c`.
pub(crate) fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_once_and_in_order() {
        assert_eq!(joined(["b", "a", "b", "c"]), "a, b and c");
        assert_eq!((joined(["a", "a"]), joined([])), ("a".to_owned(), String::new()));
    }
}
