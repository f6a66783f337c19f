//! The configuration of a server.
//!
//! Invariant: the default lets in only this process's user, and is QEMU's behaviour but for its
//! order of lists.

use vmstrobe_core::{Error, Order, ThreadStart};
use vmstrobe_listen::Access;

use super::budget::Budget;
use super::recorder::Recorder;

/// The users whose processes may be clients, of those that [`Config::access`] lets connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peers {
    /// Any user.
    #[default]
    All,
    /// This process's user and root, whoever may write the socket's file.
    SameUser,
}

/// The configuration of a [`Server`](super::Server).
///
/// Fields may be added: write `..Config::default()` behind the ones that you set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The users that may connect. Each of them sees all statistics.
    pub access: Access,
    /// The users whose processes may be clients, as the kernel names them.
    pub peers: Peers,
    /// The order of lists in replies; [`Order::Qemu`] also turns on the other habits of QEMU.
    pub order: Order,
    /// A function that gets each error of looking for objects. An error that repeats in the next
    /// look is not passed again.
    pub complain: Option<fn(&Error)>,
    /// The limits for all clients together. Servers made of clones of one `Config` share it.
    pub budget: Budget,
    /// The functions behind `stats-dump` and `stats-mark`, of a program that records. Without them
    /// the server does not have these commands.
    pub recorder: Option<Recorder>,
    /// The function that each thread of the server runs first.
    pub threads: ThreadStart,
}
