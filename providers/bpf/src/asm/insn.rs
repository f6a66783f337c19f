//! One instruction of the kernel's BPF machine, as a word.
//!
//! Invariant: a word is a `struct bpf_insn` in this machine's byte order: code, two registers of
//! four bits, a signed offset of 16 bits, a signed immediate of 32. What an instruction has no use
//! for is 0, as the verifier wants it.

// Classes of instructions, and what the codes of each are made of.
pub(super) const LDX: u8 = 0x01;
pub(super) const ST: u8 = 0x02;
pub(super) const STX: u8 = 0x03;
pub(super) const JMP: u8 = 0x05;
pub(super) const ALU64: u8 = 0x07;
/// The operand is a register, not the immediate.
const X: u8 = 0x08;
pub(super) const MEM: u8 = 0x60;
pub(super) const ATOMIC: u8 = 0xc0;
pub(super) const WORD_32: u8 = 0x00;
pub(super) const WORD_64: u8 = 0x18;

pub(super) const LD_IMM64: u8 = 0x18;
pub(super) const CALL: u8 = 0x85;
pub(super) const EXIT: u8 = 0x95;
pub(super) const JCOND: u8 = 0xe5;
/// The immediate of an atomic exchange: `BPF_XCHG`, with `BPF_FETCH`.
pub(super) const XCHG: i32 = 0xe1;

// Meanings of the source register where an instruction has none.
pub(super) const PSEUDO_MAP_VALUE: u8 = 2;
pub(super) const PSEUDO_KFUNC_CALL: u8 = 2;

/// A register. A call takes its arguments from R1 on, spoils all to R5, and answers in R0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reg {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R6 = 6,
    R7 = 7,
    R8 = 8,
    R9 = 9,
    /// The end of the stack, of 512 bytes; read-only.
    R10 = 10,
}

/// A value: a register's, or an immediate one, which is extended with its sign to 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Reg(Reg),
    Imm(i32),
}

/// The kernel's `struct bpf_insn`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Insn {
    pub(super) code: u8,
    pub(super) dst: u8,
    pub(super) src: u8,
    pub(super) off: i16,
    pub(super) imm: i32,
}

impl Insn {
    /// One whose code says also what kind of operand it has.
    pub(super) fn of(code: u8, dst: Reg, operand: Operand) -> Self {
        let dst = dst as u8;
        match operand {
            Operand::Reg(src) => Self { code: code | X, dst, src: src as u8, ..Self::default() },
            Operand::Imm(imm) => Self { code, dst, imm, ..Self::default() },
        }
    }

    pub(super) fn word(self) -> u64 {
        // Two fields of bits: the first is the low half on a little-endian machine.
        let regs = match cfg!(target_endian = "big") {
            true => self.dst << 4 | self.src,
            false => self.src << 4 | self.dst,
        };
        let [off_0, off_1] = self.off.to_ne_bytes();
        let [imm_0, imm_1, imm_2, imm_3] = self.imm.to_ne_bytes();
        u64::from_ne_bytes([self.code, regs, off_0, off_1, imm_0, imm_1, imm_2, imm_3])
    }
}

impl From<Reg> for Operand {
    fn from(reg: Reg) -> Self {
        Self::Reg(reg)
    }
}

impl From<i32> for Operand {
    fn from(imm: i32) -> Self {
        Self::Imm(imm)
    }
}

/// Returns the id of the helper that this word calls, if it is a call of one.
pub(crate) fn helper_of(word: u64) -> Option<i32> {
    let [code, regs, _, _, imm @ ..] = word.to_ne_bytes();
    // Of which the destination must be zero: the source says who is called.
    (code == CALL && regs == 0).then(|| i32::from_ne_bytes(imm))
}
