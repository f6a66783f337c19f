//! Samples that are held, found again and dropped.

use vmstrobe_core::{Layout, Mask, ReadPlan, RowState, Snapshot, Window};
use vmstrobe_export::EventKind;
use vmstrobe_testing::snapshots::{schema, vcpu};

use super::*;

const MS: u64 = 1_000_000;

fn layout() -> Arc<Layout> {
    let schema = schema();
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    Layout::new(1, vec![(plan, vec![vcpu(0)])])
}

fn sample(layout: &Arc<Layout>, tick: u64) -> Snapshot {
    let mut sample = Snapshot::new(layout);
    let (words, states) = sample.begin(tick);
    // The third word jumps, so that a batch takes some bytes.
    words.copy_from_slice(&[tick, 2, tick.wrapping_mul(0x9e37_79b9_7f4a_7c15), 4, 5, 6]);
    states.fill(RowState::Good);
    let at_ns = tick * MS;
    sample.stamp(Window { begin_ns: at_ns, end_ns: at_ns, wall_offset_ns: 0 });
    sample
}

fn history(limits: HistoryLimits, ticks: std::ops::RangeInclusive<u64>, close: u64) -> History {
    let (mut history, layout) = (History::new(limits), layout());
    for tick in ticks {
        history.push(&sample(&layout, tick)).expect("it is small");
        if tick % close == 0 {
            history.close();
        }
    }
    history.close();
    history
}

#[test]
fn any_sample_is_found_again() {
    for close in [1, 7, 100, 1000] {
        let history = history(HistoryLimits::default(), 10..=1000, close);
        assert_eq!(history.span(), Some((10 * MS, 1000 * MS)));
        assert_eq!(history.period_ns(), Some(MS));
        assert_eq!(history.find(10 * MS - 1), None);
        for (at_ns, tick) in [(10 * MS, 10), (11 * MS - 1, 10), (700 * MS, 700), (u64::MAX, 1000)] {
            let place = history.find(at_ns).expect("there is an earlier sample");
            assert_eq!(history.time_ns(place), tick * MS);
            let found = history.sample(place);
            assert_eq!((found.tick(), found.window().begin_ns), (tick, tick * MS));
            let exits = found.stat("exits").next().and_then(|(_, exits)| exits.number());
            assert_eq!(exits, Some(tick));
        }
        let from = history.find(500 * MS).expect("it is there");
        for (samples, tick) in
            [(0, 500), (1, 501), (-1, 499), (450, 950), (i32::MAX, 1000), (-5000, 10)]
        {
            assert_eq!(history.time_ns(history.step(from, samples)), tick * MS, "{samples}");
        }
    }
}

#[test]
fn the_limits_are_kept() {
    let time = HistoryLimits { time: Duration::from_millis(300), bytes: usize::MAX };
    let by_time = history(time, 1..=2000, 10);
    // The oldest batch is held as long as the others alone do not cover the time.
    assert_eq!(by_time.span(), Some((1691 * MS, 2000 * MS)));
    let most = HistoryLimits { bytes: 50_000, ..HistoryLimits::default() };
    let by_bytes = history(most, 1..=5000, 10);
    assert!(by_bytes.bytes() <= 50_000 && by_bytes.bytes() > 40_000, "{}", by_bytes.bytes());
    // A batch that is larger than all that may be held is held alone.
    let none = HistoryLimits { bytes: 0, ..HistoryLimits::default() };
    let newest = history(none, 1..=100, 10);
    assert_eq!(newest.span(), Some((91 * MS, 100 * MS)));
}

#[test]
fn events_are_in_order_and_as_bounded_as_samples() {
    let limits = HistoryLimits { time: Duration::from_millis(300), bytes: usize::MAX };
    let mut history = history(limits, 1..=1000, 10);
    let event = |at_ms| Event {
        monotonic_ns: at_ms * MS,
        wall_offset_ns: 0,
        kind: EventKind::Mark,
        text: String::new(),
    };
    let times = |history: &History| -> Vec<u64> {
        history.events().map(|event| event.monotonic_ns / MS).collect()
    };
    for at_ms in [900, 800, 950, 800] {
        history.event(&event(at_ms));
    }
    assert_eq!(times(&history), [800, 800, 900, 950]);
    let layout = layout();
    for tick in 1001..=1205 {
        history.push(&sample(&layout, tick)).expect("it is small");
        history.close();
    }
    assert_eq!(times(&history), [950]);
    for at_ms in 2000..2000 + 2 * MAX_EVENTS as u64 {
        history.event(&event(at_ms));
    }
    assert_eq!(history.events().count(), MAX_EVENTS);
}
