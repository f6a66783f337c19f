//! Tests of batches, against the snapshots that they are of.

use fastrand::Rng;
use vmstrobe_core::Layout;
use vmstrobe_testing::random;

use super::*;

/// Makes the snapshots of a batch again.
fn snapshots_of(batch: &Batch) -> Vec<Snapshot> {
    let (mut rows, mut snapshots) = (batch.by_tick(), Vec::new());
    while let Some(tick) = rows.next() {
        let mut snapshot = Snapshot::new(batch.layout());
        let (words, states) = snapshot.begin(tick.tick);
        words.copy_from_slice(tick.words);
        states.copy_from_slice(tick.states);
        snapshot.stamp(tick.window);
        snapshots.push(snapshot);
    }
    snapshots
}

/// Checks each column of a batch against a plain transposition of the snapshots.
fn check_columns(batch: &Batch, snapshots: &[&Snapshot]) {
    let ticks = batch.ticks().len();
    assert_eq!(ticks, snapshots.len());
    for (number, group) in batch.layout().groups().iter().enumerate() {
        let places = group.objects.len() * ticks;
        let mut valid = vec![false; places];
        batch.fill_valid(number, &mut valid);
        for word in 0..group.plan.row_words() {
            let mut values = vec![99; places];
            batch.fill(number, word, &mut values);
            for place in 0..places {
                let row = group.first_row + place / ticks;
                let view = snapshots[place % ticks].objects().nth(row);
                let read = view.expect("the row is in the layout").words().get(word).copied();
                assert_eq!(valid[place].then_some(values[place]), read);
            }
            for object in 0..group.objects.len() {
                let changes = batch.word(number, object, word);
                assert!(changes.at.is_sorted() && changes.at.len() == changes.values.len());
                assert!(changes.at.iter().all(|&at| at > 0 && (at as usize) < ticks));
            }
        }
    }
}

#[test]
fn batches_hold_what_was_pushed() {
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let schemas = random::schemas(&mut rng);
        let ticks = rng.usize(1..12);
        let mut batcher = Batcher::new(BatchLimits { ticks, changes: rng.usize(..2000) });
        let mut pushed: Vec<Snapshot> = Vec::new();
        let mut batches = Vec::new();
        for generation in 0..3 {
            let layout = random::layout(&mut rng, &schemas, generation);
            let count = rng.usize(1..40);
            for snapshot in random::snapshots(&mut rng, &layout, count) {
                batches.extend(batcher.push(&snapshot).expect("the layout is small"));
                pushed.push(snapshot);
                if batcher.is_full() && rng.bool() {
                    batches.extend(batcher.take());
                }
            }
        }
        batches.extend(batcher.take());
        assert!(batcher.take().is_none());
        let mut rest = &pushed[..];
        for batch in &batches {
            assert!(batch.ticks().len() <= ticks, "seed {seed}");
            let (its, others) = rest.split_at(batch.ticks().len());
            check_columns(batch, &its.iter().collect::<Vec<_>>());
            for (one, other) in its.iter().zip(snapshots_of(batch)) {
                assert!(Arc::ptr_eq(one.layout(), other.layout()));
                random::assert_same(one, &other);
            }
            rest = others;
        }
        assert!(rest.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_batch_ends_at_its_limit_of_changes() {
    let mut rng = Rng::with_seed(7);
    let layout = loop {
        let schemas = random::schemas(&mut rng);
        let layout = random::layout(&mut rng, &schemas, 0);
        if layout.words() > 8 {
            break layout;
        }
    };
    let changes = 5 * layout.words();
    let mut batcher = Batcher::new(BatchLimits { ticks: 1000, changes });
    let mut most = 0;
    for snapshot in random::snapshots(&mut rng, &layout, 1000) {
        let batch = batcher.push(&snapshot).expect("the layout is small");
        most = batch.map_or(most, |batch| most.max(batch.changes()));
        assert!(batcher.ticks() > 0);
    }
    assert!(most <= changes && most > changes / 2, "{most} of {changes}");
}

#[test]
fn a_layout_beyond_the_limits_is_refused_and_the_batch_before_it_stays() {
    use vmstrobe_core::{Desc, Mask, Object, ReadPlan, Schema, Target};
    let desc = Desc { size: u16::MAX, ..Desc::counter("wide", 0) };
    let schema = Schema::new("xyz", Target::Vm, vec![desc]);
    let object = Object { path: "/vm/a".into(), index: None, schema: schema.clone(), key: 0 };
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let wide = Layout::new(0, vec![(plan, vec![object])]);
    let mut batcher = Batcher::new(BatchLimits::default());
    batcher.push(&Snapshot::new(&Layout::new(1, Vec::new()))).expect("an empty layout is small");
    let error = batcher.push(&Snapshot::new(&wide)).map(drop).map_err(|error| error.to_string());
    let want = "the number of columns is 65535, but a recording holds at most 16384";
    assert_eq!(error, Err(want.to_owned()));
    assert_eq!(batcher.take().map(|batch| batch.ticks().len()), Some(1));
}
