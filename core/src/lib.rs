//! The model of vmstrobe: statistics and their schemas, filters compiled to masks and read plans,
//! snapshots, rates and quantiles, and the seam between what provides statistics and what samples
//! them.
//!
//! It does no I/O, starts no thread by itself and contains no unsafe code. The words are those of
//! the kernel's binary statistics and of QEMU's `query-stats`.
//!
//! ```
//! use vmstrobe_core::{Desc, Filter, ReadPlan, Schema, Target};
//!
//! let descs = vec![Desc::counter("exits", 0), Desc::counter("halt_exits", 8)];
//! let schema = Schema::new("kvm", Target::Vcpu, descs);
//! let filter: Filter = "vcpu: halt_*".parse()?;
//! let plan = ReadPlan::new(&schema, &filter.compile(&schema));
//! assert_eq!(plan.span_bytes(), 8..16);
//! # Ok::<(), vmstrobe_core::Error>(())
//! ```

#![forbid(unsafe_code)]

mod sync;

mod error;
mod stat;
mod schema;
pub mod wire;
mod names;
mod filter;
mod mask;
mod plan;
mod snapshot;
mod provider;
mod rate;
mod hist;
pub mod hmp;
pub mod seq;
pub mod text;
mod threads;

pub use error::{Error, ErrorKind, Result};
pub use filter::{Filter, Request, VcpuRef, VcpuSet};
pub use hist::{Bucket, Quantile, bucket, quantile, total};
pub use hmp::Order;
pub use mask::Mask;
pub use names::Names;
pub use plan::{Column, NEAR_WORDS, ReadPlan};
pub use provider::{Provider, Registry, Rows, Source};
pub use rate::{Change, Interval, Rate, change};
pub use schema::{Desc, Object, Schema, Target, WORD_BYTES};
pub use snapshot::{Cell, Group, Layout, ObjectView, RowState, Snapshot, Value, Window};
pub use stat::{Base, Scale, StatType, Unit};
pub use threads::{Thread, ThreadStart};
