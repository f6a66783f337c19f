//! Batches that are packed and unpacked, whatever is in them.

use std::sync::Arc;

use vmstrobe_core::{Layout, Mask, ReadPlan, RowState, Snapshot, Window};
use vmstrobe_testing::snapshots::{schema, vcpu};

use super::*;
use crate::batcher::{BatchLimits, Batcher};

fn layout(objects: u32) -> Arc<Layout> {
    let schema = schema();
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    Layout::new(1, vec![(plan, (0..objects).map(vcpu).collect())])
}

/// Makes a batch of random walks: constant, slow, even, wild and falling words; all states.
fn batch(layout: &Arc<Layout>, ticks: u64, seed: u64) -> (Batch, Vec<Snapshot>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut batcher = Batcher::new(BatchLimits::default());
    let mut words = vec![0_u64; layout.words()];
    let mut samples = Vec::new();
    for tick in 0..ticks {
        let mut sample = Snapshot::new(layout);
        let (to, states) = sample.begin(10 + 2 * tick);
        for (at, word) in words.iter_mut().enumerate() {
            let step = match at % 6 {
                0 => random.u64(0..9),
                1 => 1_000_000,
                2 => u64::from(random.u8(0..20) == 0),
                3 => random.u64(..),
                4 => 0_u64.wrapping_sub(random.u64(0..3)),
                _ => 0,
            };
            *word = word.wrapping_add(step);
        }
        to.copy_from_slice(&words);
        for (at, state) in states.iter_mut().enumerate() {
            *state = match (at, random.u8(0..8)) {
                (0, _) => RowState::Good,
                (1, _) => RowState::Aged(tick as u32),
                (2, 0) => RowState::Io(-5),
                (2, 1) => RowState::Torn,
                (_, 2) => RowState::Gone,
                (_, 3) => RowState::Stale,
                (_, 4) => RowState::Missing,
                _ => RowState::Good,
            };
        }
        let begin_ns = tick * 1_000_000 + random.u64(0..1000);
        sample.stamp(Window { begin_ns, end_ns: begin_ns + 7, wall_offset_ns: -3 });
        assert!(batcher.push(&sample).expect("it is small").is_none());
        samples.push(sample);
    }
    (batcher.take().expect("there are samples"), samples)
}

fn words_of(sample: &Snapshot) -> Vec<Vec<u64>> {
    sample.objects().map(|view| view.words().to_vec()).collect()
}

fn states_of(sample: &Snapshot) -> Vec<RowState> {
    sample.objects().map(|view| view.state()).collect()
}

#[test]
fn a_batch_is_unpacked_as_it_was_packed() {
    let layout = layout(5);
    let mut before: Option<PackedBatch> = None;
    for (seed, ticks) in [1, 2, 3, 63, 64, 65, 66, 200, 499].into_iter().enumerate() {
        let (batch, _) = batch(&layout, ticks, seed as u64);
        let packed = PackedBatch::new(&batch, before.as_ref());
        let got = packed.unpack();
        assert_eq!((got.ticks(), got.windows()), (batch.ticks(), batch.windows()));
        for row in 0..layout.rows() {
            assert_eq!(got.states(row), batch.states(row));
            assert_eq!(packed.constant_state(row).is_some(), batch.states(row).is_constant());
            for word in 0..6 {
                let list = batch.word(0, row, word);
                assert_eq!(got.word(0, row, word), list, "{ticks} {row} {word}");
                let constant = list.is_constant().then_some(list.first);
                assert_eq!(packed.constant(0, row, word), constant);
            }
        }
        before = Some(packed);
    }
}

#[test]
fn each_list_and_each_tick_is_read_alone() {
    let layout = layout(4);
    let (batch, samples) = batch(&layout, 130, 7);
    let packed = PackedBatch::new(&batch, None);
    let (mut values, mut states) = (Vec::new(), Vec::new());
    for row in 0..4 {
        packed.fill_states(row, &mut states);
        for word in 0..6 {
            packed.fill(0, row, word, &mut values);
            for (tick, sample) in samples.iter().enumerate() {
                let view = sample.object_at(0, row).expect("it is there");
                assert_eq!(view.state(), states[tick]);
                let want = view.words().get(word).copied();
                assert_eq!(packed.value(0, row, word, tick), want);
                assert!(want.is_none_or(|want| want == values[tick]));
            }
        }
    }
    for (tick, sample) in samples.iter().enumerate() {
        let got = packed.snapshot(tick);
        assert_eq!((got.tick(), got.window()), (sample.tick(), sample.window()));
        assert_eq!((words_of(&got), states_of(&got)), (words_of(sample), states_of(sample)));
    }
}

#[test]
fn what_does_not_move_is_shared() {
    let layout = layout(64);
    let still = |tick: u64, moved: u64| {
        let mut sample = Snapshot::new(&layout);
        let (words, states) = sample.begin(tick);
        words.fill(1 << 40);
        words[3] += moved;
        states.fill(RowState::Good);
        sample
    };
    let packed = |ticks: std::ops::Range<u64>, before: Option<&PackedBatch>| {
        let mut batcher = Batcher::new(BatchLimits::default());
        for tick in ticks {
            batcher.push(&still(tick, tick * 1000)).expect("it is small");
        }
        PackedBatch::new(&batcher.take().expect("there are samples"), before)
    };
    let first = packed(0..100, None);
    let second = packed(100..200, Some(&first));
    let base_bytes = (layout.words() + layout.rows()) * 8;
    assert!(first.bytes() > base_bytes && second.bytes() < first.bytes() - base_bytes + 16);
    let ticks_bytes = 100 * 32;
    assert!(second.bytes() - ticks_bytes < 64, "an even counter: {} bytes", second.bytes());
    assert_eq!(second.value(0, 0, 3, 50), Some((1 << 40) + 150_000));
    assert_eq!(second.value(0, 63, 5, 99), Some(1 << 40));
}

#[test]
fn a_part_of_a_batch_has_its_ticks() {
    let layout = layout(4);
    let (batch, samples) = batch(&layout, 50, 3);
    for range in [0..50, 0..1, 7..8, 13..49, 49..50] {
        let part = batch.part(range.clone());
        assert_eq!(part.ticks(), &batch.ticks()[range.clone()]);
        let packed = PackedBatch::new(&part, None);
        for (tick, sample) in samples[range].iter().enumerate() {
            let got = packed.snapshot(tick);
            assert_eq!((words_of(&got), states_of(&got)), (words_of(sample), states_of(sample)));
        }
    }
}
