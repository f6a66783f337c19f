//! Descriptors of statistics, handed over on a Unix socket: the stats fds of a VMM, the table of
//! any program. A borrower needs no right but to connect: no process has to be looked into.
//!
//! A lender ([`FdServer`]) listens; a borrower ([`FdClient`]) connects and stays connected, for
//! that is how either learns of the other's end. Version 1 of what they say:
//!
//! ```text
//! vmstrobe-handover 1                the first packet
//! full                               the second and last, if as many are connected as may be
//! kvm-vm KEY PATH             + fd   a VM's stats fd, and its object's path
//! kvm-vcpu KEY INDEX PATH     + fd   a vCPU's stats fd, its index and its object's path
//! table KEY                   + fd   a table's memfd
//! gone KEY                           that one is lent no more
//! all                                so much for now
//! ```
//!
//! The socket is of type SOCK_SEQPACKET, and only the lender speaks. A packet is a line of UTF-8
//! without control characters and without an end of line, of at most [`MAX_PACKET_BYTES`] bytes; a
//! path has at most [`MAX_PATH_BYTES`] and is the rest of its line. One descriptor comes with each
//! packet that is marked so above (SCM_RIGHTS), and none with any other. A key is two decimal
//! numbers with a dot between: the number of an offer, and one within it. It is never used again
//! in a connection.
//!
//! Invariant: a borrower can neither keep the lender waiting nor make it hold more than the limits
//! allow, and gets nothing by which anything could be changed. A lender can keep a borrower waiting
//! no longer than [`CONNECT_LIMIT`], and never from ending: a helper process receives and checks
//! what it sends. One wrong packet ends the connection, and from then on every row that it lent is
//! marked as gone. What it can do is lie about its own statistics, make a borrower use the memory
//! and time that the limits of tables allow, and keep the helper process from ending.

mod message;
mod packet;
mod socket;

mod export;
mod lender;
mod serve;

mod kvm;
mod reader;
mod borrower;

pub use borrower::{CONNECT_LIMIT, FdClient};
pub use export::{ExportFds, ExportedFd};
pub use lender::FdServer;
pub use message::{MAX_PACKET_BYTES, MAX_PATH_BYTES};
pub use serve::{MAX_BORROWERS, SEND_LIMIT};

/// The most descriptors that are lent on one connection at a time.
pub const MAX_EXPORTED_FDS: usize = 8192;
/// The most tables among them: each may hold some 40 MiB of paths and descriptors. What is over is
/// lent as soon as another table is lent no more.
pub const MAX_TABLES: usize = 16;

#[cfg(test)]
mod tests;
