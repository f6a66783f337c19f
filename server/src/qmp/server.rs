//! The server: a listening socket, a thread that accepts clients, and a thread for each client.
//!
//! Invariant: no client can keep another from being served, nor the server from ending.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::{Order, Registry, Result, Thread};
use vmstrobe_listen::{Kind, Listening};

use self::accepting::{Accepting, Gate};
use super::config::Config;
use super::counts::Counts;
use super::session::Session;
use super::shared::Shared;

mod accepting;

/// A QMP server on a Unix socket, for many clients at once.
///
/// Dropping it disconnects the clients and removes the socket. The drop waits for the requests that
/// are being answered.
///
/// ```
/// use vmstrobe_core::Registry;
/// use vmstrobe_server::qmp::{Config, Server};
///
/// let registry = Registry::default(); // providers are added now, or while it serves
/// let path = std::env::temp_dir().join(format!("vmstrobe-{}.sock", std::process::id()));
/// let server = Server::listen(&path, registry.clone(), Config::default())?;
/// assert_eq!(server.counts().clients, 0);
/// drop(server);
/// assert!(!path.exists());
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    thread: Option<Thread<()>>,
}

impl Server {
    /// Listens at a path and answers from the providers that are in the registry now or later. A
    /// stale socket file is replaced.
    ///
    /// # Errors
    /// `Busy` if another process listens there, `Unsupported` if the path is another kind of file,
    /// `TooLarge` if the path is too long for a socket (108 bytes), `NotFound` if its directory
    /// does not exist, `Denied` if the directory cannot be written or the group cannot be set, `Io`
    /// if the system has no thread or descriptor left.
    pub fn listen(path: &Path, registry: Registry, config: Config) -> Result<Self> {
        Self::at(Listening::at(path, Kind::Stream, &config.access)?, registry, config)
    }

    /// Serves a socket that listens already, of [`Kind::Stream`], for a program in which another
    /// thread has the rights to make the socket. `config.access` has no effect.
    ///
    /// # Errors
    /// `Io` if the system has no thread or descriptor left.
    pub fn at(listening: Listening, registry: Registry, config: Config) -> Result<Self> {
        let gate = Arc::new(Gate::new()?);
        let threads = config.threads.clone();
        let shared = Arc::new(Shared::new(&registry, config)?);
        let accepting = Accepting::new(listening, Arc::clone(&shared), Arc::clone(&gate));
        let thread = threads.spawn("vmstrobe-accept", move || accepting.run())?;
        Ok(Self { shared, gate, thread: Some(thread) })
    }

    /// Returns what the server has done so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts.counts()
    }
}

/// Returns the bytes that a server sends to a client that sends these pieces: the greeting, then
/// the replies, and no events.
///
/// For tests and fuzzing. There is no socket, and objects are looked for once.
///
/// ```
/// use vmstrobe_core::{Order, Registry};
/// use vmstrobe_server::qmp::answers;
///
/// let requests = br#"{"execute": "qmp_capabilities"} {"execute": "nonsense", "id": 7}"#;
/// let replies = answers(&Registry::default(), Order::Schema, [&requests[..]]);
/// let replies = String::from_utf8(replies).expect("a server sends ASCII");
/// let mut lines = replies.lines().skip(1);
/// assert_eq!(lines.next(), Some(r#"{"return": {}}"#));
/// assert!(lines.next().is_some_and(|line| line.starts_with(r#"{"id": 7, "error": "#)));
/// ```
pub fn answers<'a>(
    registry: &Registry,
    order: Order,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut session = Session::new(Arc::new(Shared::fixed(registry, order)));
    let mut out = Vec::new();
    session.greet(&mut out);
    for piece in pieces {
        session.push(piece);
        while session.answer_next(&mut out) {}
    }
    out
}

impl Drop for Server {
    fn drop(&mut self) {
        self.gate.stop();
        if let Some(thread) = self.thread.take() {
            // The join fails only after a panic of the thread, which has printed its own message.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
