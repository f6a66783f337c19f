//! Programs as people read them, and what holds for each of them. No privilege is needed: none is
//! loaded.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use super::*;
use crate::asm::{HELPERS, helper_of};
use crate::tests::listing::{Line, is_all_reached, lines, listing, numbered};

const CAST: Cast = Cast { kfunc: 1234, struct_id: 77 };
const LOOPS: [Loop; 2] = [Loop::MayGoto, Loop::Bounded];
const ACCESSES: [Access; 2] = [Access::Cast(CAST), Access::Probe];
const ROWS: usize = 5;
const ROW_BYTES: usize = 56;

const BEGIN: &str = "
    r9 = &frame[0]
    r1 = u64[r9+0]
    r1 &= -2
    r1 += 1
    xchg u64[r9+0], r1
    r9 = &frame[24]
    u64[r9+0] = 0
    call ktime_get_ns
    r9 = &frame[8]
    u64[r9+0] = r0";

const LOOP_MAY_GOTO: &str = "
    r1 = &slots[16]
    r8 = u64[r1+0]
    next:
    if r8 >= 5 goto done
    may_goto done";

const LOOP_BOUNDED: &str = "
    r8 = 0
    next:
    if r8 >= 5 goto done";

const POINT: &str = "
    r1 = r8
    r1 <<= 4
    r7 = &slots[64]
    r7 += r1
    r1 = r8
    r1 *= 56
    r9 = &frame[1024]
    r9 += r1
    r1 = u64[r7+8]
    if r1 == 0 goto empty";

/// `mm_users`.
const ALIVE: [&str; 2] = [
    "
    r2 = 77
    call kfunc 1234
    r1 = u32[r0+0]
    if r1 == 0 goto dead",
    "
    r3 = r1
    r1 = r10
    r1 += -8
    r2 = 4
    call probe_read_kernel
    if r0 != 0 goto failed
    r1 = u32[r10-8]
    if r1 == 0 goto dead",
];

/// Words 3 to 6 and 9: three of a cast, then what is left of the run, then the other.
const WORDS: [&str; 2] = [
    "
    r6 = 0
    r1 = u64[r7+0]
    r1 += 24
    r2 = 77
    call kfunc 1234
    r1 = u64[r0+0]
    r6 |= r1
    u64[r9+16] = r1
    r1 = u64[r0+8]
    r6 |= r1
    u64[r9+24] = r1
    r1 = u64[r0+16]
    r6 |= r1
    u64[r9+32] = r1
    r1 = u64[r7+0]
    r1 += 48
    r2 = 77
    call kfunc 1234
    r1 = u64[r0+0]
    r6 |= r1
    u64[r9+40] = r1
    r1 = u64[r7+0]
    r1 += 72
    r2 = 77
    call kfunc 1234
    r1 = u64[r0+0]
    r6 |= r1
    u64[r9+48] = r1
    if r6 != 0 goto data
    r6 = r8
    r6 <<= 4
    r1 = &slots[144]
    r6 += r1
    r1 = u64[r6+0]
    r2 = 77
    call kfunc 1234
    r1 = u64[r0+0]
    r2 = u64[r6+8]
    if r1 != r2 goto failed
    data:",
    "
    r6 = 0
    r1 = u64[r7+0]
    r1 += 24
    r3 = r1
    r1 = r9
    r1 += 16
    r2 = 24
    call probe_read_kernel
    if r0 != 0 goto failed
    r1 = u64[r7+0]
    r1 += 48
    r3 = r1
    r1 = r9
    r1 += 40
    r2 = 8
    call probe_read_kernel
    if r0 != 0 goto failed
    r1 = u64[r7+0]
    r1 += 72
    r3 = r1
    r1 = r9
    r1 += 48
    r2 = 8
    call probe_read_kernel
    if r0 != 0 goto failed",
];

/// Five words from the third on, however single words would be read.
const BLOCK: &str = "
    r1 = r9
    r1 += 16
    r2 = 40
    r3 = u64[r7+0]
    r3 += 24
    call probe_read_kernel
    if r0 != 0 goto failed";

/// `vcpu->pid`, its first task, and that one's id and delay.
const THREAD: [&str; 2] = [
    "
    r1 = u64[r7+0]
    r1 += 100
    r2 = 77
    call kfunc 1234
    r1 = u64[r0+0]
    if r1 == 0 goto threadless
    r1 += 200
    r2 = 77
    call kfunc 1234
    r1 = u64[r0+0]
    if r1 == 0 goto threadless
    r1 += -300
    u64[r10-16] = r1
    r1 = u64[r10-16]
    r1 += 400
    r2 = 77
    call kfunc 1234
    r1 = u32[r0+0]
    u64[r9+16] = r1
    r1 = u64[r10-16]
    r1 += 500
    r2 = 77
    call kfunc 1234
    r1 = u64[r0+0]
    u64[r9+24] = r1",
    "
    r1 = u64[r7+0]
    r1 += 100
    r3 = r1
    r1 = r10
    r1 += -8
    r2 = 8
    call probe_read_kernel
    if r0 != 0 goto failed
    r1 = u64[r10-8]
    if r1 == 0 goto threadless
    r1 += 200
    r3 = r1
    r1 = r10
    r1 += -8
    r2 = 8
    call probe_read_kernel
    if r0 != 0 goto failed
    r1 = u64[r10-8]
    if r1 == 0 goto threadless
    r1 += -300
    u64[r10-16] = r1
    r1 = u64[r10-16]
    r1 += 400
    r3 = r1
    r1 = r10
    r1 += -8
    r2 = 4
    call probe_read_kernel
    if r0 != 0 goto failed
    r1 = u32[r10-8]
    u64[r9+16] = r1
    r1 = u64[r10-16]
    r1 += 500
    r3 = r1
    r1 = r10
    r1 += -8
    r2 = 8
    call probe_read_kernel
    if r0 != 0 goto failed
    r1 = u64[r10-8]
    u64[r9+24] = r1",
];

const GOOD: &str = "
    u64[r9+0] = 0
    r8 += 1
    u64[r9+8] = r8
    goto next
    empty:
    u64[r9+0] = 2
    goto marked
    dead:
    u64[r9+0] = 6
    goto marked";

const FAILED: &str = "
    failed:
    u64[r9+0] = 4
    goto marked";

const THREADLESS: &str = "
    threadless:
    u64[r9+0] = 8
    goto marked";

const END: &str = "
    marked:
    u64[r9+8] = 0
    r9 = &frame[24]
    r1 = u64[r9+0]
    r1 += 1
    u64[r9+0] = r1
    r8 += 1
    goto next
    done:
    r9 = &frame[32]
    u64[r9+0] = r8
    call ktime_get_ns
    r9 = &frame[16]
    u64[r9+0] = r0
    r9 = &frame[0]
    r1 = u64[r9+0]
    r1 += 1
    xchg u64[r9+0], r1
    r0 = 0
    exit";

fn words() -> Content {
    Content::Words(vec![3, 4, 5, 6, 9])
}

fn block() -> Content {
    Content::Block { from: 24, bytes: 40 }
}

fn thread() -> Content {
    let task = Task {
        vcpu_pid: 100,
        pid_first_task: 200,
        task_pid_link: 300,
        task_pid: 400,
        run_delay: 500,
        timeslices: 600,
        run_time: 700,
    };
    Content::Thread(task, vec![ThreadWord::ThreadId, ThreadWord::RunDelay])
}

/// The words of such a program, and its lines.
fn written(looping: Loop, access: Access, content: Content) -> (Vec<u64>, Vec<Line>) {
    let [frame, slots] = [(); 2].map(|()| File::open("/dev/null").unwrap());
    let slots = Slots::stand_in(slots.into(), ROWS);
    let tick = Tick {
        frame: frame.as_fd(),
        slots: &slots,
        rows_byte: 1024,
        row_bytes: ROW_BYTES,
        looping,
        access,
        content,
    };
    let insns = tick.program().unwrap();
    assert_ne!(frame.as_raw_fd(), slots.fd().as_raw_fd());
    let lines = lines(&insns, &[(frame.as_fd(), "frame"), (slots.fd(), "slots")]);
    (insns, lines)
}

#[track_caller]
fn check(looping: Loop, at: usize, content: Content, body: &str, marks: &[&str]) {
    let (_, lines) = written(looping, ACCESSES[at], content);
    let head = if looping == Loop::MayGoto { LOOP_MAY_GOTO } else { LOOP_BOUNDED };
    let expected = [BEGIN, head, POINT, ALIVE[at], body, GOOD].concat() + &marks.concat() + END;
    assert_eq!(listing(&lines), numbered(&expected), "{looping:?}, {}", ALIVE[at]);
}

#[test]
fn words_are_copied_one_by_one() {
    for looping in LOOPS {
        check(looping, 0, words(), WORDS[0], &[FAILED]);
        check(looping, 1, words(), WORDS[1], &[FAILED]);
    }
}

#[test]
fn a_block_is_copied_at_once() {
    for looping in LOOPS {
        check(looping, 0, block(), BLOCK, &[FAILED]);
        check(looping, 1, block(), BLOCK, &[FAILED]);
    }
}

#[test]
fn a_thread_is_followed() {
    for looping in LOOPS {
        // A load of what was cast never fails.
        check(looping, 0, thread(), THREAD[0], &[THREADLESS]);
        check(looping, 1, thread(), THREAD[1], &[FAILED, THREADLESS]);
    }
}

/// Of each kind, and of one word and as many as there can be.
fn every_program(check: impl Fn(Vec<u64>, Vec<Line>)) {
    let many = Content::Words((0..64).map(|at| 2 * at).collect());
    let all = Content::Words((0..64).collect());
    for looping in LOOPS {
        for access in ACCESSES {
            for content in
                [words(), block(), thread(), Content::Words(vec![7]), many.clone(), all.clone()]
            {
                let (insns, lines) = written(looping, access, content);
                check(insns, lines);
            }
        }
    }
}

/// Its second line of defence is the verifier.
#[test]
fn all_stores_go_to_the_frame_or_the_stack() {
    every_program(|_, lines| {
        let is_frames = |line: &Line| line.text.starts_with("r9 = &frame[");
        let mut stores = 0;
        for (at, line) in lines.iter().enumerate() {
            if let Some((to, off)) = line.stores {
                let is_stacks = to == 10 && (off == SCRATCH || off == TASK);
                assert!(to == 9 && off >= 0 || is_stacks, "{}", line.text);
                stores += usize::from(to == 9);
            }
            // The helper writes to the row, or to the stack.
            if line.text == "call probe_read_kernel" {
                let to = lines[..at].iter().rfind(|line| line.text.starts_with("r1 = ")).unwrap();
                assert!(["r1 = r9", "r1 = r10"].contains(&&*to.text), "{}", to.text);
            }
            match line.sets {
                // A calculated row is a row of the frame, too.
                Some(9) => {
                    assert!(is_frames(line) || line.text == "r9 += r1" && is_frames(&lines[at - 1]))
                }
                Some(10) => panic!("{}", line.text),
                _ => {}
            }
        }
        // The head's nine, a row's two and its data, the marks' five and more.
        assert!(stores > 12, "{stores}");
    });
}

#[test]
fn only_helpers_are_called_that_leave_processes_alone() {
    every_program(|insns, _| {
        let helpers: Vec<i32> = insns.iter().filter_map(|word| helper_of(*word)).collect();
        assert!(helpers.len() >= 2);
        assert!(helpers.iter().all(|helper| HELPERS.contains(helper)), "{helpers:?}");
    });
}

/// The verifier refuses anything else.
#[test]
fn every_instruction_can_be_reached() {
    every_program(|_, lines| assert!(is_all_reached(&lines), "{}", listing(&lines)));
}

/// Or there would be a way around what ends the loop.
#[test]
fn there_is_one_loop() {
    every_program(|_, lines| {
        let back = lines.iter().filter(|line| line.jump.is_some_and(|to| to <= line.at));
        let mut tops: Vec<usize> = back.filter_map(|line| line.jump).collect();
        tops.dedup();
        let [top] = tops[..] else { panic!("{tops:?}") };
        let top = lines.iter().find(|line| line.at == top).unwrap();
        assert_eq!(top.text, "if r8 >= 5 goto");
    });
}
