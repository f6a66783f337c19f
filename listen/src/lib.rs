//! A Unix socket that listens at a path.
//!
//! Invariant: a path at which somebody listens is never taken from him. A socket's file is removed
//! by whoever made it, or when nobody has that socket any more; another kind of file never is. At
//! no moment may more connect than was asked for.
//!
//! ```
//! use vmstrobe_listen::{Access, Kind, Listening};
//!
//! # let path = std::env::temp_dir().join(format!("vmstrobe-listen-{}", std::process::id()));
//! let listening = Listening::at(&path, Kind::Stream, &Access::default())?;
//! let client = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
//! let ours = listening.accept().expect("somebody waits to be let in");
//! # drop((client, ours));
//! drop(listening);
//! assert!(!path.exists());
//! # Ok::<(), vmstrobe_core::Error>(())
//! ```

#![forbid(unsafe_code)]

mod listening;
mod place;
mod access;

pub use access::Access;
pub use listening::{Kind, Listening};
