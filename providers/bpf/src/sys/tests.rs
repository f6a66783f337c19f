//! Against this machine's kernel, where it lets us: what an array and a program can do, and what
//! they cannot.

use std::fmt;
use std::mem::offset_of;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use memmap2::MmapOptions;
use rustix::time::{ClockId, clock_gettime};
use vmstrobe_core::{Error, ErrorKind};
use vmstrobe_testing::require;

use super::error::LOG_LINES_KEPT;
use super::writer::ArrayWords;
use super::*;
use crate::asm::{Asm, Cond, KTIME_GET_NS, Label, Reg};

use Reg::{R0, R1, R2, R3, R6, R7, R10};

/// An array of so many words; `None` where we may not have one, or no program.
fn array(words: u32, r#use: ArrayUse) -> Option<ArrayMap> {
    let refused = |error: &dyn fmt::Display| require("bpf", Err(error.to_string()));
    let array = match ArrayMap::create("test", words * WORD_BYTES as u32, r#use) {
        Err(error) if is_refusal(Errno::from_io_error(&error)) => {
            refused(&error);
            return None;
        }
        array => array.unwrap(),
    };
    let nothing = insns(|asm| asm.mov_imm(R0, 0));
    match Program::load(&spec(ProgramKind::Syscall, &nothing)) {
        Err(error) if is_refusal(Some(error.errno)) => {
            refused(&error);
            None
        }
        program => {
            program.unwrap();
            Some(array)
        }
    }
}

/// As the kernel, or the policy of its host, refuses all of this.
fn is_refusal(errno: Option<Errno>) -> bool {
    matches!(errno, Some(Errno::PERM | Errno::NOSYS))
}

fn has_bpf() -> bool {
    array(1, ArrayUse::Mapped).is_some()
}

fn insns(write: impl FnOnce(&mut Asm)) -> Vec<u64> {
    let mut asm = Asm::new();
    write(&mut asm);
    asm.exit();
    asm.finish().unwrap()
}

fn spec(kind: ProgramKind, insns: &[u64]) -> ProgramSpec<'_> {
    ProgramSpec { kind, name: "test", insns }
}

#[track_caller]
fn load(kind: ProgramKind, write: impl FnOnce(&mut Asm)) -> Program {
    Program::load(&spec(kind, &insns(write))).unwrap()
}

#[track_caller]
fn is_errno<T: fmt::Debug>(result: io::Result<T>, errno: Errno) {
    assert_eq!(Errno::from_io_error(&result.unwrap_err()), Some(errno));
}

fn words_of(map: &ArrayWords) -> Vec<u64> {
    map.words().iter().map(|word| word.load(Relaxed)).collect()
}

fn now_ns() -> u64 {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap().as_nanos() as u64
}

#[test]
fn a_frozen_array_is_read_and_never_written() {
    let Some(array) = array(3, ArrayUse::Mapped) else { return };
    array.write_value(&[1, 2, 3]).unwrap();
    is_errno(array.write_value(&[1, 2]), Errno::INVAL);
    is_errno(array.write_value(&[1, 2, 3, 4]), Errno::INVAL);
    let map_writable = || MmapOptions::new().len(24).map_raw(array.fd.as_raw_fd());
    let writable = map_writable().unwrap();
    is_errno(array.freeze(), Errno::BUSY);
    drop(writable);

    array.freeze().unwrap();
    is_errno(array.write_value(&[4, 5, 6]), Errno::PERM);
    is_errno(map_writable(), Errno::PERM);
    is_errno(array.freeze(), Errno::PERM);
    let map = ArrayWords::map(&array).unwrap();
    assert_eq!(words_of(&map), [1, 2, 3]);
    // The mapping holds what it maps.
    drop(array);
    assert_eq!(words_of(&map), [1, 2, 3]);
}

#[test]
fn a_read_only_array_is_written_by_programs_only() {
    let Some(array) = array(1, ArrayUse::ReadOnly) else { return };
    is_errno(array.write_value(&[1]), Errno::PERM);
    is_errno(array.freeze(), Errno::PERM);
    assert!(ArrayWords::map(&array).is_err());
    assert!(MmapOptions::new().len(8).map_raw(array.fd.as_raw_fd()).is_err());
    let count = |asm: &mut Asm| {
        asm.load_map_value(R1, array.as_fd(), 0);
        asm.load(R0, R1, 0);
        asm.add_imm(R0, 1);
        asm.store(R1, 0, R0);
    };
    let mut runner = Runner::new(load(ProgramKind::Syscall, count));
    drop(array);
    assert_eq!([runner.run(), runner.run(), runner.run()], [Ok(1), Ok(2), Ok(3)]);
}

#[test]
fn the_name_and_the_size_of_an_array_are_checked() {
    let create = |name: &str, bytes| ArrayMap::create(name, bytes, ArrayUse::Mapped);
    let longest = "a".repeat(NAME_BYTES_MAX);
    is_errno(create(&(longest.clone() + "a"), 8), Errno::INVAL);
    is_errno(create("test", 12), Errno::INVAL);
    let Some(_) = array(1, ArrayUse::Mapped) else { return };
    create(&longest, 8).unwrap();
    is_errno(create("not-a-name", 8), Errno::INVAL);
    is_errno(create("test", 0), Errno::INVAL);
}

#[test]
fn what_a_program_writes_is_seen_through_the_mapping() {
    // More than a page, so that the last word is on another.
    let Some(array) = array(1000, ArrayUse::Mapped) else { return };
    array.freeze().unwrap();
    let map = ArrayWords::map(&array).unwrap();
    for kind in [ProgramKind::Syscall, ProgramKind::RawTracepoint] {
        let mut runner = Runner::new(load(kind, |asm| {
            asm.load_map_value(R6, array.as_fd(), 0);
            asm.load(R7, R6, 0);
            asm.add_imm(R7, 1);
            asm.mov(R0, R7);
            asm.xchg(R6, 0, R0);
            asm.store(R6, 8, R0);
            asm.call_helper(KTIME_GET_NS);
            asm.store(R6, 16, R0);
            asm.load_map_value(R1, array.as_fd(), 999 * 8);
            asm.mov_imm(R2, 0x0123_4567);
            asm.lsh_imm(R2, 32);
            asm.store(R1, 0, R2);
            asm.store_imm(R6, 24, -1);
            asm.mov(R0, R7);
        }));
        let seen = |index: usize| map.words()[index].load(Relaxed);
        for _ in 0..3 {
            map_is_reset_but_for_the_count(&array, seen(0));
            let (count, before) = (seen(0), now_ns());
            assert_eq!(runner.run(), Ok(count as u32 + 1));
            // The value that the exchange put there, and the one that it found.
            assert_eq!((seen(0), seen(1)), (count + 1, count));
            assert!((before..=now_ns()).contains(&seen(2)));
            assert_eq!((seen(3), seen(999)), (u64::MAX, 0x0123_4567 << 32));
        }
    }
    assert_eq!(map.words()[0].load(Relaxed), 6);
}

/// A program does it: nobody else can.
#[track_caller]
fn map_is_reset_but_for_the_count(array: &ArrayMap, count: u64) {
    let program = load(ProgramKind::Syscall, |asm| {
        asm.load_map_value(R6, array.as_fd(), 0);
        [8, 16, 24].into_iter().for_each(|off| asm.store_imm(R6, off, 0));
        asm.load_map_value(R6, array.as_fd(), 999 * 8);
        asm.store_imm(R6, 0, 0);
        asm.mov_imm(R0, count as i32);
    });
    assert_eq!(program.run(&mut []).unwrap(), count as u32);
}

#[test]
fn a_program_that_does_not_verify_is_refused_with_the_reason() {
    if !has_bpf() {
        return;
    }
    // Returns what nobody has put into R0.
    let wrong = insns(|_| ());
    let error = Program::load(&spec(ProgramKind::Syscall, &wrong)).unwrap_err();
    assert_eq!(error.errno, Errno::ACCESS);
    assert!(error.log.contains("R0 !read_ok"), "{error}");
    assert!(error.log.lines().count() <= LOG_LINES_KEPT && error.to_string().lines().count() == 1);
    let long = insns(|asm| {
        (0..10_000).for_each(|_| asm.mov_imm(R1, 0x1234_5678));
    });
    // Says more than there is room for; that is not what is wrong with it.
    let error = Program::load(&spec(ProgramKind::Syscall, &long)).unwrap_err();
    assert_eq!(error.errno, Errno::ACCESS);
    let error = Program::load(&spec(ProgramKind::Syscall, &[])).unwrap_err();
    assert_eq!(error.errno, Errno::TOOBIG);
    assert_eq!(Error::from(error).kind(), ErrorKind::Unsupported);
}

#[test]
fn a_program_with_a_helper_that_is_not_ours_is_not_even_tried() {
    // bpf_probe_write_user: it could write to our own memory.
    let wrong = insns(|asm| asm.call_helper(36));
    let error = Program::load(&spec(ProgramKind::Syscall, &wrong)).unwrap_err();
    assert_eq!(error.errno, Errno::INVAL);
    assert!(error.log.starts_with("helper 36 "), "{error}");
}

#[test]
fn a_context_goes_in_and_comes_back() {
    if !has_bpf() {
        return;
    }
    let program = load(ProgramKind::Syscall, |asm| {
        asm.load(R2, R1, 0);
        asm.load_u32(R3, R1, 0);
        asm.mul_imm(R2, 3);
        asm.store(R1, 8, R2);
        asm.mov(R0, R3);
        asm.rsh_imm(R0, 4);
    });
    let mut ctx = [0x1_0000_0050, 0, 7];
    assert_eq!(program.run(&mut ctx).unwrap(), 5);
    assert_eq!(ctx, [0x1_0000_0050, 0x3_0000_00f0, 7]);
    is_errno(program.run(&mut [1]), Errno::INVAL);
    is_errno(program.run(&mut []), Errno::INVAL);
    let mut longest = [0; 8191];
    longest[0] = 16;
    assert_eq!((program.run(&mut longest).unwrap(), longest[1]), (1, 48));
    is_errno(program.run(&mut [0; 8192]), Errno::INVAL);
    assert_eq!(Runner::new(program).run(), Err(Errno::INVAL));
}

#[test]
fn a_raw_tracepoints_context_goes_in_only() {
    if !has_bpf() {
        return;
    }
    let program = load(ProgramKind::RawTracepoint, |asm| asm.load(R0, R1, 11 * 8));
    let mut ctx = [0; 12];
    ctx[11] = 9;
    assert_eq!(program.run(&mut ctx).unwrap(), 9);
    is_errno(program.run(&mut [0; 11]), Errno::INVAL);
    is_errno(program.run(&mut [0; 13]), Errno::INVAL);
    let writes = insns(|asm| asm.store_imm(R1, 0, 1));
    Program::load(&spec(ProgramKind::RawTracepoint, &writes)).unwrap_err();
}

/// Sums the numbers below a limit, 100 or the context's, in a loop that `bound` may leave.
fn sum(asm: &mut Asm, limit_is_known: bool, bound: impl FnOnce(&mut Asm, Label)) {
    let (top, end) = (asm.label(), asm.label());
    asm.mov_imm(R0, 0);
    match limit_is_known {
        true => asm.mov_imm(R2, 100),
        false => asm.load(R2, R1, 0),
    }
    asm.mov_imm(R3, 0);
    asm.place(top);
    bound(asm, end);
    asm.jump_if(Cond::Ge, R3, R2, end);
    asm.add(R0, R3);
    asm.add_imm(R3, 1);
    asm.jump(top);
    asm.place(end);
}

#[test]
fn a_bounded_loop_is_taken() {
    if !has_bpf() {
        return;
    }
    let program = load(ProgramKind::Syscall, |asm| sum(asm, true, |_, _| ()));
    assert_eq!(program.run(&mut []).unwrap(), 4950);
    // The verifier wants to see its end.
    let endless = insns(|asm| sum(asm, false, |_, _| ()));
    Program::load(&spec(ProgramKind::Syscall, &endless)).unwrap_err();
}

#[test]
fn a_loop_that_may_go_is_taken() {
    if !has_bpf() {
        return;
    }
    let insns = insns(|asm| sum(asm, false, |asm, end| asm.may_goto(end)));
    let program = match Program::load(&spec(ProgramKind::Syscall, &insns)) {
        Err(error) if error.log.contains("unknown opcode e5") => {
            require("bpf-may-goto", Err(error.to_string()));
            return;
        }
        program => program.unwrap(),
    };
    assert_eq!(program.run(&mut [100]).unwrap(), 4950);
    assert_eq!(program.run(&mut [1000]).unwrap(), 499_500);
}

#[test]
fn the_stack_is_there_below_its_end() {
    if !has_bpf() {
        return;
    }
    let program = load(ProgramKind::Syscall, |asm| {
        asm.store_imm(R10, -8, 0x70);
        asm.load(R0, R10, -8);
        asm.mov_imm(R2, 0x0f);
        asm.or(R0, R2);
        asm.and_imm(R0, 0x3c);
        asm.lsh_imm(R0, 4);
        asm.add_imm(R0, -0x0f);
    });
    assert_eq!(program.run(&mut []).unwrap(), (0x3c << 4) - 0x0f);
}

#[test]
fn attributes_are_laid_out_as_the_kernels() {
    assert_eq!((offset_of!(CreateAttr, map_name), size_of::<CreateAttr>()), (28, 44));
    assert_eq!((offset_of!(ElementAttr, key), size_of::<ElementAttr>()), (8, 32));
    assert_eq!(size_of::<FreezeAttr>(), 4);
    assert_eq!((offset_of!(LoadAttr, log_buf), offset_of!(LoadAttr, prog_name)), (32, 48));
    assert_eq!(size_of::<LoadAttr>(), 64);
    assert_eq!((offset_of!(RunAttr, ctx_size_in), offset_of!(RunAttr, ctx_in)), (40, 48));
    assert_eq!(size_of::<RunAttr>(), 64);
}

#[test]
fn an_error_says_what_to_do() {
    let denied = Error::from(LoadError { errno: Errno::PERM, log: String::new() });
    assert_eq!(denied.kind(), ErrorKind::Denied);
    let text = denied.to_string();
    assert!(text.starts_with("the kernel does not let vmstrobe use BPF: "), "{text}");
}

#[test]
fn the_end_of_a_log_is_its_last_lines_that_say_something() {
    assert_eq!(end_of(b"one\n\n  two \n\0three\n"), "one\ntwo");
    assert_eq!(end_of(&[0; 8]), "");
    assert_eq!(end_of(b"\xff"), "\u{fffd}");
    let many: String = (0..=LOG_LINES_KEPT).map(|line| format!("{line}\n")).collect();
    assert_eq!(end_of(many.as_bytes()), "1\n2\n3\n4\n5\n6");
}
