//! The files of a recording: one after the other, as the user splits them.
//!
//! Invariant: after an error, the file that it is about ends at the last whole message, and the
//! files before it are finished. Only files that this recording made are removed.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vmstrobe_export::{Batch, Columns, Event, Exporter, Metadata, Outcome};
use vmstrobe_host::Broker;

use super::format::{Format, Settings, writer};
use super::place::{Place, numbered};
use super::sink::Sink;
use crate::error::{Error, Result};

/// The length of an interval of an interval log.
#[cfg(feature = "histlog")]
const HISTLOG_INTERVAL: Duration = Duration::from_secs(1);

/// The size at which a file is followed by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// So many bytes.
    Bytes(u64),
    /// So long a time.
    Time(Duration),
}

/// Options of the files of a recording.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The format; `None` for the one that the file's name ends in.
    pub format: Option<Format>,
    /// The compression of an Arrow stream.
    pub compression: vmstrobe_export::Compression,
    /// The shortest time between two samples that are written as text; `None` to write all.
    pub every: Option<Duration>,
    /// The size at which a file is followed by the next, whose name has another number.
    pub split: Option<Split>,
    /// The most bytes of all files together. Beyond them the oldest is removed, never the newest.
    pub keep_bytes: Option<u64>,
    /// True to replace a file that is there. Otherwise that is an error.
    pub overwrite: bool,
    /// The time after which samples are handed over to the system at the latest.
    pub flush: Duration,
    /// A file for the interval log of a histogram statistic, and its name; `None` for no such log.
    #[cfg(feature = "histlog")]
    pub histlog: Option<(PathBuf, String)>,
    /// The circumstances that are written into each file.
    pub metadata: Metadata,
    /// The broker by which files are made and removed, which has the rights that this takes.
    pub broker: Broker,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            format: None,
            compression: vmstrobe_export::Compression::default(),
            every: None,
            split: None,
            keep_bytes: None,
            overwrite: false,
            flush: Duration::from_secs(1),
            #[cfg(feature = "histlog")]
            histlog: None,
            metadata: Metadata::default(),
            broker: Broker::default(),
        }
    }
}

/// A file that is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedFile {
    /// Its path.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The names of the statistics that its format leaves out.
    pub left_out: Vec<String>,
    /// The rows of a table for spreadsheets, its head included; `None` for any other format.
    pub spreadsheet_rows: Option<u64>,
}

/// The files of one recording.
pub(super) struct Files {
    path: PathBuf,
    place: Place,
    format: Format,
    options: FileOptions,
    columns: Columns,
    current: Option<Current>,
    done: VecDeque<RecordedFile>,
    number: u32,
    /// The bytes of the files that are finished and still there.
    done_bytes: u64,
    removed: u64,
    /// Events before the first file.
    waiting: Vec<Event>,
    /// True if the samples are taken now, so that this machine's clocks are theirs.
    is_live: bool,
    /// The interval log beside the files, with its path.
    beside: Option<(PathBuf, Box<dyn Exporter + Send>)>,
}

/// The file that is being written.
struct Current {
    path: PathBuf,
    file: File,
    exporter: Box<dyn Exporter + Send>,
    begin_ns: u64,
}

impl Files {
    /// Prepares to write files of this name. The first is made at once, so that a name that cannot
    /// be used is known before anything is sampled; its head follows with the first batch.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] if the name does not tell the format.
    pub(super) fn new(path: &Path, options: FileOptions, is_live: bool) -> Result<Self> {
        let format = options.format.or_else(|| Format::of(path));
        let format = format.ok_or_else(|| Error::UnknownFormat { path: path.to_owned() })?;
        let place = Place::new(options.broker.clone());
        #[cfg(feature = "histlog")]
        let beside = histlog(&place, &options)?;
        #[cfg(not(feature = "histlog"))]
        let beside = None;
        Ok(Self {
            path: path.to_owned(),
            place,
            is_live,
            beside,
            format,
            options,
            columns: Columns::default(),
            current: None,
            done: VecDeque::new(),
            number: 0,
            done_bytes: 0,
            removed: 0,
            waiting: Vec::new(),
        })
    }

    /// Returns the path of the next file.
    fn next_path(&mut self) -> PathBuf {
        self.number += 1;
        match (self.options.split, self.number) {
            (None, 1) => self.path.clone(),
            (None, number) => numbered(&self.path, &number.to_string()),
            (Some(_), number) => numbered(&self.path, &format!("{number:04}")),
        }
    }

    /// Makes the next file, with columns for this batch.
    fn open(&mut self, batch: &Batch) -> Result<Current> {
        let columns = self.columns.joined(batch.layout()).map_err(Error::Export)?;
        let path = self.next_path();
        let file = self.place.create(&path, self.options.overwrite)?;
        let failed = |source| Error::RecordFile { path: path.clone(), source };
        let out = file.try_clone().map_err(failed)?;
        let settings = Settings {
            compression: self.options.compression,
            every: self.options.every,
            boottime_offset_ns: self.is_live.then(boottime_offset_ns),
        };
        self.columns = columns.clone();
        let metadata = &self.options.metadata;
        let exporter = writer(self.format, out, columns, metadata, settings);
        let exporter = exporter.map_err(|error| broken(&path, &file, error))?;
        Ok(Current { path, file, exporter, begin_ns: batch.windows()[0].begin_ns })
    }

    /// Finishes the file that is being written.
    fn close(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        current.exporter.finish().map_err(|error| broken(&current.path, &current.file, error))?;
        let bytes = current.exporter.whole_bytes();
        self.done_bytes += bytes;
        let (left_out, spreadsheet_rows) =
            (current.exporter.left_out(), current.exporter.spreadsheet_rows());
        let path = current.path;
        self.done.push_back(RecordedFile { path, bytes, left_out, spreadsheet_rows });
        self.remove_oldest(0)
    }

    /// Removes finished files until all take no more than they may, with so many more bytes. The
    /// newest file stays, however large it is.
    fn remove_oldest(&mut self, more_bytes: u64) -> Result<()> {
        let Some(keep_bytes) = self.options.keep_bytes else { return Ok(()) };
        let newest = usize::from(self.current.is_none());
        while self.done_bytes + more_bytes > keep_bytes
            && self.done.len() > newest
            && let Some(oldest) = self.done.pop_front()
        {
            (self.done_bytes, self.removed) = (self.done_bytes - oldest.bytes, self.removed + 1);
            self.place.remove(&oldest.path)?;
        }
        Ok(())
    }

    fn is_split(&self, batch: &Batch) -> bool {
        let Some(current) = &self.current else { return false };
        match self.options.split {
            None => false,
            Some(Split::Bytes(bytes)) => current.exporter.whole_bytes() >= bytes,
            Some(Split::Time(time)) => {
                let time_ns = batch.windows()[0].begin_ns.saturating_sub(current.begin_ns);
                u128::from(time_ns) >= time.as_nanos()
            }
        }
    }

    /// Lets the interval log do something, if there is one.
    fn with_beside(
        &mut self,
        act: impl FnOnce(&mut dyn Exporter) -> vmstrobe_export::Result<()>,
    ) -> Result<()> {
        let Some((path, log)) = &mut self.beside else { return Ok(()) };
        act(&mut **log).map_err(|source| Error::Recording { path: path.clone(), source })
    }

    /// Lets the exporter of the current file do something.
    fn with<T>(
        &mut self,
        act: impl FnOnce(&mut dyn Exporter) -> vmstrobe_export::Result<T>,
    ) -> Result<Option<T>> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let done = act(&mut *current.exporter);
        done.map(Some).map_err(|error| broken(&current.path, &current.file, error))
    }
}

impl Sink for Files {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let batch = &batch;
        if self.is_split(batch) {
            self.close()?;
        }
        if self.current.is_none() {
            self.current = Some(self.open(batch)?);
        }
        for event in std::mem::take(&mut self.waiting) {
            self.with(|exporter| exporter.event(&event))?;
        }
        if self.with(|exporter| exporter.write(batch))? == Some(Outcome::OtherColumns) {
            self.close()?;
            self.current = Some(self.open(batch)?);
            self.with(|exporter| exporter.write(batch))?;
        }
        self.with_beside(|log| log.write(batch).map(drop))?;
        let bytes = self.current.as_ref().map_or(0, |current| current.exporter.whole_bytes());
        self.remove_oldest(bytes)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        if self.with(|exporter| exporter.event(event))?.is_none() {
            self.waiting.push(event.clone());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.with_beside(|log| log.flush())?;
        self.with(|exporter| exporter.flush()).map(|_| ())
    }

    fn finish(&mut self) -> Result<()> {
        self.with_beside(|log| log.finish())?;
        self.close()
    }

    fn bytes(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |current| current.exporter.whole_bytes());
        self.done_bytes + current
    }

    fn removed_files(&self) -> u64 {
        self.removed
    }

    fn files(&mut self) -> Vec<RecordedFile> {
        std::mem::take(&mut self.done).into()
    }
}

/// Makes the interval log that the options name.
#[cfg(feature = "histlog")]
fn histlog(
    place: &Place,
    options: &FileOptions,
) -> Result<Option<(PathBuf, Box<dyn Exporter + Send>)>> {
    let Some((path, stat)) = &options.histlog else { return Ok(None) };
    let file = place.create(path, options.overwrite)?;
    let log = vmstrobe_export::HistlogWriter::new(file, stat, HISTLOG_INTERVAL);
    Ok(Some((path.clone(), Box::new(log))))
}

/// Returns the difference of `CLOCK_BOOTTIME` to `CLOCK_MONOTONIC`: the time of suspensions.
fn boottime_offset_ns() -> i64 {
    let ns = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec * 1_000_000_000 + time.tv_nsec as i64
    };
    ns(ClockId::Boottime) - ns(ClockId::Monotonic)
}

/// Cuts a file behind its last whole message, and returns the error with the file's path.
fn broken(path: &Path, file: &File, error: vmstrobe_export::Error) -> Error {
    if let vmstrobe_export::Error::Write { whole_bytes, .. } = error {
        // A pipe cannot be cut; what was read from it is gone.
        let _ = file.set_len(whole_bytes);
    }
    Error::Recording { path: path.to_owned(), source: error }
}
