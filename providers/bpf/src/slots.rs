//! The array of the kernel addresses of a bulk reader's objects, and the program that fills it.
//!
//! The program finds an object by a descriptor of this process, and takes it only if the file is of
//! KVM's kind: its `f_op` must be that which a descriptor of our own guest showed once ([`Kinds`]).
//! So no symbol of the kernel is needed, and no other file's `private_data` is ever taken for a
//! vCPU.
//!
//! Invariant: user space cannot write the arrays, and never reads them, so that it knows no address
//! of the kernel. Slots are filled before the tick's program runs, never after, and live as long as
//! it does; the owner of that program keeps the descriptors open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use vmstrobe_core::{Error, ErrorKind, Result, WORD_BYTES};

use super::asm::{Asm, Cond, GET_CURRENT_TASK, Label, PROBE_READ_KERNEL, Reg};
use super::offsets::Offsets;
use super::sys::{ArrayMap, ArrayUse, Program, ProgramKind, ProgramSpec, refused};

use Reg::{R0, R1, R2, R3, R6, R7, R8, R9, R10};

/// A word that is 0, of which the verifier does not know that.
pub(super) const START_BYTE: u32 = 2 * WORD_BYTES as u32;

/// A slot: where its words are, in bytes. Of 16, so that four of them are a line of the cache.
pub(super) mod slot {
    /// The address from which a row's words are counted.
    pub(in super::super) const BASE: i16 = 0;
    /// The address of the VMM's `mm_users`, which is 0 once it has ended; 0 in an empty slot.
    pub(in super::super) const MM_USERS_AT: i16 = 8;
    pub(in super::super) const BYTES: u32 = 16;
}

/// A guard: where its words are, in bytes. Guards lie apart, as they are seldom looked at.
pub(super) mod guard {
    /// The address of the beginning of the object's name, `stats_id`.
    pub(in super::super) const AT: i16 = 0;
    /// The word that must be at that address.
    pub(in super::super) const VALUE: i16 = 8;
    pub(in super::super) const BYTES: u32 = 16;
}

/// A scratch word on the stack.
const SCRATCH: i16 = -8;

// Offsets in bytes in the program's context: a descriptor, whether it is an object fd, the row.
const CTX_FD: i16 = 0;
const CTX_KIND: i16 = 8;
const CTX_ROW: i16 = 16;
/// The value in the place of a row that has the program note how files of that kind are told.
const LEARN: u64 = u64::MAX;

// The answers of the program, beside 0.
const NO_FILE: u32 = 1;
const OTHER_FILE: u32 = 2;
const UNREADABLE: u32 = 3;

/// The kind of data that is read of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The statistics of a VM.
    Vm,
    /// The statistics of a vCPU.
    Vcpu,
    /// The thread that runs a vCPU.
    Thread,
}

/// The marks by which files of KVM are told from all others: what they showed of a guest of our
/// own, which need not be there any more. (A module that is loaded anew has other addresses; then
/// no file is taken.)
#[derive(Debug)]
pub(super) struct Kinds {
    map: ArrayMap,
}

impl Kinds {
    /// Makes the array, in which nothing is known yet.
    ///
    /// # Errors
    /// `Denied` if we may not, `Io` if there is no memory.
    pub(super) fn new() -> Result<Self> {
        let map = ArrayMap::create("vmstrobe_kinds", Self::BYTES, ArrayUse::ReadOnly);
        Ok(Self { map: map.map_err(refused)? })
    }

    /// The bytes for a stats fd and an object fd, of a VM and of a vCPU.
    const BYTES: u32 = 4 * WORD_BYTES as u32;

    /// Returns the offset in bytes of the two words of that subject.
    fn byte(subject: Subject) -> u32 {
        match subject {
            Subject::Vm => 0,
            Subject::Vcpu | Subject::Thread => 2 * WORD_BYTES as u32,
        }
    }

    /// Another file in its place, for programs that are looked at and not loaded.
    #[cfg(test)]
    pub(super) fn stand_in(file: std::os::fd::OwnedFd) -> Self {
        Self { map: ArrayMap::stand_in(file) }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Notes how files of that subject are told, by two of our own guest: of the statistics and the
    /// object fd. What is known stays known.
    ///
    /// # Errors
    /// `Unsupported` if they cannot be followed; [`Program::load`]'s.
    pub(super) fn learn(
        &self,
        offsets: &Offsets,
        subject: Subject,
        files: [BorrowedFd<'_>; 2],
    ) -> Result<()> {
        let program = Slots::new(1)?.finder(offsets, subject, self)?;
        for (is_object_fd, fd) in [false, true].into_iter().zip(files) {
            let file = KvmFile { fd, is_object_fd };
            check(file, find(&program, file, LEARN)?)?;
        }
        Ok(())
    }
}

/// A descriptor of KVM's in this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvmFile<'a> {
    pub(super) fd: BorrowedFd<'a>,
    /// The VM's or vCPU's own, and not that of its statistics.
    pub(super) is_object_fd: bool,
}

/// The array, with room for so many rows.
#[derive(Debug)]
pub(super) struct Slots {
    map: ArrayMap,
    rows: usize,
}

impl Slots {
    /// The offset of the first slot: behind the zero, on the next line of the cache.
    pub(super) const FIRST_BYTE: u32 = 64;

    /// An array of empty slots.
    ///
    /// # Errors
    /// `Denied` if we may not, `Io` if there is no memory.
    pub(super) fn new(rows: usize) -> Result<Self> {
        let bytes = Self::FIRST_BYTE + rows as u32 * (slot::BYTES + guard::BYTES);
        let map = ArrayMap::create("vmstrobe_slots", bytes, ArrayUse::ReadOnly);
        Ok(Self { map: map.map_err(refused)?, rows })
    }

    /// Another file in its place, for programs that are looked at and not loaded.
    #[cfg(test)]
    pub(super) fn stand_in(file: std::os::fd::OwnedFd, rows: usize) -> Self {
        Self { map: ArrayMap::stand_in(file), rows }
    }

    /// Returns the offset of the first guard, behind the slots.
    pub(super) fn guards_byte(&self) -> u32 {
        Self::FIRST_BYTE + self.rows as u32 * slot::BYTES
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Fills the slots with the objects behind these files; `None` leaves one empty.
    ///
    /// # Errors
    /// `Unsupported` if a file is not of that kind, or cannot be followed; [`Program::load`]'s.
    pub(super) fn fill(
        &self,
        offsets: &Offsets,
        subject: Subject,
        kinds: &Kinds,
        files: &[Option<KvmFile<'_>>],
    ) -> Result<()> {
        let program = self.finder(offsets, subject, kinds)?;
        for (row, file) in (0..).zip(files) {
            if let Some(file) = file {
                check(*file, find(&program, *file, row)?)?;
            }
        }
        Ok(())
    }

    /// Whether this file is taken for one of that kind, whatever comes of following it.
    ///
    /// # Errors
    /// As [`Slots::fill`].
    pub(super) fn takes(
        &self,
        offsets: &Offsets,
        subject: Subject,
        kinds: &Kinds,
        file: KvmFile<'_>,
    ) -> Result<bool> {
        let program = self.finder(offsets, subject, kinds)?;
        Ok(find(&program, file, 0)? != OTHER_FILE)
    }

    fn finder(&self, offsets: &Offsets, subject: Subject, kinds: &Kinds) -> Result<Program> {
        let insns = self.program(offsets, subject, kinds)?;
        let spec = ProgramSpec { kind: ProgramKind::Syscall, name: "vmstrobe_find", insns: &insns };
        Program::load(&spec).map_err(Into::into)
    }

    /// The program that takes one descriptor. R6 is the context, R7 what it has come to.
    fn program(&self, offsets: &Offsets, subject: Subject, kinds: &Kinds) -> Result<Vec<u64>> {
        let mut asm = Asm::new();
        let [no_file, other, unreadable, learn] = [(); 4].map(|()| asm.label());
        asm.mov(R6, R1);
        self.to_file(&mut asm, offsets, no_file, unreadable);
        read(&mut asm, R8, R7, offsets.files.file_f_op, unreadable);
        read(&mut asm, R7, R7, offsets.files.file_private_data, unreadable);
        asm.load(R9, R6, CTX_KIND);
        asm.jump_if(Cond::Gt, R9, 1, no_file);
        asm.lsh_imm(R9, WORD_BYTES.ilog2() as i32);
        asm.load_map_value(R1, kinds.fd(), Kinds::byte(subject));
        asm.add(R1, R9);
        asm.load(R2, R1, 0);
        asm.load(R3, R6, CTX_ROW);
        asm.jump_if(Cond::Eq, R3, -1, learn);
        asm.jump_if(Cond::Ne, R2, R8, other);
        asm.jump_if(Cond::Ge, R3, self.rows as i32, no_file);
        self.note(&mut asm, offsets, subject, unreadable);
        answer(&mut asm, 0);
        asm.place(learn);
        // Once: what is known stays known.
        asm.jump_if(Cond::Ne, R2, 0, other);
        asm.store(R1, 0, R8);
        answer(&mut asm, 0);
        for (label, code) in [(no_file, NO_FILE), (other, OTHER_FILE), (unreadable, UNREADABLE)] {
            asm.place(label);
            answer(&mut asm, code);
        }
        asm.finish()
    }

    /// R7 = the open file of that number.
    fn to_file(&self, asm: &mut Asm, offsets: &Offsets, no_file: Label, unreadable: Label) {
        let files = &offsets.files;
        asm.call_helper(GET_CURRENT_TASK);
        asm.mov(R7, R0);
        read(asm, R7, R7, files.task_files, unreadable);
        read(asm, R7, R7, files.files_fdt, unreadable);
        read(asm, R8, R7, files.fdt_max_fds, unreadable);
        // Of 32 bits, whatever stands behind them.
        asm.lsh_imm(R8, 32);
        asm.rsh_imm(R8, 32);
        asm.load(R9, R6, CTX_FD);
        asm.jump_if(Cond::Ge, R9, R8, no_file);
        read(asm, R7, R7, files.fdt_fd, unreadable);
        asm.lsh_imm(R9, WORD_BYTES.ilog2() as i32);
        asm.add(R7, R9);
        read(asm, R7, R7, 0, unreadable);
        asm.jump_if(Cond::Eq, R7, 0, no_file);
    }

    /// Fills the slot and the guard of the row R3 for the object at R7.
    fn note(&self, asm: &mut Asm, offsets: &Offsets, subject: Subject, unreadable: Label) {
        let holder = match subject {
            Subject::Vm => &offsets.vm,
            Subject::Vcpu | Subject::Thread => &offsets.vcpu,
        };
        asm.lsh_imm(R3, guard::BYTES.ilog2() as i32);
        asm.load_map_value(R9, self.fd(), self.guards_byte());
        asm.add(R9, R3);
        asm.mov(R8, R7);
        asm.add_imm(R8, holder.stats_id as i32);
        asm.store(R9, guard::AT, R8);
        read(asm, R8, R7, holder.stats_id, unreadable);
        asm.jump_if(Cond::Eq, R8, 0, unreadable);
        asm.store(R9, guard::VALUE, R8);
        asm.mov(R8, R7);
        if subject != Subject::Vm {
            read(asm, R8, R8, offsets.vcpu_kvm, unreadable);
        }
        read(asm, R8, R8, offsets.kvm_mm, unreadable);
        asm.jump_if(Cond::Eq, R8, 0, unreadable);
        asm.load(R3, R6, CTX_ROW);
        // Asked again for the verifier, which has forgotten it.
        asm.jump_if(Cond::Ge, R3, self.rows as i32, unreadable);
        asm.lsh_imm(R3, slot::BYTES.ilog2() as i32);
        asm.load_map_value(R9, self.fd(), Self::FIRST_BYTE);
        asm.add(R9, R3);
        asm.add_imm(R8, offsets.mm_users as i32);
        asm.store(R9, slot::MM_USERS_AT, R8);
        match subject {
            Subject::Thread => asm.mov(R8, R7),
            _ if holder.stat_is_pointer => read(asm, R8, R7, holder.stat, unreadable),
            _ => {
                asm.mov(R8, R7);
                asm.add_imm(R8, holder.stat as i32);
            }
        }
        asm.store(R9, slot::BASE, R8);
    }
}

/// `to` = the word that far behind the address `from`.
fn read(asm: &mut Asm, to: Reg, from: Reg, offset: u32, unreadable: Label) {
    asm.mov(R1, R10);
    asm.add_imm(R1, SCRATCH.into());
    asm.mov_imm(R2, WORD_BYTES as i32);
    asm.mov(R3, from);
    asm.add_imm(R3, offset as i32);
    asm.call_helper(PROBE_READ_KERNEL);
    asm.jump_if(Cond::Ne, R0, 0, unreadable);
    asm.load(to, R10, SCRATCH);
}

fn answer(asm: &mut Asm, code: u32) {
    asm.mov_imm(R0, code as i32);
    asm.exit();
}

/// Runs the program for this file and row, and returns its answer: 0, or a code that says why not.
fn find(program: &Program, file: KvmFile<'_>, row: u64) -> Result<u32> {
    let mut ctx = [file.fd.as_raw_fd() as u64, u64::from(file.is_object_fd), row];
    program.run(&mut ctx).map_err(refused)
}

fn check(file: KvmFile<'_>, answer: u32) -> Result<()> {
    let why = match answer {
        0 => return Ok(()),
        NO_FILE => "the descriptor is not open",
        OTHER_FILE => "the file is not KVM's",
        _ => "an address in the kernel could not be read",
    };
    let what = if file.is_object_fd { "an object fd" } else { "a stats fd" };
    let text = format!("the BPF program did not find the object behind {what}: {why}");
    Err(Error::new(ErrorKind::Unsupported, text))
}

#[cfg(test)]
mod tests;
