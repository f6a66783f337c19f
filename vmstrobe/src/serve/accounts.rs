//! Users and groups by name or number, and the users whose virtual machines get plain names.
//!
//! Invariant: the name of a virtual machine, which its user chooses freely, is used as it is only
//! for users who could replace the sockets anyway, and for those whom the administrator trusts.

use std::fmt;
use std::fs;
use std::path::Path;

use rustix::process::geteuid;

use crate::error::{Error, Result};

/// The kind of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// A user, of `/etc/passwd`.
    User,
    /// A group, of `/etc/group`.
    Group,
}

impl Account {
    /// Returns the name of the file in `/etc` that has the accounts, which is also the name of
    /// getent(1) for them.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::User => "passwd",
            Self::Group => "group",
        }
    }

    fn text(self) -> String {
        text(Path::new("/etc").join(self.file_name()))
    }

    fn unknown(self, name: &str) -> Error {
        Error::UnknownAccount { account: self, name: name.to_owned() }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

/// The first user id of people; those below are the system's users (`UID_MIN` of login.defs(5)).
const FIRST_PERSON: u32 = 1000;
/// The users that QEMU runs as under libvirt. Their ids need not be below [`FIRST_PERSON`]: on
/// Debian it is 64055.
const VM_USERS: [&str; 2] = ["libvirt-qemu", "qemu"];
const ROOT: u32 = 0;

/// The users whose virtual machines get plain names (`web.sock`) and any free socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrustedUsers {
    uids: Vec<u32>,
    /// All user ids below this are trusted too.
    below: u32,
}

impl TrustedUsers {
    /// Returns root, this user, the owner of the directory, and the users that were named. If none
    /// was named, the system's users and [`VM_USERS`] are trusted instead.
    ///
    /// # Errors
    /// If a user that was named does not exist.
    pub(super) fn new(named: &[String], directory_owner: u32) -> Result<Self> {
        let users = Account::User.text();
        let mut uids = vec![ROOT, geteuid().as_raw(), directory_owner];
        if named.is_empty() {
            uids.extend(VM_USERS.iter().filter_map(|name| named_in(&users, name)));
            return Ok(Self { uids, below: FIRST_PERSON });
        }
        for name in named {
            uids.push(number_in(&users, name).ok_or_else(|| Account::User.unknown(name))?);
        }
        Ok(Self { uids, below: 0 })
    }

    /// Returns true if this user is trusted.
    pub(super) fn has(&self, uid: u32) -> bool {
        uid < self.below || self.uids.contains(&uid)
    }
}

/// Returns the id of a group, given by its name in `/etc/group` or as a number.
///
/// Groups and users that the host knows from another source, such as LDAP, must be given as
/// numbers: looking them up takes modules of the C library.
///
/// # Errors
/// If the group does not exist.
pub fn group_id(group: &str) -> Result<u32> {
    number_in(&Account::Group.text(), group).ok_or_else(|| Account::Group.unknown(group))
}

/// Returns the text of a file of accounts; an empty one if the file cannot be read.
fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Returns the id of a user or group. A name has precedence over a number.
fn number_in(accounts: &str, wanted: &str) -> Option<u32> {
    named_in(accounts, wanted).or_else(|| number(wanted))
}

/// Returns the id of a name in the text of passwd(5) or group(5): `name:password:number:...`.
fn named_in(accounts: &str, wanted: &str) -> Option<u32> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(wanted)).then_some(())?;
        number(fields.nth(1)?)
    })
}

/// Parses an id. The one with all bits set is refused: to chown(2) it means no change.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&number| number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_or_number() {
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
            assert_eq!(number_in(groups, wanted), want, "{wanted}");
        }
        assert_eq!(group_id("31415").ok(), Some(31415));
        let error = group_id("no such group").expect_err("the group does not exist");
        assert!(error.to_string().contains("no group 'no such group' in /etc/group"), "{error}");
    }

    #[test]
    fn system_users_are_trusted_unless_some_are_named() {
        let (own, owner) = (geteuid().as_raw(), 4711);
        let by_default = TrustedUsers::new(&[], owner).expect("no user is named");
        for uid in [0, own, owner, 107, FIRST_PERSON - 1] {
            assert!(by_default.has(uid), "{uid}");
        }
        let untrusted = [FIRST_PERSON, 65_534, 100_000];
        for uid in untrusted.into_iter().filter(|uid| *uid != own) {
            assert!(!by_default.has(uid), "{uid}");
        }
        let named =
            TrustedUsers::new(&["5000".to_owned()], owner).expect("a number needs no account");
        for (uid, has) in [(0, true), (own, true), (owner, true), (5000, true), (5001, false)] {
            assert_eq!(named.has(uid), has || uid == own, "{uid}");
        }
        assert!(!named.has(107) || own == 107, "only users that were named are trusted");
        let error = TrustedUsers::new(&["no such user".to_owned()], owner).expect_err("unknown");
        assert!(error.to_string().contains("'no such user' in /etc/passwd"), "{error}");
    }
}
