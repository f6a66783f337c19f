//! The thread that records: it takes the samples of a session and gives batches to a sink.
//!
//! A sample is compared with the last one and handed back at once, so that the sampler never runs
//! out of buffers because of a recording. Files are encoded and written by another thread, at the
//! end of a batch.
//!
//! Invariant: every sample from the session's first on is recorded, or counted as lost; one that
//! was taken before the session was stopped is recorded before the thread ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vmstrobe_core::{Snapshot, Thread, ThreadStart};
use vmstrobe_export::limits::MAX_EVENT_BYTES;
use vmstrobe_export::{Batch, BatchLimits, Batcher, Event, EventKind};
use vmstrobe_sampler::{Subscriber, now_ns};

use super::files::RecordedFile;
use super::flight::{Dump, DumpRequest};
use super::sink::Sink;
use crate::error::{Error, Result};

/// The time between two looks into the queue.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// The time of a batch. Shorter ones take more bytes, longer ones lose more if the process is
/// killed.
const BATCH_SECONDS: f64 = 0.5;
/// The most changes of a batch, which take 12 bytes each.
const BATCH_CHANGES: usize = 1 << 19;

/// The most bytes of a mark's text: those of an event, less the name of its kind.
pub const MAX_MARK_BYTES: usize = MAX_EVENT_BYTES - "mark".len();
/// The most marks that wait for the end of a batch. A format keeps more events waiting, so that
/// there is room for those of conditions.
pub const MAX_WAITING_MARKS: usize = 64;

/// The progress of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The samples that are recorded.
    pub samples: u64,
    /// The samples that came faster than they could be recorded.
    pub lost_samples: u64,
    /// The ticks before the last recorded sample that were not sampled, or whose samples are lost.
    pub missing_ticks: u64,
    /// The rows of these samples, one for each object.
    pub rows: u64,
    /// The bytes of all files, or of the memory that a flight recorder holds.
    pub bytes: u64,
    /// The files that were removed because all would have taken more than they may.
    pub removed_files: u64,
    /// The time of the first recorded sample, in ns since 1970; 0 before it.
    pub begin_wall_ns: u64,
    /// The time of the last recorded sample, in ns since 1970; 0 before the first.
    pub end_wall_ns: u64,
}

impl Progress {
    fn measure(&mut self, sink: &dyn Sink) {
        (self.bytes, self.removed_files) = (sink.bytes(), sink.removed_files());
    }
}

/// An order to the recorder's thread.
#[derive(Debug)]
enum Order {
    Event(Event),
    Dump(DumpRequest, Option<Sender<Dump>>),
    /// No more samples will come.
    End,
}

/// The recorder's thread, from outside.
#[derive(Debug)]
pub(super) struct Recorder {
    thread: Thread<Result<Vec<RecordedFile>>>,
    handle: RecordingHandle,
    progress: Arc<Mutex<Progress>>,
}

/// A handle by which other threads mark and dump a recording. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct RecordingHandle {
    orders: Sender<Order>,
    /// The marks that are in no batch yet.
    waiting_marks: Arc<AtomicUsize>,
}

impl RecordingHandle {
    /// Notes a mark at this moment, and returns the moment in ns since 1970.
    ///
    /// # Errors
    /// [`Error::Export`] if the text is longer than [`MAX_MARK_BYTES`], [`Error::TooManyMarks`] if
    /// [`MAX_WAITING_MARKS`] wait already, [`Error::RecordingEnded`].
    pub fn mark(&self, text: &str) -> Result<u64> {
        let bytes = text.len();
        if bytes > MAX_MARK_BYTES {
            let (found, limit) = (bytes as u64, MAX_MARK_BYTES as u64);
            let what = "the number of bytes of a mark";
            return Err(Error::Export(vmstrobe_export::Error::TooLarge { what, found, limit }));
        }
        // Relaxed, because the number guards no other data.
        if self.waiting_marks.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING_MARKS {
            self.waiting_marks.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::TooManyMarks);
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (monotonic_ns, wall_ns) = (now_ns(), since_1970.as_nanos() as i64);
        let wall_offset_ns = wall_ns.wrapping_sub_unsigned(monotonic_ns);
        let (kind, text) = (EventKind::Mark, text.to_owned());
        let event = Event { monotonic_ns, wall_offset_ns, kind, text };
        let wall_ns = event.wall_ns();
        self.orders.send(Order::Event(event)).map_err(|_| Error::RecordingEnded)?;
        Ok(wall_ns)
    }

    /// Asks a flight recorder for a dump of all that was sampled before. The result goes to
    /// `reply`, or else to [`Recording::dumps`](super::Recording::dumps). If the recording has
    /// ended, `reply` is dropped.
    pub fn dump(&self, request: DumpRequest, reply: Option<Sender<Dump>>) {
        let _ = self.orders.send(Order::Dump(request, reply));
    }
}

impl Recorder {
    /// Starts to record. The first sample has been received already.
    pub(super) fn start(
        threads: &ThreadStart,
        first: &Arc<Snapshot>,
        samples: Subscriber,
        period_ns: u64,
        flush: Duration,
        sink: Box<dyn Sink>,
    ) -> Result<Self> {
        let (orders, received) = channel();
        let waiting_marks = Arc::<AtomicUsize>::default();
        let progress = Arc::new(Mutex::new(Progress::default()));
        let ticks = (BATCH_SECONDS * 1e9 / period_ns.max(1) as f64) as usize;
        let limits = BatchLimits { ticks: ticks.max(1), changes: BATCH_CHANGES };
        let recording = Body {
            samples,
            orders: received,
            batcher: Batcher::new(limits),
            sink,
            flush,
            last_tick: None,
            noted_marks: 0,
            waiting_marks: Arc::clone(&waiting_marks),
            progress: Arc::clone(&progress),
        };
        let first = Arc::clone(first);
        let thread = threads.spawn("vmstrobe-record", move || recording.run(first))?;
        Ok(Self { thread, handle: RecordingHandle { orders, waiting_marks }, progress })
    }

    pub(super) fn progress(&self) -> Progress {
        *lock(&self.progress)
    }

    /// Returns true once the thread has ended: with the session, or because writing failed.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) fn handle(&self) -> &RecordingHandle {
        &self.handle
    }

    /// Waits until all samples of a session that was stopped are recorded.
    ///
    /// # Errors
    /// The error that ended the recording.
    pub(super) fn join(self) -> Result<(Progress, Vec<RecordedFile>)> {
        let Self { thread, progress, handle } = self;
        // A thread that has ended already needs no order.
        let _ = handle.orders.send(Order::End);
        let files = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((*lock(&progress), files))
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    // Numbers that are replaced as a whole.
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own state.
struct Body {
    samples: Subscriber,
    orders: Receiver<Order>,
    batcher: Batcher,
    sink: Box<dyn Sink>,
    flush: Duration,
    last_tick: Option<u64>,
    /// The marks that were given to the sink since the last batch.
    noted_marks: usize,
    waiting_marks: Arc<AtomicUsize>,
    progress: Arc<Mutex<Progress>>,
}

impl Body {
    fn run(mut self, first: Arc<Snapshot>) -> Result<Vec<RecordedFile>> {
        self.take(&first)?;
        drop(first);
        let mut flushed = Instant::now();
        loop {
            // Before the queue is looked into, so that no sample before the end is missed.
            let mut has_ended = self.samples.has_ended();
            let orders: Vec<Order> = self.orders.try_iter().collect();
            while let Some(sample) = self.samples.try_recv() {
                self.take(&sample)?;
            }
            for order in orders {
                match order {
                    Order::Event(event) => {
                        self.sink.event(&event)?;
                        self.noted_marks += 1;
                    }
                    Order::Dump(request, reply) => self.sink.dump(request, reply),
                    Order::End => has_ended = true,
                }
            }
            if self.sink.is_due() {
                self.write_batch()?;
                self.sink.settle();
            }
            if has_ended {
                break;
            }
            if flushed.elapsed() >= self.flush {
                self.write_batch()?;
                self.sink.flush()?;
                flushed = Instant::now();
            }
            std::thread::sleep(LOOK_PERIOD);
        }
        self.write_batch()?;
        self.sink.finish()?;
        self.note(Progress::measure);
        Ok(self.sink.files())
    }

    fn take(&mut self, sample: &Snapshot) -> Result<()> {
        let tick = sample.tick();
        let missing = self.last_tick.map_or(0, |last| tick.saturating_sub(last + 1));
        self.last_tick = Some(tick);
        let (rows, wall_ns) = (sample.layout().rows() as u64, sample.window().wall_ns());
        let lost_samples = self.samples.lost_samples();
        self.note(|progress, _| {
            if progress.samples == 0 {
                progress.begin_wall_ns = wall_ns;
            }
            progress.end_wall_ns = wall_ns;
            progress.samples += 1;
            progress.rows += rows;
            progress.missing_ticks += missing;
            progress.lost_samples = lost_samples;
        });
        self.sink.sample(sample)?;
        if let Some(batch) = self.batcher.push(sample).map_err(Error::Export)? {
            self.write(batch)?;
        }
        if self.batcher.is_full() { self.write_batch() } else { Ok(()) }
    }

    fn write_batch(&mut self) -> Result<()> {
        self.batcher.take().map_or(Ok(()), |batch| self.write(batch))
    }

    fn write(&mut self, batch: Batch) -> Result<()> {
        self.sink.write(batch)?;
        let noted = std::mem::take(&mut self.noted_marks);
        self.waiting_marks.fetch_sub(noted, Ordering::Relaxed);
        self.note(Progress::measure);
        Ok(())
    }

    fn note(&self, change: impl FnOnce(&mut Progress, &dyn Sink)) {
        change(&mut lock(&self.progress), &*self.sink);
    }
}
