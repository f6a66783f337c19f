//! A Unix socket that listens at a path.
//!
//! Invariant: a path at which a process listens is never taken from it. A socket's file is removed
//! by the process that made it, or when no process has that socket any more; a file of another kind
//! is never removed. At no moment may more users connect than were asked for. No other user can
//! make a process wait that listens.
//!
//! ```
//! use vmstrobe_listen::{Access, Kind, Listening};
//!
//! # let path = std::env::temp_dir().join(format!("vmstrobe-listen-{}", std::process::id()));
//! let listening = Listening::at(&path, Kind::Stream, &Access::default())?;
//! let client = std::os::unix::net::UnixStream::connect(&path).expect("the socket listens");
//! let ours = listening.accept().expect("a client waits to be accepted");
//! # drop((client, ours));
//! drop(listening);
//! assert!(!path.exists());
//! # Ok::<(), vmstrobe_core::Error>(())
//! ```

#![forbid(unsafe_code)]

mod listening;
mod lock;
mod place;
mod access;

pub use access::Access;
pub use listening::{Kind, Listening, remove_if_stale};
pub use place::SocketFile;
