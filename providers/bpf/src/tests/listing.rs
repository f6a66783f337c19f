//! Programs as text, a line an instruction, to be read and compared by people.
//!
//! Invariant: it knows no other instructions than ours need: any other is a panic.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An instruction.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The index of its first word in the program.
    pub(crate) at: usize,
    /// Without where it jumps to.
    pub(crate) text: String,
    /// The word that it can jump to.
    pub(crate) jump: Option<usize>,
    /// False if it always jumps, or ends the program.
    pub(crate) goes_on: bool,
    /// The register that it sets, if it is no call.
    pub(crate) sets: Option<u8>,
    /// The address that it stores to: a register, and an offset in bytes.
    pub(crate) stores: Option<(u8, i16)>,
}

/// The instructions of a program, which uses these maps.
pub(crate) fn lines(insns: &[u64], maps: &[(BorrowedFd<'_>, &str)]) -> Vec<Line> {
    let mut words = insns.iter().enumerate();
    let mut lines = Vec::new();
    while let Some((at, word)) = words.next() {
        let [code, regs, off_0, off_1, imm @ ..] = word.to_ne_bytes();
        let (off, imm) = (i16::from_ne_bytes([off_0, off_1]), i32::from_ne_bytes(imm));
        let (dst, src) = match cfg!(target_endian = "little") {
            true => (regs & 15, regs >> 4),
            false => (regs >> 4, regs & 15),
        };
        let there = (at + 1).checked_add_signed(off.into());
        let operand = if code & 8 != 0 { format!("r{src}") } else { imm.to_string() };
        let mut line =
            Line { at, text: String::new(), jump: None, goes_on: true, sets: None, stores: None };
        line.text = match code {
            0x07 | 0x0f | 0x27 | 0x4f | 0x57 | 0x67 | 0x77 | 0xb7 | 0xbf => {
                line.sets = Some(dst);
                format!("r{dst} {} {operand}", alu(code))
            }
            0x61 | 0x79 => {
                line.sets = Some(dst);
                format!("r{dst} = {}[r{src}{off:+}]", if code == 0x61 { "u32" } else { "u64" })
            }
            0x18 => {
                let (_, second) = words.next().unwrap();
                let [0, 0, 0, 0, byte @ ..] = second.to_ne_bytes() else { panic!("{second:x}") };
                let map = maps.iter().find(|(fd, _)| fd.as_raw_fd() == imm).unwrap().1;
                assert_eq!((src, off), (2, 0), "the address of a map's value");
                line.sets = Some(dst);
                format!("r{dst} = &{map}[{}]", u32::from_ne_bytes(byte))
            }
            0x7b | 0x7a | 0xdb => {
                line.stores = Some((dst, off));
                match code {
                    0x7b => format!("u64[r{dst}{off:+}] = r{src}"),
                    0x7a => format!("u64[r{dst}{off:+}] = {imm}"),
                    _ => {
                        assert_eq!(imm, 0xe1, "an exchange");
                        line.sets = Some(src);
                        format!("xchg u64[r{dst}{off:+}], r{src}")
                    }
                }
            }
            0x05 | 0x95 => {
                line.goes_on = false;
                line.jump = there.filter(|_| code == 0x05);
                if code == 0x05 { "goto".to_owned() } else { "exit".to_owned() }
            }
            0xe5 => {
                line.jump = there;
                "may_goto".to_owned()
            }
            0x15 | 0x1d | 0x25 | 0x35 | 0x3d | 0x55 | 0x5d => {
                line.jump = there;
                format!("if r{dst} {} {operand} goto", condition(code))
            }
            0x85 => match (src, imm) {
                (0, 5) => "call ktime_get_ns".to_owned(),
                (0, 35) => "call get_current_task".to_owned(),
                (0, 113) => "call probe_read_kernel".to_owned(),
                (2, kfunc) => format!("call kfunc {kfunc}"),
                _ => panic!("a call of {imm}"),
            },
            _ => panic!("{code:#x} at {at}"),
        };
        lines.push(line);
    }
    lines
}

fn alu(code: u8) -> &'static str {
    match code >> 4 {
        0x0 => "+=",
        0x2 => "*=",
        0x4 => "|=",
        0x5 => "&=",
        0x6 => "<<=",
        0x7 => ">>=",
        _ => "=",
    }
}

fn condition(code: u8) -> &'static str {
    match code >> 4 {
        0x1 => "==",
        0x2 => ">",
        0x3 => ">=",
        _ => "!=",
    }
}

/// The text of a program, with labels by their number where a jump leads.
pub(crate) fn listing(lines: &[Line]) -> String {
    let mut labels: BTreeMap<usize, usize> =
        lines.iter().filter_map(|line| Some((line.jump?, 0))).collect();
    labels.values_mut().zip(1..).for_each(|(label, number)| *label = number);
    let text = lines.iter().map(|line| {
        let label = labels.get(&line.at).map(|number| format!("{number}:\n")).unwrap_or_default();
        let to = line.jump.map(|to| format!(" {}", labels[&to])).unwrap_or_default();
        format!("{label}{}{to}\n", line.text)
    });
    text.collect()
}

/// Turns a text whose labels have names into a [`listing`]; labels without a jump are left out.
pub(crate) fn numbered(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let target = |line: &str| line.split_once("goto ").map(|(_, name)| name.to_owned());
    let targets: Vec<String> = lines.iter().filter_map(|line| target(line)).collect();
    let names: Vec<&str> = lines.iter().filter_map(|line| line.strip_suffix(':')).collect();
    let names: Vec<&str> =
        names.into_iter().filter(|it| targets.iter().any(|to| to == it)).collect();
    let number = |name: &str| names.iter().position(|known| *known == name).unwrap() + 1;
    let text = lines.iter().filter_map(|line| match (line.strip_suffix(':'), target(line)) {
        (Some(name), _) => names.contains(&name).then(|| format!("{}:\n", number(name))),
        (_, Some(name)) => {
            Some(format!("{}{}\n", line.strip_suffix(&name).unwrap(), number(&name)))
        }
        _ => Some(format!("{line}\n")),
    });
    text.collect()
}

/// True if every instruction can be reached from the first, and the last does not go on.
pub(crate) fn is_all_reached(lines: &[Line]) -> bool {
    let mut reached = vec![false; lines.len()];
    let mut ahead = vec![0];
    while let Some(at) = ahead.pop() {
        if std::mem::replace(&mut reached[at], true) {
            continue;
        }
        let line = &lines[at];
        ahead.extend(line.jump.map(|to| lines.iter().position(|line| line.at == to).unwrap()));
        ahead.extend(line.goes_on.then_some(at + 1));
    }
    reached.into_iter().all(|is_reached| is_reached)
}
