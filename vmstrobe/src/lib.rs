//! vmstrobe: a stroboscope for virtual machines. It samples named statistics of every vCPU
//! thousands of times a second, from inside a VMM or from outside a running one.
//!
//! # From outside
//!
//! [`attach`] to a VMM by its process id, choose statistics, and read every sample:
//!
//! ```no_run
//! let mut session = vmstrobe::attach(4711)?.sample("vcpu: exits, halt_*", 1000.0)?;
//! for sample in session.samples().take(1000) {
//!     for vcpu in sample.objects() {
//!         println!("{} {:?}", vcpu.object().path, vcpu.get("exits").and_then(|v| v.number()));
//!     }
//! }
//! # Ok::<(), vmstrobe::Error>(())
//! ```
//!
//! [`Attachment::open`] takes more sources than one process ([`Sources`]): all virtual machines of
//! this host, QEMUs behind QMP sockets, tables of programs. [`list`] shows what there is and how it
//! can be read; [`measure`] does some work and tells what happened meanwhile.
//!
//! # From inside
//!
//! A VMM adds its own descriptors to a [`Registry`] with `OwnKvm` and samples that, or serves it:
//!
//! ```no_run
//! use std::os::fd::OwnedFd;
//! use std::sync::Arc;
//! use vmstrobe::{Attachment, NewVcpu, OwnKvm, Registry, Session};
//!
//! // `vm` is from KVM_CREATE_VM, `vcpus` are from KVM_CREATE_VCPU, and none of these runs yet.
//! fn sample(vm: &OwnedFd, vcpus: &[OwnedFd]) -> vmstrobe::Result<Session> {
//!     let kvm = OwnKvm::new("web", vm)?;
//!     for (index, vcpu) in (0..).zip(vcpus) {
//!         kvm.add_vcpu(NewVcpu::new(index, vcpu))?;
//!     }
//!     let registry = Registry::default();
//!     registry.add(Arc::new(kvm));
//!     Attachment::of(registry).sample("vcpu: exits", 1000.0)
//! }
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `kvm` (default) | KVM's statistics: this process's own VM, and those of others |
//! | `bpf` (default) | the BPF reader, which reads all vCPUs in one call: `bpf`; with it `kvm` |
//! | `table` (default) | tables that programs publish in memory: `table` |
//! | `qmp` (default) | QEMUs that are asked over their QMP sockets: `qmp` |
//! | `fd-server` (default) | descriptors offered to another program: `fd_server`; `kvm`, `table` |
//! | `server` | a QMP server, `server`; a socket for each virtual machine: `serve` |
//! | `json` | results as JSON, and the JSON of QMP's replies: `json` |
//! | `demo` | a guest and a crypto device of this process: `demo`; with it `kvm`, `table` |
//! | `kvm-ioctls` | `OwnKvm` takes that crate's `VmFd` and `VcpuFd` |
//!
//! A VMM that only wants its own vCPUs takes `kvm` alone and compiles some 30 small crates. A
//! program that reads tables, or asks QEMUs, takes `table` or `qmp` alone: then no process has a
//! VM.
//!
//! # What it does not do
//!
//! Nothing is printed, and no process ended: notices and errors are values. A tick allocates
//! nothing, takes no lock and waits for nobody; a reader that is slow loses samples, and each loss
//! is counted.

#![forbid(unsafe_code)]

// The README's programs are compiled and run.
#[cfg(all(doctest, feature = "table"))]
#[doc = include_str!("../../README.md")]
struct Readme;

mod parts;
mod survey;
mod sources;
mod unknown_name;
mod error;
mod notice;
mod found;
mod member;
mod processes;
mod qemu;
mod vm_tracker;
mod arrivals;
mod open;
mod attachment;
mod select;
mod read_status;
mod session;
mod run_summary;
mod tally;
mod meter;
mod listing;
mod vm_opener;
mod condition;
#[cfg(feature = "export")]
mod record;
#[cfg(feature = "export")]
mod history;
#[cfg(feature = "export")]
pub mod view;
mod recent;
mod stretch;
pub mod readout;
#[cfg(feature = "export")]
pub mod report;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "demo")]
pub mod demo;
#[cfg(feature = "server")]
pub mod serve;
#[cfg(all(feature = "export", feature = "server"))]
pub mod control;

pub use attachment::{Attachment, attach};
pub use condition::{
    Check, Condition, DEFAULT_STRETCH_NS, Fault, Hit, Trigger, TriggerRule, Triggered,
};
pub use error::{Error, Result, SocketPeer};
pub use found::{name_or_number, vm_name};
#[cfg(feature = "export")]
pub use history::{HeldSamples, HistoryLimits};
pub use listing::{ListedTables, ListedVm, Listing, list};
pub use member::Member;
pub use meter::{Added, Measured, Meter, measure};
pub use notice::Notice;
pub use read_status::{OneByOne, ReadMethod, ReadStatus};
pub use recent::{ObjectChange, POINTS_PER_SECOND, RecentSamples, changes_between};
#[cfg(feature = "export")]
pub use record::*;
pub use run_summary::RunSummary;
pub use select::Selection;
pub use session::Session;
pub use sources::{Options, Sources};
pub use stretch::{Stretch, StretchKind, Stretches};
pub use tally::{Amount, Level, StatTally, Tally};
pub use unknown_name::UnknownName;
pub use vm_opener::{FoundVm, FoundVms, VmOpener};
pub use vm_tracker::{Changes, VmTracker, Vmm};

pub use parts::{Bpf, BpfMode, BpfStatus, FoundTable};
pub use survey::{Hidden, LeftOut, Scan, WhyLeftOut, scan_all, scan_all_by};
pub use vmstrobe_core::{Error as CoreError, *};
pub use vmstrobe_host::{Access, Broker, Host, Reaper, VmInfo};
#[cfg(feature = "kvm")]
pub use vmstrobe_kvm::{AttachOptions, AttachedKvm, NewVcpu, OwnKvm, Sched};
pub use vmstrobe_sampler::*;

#[cfg(feature = "bpf")]
pub use vmstrobe_bpf as bpf;
#[cfg(feature = "export")]
pub use vmstrobe_export as export;
#[cfg(feature = "fd-server")]
pub use vmstrobe_fd_server as fd_server;
pub use vmstrobe_host as host;
#[cfg(feature = "kvm")]
pub use vmstrobe_kvm as kvm;
#[cfg(feature = "qmp")]
pub use vmstrobe_qmp as qmp;
#[cfg(feature = "server")]
pub use vmstrobe_server as server;
#[cfg(feature = "table")]
pub use vmstrobe_table as table;
