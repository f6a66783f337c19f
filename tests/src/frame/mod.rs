//! Frames of the BPF reader between processes: a sampler that ticks without rest, and readers
//! in processes of their own that judge each frame by what must hold in it.
//!
//! The witness: all rows are of one vCPU, which runs between two ticks and not during one. So the
//! rows of a frame are equal, and more than those of the frame before.

pub mod child;
pub mod judge;
pub mod modes;
pub mod sampler;
