//! The arguments of `vmstrobe serve`.
//!
//! Invariant: exactly one of `--qmp` and `--qmp-dir` is given. The defaults of options that were
//! left out follow from the other options.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::replay::ServeReplayArgs;
use super::source::{MethodArgs, SourceArgs};

/// The default mode of a socket's file: this user and root may connect.
const MODE: u32 = 0o600;
/// The default mode with `--group`: the members of the group may connect as well.
const MODE_WITH_GROUP: u32 = 0o660;

#[derive(Args, Debug)]
#[command(next_help_heading = "Sockets (one of --qmp and --qmp-dir)")]
#[command(group = ArgGroup::new("place").required(true).args(["qmp_path", "qmp_dir"]))]
pub(crate) struct ServeArgs {
    /// Serve one virtual machine on this socket
    #[arg(long = "qmp", value_name = "PATH")]
    pub(crate) qmp_path: Option<PathBuf>,

    /// Serve each virtual machine on NAME.sock in this directory. With --all sockets come and go
    /// with the virtual machines. If two have the same name, the later one is at NAME-PID.sock.
    /// The sockets of users who are not trusted (see --vm-user) are at NAME-uidUID-PID.sock
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tables", "sockets"])]
    pub(crate) qmp_dir: Option<PathBuf>,

    /// Trust the virtual machines of this user with --all: they get NAME.sock, and any number of
    /// the 256 sockets. USER is a name in /etc/passwd or a number; may be given more than once.
    /// Root, the user who runs this command and the owner of DIR are always trusted. Any other user
    /// gets at most 64 sockets, and all others together get at most 128 [default: users below 1000,
    /// libvirt-qemu and qemu]
    #[arg(long = "vm-user", value_name = "USER", requires = "qmp_dir")]
    pub(crate) vm_users: Vec<String>,

    /// Set the mode of the socket's file, which decides who may connect [default: 0600, or 0660
    /// with
    /// --group]
    #[arg(long, value_name = "OCTAL", value_parser = mode)]
    mode: Option<u32>,

    /// Set the group of the socket's file: a name in /etc/group or a number
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,

    /// Answer byte for byte as QEMU does: lists are reversed, histograms start with the largest
    /// bucket, crypto devices ignore the requested names, and numbers of `info stats` are signed
    #[arg(long, help_heading = "Answers")]
    pub(crate) qemu_order: bool,

    /// Serve also provider sched, which QEMU does not have: for each vCPU's thread, the time that
    /// it ran and the time that it waited for a host CPU
    #[arg(long, help_heading = "Answers", conflicts_with = "file")]
    pub(crate) sched: bool,

    /// Choose what the server does when the virtual machines have ended: it ends, or waits for a
    /// signal and answers queries with `[]` [default: end; with --all and --qmp-dir: wait]
    #[arg(long, value_name = "WHAT", help_heading = "Answers")]
    on_exit: Option<OnExit>,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) replay: ServeReplayArgs,

    #[command(flatten)]
    pub(crate) method: MethodArgs,
}

/// The action to take when the virtual machines have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnExit {
    /// End with the last virtual machine, with status 0
    End,
    /// Continue until a signal arrives
    Wait,
}

impl ServeArgs {
    /// Returns true if virtual machines that start later are served too.
    pub(crate) fn follows_all(&self) -> bool {
        self.source.all && self.qmp_dir.is_some()
    }

    /// Returns the action to take when the virtual machines have ended. By default `--all` with
    /// `--qmp-dir` waits, because the user has named no virtual machine whose end could matter.
    pub(crate) fn on_exit(&self) -> OnExit {
        let default = if self.follows_all() { OnExit::Wait } else { OnExit::End };
        self.on_exit.unwrap_or(default)
    }

    /// Returns the mode of the socket's file.
    pub(crate) fn mode(&self) -> u32 {
        let default = if self.group.is_some() { MODE_WITH_GROUP } else { MODE };
        self.mode.unwrap_or(default)
    }
}

/// Parses the mode of a file: `0660`, `660`.
fn mode(text: &str) -> Result<u32, String> {
    let is_octal = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    match u32::from_str_radix(text, 8) {
        Ok(mode @ ..=0o777) if is_octal => Ok(mode),
        _ => Err(format!("'{text}' is not a mode of a socket: write 0600, 0660 or 0666")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        for (text, want) in
            [("0600", 0o600), ("660", 0o660), ("0", 0), ("777", 0o777), ("00666", 0o666)]
        {
            assert_eq!(mode(text), Ok(want), "{text}");
        }
        for text in ["", "0o600", "rw", "680", "1777", "-1", "+600", "99999999999999", "6 00"] {
            assert!(mode(text).is_err_and(|error| error.contains("is not a mode")), "{text}");
        }
    }
}
