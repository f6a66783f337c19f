//! The keys that change what is shown of the moment.

use vmstrobe_tests::tmux::Tmux;

use super::{demo, row_of, rows, selected};

/// The keys of the help that are tested here.
pub(super) const KEYS: &[&str] =
    &["↑ ↓", "Enter Esc", "Tab", "/  c", "p  g", "1 … 9", "x", "d", "z", "f", "u", "h", "t"];

#[test]
fn rows_are_selected_opened_and_folded() {
    let Some(tmux) = demo("") else { return };
    tmux.keys(&["PageUp"]);
    tmux.wait("the first row", |screen| selected(screen).as_deref() == Some("demo"));
    tmux.keys(&["Enter"]);
    let screen = tmux.wait("the VM is folded", |screen| rows(screen) == ["demo"]);
    assert!(screen.iter().any(|line| line.contains("▸ demo")), "{screen:?}");
    tmux.keys(&["Enter"]);
    tmux.wait("it is unfolded", |screen| rows(screen).len() == 5);
    tmux.keys(&["Down"]);
    let screen = tmux.wait("a vCPU", |screen| selected(screen).is_some_and(|name| name != "demo"));
    let vcpu = selected(&screen).expect("a row is selected");
    tmux.keys(&["Enter"]);
    tmux.wait_for(&format!("demo › vCPU {vcpu}   "));
    let screen = tmux.wait_for("halt_wait_hist");
    assert_eq!(rows(&screen), [""; 0], "the table gives way");
    tmux.keys(&["Escape"]);
    tmux.wait("the table is back", |screen| rows(screen).len() == 5);
    tmux.keys(&["PageDown"]);
    let screen =
        tmux.wait("another row", |screen| selected(screen).is_some_and(|name| name != vcpu));
    let last = rows(&screen).pop();
    assert_eq!(selected(&screen), last);
}

#[test]
fn panes_have_the_focus_in_turn() {
    let Some(tmux) = demo("") else { return };
    tmux.keys(&["Tab"]);
    tmux.wait_for("over 1 s ─");
    let at = |screen: &[String]| {
        let line = screen.iter().rev().find(|line| line.contains(" ▸"));
        line.and_then(|line| line.split_once(" ▸")?.1.split_whitespace().next()).map(str::to_owned)
    };
    let first = at(&tmux.wait("a selected statistic", |screen| at(screen).is_some()));
    tmux.keys(&["Down"]);
    tmux.wait("the next statistic", |screen| at(screen) != first);
    tmux.keys(&["Tab"]);
    tmux.wait_for("marks and triggers");
    tmux.keys(&["Tab"]);
    tmux.wait_for("exits/s ──");
}

#[test]
fn a_filter_acts_while_it_is_typed() {
    let Some(tmux) = demo("") else { return };
    tmux.text("/");
    tmux.wait_for("filter: ");
    tmux.text("nobody");
    tmux.wait_for("Nothing matches \"nobody\". Esc clears the filter.");
    tmux.keys(&["Escape"]);
    tmux.wait("all rows", |screen| rows(screen).len() == 5);
    for text in ["dem", "d*o", "/^de/"] {
        tmux.text("/");
        tmux.wait_for("filter: ");
        tmux.text(text);
        tmux.keys(&["Enter"]);
        tmux.wait("the filter", |screen| {
            screen[0].contains(&format!("filter \"{text}\"")) && rows(screen).len() == 5
        });
        tmux.text("c");
        tmux.wait("no filter", |screen| !screen[0].contains("filter"));
    }
}

#[test]
fn a_vm_is_found_by_its_name_and_its_process() {
    let Some(tmux) = demo("") else { return };
    tmux.text("g");
    tmux.wait_for("virtual machine: ");
    tmux.text("dem");
    tmux.keys(&["Enter"]);
    tmux.wait("the filter", |screen| screen[0].contains("filter") && rows(screen).len() == 5);
    tmux.keys(&["Escape"]);
    tmux.wait("no filter", |screen| !screen[0].contains("filter"));
    tmux.text("p");
    tmux.wait_for("process id: ");
    tmux.text("1");
    tmux.keys(&["Enter"]);
    tmux.wait_for("process 1 is not read");
    tmux.keys(&["Escape"]);
}

/// Returns the title of the column that the table is sorted by, with its direction.
fn sorted_by(screen: &[String]) -> Option<String> {
    let head = &screen[1];
    let at = head.find(['▼', '▲'])?;
    let title = head[..at].rsplit("  ").next()?.split_whitespace().next_back()?;
    Some(format!("{title}{}", head[at..].chars().next()?))
}

#[test]
fn the_table_is_sorted_by_any_column() {
    let Some(tmux) = demo("") else { return };
    let order = |tmux: &Tmux, want: &str| {
        tmux.wait(want, |screen| sorted_by(screen).as_deref() == Some(want))
    };
    order(&tmux, "exits/s▼");
    tmux.text("2");
    order(&tmux, "halts/s▼");
    tmux.text("2");
    order(&tmux, "halts/s▲");
    tmux.text("1");
    let screen = order(&tmux, "exits/s▼");
    // The nearly idle vCPU is the last.
    assert_eq!(rows(&screen).last().map(String::as_str), Some("3"), "{screen:?}");
    tmux.text("1");
    let screen = order(&tmux, "exits/s▲");
    assert_eq!(rows(&screen).get(1).map(String::as_str), Some("3"), "{screen:?}");
}

#[test]
fn numbers_are_shown_in_several_ways() {
    let Some(tmux) = demo("") else { return };
    tmux.text("x");
    tmux.wait("the VM alone", |screen| rows(screen) == ["demo"]);
    tmux.text("x");
    tmux.wait("each vCPU", |screen| rows(screen).len() == 5);
    tmux.text("u");
    tmux.wait("exact numbers", |screen| {
        let row = screen.iter().find(|line| row_of(line) == Some("demo"));
        row.is_some_and(|row| row.contains(',') && !row.contains(" k"))
    });
    tmux.text("u");
    tmux.wait("scaled numbers", |screen| {
        screen.iter().any(|line| row_of(line) == Some("demo") && line.contains(" k"))
    });
    tmux.text("dd");
    tmux.wait_for("totals");
    tmux.text("d");
    tmux.keys(&["Tab"]);
    tmux.wait_for("stand still: z shows them");
    tmux.text("z");
    tmux.wait("all statistics", |screen| {
        !screen.iter().any(|line| line.contains("still: z shows them"))
    });
}

#[test]
fn columns_are_chosen() {
    let Some(tmux) = demo("") else { return };
    tmux.text("f");
    tmux.wait_for("[x] exits");
    tmux.keys(&["Space"]);
    tmux.wait_for("[ ] exits");
    tmux.keys(&["Enter"]);
    let screen = tmux.wait("one column less", |screen| {
        !screen[1].contains(" exits/s ") && screen[1].contains("halts/s")
    });
    assert_eq!(rows(&screen).len(), 5);
    tmux.text("f");
    tmux.wait_for("─ columns ─");
    tmux.keys(&["Escape"]);
    tmux.wait("the choice is closed", |screen| rows(screen).len() == 5);
}

#[test]
fn the_histogram_and_its_heat_map() {
    let Some(tmux) = demo("") else { return };
    assert!(!tmux.screen().iter().any(|line| line.contains("halt_wait_hist")));
    tmux.text("h");
    tmux.wait_for("halt_wait_hist: below");
    tmux.wait_for("█");
    tmux.wait_for("p50 ≤ ");
    tmux.text("t");
    tmux.wait_for("over time");
    tmux.text("ht");
    tmux.wait("none of both", |screen| {
        !screen.iter().any(|line| line.contains("halt_wait_hist") || line.contains("over time"))
    });
}

#[test]
fn every_size_has_a_screen() {
    let Some(tmux) = demo("") else { return };
    tmux.resize(200, 60);
    tmux.wait_for("statistics of vCPU");
    tmux.wait_for("marks and triggers");
    tmux.resize(60, 12);
    tmux.wait("a small screen", |screen| screen.len() <= 12 && rows(screen).len() == 5);
    tmux.resize(52, 10);
    tmux.wait_for("vmstrobe top needs 60x12, this is 52x10");
    tmux.resize(80, 24);
    tmux.wait("a screen", |screen| rows(screen).len() == 5);
}
