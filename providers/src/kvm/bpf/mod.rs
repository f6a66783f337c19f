//! The kernel-side tick: one call of a BPF program reads all vCPUs where one pread each would.
//!
//! Invariant: a shortcut and nothing else. Where the host or the kernel does not allow it, or what
//! it reads is in doubt, the caller hears of it and reads with pread.

mod btf;
mod asm;
mod sys;
mod offsets;
mod frame;
mod slots;
mod program;
mod sweep;
mod reference;
mod trial;
mod kernel;
mod trust;
mod audit;
mod source;
mod accel;
mod guide;
mod open;
mod threads;
mod lend;
mod shared;

#[cfg(test)]
mod tests;

pub(super) use accel::with_causes;
pub use accel::{Accel, AccelMode, AccelStatus};
pub use shared::{FrameTime, KernelFrame};
