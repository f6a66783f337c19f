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

pub(crate) mod format;
pub(crate) mod map;

mod define;
mod handle;
mod object;
mod store;
mod writer;

mod budget;
mod schemas;
mod refused;
pub(crate) mod look;
mod source;
mod quick;
mod held;
mod find;
mod reader;
mod borrow;

pub use budget::{
    LOOK_BYTES_PER_S, MAX_LENDER_HELD_BYTES, MAX_LENDER_MAPPED_BYTES, MAX_LENDER_READ_BYTES,
    MAX_LOOK_BYTES, MAX_TABLES_FDS, MAX_TABLES_HELD_BYTES, MAX_TABLES_MAPPED_BYTES,
    MAX_TABLES_READ_BYTES,
};
pub use define::{Stat, StatKey, TableSchema};
pub use find::FoundTable;
pub(crate) use find::tables_of;
pub use format::{MAX_SEGMENT_BYTES, MAX_SHARDS, MAX_SLOTS, MAX_TABLE_NAME_BYTES};
pub use handle::{
    Counter, Flag, Gauge, Group, Handle, LinearHistogram, Log2Histogram, OwnedCounter, Peak,
    ShardedCounter,
};
pub use look::LOOK_TRIES;
pub use object::TableObject;
pub use reader::{MAX_PROCESS_TABLES, Tables};
pub use refused::{MAX_REFUSED, REFUSED_FOR};
pub use schemas::MAX_TABLE_DESCS;
pub use writer::{TableConfig, TableWriter};

#[cfg(test)]
mod tests;
