//! The server: a socket, a thread that lets clients in, and one for each of them.
//!
//! Invariant: no client can keep another from being served, nor the server from ending. There are
//! at most [`MAX_CLIENTS`], and a thread that has ended is joined at once.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::net::{Shutdown, shutdown};
use vmstrobe_core::{Error, ErrorKind, Order, Registry, Result};
use vmstrobe_listen::{Access, Kind, Listening};

use super::client::{Client, End};
use super::counts::Counts;
use super::session::{Session, Shared};

/// The most clients of a server at a time.
pub const MAX_CLIENTS: usize = 64;
/// The stack of a client's thread: the 1024 levels that QEMU lets a JSON text have are parsed by as
/// many calls. Only what is used of it is memory.
const STACK_BYTES: usize = 4 << 20;
/// How soon what the system refuses is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The most that are let in before threads that have ended have their turn.
const ADMITTED_AT_ONCE: usize = 16;

/// Who may ask, and how he is answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Who may connect. Whoever may sees all statistics.
    pub access: Access,
    /// Whose habits the replies have.
    pub order: Order,
    /// Is told what cannot be looked at, each when it was not there
    /// a look ago.
    pub complain: Option<fn(&Error)>,
}

/// Answers QMP at a Unix socket, to many clients at once.
///
/// Dropping it disconnects them and removes the socket; that takes as long as the requests that are
/// being answered.
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
    thread: Option<JoinHandle<()>>,
}

/// What all threads of a server know of its end, and the accepting one of theirs.
#[derive(Debug)]
struct Gate {
    stop: AtomicBool,
    /// Readable when the server or a client's thread has ended.
    wake: OwnedFd,
}

impl Server {
    /// Listens at that path and answers from what is in the registry then and later. A socket that
    /// nobody has any more is replaced.
    ///
    /// # Errors
    /// `Busy` if somebody listens there, `Unsupported` if another kind of file is there, `TooLarge`
    /// if the path is too long for a socket (108 bytes), `NotFound` or `Denied` if its directory is
    /// not there or not ours to write, `Denied` if the group is not ours to give, `Io` if the
    /// system has no thread or fd for it.
    pub fn listen(path: &Path, registry: Registry, config: Config) -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::caused(ErrorKind::Io, "cannot make an eventfd", errno))?;
        let listening = Listening::at(path, Kind::Stream, &config.access)?;
        let shared = Arc::new(Shared::new(&registry, config.order, config.complain)?);
        let gate = Arc::new(Gate { stop: AtomicBool::new(false), wake });
        let accepting = Accepting {
            listening,
            shared: Arc::clone(&shared),
            gate: Arc::clone(&gate),
            served: Vec::new(),
            admit_at: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name("vmstrobe-accept".to_owned())
            .spawn(move || accepting.run())
            .map_err(|error| Error::caused(ErrorKind::Io, "cannot start the server", error))?;
        Ok(Self { shared, gate, thread: Some(thread) })
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts.counts()
    }
}

/// What a server would send to a client who sends these pieces, one after the other: the greeting
/// first, no events. For tests and fuzzing; there is no socket, and objects are looked for once.
///
/// ```
/// use vmstrobe_core::{Order, Registry};
/// use vmstrobe_server::qmp::answers;
///
/// let requests = br#"{"execute": "qmp_capabilities"} {"execute": "nonsense", "id": 7}"#;
/// let replies = answers(&Registry::default(), Order::Schema, [&requests[..]]);
/// let replies = String::from_utf8(replies).expect("it is ASCII");
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
        self.gate.stop.store(true, Ordering::Relaxed);
        self.gate.wake();
        if let Some(thread) = self.thread.take() {
            // It only fails if it panicked, which it has then said itself.
            let _ = thread.join();
        }
    }
}

impl Gate {
    fn is_stopped(&self) -> bool {
        // Relaxed: nothing is read because of the flag, and the wake-up follows it.
        self.stop.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then it is readable as it is.
        let _ = write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// To be called before looking what has ended, so that no end is missed.
    fn settle(&self) {
        let _ = read(&self.wake, &mut [0; 8]);
    }
}

/// What the accepting thread has.
struct Accepting {
    listening: Listening,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    served: Vec<Served>,
    admit_at: Instant,
}

/// A client's thread, and his socket while it has it.
struct Served {
    socket: Weak<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Accepting {
    /// Until the server ends.
    fn run(mut self) {
        while !self.gate.is_stopped() {
            self.wait();
            self.reap();
            self.admit();
        }
        let Self { listening, served, .. } = self;
        // Nobody comes any more.
        drop(listening);
        for socket in served.iter().filter_map(|one| one.socket.upgrade()) {
            // Wakes his thread, wherever it waits.
            let _ = shutdown(&*socket, Shutdown::Both);
        }
        for one in served {
            let _ = one.thread.join();
        }
    }

    /// Until somebody comes or leaves, or the server ends.
    fn wait(&self) {
        let now = Instant::now();
        let admits = if now >= self.admit_at { PollFlags::IN } else { PollFlags::empty() };
        let pause = Timespec::try_from(self.admit_at.saturating_duration_since(now));
        let mut fds = [
            PollFd::new(&self.gate.wake, PollFlags::IN),
            PollFd::from_borrowed_fd(self.listening.socket(), admits),
        ];
        match poll(&mut fds, pause.as_ref().ok().filter(|_| admits.is_empty())) {
            Ok(_) | Err(Errno::INTR) => self.gate.settle(),
            Err(_) => thread::sleep(RETRY_PAUSE),
        }
    }

    /// Joins the threads that have ended.
    fn reap(&mut self) {
        for one in self.served.extract_if(.., |one| one.socket.strong_count() == 0) {
            // If it panicked it has said so, and it was one client's.
            let _ = one.thread.join();
        }
    }

    fn admit(&mut self) {
        let now = Instant::now();
        if now < self.admit_at {
            return;
        }
        for _ in 0..ADMITTED_AT_ONCE {
            match self.listening.accept() {
                Ok(socket) => self.let_in(socket),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // There is no fd for him: he waits, and may leave.
                Err(_) => {
                    self.admit_at = now + RETRY_PAUSE;
                    return;
                }
            }
        }
    }

    fn let_in(&mut self, socket: OwnedFd) {
        if self.served.len() >= MAX_CLIENTS {
            let why = format!("{MAX_CLIENTS} clients are connected, as many as may be");
            return self.refuse(socket, &why);
        }
        let socket = Arc::new(socket);
        let serving = Serving {
            socket: Some(Arc::clone(&socket)),
            shared: Arc::clone(&self.shared),
            gate: Arc::clone(&self.gate),
        };
        self.shared.counts.clients.add(1);
        let thread = thread::Builder::new()
            .name("vmstrobe-qmp".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || serving.run());
        match thread {
            Ok(thread) => {
                self.shared.counts.clients_served.add(1);
                self.served.push(Served { socket: Arc::downgrade(&socket), thread });
            }
            Err(_) => {
                if let Some(socket) = Arc::into_inner(socket) {
                    self.refuse(socket, "the system has no thread for one more client");
                }
            }
        }
    }

    /// Tells him why, and closes.
    fn refuse(&self, socket: OwnedFd, why: &str) {
        self.shared.counts.clients_refused.add(1);
        let line =
            format!("{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"{why}\"}}}}\r\n");
        // His socket is new and has room for a line, or he has left.
        let _ = UnixStream::from(socket).write_all(line.as_bytes());
    }
}

/// What a client's thread has. However it ends, it is known to have.
struct Serving {
    socket: Option<Arc<OwnedFd>>,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
}

impl Serving {
    fn run(self) {
        let Some(socket) = &self.socket else { return };
        let counts = &self.shared.counts;
        let session = Session::new(Arc::clone(&self.shared));
        if Client::new(socket.as_fd(), session, counts, &self.gate.stop).serve() == End::Unread {
            counts.clients_dropped.add(1);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // The accepting thread has no hold on it: it is closed now.
        self.socket = None;
        self.shared.counts.clients.take_one();
        self.gate.wake();
    }
}

#[cfg(test)]
mod tests;
