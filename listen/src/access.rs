//! Access to a socket: the group and the mode of its file decide who may connect.
//!
//! Invariant: while the file is not of the group asked for, only its owner may connect. Only a
//! socket of this user's own is changed, and nothing that a link leads to.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, chmod, chownat, fstat, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use vmstrobe_core::{Error, ErrorKind, Result};

/// The bits of a mode that say who may connect.
const ALL: u32 = 0o777;
/// The bits of [`ALL`] that are the owner's.
const OWNERS: u32 = 0o700;

/// The users who may connect to a socket: all who may write its file (unix(7)). The default is this
/// user and root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The file's mode, set exactly so whatever the umask is; bits beyond `0o777` do not count.
    pub mode: u32,
    /// The file's group, by number; `None` for the one that the system gives a new file there.
    pub group: Option<u32>,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: 0o600, group: None }
    }
}

impl Access {
    /// The mode to make the file with: until it is of the right group, it is for its owner.
    pub(crate) fn mode_at_first(&self) -> Mode {
        Mode::from_raw_mode(self.mode & OWNERS)
    }

    /// Gives a file that was just made its group, then its mode.
    ///
    /// The path is followed once: group and mode go to what was found there then, and only if it is
    /// a socket of this user's, not a link. Another user who may write the directory could have put
    /// another socket of this user's there in between, which then gets this group and mode; against
    /// that user no path in the directory is safe, and it could as well put its own socket there.
    ///
    /// # Errors
    /// `Denied` if the group is not ours to give, `Busy` if somebody replaced the file, `Io` if
    /// /proc, through which it is changed, is not there.
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
        // No fchmod: it takes no descriptor that was opened for its path alone.
        chmod(link_to(&file), Mode::from_raw_mode(self.mode & ALL))
            .map_err(|errno| failed(errno, "mode", ": is /proc mounted?"))
    }
}

fn is_our_socket(file: &Stat) -> bool {
    FileType::from_raw_mode(file.st_mode) == FileType::Socket && file.st_uid == geteuid().as_raw()
}

/// The path that leads to that very file, whatever stands at its own path by now.
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

    fn a_place() -> (TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        (place, path)
    }

    #[test]
    fn a_file_is_its_owners_until_it_has_its_group() {
        assert_eq!(Access::default(), Access { mode: 0o600, group: None });
        for (asked, first) in [(0o600, 0o600), (0o666, 0o600), (0o070, 0), (0o7777, 0o700)] {
            let access = Access { mode: asked, group: None };
            assert_eq!(access.mode_at_first().as_raw_mode(), first);
        }
    }

    #[test]
    fn group_and_mode_go_to_a_socket_of_ours_alone() {
        let (_place, path) = a_place();
        let refused = || OPEN.give_to(&path).unwrap_err();
        assert_eq!(refused().kind(), ErrorKind::Io);
        fs::write(&path, "precious").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(refused().kind(), ErrorKind::Busy);
        assert!(refused().to_string().contains("somebody replaced"), "{}", refused());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o400);

        // Nor to where a link leads.
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
