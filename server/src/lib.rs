//! The front doors of vmstrobe: at present QMP, see [`qmp`].
//!
//! A [`qmp::Server`] listens on a Unix socket and answers from the providers of a
//! [`Registry`](vmstrobe_core::Registry), as QEMU answers on its own QMP socket. The crate knows
//! the model, the sampler and listening sockets, and no concrete provider.
//!
//! This program serves a registry and asks its own server, as `qmp-shell` would:
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::os::unix::net::UnixStream;
//!
//! use vmstrobe_core::Registry;
//! use vmstrobe_server::qmp::{Config, Server};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // A VMM adds its provider here, for example `vmstrobe::OwnKvm`. Objects that come
//!     // or go later are noticed.
//!     let registry = Registry::default();
//!
//!     let path = std::env::temp_dir().join(format!("vmstrobe-doc-{}.sock", std::process::id()));
//!     let server = Server::listen(&path, registry, Config::default())?;
//!
//!     let mut client = UnixStream::connect(&path)?;
//!     let mut replies = BufReader::new(client.try_clone()?).lines();
//!     replies.next().ok_or("no greeting")??;
//!     client.write_all(br#"{"execute": "qmp_capabilities"}"#)?;
//!     assert_eq!(replies.next().ok_or("no reply")??, r#"{"return": {}}"#);
//!     client.write_all(br#"{"execute": "query-stats", "arguments": {"target": "vcpu"}}"#)?;
//!     assert_eq!(replies.next().ok_or("no reply")??, r#"{"return": []}"#);
//!
//!     println!("answered {} requests", server.counts().requests);
//!     drop(server); // disconnects the clients and removes the socket
//!     assert!(!path.exists());
//!     Ok(())
//! }
//! ```

#![forbid(unsafe_code)]

pub mod qmp;
