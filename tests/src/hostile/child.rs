//! A hostile writer in a process of its own, controlled by a test.
//!
//! Invariant: its process ends with this value, and each wait for an answer has a limit.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::evil::Place;
use crate::process::Reaped;

/// The longest time that it may take to obey an order.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// The longest time that it may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A process that writes a table.
#[derive(Debug)]
pub struct Hostile {
    // Before the pipes: it is killed before they close.
    process: Reaped,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Hostile {
    /// Starts the program `hostile`, and waits until its table exists.
    ///
    /// # Panics
    ///
    /// If it does not start, or says nothing in time.
    pub fn start(program: &str, mode: &str, place: &Place, image: &str) -> Self {
        let mut child = Command::new(Path::new(program))
            .args([mode, &place.to_arg(), image])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let stdin = child.stdin.take().expect("the option was given");
        let stdout = BufReader::new(child.stdout.take().expect("the option was given"));
        let mut hostile = Self { process: Reaped(child), stdin, stdout };
        hostile.expect_ok(mode);
        hostile
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Gives it an order, and waits until it has obeyed.
    ///
    /// # Panics
    ///
    /// If it does not do it in time.
    pub fn tell(&mut self, command: &str) {
        let told = self.stdin.write_all(format!("{command}\n").as_bytes());
        told.unwrap_or_else(|error| panic!("the writer cannot be told '{command}': {error}"));
        self.expect_ok(command);
    }

    /// Stores a word.
    ///
    /// # Panics
    ///
    /// As [`Hostile::tell`].
    pub fn set(&mut self, word: usize, value: u64) {
        self.tell(&format!("set {word} {value}"));
    }

    /// Stops the process.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues the process.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process.
    ///
    /// # Panics
    ///
    /// If it has ended already, or does not end.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        assert!(self.process.wait_within(END_LIMIT).is_some(), "the process ends in time");
    }

    /// Checks that it has not ended: otherwise a test would meet no hostile writer any more.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn must_live(&mut self) {
        let status = self.process.wait_within(Duration::ZERO);
        assert_eq!(status, None, "the writer has ended");
    }

    fn signal(&self, signal: Signal) {
        // The process has not been reaped, so the number is still its own.
        kill_process(Pid::from_child(&self.process), signal)
            .expect("the process has not been reaped");
    }

    fn expect_ok(&mut self, what: &str) {
        let limit = Timespec::try_from(ANSWER_LIMIT).expect("the time is short");
        let mut fds = [PollFd::new(self.stdout.get_ref(), PollFlags::IN)];
        let ready = poll(&mut fds, Some(&limit)).expect("a pipe can be waited for");
        assert_eq!(ready, 1, "no answer within {ANSWER_LIMIT:?}: {what}");
        // Lines of this length are written at once, so the line is complete.
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a pipe reads");
        assert_eq!(line, "ok\n", "{what}");
    }
}
