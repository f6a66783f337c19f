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

use crate::condition::Fault;
#[cfg(feature = "server")]
use crate::serve::{Account, DirectoryRefusal, LimitReached};
use crate::unknown_name::UnknownName;

pub(crate) use text::joined;
use text::{no_objects, no_statistic, paths, rest, several, vcpu_text};

mod text;

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
        /// The processes that were not looked at.
        left_out: Vec<LeftOut>,
        /// One for each of the others: why it cannot be read.
        refused: Vec<Error>,
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
    /// A condition cannot be understood, or does not fit the statistics that there are.
    #[error(
        "the condition '{condition}' is wrong at '{}': {}",
        rest(condition, fault.at),
        fault.text
    )]
    Condition {
        /// The condition as it was typed.
        condition: String,
        /// The place, and what is wrong there.
        fault: Fault,
    },
    /// A batch could not be encoded.
    #[cfg(feature = "export")]
    #[error(transparent)]
    Export(vmstrobe_export::Error),
    /// An exporter has no columns for statistics that came up while it wrote.
    #[cfg(feature = "export")]
    #[error("objects with other statistics came up, for which the recording has no columns")]
    OtherColumns,
    /// The name of a recording does not tell its format.
    #[cfg(feature = "export")]
    #[error(
        "{} does not tell a format: a recording's name ends in {}",
        path.display(),
        crate::record::extensions()
    )]
    UnknownFormat {
        /// The path.
        path: PathBuf,
    },
    /// The file of a recording cannot be made, removed or synchronised.
    #[cfg(feature = "export")]
    #[error("{}: {source}", path.display())]
    RecordFile {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A recording cannot be written or read.
    #[cfg(feature = "export")]
    #[error("{}: {source}", path.display())]
    Recording {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: vmstrobe_export::Error,
    },
    /// A recording has no samples.
    #[cfg(feature = "export")]
    #[error("{} has no samples: its writer ended before the first batch", path.display())]
    NothingRecorded {
        /// Its path.
        path: PathBuf,
    },
    /// A recording has no sample at the time that was asked for.
    #[cfg(feature = "export")]
    #[error(
        "{} has no sample then: it begins at {} and has samples for {:.3} s: give a time within",
        path.display(),
        crate::record::utc(*begin_wall_ns),
        *length_ns as f64 * 1e-9
    )]
    NoSampleThen {
        /// Its path.
        path: PathBuf,
        /// The begin of the first sample, in ns since 1970.
        begin_wall_ns: u64,
        /// The time from the begin of the first sample to the begin of the last, in ns.
        length_ns: u64,
    },
    /// A recording cannot be converted into itself.
    #[cfg(feature = "export")]
    #[error("{} is the recording itself: give another name", path.display())]
    SameFile {
        /// The path.
        path: PathBuf,
    },
    /// A flight recorder has too many dumps to write.
    #[cfg(feature = "export")]
    #[error("too many dumps wait to be written: this one is left out")]
    TooManyDumps,
    /// Too many marks came within one batch of a recording.
    #[cfg(feature = "export")]
    #[error("{} marks wait to be written: try again in a second", crate::record::MAX_WAITING_MARKS)]
    TooManyMarks,
    /// A recording that was to be marked has ended.
    #[cfg(feature = "export")]
    #[error("the recording has ended")]
    RecordingEnded,
    /// A flight recorder holds no samples of the time that was asked for.
    #[cfg(feature = "export")]
    #[error("there are no samples to dump yet")]
    NothingToDump,
    /// A dump was asked of a recording that writes every sample.
    #[cfg(feature = "export")]
    #[error("this recording writes every sample into its file: only a flight recorder can dump")]
    NoFlight,
    /// The samples of a session are recorded already.
    #[cfg(feature = "export")]
    #[error("the samples of this session are taken already")]
    SamplesTaken,
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
    /// A recorder cannot be reached, or refused what it was asked.
    #[cfg(all(feature = "export", feature = "server"))]
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
    /// The sampler ended by an error that was returned before.
    #[error("the sampler has failed")]
    SamplerFailed,
    /// The first sample of a session did not arrive: a fault of the library.
    #[error("the first sample did not arrive")]
    NoFirstSample,
}

impl Error {
    pub(crate) fn condition(condition: &str, fault: Fault) -> Self {
        Self::Condition { condition: condition.to_owned(), fault }
    }
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
