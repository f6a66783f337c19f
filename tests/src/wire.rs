//! A QMP connection whose bytes are seen as they are, and may be any: for what
//! [`Qmp`](crate::qmp::Qmp) takes care of.
//!
//! Invariant: every wait ends; what a server sends is kept byte for byte, events left out.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The longest time that a reply may take, and for which the server may take no bytes.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A text that no reply of a test contains by chance.
const PROBE: &str = "probe-of-the-tests-";

/// A connection.
#[derive(Debug)]
pub struct Wire {
    stream: BufReader<UnixStream>,
    greeting: Vec<u8>,
}

impl Wire {
    /// Connects and reads the greeting; the next thing wanted is `qmp_capabilities`.
    ///
    /// Fails if nobody listens, or no line comes in time.
    pub fn connect(socket: &Path) -> io::Result<Wire> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let stream = BufReader::with_capacity(1 << 16, stream);
        let mut wire = Wire { stream, greeting: Vec::new() };
        wire.greeting = wire.line()?;
        Ok(wire)
    }

    /// Connects as [`Wire::connect`] does, and negotiates without a capability.
    ///
    /// Fails where that fails, and if the server refuses.
    pub fn negotiated(socket: &Path) -> io::Result<Wire> {
        Wire::negotiate(socket, b"{\"execute\": \"qmp_capabilities\"}")
    }

    /// Connects as [`Wire::connect`] does, and negotiates `oob`, so that commands may be run out of
    /// band.
    ///
    /// Fails where [`Wire::negotiated`] does.
    pub fn with_oob(socket: &Path) -> io::Result<Wire> {
        let arguments = br#", "arguments": {"enable": ["oob"]}}"#;
        Wire::negotiate(socket, &[br#"{"execute": "qmp_capabilities""#, &arguments[..]].concat())
    }

    fn negotiate(socket: &Path, request: &[u8]) -> io::Result<Wire> {
        let mut wire = Wire::connect(socket)?;
        let reply = wire.ask(request)?;
        if reply != b"{\"return\": {}}\r\n" {
            return Err(io::Error::other(String::from_utf8_lossy(&reply).into_owned()));
        }
        Ok(wire)
    }

    /// The greeting's line.
    pub fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// The connection itself. What of it was read already is not to be had from here.
    pub fn stream(&self) -> &UnixStream {
        self.stream.get_ref()
    }

    /// Sends these bytes. Fails if the server takes none of them for [`LIMIT`].
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next line that is no event, with its end. Fails if none comes in [`LIMIT`].
    pub fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut line = Vec::new();
            self.stream.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !line.starts_with(b"{\"timestamp\": ") {
                return Ok(line);
            }
        }
    }

    /// Sends one request and gives its reply.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.send(request)?;
        self.send(b"\n")?;
        self.line()
    }

    /// Lines up to the answer to [`probe`] of this number, without it.
    pub fn lines_before(&mut self, number: usize) -> io::Result<Vec<Vec<u8>>> {
        let (mut lines, answer) = (Vec::new(), answer(number));
        loop {
            let line = self.line()?;
            if line == answer {
                return Ok(lines);
            }
            lines.push(line);
        }
    }

    /// Returns all bytes up to the end of the connection, at most `at_most`.
    pub fn rest(&mut self, at_most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.by_ref().take(at_most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A good request on a line of its own that asks for nothing, to be told from all others by its
/// number.
pub fn probe(number: usize) -> Vec<u8> {
    let filter = r#"{"target": "vcpu", "vcpus": []}"#;
    let id = format!("\"{PROBE}{number}\"");
    format!("\n{{\"execute\": \"query-stats\", \"arguments\": {filter}, \"id\": {id}}}\n")
        .into_bytes()
}

/// The reply to [`probe`] of this number.
pub fn answer(number: usize) -> Vec<u8> {
    format!("{{\"return\": [], \"id\": \"{PROBE}{number}\"}}\r\n").into_bytes()
}
