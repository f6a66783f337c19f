//! The thread that asks /proc: of every vCPU that somebody reads there, ten times a second.
//!
//! Which thread runs a vCPU is told anew whenever the provider is asked what there is, and about
//! once a second while one that is read has none. Nothing is opened before it is read.
//!
//! Invariant: files are opened, read and closed under the lock of [`State`], which no tick takes. A
//! file stays with the vCPU only as long as its thread is the one that was told last.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vmstrobe_core::{Error, ErrorKind, Result};

use super::Vcpu;
use super::schedstat::Schedstat;
use super::source::{Watched, clock_ns};
use super::threads::{self, Clues};
use crate::procfs;

/// From the start of one round of readings to the start of the next.
pub(super) const SCHED_PERIOD: Duration = Duration::from_millis(100);
/// How often at most a round looks for threads that nobody knows.
const TELL_PERIOD: Duration = Duration::from_secs(1);

/// The thread `vmstrobe-sched`. It ends when this is dropped, by the provider or the last source.
#[derive(Debug)]
pub(super) struct Poller {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
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
    is_stopped: bool,
    /// Of all vCPUs there are.
    clues: Vec<Clues>,
    /// The threads that could be told, by the vCPUs' keys.
    told: HashMap<u64, u32>,
    /// When a round may look for them again.
    tell_at: Instant,
    readers: Vec<Reader>,
}

/// How a vCPU is read.
#[derive(Debug)]
struct Reader {
    /// Ends with the last source that has it.
    watched: Weak<Watched>,
    /// `None` as long as nobody wants it, or its thread is not known.
    times: Option<Schedstat>,
}

impl Poller {
    /// Starts the thread, which waits until there is something to read.
    ///
    /// # Errors
    /// `Io` if the system has no thread for it.
    pub(super) fn start() -> Result<Self> {
        let state = State {
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
        let thread = thread::Builder::new()
            .name("vmstrobe-sched".to_owned())
            .spawn(move || theirs.run())
            .map_err(|error| Error::caused(ErrorKind::Io, "cannot start the poller", error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes these for all vCPUs there are.
    pub(super) fn follow(&self, vcpus: &[Vcpu]) {
        let ids_are_ours = self.shared.ids_are_ours;
        let mut state = self.shared.state();
        state.clues = vcpus.iter().map(|vcpu| Clues::of(vcpu, ids_are_ours)).collect();
    }

    /// The threads of those vCPUs, looked for now, by their keys.
    pub(super) fn tell(&self) -> HashMap<u64, u32> {
        let mut state = self.shared.state();
        state.tell();
        state.told.clone()
    }

    /// Whether its thread could be told, when that was looked for last.
    pub(super) fn knows(&self, vcpu: &Vcpu) -> bool {
        self.shared.state().told.contains_key(&vcpu.key)
    }

    /// What a source of these vCPUs reads. If they are wanted `now`, they have been read when this
    /// returns; else not before a source reads them.
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
                // What was missed is not made up for.
                next = now + SCHED_PERIOD;
                state
            };
        }
    }
}

impl State {
    fn tell(&mut self) {
        self.told = threads::tell(&self.clues);
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
        readers.retain_mut(|reader| {
            let Some(watched) = reader.watched.upgrade().filter(|watched| !watched.is_gone())
            else {
                return false;
            };
            if watched.is_wanted() {
                self.read(reader, &watched);
            }
            true
        });
        self.readers = readers;
    }

    fn read(&mut self, reader: &mut Reader, watched: &Watched) {
        let thread = self.told.get(&watched.key()).copied();
        reader.times.take_if(|times| Some(times.thread_id()) != thread);
        if reader.times.is_none() {
            reader.times = self.open(watched.key());
        }
        let read_ns = clock_ns();
        match reader.times.as_ref().map(Schedstat::read) {
            Some(Ok(words)) => watched.write(read_ns, &words),
            // The thread has ended: there may be another one.
            Some(Err(_)) => {
                self.told.remove(&watched.key());
                reader.times = None;
                watched.forget();
            }
            None => watched.forget(),
        }
    }

    /// The times of a vCPU's thread, which is looked for if it is not known.
    fn open(&mut self, key: u64) -> Option<Schedstat> {
        if !self.told.contains_key(&key) && Instant::now() >= self.tell_at {
            self.tell();
        }
        let thread = *self.told.get(&key)?;
        let clues = self.clues.iter().find(|clues| clues.key == key)?;
        let times = Schedstat::open(clues.pid(), thread).ok();
        if times.is_none() {
            self.told.remove(&key);
        }
        // Else it may be a later process's of that number.
        times.filter(|_| clues.lives())
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
