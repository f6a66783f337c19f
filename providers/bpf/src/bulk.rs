//! One bulk reader: the objects of a source, found once, and the program that reads them all in one
//! call.
//!
//! Invariant: only the owner of a bulk reader runs its program, so that a frame has one writer. The
//! program is gone before the descriptors that keep its objects alive: the owner drops them after
//! the bulk reader.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use vmstrobe_core::seq::AtomicU64;
use vmstrobe_core::{Error, ErrorKind, ReadPlan, Result, WORD_BYTES};

use super::frame::{BEGIN, END, Frame, MARKED, READ, SEQ, Shape};
use super::offsets::Offsets;
use super::program::{Access, Content, Loop, ThreadWord, Tick};
use super::slots::{Kinds, KvmFile, Slots, Subject};
use super::sys::{Program, ProgramKind, ProgramSpec, Writer, refused};

/// The most rows of one bulk reader. More rows take several readers, so that none holds a CPU for
/// long.
pub(super) const MAX_ROWS: usize = 4096;
/// The most rows of one bulk reader if the verifier goes through them one by one. It gives up after
/// 1,000,000 instructions, or 8192 branches that it has yet to come back to; a row has up to 550
/// instructions and 12 branches.
const BOUNDED_ROWS_MAX: usize = 512;

/// The most words of a row that are loaded one by one; of more, the whole span is copied, which is
/// as quick from there on (measured: 81 ns against 76 for a block of 140).
const WORDS_MAX: usize = 64;
/// The most words of a row that are loaded one by one if each may take a call of a helper.
const PROBED_WORDS_MAX: usize = 3;

/// The instructions that a kernel takes, best first; found by trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) looping: Loop,
    pub(super) access: Access,
}

impl Step {
    /// All that these types allow.
    pub(super) fn all(offsets: &Offsets) -> Vec<Self> {
        let cast = offsets.cast.map(Access::Cast);
        let with = |looping, access: Option<_>| access.map(|access| Self { looping, access });
        [
            with(Loop::MayGoto, cast),
            with(Loop::Bounded, cast),
            with(Loop::Bounded, Some(Access::Probe)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The most rows that one bulk reader can have so.
    pub(super) fn rows_max(self) -> usize {
        match self.looping {
            Loop::MayGoto => MAX_ROWS,
            Loop::Bounded => BOUNDED_ROWS_MAX,
        }
    }

    /// As users are told.
    pub(super) fn name(self) -> &'static str {
        match (self.looping, self.access) {
            (Loop::MayGoto, Access::Cast(_)) => "may_goto, rdonly_cast",
            (Loop::Bounded, Access::Cast(_)) => "bounded loop, rdonly_cast",
            (_, Access::Probe) => "bounded loop, probe_read",
        }
    }
}

/// The parameters of a bulk reader: the files of its objects, and the statistics to read.
pub(super) struct Wanted<'a> {
    pub(super) subject: Subject,
    pub(super) plan: &'a ReadPlan,
    pub(super) files: &'a [Option<KvmFile<'a>>],
    /// The marks by which files are known to be KVM's.
    pub(super) kinds: &'a Kinds,
}

/// Why a run is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The kernel did not run the program.
    Refused(Errno),
    /// The program did not come to its end.
    Incomplete,
}

/// When a run read, and how many of its rows have no data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    pub(super) marked: u64,
}

/// Objects that are read in one call.
#[derive(Debug)]
pub(super) struct BulkReader {
    writer: Writer,
    frame: Frame,
    shape: Shape,
    rows: usize,
    step: Step,
}

impl BulkReader {
    /// Finds the objects and loads the program, by the first of the steps that the kernel takes.
    ///
    /// # Errors
    /// `Denied` if we may not; `Unsupported` if a file is not KVM's, or if the kernel takes none,
    /// in the verifier's words of the last; `TooLarge` or `Io` if there is no room.
    pub(super) fn new(offsets: &Offsets, steps: &[Step], wanted: &Wanted<'_>) -> Result<Self> {
        let mut last = Error::new(ErrorKind::Unsupported, "there is no way to read a word");
        for &step in steps {
            match Loaded::by(offsets, step, wanted) {
                Ok(loaded) => return loaded.bulk(offsets, step, wanted),
                // Only the verifier's taste differs from step to step.
                Err(error) if error.kind() == ErrorKind::Unsupported => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    pub(super) fn step(&self) -> Step {
        self.step
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Reads everything now: one system call.
    ///
    /// # Errors
    /// If it did not.
    #[inline]
    pub(super) fn run(&mut self) -> std::result::Result<Head, Unread> {
        self.writer.run().map_err(Unread::Refused)?;
        // Relaxed: the program ran on this thread, and has ended.
        let words = self.writer.words();
        let word = |at: usize| words[at].load(Ordering::Relaxed);
        if !word(SEQ).is_multiple_of(2) || word(READ) != self.rows as u64 {
            return Err(Unread::Incomplete);
        }
        let (begin_ns, end_ns, marked) = (word(BEGIN), word(END), word(MARKED));
        Ok(Head { begin_ns, end_ns, marked })
    }

    /// Returns all words of the frame.
    #[cfg(test)]
    pub(super) fn words(&self) -> &[AtomicU64] {
        self.writer.words()
    }

    /// Returns the row with that number as the last run left it, with its two lock words.
    pub(super) fn row(&self, at: usize) -> &[AtomicU64] {
        &self.writer.words()[self.frame.row(at)]
    }

    /// Returns a copy of the row with that number, for callers that are not on a tick.
    pub(super) fn copy_of(&self, at: usize) -> Vec<u64> {
        self.row(at).iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// The rows of the last run, each with its two lock words.
    #[inline]
    pub(super) fn rows(&self) -> impl Iterator<Item = &[AtomicU64]> {
        self.writer.words()[self.frame.row(0).start..].chunks_exact(self.frame.row(0).len())
    }
}

/// A program that the verifier has taken, and what it works on.
struct Loaded {
    program: Program,
    frame: Frame,
    slots: Slots,
    shape: Shape,
}

impl Loaded {
    fn by(offsets: &Offsets, step: Step, wanted: &Wanted<'_>) -> Result<Self> {
        let Wanted { subject, plan, files, .. } = *wanted;
        let (content, shape) = content(offsets, step, subject, plan)?;
        let data_words = match shape {
            Shape::Row => plan.row_words(),
            Shape::Span => plan.span_bytes().len() / WORD_BYTES,
        };
        let frame = Frame::new(files.len(), data_words)?;
        let slots = Slots::new(files.len())?;
        let tick = Tick {
            frame: frame.array().as_fd(),
            slots: &slots,
            rows_byte: frame.rows_byte(),
            row_bytes: frame.row_bytes(),
            looping: step.looping,
            access: step.access,
            content,
        };
        // A program that follows threads has to run under RCU.
        let kind = match subject {
            Subject::Thread => ProgramKind::RawTracepoint,
            Subject::Vm | Subject::Vcpu => ProgramKind::Syscall,
        };
        let insns = tick.program()?;
        let program = Program::load(&ProgramSpec { kind, name: "vmstrobe_tick", insns: &insns })?;
        Ok(Self { program, frame, slots, shape })
    }

    fn bulk(self, offsets: &Offsets, step: Step, wanted: &Wanted<'_>) -> Result<BulkReader> {
        let Self { program, frame, slots, shape } = self;
        slots.fill(offsets, wanted.subject, wanted.kinds, wanted.files)?;
        let writer = Writer::new(program, frame.array()).map_err(refused)?;
        Ok(BulkReader { writer, frame, shape, rows: wanted.files.len(), step })
    }
}

fn content(
    offsets: &Offsets,
    step: Step,
    subject: Subject,
    plan: &ReadPlan,
) -> Result<(Content, Shape)> {
    if subject == Subject::Thread {
        let task = offsets.task.clone().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "the BPF reader does not know where this kernel keeps the times of threads",
            )
        })?;
        let word = |at| {
            ThreadWord::ALL
                .get(at)
                .copied()
                .ok_or_else(|| Error::new(ErrorKind::Malformed, "a thread has no such word"))
        };
        let words = plan.kept().map(word).collect::<Result<_>>()?;
        return Ok((Content::Thread(task, words), Shape::Row));
    }
    let words_max = match step.access {
        Access::Cast(_) => WORDS_MAX,
        Access::Probe => PROBED_WORDS_MAX,
    };
    if plan.row_words() <= words_max {
        return Ok((Content::Words(plan.kept().collect()), Shape::Row));
    }
    let span = plan.span_bytes();
    debug_assert!(span.len().is_multiple_of(WORD_BYTES));
    Ok((Content::Block { from: span.start, bytes: span.len() }, Shape::Span))
}

#[cfg(test)]
pub(super) mod tests;
