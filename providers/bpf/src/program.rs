//! The program of the tick: it goes through the objects of a bulk reader and copies what a plan
//! keeps of each into its row.
//!
//! Invariant: it writes to its frame and to nothing else, and loads from kernel memory only by
//! means that survive any address: `bpf_probe_read_kernel`, or loads from what `bpf_rdonly_cast`
//! gave, of which a bad one gives 0. So that this is never taken for data, an object of which all
//! words are 0 must show its guard: the name that it bore when it was found. A row without data
//! says why.

use std::os::fd::BorrowedFd;

use vmstrobe_core::{Result, WORD_BYTES};

use super::asm::{Asm, Cond, KTIME_GET_NS, Label, PROBE_READ_KERNEL, Reg};
use super::frame::{BEGIN, END, MARKED, READ, SEQ, mark};
use super::offsets::{Cast, Task};
use super::slots::{START_BYTE, Slots, guard, slot};

use Reg::{R0, R1, R2, R3, R6, R7, R8, R9, R10};

// Words on the stack: where a probe puts what it read, and the thread that is looked at.
const SCRATCH: i16 = -8;
const TASK: i16 = -16;

/// Words that one cast makes readable.
const CAST_WORDS: usize = 3;

/// The proof that the loop over the rows ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loop {
    /// The instruction `may_goto` (Linux 6.9): the verifier goes through the body once or twice.
    MayGoto,
    /// A bound, up to which the verifier counts.
    Bounded,
}

/// The means to read kernel memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Plain loads (Linux 6.2): a word in about a ns.
    Cast(Cast),
    /// A helper's copy: some 20 ns each, and hardly more for a whole block.
    Probe,
}

/// The data that the program copies into a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// These words behind the slot's base, one after the other.
    Words(Vec<usize>),
    /// So many bytes behind the slot's base, from there on.
    Block { from: usize, bytes: usize },
    /// These words of the thread that last ran the vCPU, which is the slot's base.
    Thread(Task, Vec<ThreadWord>),
}

/// A word that is kept of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThreadWord {
    RunDelay,
    RunTime,
    Timeslices,
    ThreadId,
}

impl ThreadWord {
    /// All of them, in the order of the data of `sched`.
    pub(super) const ALL: [Self; 4] =
        [Self::RunDelay, Self::RunTime, Self::Timeslices, Self::ThreadId];
}

/// The parameters of a tick's program.
#[derive(Debug)]
pub(super) struct Tick<'a> {
    pub(super) frame: BorrowedFd<'a>,
    pub(super) slots: &'a Slots,
    /// The first row's offset in the frame, in bytes; `row_bytes` is the distance to the next row.
    pub(super) rows_byte: usize,
    pub(super) row_bytes: usize,
    pub(super) looping: Loop,
    pub(super) access: Access,
    pub(super) content: Content,
}

/// The labels that a row's instructions jump to.
#[derive(Clone, Copy)]
struct Exits {
    empty: Label,
    failed: Label,
    dead: Label,
    threadless: Label,
}

impl Tick<'_> {
    /// Writes the program. It takes no context and returns 0. R6 gathers the bits of a row's words,
    /// R7 points to the slot, R8 is the row's number, R9 points to the row.
    ///
    /// # Errors
    /// `TooLarge` if there is more to copy than jumps are long.
    pub(super) fn program(&self) -> Result<Vec<u64>> {
        let mut asm = Asm::new();
        let (next, done) = (asm.label(), asm.label());
        let exits = Exits {
            empty: asm.label(),
            failed: asm.label(),
            dead: asm.label(),
            threadless: asm.label(),
        };
        self.begin(&mut asm);
        match self.looping {
            // It is 0, of which the verifier must not know: what it does not know it need not
            // count.
            Loop::MayGoto => {
                asm.load_map_value(R1, self.slots.fd(), START_BYTE);
                asm.load(R8, R1, 0);
            }
            Loop::Bounded => asm.mov_imm(R8, 0),
        }
        asm.place(next);
        asm.jump_if(Cond::Ge, R8, self.slots.rows() as i32, done);
        if self.looping == Loop::MayGoto {
            asm.may_goto(done);
        }
        self.point(&mut asm);
        self.check_alive(&mut asm, exits);
        self.copy(&mut asm, exits);
        asm.store_imm(R9, 0, 0);
        // The incarnation, which only a row with data has.
        asm.add_imm(R8, 1);
        asm.store(R9, WORD_BYTES as i16, R8);
        asm.jump(next);
        self.marks(&mut asm, exits, next);
        asm.place(done);
        self.end(&mut asm);
        asm.mov_imm(R0, 0);
        asm.exit();
        asm.finish()
    }

    /// Makes the frame's number odd and notes the time.
    fn begin(&self, asm: &mut Asm) {
        self.header(asm, SEQ);
        asm.load(R1, R9, 0);
        asm.and_imm(R1, -2);
        asm.add_imm(R1, 1);
        asm.xchg(R9, 0, R1);
        self.header(asm, MARKED);
        asm.store_imm(R9, 0, 0);
        asm.call_helper(KTIME_GET_NS);
        self.header(asm, BEGIN);
        asm.store(R9, 0, R0);
    }

    /// Notes the time and what was done, and makes the number even.
    fn end(&self, asm: &mut Asm) {
        self.header(asm, READ);
        asm.store(R9, 0, R8);
        asm.call_helper(KTIME_GET_NS);
        self.header(asm, END);
        asm.store(R9, 0, R0);
        self.header(asm, SEQ);
        asm.load(R1, R9, 0);
        asm.add_imm(R1, 1);
        asm.xchg(R9, 0, R1);
    }

    /// R9 = that word of the frame's header.
    fn header(&self, asm: &mut Asm, word: usize) {
        asm.load_map_value(R9, self.frame, (word * WORD_BYTES) as u32);
    }

    /// R7 = the slot, R9 = the row.
    fn point(&self, asm: &mut Asm) {
        asm.mov(R1, R8);
        asm.lsh_imm(R1, slot::BYTES.ilog2() as i32);
        asm.load_map_value(R7, self.slots.fd(), Slots::FIRST_BYTE);
        asm.add(R7, R1);
        asm.mov(R1, R8);
        asm.mul_imm(R1, self.row_bytes as i32);
        asm.load_map_value(R9, self.frame, self.rows_byte as u32);
        asm.add(R9, R1);
    }

    /// Leaves the row if there is no object, or its VMM has ended.
    fn check_alive(&self, asm: &mut Asm, exits: Exits) {
        asm.load(R1, R7, slot::MM_USERS_AT);
        asm.jump_if(Cond::Eq, R1, 0, exits.empty);
        self.fetch(asm, size_of::<u32>(), exits);
        asm.jump_if(Cond::Eq, R1, 0, exits.dead);
    }

    fn copy(&self, asm: &mut Asm, exits: Exits) {
        match &self.content {
            Content::Words(words) => self.copy_words(asm, words, exits),
            Content::Block { from, bytes } => {
                asm.mov(R1, R9);
                asm.add_imm(R1, data_byte(0).into());
                asm.mov_imm(R2, *bytes as i32);
                asm.load(R3, R7, slot::BASE);
                asm.add_imm(R3, *from as i32);
                asm.call_helper(PROBE_READ_KERNEL);
                asm.jump_if(Cond::Ne, R0, 0, exits.failed);
            }
            Content::Thread(task, words) => self.copy_thread(asm, task, words, exits),
        }
    }

    fn copy_words(&self, asm: &mut Asm, words: &[usize], exits: Exits) {
        asm.mov_imm(R6, 0);
        let mut rest = words;
        let mut row_word = 0;
        while let [first, ..] = *rest {
            let is_next = |(at, word): (usize, &usize)| (*word == first + at).then_some(());
            let reach = rest.iter().take(CAST_WORDS).enumerate();
            let count = reach.map_while(is_next).count();
            asm.load(R1, R7, slot::BASE);
            asm.add_imm(R1, (first * WORD_BYTES) as i32);
            match self.access {
                Access::Cast(cast) => {
                    self.cast(asm, cast);
                    for at in 0..count {
                        asm.load(R1, R0, (at * WORD_BYTES) as i16);
                        asm.or(R6, R1);
                        asm.store(R9, data_byte(row_word + at), R1);
                    }
                }
                Access::Probe => {
                    asm.mov(R3, R1);
                    asm.mov(R1, R9);
                    asm.add_imm(R1, data_byte(row_word).into());
                    asm.mov_imm(R2, (count * WORD_BYTES) as i32);
                    asm.call_helper(PROBE_READ_KERNEL);
                    asm.jump_if(Cond::Ne, R0, 0, exits.failed);
                }
            }
            row_word += count;
            rest = &rest[count..];
        }
        if let Access::Cast(_) = self.access {
            self.check_guard(asm, exits);
        }
    }

    /// Leaves a row of zeros if its object does not show its guard.
    fn check_guard(&self, asm: &mut Asm, exits: Exits) {
        let is_data = asm.label();
        asm.jump_if(Cond::Ne, R6, 0, is_data);
        asm.mov(R6, R8);
        asm.lsh_imm(R6, guard::BYTES.ilog2() as i32);
        asm.load_map_value(R1, self.slots.fd(), self.slots.guards_byte());
        asm.add(R6, R1);
        asm.load(R1, R6, guard::AT);
        self.fetch(asm, WORD_BYTES, exits);
        asm.load(R2, R6, guard::VALUE);
        asm.jump_if(Cond::Ne, R1, R2, exits.failed);
        asm.place(is_data);
    }

    /// `vcpu->pid`, the first thread that has it, and words of that. It runs under RCU, which keeps
    /// a thread that is found here from being freed.
    fn copy_thread(&self, asm: &mut Asm, task: &Task, words: &[ThreadWord], exits: Exits) {
        asm.load(R1, R7, slot::BASE);
        asm.add_imm(R1, task.vcpu_pid as i32);
        self.fetch(asm, WORD_BYTES, exits);
        asm.jump_if(Cond::Eq, R1, 0, exits.threadless);
        asm.add_imm(R1, task.pid_first_task as i32);
        self.fetch(asm, WORD_BYTES, exits);
        asm.jump_if(Cond::Eq, R1, 0, exits.threadless);
        asm.add_imm(R1, -(task.task_pid_link as i32));
        asm.store(R10, TASK, R1);
        for (at, word) in words.iter().enumerate() {
            let (offset, bytes) = match word {
                ThreadWord::RunDelay => (task.run_delay, WORD_BYTES),
                ThreadWord::RunTime => (task.run_time, WORD_BYTES),
                ThreadWord::Timeslices => (task.timeslices, WORD_BYTES),
                ThreadWord::ThreadId => (task.task_pid, size_of::<u32>()),
            };
            asm.load(R1, R10, TASK);
            asm.add_imm(R1, offset as i32);
            self.fetch(asm, bytes, exits);
            asm.store(R9, data_byte(at), R1);
        }
    }

    /// R1 = what is at the address R1: 4 or 8 bytes.
    fn fetch(&self, asm: &mut Asm, bytes: usize, exits: Exits) {
        let (from, at) = match self.access {
            Access::Cast(cast) => {
                self.cast(asm, cast);
                (R0, 0)
            }
            Access::Probe => {
                asm.mov(R3, R1);
                asm.mov(R1, R10);
                asm.add_imm(R1, SCRATCH.into());
                asm.mov_imm(R2, bytes as i32);
                asm.call_helper(PROBE_READ_KERNEL);
                asm.jump_if(Cond::Ne, R0, 0, exits.failed);
                (R10, SCRATCH)
            }
        };
        match bytes {
            WORD_BYTES => asm.load(R1, from, at),
            _ => asm.load_u32(R1, from, at),
        }
    }

    /// R0 = the address R1, from which 24 bytes may be loaded. The kernel makes a move of it.
    fn cast(&self, asm: &mut Asm, cast: Cast) {
        asm.mov_imm(R2, cast.struct_id.cast_signed());
        asm.call_kfunc(cast.kfunc);
    }

    /// Writes the code that marks a row without data: its reason, and no incarnation.
    fn marks(&self, asm: &mut Asm, exits: Exits, next: Label) {
        let marked = asm.label();
        let follows_threads = matches!(self.content, Content::Thread(..));
        // Loads through a cast never fail, and a thread has no guard.
        let can_fail = !(follows_threads && matches!(self.access, Access::Cast(_)));
        for (exit, why, is_reached) in [
            (exits.empty, mark::EMPTY, true),
            (exits.dead, mark::DEAD, true),
            (exits.failed, mark::FAILED, can_fail),
            (exits.threadless, mark::THREADLESS, follows_threads),
        ] {
            // The verifier refuses what cannot be reached.
            if !is_reached {
                continue;
            }
            asm.place(exit);
            asm.store_imm(R9, 0, why as i32);
            asm.jump(marked);
        }
        asm.place(marked);
        asm.store_imm(R9, WORD_BYTES as i16, 0);
        self.header(asm, MARKED);
        asm.load(R1, R9, 0);
        asm.add_imm(R1, 1);
        asm.store(R9, 0, R1);
        asm.add_imm(R8, 1);
        asm.jump(next);
    }
}

/// Returns the offset in bytes of a data word in its row, behind the two lock words.
fn data_byte(word: usize) -> i16 {
    // Rows of words are short: see `bulk::WORDS_MAX`.
    ((super::frame::LOCK_WORDS + word) * WORD_BYTES) as i16
}

#[cfg(test)]
mod tests;
