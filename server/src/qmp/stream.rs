//! Streaming, which QEMU lacks: the subscriptions of one connection.
//!
//! `stats-subscribe` takes a `StatsFilter`, a rate and a batch size. From then on events
//! `STATS_SAMPLES` bring every sample, a batch at a time, and `STATS_OBJECTS` what came or went.
//!
//! Invariant: a connection has at most [`MAX_SUBSCRIPTIONS`], a server
//! [`MAX_SERVER_SUBSCRIPTIONS`], each of bounded memory. When a connection goes, so do they and
//! their threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use vmstrobe_sampler::MAX_RATE_HZ;

use self::event::Subscribed;
use self::subscription::{Ask, Subscription};
use super::filter;
use super::members::Members;
use super::query::in_words;
use super::refusal::Refusal;
use super::session::Shared;
use super::value::Dict;

mod event;
mod subscription;

/// The most subscriptions of a connection: each has a thread that ticks and one that looks around.
pub(super) const MAX_SUBSCRIPTIONS: usize = 8;
/// The most subscriptions of all connections of a server.
pub(super) const MAX_SERVER_SUBSCRIPTIONS: usize = 32;
/// The most samples of an event.
pub(super) const MAX_BATCH_SAMPLES: i64 = 10_000;
/// A batch is as many samples as come in this time, if nobody says how many.
const BATCH_MS: i64 = 100;
/// The highest rate, in Hz.
const MAX_HZ: i64 = MAX_RATE_HZ as i64;

/// The subscriptions of one connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Vec<Subscription>,
    /// The last number given. Numbers are not given again.
    last: u64,
}

/// How many subscriptions a server can still have. Clones are one count.
#[derive(Clone, Debug)]
pub(super) struct StreamSeats(Arc<AtomicUsize>);

/// A subscription's place among those of the server; given back by dropping it.
#[derive(Debug)]
struct Seat(StreamSeats);

impl Streams {
    /// `stats-subscribe`: opens, takes the first sample, starts to tick. Appends the return value.
    ///
    /// # Errors
    /// What is wrong with the arguments, which limit is reached, or why nothing can be read.
    pub(super) fn subscribe(
        &mut self,
        shared: &Shared,
        arguments: &Dict<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let mut members = Members::of_arguments(arguments);
        let filter = filter::stats_filter(&mut members, &shared.inventory.census())?;
        let rate_hz =
            bounded(&mut members, "rate", "Hz", MAX_HZ)?.ok_or_else(|| missing("rate"))?;
        let batch = bounded(&mut members, "batch", "samples", MAX_BATCH_SAMPLES)?;
        members.finish()?;
        let batch = batch.unwrap_or_else(|| default_batch(rate_hz));
        if self.open.len() == MAX_SUBSCRIPTIONS {
            return Err(full("connection", MAX_SUBSCRIPTIONS));
        }
        let seat = shared.seats.take().ok_or_else(|| full("server", MAX_SERVER_SUBSCRIPTIONS))?;
        // Both are within their limits, which are far below those of the types.
        let ask = Ask { filter, rate_hz: rate_hz as u32, batch: batch as usize };
        let (rate_hz, batch) = (ask.rate_hz.into(), ask.batch);
        let registry = shared.inventory.registry();
        let started = Subscription::start(self.last + 1, registry, ask, seat);
        let (subscription, layout) = started.map_err(|error| in_words(&error))?;
        self.open.push(subscription);
        self.last += 1;
        Subscribed { subscription: self.last, rate_hz, batch, layout: &layout }.write(out);
        Ok(())
    }

    /// `stats-unsubscribe`: ends a subscription, within 50 ms. There are no more events of it.
    ///
    /// # Errors
    /// If there is no such subscription.
    pub(super) fn unsubscribe(&mut self, arguments: &Dict<'_>) -> Result<(), Refusal> {
        let mut members = Members::of_arguments(arguments);
        let number = members.optional_int("subscription")?;
        let number = number.ok_or_else(|| missing("subscription"))?;
        members.finish()?;
        let known = self.open.iter().position(|open| i64::try_from(open.number()) == Ok(number));
        let Some(at) = known else {
            let text = "Parameter 'subscription' expects the number of a subscription of this \
                        connection";
            return Err(Refusal::generic(text));
        };
        self.open.remove(at);
        Ok(())
    }

    /// When the next events will be complete; `None` without subscriptions.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.open.iter().map(Subscription::due).min()
    }

    /// Appends the events that are due, each a whole line, and says how many. Of each subscription
    /// some [`MAX_EVENT_BYTES`](subscription::MAX_EVENT_BYTES) at most: if there is more, it stays
    /// due.
    pub(super) fn write_events(&mut self, out: &mut Vec<u8>) -> u64 {
        let now = Instant::now();
        let due = self.open.iter_mut().filter(|open| open.due() <= now);
        due.map(|open| open.write_events(now, out)).sum()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // All at once, so that waiting for all takes no longer than for one.
        self.open.iter().for_each(Subscription::stop);
    }
}

impl StreamSeats {
    /// Those of a server.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_SERVER_SUBSCRIPTIONS)))
    }

    /// Nobody can subscribe.
    pub(super) fn none() -> Self {
        Self(Arc::default())
    }

    /// One less; `None` if there is none.
    fn take(&self) -> Option<Seat> {
        let less = |left: usize| left.checked_sub(1);
        // Relaxed: a count, nothing is read on its strength.
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok().then(|| Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An integer from 1 to `max`, if it is there.
fn bounded(
    members: &mut Members<'_>,
    name: &str,
    unit: &str,
    max: i64,
) -> Result<Option<i64>, Refusal> {
    let number = members.optional_int(name)?;
    if number.is_some_and(|number| !(1..=max).contains(&number)) {
        let text = format!("Parameter '{name}' expects a number of {unit} from 1 to {max}");
        return Err(Refusal::generic(text));
    }
    Ok(number)
}

fn default_batch(rate_hz: i64) -> i64 {
    (rate_hz * BATCH_MS / 1000).clamp(1, MAX_BATCH_SAMPLES)
}

fn missing(name: &str) -> Refusal {
    Refusal::generic(format!("Parameter '{name}' is missing"))
}

fn full(whose: &str, max: usize) -> Refusal {
    let text = format!("this {whose} has {max} subscriptions, the most it can have: end one first");
    Refusal::generic(text)
}

#[cfg(test)]
mod tests;
