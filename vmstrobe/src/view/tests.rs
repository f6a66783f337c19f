//! The view, driven by actions over samples of made-up VMs.

use vmstrobe_core::RowState;

use super::testing::{ALL, MS, Vcpu, Vms, even, names, take, view};
use super::*;

fn titles(frame: &Frame) -> Vec<&str> {
    frame.columns.iter().map(|column| &*column.title).collect()
}

#[test]
fn the_table_has_rates_by_default() {
    let vms = Vms::new(1, &["web", "mail2"], 2);
    let mut view = view(&vms, 1..=12_000, even);
    let frame = view.frame(&ALL);
    let want = ["exits/s", "halts/s", "steal ms/s", "run ms/s", "halted", "p50 wait", "p99 wait"];
    assert_eq!(titles(&frame), want);
    assert_eq!(names(&frame), ["mail2", ">1", "0", "web", "1", "0"]);
    let cells = &frame.rows[1].cells;
    assert_eq!(cells[..2], [Cell::Number(10_000.0), Cell::Number(100.0)]);
    assert_eq!(cells[2], Cell::Nanoseconds(1e6));
    assert!(matches!(cells[4], Cell::Percent(share) if (share - 90.0).abs() < 0.1), "{cells:?}");
    assert_eq!(cells[6], Cell::AtMostNanoseconds(Some(1 << 21)));
    assert_eq!(frame.rows[0].cells[0], Cell::Number(15_000.0));
    assert_eq!(frame.header.vms, 2);
    assert_eq!(frame.header.vcpus, 4);
    assert_eq!(frame.header.rate_hz, 1000.0);
    assert_eq!(frame.header.window_ns_median, Some(2000));
    assert_eq!(frame.subject, Some(("mail2".into(), "vCPU 1".into())));
    // With less room, the less important columns go first.
    let narrow = view.frame(&Request { table_columns: 5, ..ALL });
    assert_eq!(titles(&narrow), ["exits/s", "halts/s", "steal ms/s", "halted", "p99 wait"]);
}

#[test]
fn a_view_without_a_sample_is_empty() {
    let mut view = View::new(ViewOptions::default());
    for action in [Action::Pause, Action::Move(1), Action::Open, Action::Dismiss] {
        view.act(action);
    }
    view.act(Action::Time(TimeStep::Oldest));
    let frame = view.frame(&ALL);
    assert_eq!((frame.table_state, frame.rows.len()), (TableState::Empty, 0));
}

#[test]
fn the_selection_stays_on_its_object() {
    let vms = Vms::new(1, &["web"], 3);
    let mut view = view(&vms, 1..=2000, even);
    assert_eq!(names(&view.frame(&ALL)), ["web", ">2", "1", "0"]);
    view.act(Action::Move(1));
    view.act(Action::Sort(0));
    assert_eq!(names(&view.frame(&ALL)), ["web", "0", ">1", "2"]);
    // Equal values keep their places, whichever way they are sorted.
    view.act(Action::Sort(1));
    assert_eq!(names(&view.frame(&ALL)), ["web", "0", ">1", "2"]);
    view.act(Action::Sort(1));
    assert_eq!(names(&view.frame(&ALL)), ["web", "0", ">1", "2"]);
    let scrolled = view.frame(&Request { table_rows: 2, ..ALL });
    assert_eq!((names(&scrolled), scrolled.rows_above), (vec!["0".into(), ">1".into()], 1));
    assert_eq!(scrolled.rows_total, 4);
    view.act(Action::ToggleSummed);
    assert_eq!(names(&view.frame(&ALL)), [">web"]);
}

#[test]
fn rows_are_filtered_folded_and_hidden() {
    let vms = Vms::new(1, &["web", "mail2"], 2);
    let still = |tick, vm, vcpu| if vm == 1 { even(5, vm, vcpu) } else { even(tick, vm, vcpu) };
    let mut view = view(&vms, 1..=12_000, still);
    view.act(Action::Filter(Some("mail".into())));
    assert_eq!(names(&view.frame(&ALL)), ["mail2", ">0", "1"]);
    view.act(Action::Filter(Some("*[0]".into())));
    assert_eq!(names(&view.frame(&ALL)), ["web", "0", "mail2", ">0"]);
    view.act(Action::Filter(Some("none".into())));
    let frame = view.frame(&ALL);
    assert_eq!((frame.table_state, frame.rows.len()), (TableState::NothingMatches, 0));
    assert_eq!(frame.filter.as_deref(), Some("none"));
    view.act(Action::Close);
    assert_eq!(names(&view.frame(&ALL)).len(), 6);
    view.act(Action::ToggleStill);
    assert_eq!(names(&view.frame(&ALL)).len(), 6);
    view.act(Action::ToggleStill);
    assert_eq!(names(&view.frame(&ALL)), ["web", ">1", "0"]);
    view.act(Action::Move(-1));
    view.act(Action::Open);
    let frame = view.frame(&ALL);
    assert_eq!(names(&frame), [">web"]);
    let folded = RowKind::Vm { is_folded: true, vcpus: 2, ended_wall_ns: None };
    assert_eq!(frame.rows[0].kind, folded);
    view.act(Action::Filter(Some("mail".into())));
    assert_eq!(view.frame(&ALL).table_state, TableState::AllStill);
}

#[test]
fn a_vm_that_ended_stays_until_it_is_dismissed() {
    let both = Vms::new(1, &["web", "mail2"], 2);
    let mut view = view(&both, 1..=3000, even);
    view.frame(&ALL);
    let gone = |tick, vm, vcpu| match vm {
        1 => Vcpu { state: RowState::Gone, ..Vcpu::default() },
        _ => even(tick, vm, vcpu),
    };
    take(&mut view, &both, 3001..=3042, even);
    take(&mut view, &both, 3043..=3100, gone);
    let frame = view.frame(&ALL);
    assert_eq!(names(&frame), ["web", "1", "0", ">mail2"]);
    let ended_wall_ns = Some(1_000_000_003_043_000_000 + 1000);
    let ended = RowKind::Vm { is_folded: true, vcpus: 2, ended_wall_ns };
    assert_eq!(frame.rows[3].kind, ended);
    assert_eq!(frame.rows[3].cells[0], Cell::Number(15_000.0), "its last rate");
    assert_eq!(frame.charts[1].shown.title, "steal, ms/s");
    assert!(is_near(frame.charts[0].mean, 15_000.0) && frame.statistics.len() > 4);
    assert_eq!((frame.header.vms, frame.header.vcpus, frame.header.vms_ended), (1, 2, 1));
    // It has left the layout, and another one of its name comes.
    let one = Vms::new(2, &["web"], 2);
    take(&mut view, &one, 3101..=3200, even);
    assert_eq!(names(&view.frame(&ALL)), ["web", "1", "0", ">mail2"]);
    // When it was still there, it is shown as it was.
    view.act(Action::Time(TimeStep::By(-1000 * MS as i64)));
    let back = view.frame(&ALL);
    assert_eq!(names(&back), [">mail2", "1", "0", "web", "1", "0"]);
    assert!(matches!(back.moment, Moment::Back { ago_ns: 1_000_000_000, .. }));
    view.act(Action::Time(TimeStep::Newest));
    view.act(Action::Dismiss);
    assert_eq!(names(&view.frame(&ALL)), ["web", ">1", "0"]);
}

#[test]
fn unread_rows_and_reset_counters_have_no_numbers() {
    let vms = Vms::new(1, &["web"], 3);
    let odd = |tick: u64, vm, vcpu| match vcpu {
        0 if tick > 1500 => Vcpu { exits: tick, ..even(0, vm, vcpu) },
        1 => Vcpu { state: RowState::Io(13), ..Vcpu::default() },
        _ => even(tick, vm, vcpu),
    };
    let mut view = view(&vms, 1..=2000, odd);
    let frame = view.frame(&Request { table_columns: 2, ..ALL });
    assert_eq!(names(&frame), ["web", ">2", "0", "1"]);
    // The sum is that of those that have a value.
    assert_eq!(frame.rows[0].cells[0], Cell::Number(15_000.0));
    assert_eq!(frame.rows[2].cells[0], Cell::Unread, "exits were reset within the second");
    assert_eq!(frame.rows[3].cells, [Cell::Unread, Cell::Unread]);
    assert_eq!(frame.rows[3].state, Some(RowState::Io(13)));
}

#[test]
fn changes_are_counted_from_the_baseline() {
    let vms = Vms::new(1, &["web"], 1);
    let mut view = view(&vms, 1..=1000, even);
    view.act(Action::SetBaseline);
    take(&mut view, &vms, 1001..=1200, even);
    let exits = |view: &mut View| view.frame(&ALL).rows[1].cells[0];
    assert_eq!(exits(&mut view), Cell::Number(5000.0));
    view.act(Action::NextAmounts);
    assert_eq!(exits(&mut view), Cell::Number(1000.0));
    assert_eq!(titles(&view.frame(&ALL))[..3], ["+exits", "+halts", "+steal ms"]);
    view.act(Action::NextAmounts);
    assert_eq!(exits(&mut view), Cell::Number(6000.0));
}

#[test]
fn a_vcpu_in_one_long_halt_is_halted() {
    let vms = Vms::new(1, &["web"], 1);
    let halted = |_, _, _| Vcpu { is_blocking: true, state: RowState::Good, ..Vcpu::default() };
    let mut view = view(&vms, 1..=11_000, halted);
    view.act(Action::Columns(vec![ColumnKind::Share("halt_wait_ns".into())]));
    assert_eq!(view.frame(&ALL).rows[1].cells, [Cell::Percent(100.0)]);
}

#[test]
fn missing_ticks_are_counted() {
    let vms = Vms::new(1, &["web"], 1);
    let mut view = view(&vms, 1..=10, even);
    take(&mut view, &vms, 14..=20, even);
    assert_eq!(view.frame(&ALL).header.lost_samples, 3);
}

#[test]
fn a_short_spike_is_found_by_going_back() {
    let vms = Vms::new(1, &["web"], 2);
    // vCPU 1 waits for 2 ms, which is counted at 5.002 s; then 10 s of calm.
    let spike = |tick: u64, vm, vcpu| {
        let waited = if tick > 5001 && vcpu == 1 { 2 * MS } else { 0 };
        Vcpu { steal_ns: waited, ..even(tick, vm, vcpu) }
    };
    let mut view = view(&vms, 1..=15_002, spike);
    view.take_event(&mark(5_001, "spin 2 ms"));
    let steal = |frame: &Frame| {
        let chart = frame.charts.iter().find(|chart| chart.shown.title == "steal, ms/s");
        chart.cloned().expect("it is charted")
    };
    let live = view.frame(&ALL);
    assert!(matches!(live.moment, Moment::Live { .. }));
    assert_eq!((live.rows[1].cells[2], steal(&live).max), (Cell::Nanoseconds(0.0), 0.0));
    view.act(Action::Time(TimeStep::PreviousEvent));
    let back = view.frame(&ALL);
    let ago_ns = 10_002 * MS;
    assert!(matches!(back.moment, Moment::Back { ago_ns: ago, .. } if ago == ago_ns));
    // Over 10 ms, 2 ms are 200 ms/s.
    let chart = steal(&back);
    assert_eq!((chart.max.round(), chart.stretch_ns), (2e8, Some(10 * MS)));
    assert_eq!(chart.cursor_ns, Some(5_000 * MS + 1000));
    assert_eq!((chart.events.len(), &*chart.events[0].text), (1, "spin 2 ms"));
    for _ in 0..8 {
        view.act(Action::ZoomIn);
    }
    let near = view.frame(&ALL);
    let chart = steal(&near);
    assert_eq!((chart.max.round(), chart.stretch_ns), (2e9, None), "one step of 1 ms has all");
    let columns = chart.columns.iter().flatten().filter(|column| column.max > 0.0).count();
    assert!((3..=4).contains(&columns), "{columns} columns of 0.28 ms");
    view.act(Action::Time(TimeStep::Samples(2)));
    assert_eq!(view.frame(&ALL).rows[1].cells[2], Cell::Nanoseconds(2e6), "2 ms in a second");
    view.act(Action::Time(TimeStep::Samples(-1)));
    assert_eq!(view.frame(&ALL).rows[1].cells[2], Cell::Nanoseconds(0.0));
    view.act(Action::Time(TimeStep::NextEvent));
    assert!(matches!(view.frame(&ALL).moment, Moment::Back { .. }), "there is no later one");
    view.act(Action::Time(TimeStep::Newest));
    assert!(matches!(view.frame(&ALL).moment, Moment::Live { .. }));
}

fn mark(at_ms: u64, text: &str) -> Event {
    let kind = vmstrobe_export::EventKind::Mark;
    Event { monotonic_ns: at_ms * MS, wall_offset_ns: 0, kind, text: text.into() }
}

fn is_near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6 * b
}

#[test]
fn the_subject_has_charts_and_events() {
    let vms = Vms::new(1, &["web"], 2);
    let mut view = view(&vms, 1..=12_000, even);
    view.take_event(&mark(11_000, "second"));
    view.take_event(&mark(10_000, "first"));
    let frame = view.frame(&ALL);
    let titles: Vec<&str> = frame.charts.iter().map(|chart| &*chart.shown.title).collect();
    assert_eq!(titles, ["exits/s", "steal, ms/s", "run, ms/s"]);
    let exits = &frame.charts[0];
    assert!([exits.min, exits.mean, exits.max].iter().all(|&it| is_near(it, 1e4)), "{exits:?}");
    assert!(is_near(exits.scale_max, 10_600.0) && is_near(frame.charts[2].mean, 9e7));
    let known = exits.columns.iter().flatten().count();
    assert!(known >= 139, "{known} of 140 columns, of which the last may have begun just now");
    let texts = |events: &[EventMark]| events.iter().map(|it| it.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&frame.events), ["first", "second"]);
    assert_eq!(texts(&view.frame(&Request { events: 1, ..ALL }).events), ["second"]);
    view.act(Action::Move(-1));
    let sum = view.frame(&ALL);
    assert_eq!(sum.subject, Some(("web".into(), "2 vCPUs".into())));
    assert!(is_near(sum.charts[0].mean, 15_000.0), "the sum over the vCPUs");
}

#[test]
fn the_subject_has_statistics_and_a_histogram() {
    let vms = Vms::new(1, &["web"], 2);
    let mut view = view(&vms, 1..=12_000, even);
    let frame = view.frame(&ALL);
    let names: Vec<&str> = frame.statistics.iter().map(|row| &*row.desc.name).collect();
    let want = ["exits", "halt_exits", "halt_wait_ns", "halt_wait_hist", "run_delay", "run_time"];
    assert_eq!((&names[..], frame.statistics_still), (&want[..], 1), "blocking stands still");
    let row = &frame.statistics[0];
    assert_eq!((row.now, row.total), (Cell::Number(1e4), Cell::Number(120_000.0)));
    // The counts of a histogram of times are no times.
    assert_eq!(frame.statistics[3].total, Cell::Number(1200.0));
    assert!(row.is_selected && row.is_charted && is_near(row.highest.expect("it moves"), 1e4));
    let histogram = frame.histogram.expect("there is one");
    assert_eq!((&*histogram.desc.name, histogram.count), ("halt_wait_hist", 1000));
    assert_eq!((histogram.p50, histogram.p99), (Some(Some(1 << 21)), Some(Some(1 << 21))));
    assert_eq!(histogram.buckets.len(), 12);
    assert_eq!(histogram.buckets.iter().map(|(_, count)| count).sum::<u64>(), 1000);
    let heat = frame.heat_map.expect("there is one");
    assert_eq!((heat.bounds, heat.columns.len(), heat.is_time), (vec![Some(1 << 21)], 40, true));
    assert_eq!(heat.count_max, 25);
    assert!(heat.columns.iter().filter(|column| column[..] == [25]).count() >= 39);
    let without = Request { histogram_rows: 0, heat_columns: 0, ..ALL };
    let frame = view.frame(&without);
    assert!(frame.histogram.is_none() && frame.heat_map.is_none());
}

#[test]
fn sparklines_have_the_highest_rate_of_each_cell() {
    let vms = Vms::new(1, &["web"], 2);
    // 500 exits more within 1 ms at 6.3 s, of vCPU 0.
    let burst = |tick: u64, vm, vcpu| {
        let more = if tick > 6305 && vcpu == 0 { 500 } else { 0 };
        let it = even(tick, vm, vcpu);
        Vcpu { exits: it.exits + more, ..it }
    };
    let mut view = view(&vms, 1..=12_000, burst);
    let frame = view.frame(&ALL);
    assert_eq!(names(&frame), ["web", ">1", "0"]);
    assert_eq!(frame.spark.title, "exits/s");
    let spark = |row: usize| -> Vec<f64> {
        frame.rows[row].spark.iter().map(|cell| cell.map_or(-1.0, f64::round)).collect()
    };
    let peaks: Vec<f64> = spark(2).into_iter().filter(|&rate| rate > 5000.0).collect();
    assert_eq!((spark(2).len(), &peaks[..]), (20, &[55_000.0][..]));
    assert!(spark(1)[..19].iter().all(|&rate| rate == 10_000.0), "{:?}", spark(1));
    assert_eq!(frame.rows[0].spark_max.round(), 65_000.0);
    assert_eq!([1, 2].map(|row| frame.rows[row].spark_max.round()), [55_000.0; 2]);
    // Back to before the burst, and forward again.
    view.act(Action::Time(TimeStep::By(-6_000 * MS as i64)));
    let back = view.frame(&ALL);
    assert_eq!(back.rows[2].spark_max.round(), 10_000.0);
    let known = back.rows[2].spark.iter().flatten().count();
    assert_eq!(known, 12, "a cell of 0.5 s each, and none of times without samples");
    view.act(Action::Time(TimeStep::Newest));
    assert_eq!(view.frame(&ALL).rows[2].spark_max.round(), 55_000.0);
}

#[test]
fn a_vcpu_is_opened_and_its_statistics_chosen() {
    let vms = Vms::new(1, &["web"], 2);
    let mut view = view(&vms, 1..=2000, even);
    view.frame(&ALL);
    view.act(Action::Open);
    let frame = view.frame(&ALL);
    assert!(frame.is_opened && frame.subject == Some(("web".into(), "vCPU 1".into())));
    view.act(Action::Move(1));
    view.act(Action::Open);
    let frame = view.frame(&ALL);
    let titles: Vec<&str> = frame.charts.iter().map(|chart| &*chart.shown.title).collect();
    assert_eq!(titles, ["halts/s", "exits/s", "steal, ms/s"]);
    assert!(frame.statistics[1].is_charted && frame.statistics[1].is_selected);
    view.act(Action::Open);
    assert_eq!(view.frame(&ALL).charts.len(), 2);
    view.act(Action::Close);
    view.act(Action::NextPane);
    assert_eq!(view.frame(&ALL).focus, 1);
    view.act(Action::NextPane);
    view.act(Action::NextPane);
    let frame = view.frame(&ALL);
    assert_eq!((frame.focus, frame.is_opened), (0, false));
}

#[test]
fn a_filter_of_statistics_leaves_the_table_as_it_is() {
    let vms = Vms::new(1, &["web"], 2);
    let mut view = view(&vms, 1..=2000, even);
    view.act(Action::Filter(Some("halt_*".into())));
    let frame = view.frame(&ALL);
    assert_eq!((names(&frame).len(), frame.table_state), (3, TableState::Filled));
    let statistics: Vec<&str> = frame.statistics.iter().map(|row| &*row.desc.name).collect();
    assert_eq!(statistics, ["halt_exits", "halt_wait_ns", "halt_wait_hist"]);
    view.act(Action::Filter(Some("web".into())));
    assert_eq!(view.frame(&ALL).statistics.len(), 6, "it is of the table");
}

#[test]
fn samples_that_are_no_longer_held_are_replaced_by_the_oldest() {
    let vms = Vms::new(1, &["web"], 1);
    let limits = HistoryLimits { time: Duration::from_secs(2), bytes: 1 << 20 };
    let mut view = View::new(ViewOptions { limits, ..ViewOptions::default() });
    take(&mut view, &vms, 1..=2000, even);
    view.act(Action::Time(TimeStep::Oldest));
    let is_oldest = |frame: &Frame| match frame.moment {
        Moment::Back { is_oldest, .. } => Some(is_oldest),
        Moment::Live { .. } => None,
    };
    assert_eq!(is_oldest(&view.frame(&ALL)), Some(false));
    take(&mut view, &vms, 2001..=4000, even);
    let frame = view.frame(&ALL);
    assert_eq!((is_oldest(&frame), frame.ring.at_ns), (Some(true), frame.ring.begin_ns));
    assert!(frame.ring.end_ns - frame.ring.begin_ns < 2_500 * MS && frame.ring.bytes > 0);
    view.act(Action::Pause);
    assert_eq!(is_oldest(&view.frame(&ALL)), None, "it goes on with the newest");
    view.act(Action::Pause);
    take(&mut view, &vms, 4001..=4100, even);
    assert_eq!(view.frame(&ALL).ring.at_ns, 4_000 * MS + 1000, "it is paused");
}
