//! Publishes statistics: the writer of a table, as a program uses it.
//!
//! Invariant: a table that anybody can find is sealed, or is a file that this process has locked;
//! and whoever gets a descriptor of it can only read.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock, ftruncate, open};
use vmstrobe_core::{Error, ErrorKind, Result, WORD_BYTES};
use vmstrobe_host::refusal::proc::mounted;

use super::define::TableSchema;
use super::find::NAME_PREFIX;
use super::format::{HEADER_WORDS, LINES_WORDS, MAX_SEGMENT_BYTES, MAX_SLOTS, SLOT_WORDS, Segment};
use super::held::has_writer;
use super::map::{Map, is_in_memory};
use super::object::TableObject;
use super::region::Region;
use super::store::{Shared, name_fits};

/// The configuration of a table; [`TableConfig::of`] has the defaults, to change by struct update.
#[derive(Clone, Copy, Debug)]
pub struct TableConfig<'a> {
    /// The provider's name, at most [`MAX_TABLE_NAME_BYTES`](crate::MAX_TABLE_NAME_BYTES) bytes.
    pub provider: &'a str,
    /// Room for everything, in bytes; at most [`MAX_SEGMENT_BYTES`]. What is not used costs
    /// nothing.
    pub capacity_bytes: usize,
    /// The most objects at a time; at most [`MAX_SLOTS`].
    pub max_objects: usize,
    /// The longest time between two calls of [`TableWriter::beat`] that the writer promises, if it
    /// does. Readers mark the rows of a writer that breaks this promise; a writer that gives none
    /// is trusted as long as its process lives.
    pub heartbeat: Option<Duration>,
}

impl<'a> TableConfig<'a> {
    /// Returns the defaults: 16 MiB, 1024 objects, no promise.
    pub fn of(provider: &'a str) -> Self {
        Self { provider, capacity_bytes: 16 << 20, max_objects: 1024, heartbeat: None }
    }
}

/// Publishes statistics for other processes, and for this one: the writer of a table. Clones are
/// one writer.
///
/// `vmstrobe -p PID` finds the table by the process, and needs no more rights than to borrow any fd
/// of that. Readers can only read; they never stop the writer nor can they disturb it.
///
/// ```
/// use vmstrobe_core::Target;
/// use vmstrobe_table::{TableSchema, TableWriter};
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

impl TableWriter {
    /// Makes a table of that provider, as [`TableConfig::of`] says, in a memfd that others can find
    /// by its name and only read.
    ///
    /// # Errors
    /// `TooLarge` if the name is too long or the configuration over a limit, `Malformed` if the
    /// name is empty or has a NUL, `Io` if there is no memory for it.
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
        Ok(Self { shared: Shared::new(map, fd, None, segment) })
    }

    /// Makes a table in a file on tmpfs, which others read by system calls. The file is removed
    /// with the table.
    ///
    /// A process that may write to that file can kill this one by making the file shorter; so only
    /// this user and root may. This process must not open and close the file otherwise: that would
    /// give up the lock by which readers know that it has a writer.
    ///
    /// # Errors
    /// As [`TableWriter::new`]; `Unsupported` if the path is not on tmpfs, `Busy` if somebody
    /// writes a table there.
    pub fn at(path: &Path, config: TableConfig<'_>) -> Result<Self> {
        let segment = segment(config)?;
        let failed = |errno| cannot("a file")(io::Error::from(errno));
        if let Ok(old) = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            if has_writer(&old) {
                let text = format!(
                    "another process writes the table {} already: give another path",
                    path.display()
                );
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
        let shared = Shared::new(map, fd, Some(path.to_owned()), segment);
        Ok(Self { shared })
    }

    /// Adds an object of that path, all its statistics 0. It is there as long as what this returns.
    ///
    /// Paths should differ within a table; readers tell two alike apart by a number of their own.
    ///
    /// # Errors
    /// `TooLarge` if the table is full or the path over `wire::MAX_NAME_BYTES` (256 with its NUL),
    /// `Malformed` if path or a name have a NUL or the path is empty.
    pub fn add(&self, path: &str, stats: &TableSchema) -> Result<TableObject> {
        self.add_object(path, None, stats)
    }

    /// As [`TableWriter::add`], for what users also call by a number: a vCPU.
    ///
    /// # Errors
    /// As [`TableWriter::add`].
    pub fn add_indexed(&self, path: &str, index: u32, stats: &TableSchema) -> Result<TableObject> {
        self.add_object(path, Some(index), stats)
    }

    fn add_object(
        &self,
        path: &str,
        index: Option<u32>,
        stats: &TableSchema,
    ) -> Result<TableObject> {
        let (schema, shape) = (stats.schema(self.shared.provider()), stats.shape());
        let (place, slot) = self.shared.add(path, index, &schema, shape)?;
        let region = Region::new(&self.shared, place, schema, shape.is_grouped);
        Ok(TableObject::new(region, slot))
    }

    /// Says that this writer lives and does its work: to be called by whatever must not stall, more
    /// often than the configuration promises.
    #[inline]
    pub fn beat(&self) {
        self.shared.beat();
    }

    /// Returns a descriptor of the table for another process, which can map and read it, nothing
    /// more.
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

fn segment(config: TableConfig<'_>) -> Result<Segment> {
    let TableConfig { provider, capacity_bytes, max_objects, heartbeat } = config;
    name_fits(provider)?;
    if provider.is_empty() || provider.contains('\0') {
        return Err(Error::new(ErrorKind::Malformed, "a provider needs a name without a NUL"));
    }
    let directory_end = HEADER_WORDS + max_objects.min(MAX_SLOTS as usize) * SLOT_WORDS;
    let words = (capacity_bytes / WORD_BYTES).next_multiple_of(LINES_WORDS);
    if max_objects as u64 > MAX_SLOTS || (words * WORD_BYTES) as u64 > MAX_SEGMENT_BYTES {
        let text = format!(
            "a table for {max_objects} objects in {capacity_bytes} bytes; \
             the limits are {MAX_SLOTS} and {MAX_SEGMENT_BYTES}"
        );
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    if words <= directory_end {
        let text = format!(
            "{capacity_bytes} bytes are no room for objects behind a directory of {max_objects}"
        );
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    // A promise of centuries is none.
    let heartbeat_period_ns = heartbeat.map_or(0, |period| period.as_nanos() as u64);
    let (directory_word, provider) = (HEADER_WORDS, provider.to_owned());
    Ok(Segment { words, directory_word, slots: max_objects, heartbeat_period_ns, provider })
}

fn cannot(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| {
        let text = format!("cannot make {what} for a table");
        // Its second descriptor, which can only be read, is opened there.
        match mounted() {
            Err(why) if error.kind() == io::ErrorKind::NotFound => {
                Error::new(ErrorKind::Unsupported, format!("{text}: {why}"))
            }
            _ => Error::caused(ErrorKind::Io, text, error),
        }
    }
}
