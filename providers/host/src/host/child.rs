//! The work of the helper process: everything that may wait for a foreign process, one request at a
//! time.
//!
//! Reading the links of a process's descriptors waits while that process is in `execve`; closing
//! one that turns out to be a file of a FUSE server waits for that server, and not even SIGKILL
//! ends it. Here it harms nobody: the process that asked waits for a bounded time and goes on
//! without an answer.
//!
//! Invariant: no allocation, no lock, no panic that is meant: this runs in a copy of a process
//! with threads. Nothing is written anywhere but to the socket. Of a foreign file the kernel alone
//! is asked until it is known to be KVM's or in memory.

use std::cmp::Ordering;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, fcntl_get_seals, open, openat};
use rustix::io::{Errno, read};
use rustix::process::{PidfdGetfdFlags, chdir, pidfd_getfd};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_name, set_no_new_privs,
};

use super::link::KvmLink;
use super::wire::{self, MAX_NAMED, MAX_PACKET_BYTES, Named, Record, Request};
use crate::memfd::memfd;
use crate::sys::{self, Place};
use look::Look;
pub use look::{MAX_SAME_LINK, READERS_POSITION};
pub(super) use relay::relay;
use talk::{Path, fdinfo, own_link, receive, send};

pub(crate) mod look;
mod relay;
mod talk;

/// The most descriptors of KVM's that are listed of one process.
pub const MAX_RECORDS: usize = 1 << 14;
/// So many records are sent at a time.
const RECORDS_AT_ONCE: usize = 128;
/// The most of a command line that is searched for a name, in bytes.
const FILE_BYTES_MAX: usize = 1 << 18;
/// The most of what a process maps that is searched, in bytes.
const MAPS_BYTES_MAX: usize = 1 << 24;
/// The name of a vCPU's mapping in `/proc/<pid>/maps`.
const VCPU_MAPPED: &[u8] = b"anon_inode:kvm-vcpu:";
/// The most bytes of a link: what is longer is none of those that are looked for.
const LINK_BYTES: usize = 512;
/// The start of the link of a table's memory.
const TABLE_LINK: &[u8] = b"/memfd:vmstrobe-table:";
/// To look into processes of others, and to borrow from them: all that the helper keeps.
const LOOK: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// Memory that the parent allocates for the child.
pub(super) struct Scratch {
    records: Vec<Record>,
    /// By a hash of the link: the last record of it, and for each record the one before.
    last: Vec<u32>,
    before: Vec<u32>,
    packet: Vec<u8>,
}

/// No record.
const NONE: u32 = u32::MAX;
const BUCKETS: usize = 4096;

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            records: Vec::with_capacity(MAX_RECORDS),
            last: vec![NONE; BUCKETS],
            before: vec![NONE; MAX_RECORDS],
            packet: vec![0; MAX_PACKET_BYTES],
        }
    }
}

/// Serves requests until the socket is closed, which is all that this process has open.
pub(super) fn serve(socket: BorrowedFd<'_>, scratch: &mut Scratch) {
    confine();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(proc) = open(c"/proc", flags, Mode::empty()) else { return };
    let helper = Helper { socket, proc: proc.as_fd(), memory: own_mount(&proc) };
    while helper.serve_one(scratch).is_some() {}
}

/// Keeps what looking takes, and nothing else.
fn confine() {
    let _ = chdir(c"/");
    let _ = set_no_new_privs(true);
    if let Ok(had) = capabilities(None) {
        let kept = CapabilitySets {
            effective: had.effective & LOOK,
            permitted: had.permitted & LOOK,
            inheritable: CapabilitySet::empty(),
        };
        let _ = set_capabilities(None, kept);
    }
    // Last: whoever sees the name sees what it keeps.
    let _ = set_name(c"vmstrobe-helper");
}

/// The mount on which all memfds lie, by its number: nobody else can put a file there.
fn own_mount(proc: &OwnedFd) -> Option<u64> {
    let memory = memfd(c"vmstrobe", MemfdFlags::empty()).ok()?;
    let mut path = Path::default();
    let path = path.of(format_args!("self/fdinfo/{}", memory.as_raw_fd()))?;
    fdinfo(proc.as_fd(), path).map(|info| info.mount)
}

/// The descriptors that are open for as long as the helper runs, and the mount of all memfds.
struct Helper<'a> {
    socket: BorrowedFd<'a>,
    proc: BorrowedFd<'a>,
    memory: Option<u64>,
}

impl Helper<'_> {
    /// Answers one request; `None` if nobody asks any more.
    fn serve_one(&self, scratch: &mut Scratch) -> Option<()> {
        let (bytes, pidfd) = receive(self.socket, &mut scratch.packet).ok()?;
        let (words, _) = scratch.packet.get(..bytes)?.as_chunks::<16>();
        let (first, rest) = words.split_first()?;
        let request = Request::of(bytemuck::cast(*first));
        let mut named = [Named::default(); MAX_NAMED];
        let count = rest.len().min(MAX_NAMED);
        for (named, words) in named.iter_mut().zip(rest) {
            *named = Named::of(bytemuck::cast(*words));
        }
        let named = named.get(..count)?;
        let (flags, outcome) = match request.kind {
            wire::LOOK => self.look(request, scratch),
            wire::READ => (0, self.read(request, &mut scratch.packet)),
            wire::MADE => {
                let made = self.has_kept(request.pid, named)
                    || self.maps_vcpu(request.pid, &mut scratch.packet);
                (if made { wire::YES } else { 0 }, Ok(()))
            }
            wire::BORROW => (0, pidfd.map_or(Err(Errno::BADF), |fd| self.borrow(&fd, named))),
            wire::SORT => (0, self.sort(named)),
            _ => (0, Err(Errno::NOSYS)),
        };
        let errno = outcome.err().map_or(0, Errno::raw_os_error);
        self.say(Record { kind: wire::END, id: flags, errno, ..Record::default() }).ok()
    }

    fn say(&self, record: Record) -> Result<(), Errno> {
        send(self.socket, &[bytemuck::bytes_of(&record.words())], None)
    }

    /// Lists the descriptors of a process that are of interest, ascending as the kernel has them.
    fn look(&self, request: Request, scratch: &mut Scratch) -> (u32, Result<(), Errno>) {
        let mut look = Look::new(self, request);
        scratch.records.clear();
        scratch.last.fill(NONE);
        let outcome = look.list(scratch).and_then(|()| {
            let mut chunks = scratch.records.chunks(RECORDS_AT_ONCE);
            chunks.try_for_each(|chunk| {
                let mut words = [[0; 8]; RECORDS_AT_ONCE];
                for (words, record) in words.iter_mut().zip(chunk) {
                    *words = record.words();
                }
                let words = words.get(..chunk.len()).unwrap_or_default();
                send(self.socket, &[bytemuck::cast_slice(words)], None)
            })
        });
        (look.flags(), outcome)
    }

    fn open(&self, path: std::fmt::Arguments<'_>) -> Result<OwnedFd, Errno> {
        let mut room = Path::default();
        let path = room.of(path).ok_or(Errno::NAMETOOLONG)?;
        openat(self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Sends a file, as far as it is of use.
    fn read(&self, request: Request, buffer: &mut [u8]) -> Result<(), Errno> {
        let pid = request.pid;
        let file = match request.flags {
            wire::CMDLINE => self.open(format_args!("{pid}/cmdline")),
            wire::STAT => self.open(format_args!("{pid}/stat")),
            _ => Err(Errno::NOSYS),
        }?;
        let header = Record { kind: wire::BYTES, ..Record::default() }.words();
        let room = buffer.len().saturating_sub(size_of_val(&header));
        let mut left = FILE_BYTES_MAX;
        while left > 0 {
            let part = buffer.get_mut(..room.min(left)).unwrap_or_default();
            let got = read(&file, &mut *part)?;
            if got == 0 {
                break;
            }
            let part = part.get(..got).unwrap_or_default();
            send(self.socket, &[bytemuck::bytes_of(&header), part], None)?;
            left -= got;
        }
        Ok(())
    }

    /// Whether a process has one of these as KVM made it: closed by `execve`. What was inherited
    /// over one is not.
    fn has_kept(&self, pid: u32, named: &[Named]) -> bool {
        named.iter().any(|named| {
            let mut path = Path::default();
            let path = path.of(format_args!("{pid}/fdinfo/{}", named.fd));
            let info = path.and_then(|path| fdinfo(self.proc, path));
            info.is_some_and(|info| info.is_closed_by_execve)
        })
    }

    /// Whether a process maps a vCPU, as it must to run it.
    fn maps_vcpu(&self, pid: u32, buffer: &mut [u8]) -> bool {
        let Ok(file) = self.open(format_args!("{pid}/maps")) else { return false };
        // The end of one part, in case the name goes on in the next.
        let (mut kept, mut left) = (0, MAPS_BYTES_MAX);
        while left > 0 {
            let got = match read(&file, buffer.get_mut(kept..).unwrap_or_default()) {
                Ok(0) | Err(_) => break,
                Ok(got) => got,
            };
            let part = buffer.get(..kept + got).unwrap_or_default();
            if part.windows(VCPU_MAPPED.len()).any(|window| window == VCPU_MAPPED) {
                return true;
            }
            let end = part.len();
            kept = end.min(VCPU_MAPPED.len());
            buffer.copy_within(end - kept..end, 0);
            left = left.saturating_sub(got);
        }
        false
    }

    /// Hands over duplicates, each once it is known to be what was asked for.
    fn borrow(&self, pidfd: &OwnedFd, named: &[Named]) -> Result<(), Errno> {
        for (index, named) in (0..).zip(named) {
            let borrowed = self.borrow_one(pidfd, *named);
            let errno = borrowed.as_ref().err().map_or(0, |errno| errno.raw_os_error());
            let record = Record { kind: wire::BORROWED, id: index, errno, ..Record::default() };
            let fd = borrowed.as_ref().ok().map(AsFd::as_fd);
            send(self.socket, &[bytemuck::bytes_of(&record.words())], fd)?;
        }
        Ok(())
    }

    /// `NOENT` if something else is there by now.
    fn borrow_one(&self, pidfd: &OwnedFd, named: Named) -> Result<OwnedFd, Errno> {
        let borrowed = pidfd_getfd(pidfd, named.fd, PidfdGetfdFlags::empty())?;
        let mut buffer = [0; LINK_BYTES];
        let held = own_link(self.proc, &borrowed, &mut buffer)?;
        let is_it = match wire::link(named.kind, named.id) {
            Some(link) => parse(held) == Some(link),
            // The name can be another file's; that it has seals cannot, and only the kernel
            // answers that.
            None => held.starts_with(TABLE_LINK) && fcntl_get_seals(&borrowed).is_ok(),
        };
        if is_it { Ok(borrowed) } else { Err(Errno::NOENT) }
    }

    /// Gives each of these its class: those of one class are one open file.
    fn sort(&self, named: &[Named]) -> Result<(), Errno> {
        let place = |at: u32| {
            let named = named.get(at as usize).copied().unwrap_or_default();
            Place { pid: named.pid, fd: named.fd }
        };
        // The first of each class, in the kernel's order.
        let mut firsts = [0_u32; MAX_NAMED];
        let mut count = 0;
        for at in 0..named.len() as u32 {
            let known = firsts.get(..count).unwrap_or_default();
            let found = search(known, |first| sys::compare(place(first), place(at)));
            let class = match found {
                Ok(Ok(found)) => known.get(found).copied().unwrap_or(at),
                Ok(Err(gap)) => {
                    firsts.get_mut(gap..=count).unwrap_or_default().rotate_right(1);
                    if let Some(first) = firsts.get_mut(gap) {
                        *first = at;
                    }
                    count += 1;
                    at
                }
                Err(Errno::NOSYS) => return Err(Errno::NOSYS),
                // It is gone, or not ours to look into: nobody's duplicate.
                Err(_) => at,
            };
            self.say(Record { kind: wire::SORTED, id: class, fd: at as i32, ..Record::default() })?;
        }
        Ok(())
    }
}

fn parse(link: &[u8]) -> Option<KvmLink> {
    KvmLink::parse(std::str::from_utf8(link).ok()?)
}

/// Returns the index of the element that compares equal as `Ok`, or that of its place as `Err`.
fn search(
    sorted: &[u32],
    mut compare: impl FnMut(u32) -> Result<Ordering, Errno>,
) -> Result<Result<usize, usize>, Errno> {
    let (mut low, mut high) = (0, sorted.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(sorted.get(middle).copied().unwrap_or_default())? {
            Ordering::Equal => return Ok(Ok(middle)),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Ok(Err(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sorted_is_found_or_has_its_place() {
        let sorted = [2, 4, 6];
        for (wanted, want) in
            [(1, Err(0)), (2, Ok(0)), (3, Err(1)), (4, Ok(1)), (6, Ok(2)), (7, Err(3))]
        {
            assert_eq!(search(&sorted, |known| Ok(known.cmp(&wanted))), Ok(want), "{wanted}");
        }
        assert_eq!(search(&sorted, |_| Err(Errno::PERM)), Err(Errno::PERM));
    }
}
