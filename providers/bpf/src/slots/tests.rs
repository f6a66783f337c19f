//! Tests of which files are taken for KVM's, and that only the program can write the array.

use std::fs::File;

use memmap2::MmapOptions;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use vmstrobe_kvm::KvmFd;

use std::sync::Arc;

use super::*;
use crate::Bpf;
use crate::asm::{HELPERS, helper_of};
use crate::offsets::BTF_DIR;
use crate::tests::listing::{Line, is_all_reached, lines, listing};
use crate::tests::{Guests, file, kernel_and_offsets, kinds, reference};

const SUBJECTS: [Subject; 3] = [Subject::Vm, Subject::Vcpu, Subject::Thread];
const ROWS: usize = 3;

fn refused(result: Result<()>, what: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.to_string(), what);
}

/// Fills an array of one slot with that file.
fn fill(kinds: &Kinds, offsets: &Offsets, subject: Subject, file: KvmFile<'_>) -> Result<()> {
    Slots::new(1).unwrap().fill(offsets, subject, kinds, &[Some(file)])
}

#[test]
fn what_is_not_kvms_is_refused() {
    let Some((_, offsets)) = kernel_and_offsets() else { return };
    let null = File::open("/dev/null").unwrap();
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let map = ArrayMap::create("test", 8, ArrayUse::Mapped).unwrap();
    let kvm = File::open("/dev/kvm").unwrap();
    for subject in SUBJECTS {
        for fd in [null.as_fd(), event.as_fd(), map.as_fd(), kvm.as_fd()] {
            for (is_object_fd, what) in [(false, "a stats fd"), (true, "an object fd")] {
                let what = format!(
                    "the BPF program did not find the object behind {what}: the file is not KVM's"
                );
                refused(
                    fill(&kinds(offsets), offsets, subject, KvmFile { fd, is_object_fd }),
                    &what,
                );
            }
        }
    }
}

#[test]
fn each_kind_of_kvms_is_told_from_the_others() {
    let Some((kernel, offsets)) = kernel_and_offsets() else { return };
    let guests = Guests::new(1, Bpf::off());
    let schema = kernel.schema(Subject::Vcpu);
    let [vm, vcpu] = [Subject::Vm, Subject::Vcpu].map(|subject| {
        [guests.stats(subject).remove(0), guests.object_fds(subject, schema).remove(0)]
    });
    let is_taken = |subject, fd: &Arc<KvmFd>, is_object_fd| {
        fill(&kinds(offsets), offsets, subject, KvmFile { is_object_fd, ..file(fd) }).is_ok()
    };
    for subject in SUBJECTS {
        let (own, other) = if subject == Subject::Vm { (&vm, &vcpu) } else { (&vcpu, &vm) };
        let taken = |is_object_fd| {
            [&own[0], &own[1], &other[0], &other[1]].map(|fd| is_taken(subject, fd, is_object_fd))
        };
        assert_eq!(taken(false), [true, false, false, false], "{subject:?}");
        assert_eq!(taken(true), [false, true, false, false], "{subject:?}");
    }
}

/// The program itself is told what no `KvmFile` can say.
#[test]
fn numbers_that_are_no_open_descriptor_are_refused() {
    let Some((_, offsets)) = kernel_and_offsets() else { return };
    for subject in SUBJECTS {
        let slots = Slots::new(ROWS).unwrap();
        let kinds = Kinds::new().unwrap();
        let insns = slots.program(offsets, subject, &kinds).unwrap();
        let spec = ProgramSpec { kind: ProgramKind::Syscall, name: "test", insns: &insns };
        let program = Program::load(&spec).unwrap();
        let run = |fd: u64, kind: u64, row: u64| program.run(&mut [fd, kind, row]).unwrap();
        let [stats, object_fd] =
            reference().files(subject).map(|fd| u64::from(fd.as_raw_fd().cast_unsigned()));
        // As long as nobody has told what is KVM's, nothing is.
        assert_eq!(run(stats, 0, 0), OTHER_FILE);
        assert_eq!((run(stats, 0, LEARN), run(object_fd, 1, LEARN)), (0, 0));
        assert_eq!((run(stats, 0, 0), run(object_fd, 1, ROWS as u64 - 1)), (0, 0));

        // The highest that can be open is free.
        let closed = File::open("/dev/null").unwrap();
        let number = closed.as_raw_fd() as u64;
        assert_eq!(run(number, 0, 0), OTHER_FILE);
        for number in [1 << 16, 1 << 20, 1 << 31, 1 << 32 | stats, u64::MAX, 1 << 61, 1 << 63] {
            assert_eq!(run(number, 0, 0), NO_FILE, "{number:#x}");
        }
        // Neither kind, no such row.
        assert_eq!((run(stats, 2, 0), run(stats, u64::MAX, 0)), (NO_FILE, NO_FILE));
        for row in [ROWS as u64, 1 << 32, u64::MAX - 1] {
            assert_eq!(run(stats, 0, row), NO_FILE, "{row:#x}");
        }
        // A kind that is known stays known.
        assert_eq!((run(number, 0, LEARN), run(stats, 0, LEARN)), (OTHER_FILE, OTHER_FILE));
        assert_eq!(run(stats, 0, 0), 0);
        drop(closed);
    }
}

#[test]
fn a_number_that_was_closed_is_refused() {
    let Some((_, offsets)) = kernel_and_offsets() else { return };
    let slots = Slots::new(1).unwrap();
    let kinds = Kinds::new().unwrap();
    let insns = slots.program(offsets, Subject::Vcpu, &kinds).unwrap();
    let spec = ProgramSpec { kind: ProgramKind::Syscall, name: "test", insns: &insns };
    let program = Program::load(&spec).unwrap();
    let [stats, _] = reference().files(Subject::Vcpu);
    assert_eq!(find(&program, KvmFile { fd: stats, is_object_fd: false }, LEARN).unwrap(), 0);
    let again = stats.try_clone_to_owned().unwrap();
    // Far above what other tests open, so that none of them gets the number.
    let mut high = rustix::io::fcntl_dupfd_cloexec(&again, 700).unwrap();
    let number = high.as_raw_fd() as u64;
    assert_eq!(program.run(&mut [number, 0, 0]).unwrap(), 0);
    // Another file in its place, as when a number is used again.
    rustix::io::dup2(File::open("/dev/null").unwrap(), &mut high).unwrap();
    assert_eq!(program.run(&mut [number, 0, 0]).unwrap(), OTHER_FILE);
    drop(high);
    assert_eq!(program.run(&mut [number, 0, 0]).unwrap(), NO_FILE);
}

#[test]
fn user_space_cannot_change_the_array() {
    let Some((_, offsets)) = kernel_and_offsets() else { return };
    let slots = Slots::new(ROWS).unwrap();
    let [stats, object_fd] = reference().files(Subject::Vcpu);
    let files = [(stats, false), (object_fd, true)]
        .map(|(fd, is_object_fd)| Some(KvmFile { fd, is_object_fd }));
    slots.fill(offsets, Subject::Vcpu, &kinds(offsets), &[files[0], None, files[1]]).unwrap();
    let words = (Slots::FIRST_BYTE + ROWS as u32 * (slot::BYTES + guard::BYTES)) / 8;
    let errno = |result: std::io::Result<()>| Errno::from_io_error(&result.unwrap_err());
    assert_eq!(errno(slots.map.write_value(&vec![0; words as usize])), Some(Errno::PERM));
    let mut map = MmapOptions::new();
    let (map, number) = (map.len(8), slots.fd().as_raw_fd());
    assert!(map.map_raw(number).is_err() && map.map_raw_read_only(number).is_err());
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let Some((_, offsets)) = kernel_and_offsets() else { return };
    let what = "the BPF program did not find the object behind a stats fd: an address in the \
                kernel could not be read";
    let [fd, _] = reference().files(Subject::Vcpu);
    let file = KvmFile { fd, is_object_fd: false };
    let check = |change: fn(&mut Offsets)| {
        let mut wrong = offsets.clone();
        change(&mut wrong);
        refused(fill(&kinds(offsets), &wrong, Subject::Vcpu, file), what);
    };
    // How many threads share the descriptors: no address of the kernel's.
    check(|wrong| wrong.files.files_fdt = 0);
    // The letters of a name: an address that no machine has.
    check(|wrong| wrong.vcpu_kvm = wrong.vcpu.stats_id);
}

fn check_program(lines: &[Line]) {
    let is_ours =
        |line: &Line| ["= &slots[", "= &kinds["].iter().any(|map| line.text.contains(map));
    for (at, line) in lines.iter().enumerate() {
        match line.stores {
            None => {}
            // The kind of file that is learnt: what R1 was pointed to before it was asked for.
            Some((1, 0)) => {
                let learn = lines.iter().position(|line| line.text == "if r3 == -1 goto").unwrap();
                let set = lines[..learn].iter().rfind(|line| line.sets == Some(1)).unwrap();
                assert_eq!(set.text, "r1 += r9");
                let label = lines.iter().position(|to| Some(to.at) == lines[learn].jump).unwrap();
                assert!(!lines[label - 1].goes_on);
                assert!(lines[label..at].iter().all(|line| line.sets.is_none()));
            }
            Some((9, off)) => {
                let set = lines[..at].iter().rfind(|line| line.sets == Some(9)).unwrap();
                assert!(set.text == "r9 += r3" && [0, 8].contains(&off), "{}", line.text);
            }
            Some(to) => panic!("{to:?}: {}", line.text),
        }
        // A pointer that is added to was set right before, to the value of an array.
        if ["r1 += r9", "r9 += r3"].contains(&&*line.text) {
            assert!(is_ours(&lines[at - 1]), "{}", lines[at - 1].text);
        }
        if line.text == "call probe_read_kernel" {
            let to = lines[..at].iter().rfind(|line| line.text.starts_with("r1 = ")).unwrap();
            assert_eq!(to.text, "r1 = r10");
        }
    }
    // A number of 32 bits: what stands behind it, in the same word, is not counted.
    let asked = lines.iter().position(|line| line.text == "if r9 >= r8 goto").unwrap();
    let bounds: Vec<&str> = lines[asked - 3..asked].iter().map(|line| &*line.text).collect();
    assert_eq!(bounds, ["r8 <<= 32", "r8 >>= 32", "r9 = u64[r6+0]"]);
    assert!(is_all_reached(lines), "{}", listing(lines));
}

#[test]
fn the_program_stores_to_the_array_alone() {
    let file = File::open("/dev/null").unwrap();
    let kinds = Kinds::stand_in(file.try_clone().unwrap().into());
    let slots = Slots::stand_in(file.into(), ROWS);
    let Ok(offsets) = Offsets::read(BTF_DIR.as_ref()) else {
        vmstrobe_testing::require("btf", Err(BTF_DIR.to_owned()));
        return;
    };
    for is_pointer in [false, true] {
        for subject in SUBJECTS {
            let mut offsets = offsets.clone();
            offsets.vm.stat_is_pointer = is_pointer;
            offsets.vcpu.stat_is_pointer = is_pointer;
            let insns = slots.program(&offsets, subject, &kinds).unwrap();
            let helpers: Vec<i32> = insns.iter().filter_map(|word| helper_of(*word)).collect();
            assert!(helpers.len() > 8 && helpers.iter().all(|helper| HELPERS.contains(helper)));
            check_program(&lines(&insns, &[(slots.fd(), "slots"), (kinds.fd(), "kinds")]));
        }
    }
}
