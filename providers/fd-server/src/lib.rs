//! Descriptors of statistics, exported on a Unix socket: the stats fds of a VMM, the table of any
//! program. A client needs no right but to connect: no process has to be looked into.
//!
//! A server ([`FdServer`]) listens; a client ([`FdClient`]) connects and stays connected, by which
//! each learns of the other's end. This is version 1 of their protocol:
//!
//! ```text
//! vmstrobe-handover 1                the first packet
//! full                               the second and last, if as many are connected as may be
//! kvm-vm KEY PATH             + fd   a VM's stats fd, and its object's path
//! kvm-vcpu KEY INDEX PATH     + fd   a vCPU's stats fd, its index and its object's path
//! table KEY                   + fd   a table's memfd
//! gone KEY                           that one is exported no more
//! all                                so much for now
//! ```
//!
//! The socket is of type SOCK_SEQPACKET, and only the server speaks. A packet is a line of UTF-8
//! without control characters and without an end of line, of at most 512 bytes; a path has
//! at most 255 and is the rest of its line. One descriptor comes with each
//! packet that is marked so above (SCM_RIGHTS), and none with any other. A key is two decimal
//! numbers with a dot between: the number of an offer, and one within it. It is never used again
//! in a connection.
//!
//! Invariant: a client can neither keep the server waiting nor make it hold more than the limits
//! allow, and gets nothing by which anything could be changed. A server can keep a client waiting
//! no longer than 2 s, and never from ending: a helper process receives and checks
//! what it sends. One wrong packet ends the connection, and from then on every row that it exported
//! is marked as gone. What it can do is lie about its own statistics, make a client use the memory
//! and time that the limits of tables allow, and keep the helper process from ending.

#![forbid(unsafe_code)]

mod message;
mod packet;
mod socket;

mod export;
mod offers;
mod serve;
mod server;

mod kvm;
mod reader;
mod client;

pub use client::FdClient;
pub use export::{ExportFds, ExportedFd};
pub use server::FdServer;

/// The most descriptors that are exported on one connection at a time.
pub(crate) const MAX_EXPORTED_FDS: usize = 8192;
/// The most tables among them: each may hold some 40 MiB of paths and descriptors. What is over is
/// exported as soon as another table is exported no more.
pub(crate) const MAX_TABLES: usize = 16;

#[cfg(test)]
mod tests;
