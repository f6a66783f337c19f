//! Takes what a server sends, and turns it into objects of the providers.
//!
//! Everything that arrives here has passed a helper ([`Relay`]), which has closed all files but
//! those of KVM and in memory.
//!
//! Invariant: no descriptor is touched before it was found to be what it should be. The first
//! packet that no server sends ends the connection, and with it everything that came by it: its
//! objects are no more, and every open row is marked.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use vmstrobe_core::{Error, ErrorKind, Result};
use vmstrobe_host::{FdOwner, GoneEpoch, Reaper, Relay};
use vmstrobe_kvm::KvmFd;
use vmstrobe_table::{Tables, can_be_table};

use super::kvm::{ExportedKvm, is_stats_fd};
use super::message::{Key, Kind, MAX_PACKET_BYTES, Message, VERSION, malformed};
use super::packet::{Packet, receive};
use super::socket::{CONNECT_LIMIT, Connection};
use super::{MAX_EXPORTED_FDS, MAX_TABLES};

/// So many packets are taken in one go, once connected...
const PACKETS_AT_ONCE: u32 = 64;
/// ...before a pause: a server that sends without end costs a few per cent of a CPU.
const PACKETS_PAUSE: Duration = Duration::from_millis(10);

/// Takes what arrives. It keeps nothing alive: what nobody else has is of no use any more.
pub(super) struct Reader {
    socket: Arc<Relay>,
    connection: Weak<Connection>,
    kvm: Weak<ExportedKvm>,
    tables: Weak<Tables>,
    alive: Arc<AtomicBool>,
    gone_epoch: [GoneEpoch; 2],
    reaper: Reaper,
    /// The name of its tables in errors.
    table_title: String,
    is_greeted: bool,
    exports: BTreeMap<Key, Exported>,
}

/// A descriptor that was exported under a key.
enum Exported {
    Stats(Weak<KvmFd>),
    /// A table, by its number among the tables.
    Table(u64),
    /// A descriptor of no use: its provider is gone.
    Nothing,
}

/// The effect of a packet.
#[derive(PartialEq, Eq)]
enum Step {
    Change,
    All,
    End,
}

impl Reader {
    pub(super) fn new(
        path: &Path,
        socket: Arc<Relay>,
        server: &FdOwner,
        connection: &Arc<Connection>,
        kvm: &Arc<ExportedKvm>,
        tables: &Arc<Tables>,
        reaper: Reaper,
    ) -> Self {
        Self {
            socket,
            connection: Arc::downgrade(connection),
            kvm: Arc::downgrade(kvm),
            tables: Arc::downgrade(tables),
            alive: Arc::clone(&server.alive),
            gone_epoch: [kvm.gone_epoch().clone(), tables.gone_epoch().clone()],
            reaper,
            table_title: format!("a table from {}", path.display()),
            is_greeted: false,
            exports: BTreeMap::new(),
        }
    }

    /// Takes packets until the server says that this is all, for now.
    ///
    /// # Errors
    /// As [`FdClient::connect`](crate::FdClient::connect).
    pub(super) fn take_all(&mut self, deadline: Instant) -> Result<()> {
        // Asked before each packet: there may be no end of them.
        while Instant::now() < deadline {
            let packet = receive(&*self.socket, Some(deadline)).map_err(unreadable)?;
            let Some(packet) = packet else { break };
            match self.step(packet)? {
                Step::Change => {}
                Step::All => return Ok(()),
                Step::End if self.is_greeted => {
                    return Err(Error::new(ErrorKind::NotFound, "the server has ended"));
                }
                Step::End => {
                    let text = "the process that listens there closes the connection at once: give \
                                a socket at which a program offers descriptors";
                    return Err(Error::new(ErrorKind::Malformed, text));
                }
            }
        }
        let text = if self.is_greeted {
            format!(
                "not everything arrived within {CONNECT_LIMIT:?}: the program there is too busy \
                 or stopped"
            )
        } else {
            format!(
                "nothing was sent within {CONNECT_LIMIT:?}: is this a socket at which a program \
                 offers descriptors?"
            )
        };
        Err(Error::new(ErrorKind::Busy, text))
    }

    /// Takes packets until the server ends, or sends what no server does, or nobody needs what it
    /// exports.
    pub(super) fn run(mut self) {
        let refused = self.take_more().err();
        // Relaxed: `GoneEpoch` sees to it that no source misses it for good.
        self.alive.store(false, Ordering::Relaxed);
        self.gone_epoch.iter().for_each(GoneEpoch::note);
        if let Some(kvm) = self.kvm.upgrade() {
            kvm.end(refused.map(|error| error.to_string()));
        }
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }

    fn take_more(&mut self) -> Result<()> {
        let mut count = 0_u32;
        loop {
            let packet = receive(&*self.socket, None).map_err(unreadable)?;
            if packet.map(|packet| self.step(packet)).transpose()? == Some(Step::End) {
                return Ok(());
            }
            count = count.wrapping_add(1);
            if count.is_multiple_of(PACKETS_AT_ONCE) {
                thread::sleep(PACKETS_PAUSE);
            }
        }
    }

    fn step(&mut self, mut packet: Packet) -> Result<Step> {
        let outcome = self.judge(&mut packet);
        packet.fds.into_iter().for_each(|fd| self.reaper.close(fd));
        outcome
    }

    /// Takes the descriptor out of the packet if it is what it should be.
    fn judge(&mut self, packet: &mut Packet) -> Result<Step> {
        if packet.text.is_empty() && packet.fds.is_empty() {
            return Ok(Step::End);
        }
        if packet.is_text_cut {
            return Err(malformed(format!("a packet of over {MAX_PACKET_BYTES} bytes")));
        }
        let message = Message::parse(&packet.text)?;
        check_fds(&message, packet.fds.len(), packet.are_fds_cut)?;
        match (self.is_greeted, message) {
            (false, Message::Hello { version: VERSION }) => self.is_greeted = true,
            (false, Message::Hello { version }) => {
                let text = format!(
                    "the program there speaks version {version} of the protocol, and this one \
                     version {VERSION}: use one release of vmstrobe in both"
                );
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
            (true, Message::Full) => {
                let text =
                    "the program there serves no more clients: end one of them, then try again";
                return Err(Error::new(ErrorKind::Busy, text));
            }
            (true, Message::ExportedFd(key, kind)) => self.take(key, kind, &mut packet.fds)?,
            (true, Message::Gone(key)) => self.give_back(key)?,
            (true, Message::All) => return Ok(Step::All),
            (_, message) => return Err(malformed(format!("'{message}' at the wrong time"))),
        }
        Ok(Step::Change)
    }

    fn take(&mut self, key: Key, kind: Kind, fds: &mut Vec<OwnedFd>) -> Result<()> {
        if self.exports.contains_key(&key) {
            return Err(malformed(format!("the key {key} again")));
        }
        let tables =
            self.exports.values().filter(|exported| matches!(exported, Exported::Table(_)));
        if self.exports.len() >= MAX_EXPORTED_FDS
            || kind == Kind::Table && tables.count() >= MAX_TABLES
        {
            let text = format!(
                "the program there offers more than {MAX_EXPORTED_FDS} descriptors or \
                 {MAX_TABLES} tables, which is the limit"
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let is_it = match (&kind, fds.last()) {
            (_, None) => false,
            (Kind::Table, Some(fd)) => can_be_table(fd),
            (_, Some(fd)) => is_stats_fd(fd, &kind)?,
        };
        let Some(fd) = fds.pop_if(|_| is_it) else {
            let what = Message::ExportedFd(key, kind);
            return Err(malformed(format!("something else as '{what}'")));
        };
        let exported = self.hand_on(key, kind, fd)?;
        self.exports.insert(key, exported);
        Ok(())
    }

    /// Gives a descriptor to the provider that it is for.
    fn hand_on(&self, key: Key, kind: Kind, fd: OwnedFd) -> Result<Exported> {
        match (kind, self.connection.upgrade(), self.tables.upgrade(), self.kvm.upgrade()) {
            (Kind::Table, Some(connection), Some(tables), _) => {
                let server =
                    FdOwner { alive: Arc::clone(&self.alive), watch: connection, seat: None };
                tables.add(&self.table_title, fd, server).map(Exported::Table)
            }
            (kind @ (Kind::Vm { .. } | Kind::Vcpu { .. }), _, _, Some(kvm)) => {
                kvm.add(key, kind, fd).map(Exported::Stats)
            }
            _ => {
                self.reaper.close(fd);
                Ok(Exported::Nothing)
            }
        }
    }

    fn give_back(&mut self, key: Key) -> Result<()> {
        match self.exports.remove(&key) {
            None => return Err(malformed(format!("that {key} is gone, which was not there"))),
            Some(Exported::Stats(stats)) => {
                if let Some(kvm) = self.kvm.upgrade() {
                    kvm.remove(key);
                }
                // Its rows may have outlived the provider.
                if let Some(stats) = stats.upgrade() {
                    stats.retire();
                }
            }
            Some(Exported::Table(number)) => {
                if let Some(tables) = self.tables.upgrade() {
                    tables.remove(number);
                }
            }
            Some(Exported::Nothing) => {}
        }
        Ok(())
    }
}

/// One descriptor comes with an export, none with anything else.
fn check_fds(message: &Message, fds: usize, are_cut: bool) -> Result<()> {
    match (message, fds, are_cut) {
        (Message::ExportedFd(..), 1, false) => Ok(()),
        // A packet has room for some. So it was this process that had none.
        (Message::ExportedFd(..), 0, true) => {
            let text = "no room for another descriptor: raise the limit of open files (ulimit -n)";
            Err(Error::new(ErrorKind::Io, text))
        }
        (Message::ExportedFd(..), ..) | (_, 1.., _) | (_, _, true) => {
            let and_more = if are_cut { " and more" } else { "" };
            Err(malformed(format!("'{message}' with {fds}{and_more} descriptors")))
        }
        (_, 0, false) => Ok(()),
    }
}

fn unreadable(errno: Errno) -> Error {
    Error::caused(ErrorKind::Io, "cannot read what the server sends", errno)
}

#[cfg(test)]
pub(super) mod tests;
