//! The growth in bins of made-up samples, against their values.

use vmstrobe_core::{RowState, Snapshot};
use vmstrobe_export::{BatchLimits, Batcher};
use vmstrobe_testing::snapshots::{Row, snapshot, vcpu};

use super::*;

const MS: u64 = 1_000_000;
/// The place of `exits` among the statistics of the made-up vCPUs.
const EXITS: usize = 0;

/// Adds samples in batches of so many, and returns the growth by bin, with the layout.
fn rates_of(samples: &[Snapshot], ticks: usize) -> (Rates, Tally, Statistic) {
    let mut batcher = Batcher::new(BatchLimits { ticks, ..BatchLimits::default() });
    let mut sums: Option<(Rates, Tally)> = None;
    let mut add = |batch: &Batch| {
        let new = || (Rates::new(10 * MS, batch.windows()[0]), Tally::of_batches(batch));
        let (rates, tally) = sums.get_or_insert_with(new);
        tally.enrol_batch(batch);
        rates.add(batch, tally);
        tally.add_batch(batch);
    };
    for sample in samples {
        batcher.push(sample).expect("it is small").iter().for_each(&mut add);
    }
    batcher.take().iter().for_each(&mut add);
    let (rates, tally) = sums.expect("there are samples");
    let schema = Arc::clone(samples[0].layout().groups()[0].plan.schema());
    (rates, tally, Statistic { schema, desc: EXITS })
}

/// Makes samples of two vCPUs, one each ms, of one layout: with the exits of a vCPU, and the state
/// of its row.
fn samples(
    count: u64,
    exits: impl Fn(u32, u64) -> u64,
    state: impl Fn(u32, u64) -> RowState,
) -> Vec<Snapshot> {
    let row = |number: u32, tick: u64| -> (_, Row) {
        (vcpu(number), Some([exits(number, tick), 0, tick, 2 * tick, 1, 7]))
    };
    let first = snapshot(0, 0, &[row(0, 0), row(1, 0)]);
    let sample = |tick: u64| {
        let made = snapshot(tick, tick, &[row(0, tick), row(1, tick)]);
        let mut sample = Snapshot::new(first.layout());
        let (words, states) = sample.begin(tick);
        let from = made.objects().flat_map(|view| view.words().to_vec());
        words.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        (0..2).zip(states).for_each(|(number, to)| *to = state(number, tick));
        sample.stamp(made.window());
        sample
    };
    (0..count).map(sample).collect()
}

fn all_good(_: u32, _: u64) -> RowState {
    RowState::Good
}

fn grown(rates: &Rates, of: &Statistic) -> Vec<u64> {
    let series = rates.series(of).expect("it counts");
    rates.axis.spans(0).spans.iter().map(|span| series.grown_in(span)).collect()
}

#[test]
fn bins_have_what_grew_in_their_time() {
    // vCPU 1 has a burst of 500 from 23 ms to 24 ms.
    let exits = |number: u32, tick: u64| tick * 10 + 500 * u64::from(number == 1 && tick >= 24);
    let samples = samples(51, exits, all_good);
    for ticks in [1, 7, 500] {
        let (rates, _, of) = rates_of(&samples, ticks);
        assert_eq!(grown(&rates, &of), [200, 200, 700, 200, 200]);
        let series = rates.series(&of).expect("it counts");
        let spans = rates.axis.spans(0);
        let per_second: Vec<f64> = series.rates(&spans).map(|(rate, _)| rate).collect();
        assert_eq!(per_second, [2e4, 2e4, 7e4, 2e4, 2e4]);
        // A histogram counts in all its buckets.
        let hist = Statistic { desc: 2, ..of };
        assert_eq!(grown(&rates, &hist), [60; 5]);
        let level = Statistic { desc: 4, ..hist };
        assert!(rates.series(&level).is_none(), "a level has no rate");
    }
}

#[test]
fn bins_add_up_whatever_happens_to_rows_and_however_they_are_joined() {
    let state = |number: u32, tick: u64| match (tick * 7 + u64::from(number) * 13) % 31 {
        0 => RowState::Torn,
        1..=3 => RowState::Aged(2),
        4 => RowState::Io(5),
        _ => RowState::Good,
    };
    let samples = samples(3001, |number, tick| tick * tick * u64::from(number + 1), state);
    for ticks in [1, 64, 5000] {
        let (mut rates, tally, of) = rates_of(&samples, ticks);
        let total = tally.stats(false)[EXITS].amount.total();
        for _ in 0..4 {
            assert_eq!(grown(&rates, &of).iter().sum::<u64>(), total);
            let series = rates.series(&of).expect("it counts");
            for width_ns in [50 * MS, 1000 * MS, 9000 * MS] {
                let spans = rates.axis.spans(width_ns);
                let sum: u64 = spans.spans.iter().map(|span| series.grown_in(span)).sum();
                assert_eq!(sum, total, "{width_ns}");
                assert!(spans.spans.windows(2).all(|pair| pair[0].bins.end == pair[1].bins.start));
            }
            let widest = rates.axis.spans(1000 * MS);
            let [low, high] = [f64::min, f64::max].map(|choose| {
                series.rates(&widest).map(|(rate, _)| rate).reduce(choose).expect("it has rates")
            });
            // The mean of a span is between the rates of its bins.
            let fine = rates.axis.spans(0);
            let of_bins: Vec<f64> = series.rates(&fine).map(|(rate, _)| rate).collect();
            assert!(of_bins.iter().any(|&rate| rate <= low));
            assert!(of_bins.iter().any(|&rate| rate >= high));
            rates.axis.halve();
            rates.series.iter_mut().for_each(Series::halve);
        }
    }
}

#[test]
fn an_old_value_at_the_end_of_a_bin_takes_its_rate() {
    // vCPU 1 cannot be read from 18 ms to 44 ms, and is the same all the time but then.
    let is_lost = |number: u32, tick: u64| number == 1 && (18..44).contains(&tick);
    let state = |number, tick| if is_lost(number, tick) { RowState::Torn } else { RowState::Good };
    let samples = samples(101, |number, tick| tick * u64::from(number + 1), state);
    for ticks in [1, 30, 500] {
        let (rates, _, of) = rates_of(&samples, ticks);
        let series = rates.series(&of).expect("it counts");
        let spans = rates.axis.spans(0);
        let have: Vec<bool> =
            spans.spans.iter().map(|span| series.has_rate(span, spans.width_ns)).collect();
        let want = [true, false, false, false, false, true, true, true, true, true];
        assert_eq!(have, want);
        // It is known how much it grew in a longer time.
        let longer = rates.axis.spans(50 * MS);
        assert_eq!(series.rates(&longer).map(|(rate, _)| rate).collect::<Vec<_>>(), [3e3; 2]);
    }
}

#[test]
fn values_of_ten_times_a_second_have_rates_of_a_second() {
    let state = |number: u32, tick: u64| match (tick + 40 * u64::from(number)) % 100 {
        0 => RowState::Good,
        age => RowState::Aged(age as u32),
    };
    let samples = samples(3001, |_, tick| tick, state);
    let (rates, _, of) = rates_of(&samples, 500);
    let series = rates.series(&of).expect("it counts");
    let fine = rates.axis.spans(0);
    assert!(series.rates(&fine).count() < 5);
    let coarse = rates.axis.spans(1000 * MS);
    let rates: Vec<f64> = series.rates(&coarse).map(|(rate, _)| rate).collect();
    assert!(rates.len() >= 2 && rates.iter().all(|rate| (1800.0..2200.0).contains(rate)));
}

#[test]
fn a_reset_counts_what_came_after_it() {
    let exits = |_, tick: u64| if tick < 25 { 1000 + tick } else { tick - 25 };
    let (rates, _, of) = rates_of(&samples(41, exits, all_good), 16);
    assert_eq!(grown(&rates, &of), [20, 20, 2 * 4 + 2 * 5, 20]);
}

#[test]
fn bins_are_joined_before_there_are_too_many() {
    // One object, one statistic of which moves, a sample each 10 ms: more bins than there may be.
    let first = snapshot(0, 0, &[(vcpu(0), Some([0; 6]))]);
    let (mut tick, mut rates, mut tally) = (0, None, None);
    let mut batcher = Batcher::new(BatchLimits { ticks: 1 << 14, ..BatchLimits::default() });
    while tick < 3 * MAX_BINS as u64 / 2 {
        let mut sample = Snapshot::new(first.layout());
        let (words, states) = sample.begin(tick);
        words[0] = tick;
        states.fill(RowState::Good);
        let at_ns = tick * 10 * MS;
        sample.stamp(Window { begin_ns: at_ns, end_ns: at_ns, wall_offset_ns: 0 });
        tick += 1;
        let Some(batch) = batcher.push(&sample).expect("it is small") else { continue };
        let rates = rates.get_or_insert_with(|| Rates::new(10 * MS, batch.windows()[0]));
        let tally = tally.get_or_insert_with(|| Tally::of_batches(&batch));
        tally.enrol_batch(&batch);
        rates.add(&batch, tally);
        tally.add_batch(&batch);
        assert!(rates.axis.len() <= MAX_BINS);
    }
    let rates = rates.expect("there were batches");
    assert_eq!(rates.axis.width_ns(), 20 * MS);
    let of =
        Statistic { schema: Arc::clone(first.layout().groups()[0].plan.schema()), desc: EXITS };
    let grown = grown(&rates, &of);
    assert!(grown[1..grown.len() - 1].iter().all(|&grown| grown == 2), "{:?}", &grown[..9]);
    let last = tally.expect("there were batches").stats(false)[EXITS].amount.total();
    assert_eq!(grown.iter().sum::<u64>(), last);
}
