//! Snapshots of made-up vCPUs, for tests of what is computed from snapshots.

use std::sync::Arc;

use vmstrobe_core::{
    Desc, Layout, Mask, Object, ReadPlan, RowState, Scale, Schema, Snapshot, StatType, Target,
    Unit, Window,
};

/// At second 0 of the monotonic clock, the wall clock is at second 1,000,000,000.
const WALL_OFFSET_NS: i64 = 1_000_000_000_000_000_000;

/// The words of a vCPU: exits, wait_ms, wait_hist (2), blocking, level.
pub type Row = Option<[u64; 6]>;

/// Returns the schema of the vCPUs.
pub fn schema() -> Arc<Schema> {
    let ns =
        |desc| Desc { unit: Unit::Seconds, scale: Scale { exponent: -3, ..Scale::NANO }, ..desc };
    let hist = StatType::Log2Histogram;
    let instant = StatType::Instant;
    let descs = vec![
        Desc::counter("exits", 0),
        ns(Desc::counter("wait_ms", 8)),
        Desc {
            scale: Scale::NANO,
            ..ns(Desc { stat_type: hist, size: 2, ..Desc::counter("wait_hist", 16) })
        },
        Desc { unit: Unit::Boolean, stat_type: instant, ..Desc::counter("blocking", 32) },
        Desc { stat_type: instant, ..Desc::counter("level", 40) },
    ];
    Schema::new("kvm", Target::Vcpu, descs)
}

/// Returns vCPU `index` of the virtual machine web.
pub fn vcpu(index: u32) -> Object {
    let path = format!("/vm/web/vcpu[{index}]").into();
    Object { path, index: Some(index), schema: schema(), key: index.into() }
}

/// Returns a snapshot of these objects; those without words are gone. Each set of objects has its
/// own layout.
pub fn snapshot(tick: u64, at_ms: u64, rows: &[(Object, Row)]) -> Arc<Snapshot> {
    let generation = rows.iter().map(|(object, _)| 1 << object.key).sum();
    laid_out(generation, tick, at_ms, rows)
}

/// Returns a snapshot of these objects in the layout of that generation.
pub fn laid_out(generation: u64, tick: u64, at_ms: u64, rows: &[(Object, Row)]) -> Arc<Snapshot> {
    let shared = schema();
    let plan = ReadPlan::new(&shared, &Mask::all(&shared));
    let objects = rows.iter().map(|(object, _)| object.clone()).collect();
    let mut snapshot = Snapshot::new(&Layout::new(generation, vec![(plan, objects)]));
    let (words, states) = snapshot.begin(tick);
    for ((words, state), (_, row)) in words.chunks_mut(6).zip(states).zip(rows) {
        words.copy_from_slice(&row.unwrap_or([u64::MAX; 6]));
        *state = if row.is_some() { RowState::Good } else { RowState::Gone };
    }
    let begin_ns = at_ms * 1_000_000;
    snapshot.stamp(Window { begin_ns, end_ns: begin_ns, wall_offset_ns: WALL_OFFSET_NS });
    Arc::new(snapshot)
}
