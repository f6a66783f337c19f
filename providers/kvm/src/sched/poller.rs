//! The thread that reads /proc ten times a second, for every vCPU that a source reads there.
//!
//! The threads of vCPUs are looked for whenever the provider lists objects that are read there, and
//! about once a second while a vCPU that is read has no known thread. Nothing is opened before it
//! is read.
//!
//! Invariant: files are opened, by the broker, read and closed under the lock of [`State`], which
//! neither a tick nor the broker takes. A file stays with the vCPU only as long as its thread is
//! the one that was told last.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use vmstrobe_core::{Result, Thread, ThreadStart};
use vmstrobe_host::{Broker, Polled, clock_ns, procfs};

use super::schedstat::Schedstat;
use super::threads::{self, Clues};
use super::watched::Watched;
use crate::vcpu::Vcpu;

/// The time from the start of one round of readings to the start of the next.
pub(super) const SCHED_PERIOD: Duration = Duration::from_millis(100);
/// The shortest time between two rounds that look for unknown threads.
const TELL_PERIOD: Duration = Duration::from_secs(1);

/// The thread `vmstrobe-sched`. It ends when this is dropped, by the provider or the last source.
#[derive(Debug)]
pub(super) struct Poller {
    shared: Arc<Shared>,
    thread: Option<Thread<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is more to do, or no more.
    changed: Condvar,
    /// Whether the kernel numbers threads as our /proc does.
    ids_are_ours: bool,
}

#[derive(Debug)]
struct State {
    /// Reads and opens in /proc, which may hide other users' processes from other threads.
    broker: Broker,
    is_stopped: bool,
    /// The clues of all vCPUs that there are.
    clues: Vec<Clues>,
    /// The threads that could be told, by the vCPUs' keys.
    told: HashMap<u64, u32>,
    /// When a round may look for them again.
    tell_at: Instant,
    readers: Vec<Reader>,
}

/// A vCPU that is read from /proc.
#[derive(Debug)]
struct Reader {
    /// Ends with the last source that has it.
    watched: Weak<Watched>,
    /// `None` as long as nobody wants it, or its thread is not known.
    times: Option<Schedstat>,
}

impl Poller {
    /// Starts the thread so. It waits until there is something to read; the broker opens it.
    ///
    /// # Errors
    /// As [`ThreadStart::spawn`].
    pub(super) fn start(broker: &Broker, threads: &ThreadStart) -> Result<Self> {
        let state = State {
            broker: broker.clone(),
            is_stopped: false,
            clues: Vec::new(),
            told: HashMap::new(),
            tell_at: Instant::now(),
            readers: Vec::new(),
        };
        let ids_are_ours = procfs::sees_every_process();
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), ids_are_ours };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let thread = threads.spawn("vmstrobe-sched", move || theirs.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Sets the vCPUs whose threads to look for: all that there are.
    pub(super) fn follow(&self, vcpus: &[Vcpu]) {
        let ids_are_ours = self.shared.ids_are_ours;
        let mut state = self.shared.state();
        state.clues = vcpus.iter().map(|vcpu| Clues::of(vcpu, ids_are_ours)).collect();
    }

    /// Looks for the threads of all vCPUs now, and returns them by the vCPUs' keys.
    pub(super) fn tell(&self) -> HashMap<u64, u32> {
        let mut state = self.shared.state();
        state.tell();
        state.told.clone()
    }

    /// Whether its thread could be told, when that was looked for last.
    pub(super) fn knows(&self, vcpu: &Vcpu) -> bool {
        self.shared.state().told.contains_key(&vcpu.key)
    }

    /// Returns the readings that a source of these vCPUs copies. If they are wanted `now`, they
    /// have been read when this returns; else they are not read before a source wants them.
    pub(super) fn watch(&self, vcpus: &[Option<Vcpu>], now: bool) -> Vec<Option<Arc<Watched>>> {
        let mut state = self.shared.state();
        let watched = state.watch(vcpus);
        if now {
            watched.iter().flatten().for_each(|watched| watched.want());
            state.tell_at = Instant::now();
            state.round();
        }
        self.shared.changed.notify_all();
        watched
    }

    /// Reads all that is wanted now.
    pub(super) fn refresh(&self) {
        self.shared.state().round();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A round cut short by a panic has left some readings old, which the next one renews.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.state();
        let mut next = Instant::now();
        while !state.is_stopped {
            let now = Instant::now();
            state = if state.readers.is_empty() {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else if now < next {
                let waited = self.changed.wait_timeout(state, next - now);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                state.round();
                // A round that was missed is not made up for.
                next = now + SCHED_PERIOD;
                state
            };
        }
    }
}

impl State {
    fn tell(&mut self) {
        self.told = threads::tell(&self.clues, &self.broker);
        self.tell_at = Instant::now() + TELL_PERIOD;
    }

    /// All sources of a vCPU share what is read of it.
    fn watch(&mut self, vcpus: &[Option<Vcpu>]) -> Vec<Option<Arc<Watched>>> {
        let known = self.readers.iter().filter_map(|reader| reader.watched.upgrade());
        let mut known: HashMap<u64, Arc<Watched>> = known.map(|w| (w.key(), w)).collect();
        let readers = &mut self.readers;
        let mut watch = |vcpu: &Vcpu| {
            let new = || {
                let watched = Watched::new(vcpu.key, &vcpu.fd);
                readers.push(Reader { watched: Arc::downgrade(&watched), times: None });
                watched
            };
            Arc::clone(known.entry(vcpu.key).or_insert_with(new))
        };
        vcpus.iter().map(|vcpu| vcpu.as_ref().map(&mut watch)).collect()
    }

    /// Reads once what somebody wants, and forgets what nobody has any more.
    fn round(&mut self) {
        let mut readers = std::mem::take(&mut self.readers);
        readers.retain(|reader| reader.watched().is_some());
        self.open(&mut readers);
        readers.iter_mut().for_each(|reader| self.read(reader));
        self.readers = readers;
    }

    /// Opens the times of all vCPUs that somebody wants, whose threads are looked for if they are
    /// not known.
    fn open(&mut self, readers: &mut [Reader]) {
        let wanted = |reader: &&mut Reader| reader.watched().is_some_and(|w| w.is_wanted());
        let mut closed: Vec<(u64, &mut Option<Schedstat>)> = Vec::new();
        for reader in readers.iter_mut().filter(wanted) {
            let Some(key) = reader.watched().map(|watched| watched.key()) else { continue };
            let thread = self.told.get(&key).copied();
            reader.times.take_if(|times| Some(times.thread_id()) != thread);
            if reader.times.is_none() {
                closed.push((key, &mut reader.times));
            }
        }
        let is_unknown = |(key, _): &(u64, _)| !self.told.contains_key(key);
        if Instant::now() >= self.tell_at && closed.iter().any(is_unknown) {
            self.tell();
        }
        let clues: HashMap<u64, &Clues> = self.clues.iter().map(|one| (one.key, one)).collect();
        let known = |(key, times)| Some((*self.told.get(&key)?, *clues.get(&key)?, times));
        let known: Vec<(u32, &Clues, &mut Option<Schedstat>)> =
            closed.into_iter().filter_map(known).collect();
        if known.is_empty() {
            return;
        }
        let threads: Vec<_> = known.iter().map(|(thread, of, _)| (of.pid(), *thread)).collect();
        let open = |(pid, thread)| Schedstat::open(pid, thread).ok();
        let opened = self.broker.run(move || threads.into_iter().map(open).collect::<Vec<_>>());
        let mut ended = Vec::new();
        for ((_, clues, times), opened) in known.into_iter().zip(opened) {
            if opened.is_none() {
                ended.push(clues.key);
            }
            // Else it may be a later process's of that number.
            *times = opened.filter(|_| clues.lives());
        }
        self.told.retain(|key, _| !ended.contains(key));
    }

    fn read(&mut self, reader: &mut Reader) {
        let Some(watched) = reader.watched().filter(|watched| watched.is_wanted()) else { return };
        let read_ns = clock_ns();
        match reader.times.as_ref().map(Schedstat::read) {
            Some(Ok(words)) => watched.words().write(read_ns, &words),
            // The thread has ended: there may be another one.
            Some(Err(_)) => {
                self.told.remove(&watched.key());
                reader.times = None;
                watched.words().forget();
            }
            None => watched.words().forget(),
        }
    }
}

impl Reader {
    /// Returns the vCPU, unless it is gone or nobody has it any more.
    fn watched(&self) -> Option<Arc<Watched>> {
        self.watched.upgrade().filter(|watched| !watched.is_gone())
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.shared.state().is_stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and if it did, a drop is no place to say so.
            let _ = thread.join();
        }
    }
}
