//! Intervals of made-up samples, and work measured over a real session.

use std::thread;

use vmstrobe_core::{Layout, Registry, Target};
use vmstrobe_sampler::Timing;

use super::*;
use crate::Attachment;

const MS: u64 = 1_000_000;

/// A sample of nothing, begun at that time.
fn sample(tick: u64, at_ms: u64) -> Arc<Snapshot> {
    let mut sample = Snapshot::new(&Layout::new(0, Vec::new()));
    sample.begin(tick);
    sample.stamp(vmstrobe_core::Window {
        begin_ns: at_ms * MS,
        end_ns: at_ms * MS + 1,
        wall_offset_ns: 0,
    });
    Arc::new(sample)
}

fn ms(ms: u64) -> Option<Duration> {
    Some(Duration::from_millis(ms))
}

#[test]
fn intervals_lie_between_two_samples_and_none_is_made_up() {
    let mut meter = Meter::new(&sample(1, 100), MS, ms(70), ms(10));
    assert_eq!(meter.start_ns(), 100 * MS);
    for (tick, at_ms, want) in [
        (2, 105, None),
        (3, 111, Some((100, 111))),
        (4, 115, None),
        // Two intervals had no sample; they are part of the one that has.
        (5, 147, Some((111, 147))),
        (6, 149, None),
        (7, 150, Some((147, 150))),
    ] {
        let added = meter.add(&sample(tick, at_ms));
        let interval =
            added.interval.map(|tally| (tally.begin().begin_ns / MS, tally.end().begin_ns / MS));
        assert_eq!((interval, added.is_last), (want, false), "at {at_ms} ms");
    }
    let last = meter.add(&sample(8, 170));
    assert!(last.is_last && last.interval.is_some_and(|tally| tally.samples() == 1));
    assert_eq!(meter.tally().samples(), 0);
}

#[test]
fn the_end_may_come_earlier_and_never_later() {
    let mut meter = Meter::new(&sample(1, 100), MS, ms(50), None);
    meter.end_at(120 * MS);
    meter.end_at(500 * MS);
    assert!(!meter.add(&sample(2, 119)).is_last);
    assert!(meter.add(&sample(3, 120)).is_last);
    assert_eq!(meter.tally().samples(), 2);
}

#[test]
fn a_sample_is_taken_on_purpose_where_the_next_tick_is_too_late() {
    // At 1 kHz the next sample is waited for.
    let mut often = Meter::new(&sample(1, 0), MS, ms(100), ms(10));
    assert!(
        !often.must_sample(100 * MS + PATIENCE_NS) && often.must_sample(101 * MS + PATIENCE_NS)
    );
    // What was queued is one interval by then.
    assert!(often.add(&sample(2, 50)).interval.is_none());
    // At 1 Hz it is not.
    let mut seldom = Meter::new(&sample(1, 0), 1000 * MS, ms(100), None);
    assert!(!seldom.must_sample(100 * MS) && seldom.must_sample(101 * MS));
}

/// The sampler's own statistics, sampled at that rate.
fn session(rate_hz: f64) -> Session {
    let attachment = Attachment::of(Registry::default()).with_own_statistics();
    let filter = vmstrobe_core::Filter::all(Target::from_name(vmstrobe_sampler::TARGET));
    attachment.start(vec![filter], Timing::hz(rate_hz).unwrap()).unwrap()
}

#[test]
fn work_lies_within_what_is_measured() {
    for rate_hz in [1000.0, 0.1] {
        let (times, measured) = measure(session(rate_hz), || {
            let begin_ns = now_ns();
            thread::sleep(Duration::from_millis(20));
            begin_ns..now_ns()
        })
        .unwrap();
        let tally = measured.tally;
        assert!(tally.begin().begin_ns <= times.start, "{rate_hz} Hz");
        assert!(tally.end().begin_ns >= times.end, "{rate_hz} Hz");
        let stats = tally.stats(false);
        let ticks = stats.iter().find(|stat| &*stat.desc().name == "ticks").unwrap();
        assert!(ticks.amount.total() >= 1, "{rate_hz} Hz: {ticks:?}");
    }
}

#[test]
#[should_panic(expected = "on purpose")]
fn a_panic_of_the_work_is_passed_on() {
    let _ = measure(session(1000.0), || panic!("on purpose"));
}
