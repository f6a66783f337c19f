//! Streaming, which QEMU does not have: the subscriptions of one connection.
//!
//! `stats-subscribe` takes a `StatsFilter`, a rate and a batch size. Then events `STATS_SAMPLES`
//! bring every sample, in batches, and events `STATS_OBJECTS` the new list of objects when objects
//! come or go.
//!
//! Invariant: a connection has at most [`MAX_SUBSCRIPTIONS`], a server
//! [`MAX_SERVER_SUBSCRIPTIONS`]; the memory, CPU time and sources of all subscriptions are bounded
//! by the budget, and a subscription beyond it is refused before it costs anything. Subscriptions
//! and their threads end with their connection.

use std::time::Instant;

use vmstrobe_sampler::MAX_RATE_HZ;

use self::event::Subscribed;
use self::subscription::{Ask, Subscription, queue_bytes};
use super::budget::{BUSY_HZ, Lease};
use super::cost::Cost;
use super::filter;
use super::members::Members;
use super::refusal::Refusal;
use super::room::Room;
use super::shared::{MAX_SERVER_SUBSCRIPTIONS, Shared};
use super::value::Dict;

mod event;
mod subscription;

/// The most subscriptions of a connection. Each has a thread that ticks and one that looks for
/// objects.
pub(super) const MAX_SUBSCRIPTIONS: usize = 8;
/// The most samples of an event.
pub(super) const MAX_BATCH_SAMPLES: i64 = 10_000;
/// The most bytes of the reply to `stats-subscribe` besides statistics and objects.
const SUBSCRIBED_BYTES: usize = 4096;
/// The time of the samples in a batch, if the client does not give their number.
const BATCH_MS: i64 = 100;
/// The highest rate, in Hz.
const MAX_HZ: i64 = MAX_RATE_HZ as i64;

/// The subscriptions of one connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Vec<Subscription>,
    /// The last number given. No number is given again.
    last: u64,
}

impl Streams {
    /// Executes `stats-subscribe`: opens the objects, takes the first sample, starts to tick, and
    /// appends the return value.
    ///
    /// # Errors
    /// GenericError if an argument is wrong, a limit is reached, or nothing can be read.
    pub(super) fn subscribe(
        &mut self,
        shared: &Shared,
        arguments: &Dict<'_>,
        room: &mut Room,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let mut members = Members::of_arguments(arguments);
        let catalog = shared.inventory.catalog();
        let filter = filter::stats_filter(&mut members, &catalog)?;
        let rate_hz =
            bounded(&mut members, "rate", "Hz", MAX_HZ)?.ok_or_else(|| missing("rate"))?;
        let batch = bounded(&mut members, "batch", "samples", MAX_BATCH_SAMPLES)?;
        members.finish()?;
        let batch = batch.unwrap_or_else(|| default_batch(rate_hz));
        if self.open.len() == MAX_SUBSCRIPTIONS {
            return Err(full("connection", MAX_SUBSCRIPTIONS));
        }
        // Both are within their limits, which are far below those of the integer types.
        let ask = Ask { filter, rate_hz: rate_hz as u32, batch: batch as usize };
        let mut cost = Cost::of(&ask.filter, std::slice::from_ref(&ask.filter), &catalog);
        cost.bytes += arguments.bytes();
        cost.check()?;
        let leases = leases(&ask, &cost, shared)?;
        // The description of a statistic takes at most 3 times the bytes of its name and value.
        room.make(out, SUBSCRIBED_BYTES + 4 * cost.reply_bytes)?;
        let (rate_hz, batch) = (ask.rate_hz.into(), ask.batch);
        let registry = shared.inventory.registry();
        let started = Subscription::start(self.last + 1, registry, ask, leases);
        let (subscription, layout) = started.map_err(Refusal::from)?;
        self.open.push(subscription);
        self.last += 1;
        Subscribed { subscription: self.last, rate_hz, batch, layout: &layout }.write(out);
        Ok(())
    }

    /// Executes `stats-unsubscribe`: ends a subscription within 50 ms. It writes no further events.
    ///
    /// # Errors
    /// GenericError if there is no such subscription.
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

    /// Returns the time at which the next events are complete; `None` without subscriptions.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.open.iter().map(Subscription::due).min()
    }

    /// Appends the events that are due, each a whole line, and returns their number. Each
    /// subscription writes about [`MAX_EVENT_BYTES`](subscription::MAX_EVENT_BYTES) at most; if
    /// there is more, it stays due.
    pub(super) fn write_events(&mut self, out: &mut Vec<u8>) -> u64 {
        let now = Instant::now();
        let due = self.open.iter_mut().filter(|open| open.due() <= now);
        due.map(|open| open.write_events(now, out)).sum()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // All are stopped first, so that waiting for all takes no longer than for one.
        self.open.iter().for_each(Subscription::stop);
    }
}

/// Takes everything that a subscription needs from its server and the budget; dropping the leases
/// returns it.
///
/// # Errors
/// GenericError that names the first limit that the subscription would exceed.
fn leases(ask: &Ask, cost: &Cost, shared: &Shared) -> Result<Vec<Lease>, Refusal> {
    let pools = shared.budget.pools();
    let own = shared.subscriptions.take(1);
    let own = own.ok_or_else(|| full("server", MAX_SERVER_SUBSCRIPTIONS))?;
    let all = pools.subscriptions.take(1).ok_or_else(|| {
        beyond(&format!("all servers have {} subscriptions", pools.subscriptions.max()))
    })?;
    let rate = pools.rates_hz.take(BUSY_HZ.min(ask.rate_hz as usize)).ok_or_else(|| {
        beyond(&format!(
            "all streams may take {} samples a second, a stream of more than {BUSY_HZ} \
                 counting as {BUSY_HZ}, and {} are left",
            pools.rates_hz.max(),
            pools.rates_hz.left()
        ))
    })?;
    let bytes = queue_bytes(ask, cost);
    let bytes = pools.stream_bytes.take(bytes).ok_or_else(|| {
        let (max, left) = (pools.stream_bytes.max(), pools.stream_bytes.left());
        beyond(&format!(
            "all streams may take {max} bytes of memory, and of {left} that are left this one \
                 needs {bytes}"
        ))
    })?;
    let sources = pools.sources.take_of_first_half(cost.sources).ok_or_else(|| {
        let max = pools.sources.max() / 2;
        beyond(&format!("all streams may have {max} sources open"))
    })?;
    Ok(vec![own, all, rate, bytes, sources])
}

fn beyond(limit: &str) -> Refusal {
    Refusal::generic(format!("{limit}: end a stream, or ask for less"))
}

/// Takes an integer from 1 to `max`, if it is present.
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
