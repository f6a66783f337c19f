//! All providers of statistics, under one name, and the look for VMs and tables at all processes
//! ([`scan_all`]).
//!
//! Each provider is a crate beside this one: KVM's statistics of a VM of this process ([`OwnKvm`])
//! or of another's ([`AttachedKvm`]), which the BPF reader ([`Bpf`]) can read in one call; the
//! scheduler's, of the threads that run vCPUs ([`Sched`]); a QEMU's, over its QMP socket ([`Qmp`]);
//! any program's own, in tables in memory ([`Tables`]); and what another process exports
//! ([`FdClient`]). All are `vmstrobe_core::Provider`s: a sampler depends on none of them.
//!
//! Invariant: only the look at all processes is here; it stands where it sees both VMs and tables.

#![forbid(unsafe_code)]

mod survey;

pub use survey::{LOOK_LIMIT, LeftOut, Scan, WhyLeftOut, scan_all, scan_all_by};
pub use vmstrobe_bpf::{Bpf, BpfMode, BpfStatus};
pub use vmstrobe_fd_server::{ExportFds, ExportedFd, FdClient, FdServer};
pub use vmstrobe_host::{
    Broker, CpuName, CpuNames, FdBudget, Host, Reaper, has_exited, trim_memory,
};
pub use vmstrobe_kvm::{
    Access, AttachOptions, AttachedKvm, BulkOpener, KvmFdRef, NewVcpu, OwnKvm, Sched, VmInfo,
    kvm_get_stats_fd, scan, scan_by,
};
pub use vmstrobe_qmp::{Qmp, QmpShare};
pub use vmstrobe_table::{
    Counter, CryptoDevice, CryptoOp, CryptoServices, Cryptodev, Flag, FoundTable, Gauge, Group,
    Handle, LinearHistogram, Log2Histogram, MAX_OWNER_HELD_BYTES, MAX_OWNER_READ_BYTES,
    MAX_PROCESS_TABLES, MAX_SEGMENT_BYTES, MAX_SLOTS, MAX_TABLE_DESCS, MAX_TABLE_NAME_BYTES,
    MAX_TABLES_HELD_BYTES, OwnedCounter, Peak, ShardedCounter, Stat, StatKey, TableConfig,
    TableObject, TableSchema, TableWriter, Tables,
};
