//! A thread that writes what the recorder's thread hands over, so that neither encoding nor a file
//! system that stalls for a second makes the session's queue overflow.
//!
//! Invariant: batches and events are written in the order in which they came, and all of them
//! before [`Sink::finish`] returns. Once [`WAITING_MAX`] calls wait, the recorder's thread waits
//! too, and what overflows the session's queue meanwhile is counted as lost. Events wait with the
//! next batch, so that they take no batch's place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use vmstrobe_core::{Thread, ThreadStart};
use vmstrobe_export::{Batch, Event};

use super::files::RecordedFile;
use super::sink::Sink;
use crate::error::{Error, Result};

/// The most calls that wait: two seconds of two batches and a flush each.
const WAITING_MAX: usize = 6;

/// A sink behind a thread.
#[derive(Debug)]
pub(super) struct Behind {
    /// Dropped to end the thread.
    work: Option<SyncSender<Work>>,
    /// The events since the last call.
    events: Vec<Event>,
    thread: Option<Thread<Result<Vec<RecordedFile>>>>,
    written: Arc<Written>,
    files: Vec<RecordedFile>,
}

/// The counts of the sink. They guard nothing, so that they are Relaxed.
#[derive(Debug, Default)]
struct Written {
    bytes: AtomicU64,
    removed_files: AtomicU64,
}

impl Written {
    fn note(&self, sink: &dyn Sink) {
        self.bytes.store(sink.bytes(), Ordering::Relaxed);
        self.removed_files.store(sink.removed_files(), Ordering::Relaxed);
    }
}

/// A call of the sink, and the events before it.
#[derive(Debug)]
struct Work {
    events: Vec<Event>,
    /// The batch to write; `None` to flush.
    batch: Option<Batch>,
}

impl Behind {
    /// Starts the thread.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(threads: &ThreadStart, sink: impl Sink) -> Result<Self> {
        let (work, received) = sync_channel(WAITING_MAX);
        let written = Arc::<Written>::default();
        let noted = Arc::clone(&written);
        let thread = threads.spawn("vmstrobe-write", move || run(sink, &received, &noted))?;
        let (events, files) = Default::default();
        Ok(Self { work: Some(work), events, thread: Some(thread), written, files })
    }

    /// Hands over the events so far and a batch, or that it is time to flush. If the thread has
    /// ended because of an error, returns that.
    fn hand_over(&mut self, batch: Option<Batch>) -> Result<()> {
        let work = Work { events: std::mem::take(&mut self.events), batch };
        let sent = self.work.as_ref().is_some_and(|sender| sender.send(work).is_ok());
        if sent { Ok(()) } else { self.end().and(Err(Error::RecordingEnded)) }
    }

    /// Waits until all is written.
    fn end(&mut self) -> Result<()> {
        self.work = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let files = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.files = files?;
        Ok(())
    }
}

/// The thread: writes until no more comes, or writing fails.
fn run(
    mut sink: impl Sink,
    received: &Receiver<Work>,
    written: &Written,
) -> Result<Vec<RecordedFile>> {
    for work in received {
        work.events.iter().try_for_each(|event| sink.event(event))?;
        match work.batch {
            Some(batch) => sink.write(batch)?,
            None => sink.flush()?,
        }
        written.note(&sink);
    }
    sink.finish()?;
    written.note(&sink);
    Ok(sink.files())
}

impl Sink for Behind {
    fn write(&mut self, batch: Batch) -> Result<()> {
        self.hand_over(Some(batch))
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        self.events.push(event.clone());
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.hand_over(None)
    }

    fn finish(&mut self) -> Result<()> {
        if !self.events.is_empty() {
            self.hand_over(None)?;
        }
        self.end()
    }

    fn bytes(&self) -> u64 {
        self.written.bytes.load(Ordering::Relaxed)
    }

    fn removed_files(&self) -> u64 {
        self.written.removed_files.load(Ordering::Relaxed)
    }

    fn files(&mut self) -> Vec<RecordedFile> {
        std::mem::take(&mut self.files)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.work = None;
        // Without `finish`, another error is being returned; the thread ends by itself.
        let _ = self.thread.take().map(Thread::join);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use vmstrobe_export::{Batcher, EventKind, Exporter, Outcome};

    use super::super::sink::One;
    use super::super::testing::sample;
    use super::*;

    /// An exporter that says what it is given, once it is told to go on, and fails when there is
    /// nobody to tell.
    struct Stalled(Receiver<()>, Sender<&'static str>);

    impl Stalled {
        fn takes(&self, what: &'static str) -> vmstrobe_export::Result<()> {
            self.0.recv().map_err(|_| vmstrobe_export::Error::Ended)?;
            self.1.send(what).expect("the test counts");
            Ok(())
        }
    }

    impl Exporter for Stalled {
        fn write(&mut self, _: &Batch) -> vmstrobe_export::Result<Outcome> {
            self.takes("batch").map(|()| Outcome::Written)
        }

        fn event(&mut self, _: &Event) -> vmstrobe_export::Result<()> {
            self.takes("event")
        }

        fn flush(&mut self) -> vmstrobe_export::Result<()> {
            self.takes("flush")
        }

        fn finish(&mut self) -> vmstrobe_export::Result<()> {
            self.takes("finish")
        }

        fn whole_bytes(&self) -> u64 {
            7
        }
    }

    fn batch(tick: u64) -> Batch {
        let mut batcher = Batcher::new(Default::default());
        batcher.push(&sample(tick, &[(0, Some([tick; 6]))])).expect("it is small");
        batcher.take().expect("it has a sample")
    }

    #[test]
    fn a_stalled_exporter_keeps_nobody_waiting_until_too_much_waits() {
        let ((go, told), (takes, taken)) = (channel(), channel());
        let exporter = One(Stalled(told, takes));
        let mut sink = Behind::start(&ThreadStart::default(), exporter).expect("there are threads");
        let count = WAITING_MAX - 1;
        (1..=count as u64).for_each(|tick| sink.write(batch(tick)).expect("it is handed over"));
        let (kind, text) = (EventKind::Mark, "x".to_owned());
        let event = Event { monotonic_ns: 1, wall_offset_ns: 0, kind, text };
        sink.event(&event).expect("it is handed over");
        sink.flush().expect("it is handed over");
        assert_eq!((taken.try_iter().count(), sink.bytes()), (0, 0));
        (0..100).for_each(|_| go.send(()).expect("the exporter is there"));
        sink.finish().expect("all is written");
        let want = [vec!["batch"; count], vec!["event", "flush", "finish"]].concat();
        assert_eq!(taken.iter().collect::<Vec<_>>(), want, "in the order in which it came");
        assert_eq!(sink.bytes(), 7);
    }

    #[test]
    fn an_error_comes_with_a_later_call() {
        let ((_, told), (takes, _taken)) = (channel(), channel());
        let exporter = One(Stalled(told, takes));
        let mut sink = Behind::start(&ThreadStart::default(), exporter).expect("there are threads");
        let mut write = |tick| sink.write(batch(tick)).err();
        let error = (1..).find_map(&mut write).expect("the exporter fails");
        assert!(matches!(error, Error::Export(vmstrobe_export::Error::Ended)), "{error:?}");
        assert!(matches!(write(100), Some(Error::RecordingEnded)));
        assert!(sink.finish().is_ok() && sink.files().is_empty(), "there is nothing to wait for");
    }
}
