//! The flight recorder: the newest samples in memory, written when something happens.
//!
//! Invariant: no sample is lost while a dump is written, because another thread writes it. A dump
//! that fails leaves the ring as it was, and is reported.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use vmstrobe_core::{Snapshot, Thread, ThreadStart, Window};
use vmstrobe_export::{
    ArrowsRing, Batch, Compression, Event, EventKind, Frozen, Metadata, RingLimits, Span,
};
use vmstrobe_host::Broker;

use super::place::{Names, Place, expand};
use super::sink::Sink;
use crate::condition::{Trigger, Triggered};
use crate::error::{Error, Result};

/// The most dumps that wait to be written.
pub const MAX_WAITING_DUMPS: usize = 64;
/// The most dumps that are written at a time. Each keeps the samples of its time in memory until it
/// is written, which a file system can delay.
pub const MAX_WRITING_DUMPS: usize = 8;

/// Options of a flight recorder.
#[derive(Debug)]
pub struct FlightOptions {
    /// The time that it holds.
    pub last: Duration,
    /// The bytes that it holds at most.
    pub memory_bytes: usize,
    /// The path of its dumps. In the file's name, `{vm}`, `{time}` and `{trigger}` stand for the
    /// VM, the time of the dump and its cause.
    pub template: PathBuf,
    /// The compression of its dumps.
    pub compression: Compression,
    /// The condition by which it dumps by itself.
    pub trigger: Option<Trigger>,
    /// The time between a trigger and its dump.
    pub after: Duration,
    /// The circumstances that are written into each dump.
    pub metadata: Metadata,
    /// The broker by which files are made, which has the rights that this takes.
    pub broker: Broker,
}

/// A request for a dump.
#[derive(Clone, Debug, Default)]
pub struct DumpRequest {
    /// The cause: `signal`, `command`, or a condition. It is an event in the dump.
    pub cause: String,
    /// The time before now that is dumped; `None` for all that is held.
    pub last: Option<Duration>,
    /// The path; `None` for the template's.
    pub path: Option<PathBuf>,
}

/// A dump that was written, or failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Dump {
    /// The cause.
    pub cause: String,
    /// The trigger, if a condition caused it.
    pub triggered: Option<Triggered>,
    /// The files, more than one if statistics came or went; or the error.
    pub result: Result<Vec<DumpFile>>,
}

/// A file of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpFile {
    /// Its path.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The samples that are in it.
    pub span: Span,
}

/// A dump that is due at some time.
struct Pending {
    due_ns: u64,
    request: DumpRequest,
    triggered: Option<Triggered>,
    /// The receiver of the result, instead of the recording's own reports.
    reply: Option<Sender<Dump>>,
}

/// The flight recorder's end of the recorder's thread.
pub(super) struct Flight {
    ring: ArrowsRing,
    place: Place,
    template: PathBuf,
    vm: String,
    trigger: Option<Trigger>,
    after: Duration,
    threads: ThreadStart,
    /// The window of the newest sample.
    now: Window,
    pending: Vec<Pending>,
    /// The dumps that are being written.
    writing: Vec<Thread<()>>,
    reports: Sender<Dump>,
}

impl Flight {
    /// Makes an empty flight recorder, and the receiver of its reports.
    pub(super) fn new(options: FlightOptions, threads: ThreadStart) -> (Self, Receiver<Dump>) {
        let (reports, received) = channel();
        let limits = RingLimits { time: options.last, bytes: options.memory_bytes };
        let vm = options.metadata.vm.clone().unwrap_or_else(|| "vm".to_owned());
        let flight = Self {
            ring: ArrowsRing::new(limits, options.metadata, options.compression),
            place: Place::new(options.broker),
            template: options.template,
            vm,
            trigger: options.trigger,
            after: options.after,
            threads,
            now: Window::default(),
            pending: Vec::new(),
            writing: Vec::new(),
            reports,
        };
        (flight, received)
    }

    /// Writes a dump on a thread of its own.
    fn start(&mut self, pending: Pending) {
        let Pending { request, triggered, reply, .. } = pending;
        let names = Names { vm: &self.vm, wall_ns: self.now.wall_ns(), trigger: &request.cause };
        let path = request.path.clone().unwrap_or_else(|| expand(&self.template, names));
        let frozen = self.ring.freeze(request.last);
        let (reports, cause) = (self.reports.clone(), request.cause.clone());
        let of = (cause.clone(), triggered.clone(), reply.clone());
        let report = move |result| {
            let dump = Dump { cause, triggered, result };
            // The one who asked may have left; then the recording's own reports have it.
            let unsent = match reply {
                Some(reply) => reply.send(dump).err().map(|unsent| unsent.0),
                None => Some(dump),
            };
            if let Some(dump) = unsent {
                let _ = reports.send(dump);
            }
        };
        // A path that a client named is opened with no more than the rights of the process's user.
        // Root has them all anyway.
        let is_named = request.path.is_some() && !rustix::process::geteuid().is_root();
        let place = if is_named { Place::new(Broker::default()) } else { self.place.clone() };
        let write = move || report(write(frozen, &place, &path));
        match self.threads.spawn("vmstrobe-dump", write) {
            Ok(thread) => self.writing.push(thread),
            Err(error) => {
                let (cause, triggered, reply) = of;
                let dump = Dump { cause, triggered, result: Err(error.into()) };
                let _ = reply.as_ref().unwrap_or(&self.reports).send(dump);
            }
        }
    }

    fn add(&mut self, pending: Pending) {
        let is_full = self.pending.len() >= MAX_WAITING_DUMPS;
        if !is_full {
            return self.pending.push(pending);
        }
        let Pending { request, triggered, reply, .. } = pending;
        let dump = Dump { cause: request.cause, triggered, result: Err(Error::TooManyDumps) };
        let _ = reply.as_ref().unwrap_or(&self.reports).send(dump);
    }
}

impl Sink for Flight {
    fn sample(&mut self, sample: &Snapshot) -> Result<()> {
        self.now = sample.window();
        let triggered = self.trigger.as_mut().and_then(|trigger| trigger.sample(sample));
        let Some(triggered) = triggered else { return Ok(()) };
        let rule = self.trigger.as_ref().map(|trigger| trigger.rule().condition.to_string());
        let cause = rule.unwrap_or_default();
        // One batch holds so many events. The dump says its cause all the same.
        let _ = self.event(&Event {
            monotonic_ns: triggered.at_ns,
            wall_offset_ns: self.now.wall_offset_ns,
            kind: EventKind::Trigger,
            text: cause.clone(),
        });
        let after_ns = u64::try_from(self.after.as_nanos()).unwrap_or(u64::MAX);
        let due_ns = triggered.at_ns.saturating_add(after_ns);
        let request = DumpRequest { cause, ..DumpRequest::default() };
        self.add(Pending { due_ns, request, triggered: Some(triggered), reply: None });
        Ok(())
    }

    fn write(&mut self, batch: Batch) -> Result<()> {
        self.ring.push(&batch).map_err(Error::Export)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        self.ring.event(event).map_err(Error::Export)
    }

    fn dump(&mut self, request: DumpRequest, reply: Option<Sender<Dump>>) {
        self.add(Pending { due_ns: 0, request, triggered: None, reply });
    }

    fn is_due(&self) -> bool {
        let is_due = self.pending.iter().any(|pending| pending.due_ns <= self.now.end_ns);
        let writing = || self.writing.iter().filter(|thread| !thread.is_finished()).count();
        is_due && writing() < MAX_WRITING_DUMPS
    }

    fn settle(&mut self) {
        self.writing.retain(|thread| !thread.is_finished());
        let free = MAX_WRITING_DUMPS.saturating_sub(self.writing.len());
        let now_ns = self.now.end_ns;
        let due = self.pending.extract_if(.., |dump| dump.due_ns <= now_ns);
        let due: Vec<_> = due.take(free).collect();
        due.into_iter().for_each(|pending| self.start(pending));
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Writes now the dumps that are due later, and waits for all.
    fn finish(&mut self) -> Result<()> {
        std::mem::take(&mut self.pending).into_iter().for_each(|pending| self.start(pending));
        for thread in self.writing.drain(..) {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.ring.bytes() as u64
    }
}

/// Writes a dump into new files, and lets the system write them to the disk.
fn write(frozen: Frozen, place: &Place, path: &Path) -> Result<Vec<DumpFile>> {
    let parts = frozen.parts();
    if parts.is_empty() {
        return Err(Error::NothingToDump);
    }
    let files = parts.iter().map(|part| {
        let (path, file) = place.create_numbered(path)?;
        let bytes = part.write(&file);
        let bytes = bytes.map_err(|source| Error::Recording { path: path.clone(), source })?;
        let synced = file.sync_all().or_else(not_a_disk);
        synced.map_err(|source| Error::RecordFile { path: path.clone(), source })?;
        let span = part.span().expect("a part has a batch");
        Ok(DumpFile { path, bytes, span })
    });
    files.collect()
}

/// Returns the error of a sync, unless it only says that the file is not on a disk.
fn not_a_disk(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::InvalidInput { Ok(()) } else { Err(error) }
}
