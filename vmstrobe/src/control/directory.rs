//! The directory with the control sockets of a user's recorders.
//!
//! It is `vmstrobe-record` in the directory that the system has for sockets of a user: `/run` for
//! root, else `$XDG_RUNTIME_DIR`. It is not the directory that `serve` may have there, whose
//! sockets have names that VMs choose and may be open to others.
//!
//! Invariant: a directory is used only if it is one, belongs to this user, and no other user may
//! write in it. Only stale sockets with names of control sockets are removed from it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use vmstrobe_listen::remove_if_stale;

use super::error::{ControlError, UnsafeDirectory};

/// The name of the directory.
const NAME: &str = "vmstrobe-record";
/// The parent of the directory of root.
const PARENT_OF_ROOT: &str = "/run";
/// The bits of a mode by which other users may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// The most files of a directory that are looked at. A recorder has one.
const MAX_FILES: usize = 4096;

type Result<T> = std::result::Result<T, ControlError>;

/// Returns the directory of this user, whether it exists or not.
pub(super) fn of_user() -> Result<PathBuf> {
    let uid = geteuid().as_raw();
    let parent = parent(uid, env::var_os("XDG_RUNTIME_DIR"), Path::is_dir);
    parent.map(|parent| parent.join(NAME)).ok_or(ControlError::NoDirectory)
}

/// Returns the directory of the system for sockets of a user.
fn parent(
    uid: u32,
    runtime_directory: Option<OsString>,
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    // The variable may be that of the user who became root.
    if uid == 0 {
        return Some(PARENT_OF_ROOT.into());
    }
    let named = runtime_directory.map(PathBuf::from).filter(|path| path.is_absolute());
    // Where sessions are not made by pam_systemd, the variable is missing, and often this is too.
    let usual = || Some(PathBuf::from(format!("/run/user/{uid}"))).filter(|path| exists(path));
    named.or_else(usual)
}

/// Makes the directory if it is not there, removes stale sockets from it, and returns the path for
/// the socket of this process.
pub(super) fn prepare(directory: &Path) -> Result<PathBuf> {
    let failed = |source| ControlError::Directory { path: directory.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    live_sockets(directory)?;
    Ok(directory.join(file_name(std::process::id())))
}

/// Returns the process ids and sockets of recorders, in order, and removes the sockets that no
/// process has any more.
pub(super) fn live_sockets(directory: &Path) -> Result<Vec<(u32, PathBuf)>> {
    if !is_safe(directory)? {
        return Ok(Vec::new());
    }
    let failed = |source| ControlError::Directory { path: directory.to_owned(), source };
    let mut sockets = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)?.take(MAX_FILES) {
        let entry = entry.map_err(failed)?;
        let Some(pid) = pid_of(&entry.file_name()) else { continue };
        // One that cannot be examined, or is another kind of file, is none of ours.
        if remove_if_stale(&entry.path()).is_ok_and(|was_stale| !was_stale) {
            sockets.push((pid, entry.path()));
        }
    }
    sockets.sort_unstable();
    Ok(sockets)
}

/// Returns true if the directory is safe, and false if there is none.
fn is_safe(directory: &Path) -> Result<bool> {
    let refused = |why| Err(ControlError::Unsafe { path: directory.to_owned(), why });
    let found = match fs::symlink_metadata(directory) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(source) => {
            return Err(ControlError::Directory { path: directory.to_owned(), source });
        }
    };
    let mode = found.mode() & 0o777;
    match () {
        () if !found.is_dir() => refused(UnsafeDirectory::NotADirectory),
        () if found.uid() != geteuid().as_raw() => refused(UnsafeDirectory::OfUser(found.uid())),
        () if mode & WRITABLE_BY_OTHERS != 0 => refused(UnsafeDirectory::Mode(mode)),
        () => Ok(true),
    }
}

/// Returns the name of the socket of a recorder.
fn file_name(pid: u32) -> String {
    format!("record-{pid}.sock")
}

/// Returns the process whose recorder has a socket of that name.
fn pid_of(name: &OsStr) -> Option<u32> {
    let pid = name.to_str()?.strip_prefix("record-")?.strip_suffix(".sock")?;
    // A number as it is written, and not one such as +7 or 007.
    pid.parse().ok().filter(|number: &u32| *number > 0 && number.to_string() == pid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_parent_is_the_users_own() {
        let parent = |uid, variable: Option<&str>, exists: bool| {
            parent(uid, variable.map(OsString::from), |_| exists)
        };
        for (uid, variable, exists, want) in [
            (0, None, true, Some("/run")),
            (0, Some("/run/user/1000"), true, Some("/run")),
            (7, Some("/x"), true, Some("/x")),
            (7, Some("x"), true, Some("/run/user/7")),
            (7, Some(""), false, None),
            (7, None, true, Some("/run/user/7")),
            (7, None, false, None),
        ] {
            let found = parent(uid, variable, exists);
            assert_eq!(found.as_deref(), want.map(Path::new), "{uid} {variable:?} {exists}");
        }
    }

    #[test]
    fn a_socket_tells_its_recorder() {
        assert_eq!(pid_of(file_name(4711).as_ref()), Some(4711));
        for name in ["record-.sock", "record-+7.sock", "record-07.sock", "record-0.sock", "x.sock"]
        {
            assert_eq!(pid_of(name.as_ref()), None, "{name}");
        }
    }

    #[test]
    fn the_directory_is_made_for_this_user_alone_and_stale_sockets_are_removed() {
        let parent = tempfile::tempdir().expect("a temporary directory can be made");
        let directory = parent.path().join(NAME);
        assert!(live_sockets(&directory).expect("it is not there").is_empty());
        let own = prepare(&directory).expect("the parent is ours");
        let mode = fs::metadata(&directory).expect("it was made").mode();
        assert_eq!(mode & 0o777, 0o700);
        let path = |name: &str| directory.join(name);
        drop(UnixListener::bind(path("record-5.sock")).expect("the path is free"));
        drop(UnixListener::bind(path("web.sock")).expect("the path is free"));
        fs::write(path("record-6.sock"), "precious").expect("the path is free");
        let _live = UnixListener::bind(path("record-70.sock")).expect("the path is free");
        let _other = UnixListener::bind(path("record-8.sock")).expect("the path is free");
        assert_eq!(prepare(&directory).expect("it is safe"), own);
        assert!(!path("record-5.sock").exists() && path("web.sock").exists());
        let live = live_sockets(&directory).expect("it is safe");
        assert_eq!(live, [(8, path("record-8.sock")), (70, path("record-70.sock"))]);
        assert_eq!(fs::read(path("record-6.sock")).expect("it is there"), b"precious");
    }

    #[test]
    fn a_directory_that_others_have_a_hand_in_is_refused() {
        let parent = tempfile::tempdir().expect("a temporary directory can be made");
        let directory = parent.path().join(NAME);
        let why = || match prepare(&directory).expect_err("it is not safe") {
            ControlError::Unsafe { why, .. } => why,
            error => panic!("{error}"),
        };
        let elsewhere = parent.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("the parent is ours");
        symlink(&elsewhere, &directory).expect("the path is free");
        assert_eq!(why(), UnsafeDirectory::NotADirectory);
        fs::remove_file(&directory).expect("it is ours");
        prepare(&directory).expect("the parent is ours");
        for mode in [0o720, 0o702, 0o777] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("it is ours");
            assert_eq!(why(), UnsafeDirectory::Mode(mode));
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("it is ours");
        prepare(&directory).expect("others may look, and no more");
        if geteuid().is_root() {
            chown(&directory, Some(65534), None).expect("root may");
            assert_eq!(why(), UnsafeDirectory::OfUser(65534));
        }
        let missing = parent.path().join("no/where");
        assert!(matches!(prepare(&missing), Err(ControlError::Directory { .. })));
    }
}
