//! The statistics that a running QEMU gives over its own QMP socket ([`Qmp`]): all it has, or what
//! only it has.
//!
//! A thread asks QEMU at its own rate and keeps the values in words of this process; a tick reads
//! those. From the bytes of an answer to the tick: `framer`, `message`, `group`, `table`, `block`.
//!
//! Invariant: only that thread ever waits for QEMU, except a caller that connects or refreshes, for
//! a bounded time. Nothing that a QEMU sends can make us panic, loop or take more than named
//! limits.

#![forbid(unsafe_code)]

mod message;
mod ask;
mod framer;
mod peer;
mod session;
mod group;
mod block;
mod table;
mod talk;
mod calls;
mod poller;
mod provider;

pub use ask::QmpShare;
pub use provider::{PROVIDER, Qmp};
