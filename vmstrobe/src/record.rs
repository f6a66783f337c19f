//! Recordings of a session, and its flight recorder.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Duration;
//!
//! let session = vmstrobe::attach(4711)?.sample("vcpu: *", 1000.0)?;
//! let recording = session.record_to(Path::new("run.arrows"), vmstrobe::FileOptions::default())?;
//! std::thread::sleep(Duration::from_secs(10));
//! recording.mark("the end is near")?;
//! let recorded = recording.stop()?;
//! println!("{} samples, {} lost", recorded.progress.samples, recorded.progress.lost_samples);
//! # Ok::<(), vmstrobe::Error>(())
//! ```
//!
//! Invariant: recording happens off the tick. A recorder that cannot keep up loses samples, each of
//! which is counted.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use vmstrobe_export::{Exporter, Metadata};

use crate::error::Result;
use crate::session::Session;
use behind::Behind;
use files::Files;
use flight::Flight;
use place::Place;
use recorder::Recorder;
use sink::{One, Sink};

pub(crate) use convert::write_batches;
pub use convert::{Converted, convert};
pub use files::{FileOptions, RecordedFile, Split};
pub use flight::{
    Dump, DumpFile, DumpRequest, FlightOptions, MAX_WAITING_DUMPS, MAX_WRITING_DUMPS,
};
pub use format::Format;
pub(crate) use format::extensions;
pub use pace::Pace;
pub use place::{parse_utc, plain_name, utc};
pub use recorder::{MAX_MARK_BYTES, MAX_WAITING_MARKS, Progress, RecordingHandle};
pub use replay::{DryRun, DryTrigger, Moment, Replay, Replayed};
pub use replay_session::ReplaySession;
pub(crate) use replay_session::cut;
pub use stream::SampleStream;

mod behind;
mod convert;
mod files;
mod flight;
mod format;
mod pace;
mod place;
mod player;
mod reader;
mod recorder;
mod replay;
mod replay_session;
mod sink;
mod stage;
mod stream;

/// The time between two flushes of an exporter of the caller's.
const FLUSH_PERIOD: Duration = Duration::from_secs(1);

/// A session that is being recorded.
#[derive(Debug)]
pub struct Recording {
    session: Session,
    recorder: Recorder,
    dumps: Option<Receiver<Dump>>,
}

/// A recording that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Recorded {
    /// The progress at the end.
    pub progress: Progress,
    /// The files that are there, the oldest first.
    pub files: Vec<RecordedFile>,
    /// The dumps since the last call of [`Recording::dumps`].
    pub dumps: Vec<Dump>,
}

impl Session {
    /// Records every sample of this session, from the first on, with an exporter.
    ///
    /// # Errors
    /// If no thread can be had. Later errors of the exporter end the recording; then
    /// [`Recording::stop`] returns them.
    pub fn record(self, exporter: impl Exporter + Send + 'static) -> Result<Recording> {
        let sink = Behind::start(self.threads(), One(exporter))?;
        self.record_into(Box::new(sink), FLUSH_PERIOD, None)
    }

    /// Records every sample of this session, from the first on, into a file, or several.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`](crate::Error::UnknownFormat) if the file's name does not tell the
    /// format; else as [`Session::record`].
    pub fn record_to(mut self, path: &Path, mut options: FileOptions) -> Result<Recording> {
        self.fill(&mut options.metadata);
        let flush = options.flush;
        let sink = Behind::start(self.threads(), Files::new(path, options, true)?)?;
        self.record_into(Box::new(sink), flush, None)
    }

    /// Keeps the newest samples of this session in memory, and writes them when it is asked to, or
    /// when a condition comes true.
    ///
    /// # Errors
    /// [`Error::RecordFile`](crate::Error::RecordFile) if no dump could be made in the directory of
    /// the template, which would otherwise be found when something has happened; else as
    /// [`Session::record`].
    pub fn fly(mut self, mut options: FlightOptions) -> Result<Recording> {
        Place::new(options.broker.clone()).check_directory(&options.template)?;
        self.fill(&mut options.metadata);
        let (flight, dumps) = Flight::new(options, self.threads().clone());
        self.record_into(Box::new(flight), FLUSH_PERIOD, Some(dumps))
    }

    fn record_into(
        mut self,
        sink: Box<dyn Sink>,
        flush: Duration,
        dumps: Option<Receiver<Dump>>,
    ) -> Result<Recording> {
        let samples = self.take_samples()?;
        let (threads, period_ns) = (self.threads().clone(), self.period_ns());
        let recorder = Recorder::start(&threads, self.first(), samples, period_ns, flush, sink)?;
        Ok(Recording { session: self, recorder, dumps })
    }

    /// Fills in what the caller left out and the session knows.
    pub(crate) fn fill(&mut self, metadata: &mut Metadata) {
        let system = rustix::system::uname();
        let text = |text: &std::ffi::CStr| Some(text.to_string_lossy().into_owned());
        let or = |known: &mut Option<String>, other| *known = known.take().or(other);
        or(&mut metadata.host, text(system.nodename()));
        or(&mut metadata.kernel, text(system.release()));
        or(&mut metadata.clock, Some("CLOCK_MONOTONIC".to_owned()));
        let method = self.read_status().map(|status| status.method().name().to_owned());
        or(&mut metadata.method, method);
        metadata.hz = metadata.hz.or(Some(1e9 / self.period_ns() as f64));
    }
}

impl Recording {
    /// Returns the session, to ask for its members, notices and read status.
    pub fn session(&mut self) -> &mut Session {
        self.session.look();
        &mut self.session
    }

    /// Returns the progress so far.
    pub fn progress(&self) -> Progress {
        self.recorder.progress()
    }

    /// Returns true once nothing more is recorded: the session has ended, or writing has failed.
    pub fn is_finished(&self) -> bool {
        self.recorder.is_finished()
    }

    /// Notes a mark at this moment, and returns the moment in ns since 1970.
    ///
    /// # Errors
    /// As [`RecordingHandle::mark`].
    pub fn mark(&self, text: &str) -> Result<u64> {
        self.recorder.handle().mark(text)
    }

    /// Asks a flight recorder for a dump. The result goes to `reply`, or else to
    /// [`Recording::dumps`].
    pub fn dump(&self, request: DumpRequest, reply: Option<Sender<Dump>>) {
        self.recorder.handle().dump(request, reply);
    }

    /// Returns a handle by which other threads do the same.
    pub fn handle(&self) -> RecordingHandle {
        self.recorder.handle().clone()
    }

    /// Takes the dumps that were written, or failed, since the last call.
    pub fn dumps(&self) -> Vec<Dump> {
        self.dumps.iter().flat_map(|dumps| dumps.try_iter()).collect()
    }

    /// Stops the session, and waits until every sample is recorded.
    ///
    /// # Errors
    /// The error that ended the recording, or the session.
    pub fn stop(mut self) -> Result<Recorded> {
        let stopped = self.session.stop().map(|_| ());
        let (progress, files) = self.recorder.join()?;
        stopped?;
        let dumps = self.dumps.iter().flat_map(|dumps| dumps.try_iter()).collect();
        Ok(Recorded { progress, files, dumps })
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
