//! Every instruction against the words that `instruction-set.rst` gives for it: code, source and
//! destination register, offset and immediate, from the low byte up.

use std::fs::File;
use std::os::fd::AsFd;

use super::*;

use Reg::{R0, R1, R2, R3, R6, R7, R8, R9, R10};

/// The words of what `write` writes.
#[track_caller]
fn words(write: impl FnOnce(&mut Asm)) -> Vec<u64> {
    let mut asm = Asm::new();
    write(&mut asm);
    asm.finish().unwrap().into_iter().map(u64::to_le).collect()
}

#[test]
fn arithmetic() {
    let written = words(|asm| {
        asm.mov(R1, R10);
        asm.mov_imm(R2, -1);
        asm.add(R3, R7);
        asm.add_imm(R6, -8);
        asm.mul_imm(R8, 0x1234_5678);
        asm.and_imm(R9, 3);
        asm.or(R0, R1);
        asm.lsh_imm(R2, 3);
        asm.rsh_imm(R3, 63);
    });
    let expected = [
        0x0000_0000_0000_a1bf,
        0xffff_ffff_0000_02b7,
        0x0000_0000_0000_730f,
        0xffff_fff8_0000_0607,
        0x1234_5678_0000_0827,
        0x0000_0003_0000_0957,
        0x0000_0000_0000_104f,
        0x0000_0003_0000_0267,
        0x0000_003f_0000_0377,
    ];
    assert_eq!(written, expected);
}

#[test]
fn memory() {
    let written = words(|asm| {
        asm.load(R1, R2, 0x1234);
        asm.load_u32(R3, R10, -8);
        asm.store(R8, i16::MAX, R9);
        asm.store_imm(R10, i16::MIN, -2);
        asm.xchg(R6, 16, R7);
    });
    let expected = [
        0x0000_0000_1234_2179,
        0x0000_0000_fff8_a361,
        0x0000_0000_7fff_987b,
        0xffff_fffe_8000_0a7a,
        0x0000_00e1_0010_76db,
    ];
    assert_eq!(written, expected);
}

#[test]
fn calls_and_addresses() {
    let file = File::open("/dev/null").unwrap();
    let fd = u64::from(file.as_raw_fd().cast_unsigned());
    let written = words(|asm| {
        asm.call_helper(PROBE_READ_KERNEL);
        asm.call_kfunc(0x1_0203);
        asm.load_map_value(R8, file.as_fd(), 0xffff_fff8);
        asm.exit();
    });
    let expected = [
        0x0000_0071_0000_0085,
        0x0001_0203_0000_2085,
        fd << 32 | 0x2818,
        0xffff_fff8_0000_0000,
        0x0000_0000_0000_0095,
    ];
    assert_eq!(written, expected);
}

#[test]
fn jumps_of_each_condition() {
    let conditions = [(Cond::Eq, 0x15), (Cond::Gt, 0x25), (Cond::Ge, 0x35), (Cond::Ne, 0x55)];
    for (condition, code) in conditions {
        let written = words(|asm| {
            let next = asm.label();
            asm.jump_if(condition, R1, -3, next);
            asm.jump_if(condition, R2, R3, next);
            asm.place(next);
        });
        let expected = [0xffff_fffd_0001_0100 | code, 0x0000_0000_0000_3200 | code | 0x08];
        assert_eq!(written, expected, "{condition:?}");
    }
}

#[test]
fn labels_before_and_behind_with_a_wide_instruction_between() {
    let file = File::open("/dev/null").unwrap();
    let fd = u64::from(file.as_raw_fd().cast_unsigned());
    let written = words(|asm| {
        let (top, out) = (asm.label(), asm.label());
        asm.place(top);
        asm.may_goto(out);
        asm.load_map_value(R1, file.as_fd(), 0);
        asm.jump_if(Cond::Eq, R0, 0, out);
        asm.jump(top);
        asm.place(out);
        asm.exit();
    });
    let expected = [
        0x0000_0000_0004_00e5,
        fd << 32 | 0x2118,
        0x0000_0000_0000_0000,
        0x0000_0000_0001_0015,
        0x0000_0000_fffb_0005,
        0x0000_0000_0000_0095,
    ];
    assert_eq!(written, expected);
}

#[test]
fn a_jump_goes_as_far_as_16_bits_say_and_no_further() {
    let ahead = |words| {
        let mut asm = Asm::new();
        let end = asm.label();
        asm.jump(end);
        (0..words).for_each(|_| asm.mov_imm(R0, 0));
        asm.place(end);
        asm.finish()
    };
    assert_eq!(ahead(0x7fff).unwrap()[0].to_le(), 0x7fff_0005);
    assert_eq!(ahead(0x8000).unwrap_err().kind(), ErrorKind::TooLarge);
    let back = |words| {
        let mut asm = Asm::new();
        let start = asm.label();
        asm.place(start);
        (0..words).for_each(|_| asm.mov_imm(R0, 0));
        asm.jump(start);
        asm.finish()
    };
    // The jump itself is one of the words.
    assert_eq!(back(0x7fff).unwrap()[0x7fff].to_le(), 0x8000_0005);
    assert_eq!(back(0x8000).unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn a_label_is_in_one_place_of_its_own_program() {
    let kind = |write: fn(&mut Asm)| {
        let mut asm = Asm::new();
        write(&mut asm);
        asm.finish().map_err(|error| error.kind())
    };
    let nowhere = kind(|asm| {
        let label = asm.label();
        asm.jump(label);
    });
    let twice = kind(|asm| {
        let label = asm.label();
        asm.place(label);
        asm.exit();
        asm.place(label);
    });
    let foreign = kind(|asm| {
        let label = Asm::new().label();
        asm.place(label);
        asm.may_goto(label);
    });
    assert_eq!([nowhere, twice, foreign], [const { Err(ErrorKind::Malformed) }; 3]);
    // Nobody goes there.
    let unused = kind(|asm| {
        asm.label();
    });
    assert_eq!(unused, Ok(Vec::new()));
}

#[test]
fn a_call_of_a_helper_is_told_from_all_else() {
    let written = words(|asm| {
        asm.call_helper(KTIME_GET_NS);
        asm.call_helper(-1);
        asm.call_kfunc(5);
        asm.mov_imm(R3, 5);
        asm.exit();
    });
    let helpers: Vec<_> = written.into_iter().map(u64::from_le).map(helper_of).collect();
    assert_eq!(helpers, [Some(5), Some(-1), None, None, None]);
    assert!(HELPERS.contains(&KTIME_GET_NS) && !HELPERS.contains(&-1));
}
