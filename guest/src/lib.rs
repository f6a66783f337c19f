//! Small real KVM guests for `vmstrobe demo`, the tests and the benches. They are x86-64 programs:
//! on other processors the crate compiles, and no guest can be made ([`check_processor`]).
//!
//! [`Farm`] has many vCPUs that never run, [`KnownGuest`] makes an exact number of exits, and
//! [`DemoGuest`] carries loads that change over time. Ask [`usable`] first: where `/dev/kvm` is
//! missing it says why and what to do. The crate knows nothing of statistics: a caller hands the
//! fds of [`Vm`] and [`Vcpu`] to the code that samples them.
//!
//! Invariant: guest memory stays mapped as long as any VM or vCPU that could write to it exists,
//! and a borrowed fd is open while its owner exists, also while a thread runs that vCPU.
//!
//! Call `KVM_GET_STATS_FD` on a vCPU before its first run (before [`DemoGuest::start`]): a running
//! vCPU keeps the kernel's `vcpu->mutex`, and the call would wait for it, possibly for ever.
#![deny(unsafe_code)]

mod error;
#[cfg(target_arch = "x86_64")]
mod processor;
#[cfg(not(target_arch = "x86_64"))]
#[path = "other_processor.rs"]
mod processor;
mod host;
mod machine;

mod code;

mod farm;
mod known;

mod demo;
mod load;

pub use demo::DemoGuest;
pub use error::Error;
pub use farm::{Farm, FarmVm};
pub use host::usable;
pub use known::{Exits, KnownGuest};
pub use machine::{Irqchip, Vcpu, Vm};
pub use processor::check_processor;
