//! Limits what tables may take of the process that reads them: memory, address space, descriptors,
//! and work. There is one budget for all tables of a provider, and a share of it for each owner.
//!
//! Invariant: what is taken never exceeds a limit, neither an owner's nor that of all together;
//! whatever was claimed is given back when its [`Claim`] is dropped. Nothing here trusts a count
//! that a table gave: a claim that would overflow is refused.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vmstrobe_core::{Error, ErrorKind, Result};

/// The most tables of one process that are read: those of the lowest fds. One that never stands
/// still keeps a look waiting for 8 ms.
pub const MAX_PROCESS_TABLES: usize = 64;

/// The most bytes of names, paths, schemas and objects that are held of the tables of one process
/// or connection, as the table's own lengths give them. A look may need as much again until it is
/// done.
pub const MAX_OWNER_HELD_BYTES: u64 = 32 << 20;
/// The most bytes of names, paths, schemas and objects that are held of all tables of a
/// [`Tables`](super::Tables).
pub const MAX_TABLES_HELD_BYTES: u64 = 128 << 20;
/// The most bytes of tables of one process or connection that are mapped.
pub(crate) const MAX_OWNER_MAPPED_BYTES: u64 = 2 << 30;
/// The most bytes of all tables of a [`Tables`](super::Tables) that are mapped.
pub(crate) const MAX_TABLES_MAPPED_BYTES: u64 = 16 << 30;
/// The most bytes that open rows read of the tables of one process or connection at each tick:
/// from the first to the last statistic that is wanted, once for each shard.
pub const MAX_OWNER_READ_BYTES: u64 = 128 << 20;
/// The most bytes that open rows read of all tables of a [`Tables`](super::Tables) at each tick.
pub(crate) const MAX_TABLES_READ_BYTES: u64 = 512 << 20;
/// The most tables of a [`Tables`](super::Tables) of which a descriptor is kept.
pub(crate) const MAX_TABLES_FDS: u64 = 1024;
/// The most bytes of the directories of one process or connection that are read at once; after
/// that, a directory that has changed is looked at only as [`LOOK_BYTES_PER_S`] allows.
pub(crate) const MAX_LOOK_BYTES: u64 = 256 << 20;
/// The bytes a second that are read of directories that keep changing.
pub(crate) const LOOK_BYTES_PER_S: u64 = 16 << 20;

/// A resource of its reader that a table takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Bytes of memory.
    Held,
    /// Bytes of address space.
    Mapped,
    /// Bytes that are read at each tick.
    Read,
    /// Descriptors.
    Fds,
}

/// The budget of all tables of a provider together. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget(Arc<Taken>);

/// The share that the tables of one owner have of the budget. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share(Arc<Lent>);

/// A budget, and the shares of the lenders that are there.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    all: Budget,
    /// Each process's or peer's, by the flag that says whether it is alive.
    lenders: Vec<(Arc<AtomicBool>, Share)>,
}

/// A part of a share, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    share: Share,
    cost: Cost,
    count: u64,
}

#[derive(Debug, Default)]
struct Taken([AtomicU64; 4]);

#[derive(Debug, Default)]
struct Lent {
    taken: Taken,
    all: Budget,
    work: Mutex<Work>,
}

/// The bytes that looks have read, less what [`LOOK_BYTES_PER_S`] has allowed for since.
#[derive(Debug, Default)]
struct Work {
    bytes: u64,
    since: Option<Instant>,
}

impl Cost {
    /// Returns the resource in words, and its limits: for an owner and for all.
    fn limits(self) -> (&'static str, u64, u64) {
        match self {
            Self::Held => {
                ("bytes of names, paths and objects", MAX_OWNER_HELD_BYTES, MAX_TABLES_HELD_BYTES)
            }
            Self::Mapped => ("bytes to map", MAX_OWNER_MAPPED_BYTES, MAX_TABLES_MAPPED_BYTES),
            Self::Read => {
                ("bytes to read at each tick", MAX_OWNER_READ_BYTES, MAX_TABLES_READ_BYTES)
            }
            Self::Fds => ("descriptors to keep", MAX_PROCESS_TABLES as u64, MAX_TABLES_FDS),
        }
    }
}

impl Taken {
    /// Takes so many if that leaves no more than `max` taken.
    fn take(&self, cost: Cost, count: u64, max: u64) -> bool {
        let with = |taken: u64| taken.checked_add(count).filter(|taken| *taken <= max);
        // Relaxed: a number, and nothing that it stands for.
        self.0[cost as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }

    fn give_back(&self, cost: Cost, count: u64) {
        self.0[cost as usize].fetch_sub(count, Ordering::Relaxed);
    }
}

impl Budget {
    /// A share of it for one more owner.
    pub(crate) fn share(&self) -> Share {
        Share(Arc::new(Lent { all: self.clone(), ..Lent::default() }))
    }
}

impl Shares {
    /// The share of the owner with that flag; without one, a share of its own.
    pub(crate) fn of(&mut self, owner: Option<&Arc<AtomicBool>>) -> Share {
        let Some(alive) = owner else { return self.all.share() };
        // A flag that nobody else holds is of an owner that has ended, or has nothing here.
        self.lenders.retain(|(alive, _)| Arc::strong_count(alive) > 1);
        let known = self.lenders.iter().find(|(other, _)| Arc::ptr_eq(other, alive));
        if let Some((_, share)) = known {
            return share.clone();
        }
        let share = self.all.share();
        self.lenders.push((Arc::clone(alive), share.clone()));
        share
    }
}

impl Share {
    /// Claims a part of it.
    ///
    /// # Errors
    /// `TooLarge` if that would be over a limit, which the text names.
    pub(crate) fn claim(&self, cost: Cost, count: u64) -> Result<Claim> {
        let mut claim = Claim { share: self.clone(), cost, count: 0 };
        claim.resize(count)?;
        Ok(claim)
    }

    /// Notes so many bytes that a look has read, or that took as long.
    pub(crate) fn worked(&self, bytes: u64) {
        let mut work = self.0.work.lock().unwrap_or_else(PoisonError::into_inner);
        // No look is worth a longer wait than this.
        work.bytes = work.bytes.saturating_add(bytes).min(2 * MAX_LOOK_BYTES);
    }

    /// Whether a directory that has changed may be looked at now.
    pub(crate) fn may_look(&self, now: Instant) -> bool {
        let mut work = self.0.work.lock().unwrap_or_else(PoisonError::into_inner);
        let since = work.since.replace(now).map_or(Duration::ZERO, |since| now - since);
        let worked_off = since.as_secs_f64() * LOOK_BYTES_PER_S as f64;
        work.bytes = work.bytes.saturating_sub(worked_off as u64);
        work.bytes < MAX_LOOK_BYTES
    }
}

impl Claim {
    /// Returns the amount claimed.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Makes it larger or smaller.
    ///
    /// # Errors
    /// As [`Share::claim`]; then it is as large as before.
    pub(crate) fn resize(&mut self, count: u64) -> Result<()> {
        let Lent { taken, all, .. } = &*self.share.0;
        let (what, lender_max, all_max) = self.cost.limits();
        if let Some(less) = self.count.checked_sub(count) {
            taken.give_back(self.cost, less);
            all.0.give_back(self.cost, less);
        } else {
            let more = count - self.count;
            if !taken.take(self.cost, more, lender_max) {
                return Err(Self::over(
                    "all tables of its process or connection",
                    what,
                    lender_max,
                    "it must publish fewer objects, or smaller ones",
                ));
            }
            if !all.0.take(self.cost, more, all_max) {
                taken.give_back(self.cost, more);
                let advice = "read fewer programs at once";
                return Err(Self::over("all tables that are read here", what, all_max, advice));
            }
        }
        self.count = count;
        Ok(())
    }

    fn over(whose: &str, what: &str, max: u64, advice: &str) -> Error {
        let text = format!("{whose} need too many {what}; the limit is {max}: {advice}");
        Error::new(ErrorKind::TooLarge, text)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.resize(0).expect("a claim can always become smaller");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: [Cost; 4] = [Cost::Held, Cost::Mapped, Cost::Read, Cost::Fds];

    #[test]
    fn a_lender_gets_its_share_and_no_more() {
        for cost in COSTS {
            let (budget, (_, lender_max, _)) = (Budget::default(), cost.limits());
            let (share, other) = (budget.share(), budget.share());
            let mut claim = share.claim(cost, lender_max).unwrap();
            for more in [1, u64::MAX - lender_max, u64::MAX] {
                let error = share.claim(cost, more).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TooLarge);
                assert!(error.to_string().contains(&lender_max.to_string()), "{error}");
            }
            // Another's is untouched, and so is that of another cost.
            assert!(other.claim(cost, lender_max).is_ok());
            assert!(COSTS.iter().all(|&any| any == cost || share.claim(any, 1).is_ok()));
            assert!(claim.resize(lender_max + 1).is_err());
            assert_eq!(claim.count(), lender_max);
            claim.resize(lender_max - 1).unwrap();
            let one = share.claim(cost, 1).unwrap();
            drop((claim, one));
            assert!(share.claim(cost, lender_max).is_ok());
        }
    }

    #[test]
    fn all_together_get_no_more_than_the_budget() {
        for cost in COSTS {
            let (budget, (_, lender_max, all_max)) = (Budget::default(), cost.limits());
            let lenders = all_max / lender_max;
            let claim = |_| budget.share().claim(cost, lender_max).unwrap();
            let mut claims: Vec<Claim> = (0..lenders).map(claim).collect();
            let last = budget.share();
            let error = last.claim(cost, 1).unwrap_err();
            assert!(error.to_string().contains(&all_max.to_string()), "{error}");
            claims.pop();
            // The refused claim has taken nothing of the share either.
            assert!(last.claim(cost, lender_max).is_ok());
        }
    }

    #[test]
    fn a_lender_has_one_share_and_others_have_their_own() {
        let (mut shares, [one, two]) = (Shares::default(), [true; 2].map(AtomicBool::new));
        let (one, two) = (Arc::new(one), Arc::new(two));
        let claim = shares.of(Some(&one)).claim(Cost::Fds, MAX_PROCESS_TABLES as u64).unwrap();
        assert!(shares.of(Some(&one)).claim(Cost::Fds, 1).is_err());
        assert!(shares.of(Some(&two)).claim(Cost::Fds, 1).is_ok());
        assert!(shares.of(None).claim(Cost::Fds, 1).is_ok());
        drop((claim, one, two));
        shares.of(Some(&Arc::new(AtomicBool::new(true))));
        assert_eq!(shares.lenders.len(), 1);
    }

    #[test]
    fn looks_are_paid_off_at_a_rate() {
        let (share, start) = (Share::default(), Instant::now());
        assert!(share.may_look(start));
        share.worked(MAX_LOOK_BYTES + LOOK_BYTES_PER_S);
        assert!(!share.may_look(start));
        assert!(!share.may_look(start + Duration::from_millis(900)));
        assert!(share.may_look(start + Duration::from_millis(1100)));
        // However much it was, the wait is bounded.
        share.worked(u64::MAX);
        assert!(!share.may_look(start + Duration::from_secs(15)));
        assert!(share.may_look(start + Duration::from_secs(60)));
    }
}
