//! The system call `bpf(2)`: arrays that programs write, programs loaded, and programs run.
//!
//! Invariant: nothing that is asked for here changes memory or descriptors of this process but what
//! it was given to change. What the kernel reads and writes for a command are buffers that are
//! borrowed for it; and a program is loaded only if all the helpers that it calls are those of
//! [`super::asm`], of which none writes to a process. A program can also call the kernel's
//! kfuncs, which work on the kernel's own objects.

#![allow(unsafe_code, reason = "no safe crate offers this system call")]

use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_raw_sys::general::__NR_bpf;
use rustix::io::Errno;
use vmstrobe_core::WORD_BYTES;

use super::asm;

pub(crate) use apart::apart;
use attr::*;
use error::end_of;
pub(crate) use error::{LoadError, refused};
pub(crate) use writer::Writer;

mod apart;
mod attr;
mod error;
mod writer;

// SAFETY: the declaration must be that of the C library, which std links anyway: syscall(2). rustix
// has no bpf(2), and no call of any number.
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// The most bytes of a map's or a program's name.
pub(crate) const NAME_BYTES_MAX: usize = NAME_BYTES - 1;

/// Lets a program call what the kernel offers to programs under the GPL only, as all of it is that
/// reads the kernel's memory.
const LICENSE: &CStr = c"Dual MIT/GPL";

/// Room for what the verifier says of a program that it refuses.
const LOG_BYTES: usize = 1 << 16;

/// The most tries to load a program: a signal interrupts the verifier.
const LOAD_TRIES: u32 = 5;

/// An array map of one element, which is whole words: memory that a program writes.
#[derive(Debug)]
pub(crate) struct ArrayMap {
    fd: OwnedFd,
    value_bytes: u32,
}

/// The access of user space to an array, besides looking its element up. Programs read and write
/// it in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArrayUse {
    /// Map it and, until it is frozen, write it.
    Mapped,
    /// Nothing besides.
    ReadOnly,
}

/// The kind of a program. Either is run when we say so, and attached to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgramKind {
    /// A program that can be preempted. R1 is the context, which it can write (Linux 5.14).
    Syscall,
    /// Under RCU, and preempted by nobody. R1 is the context, of at most 12 words (Linux 5.10).
    RawTracepoint,
}

/// A program to be loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramSpec<'a> {
    pub(crate) kind: ProgramKind,
    /// Letters, digits, `_` and `.`; at most [`NAME_BYTES_MAX`].
    pub(crate) name: &'a str,
    /// The words that [`Asm::finish`](super::asm::Asm::finish) returned.
    pub(crate) insns: &'a [u64],
}

/// A program that the verifier has accepted.
#[derive(Debug)]
pub(crate) struct Program {
    fd: OwnedFd,
}

/// A program to be run on the tick, without a context.
#[derive(Debug)]
pub(crate) struct Runner {
    _program: Program,
    attr: RunAttr,
}

impl ArrayMap {
    /// A new array, all zero. The name is as that of a program ([`ProgramSpec::name`]).
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF, `EINVAL` if the name is not one or the value no whole words,
    /// `E2BIG` or `ENOMEM` if it is too much.
    pub(crate) fn create(name: &str, value_bytes: u32, r#use: ArrayUse) -> io::Result<Self> {
        if !(value_bytes as usize).is_multiple_of(WORD_BYTES) {
            return Err(Errno::INVAL.into());
        }
        let map_flags = match r#use {
            ArrayUse::Mapped => F_MMAPABLE,
            ArrayUse::ReadOnly => F_RDONLY,
        };
        let mut attr = CreateAttr {
            map_type: MAP_TYPE_ARRAY,
            key_size: size_of::<u32>() as u32,
            value_size: value_bytes,
            max_entries: 1,
            map_flags,
            map_name: object_name(name)?,
            ..CreateAttr::default()
        };
        // SAFETY: the attribute must be that of the command, and its pointers valid for it.
        // - It is `MAP_CREATE`'s, to `map_name`; all its bytes are initialised.
        // - It has no pointers.
        let fd = unsafe { bpf_fd(MAP_CREATE, &mut attr) }?;
        Ok(Self { fd, value_bytes })
    }

    /// Another file in its place, for programs that are looked at and not loaded.
    #[cfg(test)]
    pub(crate) fn stand_in(fd: OwnedFd) -> Self {
        Self { fd, value_bytes: 0 }
    }

    /// Writes the whole value.
    ///
    /// # Errors
    /// `EINVAL` if this is not as many words as the value has, `EPERM` if it is frozen or
    /// read-only.
    #[cfg(test)]
    pub(crate) fn write_value(&self, value: &[u64]) -> io::Result<()> {
        if size_of_val(value) != self.value_bytes as usize {
            return Err(Errno::INVAL.into());
        }
        let key = 0u32;
        let mut attr = ElementAttr {
            map_fd: number_of(&self.fd),
            _hole: 0,
            key: (&raw const key).expose_provenance() as u64,
            value: value.as_ptr().expose_provenance() as u64,
            flags: 0,
        };
        // SAFETY: the attribute must be that of the command, and its pointers valid for it.
        // - It is `MAP_UPDATE_ELEM`'s; all its bytes are initialised.
        // - The kernel reads a key and a value, as long as the map was created with: `key`, of four
        //   bytes, and `value`, of `value_bytes`, which was checked; both live until it has
        //   returned. It writes to neither.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }?;
        Ok(())
    }

    /// Makes it one that user space can never write again, through no descriptor and no mapping.
    /// Programs still do.
    ///
    /// # Errors
    /// `EPERM` if it is read-only or frozen already, `EBUSY` if it is mapped for writing.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        let mut attr = FreezeAttr { map_fd: number_of(&self.fd) };
        // SAFETY: the attribute must be that of the command, and its pointers valid for it.
        // - It is `MAP_FREEZE`'s, and has no pointers.
        unsafe { bpf(MAP_FREEZE, &mut attr) }?;
        Ok(())
    }
}

impl Program {
    /// Has the kernel verify and compile a program, which from then on holds the maps that it uses.
    ///
    /// # Errors
    /// [`LoadError`], with the verifier's reason if it was the verifier.
    pub(crate) fn load(spec: &ProgramSpec<'_>) -> Result<Self, LoadError> {
        let without_log = |errno| LoadError { errno, log: String::new() };
        let mut helpers = spec.insns.iter().filter_map(|word| asm::helper_of(*word));
        if let Some(helper) = helpers.find(|helper| !asm::HELPERS.contains(helper)) {
            let log = format!("helper {helper} is none that is known to leave processes alone");
            return Err(LoadError { errno: Errno::INVAL, log });
        }
        let mut tries = LOAD_TRIES;
        let errno = loop {
            tries -= 1;
            match Self::load_once(spec, &mut []) {
                Ok(program) => return Ok(program),
                Err(Errno::AGAIN) if tries > 0 => {}
                Err(errno) => break errno,
            }
        };
        if errno == Errno::PERM {
            return Err(without_log(errno));
        }
        // A log costs time, and a buffer that is too small for it is an error of its own.
        let mut log = vec![0; LOG_BYTES];
        Self::load_once(spec, &mut log).map_err(|_| LoadError { errno, log: end_of(&log) })
    }

    fn load_once(spec: &ProgramSpec<'_>, log: &mut [u8]) -> Result<Self, Errno> {
        let (prog_type, prog_flags) = match spec.kind {
            ProgramKind::Syscall => (PROG_TYPE_SYSCALL, F_SLEEPABLE),
            ProgramKind::RawTracepoint => (PROG_TYPE_RAW_TRACEPOINT, 0),
        };
        let log_buf = match log.is_empty() {
            true => 0,
            false => log.as_mut_ptr().expose_provenance() as u64,
        };
        let mut attr = LoadAttr {
            prog_type,
            insn_cnt: u32::try_from(spec.insns.len()).map_err(|_| Errno::TOOBIG)?,
            insns: spec.insns.as_ptr().expose_provenance() as u64,
            license: LICENSE.as_ptr().expose_provenance() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log_buf,
            kern_version: 0,
            prog_flags,
            prog_name: object_name(spec.name)?,
        };
        // SAFETY: the attribute must be that of the command, and its pointers valid for it.
        // - It is `PROG_LOAD`'s, to `prog_name`; all its bytes are initialised.
        // - The kernel reads `insn_cnt` instructions of a word each, as many as the slice has, and
        //   a string that ends in NUL. It writes at most `log_size` bytes, the slice's, which is
        //   borrowed for that, and none if there is no buffer.
        // - It keeps none of these pointers.
        let fd = unsafe { bpf_fd(PROG_LOAD, &mut attr) }?;
        Ok(Self { fd })
    }

    /// Runs it once, in this thread, with these words as its context, and gives what it returned. A
    /// program of kind `Syscall` may change them (Linux 5.14).
    ///
    /// # Errors
    /// `EINVAL` if the program looks beyond this context, or the context is longer than its kind
    /// allows: 8191 words or 12.
    pub(crate) fn run(&self, ctx: &mut [u64]) -> io::Result<u32> {
        let mut attr = RunAttr::new(self);
        attr.ctx_size_in = u32::try_from(size_of_val(ctx)).map_err(|_| Errno::INVAL)?;
        if !ctx.is_empty() {
            attr.ctx_in = ctx.as_mut_ptr().expose_provenance() as u64;
        }
        // SAFETY: as `RunAttr::run` wants it.
        // - The context is `ctx`, of that length, borrowed for writing until this returns.
        Ok(unsafe { attr.run() }?)
    }
}

impl Runner {
    pub(crate) fn new(program: Program) -> Self {
        let attr = RunAttr::new(&program);
        Self { _program: program, attr }
    }

    /// Runs it once, in this thread, and gives what it returned: one system call, no allocation.
    ///
    /// # Errors
    /// `EINVAL` if it looks into its context.
    #[inline]
    pub(crate) fn run(&mut self) -> Result<u32, Errno> {
        debug_assert_eq!(self.attr.ctx_size_in, 0);
        // SAFETY: as `RunAttr::run` wants it.
        // - There is no context. The program's descriptor is open: it is ours.
        unsafe { self.attr.run() }
    }
}

impl RunAttr {
    /// Makes the attribute of a run without a context.
    fn new(program: &Program) -> Self {
        Self { prog_fd: number_of(&program.fd), ..Self::default() }
    }

    /// # Safety
    /// If `ctx_size_in` is not 0, `ctx_in` must be the address of so many bytes, initialised,
    /// which may be written until this returns.
    #[inline]
    unsafe fn run(&mut self) -> Result<u32, Errno> {
        // SAFETY: the attribute must be that of the command, and its pointers valid for it.
        // - It is `PROG_TEST_RUN`'s, to `ctx_out`; all its bytes are initialised.
        // - The kernel reads the context and, of a program of kind `Syscall`, writes it back to
        //   where it came from. The caller says that this is possible. The other pointers are null
        //   and their sizes 0.
        // - Of the attribute itself it writes `retval`, which is borrowed for that.
        // - The program writes to no memory of this process: it calls only helpers that do not
        //   (`Program::load`), and its maps' values are in this process, if at all, as atomics
        //   (`writer`).
        unsafe { bpf(PROG_TEST_RUN, self) }?;
        Ok(self.retval)
    }
}

/// The system call.
///
/// # Safety
/// The attribute must be laid out as that of the command, without uninitialised bytes, and every
/// pointer in it must be valid for what the kernel does there with this command.
#[inline]
unsafe fn bpf<A>(command: c_long, attr: &mut A) -> Result<c_int, Errno> {
    let bytes = size_of::<A>() as c_long;
    // SAFETY: the arguments must be those of the system call.
    // - They are a command, an attribute, and how long that is, which is as much as the kernel
    //   reads or writes of it. For the rest the caller answers.
    let answer = unsafe { syscall(__NR_bpf.into(), command, &raw mut *attr, bytes) };
    if answer < 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // Descriptors and zero are all that these commands return.
    Ok(answer as c_int)
}

/// As [`bpf`], of a command whose answer is a descriptor.
///
/// # Safety
/// As of [`bpf`]; and the command must be `MAP_CREATE` or `PROG_LOAD`.
unsafe fn bpf_fd<A>(command: c_long, attr: &mut A) -> Result<OwnedFd, Errno> {
    debug_assert!([MAP_CREATE, PROG_LOAD].contains(&command));
    // SAFETY: the number must be an open fd that nobody else owns; for the rest the caller answers.
    // - Both commands answer with a new fd, installed for this call alone, with close-on-exec.
    // - It is not negative: `bpf` has made an error of such an answer.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// As attributes have it: an fd is not negative.
fn number_of(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// The kernel checks the letters.
fn object_name(name: &str) -> Result<[u8; NAME_BYTES], Errno> {
    let mut bytes = [0; NAME_BYTES];
    // One too long has no end.
    let room = bytes[..NAME_BYTES_MAX].get_mut(..name.len()).ok_or(Errno::INVAL)?;
    room.copy_from_slice(name.as_bytes());
    Ok(bytes)
}

impl AsFd for ArrayMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
