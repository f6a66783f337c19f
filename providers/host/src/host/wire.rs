//! The packets between a process and its helper: requests, and what is found.
//!
//! Both ends are this program, so that a packet is trusted to be well formed; what a foreign
//! process can put into one is a name, of bounded length.

use super::link::KvmLink;

/// The most bytes of a packet.
pub(super) const MAX_PACKET_BYTES: usize = 8192;
/// The most descriptors that one request names.
pub(super) const MAX_NAMED: usize = 500;

/// The request: list the descriptors of `pid` that KVM or a table is behind.
pub(super) const LOOK: u32 = 1;
/// The request: a file of `pid` in /proc, [`CMDLINE`] or [`STAT`] by its flags.
pub(super) const READ: u32 = 2;
/// The request: hand over descriptors of the process whose pidfd comes with it.
pub(super) const BORROW: u32 = 3;
/// The request: which of the named descriptors are one file.
pub(super) const SORT: u32 = 4;

/// A request; the descriptors that it names follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: u32,
    pub(super) pid: u32,
    /// The option of a request: of [`LOOK`] [`WITH_MAKERS`] or 0, of [`READ`] the file.
    pub(super) flags: u32,
    /// The number of descriptors that [`LOOK`] looks at, if none of these is of interest.
    pub(super) limit: u32,
}

/// The request: can `pid` be the process that made the named descriptors of vCPUs? [`YES`] or 0 in
/// the id of the reply.
pub(super) const MADE: u32 = 5;

/// Its arguments.
pub(super) const CMDLINE: u32 = 0;
/// Its state, among it when it started.
pub(super) const STAT: u32 = 1;
/// The option to read which thread made the object of a stats fd.
pub(super) const WITH_MAKERS: u32 = 1;

/// A descriptor that is named in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// The answer to [`SORT`].
    pub(super) pid: u32,
    pub(super) fd: i32,
    /// The kind that must be behind it, of [`BORROW`].
    pub(super) kind: u32,
    pub(super) id: u32,
}

/// A descriptor that was found, or the end of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: u32,
    /// The vCPU's id; of [`END`] bits of [`CROWDED`] and [`READER`], or [`YES`]; of [`SORTED`] the
    /// class.
    pub(super) id: u32,
    pub(super) fd: i32,
    /// The number of its open file among those of the process: equal for duplicates.
    pub(super) file: u32,
    /// The thread that made it, by its number in the first pid namespace; 0 if not known.
    pub(super) maker: u32,
    /// The error number, or 0: of [`END`] of the request, of [`BORROWED`] of this descriptor.
    pub(super) errno: i32,
    /// The inode of a table's memory.
    pub(super) inode: u64,
}

impl Request {
    /// As it is sent.
    pub(super) fn words(self) -> [u32; 4] {
        [self.kind, self.pid, self.flags, self.limit]
    }

    pub(super) fn of([kind, pid, flags, limit]: [u32; 4]) -> Self {
        Self { kind, pid, flags, limit }
    }
}

impl Named {
    /// As it is sent.
    pub(super) fn words(self) -> [u32; 4] {
        [self.pid, self.fd.cast_unsigned(), self.kind, self.id]
    }

    pub(super) fn of([pid, fd, kind, id]: [u32; 4]) -> Self {
        Self { pid, fd: fd.cast_signed(), kind, id }
    }
}

impl Record {
    /// As it is sent.
    pub(super) fn words(self) -> [u32; 8] {
        let Self { kind, id, fd, file, maker, errno, inode } = self;
        let (fd, errno) = (fd.cast_unsigned(), errno.cast_unsigned());
        [kind, id, fd, file, maker, errno, inode as u32, (inode >> 32) as u32]
    }

    pub(super) fn of([kind, id, fd, file, maker, errno, low, high]: [u32; 8]) -> Self {
        let inode = u64::from(high) << 32 | u64::from(low);
        let (fd, errno) = (fd.cast_signed(), errno.cast_signed());
        Self { kind, id, fd, file, maker, errno, inode }
    }
}

// The kinds of a record, or of a descriptor that is to be borrowed.
pub(super) const VM: u32 = 1;
pub(super) const VCPU: u32 = 2;
pub(super) const VM_STATS: u32 = 3;
pub(super) const VCPU_STATS: u32 = 4;
/// Memory of a table's name, which follows the record.
pub(super) const TABLE: u32 = 5;
/// The reply to one descriptor of [`BORROW`], which comes with it.
pub(super) const BORROWED: u32 = 6;
/// The reply to one descriptor of [`SORT`].
pub(super) const SORTED: u32 = 7;
/// Bytes of a file follow.
pub(super) const BYTES: u32 = 8;
/// The helper is at work.
pub(super) const BUSY: u32 = 9;
/// The last record of a reply.
pub(super) const END: u32 = 10;

/// The mark of a process that has too many descriptors for all to be looked at.
pub(super) const CROWDED: u32 = 1;
/// So it is.
pub(super) const YES: u32 = 1;
/// The process is one that reads others' statistics.
pub(super) const READER: u32 = 2;

/// A link as a record has it.
pub(super) fn coded(link: KvmLink) -> (u32, u32) {
    match link {
        KvmLink::Vm => (VM, 0),
        KvmLink::Vcpu(id) => (VCPU, id),
        KvmLink::VmStats => (VM_STATS, 0),
        KvmLink::VcpuStats(id) => (VCPU_STATS, id),
    }
}

/// The link of a record, if it is one of KVM's.
pub(super) fn link(kind: u32, id: u32) -> Option<KvmLink> {
    match kind {
        VM => Some(KvmLink::Vm),
        VCPU => Some(KvmLink::Vcpu(id)),
        VM_STATS => Some(KvmLink::VmStats),
        VCPU_STATS => Some(KvmLink::VcpuStats(id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_comes_back_as_it_was() {
        for of in [KvmLink::Vm, KvmLink::Vcpu(7), KvmLink::VmStats, KvmLink::VcpuStats(9)] {
            let (kind, id) = coded(of);
            assert_eq!(link(kind, id), Some(of));
        }
        assert_eq!(link(TABLE, 0), None);
    }

    #[test]
    fn a_request_with_all_that_it_may_name_fits_a_packet() {
        let bytes = size_of_val(&Request::default().words())
            + MAX_NAMED * size_of_val(&Named::default().words());
        assert!(bytes <= MAX_PACKET_BYTES, "{bytes}");
    }

    #[test]
    fn what_is_sent_is_what_arrives() {
        let record =
            Record { kind: 1, id: 2, fd: -3, file: 4, maker: 5, errno: -6, inode: 7 << 33 | 1 };
        assert_eq!(Record::of(record.words()), record);
        let named = Named { pid: 1, fd: -2, kind: 3, id: 4 };
        assert_eq!(Named::of(named.words()), named);
        let request = Request { kind: 1, pid: 2, flags: 3, limit: 4 };
        assert_eq!(Request::of(request.words()), request);
    }
}
