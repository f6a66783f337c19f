//! The tables of the change from one report to another.
//!
//! Invariant: a change is said to be beyond its error only in the table of those that are.

use vmstrobe::Unit;
use vmstrobe::readout::{scaled, scaled_count, unscaled};
use vmstrobe::report::{Comparison, MIN_BLOCKS, StatChange, StatReport, Verdict};

use super::grid::{Cell, Grid, Rank};
use super::tables::{Kind, Tables, factor};
use crate::stat::report::listed;
use crate::table::Align;
use crate::text::{counted, percent};

/// Returns the tables of changes, without statistics that are 0 in both reports unless `zeros`.
pub(super) fn tables(comparison: &Comparison<'_>, zeros: bool) -> Tables {
    let is_still = |change: &&StatChange<'_>| !zeros && change.means == [0.0; 2];
    let (still, shown): (Vec<_>, Vec<_>) = comparison.changes.iter().partition(is_still);
    let target = |stat: &StatReport| stat.total.schema.target().clone();
    let has_several = shown.windows(2).any(|two| target(two[0].before) != target(two[1].before));
    let of = |verdict: Verdict| {
        let changes = shown.iter().copied().filter(move |change| change.verdict() == verdict);
        grid(verdict, changes, |stat| name(stat, has_several))
    };
    let grids = [Verdict::Beyond, Verdict::Within, Verdict::Unknown].map(of);
    let has_beyond = !grids[0].is_empty();
    let has_within = !grids[1].is_empty();
    let grids = grids.into_iter().filter(|grid| !grid.is_empty()).collect();
    let mut notes = Vec::new();
    let is_short = |change: &&StatChange<'_>| {
        change.error.is_none() && Kind::of(change.before) != Kind::Levels
    };
    if shown.iter().copied().any(|change| is_short(&change)) {
        notes.push(format!("too short for an error: it takes {MIN_BLOCKS} s of each recording"));
    }
    if !has_beyond && has_within {
        notes.push("no statistic changed by more than its error".to_owned());
    }
    if !still.is_empty() {
        let still = counted(still.len(), "statistic");
        notes.push(format!("not shown: {still} that did not change in either (-z shows them)"));
    }
    let mut only = |stats: &[&StatReport], place: &str| {
        let names: Vec<&str> = stats.iter().map(|stat| &*stat.desc().name).collect();
        if !names.is_empty() {
            notes.push(format!("only in the {place}: {}", listed(&names, 0)));
        }
    };
    only(&comparison.only_before, "first");
    only(&comparison.only_after, "second");
    Tables { grids, notes }
}

/// Returns the name of a statistic, with its target if there are several.
fn name(stat: &StatReport, has_several_targets: bool) -> String {
    match has_several_targets {
        true => format!("{}: {}", stat.total.schema.target().name(), stat.desc().name),
        false => stat.desc().name.to_string(),
    }
}

fn grid<'a>(
    verdict: Verdict,
    changes: impl Iterator<Item = &'a StatChange<'a>>,
    name: impl Fn(&StatReport) -> String,
) -> Grid {
    let title = match verdict {
        Verdict::Beyond => "changes beyond their error",
        Verdict::Within => "changes within their error",
        Verdict::Unknown => "changes whose error is not known",
    };
    let mut grid = Grid::new(title.to_owned())
        .column("statistic", Align::Left, Rank::Always)
        .column("unit", Align::Left, Rank::Always)
        .column("first", Align::Right, Rank::Always)
        .column("second", Align::Right, Rank::Always)
        .column("difference", Align::Right, Rank::Spare(1));
    if verdict != Verdict::Unknown {
        grid = grid.column("± error", Align::Right, Rank::Always);
    }
    let mut grid = grid.column("change", Align::Right, Rank::Always);
    for change in changes {
        grid.row(cells(change, verdict, name(change.before)));
    }
    grid
}

fn cells(change: &StatChange<'_>, verdict: Verdict, name: String) -> Vec<Cell> {
    let stat = change.before;
    let (unit, factor) = unit(stat);
    let number = |value: f64| match unit {
        "ms/s" | "%" => Cell::from(unscaled(value * factor)),
        "/s" => scaled_count(value * factor).into(),
        _ => scaled(value * factor).into(),
    };
    let (relative, difference) = (change.relative(), change.difference());
    let sign = if difference > 0.0 { "+" } else { "" };
    let [before, after] = change.means.map(number);
    let mut cells =
        vec![name.into(), unit.to_owned().into(), before, after, number(difference).after(sign)];
    if verdict != Verdict::Unknown {
        cells.push(change.error.map_or_else(Cell::nothing, number));
    }
    cells.push(match relative.is_finite() {
        true => format!("{sign}{}", percent(relative)).into(),
        false => "from 0".to_owned().into(),
    });
    cells
}

/// Returns the unit in which the mean of a statistic is shown, and the factor from stored units.
fn unit(stat: &StatReport) -> (&'static str, f64) {
    let desc = stat.desc();
    let factor = factor(desc);
    match (Kind::of(stat), desc.unit) {
        (Kind::Times, _) => ("ms/s", factor * 1e3),
        (Kind::Histograms, _) => ("/s", 1.0),
        (Kind::Counts, Unit::Bytes) => ("B/s", factor),
        (Kind::Counts, _) => ("/s", factor),
        (Kind::Levels, _) if desc.is_boolean() => ("%", 100.0),
        (Kind::Levels, Unit::Seconds) => ("s", factor),
        (Kind::Levels, Unit::Bytes) => ("B", factor),
        (Kind::Levels, _) => ("", factor),
    }
}
