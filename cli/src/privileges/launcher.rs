//! A command that is measured, started with the rights that vmstrobe itself was started with.
//!
//! Invariant: the thread that starts it gives up nothing, does nothing else, and has ended when the
//! command runs.

use std::io;
use std::panic::resume_unwind;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use crate::error::{Error, Result};
use crate::out::reason;

/// Starts one command with the rights of the thread that made this, even if that thread has given
/// them up since. (A command gets those of the thread that starts it; and to find and execute
/// it, in a directory of another user say, may take some of them.)
#[derive(Debug)]
pub(crate) struct Launcher {
    order: Sender<Command>,
    thread: JoinHandle<Option<io::Result<Child>>>,
}

impl Launcher {
    /// Its thread, `vmstrobe-launch`, waits for the order; it ends with it, or without one when
    /// this is dropped.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn new() -> Result<Self> {
        let (order, orders) = channel::<Command>();
        let launch = move || orders.recv().ok().map(|mut command| command.spawn());
        let thread = Builder::new().name("vmstrobe-launch".to_owned()).spawn(launch);
        let thread = thread.map_err(|error| {
            Error::failed(format!("cannot start a thread for the command: {}", reason(&error)))
        })?;
        Ok(Self { order, thread })
    }

    /// Starts the command. The thread has ended when this returns.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub(crate) fn launch(self, command: Command) -> io::Result<Child> {
        // It only ends before if it has panicked, which it then says below.
        let _ = self.order.send(command);
        match self.thread.join() {
            Ok(Some(started)) => started,
            Ok(None) => Err(io::Error::other("nobody took the order")),
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
    fn a_command_is_run_with_what_there_was() {
        // Nobody may look into it but who may look everywhere.
        let closed = std::env::temp_dir().join(format!("vmstrobe-closed-{}", std::process::id()));
        let program = closed.join("true");
        std::fs::create_dir_all(&closed).expect("the directory can be written to");
        std::os::unix::fs::symlink("/bin/true", &program).expect("it is ours");
        let mode = |mode| std::fs::set_permissions(&closed, Permissions::from_mode(mode));
        mode(0).expect("it is ours");
        let run = |gives_up_first: bool| {
            on_own_thread(|| {
                gives_up_first.then(drop_all);
                let launcher = Launcher::new().expect("there are threads");
                drop_all();
                launcher.launch(Command::new(&program)).and_then(|mut child| child.wait())
            })
        };
        let (with, without) = (run(false), run(true));
        mode(0o700).expect("it is ours");
        std::fs::remove_dir_all(&closed).expect("it is ours");
        let may =
            permitted().intersects(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        assert_eq!(with.is_ok(), may, "{with:?}");
        assert_eq!(without.map_err(|e| e.kind()).err(), Some(io::ErrorKind::PermissionDenied));
    }

    #[test]
    fn what_is_not_there_cannot_be_launched() {
        let launcher = Launcher::new().expect("there are threads");
        let none = launcher.launch(Command::new("vmstrobe-no-such-command"));
        assert_eq!(none.expect_err("it is not there").kind(), io::ErrorKind::NotFound);
    }
}
