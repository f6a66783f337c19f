//! Tests of when rows are read by pread and when by the program, and that both read the same.

use std::path::Path;
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Mask, ReadPlan};
use vmstrobe_testing::tick;

use super::*;
use crate::bulk::Step;
use crate::kernel::Kernel;
use crate::offsets::{BTF_DIR, Cast};
use crate::policy::BpfStatus;
use crate::program::{Access, Loop};
use crate::tests::types::Types;
use crate::tests::{Guests, all, kernel, named, pread, repeated, rows};

type Fds = Vec<Option<Arc<KvmFd>>>;

fn open(guests: &Guests, plan: &Arc<ReadPlan>, fds: &Fds) -> Result<Vec<Box<dyn Source>>> {
    let rows = rows(plan, fds, guests.opener.gone_epoch());
    let opened = BulkOpener::open(&guests.bpf, &rows)?;
    Ok(opened.unwrap_or_else(|| rows.pread_sources()))
}

/// Returns the number of rows of each source, and whether it reads them by the program.
fn ways(sources: Result<Vec<Box<dyn Source>>>) -> Vec<(usize, bool)> {
    let sources = sources.unwrap();
    sources.iter().map(|source| (source.rows(), source.read_ns().is_some())).collect()
}

/// The rows of all these, one behind the other.
fn read(sources: Vec<Box<dyn Source>>, plan: &ReadPlan) -> (Vec<RowState>, Vec<u64>) {
    let (mut states, mut words) = (Vec::new(), Vec::new());
    for mut source in sources {
        let (of_source, its_words) = tick(&mut *source, plan.row_words());
        states.extend(of_source);
        words.extend(its_words);
    }
    (states, words)
}

const BY_PREAD: bool = false;
const BY_PROGRAM: bool = true;

#[test]
fn the_mode_says_which_rows_are_read_by_the_program() {
    if kernel().is_none() {
        return;
    }
    use BpfMode::{Auto, Needed, Off, Require};
    for mode in [Off, Needed, Auto, Require] {
        let guests = Guests::new(2, Bpf::new(mode));
        let (stats, bpf) = (guests.stats(Subject::Vcpu), &guests.bpf);
        let plan = named(stats[0].schema(), &["exits", "halt_exits"]);
        let status = || bpf.status();
        let untried = if mode == Off { BpfStatus::Off } else { BpfStatus::Untried };

        assert_eq!(status(), untried);
        assert_eq!(ways(open(&guests, &plan, &Fds::new())), []);
        // Nothing is read of these.
        let nothing =
            ReadPlan::new(stats[0].schema(), &Mask::none(stats[0].schema().descs().len()));
        assert_eq!(ways(open(&guests, &nothing, &repeated(&stats, 20))), [(20, BY_PREAD)]);
        let is_insisted = mode == Require;
        for count in [1, 2] {
            let rows = repeated(&stats, count);
            assert_eq!(ways(open(&guests, &plan, &rows)), [(count, is_insisted)], "{mode:?}");
        }
        assert_eq!(status() == untried, !is_insisted, "{mode:?}: two are no reason to try it");
        let is_quicker = is_insisted || mode == Auto;
        for count in [ROWS_SURE, 64] {
            let rows = repeated(&stats, count);
            assert_eq!(ways(open(&guests, &plan, &rows)), [(count, is_quicker)], "{mode:?}");
        }
        assert_eq!(status() == untried, !is_quicker, "{mode:?}");

        let object_fds = guests.object_fds(Subject::Vcpu, stats[0].schema());
        let is_needed = mode != Off;
        for rows in
            [repeated(&object_fds, 1), [repeated(&stats, 2), repeated(&object_fds, 1)].concat()]
        {
            let count = rows.len();
            assert_eq!(ways(open(&guests, &plan, &rows)), [(count, is_needed)], "{mode:?}");
        }
        assert_eq!(matches!(status(), BpfStatus::Open(_)), is_needed, "{mode:?}");
    }
}

/// Few rows by whatever is quicker here, and right in either case.
#[test]
fn few_rows_are_measured() {
    if kernel().is_none() {
        return;
    }
    let guests = Guests::new(5, Bpf::new(BpfMode::Auto));
    let stats = guests.stats(Subject::Vcpu);
    for count in ROWS_MIN..ROWS_SURE {
        for plan in [all(stats[0].schema()), named(stats[0].schema(), &["exits"])] {
            let rows = repeated(&stats, count);
            let sources = open(&guests, &plan, &rows).unwrap();
            assert_eq!(sources.len(), 1);
            assert_eq!(read(sources, &plan), pread(&plan, &rows));
        }
    }
    assert!(matches!(guests.bpf.status(), BpfStatus::Open(_)));
}

/// A fall-back that takes so long.
struct Waiting(Duration);

impl Source for Waiting {
    fn rows(&self) -> usize {
        1
    }

    fn read(&mut self, _rows: Rows<'_>) {
        thread::sleep(self.0);
    }
}

#[test]
fn it_is_measured_which_way_is_quicker() {
    if kernel().is_none() {
        return;
    }
    let guests = Guests::new(1, Bpf::new(BpfMode::Require));
    let rows = repeated(&guests.stats(Subject::Vcpu), 64);
    let plan = all(rows[0].as_ref().unwrap().schema());
    let all = super::super::tests::rows(&plan, &rows, guests.opener.gone_epoch());
    let is_quicker_than = |wait| {
        let fallback = Box::new(Waiting(wait));
        let source = guests.bpf.source(&all, &all.objects, &all.fds, fallback);
        is_quicker(&mut source.unwrap())
    };
    assert!(is_quicker_than(Duration::from_millis(5)));
    // It does nothing at all, not even a system call.
    assert!(!is_quicker_than(Duration::ZERO));
}

/// As of a VMM that keeps none open: by what is behind the descriptors that every VMM has.
#[test]
fn object_fds_are_read_as_their_stats_fds() {
    let Some(kernel) = kernel() else { return };
    for subject in [Subject::Vm, Subject::Vcpu] {
        let guests = Guests::new(3, Bpf::new(BpfMode::Needed));
        let object_fds = guests.object_fds(subject, kernel.schema(subject));
        let schema = object_fds[0].schema();
        let rows = repeated(&object_fds, 3);
        for plan in [all(schema), first(schema)] {
            let sources = open(&guests, &plan, &rows).unwrap();
            let seen = read(sources, &plan);
            // Opened only now.
            let stats = repeated(&guests.stats(subject), 3);
            assert_eq!(seen, pread(&plan, &stats));
            assert!(seen.1.iter().any(|word| *word != 0) || plan.row_words() == 1);
        }
    }
}

fn first(schema: &Arc<Schema>) -> Arc<ReadPlan> {
    named(schema, &[&schema.descs()[0].name])
}

/// A kernel that takes none of our programs although it took those that it was tried with.
fn of_refused_steps(mode: BpfMode) -> Bpf {
    let step =
        Step { looping: Loop::Bounded, access: Access::Cast(Cast { kfunc: 1, struct_id: 1 }) };
    let kernel = Kernel::prove(Path::new(BTF_DIR)).unwrap();
    Bpf::as_tried(mode, Ok(kernel.with_steps(vec![step, step])))
}

#[test]
fn what_cannot_be_loaded_is_read_by_pread_or_an_error() {
    if kernel().is_none() {
        return;
    }
    let guests = |mode| Guests::new(2, of_refused_steps(mode));
    let auto = guests(BpfMode::Auto);
    let stats = auto.stats(Subject::Vcpu);
    let plan = all(stats[0].schema());
    let rows = repeated(&stats, 70);
    let sources = open(&auto, &plan, &rows).unwrap();
    assert!(sources.iter().all(|source| source.read_ns().is_none()));
    assert_eq!(read(sources, &plan), pread(&plan, &rows));

    let insisting = guests(BpfMode::Require);
    let rows = repeated(&insisting.stats(Subject::Vcpu), 70);
    let plan = all(rows[0].as_ref().unwrap().schema());
    let error = open(&insisting, &plan, &rows).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.to_string(), "this kernel cannot run our BPF program");
    // It may be another plan's turn.
    assert!(!insisting.bpf.health().is_given_up());
}

#[test]
fn what_was_refused_is_read_by_pread_or_an_error() {
    let Some(_) = kernel() else { return };
    let refused = || Error::new(ErrorKind::Denied, "no rights");
    for mode in [BpfMode::Auto, BpfMode::Needed, BpfMode::Require] {
        let guests = Guests::new(1, Bpf::as_tried(mode, Err(refused())));
        let rows = repeated(&guests.stats(Subject::Vcpu), 20);
        let plan = all(rows[0].as_ref().unwrap().schema());
        match open(&guests, &plan, &rows) {
            Ok(sources) => {
                assert_ne!(mode, BpfMode::Require);
                assert_eq!(read(sources, &plan), pread(&plan, &rows));
            }
            Err(error) => {
                assert_eq!((mode, error.kind()), (BpfMode::Require, ErrorKind::Denied));
                assert_eq!(error.to_string(), "no rights");
            }
        }
    }
}

/// As on Linux 6.1, where the verifier goes through the rows one by one.
#[test]
fn more_rows_than_a_program_can_have_are_several_sources() {
    if kernel().is_none() {
        return;
    }
    let Some(mut types) = Types::read() else { return };
    let kernel = Kernel::prove(types.rename("bpf_rdonly_cast").dir().path()).unwrap();
    let most = kernel.step().rows_max();
    let guests = Guests::new(3, Bpf::as_tried(BpfMode::Auto, Ok(kernel)));
    let schema = guests.bpf.object_schema(&Target::Vcpu).unwrap();
    let object_fds = guests.object_fds(Subject::Vcpu, &schema);
    let stats = guests.stats(Subject::Vcpu);
    for (fds, is_object_fd) in [(&stats, false), (&object_fds, true)] {
        let rows = repeated(fds, 2 * most + 10);
        let plan = named(fds[0].schema(), &["exits", "halt_exits", "hypercalls"]);
        let sources = open(&guests, &plan, &rows).unwrap();
        let seen: Vec<_> = sources.iter().map(|it| (it.rows(), it.read_ns().is_some())).collect();
        assert_eq!(
            seen,
            [(most, BY_PROGRAM), (most, BY_PROGRAM), (10, BY_PROGRAM)],
            "{is_object_fd}"
        );
        assert_eq!(read(sources, &plan), pread(&plan, &repeated(&stats, rows.len())));
    }
}
