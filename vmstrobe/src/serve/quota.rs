//! The limits of sockets, in total and for each user, and the order in which VMs get them.
//!
//! Invariant: pure decisions, made before a virtual machine is opened. A user who is not trusted
//! cannot prevent that another user is served: not by many virtual machines, and not by many user
//! ids, which together get at most half of all sockets.

use std::collections::HashMap;
use std::fmt;

use super::accounts::TrustedUsers;
use crate::vm_tracker::Vmm;

/// The largest number of sockets: each takes a few threads and descriptors, and every user of
/// /dev/kvm can start virtual machines.
pub const MAX_SOCKETS: usize = 256;
/// The largest number of sockets of one user who is not trusted.
pub const MAX_SOCKETS_OF_UNTRUSTED_USER: usize = MAX_SOCKETS / 4;
/// The largest number of sockets of all untrusted users together, because one person can have many
/// user ids (subuid(5)).
pub const MAX_SOCKETS_OF_UNTRUSTED: usize = MAX_SOCKETS / 2;

/// The limit that leaves no socket for another virtual machine now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LimitReached {
    /// [`MAX_SOCKETS`].
    All,
    /// [`MAX_SOCKETS_OF_UNTRUSTED`].
    Untrusted,
    /// [`MAX_SOCKETS_OF_UNTRUSTED_USER`], of this user.
    User(u32),
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "there are {MAX_SOCKETS} sockets already, which is the limit"),
            Self::Untrusted => write!(
                f,
                "users who are not trusted have {MAX_SOCKETS_OF_UNTRUSTED} sockets already, \
                 which is the limit for all of them together"
            ),
            Self::User(uid) => write!(
                f,
                "user {uid} has {MAX_SOCKETS_OF_UNTRUSTED_USER} sockets already, which is the \
                 limit for a user who is not trusted"
            ),
        }
    }
}

/// The division of the sockets among users.
#[derive(Debug)]
pub(super) struct Quota {
    trusted: TrustedUsers,
}

impl Quota {
    /// Creates the division; these users may have all sockets.
    pub(super) fn new(trusted: TrustedUsers) -> Self {
        Self { trusted }
    }

    /// Returns the user unless it is trusted.
    pub(super) fn untrusted(&self, uid: u32) -> Option<u32> {
        (!self.trusted.has(uid)).then_some(uid)
    }

    /// Checks that there is a socket for a virtual machine of this user, or for one that was named
    /// (`None`). `open` has the users of the existing sockets.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn check(&self, open: &[Option<u32>], uid: Option<u32>) -> Result<(), LimitReached> {
        if open.len() >= MAX_SOCKETS {
            return Err(LimitReached::All);
        }
        let Some(uid) = uid.and_then(|uid| self.untrusted(uid)) else { return Ok(()) };
        let of_untrusted = || open.iter().flatten().filter(|uid| !self.trusted.has(**uid));
        if of_untrusted().filter(|one| **one == uid).count() >= MAX_SOCKETS_OF_UNTRUSTED_USER {
            return Err(LimitReached::User(uid));
        }
        if of_untrusted().count() >= MAX_SOCKETS_OF_UNTRUSTED {
            return Err(LimitReached::Untrusted);
        }
        Ok(())
    }

    /// Returns new VMs in the order in which they are opened: first those of trusted users, then
    /// one of each untrusted user in turn. The VMs of one user stay in their order.
    pub(super) fn opening_order(&self, came: Vec<Vmm>) -> Vec<Vmm> {
        let mut seen: HashMap<u32, usize> = HashMap::new();
        let mut turns: Vec<(usize, Vmm)> = came
            .into_iter()
            .map(|vmm| {
                let Some(uid) = self.untrusted(vmm.uid) else { return (0, vmm) };
                let turn = seen.entry(uid).or_default();
                *turn += 1;
                (*turn, vmm)
            })
            .collect();
        // The sort is stable, so VMs of one turn stay in their order.
        turns.sort_by_key(|(turn, _)| *turn);
        turns.into_iter().map(|(_, vmm)| vmm).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// User ids that are trusted on no host that runs this test.
    const ANN: u32 = 4_000_000_001;
    const BOB: u32 = 4_000_000_002;

    fn quota() -> Quota {
        Quota::new(TrustedUsers::new(&[], 0).expect("no user is named"))
    }

    #[test]
    fn one_user_leaves_room_for_others() {
        let quota = quota();
        let mut open = vec![Some(ANN); MAX_SOCKETS_OF_UNTRUSTED_USER - 1];
        assert_eq!(quota.check(&open, Some(ANN)), Ok(()));
        open.push(Some(ANN));
        assert_eq!(quota.check(&open, Some(ANN)), Err(LimitReached::User(ANN)));
        for uid in [Some(BOB), Some(0), None] {
            assert_eq!(quota.check(&open, uid), Ok(()), "{uid:?}");
        }
        // Many user ids do not evade the limit.
        open.extend((0..MAX_SOCKETS_OF_UNTRUSTED_USER as u32).map(|uid| Some(BOB + 1 + uid)));
        assert_eq!(quota.check(&open, Some(BOB)), Err(LimitReached::Untrusted));
        assert_eq!(quota.check(&open, Some(0)), Ok(()));
        assert_eq!((open.len(), MAX_SOCKETS), (MAX_SOCKETS_OF_UNTRUSTED, 256));
    }

    #[test]
    fn trusted_users_may_have_them_all() {
        let quota = quota();
        let mut open = vec![Some(0); MAX_SOCKETS - 1];
        assert_eq!(quota.check(&open, Some(0)), Ok(()));
        assert_eq!(quota.check(&open, Some(ANN)), Ok(()));
        open.push(None);
        for uid in [Some(0), Some(ANN), None] {
            assert_eq!(quota.check(&open, uid), Err(LimitReached::All));
        }
    }

    #[test]
    fn trusted_users_are_first_and_untrusted_ones_take_turns() {
        let vmm = |(pid, uid)| Vmm { pid, start_time_ticks: 1, uid };
        let came = [(9, ANN), (8, ANN), (7, ANN), (3, BOB), (2, 0), (6, ANN), (1, 0), (4, BOB)];
        let order = quota().opening_order(came.map(vmm).to_vec());
        let pids: Vec<u32> = order.iter().map(|vmm| vmm.pid).collect();
        assert_eq!(pids, [2, 1, 9, 3, 8, 4, 7, 6]);
    }

    #[test]
    fn the_text_names_the_limit_that_is_reached() {
        let texts = [LimitReached::All, LimitReached::Untrusted, LimitReached::User(1000)]
            .map(|full| full.to_string());
        assert!(texts[0].starts_with("there are 256 sockets already"), "{texts:?}");
        assert!(texts[1].contains("have 128 sockets already"), "{texts:?}");
        assert!(texts[2].starts_with("user 1000 has 64 sockets already"), "{texts:?}");
    }
}
