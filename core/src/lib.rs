//! The model of vmstrobe: statistics and their schemas, filters that are compiled to masks and read
//! plans, snapshots, rates and quantiles, and the traits [`Provider`] and [`Source`], through which
//! statistics are provided and read.
//!
//! The crate does no I/O, starts no thread by itself and contains no unsafe code. Its vocabulary is
//! that of the kernel's binary statistics and of QEMU's `query-stats`. The feature `json` adds the
//! module `json`: the JSON that QEMU writes.
//!
//! A filter selects statistics of a schema, and a read plan says which bytes to fetch for them:
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
mod paths;
mod registry;
mod rate;
mod hist;
pub mod hmp;
#[cfg(feature = "json")]
pub mod json;
pub mod seq;
pub mod text;
mod threads;

pub use error::{Error, ErrorKind, Result};
pub use filter::{Filter, Request, VcpuRef, VcpuSet};
pub use hist::{Bucket, Quantile, bucket, quantile, total};
pub use hmp::Order;
pub use mask::Mask;
pub use names::Names;
pub use paths::{PathPolicy, vm_path};
#[doc(hidden)] // For the providers; see `ReadPlan::load_near`.
pub use plan::NEAR_WORDS;
pub use plan::{Column, ReadPlan};
pub use provider::{Provider, Rows, Source};
pub use rate::{Change, Interval, Rate, change};
pub use registry::Registry;
pub use schema::{Desc, Object, Schema, Target, WORD_BYTES};
pub use snapshot::{Cell, Group, Layout, ObjectView, RowState, Snapshot, Value, Window};
pub use stat::{Base, Scale, StatType, Unit};
pub use threads::{Thread, ThreadStart};
