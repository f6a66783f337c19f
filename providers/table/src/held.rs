//! One table that is read: its objects as they are now, and whether it still has a writer.
//!
//! Invariant: an object keeps its key as long as it is there, and no other ever gets it. Two
//! objects never have one path. A table that cannot be read any more keeps the objects that it last
//! had: rows judge for themselves.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::fstat;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use vmstrobe_core::{Error, ErrorKind, Object, ReadPlan, Result, RowState, Schema, WORD_BYTES};
use vmstrobe_host::{FdOwner, GoneEpoch};

use super::budget::{Claim, Cost, Share};
use super::format::Segment;
use super::look::{Found, Memory};
use super::map::is_in_memory;
use super::refused::Refused;
use super::row::{Row, Writer};
use super::schemas::Schemas;

/// A table that is read.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) number: u64,
    title: String,
    /// The device and inode of its file; `None` for a table that was added by
    /// its writer in this process.
    pub(super) file: Option<(u64, u64)>,
    memory: Arc<Memory>,
    segment: Segment,
    writer: Arc<Writer>,
    is_locked: bool,
    schemas: Schemas,
    share: Share,
    /// The address space and the descriptor that it takes.
    _claims: [Claim; 2],
    generation: Option<u64>,
    /// An object was left out because its path was taken while the directory could not be read.
    has_hidden: bool,
    refused: Option<Refused>,
    beat: (u64, Instant),
    pub(super) objects: Vec<(Found, Object)>,
}

/// The origin of a table.
#[derive(Debug)]
pub(super) struct Origin {
    /// The table's name in errors: `a table of pid 4711`, or its path.
    pub(super) title: String,
    pub(super) giver: Giver,
}

/// The giver of a table, by which the end of its writer is noticed.
#[derive(Clone, Debug)]
pub(super) enum Giver {
    /// This process, which writes it or vouches for its writer.
    Own,
    /// A process or a peer. The table is read as long as that is there.
    FdOwner(FdOwner),
    /// A file. It is read as long as a process holds a lock for writing on it.
    Path,
}

impl Giver {
    /// The flag of a process or peer that says whether it is there.
    pub(super) fn alive(&self) -> Option<&Arc<AtomicBool>> {
        match self {
            Self::FdOwner(owner) => Some(&owner.alive),
            Self::Own | Self::Path => None,
        }
    }
}

/// The state that the tables of one provider share.
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
    /// Returns its provider's name.
    pub(super) fn provider(&self) -> &str {
        &self.segment.provider
    }

    /// Takes a descriptor that someone gave.
    ///
    /// # Errors
    /// As [`Memory::of`] and [`Table::new`].
    pub(super) fn given(number: u64, fd: OwnedFd, origin: Origin, share: &Share) -> Result<Self> {
        let file = file_of(&fd);
        // Whether a file is locked is asked by its descriptor, which a mapping does not keep.
        let may_map = !matches!(origin.giver, Giver::Path);
        Ok(Self { file, ..Self::new(number, Memory::of(fd, may_map)?, origin, share)? })
    }

    /// A table in that memory, of an owner with that share.
    ///
    /// # Errors
    /// As [`Segment::parse`]; `TooLarge` if the share does not suffice.
    pub(super) fn new(number: u64, memory: Memory, origin: Origin, share: &Share) -> Result<Self> {
        let Origin { title, giver } = origin;
        let (bytes, fds) = memory.costs();
        let claims = [share.claim(Cost::Mapped, bytes)?, share.claim(Cost::Fds, fds)?];
        let memory = Arc::new(memory);
        let segment = memory.segment()?;
        let is_locked = matches!(giver, Giver::Path);
        let owner = if let Giver::FdOwner(owner) = giver { Some(owner) } else { None };
        let writer = Writer { silent: AtomicBool::new(false), gone: AtomicBool::new(false), owner };
        Ok(Self {
            number,
            title,
            file: None,
            beat: (memory.heartbeat()?, Instant::now()),
            memory,
            segment,
            writer: Arc::new(writer),
            is_locked,
            schemas: Schemas::new(share),
            share: share.clone(),
            _claims: claims,
            generation: None,
            has_hidden: false,
            refused: None,
            objects: Vec::new(),
        })
    }

    /// Looks again at the directory if it has changed, and takes the objects' paths. Of an owner
    /// whose directories change too much, the objects stay those of the last look for a while.
    ///
    /// # Errors
    /// As [`Memory::look`] and [`Table::stay`], or the error of the last look if nothing has
    /// changed since. The table then keeps the objects that it had.
    pub(super) fn look(&mut self, shared: &mut Shared) -> Result<()> {
        let generation = self.memory.generation().map_err(|error| unread(&self.title, &error))?;
        let now = Instant::now();
        let is_new = self.generation != Some(generation) || self.has_hidden;
        if !is_new && !self.objects.iter().any(|(_, object)| shared.taken.contains(&object.path)) {
            shared.taken.extend(self.objects.iter().map(|(_, object)| object.path.clone()));
            self.refused = None;
            return Ok(());
        }
        let refused = self.refused.as_ref().filter(|refused| refused.stands(generation, now));
        if let Some(refused) = refused {
            return Err(refused.error());
        }
        if !self.share.may_look(now) {
            return self.stay(shared);
        }
        let outcome = self.memory.look(&self.segment, &mut self.schemas);
        let outcome = outcome.map_err(|error| unread(&self.title, &error));
        // For want of memory it may be read the next time.
        let error = outcome.as_ref().err().filter(|error| error.kind() != ErrorKind::Io);
        self.refused = error.map(|error| Refused::new(error, generation, now));
        let (generation, found) = outcome?;
        self.take(found, shared);
        (self.generation, self.has_hidden) = (Some(generation), false);
        Ok(())
    }

    /// Keeps the objects that it has, but for those whose paths others have now.
    ///
    /// # Errors
    /// `Busy` if it was never looked at.
    fn stay(&mut self, shared: &mut Shared) -> Result<()> {
        if self.generation.is_none() {
            let text = "the tables of its process or connection change too often; try again";
            return Err(unread(&self.title, &Error::new(ErrorKind::Busy, text)));
        }
        let before = self.objects.len();
        self.objects.retain(|(_, object)| shared.taken.insert(object.path.clone()));
        self.has_hidden |= self.objects.len() < before;
        Ok(())
    }

    /// Why its directory is not read, if that was so when it was looked at last.
    pub(super) fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// Replaces the objects by these; the ones that it had already stay the same.
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

    /// Returns the path, or if it is taken, the path with the table's number behind it; `None` if
    /// both are taken.
    fn free_path(&self, path: &str, taken: &mut HashSet<Box<str>>) -> Option<Box<str>> {
        let paths: [Box<str>; 2] = [path.into(), format!("{path}.{}", self.number).into()];
        paths.into_iter().find(|path| taken.insert(Box::clone(path)))
    }

    /// Returns the places of its objects by their keys: the table's number, and the object's index.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, (u64, usize))> {
        let each = self.objects.iter().enumerate();
        each.map(|(at, (_, object))| (object.key, (self.number, at)))
    }

    /// The row that a plan keeps of an object; `None` if it is not there any more.
    ///
    /// # Errors
    /// `TooLarge` if its owner's share does not suffice for a tick that reads it; `Io` if there is
    /// no memory to read it from.
    pub(super) fn row(&self, found: &Found, plan: &ReadPlan) -> Result<Option<Row>> {
        if self.is_gone() {
            return Ok(None);
        }
        let span_bytes = plan.span_bytes().len().max(WORD_BYTES);
        let claim = self.share.claim(Cost::Read, (found.shards * span_bytes) as u64);
        let row = claim.and_then(|claim| Row::new(&self.memory, found, plan, &self.writer, claim));
        row.map(Some).map_err(|error| unread(&format!("an object of {}", self.title), &error))
    }

    /// Checks whether a file still has its writer, and whether the writer beats as often as it
    /// promised. If not, the rows become gone or stale.
    pub(super) fn check(&mut self, gone_epoch: &GoneEpoch) {
        if let Memory::File(fd) = &*self.memory
            && self.is_locked
            && !has_writer(fd)
        {
            self.give_up(gone_epoch);
        }
        let Ok(beat) = self.memory.heartbeat() else { return };
        let promised = Duration::from_nanos(self.segment.heartbeat_period_ns);
        if beat != self.beat.0 {
            self.beat = (beat, Instant::now());
        }
        let is_silent = !promised.is_zero() && self.beat.1.elapsed() > promised;
        if self.writer.silent.swap(is_silent, Ordering::Relaxed) != is_silent {
            gone_epoch.note();
        }
    }

    /// Whether it came from the process, or the peer, of that flag.
    pub(super) fn is_lent_by(&self, alive: &Arc<AtomicBool>) -> bool {
        self.writer.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(&owner.alive, alive))
    }

    /// Marks its rows as gone.
    pub(super) fn give_up(&self, gone_epoch: &GoneEpoch) {
        self.writer.gone.store(true, Ordering::Relaxed);
        gone_epoch.note();
    }

    /// Returns whether the last [`Table::check`] found that the writer broke its promise of
    /// heartbeats; false once the table is gone.
    pub(super) fn is_silent(&self) -> bool {
        self.writer.mark() == Some(RowState::Stale)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.writer.mark() == Some(RowState::Gone)
    }
}

/// Returns an error with the name of the table in front.
pub(super) fn unread(title: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{title} cannot be read: {error:#}"))
}

/// Returns the device and inode of a file in memory, which tell it from every other. `None` for any
/// other file: its server may not answer.
pub(super) fn file_of(fd: impl AsFd) -> Option<(u64, u64)> {
    let fd = fd.as_fd();
    let stat = is_in_memory(fd).then(|| fstat(fd).ok()).flatten();
    stat.map(|stat| (stat.st_dev, stat.st_ino))
}

/// Whether any process holds a lock for writing on this file.
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
