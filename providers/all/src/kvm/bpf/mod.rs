//! The BPF reader: one call of a BPF program reads all vCPUs where one pread each would.
//!
//! Invariant: a shortcut and nothing else. Where the host or the kernel does not allow it, or what
//! it reads may be wrong, the caller hears of it and reads with pread.

mod btf;
mod asm;
mod sys;
mod offsets;
mod frame;
mod slots;
mod program;
mod bulk;
mod reference;
mod trial;
mod kernel;
mod health;
mod audit;
mod source;
mod policy;
mod guide;
mod open;
mod threads;

#[cfg(test)]
mod tests;

pub(super) use policy::with_causes;
pub use policy::{Bpf, BpfMode, BpfStatus};
