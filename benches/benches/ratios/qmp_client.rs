//! The client of every QMP measurement: one blocking write, then reads until its replies are there.
//!
//! Invariant: the bytes sent and the work done here are the same for every server. A reply is
//! recognised by its first bytes and its newline, and not parsed.

use std::io::{self, BufRead, BufReader, Error, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A query for two statistics of 4 vCPUs, with an id, as libvirt and qemu.qmp send it.
pub(crate) const FILTERED: &str = concat!(
    r#"{"execute": "query-stats", "arguments": {"target": "vcpu", "#,
    r#""providers": [{"provider": "kvm", "names": ["exits", "halt_exits"]}]}, "id": 7}"#,
    "\n"
);
/// A query for all statistics of the same vCPUs.
pub(crate) const ALL: &str =
    concat!(r#"{"execute": "query-stats", "arguments": {"target": "vcpu"}, "id": 7}"#, "\n");

/// The beginning of a successful reply.
const RETURN: &[u8] = br#"{"return": "#;
/// The beginning of an event. Any other line is an error reply.
const EVENT: &[u8] = br#"{"timestamp": "#;

/// The size of the receive buffer: the replies to all requests in flight fit, so that one system
/// call can fetch them.
const BUFFER_BYTES: usize = 1 << 16;
/// The longest time that a peer may take to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Client {
    /// Connects to the server at that socket and sends nothing.
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let stream = BufReader::with_capacity(BUFFER_BYTES, stream);
        Ok(Self { stream, line: Vec::new() })
    }

    /// Connects to a QMP server and leaves negotiation mode.
    pub(crate) fn negotiated(socket: &Path) -> io::Result<Self> {
        let mut client = Self::connect(socket)?;
        let greeting = client.read_line()?;
        if !greeting.starts_with(br#"{"QMP""#) {
            return Err(Error::other(String::from_utf8_lossy(greeting)));
        }
        client.send("{\"execute\": \"qmp_capabilities\"}\n")?;
        client.reply()?;
        Ok(client)
    }

    /// Sends a request and returns the reply's whole line.
    #[inline]
    pub(crate) fn ask(&mut self, request: &str) -> &[u8] {
        self.ask_many(request, 1)
    }

    /// Sends `count` requests at once, reads a reply for each, and returns the last one.
    #[inline]
    pub(crate) fn ask_many(&mut self, requests: &str, count: u32) -> &[u8] {
        self.send(requests).expect("the peer takes requests");
        for _ in 0..count {
            self.reply().expect("the peer replies");
        }
        &self.line
    }

    /// Sends the text in one write.
    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// Reads up to the next reply and skips events before it.
    #[inline]
    pub(crate) fn reply(&mut self) -> io::Result<&[u8]> {
        while !self.read_line()?.starts_with(RETURN) {
            if !self.line.starts_with(EVENT) {
                return Err(Error::other(String::from_utf8_lossy(&self.line)));
            }
        }
        Ok(&self.line)
    }

    /// Reads the next line.
    #[inline]
    pub(crate) fn read_line(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line)?;
        if self.line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&self.line)
    }
}
