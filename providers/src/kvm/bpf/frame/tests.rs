//! A frame as any table: whoever reads it finds the objects, and their words where the program puts
//! them.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

use vmstrobe_core::{StatType, Target};

use super::*;
use crate::kvm::Bpf;
use crate::kvm::bpf::slots::Subject;
use crate::kvm::bpf::tests::{Guests, file, kernel, named, objects, pread, repeated};
use crate::table::look::{Found, Memory, Schemas};
use crate::table::map::Map;

/// Three counters and a histogram, with holes between them.
fn whole() -> Arc<Schema> {
    let histogram = Desc { size: 4, stat_type: StatType::Log2Histogram, ..Desc::counter("h", 24) };
    let counter = |name, word| Desc::counter(name, word * WORD_BYTES as u32);
    let descs = vec![counter("a", 0), counter("b", 2), histogram, counter("c", 9)];
    Schema::new("kvm", Target::Vcpu, descs)
}

/// A frame's image in a memfd, which no kernel has to allow.
fn mapped(image: &[u64]) -> Memory {
    let (map, _) = Map::create("test", size_of_val(image)).unwrap();
    map.words().iter().zip(image).for_each(|(to, word)| to.store(*word, Relaxed));
    Memory::Mapped(map)
}

fn look(memory: &Memory) -> (Segment, Vec<Found>) {
    let segment = memory.segment().unwrap();
    let (_, found) = memory.look(&segment, &mut Schemas::default()).unwrap();
    (segment, found)
}

/// `words` is where each statistic is in its row.
#[track_caller]
fn check(
    plan: &ReadPlan,
    shape: Shape,
    count: usize,
    extra: usize,
    words: &[(&str, Range<usize>)],
) {
    let objects = objects(plan.schema(), count);
    let image = Frame::image(plan, shape, &objects, extra).unwrap();
    let (segment, found) = look(&mapped(&image));
    assert_eq!((&*segment.provider, segment.words, segment.slots), ("kvm", image.len(), count));
    let [first_row, row_words, rows] = [FIRST_ROW, ROW_WORDS, ROWS].map(|at| image[at] as usize);
    assert_eq!((rows, found.len()), (count + extra, count));
    assert_eq!(first_row + rows * row_words, image.len());
    assert!(image[first_row..].iter().all(|word| *word == 0), "rows are empty at first");
    for (at, (found, object)) in found.iter().zip(&objects).enumerate() {
        assert_eq!((&*found.path, found.index), (&*object.path, object.index));
        assert_eq!((found.incarnation, found.shards, found.is_grouped), (at as u64 + 1, 1, false));
        let row = first_row + at * row_words;
        assert_eq!(found.data.start, row + LOCK_WORDS);
        assert!(found.data.end <= row + row_words);
        let schema = &found.schema;
        assert_eq!((schema.provider(), schema.target()), ("kvm", &Target::Vcpu));
        let seen = schema.descs().iter().map(|desc| (&*desc.name, desc.words()));
        assert_eq!(seen.collect::<Vec<_>>(), words);
        assert_eq!(
            schema.descs()[0].stat_type,
            plan.schema().descs()[plan.columns()[0].desc].stat_type
        );
    }
}

#[test]
fn rows_of_a_plan_are_objects_of_a_table() {
    let schema = whole();
    let plan = named(&schema, &["b", "h", "c"]);
    let rows = [("b", 0..1), ("h", 1..5), ("c", 5..6)];
    let spans = [("b", 0..1), ("h", 1..5), ("c", 7..8)];
    for (count, extra) in [(1, 0), (3, 0), (3, 1), (100, 1)] {
        check(&plan, Shape::Row, count, extra, &rows);
        check(&plan, Shape::Span, count, extra, &spans);
    }
    let plan = named(&schema, &["c"]);
    check(&plan, Shape::Row, 2, 0, &[("c", 0..1)]);
    check(&plan, Shape::Span, 2, 0, &[("c", 0..1)]);
}

/// As the kernel is asked whether its ways read the same.
#[test]
fn a_frame_need_not_tell_of_anything() {
    let plan = named(&whole(), &["a"]);
    let image = Frame::image(&plan, Shape::Row, &[], 2).unwrap();
    let (segment, found) = look(&mapped(&image));
    assert_eq!((segment.slots, found.len(), image[ROWS], image[ROW_WORDS]), (0, 0, 2, 3));
}

#[test]
fn what_is_too_large_is_refused() {
    let plan = named(&whole(), &["b", "h", "c"]);
    let path = |bytes: usize| {
        let mut objects = objects(plan.schema(), 2);
        objects[1].path = "x".repeat(bytes).into();
        Frame::image(&plan, Shape::Row, &objects, 0).map(drop).map_err(|error| error.kind())
    };
    let longest = wire::MAX_NAME_BYTES as usize - 1;
    assert_eq!((path(longest), path(longest + 1)), (Ok(()), Err(ErrorKind::TooLarge)));

    let row_words = LOCK_WORDS + plan.row_words();
    let most = (MAX_SEGMENT_BYTES as usize / WORD_BYTES - HEADER_WORDS) / row_words;
    let rows = |rows| Frame::image(&plan, Shape::Row, &[], rows).map(|image| image.len());
    assert_eq!(rows(most).unwrap(), MAX_SEGMENT_BYTES as usize / WORD_BYTES);
    let error = rows(most + 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn a_mark_says_why_there_is_no_data() {
    let fault = RowState::Io(rustix::io::Errno::FAULT.raw_os_error());
    for (mark, state) in [
        (0, RowState::Good),
        (mark::EMPTY, RowState::Gone),
        (mark::DEAD, RowState::Gone),
        (mark::THREADLESS, RowState::Missing),
        (mark::FAILED, fault),
        (1, fault),
        (u64::MAX, fault),
    ] {
        assert_eq!(state_of(mark), state);
        // A reader of the table takes it for a lock, which must be at rest.
        assert!(mark.is_multiple_of(2) || state == fault);
    }
}

#[test]
fn what_the_program_writes_is_found_in_the_table() {
    let Some(kernel) = kernel() else { return };
    let guests = Guests::new(3, Bpf::off());
    let stats = guests.stats(Subject::Vcpu);
    let schema = kernel.schema(Subject::Vcpu);
    let names: Vec<&str> = schema.descs().iter().map(|desc| &*desc.name).collect();
    for names in [&["exits", "halt_exits"][..], &names] {
        let plan = named(schema, names);
        let rows = repeated(&stats, 3);
        let mut files: Vec<_> = rows.iter().map(|row| row.as_ref().map(file)).collect();
        files[1] = None;
        let objects = objects(schema, 3);
        let mut bulk = kernel.bulk(Subject::Vcpu, &plan, &objects, &files).unwrap();
        let array = bulk.frame().array().as_fd().try_clone_to_owned().unwrap();
        let memory = Memory::array(array).unwrap();
        let (_, found) = look(&memory);
        let Memory::Mapped(map) = &memory else { panic!("{memory:?}") };
        let word = |at: usize| map.words()[at].load(Relaxed);
        assert!(found.iter().all(|found| word(found.data.start - 1) == 0), "not read yet");
        for runs in 1..3 {
            bulk.run().unwrap();
            assert_eq!((word(SEQ), word(READ), word(MARKED)), (2 * runs, 3, 1));
        }
        let (_, want) = pread(&plan, &rows);
        for (at, found) in found.iter().enumerate() {
            let is_there = at != 1;
            let lock = (word(found.data.start - 2), word(found.data.start - 1));
            let expected = if is_there { (0, found.incarnation) } else { (mark::EMPTY, 0) };
            assert_eq!(lock, expected);
            for (desc, column) in found.schema.descs().iter().zip(plan.columns()) {
                let want = &want[at * plan.row_words()..][column.words.clone()];
                let seen = desc.words().map(|at| word(found.data.start + at));
                assert!(!is_there || seen.eq(want.iter().copied()), "{}", desc.name);
            }
        }
    }
}
