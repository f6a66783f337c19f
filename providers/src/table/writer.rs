//! Publishes statistics in a table: objects that come and go.
//!
//! Invariant: the directory changes only under its sequence lock, one change at a time. The lock
//! words of an object stay lock words for ever, and its incarnation is never given out again, so
//! that whoever still reads a removed object learns of it; and its memory is used again only once
//! nobody can write to it any more.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock, ftruncate, open};
use vmstrobe_core::wire::{self, Header};
use vmstrobe_core::{Error, ErrorKind, Result, WORD_BYTES, seq};

use super::define::TableSchema;
use super::find::NAME_PREFIX;
use super::format::{
    GENERATION, HEADER_WORDS, HEARTBEAT, LINES_WORDS, LOCK_WORDS, MAX_SEGMENT_BYTES, MAX_SLOTS,
    MAX_TABLE_NAME_BYTES, SLOT_WORDS, SLOTS_USED, Segment, Slot,
};
use super::held::has_writer;
use super::map::{Map, is_in_memory};
use super::object::{Place, Region, TableObject};

/// What a table is made for; [`TableConfig::of`] gives the usual, to be changed by struct update.
#[derive(Clone, Copy, Debug)]
pub struct TableConfig<'a> {
    /// The provider's name, at most [`MAX_TABLE_NAME_BYTES`] bytes.
    pub provider: &'a str,
    /// Room for everything, in bytes; at most [`MAX_SEGMENT_BYTES`]. What is not used costs nothing.
    pub capacity_bytes: usize,
    /// The most objects at a time; at most [`MAX_SLOTS`].
    pub max_objects: usize,
    /// How often at least [`TableWriter::beat`] will be called. Readers mark what comes from a
    /// writer that breaks this promise; one who gives none is trusted as long as his process lives.
    pub heartbeat: Option<Duration>,
}

impl<'a> TableConfig<'a> {
    /// 16 MiB, 1024 objects, no promise.
    pub fn of(provider: &'a str) -> Self {
        Self { provider, capacity_bytes: 16 << 20, max_objects: 1024, heartbeat: None }
    }
}

/// Publishes statistics for other processes, and for this one: the writer of a table. Clones are
/// one writer.
///
/// Whoever runs `vmstrobe -p PID` finds the table by the process, and needs no more right than for
/// any fd of it. Readers can only read; they never stop the writer nor can they disturb it.
///
/// ```
/// use vmstrobe_core::Target;
/// use vmstrobe_providers::{TableSchema, TableWriter};
///
/// let mut stats = TableSchema::new(Target::from_name("queue"));
/// let requests = stats.counter("requests");
/// let table = TableWriter::new("xyz")?;
/// let queue = table.add("/xyz/queue[0]", &stats)?; // it is there as long as this value
/// let requests = queue.get(requests);
/// std::thread::spawn(move || requests.add(1));
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TableWriter {
    shared: Arc<Shared>,
}

/// What a writer and its objects share.
pub(crate) struct Shared {
    pub(crate) map: Arc<Map>,
    descriptor: OwnedFd,
    path: Option<PathBuf>,
    segment: Segment,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Which slots are in use, up to the highest that ever was.
    slots: Vec<bool>,
    last_incarnation: u64,
    /// The first word that was never used.
    end: usize,
    /// What was used, and may be again by an object laid out alike.
    free: Vec<Place>,
}

impl TableWriter {
    /// A table of that provider, as [`TableConfig::of`] says, in a memfd that others can find by
    /// its name and only read.
    ///
    /// # Errors
    /// `TooLarge` if the name is too long or the configuration over a limit, `Malformed` if the name
    /// is empty or has a NUL, `Io` if there is no memory for it.
    pub fn new(provider: &str) -> Result<Self> {
        Self::with(TableConfig::of(provider))
    }

    /// As [`TableWriter::new`], with a configuration of one's own.
    ///
    /// # Errors
    /// As [`TableWriter::new`].
    pub fn with(config: TableConfig<'_>) -> Result<Self> {
        let segment = segment(config)?;
        let name = format!("{NAME_PREFIX}{}", config.provider);
        let (map, fd) =
            Map::create(&name, segment.words * WORD_BYTES).map_err(cannot("a memfd"))?;
        Ok(Self::begin(map, fd, None, segment))
    }

    /// A table in a file on tmpfs, which others read by system calls. The file is removed with the
    /// table.
    ///
    /// Whoever may write to that file can kill this process by making it shorter: nobody may, except
    /// this user and root. This process must not open and close it otherwise: that would give up
    /// the lock by which readers know that it is written.
    ///
    /// # Errors
    /// As [`TableWriter::new`]; `Unsupported` if the path is not on tmpfs, `Busy` if somebody writes
    /// a table there.
    pub fn at(path: &Path, config: TableConfig<'_>) -> Result<Self> {
        let segment = segment(config)?;
        let failed = |errno| cannot("a file")(io::Error::from(errno));
        if let Ok(old) = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            if has_writer(&old) {
                let text = format!("another process writes the table {}", path.display());
                return Err(Error::new(ErrorKind::Busy, text));
            }
            std::fs::remove_file(path).map_err(cannot("a file"))?;
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::RUSR | Mode::RGRP | Mode::ROTH).map_err(failed)?;
        if !is_in_memory(&fd) {
            // It was made just now, and is empty.
            let _ = std::fs::remove_file(path);
            let text = format!("{} is not on tmpfs, as /dev/shm and /run are", path.display());
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        ftruncate(&fd, (segment.words * WORD_BYTES) as u64).map_err(failed)?;
        fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
        let map = Map::own_file(&fd).map_err(cannot("a file"))?;
        Ok(Self::begin(map, fd, Some(path.to_owned()), segment))
    }

    fn begin(map: Arc<Map>, fd: OwnedFd, path: Option<PathBuf>, segment: Segment) -> Self {
        let header = segment.to_words();
        // The magic last: until then it is nothing.
        for (word, value) in map.words().iter().zip(header).rev() {
            word.store(value, Relaxed);
        }
        let end = segment.directory_word + segment.slots * SLOT_WORDS;
        let state = Mutex::new(State { end, ..State::default() });
        Self { shared: Arc::new(Shared { map, descriptor: fd, path, segment, state }) }
    }

    /// Adds an object of that path, all its statistics 0. It is there as long as what this returns.
    ///
    /// Paths should differ within a table; readers tell two alike apart by a number of their own.
    ///
    /// # Errors
    /// `TooLarge` if the table is full or the path over `wire::MAX_NAME_BYTES` (256 with its NUL),
    /// `Malformed` if path or a name have a NUL or the path is empty.
    pub fn add(&self, path: &str, stats: &TableSchema) -> Result<TableObject> {
        self.shared.add(path, None, stats)
    }

    /// As [`TableWriter::add`], for what users also call by a number: a vCPU.
    ///
    /// # Errors
    /// As [`TableWriter::add`].
    pub fn add_indexed(&self, path: &str, index: u32, stats: &TableSchema) -> Result<TableObject> {
        self.shared.add(path, Some(index), stats)
    }

    /// Says that this writer lives and does its work: to be called by whatever must not stall, more
    /// often than the configuration promises.
    #[inline]
    pub fn beat(&self) {
        self.shared.map.words()[HEARTBEAT].fetch_add(1, Relaxed);
    }

    /// A descriptor of the table for somebody else: he can map and read it, nothing more.
    ///
    /// # Errors
    /// `Unsupported` for a table in a file, which is opened by its path; `Io` if there is no room.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        if self.shared.path.is_some() {
            let text = "a table in a file is opened by its path";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        self.shared.descriptor.try_clone().map_err(cannot("another descriptor"))
    }

    /// The memory, for readers in this process.
    pub(crate) fn map(&self) -> &Arc<Map> {
        &self.shared.map
    }
}

impl Shared {
    fn add(
        self: &Arc<Self>,
        path: &str,
        index: Option<u32>,
        stats: &TableSchema,
    ) -> Result<TableObject> {
        if path.is_empty() || stats.target().name().contains('\0') {
            let text = "an object needs a path, and a target's name no NUL";
            return Err(Error::new(ErrorKind::Malformed, text));
        }
        name_fits(stats.target().name())?;
        let schema = stats.schema(&self.segment.provider);
        let mut block = wire::write(path, &schema)?;
        let lock = block.len().div_ceil(WORD_BYTES).next_multiple_of(LINES_WORDS);
        let (shards, shard_words) = stats.shards(LOCK_WORDS);
        let mut state = self.state();
        let place = state.place(lock, shards, shard_words, self.segment.words);
        let slot = state.free_slot(self.segment.slots);
        let (Some(place), Some(slot)) = (place, slot) else {
            return Err(Error::new(ErrorKind::TooLarge, self.full()));
        };
        let head = block.first_chunk().expect("a block begins with a header");
        let header = Header::parse(head)?;
        let data_offset = ((lock + LOCK_WORDS) * WORD_BYTES) as u32;
        block[..Header::BYTES].copy_from_slice(&Header { data_offset, ..header }.to_bytes());
        block.resize(block.len().next_multiple_of(WORD_BYTES), 0);
        state.last_incarnation += 1;
        let entry = Slot {
            incarnation: state.last_incarnation,
            block_word: place.first,
            index,
            shards,
            shard_words,
            target: stats.target().clone(),
        };
        self.clear(&place, entry.incarnation);
        state.slots[slot] = true;
        let used = state.slots.len() as u64;
        self.change_directory(|words| {
            for (word, bytes) in words[place.first..].iter().zip(block.as_chunks().0) {
                word.store(u64::from_ne_bytes(*bytes), Relaxed);
            }
            let first = self.segment.directory_word + slot * SLOT_WORDS;
            for (word, value) in words[first..].iter().zip(entry.to_words()) {
                word.store(value, Relaxed);
            }
            words[SLOTS_USED].store(used, Relaxed);
        });
        drop(state);
        Ok(TableObject::new(Region::new(self, place, schema), slot))
    }

    /// Takes an object out of the directory; whoever reads it finds it gone.
    pub(crate) fn remove(&self, slot: usize, place: &Place) {
        let mut state = self.state();
        state.slots[slot] = false;
        let first = self.segment.directory_word + slot * SLOT_WORDS;
        self.change_directory(|words| words[first].store(0, Relaxed));
        self.map.words()[place.lock() + 1].store(0, Relaxed);
    }

    /// Takes back the memory of an object to which nobody can write any more.
    pub(crate) fn give_back(&self, place: Place) {
        self.state().free.push(place);
    }

    /// Makes all words of an object 0 under its own lock, for readers of the one it was before.
    fn clear(&self, place: &Place, incarnation: u64) {
        let words = &self.map.words()[place.lock()..place.end()];
        seq::write(&words[0], || {
            words[1].store(incarnation, Relaxed);
            words[LOCK_WORDS..].iter().for_each(|word| word.store(0, Relaxed));
        });
    }

    /// Only with the state locked: one change at a time.
    fn change_directory(&self, change: impl FnOnce(&[seq::AtomicU64])) {
        let words = self.map.words();
        seq::write(&words[GENERATION], || change(words));
    }

    fn full(&self) -> String {
        let Segment { words, slots, .. } = self.segment;
        let bytes = words * WORD_BYTES;
        format!("the table is full: {slots} objects, {bytes} bytes. See TableConfig")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves at worst memory unused.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Memory for an object laid out so; `None` if there is none left.
    fn place(
        &mut self,
        lock: usize,
        shards: usize,
        shard_words: usize,
        words: usize,
    ) -> Option<Place> {
        let alike = |free: &Place| free.is_laid_out(lock, shards, shard_words);
        if let Some(at) = self.free.iter().position(alike) {
            return Some(self.free.swap_remove(at));
        }
        let place = Place { first: self.end, lock, shards, shard_words };
        if place.end() > words {
            return None;
        }
        self.end = place.end();
        Some(place)
    }

    fn free_slot(&mut self, slots: usize) -> Option<usize> {
        if let Some(slot) = self.slots.iter().position(|used| !used) {
            return Some(slot);
        }
        (self.slots.len() < slots).then(|| {
            self.slots.push(false);
            self.slots.len() - 1
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // If somebody has removed it already, so much the better.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("segment", &self.segment).finish_non_exhaustive()
    }
}

fn segment(config: TableConfig<'_>) -> Result<Segment> {
    let TableConfig { provider, capacity_bytes, max_objects, heartbeat } = config;
    name_fits(provider)?;
    if provider.is_empty() || provider.contains('\0') {
        return Err(Error::new(ErrorKind::Malformed, "a provider needs a name without a NUL"));
    }
    let directory_end = HEADER_WORDS + max_objects.min(MAX_SLOTS as usize) * SLOT_WORDS;
    let words = (capacity_bytes / WORD_BYTES).next_multiple_of(LINES_WORDS).max(directory_end);
    if max_objects as u64 > MAX_SLOTS || (words * WORD_BYTES) as u64 > MAX_SEGMENT_BYTES {
        let text = format!(
            "a table for {max_objects} objects in {capacity_bytes} bytes; \
             the limits are {MAX_SLOTS} and {MAX_SEGMENT_BYTES}"
        );
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    // A promise of centuries is none.
    let heartbeat_period_ns = heartbeat.map_or(0, |period| period.as_nanos() as u64);
    let (directory_word, provider) = (HEADER_WORDS, provider.to_owned());
    Ok(Segment { words, directory_word, slots: max_objects, heartbeat_period_ns, provider })
}

fn name_fits(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_TABLE_NAME_BYTES {
        let text = format!("'{name}' is no name of 1 to {MAX_TABLE_NAME_BYTES} bytes");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    Ok(())
}

fn cannot(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::caused(ErrorKind::Io, format!("cannot make {what} for a table"), error)
}
