//! A client of control sockets: it asks one thing, and waits for the answer.
//!
//! Invariant: each wait has an end, whatever the process at the socket sends, and no more than
//! [`MAX_REPLY_BYTES`] of it are kept. A text of it that goes into an error is printable.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Map, Value, json};
use vmstrobe_core::text::printable;
use vmstrobe_host::Broker;

use super::directory;
use super::error::ControlError;
use super::socket::DUMP_LIMIT;
use super::{DumpArguments, DumpedFile};
use crate::error::Result;

/// The longest time for connecting, and for an answer that takes no work.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The most bytes of an answer. A file of a dump takes some 4,300, if its path is long.
const MAX_REPLY_BYTES: usize = 1 << 20;
/// The most answers and events that are read before the one that is meant.
const MAX_EVENTS: usize = 1000;
/// The pause before a socket whose queue is full is tried again.
const QUEUE_PERIOD: Duration = Duration::from_millis(10);

type Asked<T> = std::result::Result<T, ControlError>;

/// A recorder of another process, or of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningRecorder {
    /// Its process, if its socket names it.
    pub pid: Option<u32>,
    /// Its control socket.
    pub path: PathBuf,
}

/// Returns the recorders of this user that listen in the usual place, by their process ids.
///
/// # Errors
/// [`Error::Control`](crate::Error::Control) if the user has no directory for sockets, or it is not
/// safe.
pub fn running_recorders() -> Result<Vec<RunningRecorder>> {
    let sockets = directory::live_sockets(&directory::of_user()?)?;
    Ok(sockets.into_iter().map(|(pid, path)| RunningRecorder { pid: Some(pid), path }).collect())
}

impl RunningRecorder {
    /// Returns the recorder that listens at a path. Whether one does is seen when it is asked.
    pub fn at(path: PathBuf) -> Self {
        Self { pid: None, path }
    }

    /// Has the recorder write a dump, and returns the files. The broker connects.
    ///
    /// # Errors
    /// [`Error::Control`](crate::Error::Control) with the recorder's reason, or if it cannot be
    /// asked.
    pub fn dump(&self, arguments: &DumpArguments, broker: &Broker) -> Result<Vec<DumpedFile>> {
        let mut named = Map::new();
        if let Some(last) = arguments.last {
            let last_ns = i64::try_from(last.as_nanos()).unwrap_or(i64::MAX);
            named.insert("last-ns".to_owned(), last_ns.into());
        }
        if let Some(path) = &arguments.path {
            named.insert("filename".to_owned(), path.to_string_lossy().into());
        }
        let mut client = Client::connect(&self.path, broker)?;
        let limit = DUMP_LIMIT + ANSWER_LIMIT;
        let reply = client.execute("stats-dump", named.into(), limit)?;
        let files = reply["files"].as_array().map(|files| files.iter().map(dumped_file).collect());
        Ok(files.flatten().ok_or_else(|| not_a_recorder(&self.path))?)
    }

    /// Marks the recording, and returns the time of the mark in ns since 1970. The broker connects.
    ///
    /// # Errors
    /// As [`RunningRecorder::dump`].
    pub fn mark(&self, text: &str, broker: &Broker) -> Result<u64> {
        let mut client = Client::connect(&self.path, broker)?;
        let reply = client.execute("stats-mark", json!({ "text": text }), ANSWER_LIMIT)?;
        Ok(reply["wall-ns"].as_u64().ok_or_else(|| not_a_recorder(&self.path))?)
    }
}

fn dumped_file(file: &Value) -> Option<DumpedFile> {
    Some(DumpedFile {
        path: file["filename"].as_str()?.into(),
        bytes: file["bytes"].as_u64()?,
        samples: file["samples"].as_u64()?,
        begin_wall_ns: file["begin-wall-ns"].as_u64()?,
        end_wall_ns: file["end-wall-ns"].as_u64()?,
    })
}

fn not_a_recorder(path: &Path) -> ControlError {
    ControlError::NotARecorder { path: path.to_owned() }
}

/// A connection past its negotiation.
struct Client<'a> {
    path: &'a Path,
    socket: UnixStream,
    received: Vec<u8>,
}

impl<'a> Client<'a> {
    fn connect(path: &'a Path, broker: &Broker) -> Result<Self> {
        let address = SocketAddrUnix::new(path).map_err(|errno| unreachable(path, errno.into()))?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        let connected = broker.run_apart(move || connected(&address, deadline))?;
        let socket = connected.map_err(|error| unreachable(path, error))?.into();
        let mut client = Self { path, socket, received: Vec::new() };
        let greeting = client.next_object(deadline)?;
        if let Some(text) = refusal(&greeting) {
            return Err(ControlError::Refused { text }.into());
        }
        if !greeting["QMP"].is_object() {
            return Err(not_a_recorder(path).into());
        }
        client.execute("qmp_capabilities", json!({}), ANSWER_LIMIT)?;
        Ok(client)
    }

    /// Executes a command, and returns its return value.
    fn execute(&mut self, command: &str, arguments: Value, limit: Duration) -> Asked<Value> {
        let deadline = Instant::now() + limit;
        let request = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        let sent = self.socket.set_write_timeout(Some(ANSWER_LIMIT));
        let sent = sent.and_then(|()| self.socket.write_all(request.as_bytes()));
        sent.map_err(|error| self.failed(error))?;
        for _ in 0..MAX_EVENTS {
            let mut reply = self.next_object(deadline)?;
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(text) = refusal(&reply) {
                return Err(ControlError::Refused { text });
            }
        }
        Err(not_a_recorder(self.path))
    }

    /// Returns the next line, which is a JSON object.
    fn next_object(&mut self, deadline: Instant) -> Asked<Value> {
        let mut part = [0; 4096];
        let end = loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                break end;
            }
            if self.received.len() > MAX_REPLY_BYTES {
                return Err(not_a_recorder(self.path));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ControlError::Silent { path: self.path.to_owned() });
            }
            let read = self.socket.set_read_timeout(Some(left));
            match read.and_then(|()| self.socket.read(&mut part)) {
                Ok(0) => return Err(self.failed(ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.received.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        let object = serde_json::from_slice(&line).ok().filter(Value::is_object);
        object.ok_or_else(|| not_a_recorder(self.path))
    }

    fn failed(&self, error: io::Error) -> ControlError {
        let path = self.path.to_owned();
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ControlError::Silent { path },
            ErrorKind::UnexpectedEof => {
                let source = io::Error::new(error.kind(), "it has closed the connection");
                ControlError::Unreachable { path, source }
            }
            _ => ControlError::Unreachable { path, source: error },
        }
    }
}

/// Returns the text of an error reply.
fn refusal(reply: &Value) -> Option<String> {
    let text = reply["error"]["desc"].as_str()?;
    Some(printable(text).into_owned())
}

fn unreachable(path: &Path, source: io::Error) -> ControlError {
    ControlError::Unreachable { path: path.to_owned(), source }
}

/// Connects a socket that blocks. Connecting does not: the process that listens may be stopped, and
/// its queue full.
fn connected(address: &SocketAddrUnix, deadline: Instant) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&socket, address) {
            Ok(()) => break,
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(QUEUE_PERIOD);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
