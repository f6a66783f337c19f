//! QMP, the part of it that is about statistics: `query-stats`, `query-stats-schemas`, `info
//! stats`, and streams, for many clients of one [`Server`].
//!
//! From the bytes of a request to its reply: `framer`, `value`, `envelope`, then `members` and what
//! each command makes of them. docs/qmp.md tells clients what to expect.
//!
//! Invariant: class and text of every refusal, order of checks, order of keys and spelling are
//! those of QEMU 10.0; with [`Order::Qemu`](vmstrobe_core::Order::Qemu) so is every byte. What is
//! answered was read after the request arrived.

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
mod introspect;
mod stream;
mod counts;
mod shared;
mod session;
mod client;
mod server;

pub use budget::Budget;
pub use counts::Counts;
#[doc(hidden)] // For tests and fuzzing: a conversation without a socket.
pub use server::answers;
pub use server::{Config, Server};
pub use vmstrobe_listen::Access;
