//! The rates of made-up statistics of made-up times.

use vmstrobe_core::{Mask, ReadPlan, Snapshot, Window};
use vmstrobe_export::{BatchLimits, Batcher};
use vmstrobe_testing::snapshots::{schema, vcpu};

use super::*;

const MS: u64 = 1_000_000;

/// A reading of the first word of a vCPU.
type Reading = (RowState, u64);

fn layout(objects: u32) -> Arc<Layout> {
    let schema = schema();
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    Layout::new(1, vec![(plan, (0..objects).map(vcpu).collect())])
}

/// Packs samples of these times, in ns, in batches of so many.
fn packed(
    objects: u32,
    times: &[u64],
    size: usize,
    of: impl Fn(usize, usize) -> Reading,
) -> Vec<PackedBatch> {
    let layout = layout(objects);
    let mut batches: Vec<PackedBatch> = Vec::new();
    for (number, chunk) in times.chunks(size).enumerate() {
        let mut batcher = Batcher::new(BatchLimits { ticks: size, ..BatchLimits::default() });
        for (at, &at_ns) in chunk.iter().enumerate() {
            let tick = number * size + at;
            let mut sample = Snapshot::new(&layout);
            let (words, states) = sample.begin(tick as u64 + 7);
            for (object, (words, state)) in words.chunks_mut(6).zip(states).enumerate() {
                (*state, words[0]) = of(tick, object);
            }
            sample.stamp(Window { begin_ns: at_ns, end_ns: at_ns, wall_offset_ns: 0 });
            assert!(batcher.push(&sample).expect("it is small").is_none());
        }
        let batch = batcher.take().expect("there are samples");
        batches.push(PackedBatch::new(&batch, batches.last()));
    }
    batches
}

fn follow(batches: &[PackedBatch], width_ns: u64, objects: usize) -> Vec<Rates> {
    let mut follower = Follower::new(width_ns, &vec![0; objects]);
    let find = |_: &Arc<Layout>| {
        let spot = |object| Spot { row: object, group: 0, object, words: 0..1, is_level: false };
        (0..objects).map(|object| Some(spot(object))).collect()
    };
    let mut rates = Vec::new();
    batches.iter().for_each(|batch| follower.follow(batch, find, |it| rates.push(it)));
    rates
}

fn rates_of(rates: &[Rates]) -> Vec<f32> {
    rates.iter().map(|it| it.rates[0].round()).collect()
}

fn even_times(count: u64) -> Vec<u64> {
    (1..=count).map(|tick| tick * MS).collect()
}

#[test]
fn the_changes_of_all_stretches_are_the_change() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut next = |below: u64| rng.u64(..below);
    // Late ticks, and single ones that are missing.
    let mut tick = 0;
    let times: Vec<u64> = (0..3000)
        .map(|_| {
            tick += if next(50) == 0 { 2 } else { 1 };
            tick * MS + if next(20) == 0 { next(MS * 9 / 10) } else { 0 }
        })
        .collect();
    let mut value = 0;
    let values: Vec<u64> = (0..3000)
        .map(|_| {
            value += next(100);
            value
        })
        .collect();
    for width_ns in [MS, 10 * MS, 100 * MS] {
        for size in [1, 33, 256, 3000] {
            let batches = packed(2, &times, size, |tick, _| (RowState::Good, values[tick]));
            let rates = follow(&batches, width_ns, 2);
            assert!(rates.windows(2).all(|pair| pair[0].end_ns == pair[1].begin_ns));
            let change: f64 = rates
                .iter()
                .map(|it| f64::from(it.rates[0]) * (it.end_ns - it.begin_ns) as f64 * 1e-9)
                .sum();
            let last = rates.last().expect("there are stretches");
            let end = times.iter().position(|&at| at == last.end_ns).expect("it is a sample");
            let want = 2.0 * (values[end] - values[0]) as f64;
            assert!((change - want).abs() < want * 1e-5, "{width_ns} {size}: {change} {want}");
        }
    }
}

#[test]
fn an_early_tick_has_no_rate_of_its_own() {
    let times = [1000, 2000, 2900 + 950, 4000, 5000].map(|us| us * 1000);
    let batches = packed(1, &times, 2, |tick, _| (RowState::Good, tick as u64 * 10));
    let rates = follow(&batches, MS, 1);
    let lengths: Vec<u64> = rates.iter().map(|it| (it.end_ns - it.begin_ns) / 1000).collect();
    assert_eq!(lengths, [1000, 1850, 1150]);
    assert_eq!(rates_of(&rates), [10_000.0, 5405.0, 17_391.0]);
}

#[test]
fn resets_and_unread_rows_have_no_rate() {
    let of = |tick: usize, _| match tick {
        // Read and unread: what happened meanwhile is in the next rate.
        10 | 11 => (RowState::Torn, 0),
        // Unread for long.
        20..30 => (RowState::Io(5), 0),
        40.. => (RowState::Good, tick as u64 - 40),
        _ => (RowState::Good, 2 * tick as u64),
    };
    let rates = follow(&packed(1, &even_times(50), 8, of), MS, 1);
    let rates = rates_of(&rates);
    assert_eq!(rates.len(), 49);
    for (number, rate) in rates.iter().enumerate() {
        match number + 1 {
            20..=30 | 40 => assert!(rate.is_nan(), "{number}: {rate}"),
            41.. => assert_eq!(*rate, 1000.0, "{number}"),
            _ => assert_eq!(*rate, 2000.0, "{number}"),
        }
    }
}

#[test]
fn a_gap_has_no_rate() {
    let times: Vec<u64> = even_times(10).into_iter().chain((50..60).map(|ms| ms * MS)).collect();
    let rates = follow(&packed(1, &times, 3, |tick, _| (RowState::Good, tick as u64)), MS, 1);
    let unknown: Vec<&Rates> = rates.iter().filter(|it| it.rates[0].is_nan()).collect();
    assert_eq!((rates.len(), unknown.len()), (19, 1));
    assert_eq!((unknown[0].begin_ns, unknown[0].end_ns), (10 * MS, 50 * MS));
}

#[test]
fn a_slow_source_is_spread_over_the_time_between_its_answers() {
    // Each object has an answer every 100 ms, at another tick than the other.
    let of = |tick: usize, object: usize| {
        let since = (tick + 100 - 13 * (object + 1)) % 100;
        let answered = (tick - since.min(tick)) as u64;
        let state = if since == 0 { RowState::Good } else { RowState::Aged(since as u32) };
        (state, 5 * answered)
    };
    let batches = packed(2, &even_times(1000), 64, of);
    let rates = follow(&batches, 10 * MS, 2);
    assert!(rates.len() >= 85, "{}: the last answers are less than 200 ms old", rates.len());
    let late = &rates[30..];
    assert!(late.iter().all(|it| (it.rates[0] - 10_000.0).abs() < 1.0), "{:?}", rates_of(late));
    // A source that no longer answers is not waited for.
    let silent = |tick: usize, object| match tick {
        0..500 => of(tick, object),
        _ => (RowState::Aged(tick as u32), 0),
    };
    let rates = follow(&packed(1, &even_times(4000), 64, silent), 10 * MS, 1);
    assert!(rates.len() > 390 && rates[350].rates[0].is_nan());
}

#[test]
fn a_level_has_its_value() {
    let batches = packed(2, &even_times(30), 7, |tick, _| (RowState::Good, tick as u64 % 3));
    let mut follower = Follower::new(MS, &[0, 0, 1]);
    let find = |_: &Arc<Layout>| {
        let spot = |object| Spot { row: object, group: 0, object, words: 0..1, is_level: true };
        vec![Some(spot(0)), Some(spot(1)), None]
    };
    let mut rates = Vec::new();
    batches.iter().for_each(|batch| follower.follow(batch, find, |it| rates.push(it)));
    let levels: Vec<f32> = rates.iter().map(|it| it.rates[0]).collect();
    assert_eq!(levels[..4], [2.0, 4.0, 0.0, 2.0]);
    assert!(rates.iter().all(|it| it.rates[1].is_nan()), "an object that is not there");
}
