//! The descriptors that are seen in a process, and how closely it is looked at.

use std::os::fd::RawFd;

use super::link::KvmLink;
use super::wire::{self, Record};

/// The descriptors of a process that are of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// KVM's, ascending.
    pub kvm: Vec<SeenKvm>,
    /// Memory of a table's name, ascending.
    pub tables: Vec<SeenTable>,
    /// The process reads others' statistics, and holds descriptors for that.
    pub is_reader: bool,
    /// Whether there are too many for all to be looked at.
    pub is_crowded: bool,
}

/// A descriptor of KVM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenKvm {
    /// The number of the descriptor in its process.
    pub fd: RawFd,
    /// The object that it leads to.
    pub link: KvmLink,
    /// The number of its open file among those of its process: equal for duplicates.
    pub file: u32,
    /// The thread that made it, by its number in the first pid namespace, where that was asked for
    /// and can be told.
    pub maker: Option<u32>,
}

/// Memory of a table's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTable {
    /// The number of the descriptor in its process.
    pub fd: RawFd,
    /// The rest of its link, behind the part that all tables have in common.
    pub name: Vec<u8>,
    /// Tells it from all other memory.
    pub inode: u64,
}

/// The extent of a look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Care {
    /// Whether to read which thread made each object that has statistics.
    pub makers: bool,
    /// The number of descriptors to look at, if none of these is of interest.
    pub fds: u32,
}

impl Care {
    /// The makers, and all descriptors.
    pub const FULL: Self = Self { makers: true, fds: u32::MAX };
}

impl SeenKvm {
    /// The descriptor of KVM's in a record, if it is one.
    pub(super) fn of(record: Record) -> Option<Self> {
        let link = wire::link(record.kind, record.id)?;
        let maker = Some(record.maker).filter(|&maker| maker != 0);
        Some(Self { fd: record.fd, link, file: record.file, maker })
    }
}
