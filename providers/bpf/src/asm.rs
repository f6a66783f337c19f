//! Writes programs for the kernel's BPF machine: the few instructions that ours need, with labels.
//!
//! Invariant: whatever is asked for becomes exactly the words that the kernel's
//! `Documentation/bpf/standardization/instruction-set.rst` gives for it, or an error of
//! [`Asm::finish`]; never another program. Whether a program is a good one is the verifier's to
//! say.

use std::os::fd::{AsRawFd, BorrowedFd};

use vmstrobe_core::{Error, ErrorKind, Result};

use insn::*;
pub(crate) use insn::{Operand, Reg, helper_of};

mod insn;

/// Helper `bpf_ktime_get_ns()`: CLOCK_MONOTONIC, in ns.
pub(crate) const KTIME_GET_NS: i32 = 5;
/// Helper `bpf_get_current_task()`: the address of the caller's `struct task_struct`.
pub(crate) const GET_CURRENT_TASK: i32 = 35;
/// Helper `bpf_probe_read_kernel(to, bytes, from)`: 0, or a negative errno and `to` zeroed.
pub(crate) const PROBE_READ_KERNEL: i32 = 113;
/// All of these. None writes to the memory of a process, or to its descriptors.
pub(crate) const HELPERS: [i32; 3] = [KTIME_GET_NS, GET_CURRENT_TASK, PROBE_READ_KERNEL];

/// The condition of a jump: a comparison of two unsigned 64-bit values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cond {
    Eq = 0x10,
    Gt = 0x20,
    Ge = 0x30,
    Ne = 0x50,
}

/// An arithmetic operation on 64-bit values.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Alu {
    Add = 0x00,
    Mul = 0x20,
    Or = 0x40,
    And = 0x50,
    Lsh = 0x60,
    Rsh = 0x70,
    Mov = 0xb0,
}

/// A place in the program of the [`Asm`] that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// A program that is being written.
#[derive(Debug, Default)]
pub(crate) struct Asm {
    words: Vec<u64>,
    /// The instruction that each label stands before.
    places: Vec<Option<usize>>,
    jumps: Vec<Jump>,
    placed_twice: bool,
}

/// A jump whose offset is not known yet.
#[derive(Debug)]
struct Jump {
    /// The index of its word in the program.
    at: usize,
    insn: Insn,
    to: Label,
}

impl Asm {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A label that is nowhere yet.
    pub(crate) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Puts the label before the next instruction. It must be nowhere yet.
    pub(crate) fn place(&mut self, label: Label) {
        match self.places.get_mut(label.0) {
            Some(place @ None) => *place = Some(self.words.len()),
            // Another program's, of which a jump to it will say so.
            None => {}
            Some(Some(_)) => self.placed_twice = true,
        }
    }

    pub(crate) fn mov(&mut self, dst: Reg, src: Reg) {
        self.alu(Alu::Mov, dst, src.into());
    }

    pub(crate) fn mov_imm(&mut self, dst: Reg, imm: i32) {
        self.alu(Alu::Mov, dst, imm.into());
    }

    pub(crate) fn add(&mut self, dst: Reg, src: Reg) {
        self.alu(Alu::Add, dst, src.into());
    }

    pub(crate) fn add_imm(&mut self, dst: Reg, imm: i32) {
        self.alu(Alu::Add, dst, imm.into());
    }

    pub(crate) fn mul_imm(&mut self, dst: Reg, imm: i32) {
        self.alu(Alu::Mul, dst, imm.into());
    }

    pub(crate) fn and_imm(&mut self, dst: Reg, imm: i32) {
        self.alu(Alu::And, dst, imm.into());
    }

    pub(crate) fn or(&mut self, dst: Reg, src: Reg) {
        self.alu(Alu::Or, dst, src.into());
    }

    /// `bits` from 0 to 63.
    pub(crate) fn lsh_imm(&mut self, dst: Reg, bits: i32) {
        self.alu(Alu::Lsh, dst, bits.into());
    }

    /// Shifts zeros in. `bits` from 0 to 63.
    pub(crate) fn rsh_imm(&mut self, dst: Reg, bits: i32) {
        self.alu(Alu::Rsh, dst, bits.into());
    }

    /// `dst = *(u64 *)(src + off)`.
    pub(crate) fn load(&mut self, dst: Reg, src: Reg, off: i16) {
        self.memory(LDX | MEM | WORD_64, dst, src, off);
    }

    /// `dst = *(u32 *)(src + off)`, extended with zeros.
    pub(crate) fn load_u32(&mut self, dst: Reg, src: Reg, off: i16) {
        self.memory(LDX | MEM | WORD_32, dst, src, off);
    }

    /// `*(u64 *)(dst + off) = src`.
    pub(crate) fn store(&mut self, dst: Reg, off: i16, src: Reg) {
        self.memory(STX | MEM | WORD_64, dst, src, off);
    }

    /// `*(u64 *)(dst + off) = imm`, extended with its sign.
    pub(crate) fn store_imm(&mut self, dst: Reg, off: i16, imm: i32) {
        self.push(Insn { code: ST | MEM | WORD_64, dst: dst as u8, off, imm, ..Insn::default() });
    }

    /// Exchanges `src` and `*(u64 *)(dst + off)`, as one step that no access is moved across.
    pub(crate) fn xchg(&mut self, dst: Reg, off: i16, src: Reg) {
        let (dst, src) = (dst as u8, src as u8);
        self.push(Insn { code: STX | ATOMIC | WORD_64, dst, src, off, imm: XCHG });
    }

    pub(crate) fn jump(&mut self, to: Label) {
        self.push_jump(Insn { code: JMP, ..Insn::default() }, to);
    }

    /// Jumps if `dst` is so, compared with the operand.
    pub(crate) fn jump_if(&mut self, is: Cond, dst: Reg, than: impl Into<Operand>, to: Label) {
        let insn = Insn::of(JMP | is as u8, dst, than.into());
        self.push_jump(insn, to);
    }

    /// Jumps at the latest when the loop that it stands in has lasted long enough for the kernel
    /// (8 million times, or 250 ms), so that the verifier asks for no other bound (Linux 6.9).
    pub(crate) fn may_goto(&mut self, to: Label) {
        self.push_jump(Insn { code: JCOND, ..Insn::default() }, to);
    }

    /// Calls one of the kernel's helpers, such as [`KTIME_GET_NS`].
    pub(crate) fn call_helper(&mut self, id: i32) {
        self.push(Insn { code: CALL, imm: id, ..Insn::default() });
    }

    /// Calls a function of the kernel, not of a module, by its id in vmlinux BTF.
    pub(crate) fn call_kfunc(&mut self, btf_id: u32) {
        let imm = btf_id.cast_signed();
        self.push(Insn { code: CALL, src: PSEUDO_KFUNC_CALL, imm, ..Insn::default() });
    }

    /// `dst` = the address of that byte of the value of an array map of one element. The program
    /// holds the map from when it is loaded, until when its descriptor has to stay open.
    pub(crate) fn load_map_value(&mut self, dst: Reg, map: BorrowedFd<'_>, offset: u32) {
        let (dst, src, imm) = (dst as u8, PSEUDO_MAP_VALUE, map.as_raw_fd());
        self.push(Insn { code: LD_IMM64, dst, src, off: 0, imm });
        // The only kind of two words: the second has nothing but another immediate.
        self.push(Insn { imm: offset.cast_signed(), ..Insn::default() });
    }

    /// Ends the program; R0 is what it returns.
    pub(crate) fn exit(&mut self) {
        self.push(Insn { code: EXIT, ..Insn::default() });
    }

    /// The program's words, with the offsets of its jumps.
    ///
    /// # Errors
    /// `TooLarge` if a jump goes further than 16 bits say, `Malformed` if a label was not placed,
    /// was placed twice or is another program's.
    pub(crate) fn finish(mut self) -> Result<Vec<u64>> {
        let malformed =
            |what| Err(Error::new(ErrorKind::Malformed, format!("BPF program: {what}")));
        if self.placed_twice {
            return malformed("a label is in two places");
        }
        for Jump { at, insn, to } in self.jumps {
            let Some(&Some(place)) = self.places.get(to.0) else {
                return malformed("a jump to a label that is nowhere");
            };
            // Counted from the next word, and in words: what is two words long counts as two.
            let words = place as i64 - (at as i64 + 1);
            let off = i16::try_from(words).map_err(|_| {
                let text =
                    format!("BPF program: a jump over {words} words: ask for fewer statistics");
                Error::new(ErrorKind::TooLarge, text)
            })?;
            self.words[at] = Insn { off, ..insn }.word();
        }
        Ok(self.words)
    }

    fn alu(&mut self, alu: Alu, dst: Reg, operand: Operand) {
        self.push(Insn::of(ALU64 | alu as u8, dst, operand));
    }

    fn memory(&mut self, code: u8, dst: Reg, src: Reg, off: i16) {
        self.push(Insn { code, dst: dst as u8, src: src as u8, off, imm: 0 });
    }

    fn push(&mut self, insn: Insn) {
        self.words.push(insn.word());
    }

    fn push_jump(&mut self, insn: Insn, to: Label) {
        self.jumps.push(Jump { at: self.words.len(), insn, to });
        self.push(insn);
    }
}

#[cfg(test)]
mod tests;
