//! The atomics of `gone_epoch`, under names of our own: `tests/loom.rs` puts the model checker's in
//! their place.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
