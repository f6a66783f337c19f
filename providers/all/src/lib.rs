//! The providers of statistics: KVM's binary statistics, of one's own VM or borrowed from a running
//! VMM ([`OwnKvm`], [`AttachedKvm`]); the scheduler's, of the threads that run vCPUs ([`Sched`]); a
//! QEMU's, over its QMP socket ([`Qmp`]); and any program's own, in tables in memory ([`Tables`]).
//!
//! [`OwnKvm`] is for a VMM that holds the VM's fds itself, [`AttachedKvm`] for a program beside it
//! that knows its process id; [`scan_all`] finds such ids. All are `vmstrobe_core::Provider`s: a
//! sampler depends on none of them.
//!
//! Invariant: all that blocks, allocates or parses happens when something is opened. On the tick
//! there is at most one `pread` for an object of KVM's, and no close: the last close of a stats fd
//! may tear down a whole VM, so a [`Reaper`] does it.

#![deny(unsafe_code)]

mod handover;
mod survey;

pub use handover::{
    CONNECT_LIMIT, ExportFds, ExportedFd, FdClient, FdServer, MAX_BORROWERS, MAX_EXPORTED_FDS,
    MAX_PACKET_BYTES, MAX_PATH_BYTES, MAX_TABLES, SEND_LIMIT,
};
pub use survey::{LOOK_LIMIT, LeftOut, Scan, WhyLeftOut, scan_all, scan_all_by};
pub use vmstrobe_bpf::{Bpf, BpfMode, BpfStatus};
pub use vmstrobe_host::{
    Broker, CpuName, CpuNames, FdBudget, Host, Reaper, has_exited, trim_memory,
};
pub use vmstrobe_kvm::{
    Access, AttachOptions, AttachedKvm, BulkOpener, OwnKvm, Sched, VCPU_BUSY_LIMIT, VmInfo,
    kvm_get_stats_fd, scan, scan_by,
};
pub use vmstrobe_qmp::{Qmp, QmpShare};
pub use vmstrobe_table::{
    Counter, CryptoDevice, CryptoOp, CryptoServices, Cryptodev, Flag, FoundTable, Gauge, Group,
    Handle, LOOK_BYTES_PER_S, LOOK_TRIES, LinearHistogram, Log2Histogram, MAX_LENDER_HELD_BYTES,
    MAX_LENDER_MAPPED_BYTES, MAX_LENDER_READ_BYTES, MAX_LOOK_BYTES, MAX_PROCESS_TABLES,
    MAX_REFUSED, MAX_SEGMENT_BYTES, MAX_SHARDS, MAX_SLOTS, MAX_TABLE_DESCS, MAX_TABLE_NAME_BYTES,
    MAX_TABLES_FDS, MAX_TABLES_HELD_BYTES, MAX_TABLES_MAPPED_BYTES, MAX_TABLES_READ_BYTES,
    OwnedCounter, Peak, REFUSED_FOR, ShardedCounter, Stat, StatKey, TableConfig, TableObject,
    TableSchema, TableWriter, Tables,
};
