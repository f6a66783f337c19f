//! Intervals made up of snapshots made up.

use vmstrobe_core::Object;
use vmstrobe_testing::snapshots::{Row, laid_out, snapshot, vcpu};

use super::stat::{Amount, Level};
use super::*;

fn exits(line: &StatTally) -> (Option<&str>, u64, Option<f64>) {
    (line.path.as_deref(), line.amount.total(), line.rate.map(|rate| rate.per_second))
}

#[test]
fn one_object_from_its_first_to_its_last_sample() {
    let mut tally = Tally::new(&snapshot(1, 0, &[(vcpu(0), Some([100, 0, 0, 0, 1, 5]))]));
    assert!(tally.interval().is_none() && tally.stats(true).is_empty());
    for (tick, at_ms, words) in
        [(2, 500, [150, 100, 1, 0, 1, 2]), (3, 1000, [200, 250, 2, 1, 0, 9])]
    {
        tally.add(&snapshot(tick, at_ms, &[(vcpu(0), Some(words))]));
    }
    assert_eq!((tally.samples(), tally.ticks(), tally.objects()), (2, 2, 1));
    let lines = tally.stats(true);
    assert_eq!(exits(&lines[0]), (Some("/vm/web/vcpu[0]"), 100, Some(100.0)));
    assert_eq!(lines[1].amount, Amount::Count(250));
    assert_eq!(lines[2].amount, Amount::Buckets(vec![2, 1]));
    // The sample that opens the interval is none of its own.
    let blocking = Level { samples: 2, trues: 1, min: 0, max: 1, sum: 1, last: 0 };
    assert_eq!(lines[3].amount, Amount::Level(blocking));
    let level = Level { samples: 2, trues: 2, min: 2, max: 9, sum: 11, last: 9 };
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
    let deltas = [first, second].map(|tally| tally.stats(false)[0].amount.total());
    assert_eq!(deltas, [20, 40]);
}

#[test]
fn a_sum_is_of_all_and_over_the_whole_interval() {
    let both =
        |a: u64, b: u64| [(vcpu(0), Some([a, 0, 0, 0, 1, 1])), (vcpu(1), Some([b, 0, 0, 0, 0, 2]))];
    let mut tally = Tally::new(&snapshot(1, 0, &both(0, 1000)));
    tally.add(&snapshot(2, 2000, &both(10, 1030)));
    let lines = tally.stats(false);
    assert_eq!(exits(&lines[0]), (None, 40, Some(20.0)));
    assert_eq!((lines[0].objects, lines[0].object_seconds), (2, 4.0));
    let blocking = Level { samples: 2, trues: 1, min: 0, max: 1, sum: 1, last: 1 };
    assert_eq!(lines[3].amount, Amount::Level(blocking));
    assert_eq!(tally.path(), Some("/vm/web"));
    assert_eq!(tally.stats(true).len(), 10);
    // The virtual machine itself may be among them.
    let of = |path: &str| Object { path: path.into(), ..vcpu(0) };
    let path = |paths: &[&str]| {
        let rows: Vec<_> = paths.iter().map(|path| (of(path), Some([0; 6]))).collect();
        Tally::new(&snapshot(1, 0, &rows)).path().map(str::to_owned)
    };
    assert_eq!(path(&["/vm/web", "/vm/web/vcpu[0]"]).as_deref(), Some("/vm/web"));
    assert_eq!(path(&["/vm/web/vcpu[0]", "/vm/web"]).as_deref(), Some("/vm/web"));
    assert_eq!(path(&["/vm/web/vcpu[0]", "/vm/db/vcpu[0]"]), None);
    assert_eq!(path(&["a", "b"]), None);
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
    let lines = tally.stats(true);
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
    let line = &tally.stats(false)[0];
    assert!(line.was_reset() && !line.is_at_rest());
    assert_eq!(line.amount, Amount::Count(7));
}

/// Objects that are there for one layout each.
fn churn(generations: u64, each: u64) -> Tally {
    let rows = |generation: u64, count: u64| -> Vec<(Object, Row)> {
        let key = |at| (generation * each + at) as u32;
        (0..each).map(|at| (vcpu(key(at)), Some([count; 6]))).collect()
    };
    let mut tally = Tally::new(&laid_out(0, 1, 0, &rows(0, 0)));
    for generation in 0..generations {
        for (at, count) in [(0, 1), (1, 11)] {
            let tick = 2 + 2 * generation + at;
            tally.add(&laid_out(generation, tick, tick * 100, &rows(generation, count)));
        }
    }
    tally
}

#[test]
fn objects_that_came_and_went_are_forgotten_but_for_their_sums() {
    let (generations, each) = (20, MAX_GONE as u64 / 4);
    let tally = churn(generations, each);
    assert_eq!(tally.gone.len(), MAX_GONE);
    let all = (generations * each) as usize;
    let forgotten = all - MAX_GONE - each as usize;
    assert_eq!((tally.objects(), tally.forgotten_objects()), (all, forgotten));
    let joined = tally.joined().count() + tally.joined_and_forgotten();
    assert_eq!((joined, tally.left().count()), (all - each as usize, MAX_GONE));
    // The first were there from 0 on, the others from 1.
    let exits = &tally.stats(false)[0];
    assert_eq!(exits.amount.total(), each * 11 + (all as u64 - each) * 10);
    assert_eq!(exits.objects, all);
    let lines = tally.stats(true);
    let (sums, single): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.path.is_none());
    assert_eq!((sums.len(), single.len()), (5, 5 * (all - forgotten)));
    assert_eq!((sums[0].objects, tally.lost_stats()), (forgotten, 0));
    // The interval behind it has to do with those only that are there.
    assert_eq!(tally.next().objects(), each as usize);
}

#[test]
fn who_comes_again_goes_on_where_it_was() {
    let row = |index, count| (vcpu(index), Some([count; 6]));
    let mut tally = Tally::new(&laid_out(0, 1, 0, &[row(0, 5)]));
    tally.add(&laid_out(1, 2, 100, &[row(1, 1)]));
    tally.add(&laid_out(2, 3, 200, &[row(1, 2), row(0, 9)]));
    assert_eq!((tally.objects(), tally.gone.len()), (2, 0));
    assert_eq!(tally.stats(false)[0].amount.total(), 4 + 1);
    assert_eq!(tally.joined().collect::<Vec<_>>(), ["/vm/web/vcpu[1]"]);
    assert_eq!(tally.left().count(), 0);
}

#[test]
fn no_sample_is_held_but_the_last() {
    let held = |sample: &Arc<Snapshot>| Arc::strong_count(sample) > 1;
    let samples: Vec<_> = (0..8)
        .map(|tick| {
            // Each is read for the last time in a sample of its own.
            let row = |at: u32| (vcpu(at), (u64::from(at) >= tick).then_some([tick; 6]));
            laid_out(0, tick, tick * 100, &(0..8).map(row).collect::<Vec<_>>())
        })
        .collect();
    let mut tally = Tally::new(&samples[0]);
    samples[1..].iter().for_each(|sample| tally.add(sample));
    let want = [false, false, false, false, false, false, false, true];
    assert_eq!(samples.iter().map(held).collect::<Vec<_>>(), want);
    // vCPU 0 has but one sample.
    let counts: Vec<u64> = tally.stats(true).chunks(5).map(|of| of[0].amount.total()).collect();
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(tally.left().count(), 7);
}

#[test]
fn an_object_with_other_statistics_is_another_one() {
    use vmstrobe_core::{Desc, Mask, ReadPlan, Schema, Target};
    let schema = |count: u32| {
        let descs = (0..count).map(|n| Desc::counter(&format!("n{n}"), 8 * n)).collect();
        Schema::new("xyz", Target::Vcpu, descs)
    };
    // As a recording may claim: one key and one path, and statistics that come and go.
    let sample = |tick: u64, counts: &[u32]| {
        let parts = counts.iter().map(|&count| {
            let schema = schema(count);
            let plan = ReadPlan::new(&schema, &Mask::all(&schema));
            (plan, vec![Object { schema, ..vcpu(0) }])
        });
        let mut sample = Snapshot::new(&Layout::new(tick, parts.collect()));
        let (words, states) = sample.begin(tick);
        words.fill(tick);
        states.fill(RowState::Good);
        sample.stamp(Window { begin_ns: tick, end_ns: tick, wall_offset_ns: 0 });
        Arc::new(sample)
    };
    let mut tally = Tally::new(&sample(1, &[1, 3]));
    for (tick, counts) in [(2, &[3, 1][..]), (3, &[2]), (4, &[2, 3]), (5, &[1])] {
        tally.add(&sample(tick, counts));
    }
    assert!(tally.objects() >= 3);
    let lines = tally.stats(false);
    assert_eq!(lines.iter().map(|line| line.desc().name.len()).sum::<usize>(), 2 * lines.len());
}
