//! The number of descriptors of other processes that this one may hold: a limit for all of them
//! together, and a share for each.
//!
//! A VMM decides how many descriptors there are to be borrowed from it, so one VMM could take all
//! that this process has, and with them other VMMs, new ones, and clients that connect.
//!
//! Invariant: what is over is refused before it is borrowed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};
use vmstrobe_core::{Error, ErrorKind, Result};

/// Descriptors that are never borrowed, so that sockets, clients and programs find room: at least
/// so many...
const MIN_RESERVE_FDS: usize = 128;
/// ...and one of so many...
const RESERVED_ONE_OF: usize = 4;
/// ...or of so many where there are several processes, and with them sockets and clients.
const RESERVED_ONE_OF_IF_SHARED: usize = 2;
/// The share of one process, where there are several: one of so many.
const SHARES: usize = 4;
/// The most open files that are counted with, also if the system sets no limit.
const UNLIMITED_FDS: usize = 1 << 20;

/// A number of descriptors, counted; clones count together.
///
/// ```
/// let budget = vmstrobe_host::FdBudget::of_this_process();
/// assert!(vmstrobe_host::FdBudget::shared().share() < budget.share());
/// ```
#[derive(Clone, Debug)]
pub struct FdBudget {
    inner: Arc<Inner>,
    share: usize,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    held: AtomicUsize,
}

/// One descriptor's place; free again when it is dropped.
pub struct FdSeat {
    inner: Arc<Inner>,
}

impl FdBudget {
    /// Makes a budget of the open files that this process may have now (`RLIMIT_NOFILE`), less a
    /// reserve of a quarter. One process may take all of it.
    pub fn of_this_process() -> Self {
        Self::of(open_files(), RESERVED_ONE_OF)
    }

    /// Makes a budget of the open files that this process may have now, less a reserve of half. One
    /// process may take no more than a quarter of it.
    pub fn shared() -> Self {
        let all = Self::of(open_files(), RESERVED_ONE_OF_IF_SHARED);
        Self { share: all.share / SHARES, ..all }
    }

    fn of(open_files: usize, reserved_one_of: usize) -> Self {
        let open_files = open_files.min(UNLIMITED_FDS);
        let reserve = (open_files / reserved_one_of).max(MIN_RESERVE_FDS);
        let limit = open_files.saturating_sub(reserve);
        Self { inner: Arc::new(Inner { limit, held: AtomicUsize::new(0) }), share: limit }
    }

    /// Returns the number of descriptors of one process that may be held.
    pub fn share(&self) -> usize {
        self.share
    }

    /// Takes places for that many more descriptors of a process that has so many already.
    ///
    /// # Errors
    /// `TooLarge` if that is more than its share, or than there is.
    pub fn take(&self, pid: u32, has: usize, more: usize) -> Result<Vec<FdSeat>> {
        let over = |what: String| {
            let text = format!(
                "pid {pid} has {} descriptors to be borrowed, and {what}: raise the limit of open \
                 files (ulimit -Hn, LimitNOFILE=)",
                has + more
            );
            Error::new(ErrorKind::TooLarge, text)
        };
        if has + more > self.share {
            return Err(over(format!("the share of one process is {}", self.share)));
        }
        let Inner { limit, held } = &*self.inner;
        let room = |held: usize| Some(held + more).filter(|held| held <= limit);
        // Relaxed: it is a count, on whose strength nothing else is read.
        match held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(_) => Ok((0..more).map(|_| FdSeat { inner: Arc::clone(&self.inner) }).collect()),
            Err(held) => Err(over(format!("{held} of {limit} are in use"))),
        }
    }
}

fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(UNLIMITED_FDS, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

impl Default for FdBudget {
    fn default() -> Self {
        Self::of_this_process()
    }
}

impl Drop for FdSeat {
    fn drop(&mut self) {
        self.inner.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for FdSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FdSeat")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_never_borrowed() {
        for (open_files, limit) in [(1024, 768), (256, 128), (100, 0), (1 << 30, 3 << 18)] {
            assert_eq!(FdBudget::of(open_files, RESERVED_ONE_OF).share(), limit, "{open_files}");
        }
        assert_eq!(FdBudget::of(1024, RESERVED_ONE_OF_IF_SHARED).share(), 512);
        assert!(FdBudget::of_this_process().share() > FdBudget::shared().share());
    }

    #[test]
    fn one_process_gets_its_share_and_all_together_what_there_is() {
        let all = FdBudget::of(1024, RESERVED_ONE_OF);
        let each = FdBudget { share: all.share / SHARES, ..all.clone() };
        assert_eq!((all.share(), each.share()), (768, 192));
        let error = each.take(7, 100, 93).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let text = error.to_string();
        assert!(text.starts_with("pid 7 has 193 descriptors to be borrowed, and"), "{text}");
        assert!(text.contains("the share of one process is 192: raise"), "{text}");
        let mut seats: Vec<_> = (0..4).map(|pid| each.take(pid, 0, 192).unwrap()).collect();
        let text = each.take(9, 0, 1).unwrap_err().to_string();
        assert!(text.contains("768 of 768 are in use"), "{text}");
        seats.pop();
        assert_eq!(all.take(9, 0, 192).unwrap().len(), 192);
    }
}
