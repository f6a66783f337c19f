//! The BPF reader ([`Bpf`]): one call of a BPF program reads all vCPUs, where `pread` takes one
//! each.
//!
//! A provider of `vmstrobe_kvm` is given a `Bpf` as its `BulkOpener`. The `Bpf` tries the program
//! on a guest of its own first, opens sources that run it, and compares them with `pread` once a
//! second.
//!
//! Invariant: it is a shortcut and nothing else. Where the host or the kernel does not allow it, or
//! what it reads may be wrong, the caller is told and reads with `pread`.

#![deny(unsafe_code)]

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

pub use policy::{Bpf, BpfMode, BpfStatus};
