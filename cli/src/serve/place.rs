//! Where sockets are, what they are called, and to which group they are given.
//!
//! Invariant: a virtual machine's name, which anyone can make up, gives a plain file name in the
//! directory that was named and nowhere else; with the directory it fits a socket's address.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::out::reason;

/// The longest path of a socket, in bytes: `sun_path` with its NUL is 108 (unix(7)).
const PATH_BYTES_MAX: usize = 107;
/// The shortest room for a name that a directory's own path has to leave, in bytes.
const NAME_BYTES_MIN: usize = 24;
const EXTENSION: &str = ".sock";
/// What stands for a character that a file's name should not have.
const SUBSTITUTE: char = '_';
/// Where the groups of this host are.
const GROUPS: &str = "/etc/group";

/// A directory for sockets, one a virtual machine.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// For a socket's name without its extension, in bytes.
    name_bytes_max: usize,
}

impl Directory {
    /// That directory.
    ///
    /// # Errors
    /// If it is not there, or its path leaves no room for a name.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let shown = path.display();
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Error::failed(format!("--qmp-dir {shown} is no directory"))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = format!("--qmp-dir {shown} is not there: make it first");
                return Err(Error::failed(text));
            }
            Err(error) => {
                let why = reason(&error);
                return Err(Error::failed(format!("cannot use --qmp-dir {shown}: {why}")));
            }
        }
        let taken = path.join(EXTENSION).as_os_str().len();
        let name_bytes_max = PATH_BYTES_MAX.saturating_sub(taken);
        if name_bytes_max < NAME_BYTES_MIN {
            let most = PATH_BYTES_MAX - NAME_BYTES_MIN - EXTENSION.len() - 1;
            return Err(Error::failed(format!(
                "--qmp-dir {shown} is too long: the path of a socket has at most {PATH_BYTES_MAX} \
                 bytes; give a directory of at most {most}"
            )));
        }
        Ok(Self { path: path.to_owned(), name_bytes_max })
    }

    /// The directory's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the socket of a virtual machine of that name is: `web.sock`; if that is taken,
    /// `web-4711.sock`.
    pub(super) fn socket(
        &self,
        name: &str,
        pid: Option<u32>,
        is_taken: impl Fn(&Path) -> bool,
    ) -> PathBuf {
        let name = file_name(name);
        let pid = pid.map(|pid| format!("-{pid}"));
        let again = pid.clone().unwrap_or_default();
        let endings = [Some(String::new()), pid].into_iter().flatten();
        // A name may end as if it had a process id behind it.
        let endings = endings.chain((2_u64..).map(|number| format!("{again}.{number}")));
        let mut paths = endings.map(|ending| {
            let name = cut(&name, self.name_bytes_max.saturating_sub(ending.len()));
            self.path.join(format!("{name}{ending}{EXTENSION}"))
        });
        let free = paths.find(|path| !is_taken(path));
        free.expect("endings have no end, and finitely many paths are taken")
    }
}

/// The name as a file's: one part of a path, not hidden, harmless to a terminal.
fn file_name(name: &str) -> String {
    let is_unfit = |c: char| c == '/' || c.is_control() || c == char::REPLACEMENT_CHARACTER;
    let mut name = name.replace(is_unfit, &SUBSTITUTE.to_string());
    if name.is_empty() || name.starts_with('.') {
        name.replace_range(..name.len().min(1), &SUBSTITUTE.to_string());
    }
    name
}

/// As much of it as has room.
fn cut(name: &str, bytes_max: usize) -> &str {
    let fits = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&e| e <= bytes_max);
    &name[..fits.last().unwrap_or(0)]
}

/// The number of a group: by its name in `/etc/group`, or as a number.
///
/// Groups that the host knows from elsewhere (LDAP, say) are not looked up: that is the C library's
/// business, with modules of its own. They have a number too.
///
/// # Errors
/// If there is no such group.
pub(super) fn group_id(group: &str) -> Result<u32> {
    // A host without the file has no names.
    let groups = fs::read(GROUPS).unwrap_or_default();
    group_in(&String::from_utf8_lossy(&groups), group).ok_or_else(|| {
        Error::usage(format!(
            "there is no group '{group}' in {GROUPS}: if this host knows it from elsewhere, give \
             its number (`getent group {group}` shows it)"
        ))
    })
}

/// The same in the text of group(5): `name:password:number:users`. A name goes before a number.
fn group_in(groups: &str, wanted: &str) -> Option<u32> {
    // All bits set is no group: to chown(2) it means none.
    let number = |text: &str| text.parse().ok().filter(|&number| number != u32::MAX);
    let by_name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(wanted)).then_some(())?;
        number(fields.nth(1)?)
    });
    by_name.or_else(|| number(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name_bytes_max: usize) -> Directory {
        Directory { path: PathBuf::from("/d"), name_bytes_max }
    }

    fn socket(name: &str, taken: &[&str]) -> String {
        let path = directory(40).socket(name, Some(4711), |path| {
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
        let nameless = directory(40).socket("web", None, |path| path == Path::new("/d/web.sock"));
        assert_eq!(nameless, Path::new("/d/web.2.sock"));
    }

    #[test]
    fn every_path_fits_an_address() {
        let root = std::env::temp_dir();
        let long = "ü".repeat(512);
        let directory = Directory::new(&root).expect("it is there");
        let mut taken = Vec::new();
        for _ in 0..12 {
            let path = directory.socket(&long, Some(u32::MAX), |path| taken.contains(&path.into()));
            let bytes = path.as_os_str().len();
            assert!((PATH_BYTES_MAX - 1..=PATH_BYTES_MAX).contains(&bytes), "{path:?}");
            assert!(!taken.contains(&path));
            taken.push(path);
        }
        assert_eq!(directory.path(), root);
    }

    #[test]
    fn a_directory_is_there_and_short_enough() {
        let root = tempdir("place");
        let text = |path: &Path| Directory::new(path).expect_err("it is not fit").to_string();
        assert!(text(&root.join("none")).ends_with("is not there: make it first"));
        fs::write(root.join("file"), "").expect("it is ours");
        assert!(text(&root.join("file")).ends_with("is no directory"));
        // Exactly as long as may be, and one byte more.
        let most = PATH_BYTES_MAX - NAME_BYTES_MIN - EXTENSION.len() - 1;
        let fill = most - root.as_os_str().len() - 1;
        for (bytes, fits) in [(fill, true), (fill + 1, false)] {
            let long = root.join("x".repeat(bytes));
            fs::create_dir(&long).expect("it is ours");
            match Directory::new(&long) {
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

    #[test]
    fn groups_are_known_by_name_or_number() {
        let groups = "root:x:0:\nkvm:x:36:qemu,web\nbad:x\nworse:x:many:\n\n12:x:99:\n\
                      none:x:4294967295:\nlast:x:7";
        for (wanted, want) in [
            ("root", Some(0)),
            ("kvm", Some(36)),
            ("last", Some(7)),
            ("12", Some(99)),
            ("13", Some(13)),
            ("bad", None),
            ("worse", None),
            ("none", None),
            ("qemu", None),
            ("", None),
            ("-1", None),
            ("4294967295", None),
            ("x", None),
        ] {
            assert_eq!(group_in(groups, wanted), want, "{wanted}");
        }
        assert_eq!(group_id("31415").ok(), Some(31415));
        let error = group_id("no such group").expect_err("there is none");
        assert_eq!(error.kind, crate::error::Kind::Usage);
        assert!(error.to_string().contains("'no such group' in /etc/group"), "{error}");
    }
}
