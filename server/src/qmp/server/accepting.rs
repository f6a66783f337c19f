//! The thread that accepts clients, and the threads that serve them.
//!
//! Invariant: a client that connects is served or told why not, in bounded time, even if the
//! process has no descriptor left. A thread that has ended is joined at once.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Uid, geteuid};
use vmstrobe_core::{Error, ErrorKind, Result, Thread};
use vmstrobe_listen::Listening;

use crate::qmp::budget::Lease;
use crate::qmp::client::{Client, End};
use crate::qmp::config::Peers;
use crate::qmp::session::Session;
use crate::qmp::shared::Shared;

/// The most clients of a server at a time.
pub(super) const MAX_CLIENTS: usize = 64;
/// The stack of a client's thread. The 1024 levels of nesting that QEMU allows in a JSON text are
/// parsed by as many nested calls. Only the used part of a stack takes memory.
const STACK_BYTES: usize = 4 << 20;
/// The time that a client waits for a descriptor before it is told that there is none.
pub(super) const SHORTAGE_LIMIT: Duration = Duration::from_secs(2);
/// The pause before an operation is tried again that the system refused.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The most clients that are accepted before ended threads are joined.
const ADMITTED_AT_ONCE: usize = 16;

/// The flag that ends all threads of a server, and the eventfd that wakes the accepting one.
#[derive(Debug)]
pub(super) struct Gate {
    stop: AtomicBool,
    /// Readable when the server is to end or a client's thread has ended.
    wake: OwnedFd,
}

impl Gate {
    /// # Errors
    /// `Io` if the system has no descriptor left.
    pub(super) fn new() -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::caused(ErrorKind::Io, "cannot make an eventfd", errno))?;
        Ok(Self { stop: AtomicBool::new(false), wake })
    }

    /// Tells the threads of the server to end, without waiting for them.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
    }

    fn is_stopped(&self) -> bool {
        // Relaxed, because no other data depends on the flag, and the wake-up follows it.
        self.stop.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        // The write fails only if the counter is full, and then the eventfd is readable anyway.
        let _ = write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Resets the eventfd. Ended threads are looked for afterwards, so that none is missed.
    fn settle(&self) {
        let _ = read(&self.wake, &mut [0; 8]);
    }
}

/// The state of the accepting thread.
pub(super) struct Accepting {
    listening: Listening,
    pub(super) shared: Arc<Shared>,
    gate: Arc<Gate>,
    pub(super) served: Vec<Served>,
    /// A descriptor that is closed when no other is left, so that a client can be accepted and
    /// told.
    spare: Option<OwnedFd>,
    /// The time since which no other descriptor has been left.
    short_since: Option<Instant>,
    admit_at: Instant,
}

/// A client's thread, and the client's socket while the thread has it.
pub(super) struct Served {
    socket: Weak<OwnedFd>,
    thread: Thread<()>,
}

impl Accepting {
    pub(super) fn new(listening: Listening, shared: Arc<Shared>, gate: Arc<Gate>) -> Self {
        let (served, admit_at) = (Vec::new(), Instant::now());
        let (spare, short_since) = (None, None);
        let mut new = Self { listening, shared, gate, served, spare, short_since, admit_at };
        new.keep_spare();
        new
    }

    /// Accepts clients until the server ends.
    pub(super) fn run(mut self) {
        while !self.gate.is_stopped() {
            self.wait();
            self.reap();
            self.admit();
        }
        let Self { listening, served, .. } = self;
        // From here on, no client can connect.
        drop(listening);
        for socket in served.iter().filter_map(|one| one.socket.upgrade()) {
            // This wakes the thread, wherever it waits.
            let _ = shutdown(&*socket, Shutdown::Both);
        }
        for one in served {
            let _ = one.thread.join();
        }
    }

    /// Waits until a client connects or a thread ends.
    pub(super) fn wait(&self) {
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
    pub(super) fn reap(&mut self) {
        for one in self.served.extract_if(.., |one| one.socket.strong_count() == 0) {
            // If the thread panicked, it has printed its own message, and only its client is
            // affected.
            let _ = one.thread.join();
        }
    }

    fn admit(&mut self) {
        let now = Instant::now();
        if now < self.admit_at {
            return;
        }
        self.keep_spare();
        for _ in 0..ADMITTED_AT_ONCE {
            if self.admit_at > now {
                return;
            }
            match self.listening.accept() {
                Ok(socket) => {
                    self.short_since = None;
                    self.let_in(socket);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) if now >= *self.short_since.get_or_insert(now) + SHORTAGE_LIMIT => {
                    self.turn_away();
                }
                // No descriptor is left for the client, which waits and may leave.
                Err(_) => {
                    self.admit_at = now + RETRY_PAUSE;
                    return;
                }
            }
        }
    }

    /// Accepts a client with the spare descriptor, to tell it that no other is left.
    fn turn_away(&mut self) {
        self.spare = None;
        match self.listening.accept() {
            Ok(socket) => self.refuse(
                socket,
                "the server has no descriptor for one more client: try again later",
            ),
            // Another thread took the descriptor, or the whole system has none left.
            Err(_) => self.admit_at = Instant::now() + RETRY_PAUSE,
        }
        self.keep_spare();
    }

    fn keep_spare(&mut self) {
        if self.spare.is_none() {
            // Any descriptor will do. If none is left now, the next call tries again.
            self.spare = self.gate.wake.try_clone().ok();
        }
    }

    pub(super) fn let_in(&mut self, socket: OwnedFd) {
        if !may_be_client(self.shared.peers, &socket) {
            return self.refuse(
                socket,
                "only the user of the process that listens here, and root, may ask it",
            );
        }
        if self.served.len() >= MAX_CLIENTS {
            let why = format!(
                "{MAX_CLIENTS} clients are connected, and the server takes no more: try again later"
            );
            return self.refuse(socket, &why);
        }
        let pool = &self.shared.budget.pools().clients;
        let Some(seat) = pool.take(1) else {
            let all = pool.max();
            let why = format!(
                "{all} clients of all servers are connected, and no more are taken: try again later"
            );
            return self.refuse(socket, &why);
        };
        let socket = Arc::new(socket);
        let serving = Serving {
            socket: Some(Arc::clone(&socket)),
            shared: Arc::clone(&self.shared),
            gate: Arc::clone(&self.gate),
            _seat: seat,
        };
        self.shared.counts.clients.add(1);
        let builder = Builder::new().stack_size(STACK_BYTES);
        let threads = &self.shared.threads;
        let thread = threads.spawn_by(builder, "vmstrobe-client", move || serving.run());
        match thread {
            Ok(thread) => {
                self.shared.counts.clients_served.add(1);
                self.served.push(Served { socket: Arc::downgrade(&socket), thread });
            }
            Err(_) => {
                if let Some(socket) = Arc::into_inner(socket) {
                    self.refuse(
                        socket,
                        "the system has no thread for one more client: try again later",
                    );
                }
            }
        }
    }

    /// Tells the client why, and closes the connection.
    fn refuse(&self, socket: OwnedFd, why: &str) {
        self.shared.counts.clients_refused.add(1);
        let line =
            format!("{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"{why}\"}}}}\r\n");
        // The socket is new and has room for a line, or the client has left.
        let _ = UnixStream::from(socket).write_all(line.as_bytes());
    }
}

/// Returns whether the process that connected may be a client.
fn may_be_client(peers: Peers, socket: &OwnedFd) -> bool {
    let (own, root) = (geteuid(), Uid::ROOT);
    let is_same = || socket_peercred(socket).is_ok_and(|peer| [own, root].contains(&peer.uid));
    peers == Peers::All || is_same()
}

/// The resources of a client's thread. However that thread ends, the accepting thread is woken.
struct Serving {
    socket: Option<Arc<OwnedFd>>,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    /// The client's share of the clients of all servers.
    _seat: Lease,
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
        // The accepting thread has only a weak reference, so this closes the socket.
        self.socket = None;
        self.shared.counts.clients.take_one();
        self.gate.wake();
    }
}
