//! A program that takes orders, one per line on standard input, and answers each with a line.
//!
//! Invariant: its process ends with this value, and each wait for a line has a limit.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Reaped;

/// The longest time that an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// The longest time that a process may take to end after SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The program's process.
#[derive(Debug)]
pub struct Helper {
    // Before the pipes: it is killed before they close.
    process: Reaped,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    what: String,
}

impl Helper {
    /// Starts the program and waits until it prints `ok`.
    ///
    /// # Panics
    ///
    /// If it does not start, or says anything else.
    #[track_caller]
    pub fn start(program: &str, args: &[&str]) -> Helper {
        Helper::start_with(program, args, Stdio::piped())
    }

    /// Starts a helper as [`Helper::start`] does, with another standard input, so that it cannot be
    /// given orders.
    ///
    /// # Panics
    ///
    /// As [`Helper::start`].
    #[track_caller]
    pub fn start_with(program: &str, args: &[&str], stdin: Stdio) -> Helper {
        let child = Command::new(program).args(args).stdin(stdin).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let mut told = Helper {
            stdout: stdout_of(&mut child),
            stdin: child.stdin.take(),
            process: Reaped(child),
            what: args.join(" "),
        };
        let said = told.line(ANSWER_LIMIT).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(said, "ok", "{}", told.what);
        told
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Gives it an order, and returns its answer after `ok`.
    ///
    /// # Panics
    ///
    /// If it does not do it in time.
    #[track_caller]
    pub fn tell(&mut self, command: &str) -> String {
        let stdin = self.stdin.as_mut().expect("its standard input is a pipe");
        let sent = stdin.write_all(format!("{command}\n").as_bytes());
        sent.unwrap_or_else(|error| panic!("{} cannot be told '{command}': {error}", self.what));
        let said = self.line(ANSWER_LIMIT).unwrap_or_else(|why| panic!("{command}: {why}"));
        let Some(answer) = said.strip_prefix("ok") else {
            panic!("{} answers '{command}' with '{said}'", self.what);
        };
        answer.trim().to_owned()
    }

    /// Returns the next line that it prints, or why there is none within the limit.
    pub fn line(&mut self, limit: Duration) -> Result<String, String> {
        let waited = Timespec::try_from(limit).expect("the limit is short");
        // Lines of this length are written at once, so a line that has begun is complete.
        if self.stdout.buffer().is_empty() {
            let mut fds = [PollFd::new(self.stdout.get_ref(), PollFlags::IN)];
            if poll(&mut fds, Some(&waited)).expect("a pipe can be waited for") == 0 {
                return Err(format!("{} says nothing within {limit:?}", self.what));
            }
        }
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a pipe reads");
        if line.is_empty() {
            return Err(format!("{} has ended", self.what));
        }
        Ok(line.trim_end().to_owned())
    }

    /// Waits for a line with this beginning, and returns the rest of that line.
    ///
    /// # Errors
    ///
    /// If it does not within the limit.
    pub fn line_after(&mut self, begin: &str, limit: Duration) -> Result<String, String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.line(left).map_err(|why| format!("waiting for '{begin}': {why}"))?;
            if let Some(rest) = line.strip_prefix(begin) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Panics
    ///
    /// If the process does not end.
    #[track_caller]
    pub fn kill(mut self) {
        // The process has not been reaped, so the number is still its own.
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::KILL).expect("the process has not been reaped");
        assert!(self.process.wait_within(END_LIMIT).is_some(), "{} does not end", self.what);
    }
}

fn stdout_of(child: &mut Child) -> BufReader<ChildStdout> {
    BufReader::new(child.stdout.take().expect("standard output is a pipe"))
}
