//! A small QMP client: one request, one reply, over a Unix socket.
//!
//! It reads replies by line, as QEMU and vmstrobe write them; events between them are dropped.
//! It judges nothing else: what a reply holds is the test's business.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// The longest time that a reply may take.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// A QMP connection past its handshake.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    greeting: Value,
}

impl Qmp {
    /// Connects, reads the greeting and leaves negotiation mode.
    ///
    /// Fails if nobody listens, if no greeting comes in time, or if it is none.
    pub fn connect(socket: &Path) -> io::Result<Qmp> {
        Qmp::connect_within(REPLY_LIMIT, socket)
    }

    /// Connects as [`Qmp::connect`] does, with another longest time of a reply.
    pub fn connect_within(limit: Duration, socket: &Path) -> io::Result<Qmp> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let mut qmp = Qmp { stream: BufReader::new(stream), greeting: Value::Null };
        qmp.greeting = qmp.read_line()?;
        if qmp.greeting.get("QMP").is_none() {
            return Err(io::Error::other(format!("this is no QMP greeting: {}", qmp.greeting)));
        }
        qmp.exchange(&json!({"execute": "qmp_capabilities"}).to_string())?;
        Ok(qmp)
    }

    /// The greeting, as the server sent it.
    pub fn greeting(&self) -> &Value {
        &self.greeting
    }

    /// Runs a command and returns its `return` value. `Value::Null` as arguments sends none.
    ///
    /// # Panics
    ///
    /// If the reply is an error, or none comes.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let mut request = json!({"execute": command});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let request = request.to_string();
        let mut reply = match self.exchange(&request) {
            Ok(reply) => reply,
            Err(error) => panic!("{request}: no reply: {error}"),
        };
        match reply.get_mut("return") {
            Some(value) => value.take(),
            None => panic!("{request}: {reply}"),
        }
    }

    /// Sends a request's text as it is, and returns the whole next reply, an error or not.
    ///
    /// Fails if no reply comes in time, or if it is no JSON.
    pub fn exchange(&mut self, request: &str) -> io::Result<Value> {
        // In one write: what is sent in pieces may be read in pieces.
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let reply = self.read_line()?;
            if reply.get("event").is_none() {
                return Ok(reply);
            }
        }
    }

    fn read_line(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}
