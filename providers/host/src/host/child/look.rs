//! One look at a process: which of its descriptors are KVM's, and which are memory of a table's
//! name.
//!
//! Invariant: as of the whole helper: no allocation, no lock; and a bounded number of descriptors.

use std::cmp::Ordering;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::{Errno, pread};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::talk::{Path, fdinfo, own_link, send};
use super::{BUCKETS, Helper, LINK_BYTES, MAX_RECORDS, NONE, Scratch, TABLE_LINK, parse};
use crate::host::link::KvmLink;
use crate::host::wire::{self, Record, Request};
use crate::sys::{self, Place};

/// The most descriptors of one process that are looked at. A VM of 1024 vCPUs has some 3000.
const MAX_FDS: usize = 1 << 16;
/// The most different files of one link: of vCPUs that bear one number, say, each of another VM.
pub const MAX_SAME_LINK: usize = 256;
/// So often the helper says that it is still at work, in descriptors looked at.
const BUSY_EVERY: usize = 4096;
/// The position in the file by which a descriptor is told that a reader keeps of another's table:
/// nothing reads or writes there, and nobody has it by chance.
pub const READERS_POSITION: u64 = u64::from_ne_bytes(*b"vmreader") & i64::MAX as u64;
/// The offset of `id_offset` in the header of statistics (`struct kvm_stats_header`).
const ID_OFFSET_AT: u64 = 12;
/// The most bytes of a statistics descriptor's id that are read.
const ID_BYTES: usize = 64;

/// The link of the memfd that a process holds if it reads others' statistics; see `Host`.
const READER_LINK: &[u8] = b"/memfd:vmstrobe-reader (deleted)";
/// One look at a process.
pub(super) struct Look<'a> {
    helper: &'a Helper<'a>,
    request: Request,
    pidfd: Option<OwnedFd>,
    flags: u32,
    seen: usize,
    is_promising: bool,
}

impl<'a> Look<'a> {
    pub(super) fn new(helper: &'a Helper<'a>, request: Request) -> Self {
        Self { helper, request, pidfd: None, flags: 0, seen: 0, is_promising: false }
    }

    /// Returns the flags of the whole process: [`wire::CROWDED`] and [`wire::READER`].
    pub(super) fn flags(&self) -> u32 {
        self.flags
    }

    /// Collects the descriptors of KVM's, and sends those of tables.
    ///
    /// # Errors
    /// If there is no such process, or we may not look into it.
    pub(super) fn list(&mut self, scratch: &mut Scratch) -> Result<(), Errno> {
        let mut path = Path::default();
        let path = path.of(format_args!("{}/fd", self.request.pid)).ok_or(Errno::NAMETOOLONG)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(self.helper.proc, path, flags, Mode::empty())?;
        let (mut entries, mut buffer) = ([MaybeUninit::uninit(); 8192], [0; LINK_BYTES]);
        let mut entries = RawDir::new(&dir, &mut entries);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(fd) = number(entry.file_name().to_bytes()) else { continue };
            if self.has_seen_enough(scratch) {
                self.flags |= wire::CROWDED;
                break;
            }
            match readlinkat_raw(&dir, entry.file_name(), &mut buffer[..]) {
                Ok(bytes) => {
                    let link = buffer.get(..bytes).unwrap_or_default();
                    self.note(fd, link, scratch)?;
                }
                // Closed meanwhile.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn has_seen_enough(&mut self, scratch: &Scratch) -> bool {
        self.seen += 1;
        if self.seen.is_multiple_of(BUSY_EVERY) {
            let _ = self.helper.say(Record { kind: wire::BUSY, ..Record::default() });
        }
        let limit = self.request.limit as usize;
        let most = if self.is_promising { MAX_FDS } else { limit.min(MAX_FDS) };
        self.seen > most || scratch.records.len() >= MAX_RECORDS
    }

    fn note(&mut self, fd: i32, link: &[u8], scratch: &mut Scratch) -> Result<(), Errno> {
        if link == READER_LINK {
            self.flags |= wire::READER;
        } else if let Some(name) = link.strip_prefix(TABLE_LINK) {
            self.note_table(fd, name)?;
        } else if let Some(of) = parse(link) {
            self.is_promising = true;
            self.note_kvm(fd, of, scratch);
        }
        Ok(())
    }

    /// Sends what is memory of a table's name, whichever file may be there a moment later.
    fn note_table(&mut self, fd: i32, name: &[u8]) -> Result<(), Errno> {
        let mut path = Path::default();
        let path = path.of(format_args!("{}/fdinfo/{fd}", self.request.pid));
        let Some(info) = path.and_then(|path| fdinfo(self.helper.proc, path)) else {
            return Ok(());
        };
        let is_readers = info.position == READERS_POSITION;
        if Some(info.mount) == self.helper.memory && !is_readers {
            self.is_promising = true;
            let record = Record { kind: wire::TABLE, fd, inode: info.inode, ..Record::default() };
            send(self.helper.socket, &[bytemuck::bytes_of(&record.words()), name], None)?;
        }
        Ok(())
    }

    fn note_kvm(&mut self, fd: i32, link: KvmLink, scratch: &mut Scratch) {
        let (kind, id) = wire::coded(link);
        let bucket = (id as usize * 5 + kind as usize) % BUCKETS;
        let at = scratch.records.len();
        let mut record = Record { kind, id, fd, file: at as u32, ..Record::default() };
        match self.duplicate_of(&record, bucket, scratch) {
            Ok(Some(first)) => (record.file, record.maker) = (first.file, first.maker),
            Ok(None) => {
                if link.is_stats() && self.request.flags & wire::WITH_MAKERS != 0 {
                    record.maker = self.maker(fd, link).unwrap_or(0);
                }
                // The first of a file is what later ones are compared with.
                let (last, before) = (scratch.last.get_mut(bucket), scratch.before.get_mut(at));
                if let (Some(last), Some(before)) = (last, before) {
                    *before = std::mem::replace(last, at as u32);
                }
            }
            Err(()) => {
                self.flags |= wire::CROWDED;
                return;
            }
        }
        // There is room: `has_seen_enough` has looked.
        if scratch.records.len() < scratch.records.capacity() {
            scratch.records.push(record);
        }
    }

    /// The first descriptor of the same file. An error if too many different ones bear that link.
    fn duplicate_of(
        &self,
        record: &Record,
        bucket: usize,
        scratch: &Scratch,
    ) -> Result<Option<Record>, ()> {
        let pid = self.request.pid;
        let mut at = scratch.last.get(bucket).copied().unwrap_or(NONE);
        let mut same_link = 0;
        while let Some(&known) = scratch.records.get(at as usize) {
            if (known.kind, known.id) == (record.kind, record.id) {
                let [a, b] = [known.fd, record.fd].map(|fd| Place { pid, fd });
                if sys::compare(a, b) == Ok(Ordering::Equal) {
                    return Ok(Some(known));
                }
                same_link += 1;
            }
            at = scratch.before.get(at as usize).copied().unwrap_or(NONE);
        }
        if same_link < MAX_SAME_LINK { Ok(None) } else { Err(()) }
    }

    /// The thread that made what these statistics are of, as their id says.
    fn maker(&mut self, fd: i32, link: KvmLink) -> Option<u32> {
        if self.pidfd.is_none() {
            let pid = Pid::from_raw(self.request.pid.cast_signed())?;
            self.pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        }
        let pidfd = self.pidfd.as_ref()?;
        let stats = pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty()).ok()?;
        let mut buffer = [0; LINK_BYTES];
        if parse(own_link(self.helper.proc, &stats, &mut buffer).ok()?) != Some(link) {
            return None;
        }
        let (mut id_offset, mut id) = ([0; 4], [0; ID_BYTES]);
        pread(&stats, &mut id_offset[..], ID_OFFSET_AT).ok()?;
        let got = pread(&stats, &mut id[..], u32::from_ne_bytes(id_offset).into()).ok()?;
        maker_of(id.get(..got)?)
    }
}

/// The thread in `kvm-<thread>` or `kvm-<thread>/vcpu-<n>`.
pub(super) fn maker_of(id: &[u8]) -> Option<u32> {
    let rest = id.strip_prefix(b"kvm-")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    number(rest.get(..end)?).and_then(|number| u32::try_from(number).ok())
}

fn number(digits: &[u8]) -> Option<i32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_who_made_it() {
        for (id, want) in [
            (&b"kvm-4711\0\0"[..], Some(4711)),
            (b"kvm-4711/vcpu-3\0", Some(4711)),
            (b"kvm-7", Some(7)),
            (b"kvm-\0", None),
            (b"kvm-99999999999\0", None),
            (b"xyz-1\0", None),
            (b"", None),
        ] {
            assert_eq!(maker_of(id), want, "{id:?}");
        }
    }
}
