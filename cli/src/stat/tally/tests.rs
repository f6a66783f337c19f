//! Intervals made up of snapshots made up.

use vmstrobe_core::{Desc, Layout, Mask, Scale, Schema, Target, Unit, Window};

use super::*;

/// Words of a vCPU: exits, wait_ms, wait_hist (2), blocking, level.
type Row = Option<[u64; 6]>;

fn schema() -> Arc<Schema> {
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

/// vCPU `index` of the virtual machine web.
pub(in crate::stat) fn vcpu(index: u32) -> Object {
    let path = format!("/vm/web/vcpu[{index}]").into();
    Object { path, index: Some(index), schema: schema(), key: index.into() }
}

/// A snapshot of these objects, gone if they have no words; each set of objects is a layout.
pub(in crate::stat) fn snapshot(tick: u64, at_ms: u64, rows: &[(Object, Row)]) -> Arc<Snapshot> {
    let generation = rows.iter().map(|(object, _)| 1 << object.key).sum();
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
    snapshot.stamp(Window { begin_ns, end_ns: begin_ns, wall_offset_ns: 0 });
    Arc::new(snapshot)
}

fn exits(line: &Line) -> (Option<&str>, u64, Option<f64>) {
    (line.path.as_deref(), line.amount.total(), line.rate.map(|rate| rate.per_second))
}

#[test]
fn one_object_from_its_first_to_its_last_sample() {
    let mut tally = Tally::new(&snapshot(1, 0, &[(vcpu(0), Some([100, 0, 0, 0, 1, 5]))]));
    assert!(tally.interval().is_none() && tally.lines(true).is_empty());
    for (tick, at_ms, words) in
        [(2, 500, [150, 100, 1, 0, 1, 2]), (3, 1000, [200, 250, 2, 1, 0, 9])]
    {
        tally.add(&snapshot(tick, at_ms, &[(vcpu(0), Some(words))]));
    }
    assert_eq!((tally.samples(), tally.ticks(), tally.objects()), (2, 2, 1));
    let lines = tally.lines(true);
    assert_eq!(exits(&lines[0]), (Some("/vm/web/vcpu[0]"), 100, Some(100.0)));
    assert_eq!(lines[1].amount, Amount::Count(250));
    assert_eq!(lines[2].amount, Amount::Buckets(vec![2, 1]));
    // The sample that opens the interval is none of its own.
    let blocking = Level { samples: 2, trues: 1, min: 0, max: 1, last: 0 };
    assert_eq!(lines[3].amount, Amount::Level(blocking));
    let level = Level { samples: 2, trues: 2, min: 2, max: 9, last: 9 };
    assert_eq!(lines[4].amount, Amount::Level(level));
    assert_eq!(tally.path(), Some("/vm/web/vcpu[0]"));
}

#[test]
fn intervals_touch_and_do_not_overlap() {
    let sample =
        |tick, exits| snapshot(tick, tick * 100, &[(vcpu(0), Some([exits, 0, 0, 0, 1, 0]))]);
    let mut first = Tally::new(&sample(1, 10));
    first.add(&sample(2, 30));
    let mut second = first.next();
    second.add(&sample(3, 70));
    let deltas = [first, second].map(|tally| tally.lines(false)[0].amount.total());
    assert_eq!(deltas, [20, 40]);
}

#[test]
fn a_sum_is_of_all_and_over_the_whole_interval() {
    let both =
        |a: u64, b: u64| [(vcpu(0), Some([a, 0, 0, 0, 1, 1])), (vcpu(1), Some([b, 0, 0, 0, 0, 2]))];
    let mut tally = Tally::new(&snapshot(1, 0, &both(0, 1000)));
    tally.add(&snapshot(2, 2000, &both(10, 1030)));
    let lines = tally.lines(false);
    assert_eq!(exits(&lines[0]), (None, 40, Some(20.0)));
    assert_eq!((lines[0].objects, lines[0].object_seconds), (2, 4.0));
    let blocking = Level { samples: 2, trues: 1, min: 0, max: 1, last: 1 };
    assert_eq!(lines[3].amount, Amount::Level(blocking));
    assert_eq!(tally.path(), Some("/vm/web"));
    assert_eq!(tally.lines(true).len(), 10);
}

#[test]
fn who_comes_or_goes_counts_while_it_is_there() {
    let mut tally = Tally::new(&snapshot(1, 0, &[(vcpu(0), Some([0; 6]))]));
    let rows = [(vcpu(0), Some([10; 6])), (vcpu(1), Some([100; 6]))];
    tally.add(&snapshot(2, 1000, &rows));
    let rows = [(vcpu(0), None), (vcpu(1), Some([130; 6]))];
    tally.add(&snapshot(3, 2000, &rows));
    // Its row is given up, once the roster has noticed.
    tally.add(&snapshot(4, 3000, &[(vcpu(1), Some([150; 6]))]));
    let lines = tally.lines(true);
    let of = |path: &str| lines.iter().find(|line| line.path.as_deref() == Some(path)).map(exits);
    assert_eq!(of("/vm/web/vcpu[0]"), Some((Some("/vm/web/vcpu[0]"), 10, Some(10.0))));
    assert_eq!(of("/vm/web/vcpu[1]"), Some((Some("/vm/web/vcpu[1]"), 50, Some(25.0))));
    assert_eq!(tally.joined().collect::<Vec<_>>(), ["/vm/web/vcpu[1]"]);
    assert_eq!(tally.left().collect::<Vec<_>>(), ["/vm/web/vcpu[0]"]);
    // The next interval knows only who is left.
    assert_eq!(tally.next().objects(), 1);
}

#[test]
fn a_reset_has_no_rate() {
    let sample =
        |tick, exits| snapshot(tick, tick * 100, &[(vcpu(0), Some([exits, 0, 0, 0, 1, 0]))]);
    let mut tally = Tally::new(&sample(1, 100));
    tally.add(&sample(2, 7));
    let line = &tally.lines(false)[0];
    assert!(line.was_reset() && !line.is_at_rest());
    assert_eq!(line.amount, Amount::Count(7));
}
