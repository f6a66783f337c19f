//! The states of a row, answer by answer, against a poller that is played by the test.

use std::sync::atomic::AtomicBool;

use vmstrobe_core::{Desc, Mask, Schema, Target};
use vmstrobe_testing::tick;

use super::*;

const MS: u64 = NS_PER_MS;
const WORDS: usize = 4;

#[derive(Debug)]
struct Object {
    words: PolledWords,
    is_gone: AtomicBool,
    is_wanted: AtomicBool,
}

impl Object {
    fn new() -> Arc<Self> {
        let (is_gone, is_wanted) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { words: PolledWords::new(WORDS), is_gone, is_wanted })
    }
}

impl Polled for Object {
    fn words(&self) -> &PolledWords {
        &self.words
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }
}

/// The plan that keeps these words.
fn plan(words: &[usize]) -> Arc<ReadPlan> {
    let desc = |word: usize| Desc::counter("word", (word * WORD_BYTES) as u32);
    let schema = Schema::new("test", Target::Vcpu, (0..WORDS).map(desc).collect());
    let mut mask = Mask::none(WORDS);
    words.iter().for_each(|word| mask.set(*word));
    ReadPlan::new(&schema, &mask)
}

fn row(object: &Arc<Object>) -> Row<Object> {
    Row { object: Some(Arc::clone(object)), seen: 0 }
}

#[test]
fn a_row_is_good_once_an_answer_and_grows_old() {
    let object = Object::new();
    let plan = plan(&[0, 3]);
    let mut row = row(&object);
    let mut words = [u64::MAX; 2];
    let mut at = |now_ns| (row.read(&plan, &mut words, now_ns), words);

    assert_eq!(at(MS).0, RowState::Missing, "nothing has been read");
    assert!(object.is_wanted.load(Ordering::Relaxed));
    object.words.write(100 * MS, &[10, 20, 30, 40]);
    assert_eq!(at(100 * MS), (RowState::Good, [10, 40]));
    assert_eq!(at(102 * MS - 1), (RowState::Aged(1), [10, 40]));
    object.words.write(200 * MS, &[11, 21, 31, 41]);
    // Read after the tick began: no older than nothing.
    assert_eq!(at(199 * MS), (RowState::Good, [11, 41]));
    let stale_ns = STALE_AFTER.as_nanos() as u64;
    assert_eq!(at(200 * MS + stale_ns), (RowState::Aged(1000), [11, 41]));
    assert_eq!(at(200 * MS + stale_ns + 1).0, RowState::Stale);

    object.words.forget();
    assert_eq!(at(201 * MS).0, RowState::Missing, "there is nobody to be asked");
    object.words.write(300 * MS, &[1, 2, 3, 4]);
    assert_eq!(at(300 * MS), (RowState::Good, [1, 4]));
    object.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(at(300 * MS).0, RowState::Gone);
}

#[test]
fn each_source_sees_each_answer() {
    let object = Object::new();
    let plan = plan(&[2]);
    let (mut one, mut other) = (row(&object), row(&object));
    object.words.write(MS, &[0, 0, 5, 0]);
    for row in [&mut one, &mut other] {
        assert_eq!(row.read(&plan, &mut [0], MS), RowState::Good);
        assert_eq!(row.read(&plan, &mut [0], MS), RowState::Aged(0));
    }
}

#[test]
fn an_answer_is_whole() {
    let object = Object::new();
    let plan = plan(&[0, 1, 2, 3]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=300_000 {
                object.words.write(n, &[n; WORDS]);
            }
            done.store(true, Ordering::Release);
        });
        let (mut row, mut last, mut good) = (row(&object), 0, 0);
        while !done.load(Ordering::Acquire) || good == 0 {
            let mut words = [0; WORDS];
            if row.read(&plan, &mut words, 0) == RowState::Good {
                assert!(words[0] > last && words.iter().all(|word| *word == words[0]), "{words:?}");
                (last, good) = (words[0], good + 1);
            }
        }
    });
    // A writer that died in the middle.
    object.words.seq.store(7, Ordering::Relaxed);
    assert_eq!(row(&object).read(&plan, &mut [0; WORDS], 0), RowState::Torn);
}

#[test]
fn an_object_that_had_gone_and_a_plan_of_nothing() {
    let object = Object::new();
    object.words.write(clock_ns(), &[1; WORDS]);
    let rows = [None, Some(Arc::clone(&object))];
    let mut source = PolledSource::new(&plan(&[1]), rows.clone(), &Arc::new(()));
    assert_eq!(tick(&mut source, 1), (vec![RowState::Gone, RowState::Good], vec![u64::MAX, 1]));
    let mut source = PolledSource::new(&plan(&[]), rows, &Arc::new(()));
    assert_eq!(tick(&mut source, 0).0, [RowState::Gone, RowState::Good]);
    assert_eq!(source.read_ns(), None);
}
