//! One table that is read: its objects as they are now, and whether anyone stands behind it.
//!
//! Invariant: an object keeps its key as long as it is there, and no other ever gets it. Two
//! objects never have one path. A table that cannot be read any more keeps what it last had: rows
//! judge for themselves.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::fstat;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use vmstrobe_core::{Object, ReadPlan, Result, RowState, Schema};

use super::format::Segment;
use super::look::{Found, Memory, Schemas, lock_of};
use super::map::is_in_memory;
use super::source::{Row, Writer};
use crate::departures::Departures;
use crate::fd::Lender;

/// A table that is read.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) number: u64,
    /// What tells it from every other, if there is such a thing; not of our own.
    pub(super) file: Option<(u64, u64)>,
    memory: Arc<Memory>,
    segment: Segment,
    writer: Arc<Writer>,
    is_locked: bool,
    schemas: Schemas,
    generation: Option<u64>,
    beat: (u64, Instant),
    pub(super) objects: Vec<(Found, Object)>,
}

/// Who stands behind a table.
#[derive(Clone, Debug)]
pub(super) enum Giver {
    /// This process, which wrote it or vouches for it.
    Own,
    /// A process or a peer, as long as it is there.
    Lender(Lender),
    /// Whoever has locked the file, as long as he has.
    Path,
}

/// What the tables of one provider share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The paths that have been given out.
    pub(super) taken: HashSet<Box<str>>,
    schemas: HashSet<Arc<Schema>>,
    last_key: u64,
}

impl Shared {
    /// The one of equal schemas that was there first, so that their objects are one group.
    fn intern(&mut self, schema: &Arc<Schema>) -> Arc<Schema> {
        if let Some(known) = self.schemas.get(schema) {
            return Arc::clone(known);
        }
        self.schemas.insert(Arc::clone(schema));
        Arc::clone(schema)
    }

    /// An object that was not there before.
    fn object(&mut self, found: &Found, path: Box<str>) -> Object {
        self.last_key += 1;
        let (index, schema) = (found.index, Arc::clone(&found.schema));
        Object { path, index, schema, key: self.last_key }
    }

    /// Forgets the schemas that nobody uses any more.
    fn forget(&mut self) {
        self.schemas.retain(|known| Arc::strong_count(known) > 1);
    }
}

impl Table {
    /// Takes a descriptor that someone gave.
    ///
    /// # Errors
    /// Those of [`Memory::of`] and [`Segment::parse`].
    pub(super) fn given(number: u64, fd: OwnedFd, by: Giver) -> Result<Self> {
        let file = file_of(&fd);
        // Whether a file is locked is asked by its descriptor, which a mapping does not keep.
        let may_map = !matches!(by, Giver::Path);
        Ok(Self { file, ..Self::new(number, Memory::of(fd, may_map)?, by)? })
    }

    /// A table in that memory.
    ///
    /// # Errors
    /// Those of [`Segment::parse`].
    pub(super) fn new(number: u64, memory: Memory, by: Giver) -> Result<Self> {
        let memory = Arc::new(memory);
        let segment = memory.segment()?;
        let is_locked = matches!(by, Giver::Path);
        let lender = if let Giver::Lender(lender) = by { Some(lender) } else { None };
        let writer =
            Writer { silent: AtomicBool::new(false), gone: AtomicBool::new(false), lender };
        Ok(Self {
            number,
            file: None,
            beat: (memory.heartbeat()?, Instant::now()),
            memory,
            segment,
            writer: Arc::new(writer),
            is_locked,
            schemas: Schemas::default(),
            generation: None,
            objects: Vec::new(),
        })
    }

    /// Looks again at the directory if it has changed, and takes the objects' paths.
    ///
    /// # Errors
    /// Those of [`Memory::look`]; then it has the objects that it had.
    pub(super) fn look(&mut self, shared: &mut Shared) -> Result<()> {
        let is_new = self.generation != Some(self.memory.generation()?);
        if is_new || self.objects.iter().any(|(_, object)| shared.taken.contains(&object.path)) {
            let (generation, found) = self.memory.look(&self.segment, &mut self.schemas)?;
            self.take(found, shared);
            self.generation = Some(generation);
            return Ok(());
        }
        shared.taken.extend(self.objects.iter().map(|(_, object)| object.path.clone()));
        Ok(())
    }

    /// Has these objects from now on; those that it had already stay the same.
    fn take(&mut self, found: Vec<Found>, shared: &mut Shared) {
        let before = std::mem::take(&mut self.objects);
        let before = before.iter().map(|(old, object)| ((old.incarnation, &*object.path), object));
        let before: HashMap<_, _> = before.collect();
        // There may be as many schemas as objects: each is looked up by its content only once.
        let mut interned = HashMap::new();
        shared.forget();
        for mut found in found {
            // Once it is taken, the object has it.
            let path = std::mem::take(&mut found.path);
            let Some(path) = self.free_path(&path, &mut shared.taken) else { continue };
            let schema = interned.entry(Arc::as_ptr(&found.schema));
            found.schema = schema.or_insert_with(|| shared.intern(&found.schema)).clone();
            let known = before.get(&(found.incarnation, &*path)).copied();
            let object = match known.filter(|object| object.schema == found.schema) {
                Some(known) => known.clone(),
                None => shared.object(&found, path),
            };
            self.objects.push((found, object));
        }
    }

    /// That path, or if it is taken, with the table's number behind it.
    fn free_path(&self, path: &str, taken: &mut HashSet<Box<str>>) -> Option<Box<str>> {
        let paths: [Box<str>; 2] = [path.into(), format!("{path}.{}", self.number).into()];
        paths.into_iter().find(|path| taken.insert(Box::clone(path)))
    }

    /// Where its objects are, by their keys: its own number, and which it is of them.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, (u64, usize))> {
        let each = self.objects.iter().enumerate();
        each.map(|(at, (_, object))| (object.key, (self.number, at)))
    }

    /// The row that a plan keeps of an object; `None` if it is not there any more, or there is no
    /// memory to read it from.
    pub(super) fn row(&self, found: &Found, plan: &ReadPlan) -> Option<Row> {
        self.memory.prepare(&(lock_of(&found.data)..found.data.end)).ok()?;
        for shard in 1..found.shards {
            let first = found.data.start + shard * found.shard_words;
            self.memory.prepare(&(first..first + found.data.len())).ok()?;
        }
        (!self.is_gone()).then(|| Row::new(&self.memory, found, plan, &self.writer))
    }

    /// Whether anybody stands behind it, and has said so as often as he promised.
    pub(super) fn check(&mut self, departures: &Departures) {
        if let Memory::File(fd) = &*self.memory
            && self.is_locked
            && !has_writer(fd)
        {
            self.give_up(departures);
        }
        let Ok(beat) = self.memory.heartbeat() else { return };
        let promised = Duration::from_nanos(self.segment.heartbeat_period_ns);
        if beat != self.beat.0 {
            self.beat = (beat, Instant::now());
        }
        let is_silent = !promised.is_zero() && self.beat.1.elapsed() > promised;
        if self.writer.silent.swap(is_silent, Ordering::Relaxed) != is_silent {
            departures.note();
        }
    }

    /// Whether it came from the process, or the peer, of that flag.
    pub(super) fn is_lent_by(&self, alive: &Arc<AtomicBool>) -> bool {
        self.writer.lender.as_ref().is_some_and(|lender| Arc::ptr_eq(&lender.alive, alive))
    }

    /// From now on its rows are gone.
    pub(super) fn give_up(&self, departures: &Departures) {
        self.writer.gone.store(true, Ordering::Relaxed);
        departures.note();
    }

    /// Whether the last who asked found that its writer has broken his promise.
    pub(super) fn is_silent(&self) -> bool {
        self.writer.mark() == Some(RowState::Stale)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.writer.mark() == Some(RowState::Gone)
    }
}

/// What tells a file in memory from every other: its device and inode. `None` of any other file:
/// its server may not answer, and all BPF maps have one inode.
pub(super) fn file_of(fd: impl AsFd) -> Option<(u64, u64)> {
    let fd = fd.as_fd();
    let stat = is_in_memory(fd).then(|| fstat(fd).ok()).flatten();
    stat.map(|stat| (stat.st_dev, stat.st_ino))
}

/// Does any process hold a lock for writing on this file?
pub(super) fn has_writer(fd: impl AsFd) -> bool {
    let whole = Flock {
        start: 0,
        length: 0,
        pid: None,
        typ: FlockType::ReadLock,
        offset_type: FlockOffsetType::Set,
    };
    matches!(fcntl_getlk(fd, &whole), Ok(Some(_)))
}
