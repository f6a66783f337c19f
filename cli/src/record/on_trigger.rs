//! The command that a condition's dump starts: `--on-trigger`.
//!
//! Invariant: it runs without capabilities, as all of vmstrobe does that samples; it is never
//! waited for, and only so many run at a time.

use std::ffi::OsString;
use std::process::{Child, Command};

use vmstrobe::Dump;

use super::report;
use crate::out::{reason, say, say_each};

/// The most commands that run at a time.
const RUNNING_MAX: usize = 8;

/// The command, and those of its runs that have not ended.
#[derive(Debug)]
pub(super) struct OnTrigger {
    command: Option<OsString>,
    running: Vec<Child>,
}

impl OnTrigger {
    pub(super) fn new(command: Option<OsString>) -> Self {
        Self { command, running: Vec::new() }
    }

    /// Reports a dump, and starts the command if a condition caused it.
    pub(super) fn report_dump(&mut self, dump: &Dump) {
        say_each(report::dump_lines(dump));
        let (Some(command), Some(_), Ok(files)) = (&self.command, &dump.triggered, &dump.result)
        else {
            return;
        };
        self.running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if self.running.len() >= RUNNING_MAX {
            return say("--on-trigger: left out, because 8 of its runs have not ended");
        }
        // The first file has the condition; there are more only if statistics came or went.
        let Some(file) = files.first() else { return };
        let started = Command::new("sh")
            .arg("-c")
            .arg(command)
            .env("VMSTROBE_DUMP", &file.path)
            .env("VMSTROBE_CAUSE", &dump.cause)
            .spawn();
        match started {
            Ok(child) => self.running.push(child),
            Err(error) => say(format_args!("--on-trigger: cannot start sh: {}", reason(&error))),
        }
    }
}
