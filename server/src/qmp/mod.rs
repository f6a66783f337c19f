//! QMP, the part of it that is about statistics.

mod refusal;
mod qdict;
mod value;
mod framer;
mod envelope;
mod members;
mod version;
mod inventory;
mod filter;
mod pattern;
mod query;
mod hmp;
mod introspect;
mod stream;
mod counts;
mod session;
mod client;
mod server;

pub use client::{MAX_UNSENT_BYTES, UNREAD_LIMIT};
pub use counts::Counts;
pub use server::{Config, MAX_CLIENTS, Server, answers};
pub use vmstrobe_listen::Access;
