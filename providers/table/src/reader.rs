//! The statistics in tables of other processes, or of this one.
//!
//! Invariant: a table is one that its writer still stands behind: of a process that lives, of a
//! peer that is connected, or of a file that somebody has locked for writing. An object that was
//! removed, and every object of a table that nobody stands behind any more, is gone: from `objects`
//! and from every open row.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};
use vmstrobe_core::{Error, ErrorKind, Object, Provider, ReadPlan, Result, Schema, Source};
use vmstrobe_host::{DeathWatch, FdOwner, GoneEpoch, Host, Process, refusal, refusal::path::Use};

use super::budget::Shares;
use super::held::{Giver, Origin, Shared, Table, file_of, has_writer, unread};
use super::look::{Found, Memory};
use super::refused::Refusals;
use super::source::TableSource;
use super::writer::TableWriter;

/// The most objects of one source; see the same of stats fds.
const ROWS_PER_SOURCE: usize = 64;

/// The statistics in tables: any program's own, published in memory that is read without a system
/// call.
///
/// Tables are found in a process by its id, opened by path, or handed over. Objects bear the
/// paths that their writers gave them, and the provider's name that the table bears; of two with
/// one path the later gets the table's number behind it.
///
/// Objects that come and go, tables that a process makes later or closes, and writers that have
/// fallen silent are noticed whenever [`Provider::objects`] is called; the end of a process within
/// a moment.
///
/// ```
/// use vmstrobe_core::{Provider, Target};
/// use vmstrobe_table::{TableSchema, TableWriter, Tables};
///
/// let table = TableWriter::new("xyz")?;
/// let queue = table.add("/xyz/queue[0]", &TableSchema::new(Target::from_name("queue")))?;
/// let tables = Tables::new()?;
/// tables.add_own(&table)?;
/// assert_eq!(&*tables.objects()?[0].path, "/xyz/queue[0]");
/// drop(queue);
/// assert!(tables.objects()?.is_empty());
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Tables {
    pub(super) host: Host,
    pub(super) gone_epoch: GoneEpoch,
    pub(super) watch: Arc<DeathWatch>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    processes: Vec<Arc<Process>>,
    pub(super) tables: Vec<Table>,
    last_table: u64,
    shared: Shared,
    shares: Shares,
    refusals: Refusals,
    /// The place of each object at the last look, by its key: its table's number, and its index
    /// there.
    places: HashMap<u64, (u64, usize)>,
}

impl Tables {
    /// Makes a provider without tables. Starts the thread that notices the end of processes.
    ///
    /// # Errors
    /// `Io` if the system has no thread for it.
    pub fn new() -> Result<Self> {
        Self::on_host(Host::default())
    }

    /// As [`Tables::new`], with a host that other providers may use too, and its start of threads.
    ///
    /// # Errors
    /// As [`Tables::new`].
    pub fn on_host(host: Host) -> Result<Self> {
        let watch = Arc::new(DeathWatch::new(host.threads())?);
        Ok(Self { host, gone_epoch: GoneEpoch::default(), watch, state: Mutex::default() })
    }

    /// Borrows all tables of a process that can be read, the ones it has now and the ones it will
    /// have. Returns the number of tables that this call borrowed.
    ///
    /// # Errors
    /// `NotFound` if there is no such process, `Denied` if we may not look into it or take its
    /// fds; what [`Tables::open_file`] says if it has tables and none can be read.
    pub fn attach(&self, pid: u32) -> Result<usize> {
        let mut state = self.state();
        if let Some(process) = state.processes.iter().find(|process| process.pid() == pid) {
            if process.lives() {
                return Ok(0);
            }
            state.processes.retain(|process| process.pid() != pid);
        }
        let process = Arc::new(Process::open(pid, &self.gone_epoch)?);
        let (count, refused) = self.take(&mut state, &process)?;
        // One that can be read is what was asked for; those that cannot yet are tried again.
        if let Some(error) = refused.into_iter().next().filter(|_| count == 0) {
            return Err(error);
        }
        self.watch.add(&process);
        state.processes.push(process);
        Ok(count)
    }

    /// Returns the name of the provider of each table that is held, as the table itself says it;
    /// the name of its memory, by which it is found, may be another.
    pub fn provider_names(&self) -> Vec<String> {
        self.state().tables.iter().map(|table| table.provider().to_owned()).collect()
    }

    /// Reads a table in a file on tmpfs, by system calls. Does nothing if it is read already.
    ///
    /// # Errors
    /// `NotFound` if there is no such file or nobody writes it any more, `Denied` if we may not
    /// read it, `Unsupported` if it is not on tmpfs, `Malformed`, `TooLarge` or `Unsupported` if it
    /// is no table that we know, `Busy` if its directory never stands still.
    pub fn open_file(&self, path: &Path) -> Result<()> {
        let shown = path.display();
        // Not to wait for whoever would open the other end of what is no table at all.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = path.to_owned();
        let opened = self.host.broker().run_apart(move || open(file, flags, Mode::empty()))?;
        let fd = opened.map_err(|errno| {
            let kind = match std::io::Error::from(errno).kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Io,
            };
            let text = format!("cannot open the table {shown}");
            match kind {
                ErrorKind::Denied => {
                    let why = refusal::path::reason(self.host.broker(), path, Use::Read);
                    Error::new(kind, format!("{text}: {why}"))
                }
                ErrorKind::NotFound => {
                    let advice = "start the program that writes it, or check the path";
                    Error::caused(kind, format!("there is no table {shown}: {advice}"), errno)
                }
                _ => Error::caused(kind, text, errno),
            }
        })?;
        let file = file_of(&fd);
        if file.is_some() && !has_writer(&fd) {
            let text = format!(
                "no program writes the table {shown} now: start it again, or check the path"
            );
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        let mut state = self.state();
        if file.is_some() && state.tables.iter().any(|t| t.file == file && !t.is_gone()) {
            return Ok(());
        }
        let origin = Origin { title: shown.to_string(), giver: Giver::Path };
        self.hold(&mut state, fd, origin).map(drop)
    }

    /// Reads a table of this process.
    ///
    /// # Errors
    /// `Io` if there is no room for it.
    pub fn add_own(&self, table: &TableWriter) -> Result<()> {
        let memory = Memory::Mapped(Arc::clone(table.map()));
        let mut state = self.state();
        let share = state.shares.of(None);
        let origin = Origin { title: "a table of this process".to_owned(), giver: Giver::Own };
        let table = Table::new(state.last_table + 1, memory, origin, &share)?;
        state.push(table).map(drop)
    }

    /// Reads a table by a descriptor that came in some other way: mapped if it is sealed against
    /// growing, shrinking and writing, else by system calls. The caller vouches for its writer's
    /// life; a promise of heartbeats is watched.
    ///
    /// # Errors
    /// As [`Tables::open_file`].
    pub fn add_fd(&self, fd: OwnedFd) -> Result<()> {
        let title = "a table that this process was given".to_owned();
        self.hold(&mut self.state(), fd, Origin { title, giver: Giver::Own }).map(drop)
    }

    /// Reads a table by its descriptor, which came from that owner. Returns its number. Errors call
    /// the table by that title. For an `FdClient`, which alone knows the owner of what it receives.
    ///
    /// # Errors
    /// As [`Tables::open_file`].
    #[doc(hidden)]
    pub fn add(&self, title: &str, fd: OwnedFd, owner: FdOwner) -> Result<u64> {
        let origin = Origin { title: title.to_owned(), giver: Giver::FdOwner(owner) };
        self.hold(&mut self.state(), fd, origin)
    }

    /// Gives the table of that number back: its rows are gone. For an `FdClient`.
    #[doc(hidden)]
    pub fn remove(&self, number: u64) {
        let mut state = self.state();
        let removed = state.tables.extract_if(.., |table| table.number == number);
        removed.for_each(|table| table.give_up(&self.gone_epoch));
    }

    /// Returns the number that moves when a table goes. For an `FdClient`.
    #[doc(hidden)]
    pub fn gone_epoch(&self) -> &GoneEpoch {
        &self.gone_epoch
    }

    pub(super) fn hold(&self, state: &mut State, fd: OwnedFd, origin: Origin) -> Result<u64> {
        if let Some(file) = file_of(&fd) {
            state.refusals.check(file, &fd, Instant::now())?;
        }
        let (title, share) = (origin.title.clone(), state.shares.of(origin.giver.alive()));
        let table = Table::given(state.last_table + 1, fd, origin, &share);
        state.push(table.map_err(|error| unread(&title, &error))?)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A look cut short by a panic has lost objects, which the next one finds again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Holds a table once it was looked at. Gives its number.
    fn push(&mut self, mut table: Table) -> Result<u64> {
        if let Err(error) = table.look(&mut self.shared) {
            if let (Some(file), Some(refused)) = (table.file, table.refused()) {
                self.refusals.add_file(file, refused.clone());
            }
            return Err(error);
        }
        self.places.extend(table.places());
        self.last_table = table.number;
        self.tables.push(table);
        Ok(self.last_table)
    }

    /// The object of that key, and its table.
    fn find(&self, key: u64) -> Option<(&Table, &Found)> {
        let (number, at) = self.places.get(&key)?;
        // Numbers only grow, and none is given twice.
        let table = self.tables.binary_search_by_key(number, |table| table.number).ok()?;
        let table = &self.tables[table];
        let (found, object) = table.objects.get(*at)?;
        (object.key == key).then_some((table, found))
    }
}

impl Provider for Tables {
    fn name(&self) -> &str {
        crate::PROVIDER
    }

    /// Returns the schemas of the objects at the last look, under the names of their providers.
    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        let state = self.state();
        let objects = state.tables.iter().flat_map(|table| &table.objects);
        let schemas = objects.map(|(_, object)| &object.schema);
        // Equal ones are one, so that where it is tells it from all others.
        let mut seen = HashSet::new();
        Ok(schemas.filter(|schema| seen.insert(Arc::as_ptr(schema))).cloned().collect())
    }

    /// Looks again at every table and process. A table that cannot be read any more has no objects.
    fn objects(&self) -> Result<Vec<Object>> {
        let mut state = self.state();
        state.processes.retain(|process| process.lives());
        for process in state.processes.clone() {
            // Tables that could not be borrowed are left out, and tried again next time.
            let _ = self.take(&mut state, &process);
        }
        let State { tables, shared, places, refusals, .. } = &mut *state;
        tables.iter_mut().for_each(|table| table.check(&self.gone_epoch));
        tables.retain(|table| !table.is_gone());
        refusals.keep_rows(|number| tables.iter().any(|table| table.number == number));
        shared.taken.clear();
        let readable = tables.iter_mut().filter_map(|table| {
            table.look(shared).ok()?;
            Some(table.objects.iter().map(|(_, object)| object.clone()))
        });
        let objects = readable.flatten().collect();
        places.clear();
        places.extend(tables.iter().flat_map(Table::places));
        Ok(objects)
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        // Before anyone is asked whether it is gone; see `GoneEpoch`.
        let opened_at = self.gone_epoch.count();
        let mut state = self.state();
        // A table whose writer is silent already does not move the number any more: it counts as
        // moved.
        let has_moved = state.tables.iter().any(Table::is_silent);
        let opened_at = opened_at.wrapping_sub(has_moved.into());
        let mut refused = BTreeMap::new();
        let mut row = |object: &Object| {
            let (table, found) = state.find(object.key)?;
            let row = (object.schema == *plan.schema()).then(|| table.row(found, plan))?;
            row.map_err(|error| refused.insert(table.number, error)).ok()?
        };
        let source = |objects: &[Object]| {
            let rows = objects.iter().map(&mut row).collect();
            let source = TableSource::new(plan, rows, &self.gone_epoch, opened_at);
            Box::new(source) as Box<dyn Source>
        };
        let sources = objects.chunks(ROWS_PER_SOURCE).map(source).collect();
        state.refusals.add_rows(refused);
        Ok(sources)
    }

    fn ended(&self) -> Vec<u32> {
        self.watch.ended()
    }

    /// Why tables, or objects of them, are not read because they are over a limit.
    fn warnings(&self) -> Vec<Error> {
        let state = self.state();
        state.refusals.warnings(state.tables.iter().filter_map(Table::refused))
    }
}
