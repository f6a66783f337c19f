//! The control socket of a recorder: a QMP server of what it records, with `stats-dump` and
//! `stats-mark`.
//!
//! Invariant: a client waits for a dump no longer than [`DUMP_LIMIT`], and the end of the recorder
//! waits for no dump. What was dumped or marked here is an event, unless so many wait to be taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use vmstrobe_core::{Error as CoreError, ErrorKind, Registry, ThreadStart};
use vmstrobe_host::Broker;
use vmstrobe_listen::{Access, Kind, Listening};
use vmstrobe_server::qmp::{Config, DumpArguments, DumpedFile, Peers, Recorder, Server};

use super::directory;
use crate::error::{Error, Result};
use crate::record::{Dump, DumpFile, DumpRequest, Format, RecordingHandle};
use crate::serve::SocketFiles;

/// The longest time that a client waits for a dump.
pub(super) const DUMP_LIMIT: Duration = Duration::from_secs(60);
/// The time after which a thread that waits for a dump notices the end of the recorder.
const CLOSING_PERIOD: Duration = Duration::from_millis(50);
/// The most events that wait to be taken. With the longest marks, they take 16 MiB.
const MAX_EVENTS: usize = 256;

/// The place of a control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlPlace {
    /// `record-PID.sock` in the directory of this user, where [`running_recorders`] finds it.
    ///
    /// [`running_recorders`]: super::running_recorders
    OfUser,
    /// This path.
    At(PathBuf),
}

/// Something that a client had a recorder do.
#[derive(Debug)]
#[non_exhaustive]
pub enum ControlEvent {
    /// A dump that was written, or failed.
    Dumped(Dump),
    /// A mark.
    Marked {
        /// Its text, as the client sent it.
        text: String,
        /// Its time, in ns since 1970.
        wall_ns: u64,
    },
}

/// A control socket that listens and is not served yet: clients wait.
#[derive(Debug)]
pub struct ControlListener {
    listening: Listening,
    path: PathBuf,
    files: SocketFiles,
    broker: Broker,
}

/// A control socket that is served. Dropping it disconnects the clients and removes the socket.
#[derive(Debug)]
pub struct ControlSocket {
    server: Option<Server>,
    path: PathBuf,
    events: Receiver<ControlEvent>,
    is_closing: Arc<AtomicBool>,
    files: SocketFiles,
    broker: Broker,
}

impl ControlListener {
    /// Listens. A socket at a path that was named is made and removed by the broker; the directory
    /// of the user takes no more rights than the user has.
    ///
    /// # Errors
    /// [`Error::Control`] if the user has no directory, or it is not safe; [`Error::Core`] as
    /// [`Listening::at`].
    pub fn bind(place: &ControlPlace, broker: Broker) -> Result<Self> {
        let (path, broker) = match place {
            ControlPlace::OfUser => {
                (directory::prepare(&directory::of_user()?)?, Broker::default())
            }
            ControlPlace::At(path) => (path.clone(), broker),
        };
        let (at, files) = (path.clone(), SocketFiles::default());
        let made = files.clone();
        let listening = broker.run_apart(move || {
            let listening = Listening::at(&at, Kind::Stream, &Access::default())?;
            made.add(&at);
            Ok::<_, CoreError>(listening)
        })??;
        Ok(Self { listening, path, files, broker })
    }

    /// Answers clients: from the providers of the registry, and by having the recording marked and
    /// dumped. To be dropped before the recording.
    ///
    /// # Errors
    /// [`Error::Core`] if the system has no thread or descriptor left.
    pub fn serve(
        self,
        registry: Registry,
        recording: RecordingHandle,
        threads: ThreadStart,
    ) -> Result<ControlSocket> {
        let Self { listening, path, files, broker } = self;
        let (sender, events) = sync_channel(MAX_EVENTS);
        let is_closing = Arc::<AtomicBool>::default();
        let recorder = functions(recording, sender, Arc::clone(&is_closing));
        let config = Config {
            peers: Peers::SameUser,
            recorder: Some(recorder),
            threads,
            ..Config::default()
        };
        let server = Some(Server::at(listening, registry, config)?);
        Ok(ControlSocket { server, path, events, is_closing, files, broker })
    }
}

impl ControlSocket {
    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the events since the last call.
    pub fn events(&self) -> Vec<ControlEvent> {
        self.events.try_iter().collect()
    }

    /// Disconnects the clients, removes the socket, and returns the last events.
    pub fn close(mut self) -> Vec<ControlEvent> {
        self.end();
        self.events()
    }

    fn end(&mut self) {
        let Some(server) = self.server.take() else { return };
        // Relaxed, because no other data depends on the flag.
        self.is_closing.store(true, Ordering::Relaxed);
        drop(server);
        let (files, path) = (self.files.clone(), self.path.clone());
        // The server's threads may lack the right to remove it. If no thread can be started, the
        // socket is left, and the next recorder finds it stale.
        let _ = self.broker.run_apart(move || files.remove(&[path]));
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns the functions behind the two commands.
fn functions(
    recording: RecordingHandle,
    events: SyncSender<ControlEvent>,
    is_closing: Arc<AtomicBool>,
) -> Recorder {
    let (marked, of_marks) = (recording.clone(), events.clone());
    let mark = move |text: &str| {
        let wall_ns = marked.mark(text).map_err(|error| core_error(&error))?;
        let _ = of_marks.try_send(ControlEvent::Marked { text: text.to_owned(), wall_ns });
        Ok(wall_ns)
    };
    let dump = move |arguments: DumpArguments| {
        let DumpArguments { last, path } = arguments;
        if let Some(path) = path.as_deref().filter(|path| Format::of(path) != Some(Format::Arrows))
        {
            let text = format!("{}: a dump's name ends in .arrows", path.display());
            return Err(CoreError::new(ErrorKind::Unsupported, text));
        }
        let (reply, replies) = channel();
        recording.dump(DumpRequest { cause: "command".to_owned(), last, path }, Some(reply));
        let dump = wait(&replies, &is_closing)?;
        let files = match &dump.result {
            Ok(files) => Ok(files.iter().map(dumped_file).collect()),
            Err(error) => Err(core_error(error)),
        };
        let _ = events.try_send(ControlEvent::Dumped(dump));
        files
    };
    Recorder { dump: Arc::new(dump), mark: Arc::new(mark) }
}

/// Waits for a dump. If it comes later, the recording reports it.
fn wait(replies: &Receiver<Dump>, is_closing: &AtomicBool) -> vmstrobe_core::Result<Dump> {
    let deadline = Instant::now() + DUMP_LIMIT;
    loop {
        match replies.recv_timeout(CLOSING_PERIOD) {
            Ok(dump) => return Ok(dump),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                let text = format!(
                    "the dump is not written after {} s: it is still being written, and the \
                     recorder reports its end",
                    DUMP_LIMIT.as_secs()
                );
                return Err(CoreError::new(ErrorKind::Busy, text));
            }
            Err(RecvTimeoutError::Timeout) if !is_closing.load(Ordering::Relaxed) => {}
            Err(_) => return Err(core_error(&Error::RecordingEnded)),
        }
    }
}

fn dumped_file(file: &DumpFile) -> DumpedFile {
    DumpedFile {
        path: file.path.clone(),
        bytes: file.bytes,
        samples: file.span.samples,
        begin_wall_ns: file.span.begin_wall_ns,
        end_wall_ns: file.span.end_wall_ns,
    }
}

/// Returns an error with the same text, for the server.
fn core_error(error: &Error) -> CoreError {
    let kind = match error {
        Error::TooManyDumps | Error::TooManyMarks => ErrorKind::Busy,
        Error::NoFlight => ErrorKind::Unsupported,
        _ => ErrorKind::Io,
    };
    CoreError::new(kind, error.to_string())
}

#[cfg(test)]
mod tests;
