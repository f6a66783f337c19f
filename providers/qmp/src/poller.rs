//! The thread that asks: round by round, at its own rate, whatever becomes of QEMU.
//!
//! A round is one `query-stats` a target; once a second the schemas and the vCPUs' names are asked
//! again. After a round the poller rests until the next is due, at least as long as the round took,
//! so that it never takes more than half of QEMU's main loop. An answer that does not come in time
//! ends the round, and nothing more is sent until it has come. A connection that is lost takes its
//! objects with it, and is tried again once a second.
//!
//! A call for newer values of a target ([`Calls`]) is served at once, in a rest and between the
//! queries of a round. A round that is due comes before the next call.
//!
//! Invariant: QEMU is never waited for under a lock. [`Shared`] shows the state at the end of the
//! last round, or for a target that was called for since, at the end of that query.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe_core::{Object, Result, Schema, Target};
use vmstrobe_host::{CpuNames, GoneEpoch, Host, Process};

use super::ask::{Asked, Fault, QmpShare, Wake};
use super::block::Block;
use super::calls::Calls;
use super::peer::Peer;
use super::session::Session;
use super::table::{Query, Table};
use super::talk;

/// The time from the start of one round to the start of the next.
pub(super) const QMP_PERIOD: Duration = Duration::from_millis(100);
/// The period in which schemas and vCPUs are asked for, and a lost connection is tried again.
const RENEW_PERIOD: Duration = Duration::from_secs(1);
/// The longest that all of connecting takes, or a round.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The poller's pause if the system refuses to wait, which takes being out of memory.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// The state that the poller shares with its provider: its knowledge of a QEMU, and the calls.
#[derive(Debug)]
pub(super) struct Shared {
    known: Mutex<Known>,
    /// QEMU's names for its vCPUs.
    pub(super) cpu_names: CpuNames,
    pub(super) calls: Calls,
}

/// The knowledge of a QEMU at the end of a round, or of a query that was called for.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) schemas: Vec<Arc<Schema>>,
    pub(super) objects: Vec<(Object, Arc<Block>)>,
    pub(super) peer_pid: Option<u32>,
    /// The process of that number, if there was one when the connection was made.
    pub(super) peer: Option<Process>,
}

impl Shared {
    /// Makes the state for a QEMU of which nothing is known yet.
    ///
    /// # Errors
    /// `Io` as [`Calls::new`].
    pub(super) fn new() -> Result<Self> {
        let (known, cpu_names) = (Mutex::default(), CpuNames::default());
        Ok(Self { known, cpu_names, calls: Calls::new()? })
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Each of its parts is replaced in one step: no panic leaves one half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who asks.
#[derive(Debug)]
pub(super) struct Poller {
    socket: PathBuf,
    /// Connects, and looks at the process behind the socket.
    host: Host,
    wake: Arc<Wake>,
    shared: Arc<Shared>,
    table: Table,
    session: Option<Session>,
    /// The time at which schemas and vCPUs are asked for again.
    renew_at: Instant,
}

impl Poller {
    /// Connects, and asks for everything once. Gives the VM's name too.
    ///
    /// # Errors
    /// As [`Qmp::connect`](super::Qmp::connect).
    pub(super) fn connect(
        socket: PathBuf,
        share: QmpShare,
        host: Host,
        wake: &Arc<Wake>,
        shared: &Arc<Shared>,
    ) -> Result<(Self, String)> {
        let deadline = Instant::now() + CONNECT_LIMIT;
        let shown = socket.display().to_string();
        let said = |fault| talk::in_words(fault, &shown, || None);
        let mut session = Session::open(&socket, &host, wake, deadline).map_err(said)?;
        let peer = session.peer_pid();
        let said = |fault| talk::in_words(fault, &shown, || Peer::of(peer, &host));
        let file = socket.file_stem().unwrap_or_default().to_string_lossy();
        let name = talk::vm_name(&mut session, &file).map_err(said)?;
        let mut poller = Self {
            table: Table::new(share, &name),
            wake: Arc::clone(wake),
            shared: Arc::clone(shared),
            session: None,
            renew_at: Instant::now(),
            socket: socket.clone(),
            host: host.clone(),
        };
        poller.begin(session).map_err(said)?;
        poller.publish();
        poller.shared.calls.set_open(true);
        Ok((poller, name))
    }

    /// Asks a QEMU for everything once.
    fn begin(&mut self, session: Session) -> Asked<()> {
        let peer_pid = session.peer_pid();
        // No source asks for its end: the connection tells.
        let peer = peer_pid.and_then(|pid| Process::open(pid, &GoneEpoch::default()).ok());
        let mut known = self.shared.known();
        (known.peer_pid, known.peer) = (peer_pid, peer);
        drop(known);
        self.session = Some(session);
        self.renew_at = Instant::now();
        self.round()
    }

    /// Asks until it is woken up.
    pub(super) fn run(mut self) {
        let mut next = Instant::now() + QMP_PERIOD;
        loop {
            let Ok(is_called) = self.rest(next) else { return };
            let begin = Instant::now();
            let deadline = begin + CONNECT_LIMIT;
            match if is_called { self.serve(deadline) } else { self.turn(deadline) } {
                // Refused: what was refused stays as it was.
                Ok(()) | Err(Fault::Late | Fault::Refused(_)) => {}
                Err(Fault::Stopped) => return,
                Err(Fault::Lost(_)) => {
                    self.session = None;
                    self.table.clear();
                }
            }
            self.publish();
            self.shared.calls.set_open(self.session.is_some());
            if is_called && self.session.is_some() {
                continue;
            }
            let period = if self.session.is_some() { QMP_PERIOD } else { RENEW_PERIOD };
            let end = Instant::now();
            next = (begin + period).max(end + (end - begin));
        }
    }

    /// A round, or a try to connect again.
    fn turn(&mut self, deadline: Instant) -> Asked<()> {
        let Some(session) = &mut self.session else {
            let session = Session::open(&self.socket, &self.host, &self.wake, deadline)?;
            // One who greets and then is late or refuses is asked again in rounds.
            return self.begin(session);
        };
        session.settle(deadline)?;
        self.round()
    }

    /// Serves the calls, outside the rounds.
    fn serve(&mut self, deadline: Instant) -> Asked<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.settle(deadline)?;
        self.heed().map(drop)
    }

    fn round(&mut self) -> Asked<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if Instant::now() >= self.renew_at {
            talk::renew(session, &mut self.table, &self.shared.cpu_names)?;
            self.renew_at = Instant::now() + RENEW_PERIOD;
        }
        for query in self.table.queries() {
            if !self.heed()?.contains(&query.target) {
                self.ask(&query)?;
            }
        }
        Ok(())
    }

    /// Asks for the targets that are called for now, each once, and says which.
    fn heed(&mut self) -> Asked<Vec<Target>> {
        let wanted = self.shared.calls.wanted();
        if wanted.is_empty() {
            return Ok(wanted);
        }
        let queries = self.table.queries();
        for target in &wanted {
            match queries.iter().find(|query| query.target == *target) {
                Some(query) => self.ask(query)?,
                // QEMU's schemas no longer have it.
                None => self.shared.calls.answer(target, self.shared.calls.last(), &Ok(())),
            }
        }
        Ok(wanted)
    }

    /// Sends one query, and answers the calls for its target that were made before.
    fn ask(&mut self, query: &Query) -> Asked<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let last = self.shared.calls.last();
        let answer = match talk::values(session, &mut self.table, query) {
            Ok(is_short) => {
                if is_short {
                    self.renew_at = Instant::now();
                }
                Ok(())
            }
            // The rows grow old.
            Err(Fault::Refused(refusal)) => Err(refusal),
            Err(fault) => return Err(fault),
        };
        if self.shared.calls.is_waited_for(&query.target, last) {
            self.publish();
            self.shared.calls.answer(&query.target, last, &answer);
        }
        Ok(())
    }

    /// Shows what is known, if that is anything new.
    fn publish(&self) {
        let mut known = self.shared.known();
        let keys = known.objects.iter().map(|(object, _)| object.key);
        if !keys.eq(self.table.held().map(|held| held.object.key)) {
            let held = self.table.held();
            known.objects =
                held.map(|held| (held.object.clone(), Arc::clone(&held.block))).collect();
        }
        known.schemas.clear();
        known.schemas.extend(self.table.schemas().cloned());
    }

    /// Waits until somebody calls, which gives true, or for the next round; not so long if QEMU
    /// closes the connection.
    fn rest(&self, until: Instant) -> Asked<bool> {
        let calls = &self.shared.calls;
        while Instant::now() < until {
            if calls.is_any_waiting() {
                return Ok(true);
            }
            let woken = match &self.session {
                Some(session) => session.rest(calls.bell(), until),
                None => self.wake.wait(&[], until),
            };
            match woken {
                Ok(true) if !calls.is_rung() => return Ok(false),
                Ok(_) => {}
                Err(Fault::Stopped) => return Err(Fault::Stopped),
                Err(_) => thread::sleep(REFUSED_PAUSE),
            }
        }
        Ok(false)
    }
}
