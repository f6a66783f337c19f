//! Starts the measured command with the capabilities that vmstrobe itself was started with.
//!
//! Invariant: the thread that starts the command drops no capabilities, does nothing else, and has
//! ended when the command runs.

use std::io;
use std::panic::resume_unwind;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use crate::error::{Error, Result};
use crate::out::reason;

/// Starts one command with the capabilities that the creator of this had, even if it has dropped
/// them since. A command inherits those of the thread that starts it, and finding and executing it
/// may need some, for example in a directory of another user.
#[derive(Debug)]
pub(crate) struct Launcher {
    commands: Sender<Command>,
    thread: JoinHandle<Option<io::Result<Child>>>,
}

impl Launcher {
    /// Starts the thread `vmstrobe-launch`, which waits for a command. It ends when it has started
    /// the command, or when this is dropped.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn new() -> Result<Self> {
        let (commands, received) = channel::<Command>();
        let launch = move || received.recv().ok().map(|mut command| command.spawn());
        let thread = Builder::new().name("vmstrobe-launch".to_owned()).spawn(launch);
        let thread = thread.map_err(|error| {
            Error::failed(format!("cannot start a thread to run the command: {}", reason(&error)))
        })?;
        Ok(Self { commands, thread })
    }

    /// Starts the command. The thread has ended when this returns.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub(crate) fn launch(self, command: Command) -> io::Result<Child> {
        // Sending fails only if the thread has panicked, which join() reports below.
        let _ = self.commands.send(command);
        match self.thread.join() {
            Ok(Some(started)) => started,
            Ok(None) => Err(io::Error::other("the thread that runs the command received none")),
            Err(panic) => resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::CapabilitySet;

    use super::*;
    use crate::privileges::tests::{drop_all, on_own_thread, permitted};

    #[test]
    fn a_command_gets_the_capabilities_from_the_start() {
        // Only a process that may read every directory can find the program in it.
        let closed = std::env::temp_dir().join(format!("vmstrobe-closed-{}", std::process::id()));
        let program = closed.join("true");
        std::fs::create_dir_all(&closed).expect("the directory can be created");
        std::os::unix::fs::symlink("/bin/true", &program).expect("the directory is ours");
        let mode = |mode| std::fs::set_permissions(&closed, Permissions::from_mode(mode));
        mode(0).expect("the directory is ours");
        let run = |gives_up_first: bool| {
            on_own_thread(|| {
                gives_up_first.then(drop_all);
                let launcher = Launcher::new().expect("a thread can be started");
                drop_all();
                launcher.launch(Command::new(&program)).and_then(|mut child| child.wait())
            })
        };
        let (with, without) = (run(false), run(true));
        mode(0o700).expect("the directory is ours");
        std::fs::remove_dir_all(&closed).expect("the directory is ours");
        let may =
            permitted().intersects(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        assert_eq!(with.is_ok(), may, "{with:?}");
        assert_eq!(without.map_err(|e| e.kind()).err(), Some(io::ErrorKind::PermissionDenied));
    }

    #[test]
    fn a_missing_command_is_not_found() {
        let launcher = Launcher::new().expect("a thread can be started");
        let none = launcher.launch(Command::new("vmstrobe-no-such-command"));
        assert_eq!(none.expect_err("the command does not exist").kind(), io::ErrorKind::NotFound);
    }
}
