//! Samples of made-up virtual machines, for the tests of the view: each vCPU with statistics of
//! two providers.

use std::sync::Arc;

use vmstrobe_core::{
    Desc, Layout, Mask, Object, ReadPlan, RowState, Scale, Schema, Snapshot, StatType, Target,
    Unit, Window,
};

use super::{Frame, Request, View, ViewOptions};

/// At second 0 of the monotonic clock, the wall clock is at second 1,000,000,000.
pub(super) const WALL_OFFSET_NS: i64 = 1_000_000_000_000_000_000;
pub(super) const MS: u64 = 1_000_000;
/// The words of a vCPU of the scheduler: run_delay, run_time.
const SCHED_WORDS: usize = 2;

/// The statistics of a vCPU at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vcpu {
    pub(super) exits: u64,
    pub(super) halts: u64,
    pub(super) halted_ns: u64,
    pub(super) is_blocking: bool,
    /// The counts of buckets 11, 21 and 31: about 1 us, 1 ms, and without an end.
    pub(super) waits: [u64; 3],
    pub(super) steal_ns: u64,
    pub(super) run_ns: u64,
    pub(super) state: RowState,
}

/// Virtual machines of that many vCPUs each, in one layout.
#[derive(Clone, Debug)]
pub(super) struct Vms {
    pub(super) layout: Arc<Layout>,
    vcpus: usize,
}

fn kvm() -> Arc<Schema> {
    let ns = |desc| Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
    let hist = Desc { stat_type: StatType::Log2Histogram, size: 32, ..Desc::counter("", 32) };
    let blocking = Desc::counter("blocking", 24);
    let blocking = Desc { unit: Unit::Boolean, stat_type: StatType::Instant, ..blocking };
    let descs = vec![
        Desc::counter("exits", 0),
        Desc::counter("halt_exits", 8),
        ns(Desc::counter("halt_wait_ns", 16)),
        blocking,
        ns(Desc { name: "halt_wait_hist".into(), ..hist }),
    ];
    Schema::new("kvm", Target::Vcpu, descs)
}

fn sched() -> Arc<Schema> {
    let ns = |name, offset| Desc {
        unit: Unit::Seconds,
        scale: Scale::NANO,
        ..Desc::counter(name, offset)
    };
    Schema::new("sched", Target::Vcpu, vec![ns("run_delay", 0), ns("run_time", 8)])
}

impl Vms {
    /// Makes VMs of these names.
    pub(super) fn new(generation: u64, names: &[&str], vcpus: usize) -> Self {
        let parts = [kvm(), sched()].map(|schema| {
            let object = |name: &str, index: usize| Object {
                path: format!("/vm/{name}/vcpu[{index}]").into(),
                index: Some(index as u32),
                schema: Arc::clone(&schema),
                key: index as u64 + 1000 * name.len() as u64,
            };
            let objects = names.iter().flat_map(|name| (0..vcpus).map(move |at| object(name, at)));
            (ReadPlan::new(&schema, &Mask::all(&schema)), objects.collect())
        });
        Self { layout: Layout::new(generation, parts.into()), vcpus }
    }

    /// Returns the sample of a tick of 1 kHz; `of` gives each vCPU by the numbers of its VM and its
    /// own.
    pub(super) fn sample(&self, tick: u64, of: impl Fn(usize, usize) -> Vcpu) -> Snapshot {
        let mut snapshot = Snapshot::new(&self.layout);
        let (words, states) = snapshot.begin(tick);
        let rows = states.len() / 2;
        let kvm_words = self.layout.groups()[0].plan.row_words();
        let (kvm, sched) = words.split_at_mut(rows * kvm_words);
        for (at, (kvm, sched)) in
            kvm.chunks_mut(kvm_words).zip(sched.chunks_mut(SCHED_WORDS)).enumerate()
        {
            let it = of(at / self.vcpus, at % self.vcpus);
            kvm[..4].copy_from_slice(&[it.exits, it.halts, it.halted_ns, it.is_blocking.into()]);
            for (bucket, count) in [11, 21, 31].into_iter().zip(it.waits) {
                kvm[4 + bucket] = count;
            }
            sched.copy_from_slice(&[it.steal_ns, it.run_ns]);
            (states[at], states[rows + at]) = (it.state, it.state);
        }
        let begin_ns = tick * MS;
        snapshot.stamp(Window {
            begin_ns,
            end_ns: begin_ns + 2000,
            wall_offset_ns: WALL_OFFSET_NS,
        });
        snapshot
    }
}

/// Returns a view that has taken these ticks.
pub(super) fn view(
    vms: &Vms,
    ticks: std::ops::RangeInclusive<u64>,
    of: impl Fn(u64, usize, usize) -> Vcpu,
) -> View {
    let mut view = View::new(ViewOptions::default());
    take(&mut view, vms, ticks, of);
    view
}

/// Has a view take these ticks.
pub(super) fn take(
    view: &mut View,
    vms: &Vms,
    ticks: std::ops::RangeInclusive<u64>,
    of: impl Fn(u64, usize, usize) -> Vcpu,
) {
    for tick in ticks {
        view.take(&vms.sample(tick, |vm, vcpu| of(tick, vm, vcpu))).expect("it is small");
    }
}

/// Returns a vCPU that moves evenly: of every 10 ms, it is halted for 9.
pub(super) fn even(tick: u64, _vm: usize, vcpu: usize) -> Vcpu {
    let speed = vcpu as u64 + 1;
    Vcpu {
        exits: 5 * speed * tick,
        halts: tick / 10,
        halted_ns: tick / 10 * 9 * MS,
        waits: [0, tick / 10, 0],
        steal_ns: tick * 1000,
        run_ns: tick * 90_000,
        state: RowState::Good,
        ..Vcpu::default()
    }
}

/// Room for everything.
pub(super) const ALL: Request = Request {
    table_rows: 40,
    table_columns: 7,
    spark_cells: 20,
    charts: 3,
    chart_columns: 140,
    statistics: 30,
    histogram_rows: 12,
    heat_columns: 40,
    events: 8,
};

/// Returns the names of the rows, with `>` before the selected one.
pub(super) fn names(frame: &Frame) -> Vec<String> {
    let selected = |at| if frame.selected == Some(at) { ">" } else { "" };
    let names = frame.rows.iter().enumerate();
    names.map(|(at, row)| format!("{}{}", selected(at), row.name)).collect()
}
