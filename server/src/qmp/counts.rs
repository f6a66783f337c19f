//! The counts of what a server has done.
//!
//! Invariant: counting never waits. Each number is exact, but two numbers may be from slightly
//! different moments.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counts of a [`Server`](super::Server) since it began to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Clients that are connected now.
    pub clients: u64,
    /// Clients that were served, including those that are connected now.
    pub clients_served: u64,
    /// Clients that were refused, because the limit was reached or the system had no thread or
    /// descriptor left.
    pub clients_refused: u64,
    /// Clients that were disconnected because they did not read.
    pub clients_dropped: u64,
    /// Requests that were answered, also with an error. A text that is no JSON gets an error and
    /// counts.
    pub requests: u64,
    /// Objects that exist but were left out of replies because they could not be read.
    pub unread_rows: u64,
    /// Events that were written for clients.
    pub events: u64,
    /// Bytes that clients sent.
    pub bytes_received: u64,
    /// Bytes that were sent to clients. The kernel may hold some that they have not read.
    pub bytes_sent: u64,
}

/// Adds the counts of another server, for the sums of several.
impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self {
            clients,
            clients_served,
            clients_refused,
            clients_dropped,
            requests,
            unread_rows,
            events,
            bytes_received,
            bytes_sent,
        } = other;
        self.clients += clients;
        self.clients_served += clients_served;
        self.clients_refused += clients_refused;
        self.clients_dropped += clients_dropped;
        self.requests += requests;
        self.unread_rows += unread_rows;
        self.events += events;
        self.bytes_received += bytes_received;
        self.bytes_sent += bytes_sent;
    }
}

/// The counters behind [`Counts`], shared by all threads of a server.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) clients: Counter,
    pub(super) clients_served: Counter,
    pub(super) clients_refused: Counter,
    pub(super) clients_dropped: Counter,
    pub(super) requests: Counter,
    pub(super) unread_rows: Counter,
    pub(super) events: Counter,
    pub(super) bytes_received: Counter,
    pub(super) bytes_sent: Counter,
}

/// A number that any thread may change.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counters {
    /// Returns the present numbers.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            clients: self.clients.get(),
            clients_served: self.clients_served.get(),
            clients_refused: self.clients_refused.get(),
            clients_dropped: self.clients_dropped.get(),
            requests: self.requests.get(),
            unread_rows: self.unread_rows.get(),
            events: self.events.get(),
            bytes_received: self.bytes_received.get(),
            bytes_sent: self.bytes_sent.get(),
        }
    }
}

impl Counter {
    /// Adds to the number.
    pub(super) fn add(&self, more: u64) {
        // Relaxed, here and below, because no other data depends on a number.
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes back one that was counted before.
    pub(super) fn take_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_its_own() {
        let counters = Counters::default();
        assert_eq!(counters.counts(), Counts::default());
        counters.clients.add(2);
        counters.clients.take_one();
        counters.clients_served.add(2);
        counters.clients_refused.add(3);
        counters.clients_dropped.add(4);
        counters.requests.add(5);
        counters.events.add(6);
        counters.bytes_received.add(7);
        counters.bytes_sent.add(8);
        counters.unread_rows.add(9);
        let counts = Counts {
            clients: 1,
            clients_served: 2,
            clients_refused: 3,
            clients_dropped: 4,
            requests: 5,
            events: 6,
            bytes_received: 7,
            bytes_sent: 8,
            unread_rows: 9,
        };
        assert_eq!(counters.counts(), counts);
        let mut sums = Counts { requests: 10, ..Counts::default() };
        sums += counts;
        assert_eq!(sums, Counts { requests: 15, ..counts });
    }

    #[test]
    fn no_count_is_lost_between_threads() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| counters.requests.add(1)));
            }
        });
        assert_eq!(counters.counts().requests, 40_000);
    }
}
