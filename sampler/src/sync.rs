//! The reference count of the pool, under a name of our own: `tests/loom.rs` puts the model
//! checker's in its place.

pub(crate) use std::sync::Arc;
