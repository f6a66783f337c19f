//! The directory of sockets, and the paths of sockets in it.
//!
//! Invariant: the name of a virtual machine, which its user chooses freely, becomes a plain file
//! name in this directory, and the whole path fits into a socket address. The name of an untrusted
//! user's VM never becomes a path that clients may expect to belong to a trusted user's VM.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vmstrobe_core::text::is_printable;

use crate::error::{Error, Result};

/// The longest path of a socket, in bytes: `sun_path` with its NUL is 108 (unix(7)).
const PATH_BYTES_MAX: usize = 107;
/// The smallest number of bytes that the path of the directory must leave for a name.
const NAME_BYTES_MIN: usize = 24;
const EXTENSION: &str = ".sock";
/// The replacement of a character that a file name should not have.
const SUBSTITUTE: char = '_';

/// Why a directory cannot have the sockets.
#[derive(Debug)]
#[non_exhaustive]
pub enum DirectoryRefusal {
    /// It does not exist.
    Missing,
    /// It is another kind of file.
    NotADirectory,
    /// Its path leaves no room for the names of sockets; it may have so many bytes.
    TooLong {
        /// The largest number of bytes.
        bytes_max: usize,
    },
    /// It cannot be examined.
    Io(io::Error),
}

impl fmt::Display for DirectoryRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("does not exist: create it first"),
            Self::NotADirectory => f.write_str("is not a directory: give one for sockets"),
            Self::TooLong { bytes_max } => write!(
                f,
                "is too long: the path of a socket has at most {PATH_BYTES_MAX} bytes; give a \
                 directory of at most {bytes_max}"
            ),
            Self::Io(error) => write!(f, "cannot be used: {error}"),
        }
    }
}

/// A directory with a socket for each virtual machine.
#[derive(Debug)]
pub(super) struct SocketDirectory {
    path: PathBuf,
    owner: u32,
    /// The longest name of a socket without its extension, in bytes.
    name_bytes_max: usize,
}

impl SocketDirectory {
    /// Examines the directory at this path.
    ///
    /// # Errors
    /// If there is no directory, or its path leaves no room for a name.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let refused = |why| Error::SocketDirectory { path: path.to_owned(), why };
        let owner = match fs::metadata(path) {
            Ok(found) if found.is_dir() => found.uid(),
            Ok(_) => return Err(refused(DirectoryRefusal::NotADirectory)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(refused(DirectoryRefusal::Missing));
            }
            Err(error) => return Err(refused(DirectoryRefusal::Io(error))),
        };
        let taken = path.join(EXTENSION).as_os_str().len();
        let name_bytes_max = PATH_BYTES_MAX.saturating_sub(taken);
        if name_bytes_max < NAME_BYTES_MIN {
            let bytes_max = PATH_BYTES_MAX - NAME_BYTES_MIN - EXTENSION.len() - 1;
            return Err(refused(DirectoryRefusal::TooLong { bytes_max }));
        }
        Ok(Self { path: path.to_owned(), owner, name_bytes_max })
    }

    /// Returns the user that owns the directory.
    pub(super) fn owner(&self) -> u32 {
        self.owner
    }

    /// Returns the path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path for the socket of a virtual machine of this name: `web.sock`; if that is
    /// taken, `web-4711.sock`; for an untrusted user `web-uid1000-4711.sock`. Without the user id,
    /// an untrusted user could choose the name `web-4711` to get the path of a trusted user's VM.
    pub(super) fn socket(
        &self,
        name: &str,
        pid: Option<u32>,
        untrusted: Option<u32>,
        is_taken: impl Fn(&Path) -> bool,
    ) -> PathBuf {
        let name = file_name(name);
        let pid = pid.map(|pid| format!("-{pid}"));
        let (first, again) = match untrusted {
            Some(uid) => {
                let ending = format!("-uid{uid}{}", pid.unwrap_or_default());
                ([Some(ending.clone()), None], ending)
            }
            None => ([Some(String::new()), pid.clone()], pid.unwrap_or_default()),
        };
        let endings = first.into_iter().flatten();
        // A path with a process id may be taken by a name that ends like one.
        let endings = endings.chain((2_u64..).map(|number| format!("{again}.{number}")));
        let mut paths = endings.map(|ending| {
            let name = truncate(&name, self.name_bytes_max.saturating_sub(ending.len()));
            self.path.join(format!("{name}{ending}{EXTENSION}"))
        });
        let free = paths.find(|path| !is_taken(path));
        free.expect("there are infinitely many endings, and finitely many paths are taken")
    }
}

/// Returns the name as a file name: one component of a path, not hidden, printable, and without
/// U+FFFD, which replaces invalid bytes.
fn file_name(name: &str) -> String {
    let is_unfit = |c: char| matches!(c, '/' | '\u{fffd}') || !is_printable(c);
    let mut name = name.replace(is_unfit, &SUBSTITUTE.to_string());
    if name.is_empty() || name.starts_with('.') {
        name.replace_range(..name.len().min(1), &SUBSTITUTE.to_string());
    }
    name
}

/// Returns the longest beginning of a name that has at most this number of bytes.
fn truncate(name: &str, bytes_max: usize) -> &str {
    let fits = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&e| e <= bytes_max);
    &name[..fits.last().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name_bytes_max: usize) -> SocketDirectory {
        SocketDirectory { path: PathBuf::from("/d"), owner: 0, name_bytes_max }
    }

    fn socket(name: &str, taken: &[&str]) -> String {
        socket_of(None, name, taken)
    }

    fn socket_of(untrusted: Option<u32>, name: &str, taken: &[&str]) -> String {
        let path = directory(40).socket(name, Some(4711), untrusted, |path| {
            taken.iter().any(|taken| path == Path::new("/d").join(taken))
        });
        path.strip_prefix("/d").expect("the path is in the directory").display().to_string()
    }

    #[test]
    fn a_name_becomes_a_file_in_the_directory() {
        for (name, want) in [
            ("web", "web.sock"),
            ("my web 2.0", "my web 2.0.sock"),
            ("a/b", "a_b.sock"),
            ("../../etc/passwd", "_._.._etc_passwd.sock"),
            ("/", "_.sock"),
            (".", "_.sock"),
            ("..", "_..sock"),
            (".hidden", "_hidden.sock"),
            ("", "_.sock"),
            ("a\n\x1b[2J\0b", "a__[2J_b.sock"),
            ("\u{fffd}", "_.sock"),
            ("kcos.bew\u{202e}\u{2066}\u{9b}\u{2028}", "kcos.bew____.sock"),
            ("größe", "größe.sock"),
        ] {
            assert_eq!(socket(name, &[]), want, "{name:?}");
        }
    }

    #[test]
    fn the_second_socket_of_one_name_has_the_process_id() {
        assert_eq!(socket("web", &["web.sock"]), "web-4711.sock");
        assert_eq!(socket("web", &["web.sock", "web-4711.sock"]), "web-4711.2.sock");
        let taken = ["web.sock", "web-4711.sock", "web-4711.2.sock"];
        assert_eq!(socket("web", &taken), "web-4711.3.sock");
        let is_taken = |path: &Path| path == Path::new("/d/web.sock");
        let nameless = directory(40).socket("web", None, None, is_taken);
        assert_eq!(nameless, Path::new("/d/web.2.sock"));
    }

    #[test]
    fn an_untrusted_name_never_takes_a_plain_path() {
        let path_of_untrusted = |name: &str, taken: &[&str]| socket_of(Some(1000), name, taken);
        // Even if the plain name is free: its usual owner may start again.
        assert_eq!(path_of_untrusted("web", &[]), "web-uid1000-4711.sock");
        assert_eq!(path_of_untrusted("web", &["web-uid1000-4711.sock"]), "web-uid1000-4711.2.sock");
        let long = path_of_untrusted(&"n".repeat(300), &[]);
        assert!(long.ends_with("n-uid1000-4711.sock") && long.len() == 45, "{long}");
    }

    #[test]
    fn every_path_fits_into_a_socket_address() {
        let root = std::env::temp_dir();
        let long = "ü".repeat(512);
        let directory = SocketDirectory::new(&root).expect("the directory exists");
        let mut taken = Vec::new();
        for _ in 0..12 {
            let path =
                directory.socket(&long, Some(u32::MAX), None, |path| taken.contains(&path.into()));
            let bytes = path.as_os_str().len();
            assert!((PATH_BYTES_MAX - 1..=PATH_BYTES_MAX).contains(&bytes), "{path:?}");
            assert!(!taken.contains(&path));
            taken.push(path);
        }
        assert_eq!(directory.path(), root);
    }

    #[test]
    fn the_directory_exists_and_its_path_is_short_enough() {
        let root = tempdir("path");
        let text = |path: &Path| {
            SocketDirectory::new(path).expect_err("this path is unusable").to_string()
        };
        assert!(text(&root.join("none")).ends_with("does not exist: create it first"));
        fs::write(root.join("file"), "").expect("the directory belongs to this test");
        assert!(text(&root.join("file")).contains("is not a directory: "));
        // The longest path that is permitted, and one byte more.
        let most = PATH_BYTES_MAX - NAME_BYTES_MIN - EXTENSION.len() - 1;
        let fill = most - root.as_os_str().len() - 1;
        for (bytes, fits) in [(fill, true), (fill + 1, false)] {
            let long = root.join("x".repeat(bytes));
            fs::create_dir(&long).expect("the directory belongs to this test");
            match SocketDirectory::new(&long) {
                Ok(directory) => assert!(fits && directory.name_bytes_max == NAME_BYTES_MIN),
                Err(error) => assert!(!fits && error.to_string().ends_with("at most 77")),
            }
        }
        fs::remove_dir_all(&root).expect("the directory belongs to this test");
    }

    fn tempdir(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("vmstrobe-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).expect("the directory can be created");
        root
    }
}
