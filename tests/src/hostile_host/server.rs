//! The server of a file system, of which `/dev/fuse` is standard input: `attacker fuse REQUESTS`.
//!
//! For each request that it leaves unanswered it prints a line: `unanswered OPCODE of PID`.

use std::io::{self, Error, Write};
use std::str::FromStr;

use rustix::io::{Errno, read, write};

use super::nobody::{NOBODY, become_nobody};
use super::protocol::{Opcode, REQUEST_MAX, Request};

/// The most lines that it prints: a pipe that nobody reads must not fill up.
const LINES_MAX: usize = 200;

/// The requests that are never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// A descriptor of the file is closed, by any process.
    Flush,
    /// A descriptor of the file is closed by a process of another user than [`NOBODY`].
    FlushOfOthers,
    /// A process of another user than [`NOBODY`] wants the file's attributes.
    AttributesOfOthers,
}

impl Unanswered {
    /// Returns its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Unanswered::Flush => "flush",
            Unanswered::FlushOfOthers => "flush-of-others",
            Unanswered::AttributesOfOthers => "attributes-of-others",
        }
    }

    fn covers(self, request: &Request<'_>) -> bool {
        let is_of_other = request.uid != NOBODY;
        match self {
            Unanswered::Flush => request.opcode == Opcode::Flush,
            Unanswered::FlushOfOthers => request.opcode == Opcode::Flush && is_of_other,
            Unanswered::AttributesOfOthers => {
                request.opcode == Opcode::GetAttr && request.is_of_file() && is_of_other
            }
        }
    }
}

impl FromStr for Unanswered {
    type Err = Error;

    fn from_str(name: &str) -> io::Result<Unanswered> {
        let all = [Unanswered::Flush, Unanswered::FlushOfOthers, Unanswered::AttributesOfOthers];
        let found = all.into_iter().find(|unanswered| unanswered.name() == name);
        found.ok_or_else(|| Error::other(format!("there are no requests '{name}'")))
    }
}

/// Serves until the file system is gone.
///
/// # Errors
///
/// If standard input is no FUSE device of a mount.
pub fn run(unanswered: Unanswered) -> io::Result<()> {
    become_nobody()?;
    let (device, mut stdout) = (io::stdin(), io::stdout());
    writeln!(stdout, "ok")?;
    let (mut buffer, mut lines) = (vec![0; REQUEST_MAX], 0);
    loop {
        let length = match read(&device, &mut buffer[..]) {
            Ok(length) => length,
            // NOENT: the request was interrupted before it was read.
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => continue,
            Err(Errno::NODEV) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let request = Request::parse(&buffer[..length]);
        let request = request.ok_or_else(|| Error::other("a request without a header"))?;
        if unanswered.covers(&request) {
            if lines < LINES_MAX {
                lines += 1;
                writeln!(stdout, "unanswered {:?} of {}", request.opcode, request.pid)?;
                stdout.flush()?;
            }
        } else if request.opcode != Opcode::NoReply {
            let reply = request.reply(unanswered == Unanswered::AttributesOfOthers);
            match write(&device, &reply) {
                // The process that asked was interrupted, or the file system is gone.
                Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
