//! The paths of sockets.
//!
//! Invariant: a virtual machine's name, which anyone can make up, gives a plain file name in the
//! directory that was named and nowhere else; with the directory it fits a socket's address. Of a
//! user who is not trusted it never gives a name that clients may expect another's to have.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vmstrobe::text::is_printable;

use crate::error::{Error, Result};
use crate::out::reason;

/// The longest path of a socket, in bytes: `sun_path` with its NUL is 108 (unix(7)).
const PATH_BYTES_MAX: usize = 107;
/// The shortest room for a name that a directory's own path has to leave, in bytes.
const NAME_BYTES_MIN: usize = 24;
const EXTENSION: &str = ".sock";
/// The replacement of a character that a file's name should not have.
const SUBSTITUTE: char = '_';

/// A directory for sockets, one a virtual machine.
#[derive(Debug)]
pub(super) struct SocketDirectory {
    path: PathBuf,
    owner: u32,
    /// For a socket's name without its extension, in bytes.
    name_bytes_max: usize,
}

impl SocketDirectory {
    /// The directory at that path.
    ///
    /// # Errors
    /// If it is not there, or its path leaves no room for a name.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let shown = path.display();
        let owner = match fs::metadata(path) {
            Ok(found) if found.is_dir() => found.uid(),
            Ok(_) => return Err(Error::failed(format!("--qmp-dir {shown} is no directory"))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = format!("--qmp-dir {shown} is not there: make it first");
                return Err(Error::failed(text));
            }
            Err(error) => {
                let why = reason(&error);
                return Err(Error::failed(format!("cannot use --qmp-dir {shown}: {why}")));
            }
        };
        let taken = path.join(EXTENSION).as_os_str().len();
        let name_bytes_max = PATH_BYTES_MAX.saturating_sub(taken);
        if name_bytes_max < NAME_BYTES_MIN {
            let most = PATH_BYTES_MAX - NAME_BYTES_MIN - EXTENSION.len() - 1;
            return Err(Error::failed(format!(
                "--qmp-dir {shown} is too long: the path of a socket has at most {PATH_BYTES_MAX} \
                 bytes; give a directory of at most {most}"
            )));
        }
        Ok(Self { path: path.to_owned(), owner, name_bytes_max })
    }

    /// The user that it belongs to.
    pub(super) fn owner(&self) -> u32 {
        self.owner
    }

    /// The directory's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path for the socket of a virtual machine of that name: `web.sock`; if that is
    /// taken, `web-4711.sock`. For a stranger, a user who is not trusted, `web-uid1000-4711.sock`:
    /// without the user id, a stranger's name could be made to give a trusted user's `web-4711`.
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
        // A name may end as if it had a process id behind it.
        let endings = endings.chain((2_u64..).map(|number| format!("{again}.{number}")));
        let mut paths = endings.map(|ending| {
            let name = truncate(&name, self.name_bytes_max.saturating_sub(ending.len()));
            self.path.join(format!("{name}{ending}{EXTENSION}"))
        });
        let free = paths.find(|path| !is_taken(path));
        free.expect("endings have no end, and finitely many paths are taken")
    }
}

/// The name as a file's: one part of a path, not hidden, printable. It has no U+FFFD either, which
/// stands for what the name's bytes did not say.
fn file_name(name: &str) -> String {
    let is_unfit = |c: char| matches!(c, '/' | '\u{fffd}') || !is_printable(c);
    let mut name = name.replace(is_unfit, &SUBSTITUTE.to_string());
    if name.is_empty() || name.starts_with('.') {
        name.replace_range(..name.len().min(1), &SUBSTITUTE.to_string());
    }
    name
}

/// As much of it as has room.
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
        path.strip_prefix("/d").expect("it is in there").display().to_string()
    }

    #[test]
    fn a_name_makes_a_file_in_the_directory_and_nowhere_else() {
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
    fn the_later_of_two_with_one_name_gets_its_process_id() {
        assert_eq!(socket("web", &["web.sock"]), "web-4711.sock");
        assert_eq!(socket("web", &["web.sock", "web-4711.sock"]), "web-4711.2.sock");
        let taken = ["web.sock", "web-4711.sock", "web-4711.2.sock"];
        assert_eq!(socket("web", &taken), "web-4711.3.sock");
        let is_taken = |path: &Path| path == Path::new("/d/web.sock");
        let nameless = directory(40).socket("web", None, None, is_taken);
        assert_eq!(nameless, Path::new("/d/web.2.sock"));
    }

    #[test]
    fn a_strangers_name_takes_nobodys_place() {
        let path_of_untrusted = |name: &str, taken: &[&str]| socket_of(Some(1000), name, taken);
        // Also where nobody has the plain name: its owner may be about to start again.
        assert_eq!(path_of_untrusted("web", &[]), "web-uid1000-4711.sock");
        assert_eq!(path_of_untrusted("web", &["web-uid1000-4711.sock"]), "web-uid1000-4711.2.sock");
        let long = path_of_untrusted(&"n".repeat(300), &[]);
        assert!(long.ends_with("n-uid1000-4711.sock") && long.len() == 45, "{long}");
    }

    #[test]
    fn every_path_fits_an_address() {
        let root = std::env::temp_dir();
        let long = "ü".repeat(512);
        let directory = SocketDirectory::new(&root).expect("it is there");
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
    fn a_directory_is_there_and_short_enough() {
        let root = tempdir("path");
        let text = |path: &Path| SocketDirectory::new(path).expect_err("it is not fit").to_string();
        assert!(text(&root.join("none")).ends_with("is not there: make it first"));
        fs::write(root.join("file"), "").expect("it is ours");
        assert!(text(&root.join("file")).ends_with("is no directory"));
        // Exactly as long as may be, and one byte more.
        let most = PATH_BYTES_MAX - NAME_BYTES_MIN - EXTENSION.len() - 1;
        let fill = most - root.as_os_str().len() - 1;
        for (bytes, fits) in [(fill, true), (fill + 1, false)] {
            let long = root.join("x".repeat(bytes));
            fs::create_dir(&long).expect("it is ours");
            match SocketDirectory::new(&long) {
                Ok(directory) => assert!(fits && directory.name_bytes_max == NAME_BYTES_MIN),
                Err(error) => assert!(!fits && error.to_string().ends_with("at most 77")),
            }
        }
        fs::remove_dir_all(&root).expect("it is ours");
    }

    fn tempdir(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("vmstrobe-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).expect("it can be made");
        root
    }
}
