//! Limits for all clients of one or several servers together: memory, descriptors, CPU time.
//!
//! The limits of a single client are in the modules that enforce them. These are the limits of a
//! process, because its memory and its descriptors are shared by all of its servers.
//!
//! Invariant: each part of a budget that is in use is held by a [`Lease`], and dropping the lease
//! returns it. A lease is taken before the cost arises.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

pub(super) use self::pool::{Lease, Pool};

mod pool;

/// The most clients of all servers that share a budget, if there are enough descriptors.
pub(super) const MAX_CLIENTS_IN_ALL: usize = 1024;
/// The most requests of more than [`LONG_REQUEST_BYTES`] that are received at a time.
pub(super) const MAX_LONG_REQUESTS: usize = 16;
/// The bytes from which a request that is still being received counts as long.
pub(super) const LONG_REQUEST_BYTES: usize = 64 << 10;
/// The most requests of more than [`LARGE_TEXT_BYTES`] that are read and answered at a time. Each
/// needs memory for all of its values, and a CPU for some ms.
pub(super) const MAX_LARGE_TEXTS: usize = 1;
/// The bytes from which a complete request waits until no other such request is being answered.
pub(super) const LARGE_TEXT_BYTES: usize = 16 << 10;
/// The most bytes of replies that are being written or unsent, beyond those that each client may
/// have.
pub(super) const MAX_REPLY_BYTES_IN_ALL: usize = 64 << 20;
/// The most bytes of prepared queries.
pub(super) const MAX_QUERY_BYTES_IN_ALL: usize = 64 << 20;
/// The most bytes of the queues of subscriptions.
pub(super) const MAX_STREAM_BYTES_IN_ALL: usize = 128 << 20;
/// The most subscriptions of all servers that share a budget. Each has two threads.
pub(super) const MAX_SUBSCRIPTIONS_IN_ALL: usize = 128;
/// The most sources that queries and subscriptions have open, if there are enough descriptors.
pub(super) const MAX_SOURCES_IN_ALL: usize = 4096;
/// The samples per second that keep a CPU busy. A sample takes some 20 µs, most of them for the
/// wake-up. A faster stream counts as one of this rate, because it cannot use more than one CPU.
pub(super) const BUSY_HZ: usize = 50_000;
/// The process's limit of descriptors, divided by this number, is the most sources. A source has up
/// to 2 descriptors, so sources get up to a quarter of the limit, and clients another quarter.
const DESCRIPTORS_PER_SOURCE: u64 = 8;
const DESCRIPTORS_PER_CLIENT: u64 = 4;
/// The descriptors that are left for new clients and virtual machines: while the process has fewer,
/// queries are not kept open.
const RESERVED_DESCRIPTORS: u64 = 64;

/// The limits that servers share. Clones are the same budget.
///
/// ```
/// use vmstrobe_core::Registry;
/// use vmstrobe_server::qmp::{Config, Server};
///
/// # let dir = std::env::temp_dir().join(format!("vmstrobe-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir).expect("a temporary directory");
/// let config = Config::default(); // has a budget of its own,
/// let [a, b] = ["a.sock", "b.sock"].map(|name| dir.join(name));
/// let a = Server::listen(&a, Registry::default(), config.clone())?; // which these two share
/// let b = Server::listen(&b, Registry::default(), config)?;
/// # drop((a, b));
/// # std::fs::remove_dir(&dir).expect("their sockets are gone");
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Budget(Arc<Pools>);

#[derive(Debug)]
pub(super) struct Pools {
    pub(super) clients: Pool,
    pub(super) long_requests: Pool,
    pub(super) large_texts: Pool,
    pub(super) reply_bytes: Pool,
    pub(super) query_bytes: Pool,
    pub(super) stream_bytes: Pool,
    pub(super) subscriptions: Pool,
    pub(super) sources: Pool,
    /// The samples per second of all subscriptions.
    pub(super) rates_hz: Pool,
}

impl Budget {
    /// Makes a budget for the servers of this process, from the CPUs and descriptors that it may
    /// use now.
    pub fn new() -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self::of(getrlimit(Resource::Nofile).current, cpus)
    }

    /// Makes a budget. `descriptors` is the process's limit, `None` if it has none.
    pub(super) fn of(descriptors: Option<u64>, cpus: usize) -> Self {
        let share = |each: u64, max: usize| {
            let share = descriptors.map_or(u64::MAX, |limit| limit / each);
            usize::try_from(share).unwrap_or(max).clamp(1, max)
        };
        Self(Arc::new(Pools {
            clients: Pool::new(share(DESCRIPTORS_PER_CLIENT, MAX_CLIENTS_IN_ALL)),
            long_requests: Pool::new(MAX_LONG_REQUESTS),
            large_texts: Pool::new(MAX_LARGE_TEXTS),
            reply_bytes: Pool::new(MAX_REPLY_BYTES_IN_ALL),
            query_bytes: Pool::new(MAX_QUERY_BYTES_IN_ALL),
            stream_bytes: Pool::new(MAX_STREAM_BYTES_IN_ALL),
            subscriptions: Pool::new(MAX_SUBSCRIPTIONS_IN_ALL),
            sources: Pool::new(share(DESCRIPTORS_PER_SOURCE, MAX_SOURCES_IN_ALL)),
            rates_hz: Pool::new(BUSY_HZ * (cpus / 2).max(1)),
        }))
    }

    pub(super) fn pools(&self) -> &Pools {
        &self.0
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

/// The time that a client's thread waits for a part of the budget that others hold, before the
/// client gets an error.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Returns whether the process has enough descriptors left to keep queries open. Before Linux 6.2
/// the kernel does not tell, and the pool of sources is the only limit.
pub(super) fn has_spare_descriptors() -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return true };
    // Since Linux 6.2 the size of this directory is the number of descriptors; before, it is 0.
    let open = std::fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
    open + RESERVED_DESCRIPTORS <= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_shared_out() {
        let shares = |descriptors| {
            let budget = Budget::of(descriptors, 8);
            let pools = budget.pools();
            (pools.clients.max(), pools.sources.max())
        };
        assert_eq!(shares(Some(1024)), (256, 128));
        assert_eq!(shares(Some(256)), (64, 32));
        assert_eq!(shares(Some(0)), (1, 1));
        assert_eq!(shares(Some(1 << 20)), (MAX_CLIENTS_IN_ALL, MAX_SOURCES_IN_ALL));
        assert_eq!(shares(None), (MAX_CLIENTS_IN_ALL, MAX_SOURCES_IN_ALL));
    }

    #[test]
    fn streams_get_half_of_the_cpus() {
        let hz = |cpus| Budget::of(None, cpus).pools().rates_hz.max();
        assert_eq!([1, 2, 3, 8].map(hz), [1, 1, 1, 4].map(|cpus| cpus * BUSY_HZ));
    }

    #[test]
    fn clones_are_one_budget() {
        let (budget, other) = (Budget::new(), Budget::new());
        let all = budget.pools().clients.max();
        let _all = budget.pools().clients.take(all).expect("a new budget has all its units");
        assert!(budget.clone().pools().clients.take(1).is_none());
        assert!(other.pools().clients.take(1).is_some());
    }

    #[test]
    fn this_process_has_descriptors_to_spare() {
        assert!(has_spare_descriptors());
    }
}
