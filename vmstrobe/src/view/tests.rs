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
    take(&mut view, &both, 3001..=3100, gone);
    let frame = view.frame(&ALL);
    assert_eq!(names(&frame), ["web", "1", "0", ">mail2"]);
    let ended_wall_ns = Some(1_000_000_003_100_000_000 + 1000);
    let ended = RowKind::Vm { is_folded: true, vcpus: 2, ended_wall_ns };
    assert_eq!(frame.rows[3].kind, ended);
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
