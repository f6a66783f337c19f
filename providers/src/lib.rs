//! Where statistics come from: KVM's binary statistics, of one's own VM or borrowed from a running
//! VMM.
//!
//! [`OwnKvm`] is for a VMM that holds the VM's fds itself, [`Borrowed`] for someone beside it who
//! knows its process id; [`scan_all`] finds those. Both are `vmstrobe_core::Provider`s: a sampler
//! knows neither.
//!
//! Invariant: all that blocks, allocates or parses happens when something is opened. On the tick
//! there is one `pread` an object, and no close: the last close of a stats fd may tear down a whole
//! VM, so a [`Reaper`] does it.

#![deny(unsafe_code)]

mod sys;
mod sync;

mod reaper;
mod departures;
mod procfs;
mod process;
mod fd;
mod kvm;
mod qmp;
mod table;
mod cryptodev;
mod handover;

#[cfg(test)]
mod tests;

pub use cryptodev::{CryptoDevice, CryptoOp, CryptoServices, Cryptodev};
pub use handover::{
    CONNECT_LIMIT, HandOver, HandedOver, Lendable, Loan, MAX_BORROWERS, MAX_LOANS,
    MAX_PACKET_BYTES, MAX_PATH_BYTES, MAX_TABLES, SEND_LIMIT,
};
pub use kvm::{
    Accel, AccelMode, AccelStatus, Access, Borrowed, FrameTime, KernelFrame, OwnKvm, Scan, Sched,
    VCPU_BUSY_LIMIT, Vm, scan, scan_all,
};
pub use qmp::{CpuName, CpuNames, Qmp, QmpShare};
pub use reaper::Reaper;
pub use sys::kvm_get_stats_fd;
pub use table::{
    Counter, Flag, FoundTable, Gauge, Group, Handle, LOOK_TRIES, LinearHistogram, Log2Histogram,
    MAX_PROCESS_TABLES, MAX_SEGMENT_BYTES, MAX_SHARDS, MAX_SLOTS, MAX_TABLE_DESCS,
    MAX_TABLE_NAME_BYTES, OwnedCounter, Peak, ShardedCounter, Stat, StatKey, TableConfig,
    TableObject, TableSchema, TableWriter, Tables, scan_tables,
};
