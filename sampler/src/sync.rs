//! The reference count of the crate: std's, or the model checker's under `--cfg loom`.

#[cfg(not(loom))]
pub(crate) use std::sync::Arc;

#[cfg(loom)]
pub(crate) use loom::sync::Arc;
