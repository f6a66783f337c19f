//! The proof: it holds here, and fails where an offset is another's.

use super::super::bulk::{Step, Wanted};
use super::super::offsets::{Offsets, Task};
use super::super::program::ThreadWord;
use super::super::tests::{kernel_and_offsets, kinds};
use super::*;
use vmstrobe_host::procfs;
use vmstrobe_testing::require;

#[test]
fn words_are_in_the_order_of_scheds_data() {
    let name = |word| match word {
        ThreadWord::RunDelay => "run_delay",
        ThreadWord::RunTime => "run_time",
        ThreadWord::Timeslices => "timeslices",
        ThreadWord::ThreadId => "thread_id",
    };
    assert_eq!(ThreadWord::ALL.map(name), WORD_NAMES);
    let schema = sched_schema();
    let words: Vec<_> = schema.descs().iter().map(|desc| desc.words()).collect();
    assert_eq!(words, [0..1, 1..2, 2..3, 3..4]);
    let names: Vec<&str> = schema.descs().iter().map(|desc| &*desc.name).collect();
    assert_eq!(names, WORD_NAMES);
}

/// The kernel and its offsets, where it numbers threads as /proc does.
fn right() -> Option<(Arc<Kernel>, &'static Offsets)> {
    let is_first = procfs::sees_every_process().then_some(());
    let is_first = is_first.ok_or_else(|| "this is a pid namespace".to_owned());
    if require("bpf", is_first) { kernel_and_offsets() } else { None }
}

/// The proof by these offsets.
fn proof(offsets: &Offsets) -> Result<()> {
    let kinds = kinds(kernel_and_offsets().unwrap().1);
    prove(|plan, vcpu| {
        let files = [Some(vcpu)];
        let (subject, kinds) = (Subject::Thread, &kinds);
        let wanted = Wanted { subject, plan, files: &files, kinds };
        BulkReader::new(offsets, &Step::all(offsets), &wanted)
    })
}

#[test]
fn this_kernels_threads_are_proven() {
    let Some((_, offsets)) = right() else { return };
    for _ in 0..100 {
        proof(offsets).unwrap();
    }
}

#[test]
fn another_members_offset_is_refused() {
    let Some((_, offsets)) = right() else { return };
    let right = offsets.task.clone().unwrap();
    type Change = fn(&mut Task);
    let wrong: [(Change, &str); 5] = [
        (|task| task.task_pid += 4, "own numbers of threads differ"),
        (|task| task.run_time = task.run_delay, "it read run_time"),
        (|task| task.timeslices = task.run_time, "it read timeslices"),
        (|task| task.run_delay = task.run_time, "it read run_delay"),
        (|task| task.timeslices = u32::from(u16::MAX), "failed its self-test on threads"),
    ];
    for (change, want) in wrong {
        let mut task = right.clone();
        change(&mut task);
        let error = proof(&Offsets { task: Some(task), ..offsets.clone() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(want), "{error}");
    }
    let none = Offsets { task: None, ..offsets.clone() };
    let error = proof(&none).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the BPF reader does not know where this kernel keeps the times of threads"
    );
}
