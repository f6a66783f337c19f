//! Other processes of this host, and what all readers of them share.
//!
//! [`Host`] looks at other processes and takes descriptors from them through a helper process, so
//! that none of them can keep this one waiting; [`Process`] holds one of them, and [`DeathWatch`]
//! notices its end. [`Broker`] is the one thread that keeps capabilities; [`Reaper`] the one that
//! closes descriptors. [`refusal`] finds out why the system refused something, and what to do.
//!
//! The providers of statistics stand on this crate, and it knows none of them. A program uses
//! [`Host`], [`Broker`], [`Reaper`], [`FdBudget`] and [`CpuNames`] of it. Everything else is public
//! for the providers alone.
//!
//! Invariant: no call waits longer than a few seconds for another process. What comes from one is
//! checked before it is used, and counted before it is held.

#![deny(unsafe_code)]

mod sync;
mod sys;
mod vm_info;

mod broker;
mod budget;
mod cpus;
mod gone_epoch;
mod host;
mod memfd;
mod polled;
mod process;
pub mod procfs;
mod reaper;
pub mod refusal;
pub mod release;
pub mod scm;
mod status;

pub use broker::Broker;
pub use budget::{FdBudget, FdSeat};
pub use cpus::{CpuName, CpuNames, own_number, thread_of};
pub use gone_epoch::GoneEpoch;
pub use host::{Borrowing, Care, Host, KvmLink, READERS_POSITION, Relay, Seen, SeenKvm, SeenTable};
pub use memfd::memfd;
pub use polled::{Polled, PolledSource, PolledWords, STALE_AFTER, clock_ns};
pub use process::{DeathWatch, FdOwner, Process, has_exited};
pub use reaper::Reaper;
pub use status::Status;
pub use sys::trim_memory;
pub use vm_info::{Access, VmInfo};

// Limits of a look at one process, to which tests of other crates go up.
#[doc(hidden)]
pub use host::{MAX_RECORDS, MAX_SAME_LINK};
