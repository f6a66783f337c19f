//! Why we may not open a file, or not connect to a socket, at a path.
//!
//! Linux decides by the rights of the thread that asks: its user, its groups and its capabilities.
//! So the facts are gathered on that thread.
//!
//! Invariant: `said` is a pure function of the `Facts`.

use std::fs::{self, Metadata};
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use rustix::process::{getegid, geteuid, getgroups};
use rustix::thread::{CapabilitySet, capabilities};

use crate::broker::Broker;

/// A use of a path that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Reading the file.
    Read,
    /// Connecting to the socket, which takes the right to write to it.
    Connect,
}

/// The facts from which a refusal is explained.
#[derive(Clone, Debug)]
struct Facts {
    what: Use,
    /// The thing that is closed: `it`, or a directory on the way there.
    place: String,
    is_directory: bool,
    /// The owner, group and mode of that thing, or why they cannot be read.
    owner: Result<Owner, io::ErrorKind>,
    ours: Rights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    user: u32,
    group: u32,
    /// The permission bits.
    mode: u32,
}

/// The rights of the thread that was refused.
#[derive(Clone, Debug)]
struct Rights {
    user: u32,
    groups: Vec<u32>,
    effective: CapabilitySet,
}

/// Says what is the matter and what to do, without the subject, where the broker was refused.
pub fn reason(broker: &Broker, path: &Path, what: Use) -> String {
    let asked = path.to_owned();
    // Without a thread for it, this one has at least the same user.
    broker.run_apart(move || reason_here(&asked, what)).unwrap_or_else(|_| reason_here(path, what))
}

/// Says it where this thread was refused.
fn reason_here(path: &Path, what: Use) -> String {
    let closed = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    // From the root on: the first that does not let us through.
    let closed = closed.filter(|folder| fs::metadata(folder.join(".")).is_err()).last();
    let owner = fs::metadata(closed.unwrap_or(path));
    said(&Facts {
        what,
        place: closed.map_or("it".to_owned(), |at| format!("the directory {}", at.display())),
        is_directory: closed.is_some(),
        owner: owner.map(|meta| Owner::of(&meta)).map_err(|error| error.kind()),
        ours: Rights::of_this_thread(),
    })
}

impl Owner {
    fn of(meta: &Metadata) -> Self {
        Self { user: meta.st_uid(), group: meta.st_gid(), mode: meta.st_mode() & 0o7777 }
    }
}

impl Rights {
    fn of_this_thread() -> Self {
        let mut groups = getgroups().unwrap_or_default();
        groups.push(getegid());
        Self {
            user: geteuid().as_raw(),
            groups: groups.into_iter().map(|group| group.as_raw()).collect(),
            effective: capabilities(None).map_or(CapabilitySet::empty(), |has| has.effective),
        }
    }

    /// Returns the capability by which the mode does not matter, if the thread has it.
    fn overrides(&self, what: Use, is_directory: bool) -> Option<&'static str> {
        let may_search = is_directory || what == Use::Read;
        if self.effective.contains(CapabilitySet::DAC_OVERRIDE) {
            Some("CAP_DAC_OVERRIDE")
        } else if may_search && self.effective.contains(CapabilitySet::DAC_READ_SEARCH) {
            Some("CAP_DAC_READ_SEARCH")
        } else {
            None
        }
    }

    /// Whether the mode lets this thread do that.
    fn are_let_by(&self, owner: Owner, what: Use, is_directory: bool) -> bool {
        let needed = match (is_directory, what) {
            (true, _) => 0o1,
            (false, Use::Read) => 0o4,
            (false, Use::Connect) => 0o2,
        };
        // The kernel looks at the first that applies, even if a later one would allow more.
        let shift = match owner {
            Owner { user, .. } if user == self.user => 6,
            Owner { group, .. } if self.groups.contains(&group) => 3,
            _ => 0,
        };
        owner.mode >> shift & needed != 0
    }
}

fn said(facts: &Facts) -> String {
    let Facts { what, place, is_directory, owner, ours } = facts;
    let we = ours.user;
    if *owner == Err(io::ErrorKind::NotFound) {
        return format!(
            "{place} is not there any more, or cannot be looked at: run vmstrobe as root"
        );
    }
    if let Some(has) = ours.overrides(*what, *is_directory) {
        return format!(
            "vmstrobe has {has}, which opens {place} whatever its mode is, so that a security \
             module, the file system or a user namespace forbids it: see the audit log"
        );
    }
    let Ok(owner) = *owner else {
        return format!("{place} cannot be looked at: run vmstrobe as root");
    };
    let Owner { user, group, mode } = owner;
    let belongs = format!(
        "{place} belongs to user {user} and group {group}, with mode {mode:04o}, and vmstrobe runs \
         as user {we}"
    );
    if ours.are_let_by(owner, *what, *is_directory) {
        return format!(
            "{belongs}, which is let in by that mode, so that a security module or the file system \
             forbids it: see the audit log"
        );
    }
    let takes = match (is_directory, what) {
        (true, _) => "which does not let it through",
        (false, Use::Read) => "which may not read it",
        (false, Use::Connect) => "which may not write to it, as connecting takes",
    };
    let run = match we {
        0 => "give vmstrobe CAP_DAC_OVERRIDE".to_owned(),
        _ if user == 0 => "run vmstrobe as root".to_owned(),
        _ => format!("run vmstrobe as root or as user {user}"),
    };
    format!("{belongs}, {takes}: {run}, or let it in by chmod or chgrp")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    use rustix::thread::{CapabilitySets, set_capabilities};

    use super::*;

    const NONE: CapabilitySet = CapabilitySet::empty();

    fn facts(what: Use, user: u32, mode: u32, effective: CapabilitySet) -> Facts {
        let ours = Rights { user, groups: vec![8, 9], effective };
        let owner = Ok(Owner { user: 7, group: 9, mode });
        Facts { what, place: "it".to_owned(), is_directory: false, owner, ours }
    }

    #[test]
    fn the_mode_is_blamed_only_if_it_forbids_it() {
        for (user, what, mode, is_mode) in [
            (1, Use::Read, 0o600, true),
            (1, Use::Read, 0o640, false),
            (1, Use::Connect, 0o640, true),
            (1, Use::Connect, 0o620, false),
            // Its group is ours, and what others may does not count.
            (1, Use::Read, 0o604, true),
            (7, Use::Read, 0o077, true),
            (7, Use::Connect, 0o200, false),
            (0, Use::Connect, 0o600, true),
        ] {
            let text = said(&facts(what, user, mode, NONE));
            let begin = format!("it belongs to user 7 and group 9, with mode {mode:04o}, and ");
            assert!(text.starts_with(&begin), "{text}");
            assert_eq!(text.contains("chmod"), is_mode, "{user} {mode:o}: {text}");
            assert_eq!(text.contains("a security module or the file system"), !is_mode, "{text}");
        }
        let through = |mode| Facts { is_directory: true, ..facts(Use::Connect, 1, mode, NONE) };
        assert!(said(&through(0o760)).contains("which does not let it through: run vmstrobe as"));
        assert!(said(&through(0o710)).contains("a security module"));
    }

    #[test]
    fn a_capability_that_there_is_is_not_asked_for() {
        let (all, search) = (CapabilitySet::DAC_OVERRIDE, CapabilitySet::DAC_READ_SEARCH);
        for (what, has, is_mode) in [
            (Use::Read, all, false),
            (Use::Connect, all, false),
            (Use::Read, search, false),
            (Use::Connect, search, true),
            (Use::Connect, NONE, true),
        ] {
            let text = said(&facts(what, 0, 0o600, has));
            assert_eq!(text.contains("give vmstrobe CAP_DAC_OVERRIDE"), is_mode, "{text}");
            assert_eq!(text.contains("see the audit log"), !is_mode, "{text}");
        }
        // A file system that lets nobody else in, as FUSE does, does not even show its owner.
        let denied = Err(io::ErrorKind::PermissionDenied);
        let closed = |has| said(&Facts { owner: denied, ..facts(Use::Read, 0, 0, has) });
        assert!(closed(all).contains("the file system or a user namespace forbids it"));
        assert_eq!(closed(NONE), "it cannot be looked at: run vmstrobe as root");
    }

    #[test]
    fn the_rights_are_those_of_the_thread_that_asks() {
        let path = std::env::temp_dir().join(format!("vmstrobe-refused-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let (user, we) = (fs::metadata(&path).unwrap().st_uid(), geteuid().as_raw());
        let without = || {
            let none = CapabilitySets { effective: NONE, permitted: NONE, inheritable: NONE };
            set_capabilities(None, none).unwrap();
            reason_here(&path, Use::Connect)
        };
        let text = thread::scope(|scope| scope.spawn(without).join().unwrap());
        let begin = format!("it belongs to user {user} and group ");
        assert!(text.starts_with(&begin) && text.contains("may not write to it"), "{text}");
        assert!(text.contains(&format!("with mode 0000, and vmstrobe runs as user {we}, ")));
        if capabilities(None).unwrap().effective.contains(CapabilitySet::DAC_OVERRIDE) {
            let text = reason_here(&path, Use::Connect);
            assert!(text.starts_with("vmstrobe has CAP_DAC_OVERRIDE, which opens it "), "{text}");
        }
        fs::remove_file(&path).unwrap();
        let text = reason_here(&path, Use::Read);
        assert!(text.starts_with("it is not there any more, or cannot be looked at: "), "{text}");
    }
}
