//! Helpers of the integration tests: what they need of the machine, a real QEMU, the real
//! command, a sampler over real vCPUs, a writer of tables that means no good, a QMP server and what
//! is asked of it, a host of its own with VMMs on it and with users that mean no good.
//!
//! A helper that cannot do its work panics with a text that says why: in a test, that is the
//! report. Every wait has a limit, and every process that is started here ends with its handle.

pub mod require;

pub mod command;
pub mod process;
pub mod terminal;
pub mod qemu;
pub mod qmp;
pub mod rig;

pub mod replies;
pub mod requests;
pub mod serve;
pub mod observed;
pub mod wire;

pub mod hostile;

pub mod host;
pub mod hostile_host;
