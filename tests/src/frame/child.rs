//! A child process, in the hands of a test.
//!
//! Invariant: its process ends with this value, and no line is waited for without a limit.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::process::Reaped;

/// A process in one of the modes.
#[derive(Debug)]
pub struct Child {
    // Before the pipes: it is killed before they close.
    process: Reaped,
    _stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Child {
    /// Starts the program; as another user, if one is given.
    ///
    /// # Errors
    ///
    /// If it does not start.
    ///
    /// # Panics
    ///
    /// If it has no standard output, which it is given.
    pub fn start(
        program: &str,
        args: &[&str],
        stdin: Stdio,
        uid: Option<u32>,
    ) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.args(args).stdin(stdin).stdout(Stdio::piped());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn()?;
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        Ok(Self { _stdin: child.stdin.take(), process: Reaped(child), stdout })
    }

    /// The next line that it says.
    ///
    /// # Panics
    ///
    /// If it says none within the limit, or has ended.
    pub fn line(&mut self, limit: Duration) -> String {
        let waited = Timespec::try_from(limit).expect("it is short");
        let mut fds = [PollFd::new(self.stdout.get_ref(), PollFlags::IN)];
        // What is in the buffer already is a line: lines as short as these are written at once.
        if self.stdout.buffer().is_empty() {
            let ready = poll(&mut fds, Some(&waited)).expect("a pipe can be waited for");
            assert_eq!(ready, 1, "it says nothing within {limit:?}");
        }
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a pipe reads");
        assert!(line.ends_with('\n'), "it has ended, and why stands above: {line}");
        line.trim_end().to_owned()
    }

    /// Waits for its end, which must be a good one.
    ///
    /// # Panics
    ///
    /// If it does not end within the limit, or says that it failed.
    pub fn succeeds(mut self, limit: Duration) {
        let status = self.process.wait_within(limit).expect("it ends");
        assert!(status.success(), "it failed, and why stands above: {status}");
    }

    /// Kills it, wherever it is.
    pub fn kill(self) {
        drop(self);
    }
}
