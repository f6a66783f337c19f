//! Helpers of the integration tests: their requirements on the machine, a real QEMU, the real
//! command, a sampler of real vCPUs, hostile writers of tables, a QMP server and requests to it,
//! and a host of its own with VMMs and hostile users.
//!
//! A helper that cannot do its work panics with a text that says why, which is the report of a
//! test. Every wait has a limit, and every process that is started here ends with its handle.

pub mod require;

pub mod command;
pub mod process;
pub mod python;
pub mod terminal;
pub mod tmux;
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
