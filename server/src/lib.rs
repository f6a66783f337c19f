//! Front doors: QMP ([`qmp`]).
//!
//! It knows the model and the sampler and no provider: a registry is what it is given.

#![forbid(unsafe_code)]

pub mod qmp;
