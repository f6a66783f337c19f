//! The state that all connections of a server share.
//!
//! Invariant: every part is used through a shared reference, from any thread, and synchronizes
//! itself.

use vmstrobe_core::{Error, Order, Registry, Result, ThreadStart};

use super::budget::{Budget, Pool};
use super::config::{Config, Peers};
use super::counts::Counters;
use super::inventory::Inventory;
use super::recorder::{self, Recorder};

/// The most subscriptions of all connections of a server.
pub(super) const MAX_SERVER_SUBSCRIPTIONS: usize = 32;

/// The state that all connections of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The objects that can be queried.
    pub(super) inventory: Inventory,
    /// The order of lists in replies.
    pub(super) order: Order,
    pub(super) counts: Counters,
    /// One unit for each subscription that the server may have.
    pub(super) subscriptions: Pool,
    /// The limits that this server shares with others.
    pub(super) budget: Budget,
    /// The users whose processes may be clients.
    pub(super) peers: Peers,
    /// The functions of a program that records.
    pub(super) recorder: Option<Recorder>,
    /// The start of threads for the connections.
    pub(super) threads: ThreadStart,
}

impl Shared {
    /// Makes the state over the providers that are in the registry now or later.
    ///
    /// # Errors
    /// `Io` if no thread can be started.
    pub(super) fn new(registry: &Registry, config: Config) -> Result<Self> {
        let Config { order, complain, budget, peers, recorder, threads, .. } = config;
        let complain = move |error: &Error| complain.into_iter().for_each(|tell| tell(error));
        let inventory = Inventory::new(registry, order, &threads, complain)?;
        let (counts, subscriptions) = (Counters::default(), Pool::new(MAX_SERVER_SUBSCRIPTIONS));
        Ok(Self { inventory, order, counts, subscriptions, budget, peers, recorder, threads })
    }

    /// Makes the state over the objects that exist now. It starts no thread and allows no
    /// subscription.
    pub(super) fn fixed(registry: &Registry, order: Order) -> Self {
        let (counts, subscriptions) = (Counters::default(), Pool::new(0));
        let (inventory, budget) = (Inventory::fixed(registry, order), Budget::new());
        let (peers, recorder, threads) = (Peers::All, None, ThreadStart::default());
        Self { inventory, order, counts, subscriptions, budget, peers, recorder, threads }
    }

    /// Returns the commands that this server has beside those of every server.
    pub(super) fn further_commands(&self) -> &'static [&'static str] {
        if self.recorder.is_some() { recorder::COMMANDS } else { &[] }
    }
}
