//! Random layouts and snapshots, for tests of what is computed from snapshots. The same seed gives
//! the same ones.
//!
//! Invariant: they have all that providers may do: names that occur twice or are hostile,
//! statistics that overlap or that no kernel has yet, objects of several schemas, and rows of every
//! state.

use std::sync::Arc;

use fastrand::Rng;
use vmstrobe_core::{
    Base, Desc, Layout, Mask, Object, ReadPlan, RowState, Scale, Schema, Snapshot, StatType,
    Target, Unit, Window,
};

/// Names of statistics, of which some are those of columns, and some break what does not quote.
const NAMES: [&str; 9] = [
    "exits",
    "exits",
    "wait",
    "wait_0",
    "tick",
    "time",
    "a,b\"c\n",
    "=1+1",
    "h\u{e4}\u{202e}\u{1b}",
];
const PROVIDERS: [&str; 3] = ["kvm", "xyz", "k/v\"\n"];
const TARGETS: [&str; 4] = ["vm", "vcpu", "cryptodev", "disk,"];
const PATHS: [&str; 5] = ["/vm/web/vcpu", "/machine/device", "/vm/=x,\"y/d", "", "../\n\u{202e}"];

/// Returns up to four schemas.
pub fn schemas(rng: &mut Rng) -> Vec<Arc<Schema>> {
    let count = rng.usize(1..5);
    (0..count).map(|_| schema(rng)).collect()
}

fn schema(rng: &mut Rng) -> Arc<Schema> {
    let mut offset = 0;
    let count = rng.usize(0..6);
    let descs = (0..count).map(|_| {
        let bits = rng.u32(..);
        let size = if rng.bool() { 1 } else { rng.u16(1..5) };
        let desc = Desc {
            name: pick(rng, &NAMES).into(),
            stat_type: StatType::from_bits(bits % 6),
            unit: Unit::from_bits(bits % 0x60),
            scale: Scale { base: Base::from_bits(bits % 0x300), exponent: rng.i16(-9..3) },
            other_flags: if rng.u8(..9) == 0 { bits << 12 } else { 0 },
            size,
            offset,
            bucket_size: rng.u32(..3),
        };
        // Now and then the next one overlaps, or lies before.
        offset += 8 * rng.u32(..u32::from(size) + 2);
        desc
    });
    let descs = descs.collect();
    Schema::new(pick(rng, &PROVIDERS), Target::from_name(pick(rng, &TARGETS)), descs)
}

/// Returns a layout of objects of these schemas, of each with some of the statistics.
pub fn layout(rng: &mut Rng, schemas: &[Arc<Schema>], generation: u64) -> Arc<Layout> {
    let groups = rng.usize(1..4);
    let parts = (0..groups).map(|_| {
        let schema = &schemas[rng.usize(..schemas.len())];
        let mut mask = Mask::none(schema.descs().len());
        let seed = rng.u8(..4);
        (0..mask.len()).filter(|&index| seed != 3 || index % 2 == 0).for_each(|i| mask.set(i));
        let count = rng.usize(..5);
        let objects = (0..count).map(|number| Object {
            path: format!("{}[{number}]", pick(rng, &PATHS)).into(),
            index: rng.bool().then_some(number as u32),
            schema: Arc::clone(schema),
            key: if rng.bool() { number as u64 } else { rng.u64(..) },
        });
        let objects = objects.collect();
        (ReadPlan::new(schema, &mask), objects)
    });
    let parts = parts.collect();
    Layout::new(generation, parts)
}

/// Returns that many snapshots of a layout, one after the other.
pub fn snapshots(rng: &mut Rng, layout: &Arc<Layout>, count: usize) -> Vec<Snapshot> {
    let mut words = vec![0; layout.words()];
    let (mut tick, mut begin_ns) = (rng.u64(..1000), rng.u64(..1 << 50));
    let how_often = rng.u8(1..9);
    let snapshots = (0..count).map(|_| {
        tick += if rng.u8(..9) == 0 { rng.u64(1..100) } else { 1 };
        begin_ns += rng.u64(..2_000_000);
        for word in &mut words {
            match rng.u8(..32) {
                0 => *word = rng.u64(..),
                1 => *word = 0,
                chance if chance % how_often == 0 => *word = word.wrapping_add(rng.u64(..9)),
                _ => {}
            }
        }
        let mut snapshot = Snapshot::new(layout);
        let (all, states) = snapshot.begin(tick);
        all.copy_from_slice(&words);
        states.fill_with(|| state(rng));
        let end_ns = begin_ns + rng.u64(..5000);
        let wall_offset_ns = 1_700_000_000_000_000_000 + rng.i64(-2..3);
        snapshot.stamp(Window { begin_ns, end_ns, wall_offset_ns });
        snapshot
    });
    snapshots.collect()
}

fn state(rng: &mut Rng) -> RowState {
    match rng.u8(..40) {
        0 => RowState::Aged(rng.u32(..)),
        1 => RowState::Missing,
        2 => RowState::Stale,
        3 => RowState::Torn,
        4 => RowState::Gone,
        5 => RowState::Io(rng.i32(..)),
        _ => RowState::Good,
    }
}

fn pick<'a>(rng: &mut Rng, texts: &[&'a str]) -> &'a str {
    texts[rng.usize(..texts.len())]
}

/// Checks that two snapshots have the same objects with the same statistics, states, values and
/// time. The places of words and the offsets of statistics may differ.
///
/// # Panics
/// If they differ.
pub fn assert_same(one: &Snapshot, other: &Snapshot) {
    assert_eq!(one.tick(), other.tick());
    assert_eq!(one.window(), other.window());
    assert_eq!(one.objects().count(), other.objects().count());
    for (one, other) in one.objects().zip(other.objects()) {
        let (object, its) = (one.object(), other.object());
        assert_eq!((&object.path, object.index, object.key), (&its.path, its.index, its.key));
        assert_eq!(object.schema.provider(), its.schema.provider());
        assert_eq!(object.schema.target(), its.schema.target());
        assert_eq!(one.state(), other.state());
        assert_eq!(one.stats().count(), other.stats().count());
        for (value, its) in one.stats().zip(other.stats()) {
            assert_eq!(value.words(), its.words(), "{}", value.desc().name);
            let desc = Desc { offset: 0, ..value.desc().clone() };
            assert_eq!(desc, Desc { offset: 0, ..its.desc().clone() });
        }
    }
}
