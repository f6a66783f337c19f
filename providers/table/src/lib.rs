//! Tables: statistics that a program publishes in memory, and that others read there without a
//! system call and without trusting it.
//!
//! A writer defines its statistics ([`TableSchema`]), makes a table ([`TableWriter`]) and adds
//! objects; a reader holds tables of any process ([`Tables`]), each a provider's. A table is the
//! kernel's binary-statistics block for each object, so that schema, filter and plan are those of
//! KVM's statistics.
//!
//! Invariant: nothing that a writer does, by mistake or on purpose, makes a reader fault, wait,
//! allocate without bound, or take for good what it did not read; and no reader can change a table.

#![deny(unsafe_code)]

/// The name of the provider that carries the tables of any program.
pub const PROVIDER: &str = "table";
/// The name of the provider of QEMU's crypto devices, as QEMU names it.
pub const CRYPTODEV: &str = "cryptodev";

mod format;
mod map;

mod define;
mod handle;
mod object;
mod region;
mod store;
mod writer;

mod budget;
mod schemas;
mod refused;
mod look;
mod row;
mod quick;
mod source;
mod held;
mod find;
mod reader;
mod attach;

mod cryptodev;

pub use cryptodev::{CryptoDevice, CryptoOp, CryptoServices, Cryptodev};
pub use define::{Stat, StatKey, TableSchema};
pub use find::FoundTable;
pub use format::{MAX_SEGMENT_BYTES, MAX_SLOTS, MAX_TABLE_NAME_BYTES};
pub use handle::{
    Counter, Flag, Gauge, Group, Handle, LinearHistogram, Log2Histogram, OwnedCounter, Peak,
    ShardedCounter,
};
pub use look::can_be_table;
pub use object::TableObject;
pub use reader::Tables;
pub use writer::{TableConfig, TableWriter};

// For the look at all processes.
#[doc(hidden)]
pub use find::tables_of;
// Limits of readers: tests of hostile writers and the fuzz targets go up to them.
#[doc(hidden)]
pub use budget::{
    MAX_OWNER_HELD_BYTES, MAX_OWNER_READ_BYTES, MAX_PROCESS_TABLES, MAX_TABLES_HELD_BYTES,
};
#[doc(hidden)]
pub use schemas::MAX_TABLE_DESCS;

#[cfg(test)]
mod tests;
