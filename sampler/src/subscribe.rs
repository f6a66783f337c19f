//! Every snapshot, for readers that must not miss one: bounded queues, one for each subscriber.
//!
//! The tick pushes and goes on; it wakes no thread, because that costs a system call. A subscriber
//! takes samples from its queue when it likes: one that does so every few ms receives every sample
//! of a 10 kHz sampler. A sample that does not fit into the queue is lost to it, and counted.
//!
//! Invariant: each queue has one producer (the tick) and one consumer. A sample is received, or
//! counted as lost, or still in the queue. The ring has one place more than is ever filled, so that
//! the producer never needs the place from which the consumer is just taking: there it would spin
//! until the consumer is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use vmstrobe_core::Snapshot;

/// The most samples of a queue: a minute at 1 kHz, or six seconds at 10 kHz.
pub const MAX_QUEUE_SAMPLES: usize = 65_536;

/// The sleep of a waiting subscriber between two tries.
const TRY_PAUSE: Duration = Duration::from_micros(500);

#[derive(Debug)]
struct Queue {
    ring: ArrayQueue<Arc<Snapshot>>,
    lost: AtomicU64,
    /// Set when the subscriber is dropped.
    left: AtomicBool,
    /// Set when the sampler ends.
    ended: AtomicBool,
}

/// The receiving end of a queue: it receives every sample since it subscribed, oldest first.
#[derive(Debug)]
pub struct Subscriber {
    queue: Arc<Queue>,
}

/// The tick's end of one queue.
#[derive(Debug)]
pub(crate) struct Outlet {
    queue: Arc<Queue>,
}

/// Returns both ends of a queue for at most `samples` snapshots.
pub(crate) fn queue(samples: usize) -> (Outlet, Subscriber) {
    let queue = Arc::new(Queue {
        ring: ArrayQueue::new(samples.clamp(1, MAX_QUEUE_SAMPLES) + 1),
        lost: AtomicU64::new(0),
        left: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    });
    (Outlet { queue: Arc::clone(&queue) }, Subscriber { queue })
}

impl Outlet {
    /// Pushes a sample. Returns false if there was no room: then the subscriber has lost it.
    #[inline]
    pub(crate) fn push(&self, snapshot: &Arc<Snapshot>) -> bool {
        let ring = &self.queue.ring;
        if ring.len() < self.depth() && ring.push(Arc::clone(snapshot)).is_ok() {
            return true;
        }
        // Relaxed: it is a count, and orders nothing else.
        self.queue.lost.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Returns the most samples that the queue can hold.
    pub(crate) fn depth(&self) -> usize {
        self.queue.ring.capacity() - 1
    }

    /// Returns true once the subscriber has been dropped.
    pub(crate) fn has_left(&self) -> bool {
        // Relaxed: it orders nothing else, and one more push does no harm.
        self.queue.left.load(Ordering::Relaxed)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `has_ended`: a thread that sees the end sees every
        // push.
        self.queue.ended.store(true, Ordering::Release);
    }
}

impl Subscriber {
    /// Returns the oldest sample not yet received, if there is one.
    pub fn try_recv(&self) -> Option<Arc<Snapshot>> {
        self.queue.ring.pop()
    }

    /// Returns the oldest sample not yet received. If there is none, it tries again every half ms;
    /// `None` if none came in time, or the sampler has ended and the queue is empty.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Arc<Snapshot>> {
        let deadline = Instant::now() + timeout;
        loop {
            let ended = self.has_ended();
            if let Some(snapshot) = self.try_recv() {
                return Some(snapshot);
            }
            let now = Instant::now();
            if ended || now >= deadline {
                return None;
            }
            std::thread::sleep(TRY_PAUSE.min(deadline - now));
        }
    }

    /// Returns true once the sampler has ended. The samples in the queue can still be received.
    pub fn has_ended(&self) -> bool {
        self.queue.ended.load(Ordering::Acquire)
    }

    /// Returns the number of samples that found no room since it subscribed.
    pub fn lost_samples(&self) -> u64 {
        self.queue.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.queue.left.store(true, Ordering::Relaxed);
        // The samples that were not received go back to the sampler's pool at once.
        while self.queue.ring.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstrobe_core::Layout;

    fn snapshot(tick: u64) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::new(&Layout::new(0, Vec::new()));
        snapshot.begin(tick);
        Arc::new(snapshot)
    }

    #[test]
    fn a_sample_that_does_not_fit_is_counted() {
        let (outlet, subscriber) = queue(3);
        let pushed: Vec<bool> = (1..=5).map(|tick| outlet.push(&snapshot(tick))).collect();
        assert_eq!(pushed, [true, true, true, false, false]);
        assert_eq!(subscriber.lost_samples(), 2);
        assert_eq!(subscriber.try_recv().map(|s| s.tick()), Some(1));
        assert!(outlet.push(&snapshot(6)));
        let rest: Vec<u64> =
            std::iter::from_fn(|| subscriber.try_recv()).map(|s| s.tick()).collect();
        assert_eq!(rest, [2, 3, 6]);
    }

    #[test]
    fn the_end_is_seen_after_the_last_sample() {
        let (outlet, subscriber) = queue(3);
        outlet.push(&snapshot(1));
        drop(outlet);
        assert!(subscriber.has_ended());
        assert!(subscriber.recv_timeout(Duration::from_secs(60)).is_some());
        assert!(subscriber.recv_timeout(Duration::from_secs(60)).is_none());
    }

    #[test]
    fn a_dropped_subscriber_gives_back_its_samples() {
        let (outlet, subscriber) = queue(3);
        let sample = snapshot(1);
        outlet.push(&sample);
        assert_eq!(Arc::strong_count(&sample), 2);
        drop(subscriber);
        assert!(outlet.has_left());
        assert_eq!(Arc::strong_count(&sample), 1);
    }

    /// Pushes a million samples to a slow consumer: each that it receives is a new one, and those
    /// received and lost are all.
    #[test]
    fn received_and_lost_are_all_there_were() {
        const TICKS: u64 = 1_000_000;
        let (outlet, subscriber) = queue(16);
        let samples: Vec<Arc<Snapshot>> = (0..64).map(snapshot).collect();
        let consumer = std::thread::spawn(move || {
            let (mut received, mut last) = (0_u64, None);
            loop {
                let ended = subscriber.has_ended();
                while let Some(sample) = subscriber.try_recv() {
                    received += 1;
                    // 64 samples go round, at most 16 are queued: the same one twice in a row
                    // would be a copy of a place that was not pushed again.
                    assert_ne!(last, Some(sample.tick()));
                    last = Some(sample.tick());
                    if received % 1000 == 0 {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
                if ended {
                    return (received, subscriber.lost_samples());
                }
                std::thread::yield_now();
            }
        });
        let mut pushed = 0;
        for tick in 0..TICKS {
            // Advance only what was pushed, so that a repeat is the queue's fault.
            pushed += u64::from(outlet.push(&samples[(pushed % 64) as usize]));
            if tick % 64 == 0 {
                std::thread::yield_now();
            }
        }
        drop(outlet);
        let (received, lost) = consumer.join().expect("the consumer does not panic");
        assert_eq!(received, pushed);
        assert_eq!(received + lost, TICKS);
    }
}
