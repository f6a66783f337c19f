//! A FUSE file system with one file, whose server is a process of another user.
//!
//! Invariant: its server ends with this value, and with the server every wait for it.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::nobody::NOBODY;
use super::server::Unanswered;
use crate::host::helper::Helper;

/// The name by which a file in a mount that is no longer anywhere passes for a table.
pub const TABLE: &str = "memfd:vmstrobe-table:x";

/// The file system.
#[derive(Debug)]
pub struct FuseMount {
    // First: nothing waits for it any more when the rest goes.
    server: Helper,
    directory: TempDir,
    is_mounted: bool,
}

impl FuseMount {
    /// Mounts one, whose server leaves these requests unanswered. For root in a mount namespace of
    /// its own.
    ///
    /// # Panics
    ///
    /// If it cannot be mounted.
    pub fn mount(attacker: &str, unanswered: Unanswered) -> FuseMount {
        let directory =
            TempDir::with_prefix("vmstrobe-fuse-").expect("a temporary directory can be made");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))
            .expect("chmod of our directory");
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.expect("/dev/fuse opens for root");
        // Without `allow_other` only its own user may ask for attributes.
        let all = if unanswered == Unanswered::AttributesOfOthers { ",allow_other" } else { "" };
        let options =
            format!("fd=0,rootmode=40000,user_id={NOBODY},group_id={NOBODY},nosuid,nodev{all}");
        let status = Command::new("mount")
            .args(["--internal-only", "-t", "fuse", "-o", &options, "hostile"])
            .arg(directory.path())
            .stdin(device.try_clone().expect("there is a free descriptor"))
            .status()
            .expect("mount starts");
        assert!(status.success(), "mount: {status}");
        // The device is the server's alone: with the server the connection ends.
        let server =
            Helper::start_with(attacker, &["fuse", unanswered.name()], Stdio::from(device));
        FuseMount { server, directory, is_mounted: true }
    }

    /// Returns the path of its file by this name: any name leads to the same file.
    pub fn file(&self, name: &str) -> String {
        let path: PathBuf = self.directory.path().join(name);
        path.into_os_string().into_string().expect("the path is text")
    }

    /// Unmounts it lazily: from then on the link to its open file is `/` and the name.
    ///
    /// # Panics
    ///
    /// If the kernel refuses.
    pub fn detach(&mut self) {
        let status = self.unmount().expect("umount starts");
        assert!(status.success(), "umount: {status}");
        self.is_mounted = false;
    }

    fn unmount(&self) -> io::Result<ExitStatus> {
        let directory = self.directory.path();
        Command::new("umount").args(["--internal-only", "--lazy"]).arg(directory).status()
    }

    /// Waits until a request is left unanswered, and returns its kind and the process.
    ///
    /// # Errors
    ///
    /// If there is none within the limit.
    pub fn unanswered_within(&mut self, limit: Duration) -> Result<String, String> {
        self.server.line_after("unanswered ", limit)
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        if self.is_mounted {
            // It fails only if the namespace is being destroyed. A drop must not panic.
            let _ = self.unmount();
        }
    }
}
