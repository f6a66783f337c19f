//! Frames made by hand: one that is read, those that lie, and one that is written meanwhile.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Desc, ErrorKind, Mask, ReadPlan, Schema, Target, WORD_BYTES};

use super::*;
use crate::kvm::bpf::frame::{Frame, Shape, mark};
use crate::table::format::{SLOT_WORDS, SLOTS_USED};
use crate::tests::soon;

const LIMIT: Duration = Duration::from_secs(20);
const OBJECTS: usize = 3;

fn plan() -> Arc<ReadPlan> {
    let descs = vec![Desc::counter("exits", 0), Desc::counter("halts", 16)];
    let schema = Schema::new("kvm", Target::Vcpu, descs);
    ReadPlan::new(&schema, &Mask::all(&schema))
}

/// A frame of some objects with nothing read, and one row more.
pub(in crate::kvm::bpf) fn image() -> Vec<u64> {
    let plan = plan();
    let object = |index: u32| Object {
        path: format!("/vm/x/vcpu[{index}]").into(),
        index: Some(index),
        schema: Arc::clone(plan.schema()),
        key: 0,
    };
    let objects: Vec<Object> = (0..OBJECTS as u32).map(object).collect();
    Frame::image(&plan, Shape::Row, &objects, 1).unwrap()
}

/// Returns the index of the first word of the row with that number.
pub(in crate::kvm::bpf) fn row(image: &[u64], at: usize) -> usize {
    image[FIRST_ROW] as usize + at * image[ROW_WORDS] as usize
}

/// As a run leaves it: the words of row n are 10n and 10n + 1.
pub(in crate::kvm::bpf) fn after_a_run() -> Vec<u64> {
    let mut image = image();
    for at in 0..=OBJECTS {
        let (n, words) = (at as u64, row(&image, at));
        image[words..words + 4].copy_from_slice(&[0, n + 1, 10 * n, 10 * n + 1]);
    }
    image[SEQ..=END].copy_from_slice(&[2, 100, 200]);
    image[READ] = OBJECTS as u64 + 1;
    image
}

/// The frame in a memfd, which no kernel has to allow.
fn mapped(image: &[u64]) -> Arc<Map> {
    let (map, _) = Map::create("test", size_of_val(image)).unwrap();
    map.words().iter().zip(image).for_each(|(to, word)| to.store(*word, Relaxed));
    map
}

fn open(image: &[u64]) -> Result<KernelFrame> {
    KernelFrame::of(Memory::Mapped(mapped(image)))
}

type Reading = (std::result::Result<FrameTime, Torn>, Vec<u64>, Vec<RowState>);

fn read(frame: &KernelFrame) -> Reading {
    let rows = frame.objects().len();
    let mut words = vec![u64::MAX; rows * frame.row_words()];
    let mut states = vec![RowState::Stale; rows];
    (frame.read(&mut words, &mut states), words, states)
}

#[test]
fn a_frame_is_read_whole() {
    let frame = open(&after_a_run()).unwrap();
    let paths: Vec<&str> = frame.objects().iter().map(|object| &*object.path).collect();
    assert_eq!(paths, ["/vm/x/vcpu[0]", "/vm/x/vcpu[1]", "/vm/x/vcpu[2]"]);
    assert_eq!((frame.row_words(), frame.objects()[2].index), (2, Some(2)));
    let schema = &frame.objects()[0].schema;
    assert_eq!(schema.descs()[schema.find("halts").unwrap()].words(), 1..2);
    let time = FrameTime { begin_ns: 100, end_ns: 200, looks: 1 };
    assert_eq!(read(&frame), (Ok(time), vec![0, 1, 10, 11, 20, 21], vec![RowState::Good; 3]));
}

#[test]
fn rows_without_data_say_so() {
    let (gone, failed) = (RowState::Gone, RowState::Io(rustix::io::Errno::FAULT.raw_os_error()));
    for (mark, want) in [
        (mark::EMPTY, gone),
        (mark::DEAD, gone),
        (mark::FAILED, failed),
        (mark::THREADLESS, RowState::Missing),
        (u64::MAX, failed),
    ] {
        let mut image = after_a_run();
        let at = row(&image, 1);
        image[at] = mark;
        let (_, _, states) = read(&open(&image).unwrap());
        assert_eq!(states, [RowState::Good, want, RowState::Good], "{mark}");
    }
    // Nothing has been read yet, or not all of it.
    let (time, _, states) = read(&open(&image()).unwrap());
    assert_eq!((time.unwrap().end_ns, states), (0, vec![RowState::Missing; 3]));
    let mut image = after_a_run();
    image[READ] = 2;
    let (_, _, states) = read(&open(&image).unwrap());
    assert_eq!(states, [RowState::Good, RowState::Good, RowState::Missing]);
}

#[test]
fn what_is_no_frame_is_refused() {
    let good = after_a_run();
    let slot = |at: usize| HEADER_WORDS + at * SLOT_WORDS;
    let bytes = |words: usize| (words * WORD_BYTES) as u64;
    let last = good.len() as u64;
    for (word, value, why) in [
        (0, 0, "does not begin as one"),
        (3, bytes(good.len() - 1), "its length is not what it says"),
        (FIRST_ROW, HEADER_WORDS as u64 - 1, "rows lie outside"),
        (FIRST_ROW, last, "rows lie outside"),
        (FIRST_ROW, u64::MAX, "rows lie outside"),
        (FIRST_ROW, good[FIRST_ROW] - 1, "objects are not its rows"),
        (ROW_WORDS, 0, "rows lie outside"),
        (ROW_WORDS, 2, "rows lie outside"),
        (ROW_WORDS, 3, "objects are not its rows"),
        (ROW_WORDS, u64::MAX, "rows lie outside"),
        (ROWS, u64::MAX, "rows lie outside"),
        (ROWS, u64::MAX / 4 + 2, "rows lie outside"),
        (ROWS, 2, "objects are not its rows"),
        (ROWS, 0, "objects are not its rows"),
        (slot(1), 7, "objects are not its rows"),
        (slot(1), 0, "objects are not its rows"),
        (slot(1) + 1, good[slot(2) + 1], "objects are not its rows"),
        (slot(1) + 3, 2, "objects are not its rows"),
        (SLOTS_USED, u64::MAX, "uses more slots than it has"),
        (SLOTS_USED, 4, "uses more slots than it has"),
    ] {
        let mut image = good.clone();
        image[word] = value;
        let error = open(&image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{word}: {value}: {error}");
        assert!(error.to_string().contains(why), "{word}: {value}: {error}");
    }
    // As long as it likes, and shorter than a header.
    assert!(open(&good[..HEADER_WORDS - 1]).is_err());
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = KernelFrame::open(file.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("nor a frozen BPF array"), "{error}");
}

#[test]
fn a_writer_that_does_not_end_is_waited_for_no_longer_than_the_limit() {
    let mut image = after_a_run();
    image[SEQ] = 3;
    let (outcome, words, _) = read(&open(&image).unwrap());
    // And nothing was copied meanwhile.
    assert_eq!((outcome, words), (Err(Torn), vec![u64::MAX; 6]));
    // Long rows, so that every look finds another number behind the copy, and even.
    let map = mapped(&wide(10));
    let frame = KernelFrame::of(Memory::Mapped(Arc::clone(&map))).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                map.words()[SEQ].fetch_add(2, Relaxed);
            }
        });
        let is_torn = soon(LIMIT, || read(&frame).0.is_err());
        done.store(true, Relaxed);
        assert!(is_torn);
    });
}

/// A frame of so many objects with 1000 words each.
fn wide(objects: usize) -> Vec<u64> {
    let descs = (0..1000).map(|n| Desc::counter(&format!("n{n}"), n * 8)).collect();
    let schema = Schema::new("kvm", Target::Vcpu, descs);
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let object = |_| Object { path: "/a".into(), index: None, schema: schema.clone(), key: 0 };
    let objects: Vec<Object> = (0..objects).map(object).collect();
    Frame::image(&plan, Shape::Row, &objects, 0).unwrap()
}

#[test]
fn more_is_copied_less_often() {
    assert_eq!(open(&after_a_run()).unwrap().copies_max, COPIES_MAX);
    assert_eq!(open(&wide(10)).unwrap().copies_max, COPIED_WORDS_MAX / (10 * 1002));
    assert_eq!(open(&wide(100)).unwrap().copies_max, 2);
}
