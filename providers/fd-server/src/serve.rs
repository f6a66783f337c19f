//! The server's thread: lets clients in, and tells each what there is and what is no more.
//!
//! Invariant: nobody waits for a client. Packets are sent only where there is room; what a
//! client has not been told yet follows from what it was told, so there is no queue to grow. One
//! that takes nothing for [`SEND_LIMIT`] is cut off, and what clients send is never read.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown, sockopt};
use vmstrobe_listen::Listening;

use super::message::{Key, Kind, Message, VERSION};
use super::offers::{Offer, Offers};
use super::packet::send;
use super::{ExportedFd, MAX_EXPORTED_FDS, MAX_TABLES};

/// The most clients at a time.
pub(crate) const MAX_CLIENTS: usize = 16;
/// The longest that a client may take nothing although there is something for it.
pub(crate) const SEND_LIMIT: Duration = Duration::from_secs(2);
/// The pause before the offers are looked at again, while there are clients; and before something
/// that the system has refused is tried again.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Room for packets that a client has not taken yet: some ten. Each holds a descriptor, of which
/// all processes of a user without privileges together can have only so many under way
/// (`RLIMIT_NOFILE`).
const UNTAKEN_BYTES: usize = 4096;
/// The most that are let in before those who are in have their turn.
const ADMITTED_AT_ONCE: usize = 16;

/// The state of the thread.
pub(super) struct Serving {
    offers: Arc<Offers>,
    listening: Listening,
    clients: Vec<Client>,
    exported: Exported,
    look_at: Instant,
    admit_at: Instant,
}

/// The exports that there are now; none while there is no client.
#[derive(Default)]
struct Exported {
    exports: BTreeMap<Key, ExportedFd>,
    /// Moves when they change.
    version: u64,
}

struct Client {
    socket: OwnedFd,
    is_greeted: bool,
    /// The exports that it was told of, and not told to be gone.
    told: BTreeSet<Key>,
    owes_all: bool,
    /// The version that it was told all of.
    up_to: Option<u64>,
    /// Whether the socket has no room for the next packet.
    is_full: bool,
    /// The time since which it has taken nothing, if there is something for it.
    waits_since: Option<Instant>,
}

impl Serving {
    pub(super) fn new(offers: Arc<Offers>, listening: Listening) -> Self {
        let now = Instant::now();
        let (clients, exported) = (Vec::new(), Exported::default());
        Self { offers, listening, clients, exported, look_at: now, admit_at: now }
    }

    /// Serves until it is stopped. Then all connections are closed, by which clients know.
    pub(super) fn run(mut self) {
        while !self.offers.is_stopped() {
            self.wait();
            self.admit();
            self.look();
            let exported = &self.exported;
            self.clients.retain_mut(|client| client.is_served(exported));
        }
    }

    /// Waits until something is to be done, and forgets the clients that have left.
    fn wait(&mut self) {
        let now = Instant::now();
        let admits = if now >= self.admit_at { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::new(self.offers.changed(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listening.socket(), admits),
        ];
        fds.extend(self.clients.iter().map(|client| {
            let room = if client.is_full { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(&client.socket, room)
        }));
        let until = if self.clients.is_empty() { self.admit_at } else { self.look_at };
        let pause = Timespec::try_from(until.saturating_duration_since(now));
        let is_at_rest = self.clients.is_empty() && !admits.is_empty();
        match poll(&mut fds, pause.as_ref().ok().filter(|_| !is_at_rest)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return thread::sleep(LOOK_PAUSE),
        }
        let mut events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let mut theirs = events.split_off(2).into_iter();
        let left = PollFlags::HUP | PollFlags::ERR;
        self.clients.retain(|_| theirs.next().is_none_or(|events| !events.intersects(left)));
        if !events[0].is_empty() {
            self.offers.settle();
            self.look_at = now;
        }
    }

    fn admit(&mut self) {
        let now = Instant::now();
        if now < self.admit_at {
            return;
        }
        for _ in 0..ADMITTED_AT_ONCE {
            match self.listening.accept() {
                Ok(socket) if self.clients.len() < MAX_CLIENTS => {
                    self.clients.extend(Client::new(socket));
                    // The last look may be from when there was no client, and nothing to export.
                    self.look_at = now;
                }
                Ok(socket) => refuse(&socket),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // There is no fd for the client: it waits, and may leave.
                Err(_) => {
                    self.admit_at = now + LOOK_PAUSE;
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        let now = Instant::now();
        if self.clients.is_empty() {
            // Nothing is kept open for nobody.
            self.exported.exports.clear();
        } else if now >= self.look_at {
            self.exported.look(&self.offers.all());
            self.look_at = now + LOOK_PAUSE;
        }
    }
}

impl Exported {
    fn look(&mut self, offers: &[Offer]) {
        let before = std::mem::take(&mut self.exports);
        let known: Vec<Key> = before.keys().copied().collect();
        let mut unanswered = Vec::new();
        for Offer { number, what, .. } in offers {
            let keyed = |export: ExportedFd| (Key { offer: *number, export: export.key }, export);
            match what.exports() {
                Ok(exports) => self.exports.extend(exports.into_iter().map(keyed)),
                // For want of an fd, say. What was there still is.
                Err(_) => unanswered.push(*number),
            }
        }
        self.exports.extend(before.into_iter().filter(|(key, _)| unanswered.contains(&key.offer)));
        self.leave_tables_out(&known);
        while self.exports.len() > MAX_EXPORTED_FDS {
            self.exports.pop_last();
        }
        if !self.exports.keys().eq(&known) {
            self.version += 1;
        }
    }

    /// Leaves the tables out that are over the limit. Those that may have been exported already
    /// stay: a key that was given back must not come again.
    fn leave_tables_out(&mut self, known: &[Key]) {
        let is_known = |key: &Key| known.binary_search(key).is_ok();
        let tables = self.exports.iter().filter(|(_, export)| export.kind == Kind::Table);
        let exported = tables.filter(|(key, _)| is_known(key)).count();
        let mut room = MAX_TABLES.saturating_sub(exported);
        self.exports.retain(|key, export| {
            let is_new = export.kind == Kind::Table && !is_known(key);
            let stays = !is_new || room > 0;
            room -= usize::from(is_new && stays);
            stays
        });
    }
}

impl Client {
    /// `None` if the system does not let it be served as it must be, or it has left.
    fn new(socket: OwnedFd) -> Option<Self> {
        sockopt::set_socket_send_buffer_size(&socket, UNTAKEN_BYTES).ok()?;
        // From now on it cannot send anything.
        shutdown(&socket, Shutdown::Read).ok()?;
        Some(Self {
            socket,
            is_greeted: false,
            told: BTreeSet::new(),
            owes_all: true,
            up_to: None,
            is_full: false,
            waits_since: None,
        })
    }

    /// Tells it as much as there is room for. False if it is to be cut off.
    fn is_served(&mut self, exported: &Exported) -> bool {
        let now = Instant::now();
        let mut took_any = false;
        match self.tell(exported, &mut took_any) {
            Ok(()) => {
                (self.is_full, self.waits_since) = (false, None);
                true
            }
            // The second is said of too many descriptors under way: there is no event for its end.
            Err(errno @ (Errno::AGAIN | Errno::TOOMANYREFS)) => {
                self.is_full = errno == Errno::AGAIN;
                let since = if took_any { None } else { self.waits_since };
                let since = *self.waits_since.insert(since.unwrap_or(now));
                now.duration_since(since) < SEND_LIMIT
            }
            Err(_) => false,
        }
    }

    fn tell(&mut self, exported: &Exported, took_any: &mut bool) -> rustix::io::Result<()> {
        if self.up_to == Some(exported.version) {
            return Ok(());
        }
        let mut say = |message: &Message, export: Option<&ExportedFd>| {
            send(self.socket.as_fd(), &message.to_string(), export.map(ExportedFd::fd))?;
            *took_any = true;
            rustix::io::Result::Ok(())
        };
        if !self.is_greeted {
            say(&Message::Hello { version: VERSION }, None)?;
            self.is_greeted = true;
        }
        let gone = self.told.iter().filter(|key| !exported.exports.contains_key(key));
        for key in gone.copied().collect::<Vec<_>>() {
            say(&Message::Gone(key), None)?;
            self.told.remove(&key);
            self.owes_all = true;
        }
        for (&key, export) in &exported.exports {
            if !self.told.contains(&key) {
                say(&Message::ExportedFd(key, export.kind.clone()), Some(export))?;
                self.told.insert(key);
                self.owes_all = true;
            }
        }
        if self.owes_all {
            say(&Message::All, None)?;
            self.owes_all = false;
        }
        self.up_to = Some(exported.version);
        Ok(())
    }
}

/// Tells a client that as many are connected as may be.
fn refuse(socket: &OwnedFd) {
    for message in [Message::Hello { version: VERSION }, Message::Full] {
        // Its socket is new and has room for both, or it has left.
        let _ = send(socket.as_fd(), &message.to_string(), None);
    }
}

#[cfg(test)]
pub(super) mod tests;
