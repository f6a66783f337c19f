//! Places for recordings: names made of a template, and files that are safe to write.
//!
//! Invariant: a name that others chose (a VM's, a condition's) never leaves the directory of the
//! template, and a file that is created is new: nobody else has it open, and it is no link.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use vmstrobe_host::Broker;

use crate::error::{Error, Result};

/// The most bytes of a name that is put into a file name.
const MAX_NAME_BYTES: usize = 64;
/// The most files of one name, told apart by a number.
const MAX_SAME_NAMES: u32 = 10_000;
/// Do not follow a link in the last part of a path: `O_NOFOLLOW`.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// The names that stand for placeholders in a template.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    /// The VM: `{vm}`.
    pub(super) vm: &'a str,
    /// The time, in ns since 1970: `{time}`.
    pub(super) wall_ns: u64,
    /// The cause: `{trigger}`.
    pub(super) trigger: &'a str,
}

/// Returns the path that a template gives. Placeholders in its directories are left alone.
pub(super) fn expand(template: &Path, names: Names<'_>) -> PathBuf {
    let Some(name) = template.file_name() else { return template.to_owned() };
    let name = name.to_string_lossy();
    let name = name
        .replace("{time}", &compact_utc(names.wall_ns))
        .replace("{trigger}", &plain_name(names.trigger))
        .replace("{vm}", &plain_name(names.vm));
    template.with_file_name(name)
}

/// Returns a name in letters, digits, `-`, `_` and dots that are not the first, so that a name that
/// others chose can stand in the name of a file.
///
/// ```
/// use vmstrobe::plain_name;
/// assert_eq!(plain_name("../web 1"), "_._web_1");
/// ```
pub fn plain_name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let plain = name.chars().map(|c| if is_plain(c) { c } else { '_' });
    let plain: String = plain.take(MAX_NAME_BYTES).collect();
    match plain.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None if plain.is_empty() => "_".to_owned(),
        None => plain,
    }
}

/// Returns a time as `20261201T142338.123Z`.
fn compact_utc(wall_ns: u64) -> String {
    utc(wall_ns).replace(['-', ':'], "")
}

/// Returns a time, in ns since 1970, as `2026-12-01T14:23:38.123Z`.
pub fn utc(wall_ns: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(wall_ns);
    humantime::format_rfc3339_millis(time).to_string()
}

/// Parses a time as [`utc`] writes it, also without `T` and `Z`, and returns it in ns since 1970.
pub fn parse_utc(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339_weak(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(time.as_nanos()).ok()
}

/// A file that is created and removed with the rights that opening takes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    broker: Broker,
}

impl Place {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker }
    }

    /// Creates a file as [`create`] does.
    ///
    /// # Errors
    /// [`Error::RecordFile`].
    pub(super) fn create(&self, path: &Path, overwrite: bool) -> Result<File> {
        self.with(path, move |path| create(path, overwrite))
    }

    /// Creates a file as [`create_numbered`] does.
    ///
    /// # Errors
    /// [`Error::RecordFile`].
    pub(super) fn create_numbered(&self, path: &Path) -> Result<(PathBuf, File)> {
        self.with(path, create_numbered)
    }

    /// Checks that files can be made in the directory of a path.
    ///
    /// # Errors
    /// [`Error::RecordFile`].
    pub(super) fn check_directory(&self, path: &Path) -> Result<()> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        self.with(parent.unwrap_or(Path::new(".")), |directory| {
            if !std::fs::metadata(directory)?.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            // By the rights of the thread that will make them.
            let wanted = Access::WRITE_OK.union(Access::EXEC_OK);
            match accessat(CWD, directory, wanted, AtFlags::EACCESS) {
                Err(Errno::NOSYS) => Ok(()),
                checked => Ok(checked?),
            }
        })
    }

    /// Removes a file, if it is still there.
    ///
    /// # Errors
    /// [`Error::RecordFile`].
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        self.with(path, |path| match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    fn with<T: Send + 'static>(
        &self,
        path: &Path,
        act: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let theirs = path.to_owned();
        let done = self.broker.run_apart(move || act(&theirs))?;
        done.map_err(|source| Error::RecordFile { path: path.to_owned(), source })
    }
}

/// Creates a new file. If there is one of that name, it is replaced if `overwrite` says so. A path
/// of something else, such as a pipe or `/dev/null`, is opened.
///
/// # Errors
/// `AlreadyExists` if there is a file; any other error of the system.
fn create(path: &Path, overwrite: bool) -> io::Result<File> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let kind = found.file_type();
            if kind.is_dir() || kind.is_block_device() || kind.is_socket() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
            }
            return OpenOptions::new().write(true).open(path);
        }
        // Whoever has the old file open keeps it, and nothing else.
        Ok(_) if overwrite => std::fs::remove_file(path)?,
        _ => {}
    }
    create_new(path)
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).custom_flags(NO_FOLLOW).open(path)
}

/// Creates a new file whose name has a number if there is one already.
///
/// # Errors
/// Any error of the system.
fn create_numbered(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut last = None;
    for number in 1..=MAX_SAME_NAMES {
        let path = match number {
            1 => path.to_owned(),
            _ => numbered(path, &number.to_string()),
        };
        // Nothing that is there is opened: a pipe would keep its opener waiting.
        match create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
}

/// Returns a path with a number before its extension: `run-2.arrows`.
pub(super) fn numbered(path: &Path, number: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|extension| extension.to_string_lossy());
    let extension = extension.map(|extension| format!(".{extension}")).unwrap_or_default();
    path.with_file_name(format!("{stem}-{number}{extension}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_of_others_never_leave_the_directory() {
        let template = Path::new("/var/{vm}/{vm}-{time}-{trigger}.arrows");
        for (vm, want) in [
            ("web", "web"),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("/etc/x", "_etc_x"),
            ("", "_"),
            ("a\n\"b\u{202e}", "a__b_"),
            ("{trigger}", "_trigger_"),
        ] {
            let names =
                Names { vm, wall_ns: 1_796_135_018_123_000_000, trigger: "exits.rate > 50k" };
            let path = expand(template, names);
            let name = format!("{want}-20261201T142338.123Z-exits.rate___50k.arrows");
            assert_eq!(path, Path::new("/var/{vm}").join(name), "{vm}");
        }
        let long = "x".repeat(1 << 20);
        let names = Names { vm: &long, wall_ns: 0, trigger: &long };
        assert!(expand(template, names).file_name().is_some_and(|name| name.len() < 255));
    }

    #[test]
    fn a_file_is_new_or_replaced_and_never_followed() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("run.arrows");
        assert!(create(&path, false).is_ok());
        let error = create(&path, false).expect_err("there is one");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        std::fs::write(&path, "old").expect("it is a file");
        let old = File::open(&path).expect("it is a file");
        assert!(create(&path, true).is_ok());
        // The old file is another: nobody who has it open has the recording.
        assert_eq!(old.metadata().expect("it is open").len(), 3);
        assert_eq!(std::fs::read(&path).expect("it is a file"), b"");

        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        symlink(&target, &link).expect("a link can be made");
        assert!(create(&link, false).is_err() && !target.exists());
        std::fs::write(&target, "precious").expect("it is a file");
        assert!(create(&link, false).is_err());
        assert!(create(&link, true).is_ok());
        assert_eq!(std::fs::read(&target).expect("it is a file"), b"precious");
        assert!(create(directory.path(), true).is_err());
        assert!(create(Path::new("/dev/null"), false).is_ok());
    }

    #[test]
    fn files_of_one_name_are_numbered() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("run.arrows");
        let names: Vec<_> = (0..3)
            .map(|_| create_numbered(&path).expect("there is room").0)
            .map(|path| path.file_name().expect("it has a name").to_owned())
            .collect();
        assert_eq!(names, ["run.arrows", "run-2.arrows", "run-3.arrows"]);
        assert_eq!(numbered(Path::new("/a/b"), "2"), Path::new("/a/b-2"));
        // A pipe that nobody reads would keep its opener waiting.
        let pipe = directory.path().join("pipe.arrows");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe can be made");
        let (path, _) = create_numbered(&pipe).expect("there is room");
        assert_eq!(path, directory.path().join("pipe-2.arrows"));
    }
}
