//! The command beside which is measured or recorded: its start and its exit status.
//!
//! Invariant: a command that was started either receives the signals that are sent to vmstrobe, or
//! is killed.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use vmstrobe::Broker;

use crate::error::{Error, Kind, Result};
use crate::out::reason;
use crate::privileges::Launcher;
use crate::signals::Signals;
use crate::stop;

/// Starts the command, and the thread that forwards signals to it.
///
/// # Errors
/// If the command cannot be run, or signals cannot be received.
pub(crate) fn start(launcher: Launcher, command: &[OsString], broker: Broker) -> Result<Child> {
    let (program, arguments) = command.split_first().expect("a launcher has a command");
    let mut command = Command::new(program);
    command.args(arguments);
    // From here on signals are queued, and forwarded once the command runs.
    let signals = Signals::forwarded()?;
    let started = launcher.launch(command).map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::NotFound => Kind::NoCommand,
            _ => Kind::CannotRun,
        };
        let program = program.to_string_lossy();
        Error::new(kind, format!("cannot run '{program}': {}", reason(&error)))
    });
    started.and_then(|mut command| match stop::forward_signals(signals, &command, broker) {
        Ok(()) => Ok(command),
        Err(error) => {
            // A command that receives no signals must not be left running.
            let _ = command.kill().and_then(|()| command.wait());
            Err(error)
        }
    })
}

/// Returns the exit status: that of the command as a shell reports it, unless there is none or it
/// is 0; then 1 if a VM has ended, else 0.
pub(crate) fn exit_status(command: Option<ExitStatus>, has_lost_vm: bool) -> u8 {
    let of_command = command.map_or(0, |status| {
        let signal = status.signal().map(|signal| 128 + signal);
        status.code().or(signal).unwrap_or(1) as u8
    });
    if of_command == 0 { u8::from(has_lost_vm) } else { of_command }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_the_commands() {
        let ended = |wait_status| Some(ExitStatus::from_raw(wait_status));
        assert_eq!(exit_status(None, false), 0);
        assert_eq!(exit_status(None, true), 1);
        assert_eq!(exit_status(ended(0), false), 0);
        assert_eq!(exit_status(ended(0), true), 1);
        assert_eq!(exit_status(ended(3 << 8), true), 3);
        assert_eq!(exit_status(ended(9), false), 137);
    }
}
