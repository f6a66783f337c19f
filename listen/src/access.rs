//! Access to a socket: the group and the mode of its file decide who may connect.
//!
//! Invariant: until the file has its group, only its owner may connect. Only a socket that this
//! user owns is changed, never the target of a link.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, chmod, chownat, fstat, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use vmstrobe_core::{Error, ErrorKind, Result};

/// The bits of a mode that decide who may connect.
const ALL: u32 = 0o777;
/// The owner's bits of [`ALL`].
const OWNERS: u32 = 0o700;

/// The users that may connect to a socket: all that may write its file (unix(7)). The default is
/// this user and root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The file's mode, whatever the umask is; bits beyond `0o777` are ignored.
    pub mode: u32,
    /// The number of the file's group; `None` for the group that the system gives a new file.
    pub group: Option<u32>,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: 0o600, group: None }
    }
}

impl Access {
    /// Returns the mode to make the file with: until it has its group, it is for its owner alone.
    pub(crate) fn mode_at_first(&self) -> Mode {
        Mode::from_raw_mode(self.mode & OWNERS)
    }

    /// Gives a file that was just made its group, then its mode.
    ///
    /// The path is resolved once: group and mode go to the file found then, and only if it is a
    /// socket that this user owns, not a link. Another user that may write the directory could have
    /// put another socket of this user there in between, which then gets this group and mode. No
    /// path in the directory is safe against that user, which could also put its own socket there.
    ///
    /// # Errors
    /// `Denied` if this user may not give the group, `Busy` if another process replaced the file,
    /// `Io` if /proc, through which it is changed, is not mounted.
    pub(crate) fn give_to(&self, path: &Path) -> Result<()> {
        let failed = |errno, what: &str, advice: &str| {
            let kind = match errno {
                Errno::PERM | Errno::ACCESS => ErrorKind::Denied,
                _ => ErrorKind::Io,
            };
            let text = format!("cannot change the {what} of {}{advice}", path.display());
            Error::caused(kind, text, errno)
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = open(path, flags, Mode::empty()).and_then(|file| Ok((fstat(&file)?, file)));
        let (found, file) = opened.map_err(|errno| failed(errno, "access", ""))?;
        let group = self.group.filter(|&group| group != found.st_gid);
        if group.is_none() && found.st_mode & ALL == self.mode & ALL {
            return Ok(());
        }
        if !is_our_socket(&found) {
            let text = format!(
                "somebody replaced {}: give a path where only this user may write",
                path.display()
            );
            return Err(Error::new(ErrorKind::Busy, text));
        }
        if let Some(group) = group {
            let advice = format!(" to {group}: give one that this user is in");
            chownat(&file, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)
                .map_err(|errno| failed(errno, "group", &advice))?;
        }
        // Not fchmod, which refuses a descriptor that was opened with O_PATH.
        chmod(link_to(&file), Mode::from_raw_mode(self.mode & ALL))
            .map_err(|errno| failed(errno, "mode", ": is /proc mounted?"))
    }
}

fn is_our_socket(file: &Stat) -> bool {
    FileType::from_raw_mode(file.st_mode) == FileType::Socket && file.st_uid == geteuid().as_raw()
}

/// Returns a path that leads to this very file, whichever file has its own path by now.
fn link_to(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    const OPEN: Access = Access { mode: 0o660, group: None };

    /// Makes a directory, and returns it with the path of a socket in it.
    fn place() -> (TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        (place, path)
    }

    #[test]
    fn a_file_is_for_its_owner_until_it_has_its_group() {
        assert_eq!(Access::default(), Access { mode: 0o600, group: None });
        for (asked, first) in [(0o600, 0o600), (0o666, 0o600), (0o070, 0), (0o7777, 0o700)] {
            let access = Access { mode: asked, group: None };
            assert_eq!(access.mode_at_first().as_raw_mode(), first);
        }
    }

    #[test]
    fn group_and_mode_go_only_to_a_socket_of_this_user() {
        let (_place, path) = place();
        let refused = || OPEN.give_to(&path).unwrap_err();
        assert_eq!(refused().kind(), ErrorKind::Io);
        fs::write(&path, "precious").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(refused().kind(), ErrorKind::Busy);
        assert!(refused().to_string().contains("somebody replaced"), "{}", refused());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o400);

        // The target of a link is not changed either.
        let behind = path.with_extension("behind");
        let _listener = UnixListener::bind(&behind).unwrap();
        fs::set_permissions(&behind, fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&behind, &path).unwrap();
        assert_eq!(refused().kind(), ErrorKind::Busy);
        assert_eq!(fs::metadata(&behind).unwrap().mode() & 0o7777, 0o600);

        OPEN.give_to(&behind).unwrap();
        assert_eq!(fs::metadata(&behind).unwrap().mode() & 0o7777, 0o660);
    }
}
