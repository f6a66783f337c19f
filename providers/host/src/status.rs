//! The status of a process in `/proc/<pid>/status`: its users, groups, capabilities and state.
//!
//! The file is open to everyone, and reading it waits for no process: the kernel prints it from
//! memory of its own (other files, such as `stat`, can wait for a process in `execve`).
//!
//! Invariant: a file that lacks one of the numbers, or has something else there, gives no
//! [`Status`].

use std::fs;

use rustix::thread::CapabilitySet;

/// The four ids of a process, of its users or of its groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) real: u32,
    pub(crate) effective: u32,
    pub(crate) saved: u32,
    pub(crate) filesystem: u32,
}

impl Ids {
    /// Whether the process is of that id and of no other.
    pub(crate) fn are_all(self, id: u32) -> bool {
        [self.real, self.effective, self.saved] == [id; 3]
    }
}

/// One process or thread, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// One letter: `R`, `S`, `T` (stopped), `t` (traced), `Z` and others.
    pub state: char,
    pub(crate) users: Ids,
    pub(crate) groups: Ids,
    /// The supplementary groups.
    pub(crate) more_groups: Vec<u32>,
    pub(crate) permitted: CapabilitySet,
    pub(crate) effective: CapabilitySet,
    /// Whether a filter refuses some system calls.
    pub(crate) has_seccomp: bool,
}

impl Status {
    /// Reads the status of a process; `None` if it has ended or cannot be seen.
    pub fn of(pid: u32) -> Option<Self> {
        Self::read(&format!("/proc/{pid}/status"))
    }

    /// Reads the status of this thread, whose capabilities may be fewer than the process's.
    pub fn own() -> Option<Self> {
        Self::read("/proc/thread-self/status")
    }

    fn read(path: &str) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(path).ok()?))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        let capabilities = |name: &str| {
            let bits = u64::from_str_radix(field(name)?, 16).ok()?;
            Some(CapabilitySet::from_bits_retain(bits))
        };
        let groups = field("Groups").unwrap_or_default().split_ascii_whitespace();
        Some(Self {
            state: field("State")?.chars().next()?,
            users: ids(field("Uid")?)?,
            groups: ids(field("Gid")?)?,
            more_groups: groups.filter_map(|group| group.parse().ok()).collect(),
            permitted: capabilities("CapPrm")?,
            effective: capabilities("CapEff")?,
            // A kernel without seccomp has no such line; 1 is the strict mode, 2 a filter.
            has_seccomp: field("Seccomp").is_some_and(|mode| mode != "0"),
        })
    }

    /// Whether files of that group are its group's.
    pub(crate) fn is_in_group(&self, group: u32) -> bool {
        self.groups.filesystem == group || self.more_groups.contains(&group)
    }
}

/// The four numbers of `Uid:` or `Gid:`: real, effective, saved and of the file system.
fn ids(text: &str) -> Option<Ids> {
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
    let mut next = || numbers.next()?;
    Some(Ids { real: next()?, effective: next()?, saved: next()?, filesystem: next()? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A process of user and group 7 that has nothing special.
    pub(crate) fn plain() -> Status {
        let seven = Ids { real: 7, effective: 7, saved: 7, filesystem: 7 };
        Status {
            state: 'S',
            users: seven,
            groups: seven,
            more_groups: Vec::new(),
            permitted: CapabilitySet::empty(),
            effective: CapabilitySet::empty(),
            has_seccomp: false,
        }
    }

    const TEXT: &str = "Name:\tUid: 0\nUmask:\t0022\nState:\tT (stopped)\nUid:\t1000\t1\t2\t3\n\
                        Gid:\t7\t7\t7\t8\nGroups:\t4 24 \nCapInh:\t0000000000000000\n\
                        CapPrm:\t0000000000080004\nCapEff:\t0000000000080000\n\
                        CapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t2\n";

    #[test]
    fn each_field_is_read_by_its_name() {
        let status = Status::parse(TEXT).unwrap();
        let users = Ids { real: 1000, effective: 1, saved: 2, filesystem: 3 };
        assert_eq!((status.state, status.users), ('T', users));
        assert_eq!((status.groups.filesystem, &status.more_groups[..]), (8, &[4, 24][..]));
        assert!([8, 24].iter().all(|group| status.is_in_group(*group)) && !status.is_in_group(7));
        assert_eq!(status.effective, CapabilitySet::SYS_PTRACE);
        assert_eq!(status.permitted, CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH);
        assert!(status.has_seccomp);
        assert!(!Status::parse(&TEXT.replace("Seccomp:\t2\n", "")).unwrap().has_seccomp);
    }

    #[test]
    fn what_is_not_whole_is_none() {
        for name in ["State", "Uid", "Gid", "CapPrm", "CapEff"] {
            let gone = TEXT.replace(&format!("{name}:"), "Other:");
            assert_eq!(Status::parse(&gone), None, "{name}");
        }
        for (from, to) in [("\t1000\t1\t2\t3", "\t1000\t1\t2"), ("1000", "x"), ("80004", "xyz")] {
            assert_eq!(Status::parse(&TEXT.replace(from, to)), None, "{to}");
        }
        assert_eq!(Status::of(u32::MAX), None);
    }

    #[test]
    fn ones_own_is_as_the_system_says() {
        let own = Status::own().unwrap();
        assert_eq!(own.users.real, rustix::process::getuid().as_raw());
        assert_eq!(own.groups.effective, rustix::process::getegid().as_raw());
        let capabilities = rustix::thread::capabilities(None).unwrap();
        assert_eq!(own.effective, capabilities.effective);
        assert_eq!(Status::of(std::process::id()).map(|status| status.users), Some(own.users));
    }
}
