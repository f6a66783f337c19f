//! Reports of made-up recordings.

use std::fs;
use std::sync::Arc;

use vmstrobe_export::EventKind;

use super::*;
use crate::record::testing::{damaged, recording, recording_of, sample};

fn report(path: &Path) -> Report {
    Report::of_file(path, ReportOptions::default()).expect("it is a recording")
}

fn stat<'a>(report: &'a Report, name: &str) -> &'a StatReport {
    report.stats.iter().find(|stat| &*stat.desc().name == name).expect("it was recorded")
}

#[test]
fn a_report_of_a_recording_has_its_facts() {
    // Two vCPUs, of 10 and of 3 exits a ms, for 2.999 s.
    let file = recording(3000, 100);
    let report = report(file.path());
    assert_eq!((report.tally.samples(), report.tally.missed_ticks(0)), (2999, 0));
    assert!((report.seconds() - 2.999).abs() < 1e-9 && report.end == Some(End::Finished));
    assert_eq!((report.fine_ns, report.gaps), (10_000_000, 0));
    assert_eq!(report.metadata.hz, Some(1000.0));
    let exits = stat(&report, "exits");
    assert_eq!(exits.total.amount.total(), 13 * 2999);
    let busiest = exits.busiest.as_ref().expect("there are two");
    assert_eq!((&*busiest.path, busiest.total), ("/vm/web/vcpu[0]", 10 * 2999));
    assert!((busiest.share - 10.0 / 13.0).abs() < 1e-9);
    let fine = exits.fine.as_ref().expect("there are bins");
    assert_eq!((fine.bins, fine.bins_without), (299, 1));
    assert_eq!([fine.min, fine.p50, fine.p99, fine.max].map(f64::round), [13e3; 4]);
    let coarse = exits.coarse.as_ref().expect("there are bins");
    // The last one of 999 ms is a second but for a twentieth.
    assert_eq!((coarse.bins, coarse.bins_without, coarse.width_ns), (3, 0, 1_000_000_000));
    assert_eq!(exits.blocks(), 3);
    let level = stat(&report, "level");
    assert!(level.fine.is_none() && level.mean_rate().is_none() && level.busiest.is_none());
    let hist = stat(&report, "wait_hist");
    assert!(hist.quantile(0.5).is_some() && exits.quantile(0.5).is_none());
}

#[test]
fn only_what_filters_want_is_in_a_report() {
    let file = recording(200, 30);
    let filter: Filter = "vcpu: exits".parse().expect("it is a filter");
    let options = || ReportOptions { filters: Some(vec![filter.clone()]), ..Default::default() };
    let of_exits = Report::of_file(file.path(), options()).expect("it is a recording");
    let [exits] = &of_exits.stats[..] else { panic!("{:?}", of_exits.stats) };
    assert_eq!(exits, stat(&report(file.path()), "exits"));
}

#[test]
fn a_torn_and_a_damaged_recording_are_reported_as_far_as_they_are_whole() {
    let file = recording(100, 10);
    let bytes = fs::read(file.path()).expect("it is there");
    fs::write(file.path(), &bytes[..bytes.len() - 100]).expect("there is room");
    let torn = report(file.path());
    assert!(matches!(torn.end, Some(End::Torn { .. })) && torn.damage.is_none());
    assert_eq!(torn.tally.samples(), 89);
    let file = damaged(100, 10);
    let damaged = report(file.path());
    assert!(damaged.end.is_none() && (1..99).contains(&damaged.tally.samples()));
    let damage = damaged.damage.expect("it is damaged").to_string();
    assert!(damage.starts_with(&file.path().display().to_string()), "{damage}");
    let file = recording_of(std::iter::once(sample(1, &[(0, Some([1; 6]))])), 1);
    let single = report(file.path());
    assert!(single.stats.is_empty() && single.seconds() == 0.0);
    let error = Report::of_file(Path::new("/nonexistent.arrows"), ReportOptions::default());
    assert!(matches!(error, Err(Error::RecordFile { .. })), "{error:?}");
}

#[test]
fn events_beyond_the_limits_are_counted() {
    let event = |text: String| Event {
        monotonic_ns: 1_500_000_000,
        wall_offset_ns: 0,
        kind: EventKind::Mark,
        text,
    };
    let mut reporter = Reporter::new(0);
    assert!(Reporter::new(0).finish().is_none());
    reporter.add(&sample(1000, &[(0, Some([1; 6]))])).expect("it is small");
    for _ in 0..MAX_EVENTS + 3 {
        reporter.add_event(event("x".to_owned()));
    }
    let report = reporter.finish().expect("there is a sample");
    assert_eq!((report.events.len(), report.unlisted_events), (MAX_EVENTS, 3));
    assert!((report.seconds_at(report.events[0].monotonic_ns) - 0.5).abs() < 1e-9);
    let mut reporter = Reporter::new(0);
    reporter.add_event(event("x".repeat(MAX_EVENT_BYTES)));
    reporter.add_event(event("y".to_owned()));
    assert_eq!((reporter.events.len(), reporter.unlisted_events), (1, 1));
}

/// Returns a report of a vCPU with so many exits in each ms of a second.
fn of_seconds(exits_per_ms: &[u64]) -> Report {
    let mut reporter = Reporter::new(1_000_000);
    let mut exits = 0;
    let per_ms = exits_per_ms.iter().flat_map(|&exits| std::iter::repeat_n(exits, 1000));
    let mut layout: Option<Arc<vmstrobe_core::Layout>> = None;
    for (tick, grown) in (1..).zip(std::iter::once(0).chain(per_ms)) {
        exits += grown;
        let made = sample(tick, &[(0, Some([exits, 0, tick, 0, 1, exits_per_ms[0]]))]);
        let layout = layout.get_or_insert_with(|| Arc::clone(made.layout()));
        let mut same = Snapshot::new(layout);
        let (words, states) = same.begin(tick);
        words.copy_from_slice(made.objects().next().expect("it has one").words());
        states.fill(vmstrobe_core::RowState::Good);
        same.stamp(made.window());
        reporter.add(&same).expect("it is small");
    }
    reporter.finish().expect("there are samples")
}

#[test]
fn a_change_is_beyond_its_error_or_within_it() {
    let (slow, fast) = (of_seconds(&[10, 11, 9, 10, 10]), of_seconds(&[20, 21, 19, 20, 20]));
    let compared = compare(&slow, &fast);
    let names: Vec<&str> =
        compared.changes.iter().map(|change| &*change.before.desc().name).collect();
    assert_eq!(names, ["exits", "wait_ms", "wait_hist", "level", "blocking"]);
    let [exits, _, hist, level, _] = &compared.changes[..] else { panic!("{compared:?}") };
    assert_eq!(exits.means.map(f64::round), [10_000.0, 20_000.0]);
    assert_eq!((exits.verdict(), exits.relative().round()), (Verdict::Beyond, 1.0));
    let error = exits.error.expect("there are five blocks");
    assert!((900.0..1200.0).contains(&error), "{error}");
    assert_eq!((hist.verdict(), hist.difference()), (Verdict::Within, 0.0));
    assert_eq!((level.verdict(), level.means), (Verdict::Unknown, [10.0, 20.0]));
    // The same twice, but for its order, is within the error.
    let other = of_seconds(&[9, 11, 10, 11, 9]);
    let compared = compare(&slow, &other);
    assert!(compared.changes.iter().all(|change| change.verdict() != Verdict::Beyond));
    // Too short for an error.
    let short = of_seconds(&[10, 10]);
    let compared = compare(&short, &fast);
    assert!(compared.changes.iter().all(|change| change.verdict() == Verdict::Unknown));
    assert!(compared.only_before.is_empty() && compared.only_after.is_empty());
}

/// Whatever stands in a recording, a report of it ends, and its parts fit each other.
#[test]
fn a_recording_with_other_bytes_is_reported_or_refused() {
    let file = recording(300, 50);
    let whole = fs::read(file.path()).expect("it is there");
    let mut rng = fastrand::Rng::with_seed(1);
    let mut random = |below: usize| rng.usize(..below);
    let mut reported = 0;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = match random(3) {
                0 => 0,
                1 => 0xff,
                _ => random(256) as u8,
            };
        }
        fs::write(file.path(), &bytes).expect("there is room");
        let Ok(report) = Report::of_file(file.path(), ReportOptions::default()) else { continue };
        reported += 1;
        for stat in &report.stats {
            let ordered = |rates: &BinRates| {
                [rates.min, rates.p50, rates.p99, rates.max].is_sorted() && rates.bins > 0
            };
            assert!(stat.fine.iter().chain(&stat.coarse).all(ordered), "{stat:?}");
            assert!(stat.busiest.as_ref().is_none_or(|busiest| busiest.share <= 1.0));
        }
        let compared = compare(&report, &report);
        let is_still = |change: &StatChange<'_>| change.difference() == 0.0;
        assert!(compared.changes.iter().all(is_still), "{compared:?}");
    }
    assert!(reported > 20, "{reported}");
}
