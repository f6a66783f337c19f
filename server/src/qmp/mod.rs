//! The statistics commands of QMP, `query-stats`, `query-stats-schemas` and `info stats`, and
//! streams, for many clients of one [`Server`].
//!
//! A request passes `framer` (bytes to a text), `parse` (to a value), `envelope` (to a command) and
//! `members` (to its arguments), and then the file of its command. docs/qmp.md describes the
//! protocol for clients.
//!
//! Invariant: the class and text of a refusal, the order of checks, the order of keys and the
//! spelling are those of QEMU 10.0, with the exceptions that docs/qmp.md lists. With
//! [`Order::Qemu`](vmstrobe_core::Order::Qemu) so is every byte. Every value is read after its
//! request has arrived.

mod budget;
mod refusal;
mod room;
mod value;
mod parse;
mod framer;
mod envelope;
mod members;
mod version;
mod inventory;
mod filter;
mod pattern;
mod cost;
mod query;
mod schemas;
mod hmp;
mod recorder;
mod introspect;
mod stream;
mod counts;
mod config;
mod shared;
mod session;
mod client;
mod server;

pub use budget::Budget;
pub use config::{Config, Peers};
pub use counts::Counts;
pub use recorder::{DumpArguments, DumpFn, DumpedFile, MarkFn, Recorder};
pub use server::Server;
#[doc(hidden)] // For tests and fuzzing: a conversation without a socket.
pub use server::answers;
pub use vmstrobe_listen::Access;
