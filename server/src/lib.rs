//! Front doors: QMP ([`qmp`]), and the JSON that it speaks ([`json`], [`Results`]).
//!
//! It knows the model and the sampler and no provider: a registry is what it is given.

#![forbid(unsafe_code)]

pub mod json;
mod results;
pub mod qmp;

pub use results::Results;
