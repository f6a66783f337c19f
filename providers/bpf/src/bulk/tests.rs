//! Each way to read, by itself, against pread; and what the verifier says to ways that it refuses.

use std::sync::Arc;

use vmstrobe_core::{Mask, RowState, Schema};
use vmstrobe_kvm::KvmFd;

use super::*;
use crate::Bpf;
use crate::frame::{LOCK_WORDS, mark};
use crate::kernel::Kernel;
use crate::offsets::Cast;
use crate::tests::{Guests, all, file, kernel_and_offsets, kinds, pread, repeated};

/// The steps of the three that this kernel's types allow; the last is always among them.
fn steps(offsets: &Offsets) -> Vec<Step> {
    let steps = Step::all(offsets);
    assert!(steps.len() == 3 || offsets.cast.is_none() && steps.len() == 1);
    steps
}

type Fds = Vec<Option<Arc<KvmFd>>>;

struct Rig {
    kernel: Arc<Kernel>,
    offsets: Offsets,
    kinds: Kinds,
    guests: Guests,
}

impl Rig {
    fn new(guests: u32) -> Option<Self> {
        let (kernel, offsets) = kernel_and_offsets()?;
        let guests = Guests::new(guests, Bpf::off());
        Some(Self { kernel, offsets: offsets.clone(), kinds: kinds(offsets), guests })
    }

    fn bulk(
        &self,
        steps: &[Step],
        subject: Subject,
        plan: &ReadPlan,
        fds: &Fds,
    ) -> Result<BulkReader> {
        let files: Vec<_> = fds.iter().map(|row| row.as_ref().map(file)).collect();
        let kinds = &self.kinds;
        let wanted = Wanted { subject, plan, files: &files, kinds };
        BulkReader::new(&self.offsets, steps, &wanted)
    }

    /// Reads the plan by that step, and compares with what pread says of `same`.
    #[track_caller]
    fn check(&self, step: Step, subject: Subject, plan: &Arc<ReadPlan>, fds: &Fds, same: &Fds) {
        let mut bulk = match self.bulk(&[step], subject, plan, fds) {
            Err(error) if step.looping == Loop::MayGoto => {
                // Linux 6.9.
                let cause = std::error::Error::source(&error).unwrap().to_string();
                assert!(cause.contains("unknown opcode e5"), "{error}: {cause}");
                return;
            }
            bulk => bulk.unwrap(),
        };
        let head = bulk.run().unwrap();
        assert_eq!(head.marked, 0);
        assert!(head.begin_ns > 0 && head.begin_ns <= head.end_ns);
        let (states, words) = pread(plan, same);
        assert!(states.iter().all(|state| *state == RowState::Good));
        let rows = rows(&bulk);
        assert_eq!(rows.len(), fds.len());
        for (at, (row, want)) in rows.iter().zip(words.chunks(plan.row_words())).enumerate() {
            assert_eq!((row[0], row[1]), (0, at as u64 + 1), "row {at}");
            assert_eq!(*row, bulk.copy_of(at));
            assert_eq!(kept(&bulk, plan, row), want, "row {at}, {}", step.name());
        }
    }
}

/// Returns all rows of the last run.
fn rows(bulk: &BulkReader) -> Vec<Vec<u64>> {
    let copy = |row: &[AtomicU64]| row.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    bulk.rows().map(copy).collect()
}

/// The words of a row that the plan keeps.
fn kept(bulk: &BulkReader, plan: &ReadPlan, row: &[u64]) -> Vec<u64> {
    let mut words = vec![0; plan.row_words()];
    match bulk.shape() {
        Shape::Row => words.copy_from_slice(&row[LOCK_WORDS..]),
        Shape::Span => plan.keep(&row[LOCK_WORDS..], &mut words),
    }
    words
}

/// The plan of so many words from there on, each so far behind the one before.
fn strided(schema: &Arc<Schema>, first: usize, stride: usize, count: usize) -> Arc<ReadPlan> {
    // Words of a histogram too: as if each were a statistic.
    let words = schema.data_bytes() / WORD_BYTES;
    let wanted = |word: &usize| *word >= first && (word - first).is_multiple_of(stride);
    let wanted = (0..words).filter(wanted).take(count);
    let descs = wanted.map(|at| vmstrobe_core::Desc::counter("word", (at * WORD_BYTES) as u32));
    let schema = Schema::new("kvm", schema.target().clone(), descs.collect());
    ReadPlan::new(&schema, &Mask::all(&schema))
}

/// Narrow and wide, in one piece and scattered.
fn plans(schema: &Arc<Schema>) -> Vec<Arc<ReadPlan>> {
    let words = schema.data_bytes() / WORD_BYTES;
    let plan = |first, stride, count| strided(schema, first, stride, count);
    let mut plans = vec![
        all(schema),
        plan(0, 1, 1),
        plan(words - 1, 1, 1),
        // Runs of each length around what one cast reaches, and its end.
        plan(1, 1, 2),
        plan(1, 1, 3),
        plan(1, 1, 4),
        plan(words - 7, 1, 7),
        plan(1, 2, words),
        plan(0, 3, words),
    ];
    // About the most that are read one by one, in one run and in many.
    for count in [PROBED_WORDS_MAX + 1, WORDS_MAX, WORDS_MAX + 1] {
        if words > 2 * count {
            plans.extend([plan(3, 1, count), plan(0, 2, count)]);
        }
    }
    plans
}

#[test]
fn each_step_reads_what_pread_does() {
    let Some(rig) = Rig::new(6) else { return };
    for subject in [Subject::Vm, Subject::Vcpu] {
        let stats = repeated(&rig.guests.stats(subject), 6);
        let schema = rig.kernel.schema(subject);
        let object_fds = repeated(&rig.guests.object_fds(subject, schema), 6);
        for plan in plans(schema) {
            for step in steps(&rig.offsets) {
                rig.check(step, subject, &plan, &stats, &stats);
                rig.check(step, subject, &plan, &object_fds, &stats);
            }
        }
    }
}

#[test]
fn one_row_and_many_are_read() {
    let Some(rig) = Rig::new(7) else { return };
    for subject in [Subject::Vm, Subject::Vcpu] {
        let fds = rig.guests.stats(subject);
        let schema = rig.kernel.schema(subject);
        for count in [1, 2, 63, 300] {
            for plan in [strided(schema, 0, 4, 3), all(schema)] {
                let rows = repeated(&fds, count);
                for step in steps(&rig.offsets) {
                    rig.check(step, subject, &plan, &rows, &rows);
                }
            }
        }
    }
}

#[test]
fn words_are_read_one_by_one_up_to_a_number() {
    let Some(rig) = Rig::new(1) else { return };
    let fds = repeated(&rig.guests.stats(Subject::Vcpu), 1);
    let schema = rig.kernel.schema(Subject::Vcpu);
    for step in steps(&rig.offsets) {
        let shape = |count| {
            let bulk = rig.bulk(&[step], Subject::Vcpu, &strided(schema, 0, 1, count), &fds);
            bulk.map(|bulk| bulk.shape()).ok()
        };
        let most = if step.access == Access::Probe { PROBED_WORDS_MAX } else { WORDS_MAX };
        let seen = [shape(most), shape(most + 1)];
        let as_expected = [Some(Shape::Row), Some(Shape::Span)];
        assert!(seen == as_expected || step.looping == Loop::MayGoto && seen == [None; 2]);
    }
}

#[test]
fn rows_of_nothing_are_marked_and_the_others_are_read() {
    let Some(rig) = Rig::new(3) else { return };
    let fds = repeated(&rig.guests.stats(Subject::Vcpu), 3);
    let schema = rig.kernel.schema(Subject::Vcpu);
    let rows: Fds = vec![None, fds[0].clone(), fds[1].clone(), None, None, fds[2].clone(), None];
    for plan in [strided(schema, 0, 3, 2), all(schema)] {
        let (_, want) = pread(&plan, &fds);
        let mut bulk = rig.bulk(&steps(&rig.offsets), Subject::Vcpu, &plan, &rows).unwrap();
        // Whatever the last run has left, each counts anew.
        for _ in 0..3 {
            assert_eq!(bulk.run().unwrap().marked, 4);
        }
        let mut want = want.chunks(plan.row_words());
        for (at, row) in super::tests::rows(&bulk).iter().enumerate() {
            match rows[at] {
                Some(_) => {
                    assert_eq!((row[0], row[1]), (0, at as u64 + 1));
                    assert_eq!(kept(&bulk, &plan, row), want.next().unwrap());
                }
                None => assert_eq!((row[0], row[1]), (mark::EMPTY, 0)),
            }
        }
    }
}

/// The first statistic that is 0 here.
fn zero(fds: &Fds, schema: &Arc<Schema>) -> Arc<ReadPlan> {
    let (_, words) = pread(&all(schema), fds);
    strided(schema, words.iter().position(|word| *word == 0).unwrap(), 1, 1)
}

#[test]
fn zeros_are_data() {
    let Some(rig) = Rig::new(1) else { return };
    let fds = repeated(&rig.guests.stats(Subject::Vcpu), 4);
    let plan = zero(&fds, rig.kernel.schema(Subject::Vcpu));
    for step in steps(&rig.offsets) {
        rig.check(step, Subject::Vcpu, &plan, &fds, &fds);
    }
}

/// A guard that goes away stands for an object that does.
#[test]
fn zeros_without_the_guard_are_no_data() {
    let Some(mut rig) = Rig::new(2) else { return };
    let Some(cast) = rig.offsets.cast else { return };
    let fds = repeated(&rig.guests.stats(Subject::Vcpu), 3);
    let schema = rig.kernel.schema(Subject::Vcpu);
    let exits = &schema.descs()[schema.find("exits").unwrap()];
    rig.offsets.vcpu.stats_id = rig.offsets.vcpu.stat + exits.offset;
    let step = Step { looping: Loop::Bounded, access: Access::Cast(cast) };
    let read = |plan: &Arc<ReadPlan>, bulk: &mut BulkReader| {
        let marked = bulk.run().unwrap().marked;
        let rows = rows(bulk).into_iter().map(|row| (row[0], row[1], kept(bulk, plan, &row)));
        (marked, rows.collect::<Vec<_>>())
    };
    let plan = zero(&fds, schema);
    let mut zeros = rig.bulk(&[step], Subject::Vcpu, &plan, &fds).unwrap();
    let whole = all(schema);
    let mut others = rig.bulk(&[step], Subject::Vcpu, &whole, &fds).unwrap();
    let good = |row| (0, row, vec![0]);
    assert_eq!(read(&plan, &mut zeros), (0, vec![good(1), good(2), good(3)]));

    rig.guests.guest(1).run(1, 0).unwrap();
    let failed = (mark::FAILED, 0, vec![0]);
    assert_eq!(read(&plan, &mut zeros), (1, vec![good(1), failed, good(3)]));
    // A row that is not all 0 needs no guard.
    let (marked, rows) = read(&whole, &mut others);
    assert!(marked == 0 && rows.iter().all(|(mark, ..)| *mark == 0));
}

/// Statistics behind a pointer that is none: the letters of a name.
#[test]
fn addresses_that_are_none_can_be_read() {
    let Some(mut rig) = Rig::new(1) else { return };
    rig.offsets.vcpu.stat_is_pointer = true;
    rig.offsets.vcpu.stat = rig.offsets.vcpu.stats_id;
    let fds = repeated(&rig.guests.stats(Subject::Vcpu), 3);
    let schema = rig.kernel.schema(Subject::Vcpu);
    for plan in [strided(schema, 5, 2, 3), all(schema)] {
        for step in steps(&rig.offsets) {
            let bulk = rig.bulk(&[step], Subject::Vcpu, &plan, &fds);
            let Ok(mut bulk) = bulk else {
                assert_eq!(step.looping, Loop::MayGoto);
                continue;
            };
            let marked = bulk.run().unwrap().marked;
            let is_cast = step.access != Access::Probe && bulk.shape() == Shape::Row;
            // A cast gives zeros, and the guard is where it should be: only a comparison tells.
            assert_eq!(marked, if is_cast { 0 } else { 3 }, "{}", step.name());
            let row = bulk.copy_of(0);
            assert_eq!((row[0] == mark::FAILED, row[1] == 0), (!is_cast, !is_cast));
            assert!(row[LOCK_WORDS..].iter().all(|word| *word == 0));
        }
    }
}

#[test]
fn a_run_counts_and_takes_its_time() {
    let Some(rig) = Rig::new(2) else { return };
    let fds = repeated(&rig.guests.stats(Subject::Vcpu), 2);
    let plan = all(rig.kernel.schema(Subject::Vcpu));
    let mut bulk = rig.bulk(&steps(&rig.offsets), Subject::Vcpu, &plan, &fds).unwrap();
    let exits = plan.column("exits").unwrap().words.start;
    let now = |bulk: &BulkReader| {
        let rows = rows(bulk).into_iter().map(|row| kept(bulk, &plan, &row)[exits]);
        rows.collect::<Vec<_>>()
    };
    let mut last = bulk.run().unwrap();
    for times in 1..=3 {
        let before = now(&bulk);
        rig.guests.guest(1).run(100, 0).unwrap();
        assert_eq!(now(&bulk), before, "without a run nothing changes");
        let head = bulk.run().unwrap();
        assert!(head.begin_ns >= last.end_ns);
        assert_eq!(bulk.writer.words()[SEQ].load(Ordering::Relaxed), 2 * (times + 1));
        let after = now(&bulk);
        assert!(after[0] == before[0] && after[1] >= before[1] + 100, "{before:?}, {after:?}");
        last = head;
    }
}

/// The error has the verifier's reason as its cause; without any step there is an error, too.
#[test]
fn what_the_verifier_refuses_is_unsupported_with_its_words() {
    let Some(rig) = Rig::new(1) else { return };
    let Some(cast) = rig.offsets.cast else { return };
    let fds = repeated(&rig.guests.stats(Subject::Vcpu), MAX_ROWS);
    let schema = rig.kernel.schema(Subject::Vcpu);
    // More branches than it keeps in mind; and a function that is none.
    let plan = strided(schema, 0, 2, 1);
    let unknown = Access::Cast(Cast { kfunc: 1, ..cast });
    for (access, why) in [(Access::Cast(cast), "8193 jumps"), (unknown, "kernel")] {
        let step = Step { looping: Loop::Bounded, access };
        let error = rig.bulk(&[step], Subject::Vcpu, &plan, &fds).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "this kernel cannot run our BPF program");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        let (_, verifier) = cause.split_once("the verifier: ").unwrap();
        assert!(verifier.contains(why), "{cause}");
    }
    let error = rig.bulk(&[], Subject::Vcpu, &plan, &fds).unwrap_err();
    assert_eq!(error.to_string(), "there is no way to read a word");
}

/// Else the reason would be lost: the next step may be refused for another.
#[test]
fn a_file_that_is_not_kvms_is_refused_at_once() {
    let Some(rig) = Rig::new(1) else { return };
    let schema = rig.kernel.schema(Subject::Vcpu);
    let mut fds = repeated(&rig.guests.stats(Subject::Vcpu), 8);
    fds.extend(repeated(&rig.guests.stats(Subject::Vm), 1));
    let plan = strided(schema, 0, 2, WORDS_MAX);
    let refused = |steps: &[Step]| {
        let error = rig.bulk(steps, Subject::Vcpu, &plan, &fds).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().ends_with("the file is not KVM's"), "{error}");
    };
    refused(&steps(&rig.offsets));
    let unknown = Cast { kfunc: 1, struct_id: 1 };
    let bad = Step { looping: Loop::Bounded, access: Access::Cast(unknown) };
    let probe = Step { looping: Loop::Bounded, access: Access::Probe };
    refused(&[bad, probe, bad]);
}

/// As many as a source has at most, with our own guest behind them, whatever the plan.
#[test]
fn the_verifier_takes_as_many_rows_as_there_can_be() {
    let Some(rig) = Rig::new(1) else { return };
    let schema = rig.kernel.schema(Subject::Vcpu);
    let stats = rig.guests.stats(Subject::Vcpu);
    for step in steps(&rig.offsets) {
        let rows = repeated(&stats, step.rows_max() + 1);
        let most = if step.access == Access::Probe { PROBED_WORDS_MAX } else { WORDS_MAX };
        for plan in [strided(schema, 0, 2, most), all(schema)] {
            let bulk = rig.bulk(&[step], Subject::Vcpu, &plan, &rows);
            assert!(bulk.is_ok() || step.looping == Loop::MayGoto, "{}: {bulk:?}", step.name());
        }
    }
}

/// As if it were to go through more rows than its program does.
pub(crate) fn of_more_rows(bulk: BulkReader) -> BulkReader {
    BulkReader { rows: bulk.rows + 1, ..bulk }
}

#[test]
fn a_run_that_does_not_go_through_all_rows_is_not_used() {
    let Some(rig) = Rig::new(1) else { return };
    let fds = repeated(&rig.guests.stats(Subject::Vcpu), 2);
    let plan = all(rig.kernel.schema(Subject::Vcpu));
    let bulk = rig.bulk(&steps(&rig.offsets), Subject::Vcpu, &plan, &fds).unwrap();
    assert_eq!(of_more_rows(bulk).run().unwrap_err(), Unread::Incomplete);
}
