//! The tables of one report: a section for each target and provider, and in it a table for counts,
//! times, histograms and levels.
//!
//! Invariant: a statistic is in one table, or among those that are counted as left out. What is
//! not known is a dash and never 0.

use vmstrobe::readout::{count, duration, scaled, scaled_count, unscaled};
use vmstrobe::report::{BinRates, Report, StatReport};
use vmstrobe::{Amount, Bucket, Desc, StatType, Unit};

use super::grid::{Cell, Grid, Rank};
use crate::stat::report::listed;
use crate::table::Align;
use crate::text::{amount, bound, counted, in_unit, percent};

/// The kind of numbers in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counts,
    Times,
    Histograms,
    Levels,
}

/// The tables, and the notes below them.
pub(super) struct Tables {
    pub(super) grids: Vec<Grid>,
    pub(super) notes: Vec<String>,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Counts, Self::Times, Self::Histograms, Self::Levels];

    /// Returns the kind of a statistic.
    pub(super) fn of(stat: &StatReport) -> Self {
        match &stat.total.amount {
            Amount::Level(_) => Self::Levels,
            Amount::Buckets(_) if stat.desc().stat_type.is_histogram() => Self::Histograms,
            Amount::Count(_) | Amount::Buckets(_) if is_time(stat.desc()) => Self::Times,
            Amount::Count(_) | Amount::Buckets(_) => Self::Counts,
        }
    }

    /// Returns a rate of a statistic of this kind, in stored units per second.
    pub(super) fn rate(self, desc: &Desc, rate: f64) -> Cell {
        match self {
            Self::Times => unscaled(rate * factor(desc) * 1e3).into(),
            Self::Histograms => scaled_count(rate).into(),
            Self::Counts => scaled_count(rate * factor(desc)).into(),
            Self::Levels => scaled(rate * factor(desc)).into(),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Counts => "counts, per second",
            Self::Times => "times, ms per second",
            Self::Histograms => "histograms",
            Self::Levels => "values",
        }
    }
}

/// Returns the factor from stored units to the statistic's unit; 1 if that is not known.
pub(super) fn factor(desc: &Desc) -> f64 {
    in_unit(desc, 1).unwrap_or(1.0)
}

/// Returns whether a statistic is a time whose unit is known.
fn is_time(desc: &Desc) -> bool {
    desc.unit == Unit::Seconds && in_unit(desc, 1).is_some()
}

/// Returns the tables of a report, without statistics that did not change unless `zeros`.
pub(super) fn tables(report: &Report, zeros: bool) -> Tables {
    let is_shown =
        |stat: &&StatReport| !stat.total.has_no_sum() && (zeros || !stat.total.is_at_rest());
    let shown: Vec<&StatReport> = report.stats.iter().filter(is_shown).collect();
    let mut sections: Vec<Vec<&StatReport>> = Vec::new();
    for stat in &shown {
        let of = |stat: &StatReport| {
            let schema = &stat.total.schema;
            (schema.target().clone(), schema.provider().to_owned())
        };
        match sections.iter_mut().find(|section| of(section[0]) == of(stat)) {
            Some(section) => section.push(stat),
            None => sections.push(vec![stat]),
        }
    }
    let grids = sections.iter().flat_map(|section| {
        let schema = &section[0].total.schema;
        let of_target =
            sections.iter().filter(|other| other[0].total.schema.target() == schema.target());
        let provider = (of_target.count() > 1).then(|| schema.provider());
        let grids = Kind::ALL.into_iter().map(move |kind| {
            let of_kind = section.iter().copied().filter(|stat| Kind::of(stat) == kind);
            grid(kind, provider, &of_kind.collect::<Vec<_>>())
        });
        grids.filter(|grid| !grid.is_empty())
    });
    let grids = grids.collect();
    Tables { grids, notes: notes(report, shown.len()) }
}

/// Returns the notes about what the tables have, or leave out.
fn notes(report: &Report, shown: usize) -> Vec<String> {
    let named = |stats: Vec<&StatReport>| {
        let names: Vec<&str> = stats.iter().map(|stat| &*stat.desc().name).collect();
        (!names.is_empty()).then(|| listed(&names, 0))
    };
    let sumless: Vec<_> = report.stats.iter().filter(|stat| stat.total.has_no_sum()).collect();
    let reset: Vec<_> = report.stats.iter().filter(|stat| stat.total.was_reset()).collect();
    let hidden = report.stats.len() - shown - sumless.len();
    let at_rest = (hidden > 0).then(|| {
        format!("not shown: {} that did not change (-z shows them)", counted(hidden, "statistic"))
    });
    let without =
        named(sumless).map(|names| format!("not shown: {names}, of which there is no sum"));
    let reset = named(reset).map(|names| format!("reset meanwhile, counted from then on: {names}"));
    [at_rest, without, reset].into_iter().flatten().collect()
}

/// Returns the table of the statistics of one kind, with their provider if it is named.
fn grid(kind: Kind, provider: Option<&str>, stats: &[&StatReport]) -> Grid {
    let target = stats.first().map(|stat| stat.total.schema.target().name().to_owned());
    let provider = provider.map(|name| format!(" ({name})")).unwrap_or_default();
    let title = format!("{}{provider}: {}", target.unwrap_or_default(), kind.title());
    let grid = Grid::new(title);
    let grid = grid.column("statistic", Align::Left, Rank::Always);
    let mut grid = match kind {
        Kind::Counts | Kind::Times => rates_columns(grid, stats),
        Kind::Histograms => histogram_columns(grid),
        Kind::Levels => level_columns(grid),
    };
    for stat in stats {
        let name = std::iter::once(Cell::from(stat.desc().name.to_string()));
        let cells = match kind {
            Kind::Counts | Kind::Times => rates_cells(kind, stat),
            Kind::Histograms => histogram_cells(stat),
            Kind::Levels => level_cells(stat),
        };
        grid.row(name.chain(cells));
    }
    grid
}

fn rates_columns(grid: Grid, stats: &[&StatReport]) -> Grid {
    let widest = |of: fn(&StatReport) -> Option<&BinRates>| {
        stats.iter().find_map(|stat| of(stat)).map(|rates| over(rates.width_ns))
    };
    // Without any rate, the columns have dashes.
    let fine = widest(|stat| stat.fine.as_ref()).unwrap_or_else(|| "over 10 ms".to_owned());
    let coarse = widest(|stat| stat.coarse.as_ref()).unwrap_or_else(|| "over 1 s".to_owned());
    grid.column("total", Align::Right, Rank::Always)
        .column("mean", Align::Right, Rank::Always)
        .grouped(&fine, "p50", Rank::Spare(3))
        .grouped(&fine, "p99", Rank::Spare(1))
        .grouped(&fine, "max", Rank::Always)
        .grouped(&coarse, "p50", Rank::Spare(6))
        .grouped(&coarse, "p99", Rank::Spare(5))
        .grouped(&coarse, "max", Rank::Spare(2))
        .column("busiest", Align::Left, Rank::Spare(4))
}

/// Returns the heading of the rates over bins of a width.
fn over(width_ns: u64) -> String {
    match width_ns {
        ns if ns.is_multiple_of(1_000_000_000) => format!("over {} s", ns / 1_000_000_000),
        ns if ns.is_multiple_of(1_000_000) => format!("over {} ms", ns / 1_000_000),
        ns => format!("over {}", duration(ns as f64)),
    }
}

fn rates_cells(kind: Kind, stat: &StatReport) -> Vec<Cell> {
    let desc = stat.desc();
    let rate = |rate: Option<f64>| rate.map_or_else(Cell::nothing, |rate| kind.rate(desc, rate));
    let bins = |rates: &Option<BinRates>| {
        let rates = rates.as_ref();
        [rates.map(|rates| rates.p50), rates.map(|rates| rates.p99), rates.map(|rates| rates.max)]
    };
    let busiest = stat.busiest.as_ref().map(|busiest| {
        // A path ends in the name of the object.
        let name = busiest.path.rsplit('/').next().unwrap_or_default();
        format!("{name} {}", percent(busiest.share))
    });
    let total = Cell::from(amount(desc, stat.total.amount.total()));
    let rates = [stat.mean_rate()].into_iter().chain(bins(&stat.fine)).chain(bins(&stat.coarse));
    let cells = std::iter::once(total).chain(rates.map(rate));
    cells.chain([busiest.unwrap_or_default().into()]).collect()
}

fn histogram_columns(grid: Grid) -> Grid {
    let of_values = "quantiles of the values";
    grid.column("count", Align::Right, Rank::Always)
        .column("per second", Align::Right, Rank::Spare(2))
        .grouped(of_values, "p50", Rank::Always)
        .grouped(of_values, "p90", Rank::Spare(1))
        .grouped(of_values, "p99", Rank::Always)
        .grouped(of_values, "max", Rank::Always)
}

fn histogram_cells(stat: &StatReport) -> Vec<Cell> {
    let quantile = |q| {
        let bucket = stat.quantile(q);
        bucket.map_or_else(Cell::nothing, |bucket: Bucket| bound(stat.desc(), bucket).into())
    };
    let count = Cell::from(count(stat.total.amount.total()));
    let mean = stat.mean_rate();
    let mean = mean.map_or_else(Cell::nothing, |mean| Kind::Histograms.rate(stat.desc(), mean));
    [count, mean].into_iter().chain([0.5, 0.9, 0.99, 1.0].map(quantile)).collect()
}

fn level_columns(grid: Grid) -> Grid {
    grid.column("last", Align::Right, Rank::Always)
        .grouped("of each", "min", Rank::Always)
        .grouped("of each", "mean", Rank::Always)
        .grouped("of each", "max", Rank::Always)
}

fn level_cells(stat: &StatReport) -> Vec<Cell> {
    let Amount::Level(level) = &stat.total.amount else { return Vec::new() };
    let desc = stat.desc();
    if desc.is_boolean() {
        let share = format!("{} true", percent(level.true_share()));
        return vec![share.into(), Cell::default(), Cell::default(), Cell::default()];
    }
    // The sum of the highest values is no value.
    let is_peak = desc.stat_type == StatType::Peak && stat.total.objects > 1;
    let last = if is_peak { level.max } else { level.last };
    let mean = match in_unit(desc, 1) {
        Some(factor) if desc.unit == Unit::Seconds => duration(level.mean() * factor * 1e9).into(),
        _ => scaled(level.mean()).into(),
    };
    let number = |number| Cell::from(amount(desc, number));
    vec![number(last), number(level.min), mean, number(level.max)]
}
