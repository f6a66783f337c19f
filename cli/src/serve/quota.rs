//! How many sockets there are, how many of them each user may have, and whose turn is next.
//!
//! Invariant: pure decisions, made before a virtual machine is opened. A user who is not trusted
//! cannot keep another user from being served: neither by many virtual machines nor, up to half of
//! all sockets, by many user ids.

use std::collections::HashMap;
use std::fmt;

use super::accounts::TrustedUsers;
use vmstrobe::Vmm;

/// The most sockets at a time: each takes a few threads and descriptors, and anyone who may use
/// /dev/kvm can start virtual machines.
pub(super) const MAX_SOCKETS: usize = 256;
/// The most of one stranger: a user who is not trusted.
pub(super) const MAX_SOCKETS_OF_UNTRUSTED_USER: usize = MAX_SOCKETS / 4;
/// The most of all strangers together: a person can have many user ids (subuid(5)).
pub(super) const MAX_SOCKETS_OF_UNTRUSTED: usize = MAX_SOCKETS / 2;

/// Why there is no socket for another virtual machine now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LimitReached {
    /// [`MAX_SOCKETS`].
    All,
    /// [`MAX_SOCKETS_OF_STRANGERS`].
    Untrusted,
    /// [`MAX_SOCKETS_OF_A_STRANGER`], of this user.
    User(u32),
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "there are {MAX_SOCKETS} sockets already, and no more are made"),
            Self::Untrusted => write!(
                f,
                "users who are not trusted have {MAX_SOCKETS_OF_UNTRUSTED} sockets already, the \
                 most for all of them (see --vm-user)"
            ),
            Self::User(uid) => write!(
                f,
                "user {uid} has {MAX_SOCKETS_OF_UNTRUSTED_USER} sockets already, the most for a user \
                 who is not trusted (see --vm-user)"
            ),
        }
    }
}

/// Divides the sockets among users.
#[derive(Debug)]
pub(super) struct Quota {
    trusted: TrustedUsers,
}

impl Quota {
    /// Trusted users share all sockets.
    pub(super) fn new(trusted: TrustedUsers) -> Self {
        Self { trusted }
    }

    /// The user, if it is a stranger.
    pub(super) fn untrusted(&self, uid: u32) -> Option<u32> {
        (!self.trusted.has(uid)).then_some(uid)
    }

    /// Is there a socket left for a virtual machine of this user? `open` has the users of the
    /// sockets that there are. Without a user it was named on the command line.
    ///
    /// # Errors
    /// Why not.
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

    /// The order in which those that came are opened: those of trusted users, then one of each
    /// stranger in turn; of each user in the order in which they came.
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
        // Stable: what is equal stays in its order.
        turns.sort_by_key(|(turn, _)| *turn);
        turns.into_iter().map(|(_, vmm)| vmm).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Users who are trusted nowhere that tests run.
    const ANN: u32 = 4_000_000_001;
    const BOB: u32 = 4_000_000_002;

    fn quota() -> Quota {
        Quota::new(TrustedUsers::new(&[], 0).expect("nobody is named"))
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
        // Many user ids are no way around.
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
    fn trusted_users_come_first_and_strangers_in_turn() {
        let vmm = |(pid, uid)| Vmm { pid, start_time_ticks: 1, uid };
        let came = [(9, ANN), (8, ANN), (7, ANN), (3, BOB), (2, 0), (6, ANN), (1, 0), (4, BOB)];
        let order = quota().opening_order(came.map(vmm).to_vec());
        let pids: Vec<u32> = order.iter().map(|vmm| vmm.pid).collect();
        assert_eq!(pids, [2, 1, 9, 3, 8, 4, 7, 6]);
    }

    #[test]
    fn why_there_is_none_says_whose_limit_it_is() {
        let texts = [LimitReached::All, LimitReached::Untrusted, LimitReached::User(1000)]
            .map(|full| full.to_string());
        assert!(texts[0].starts_with("there are 256 sockets already"), "{texts:?}");
        assert!(texts[1].contains("have 128 sockets already"), "{texts:?}");
        assert!(texts[2].starts_with("user 1000 has 64 sockets already"), "{texts:?}");
    }
}
