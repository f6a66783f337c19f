//! The columns of the table: which there are by default, and their titles.
//!
//! Invariant: a default column is of a statistic that some object has. A title has at most
//! [`TITLE_CHARS`] characters.

use std::sync::Arc;

use vmstrobe_core::{Desc, Layout};

use super::action::Amounts;
use super::compared::{counts, is_time};
use super::frame::ColumnKind;

/// The most characters of a title.
const TITLE_CHARS: usize = 11;
/// The columns that are wanted at least, filled up with the first counters.
const COLUMNS_MIN: usize = 5;
/// The most columns.
pub(super) const MAX_COLUMNS: usize = 64;

/// Short names of statistics.
const SHORT: [(&str, &str); 10] = [
    ("halt_exits", "halts"),
    ("wfi_exit_stat", "halts"),
    ("run_delay", "steal"),
    ("run_time", "run"),
    ("irq_injections", "IRQs"),
    ("insn_emulation", "emulated"),
    ("halt_wait_hist", "wait"),
    ("halt_wait_ns", "halted"),
    ("sum_exits", "exits"),
    ("hvc_exit_stat", "hypercalls"),
];

/// The statistics of the default columns in the order of their importance, each with what stands
/// for it on other processors, the kind of column, and its place from left to right.
const DEFAULTS: [(&[&str], Kind, usize); 10] = [
    (&["exits", "sum_exits"], Kind::Amount, 0),
    (&["halt_exits", "wfi_exit_stat", "halt_wakeup"], Kind::Amount, 2),
    (&["run_delay"], Kind::Amount, 4),
    (&["halt_wait_ns"], Kind::Share, 6),
    (&["halt_wait_hist"], Kind::Quantile(99), 8),
    (&["run_time"], Kind::Amount, 5),
    (&["halt_wait_hist"], Kind::Quantile(50), 7),
    (&["irq_injections", "hvc_exit_stat"], Kind::Amount, 3),
    (&["insn_emulation", "mmio_exit_kernel", "emulated_inst_exits"], Kind::Amount, 1),
    (&["exits", "sum_exits"], Kind::Total, 9),
];

/// The kind of a default column.
#[derive(Clone, Copy)]
enum Kind {
    Amount,
    Share,
    Quantile(u8),
    Total,
}

/// The default columns of a layout, in the order of their importance, each with its place from left
/// to right.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    columns: Vec<(ColumnKind, usize)>,
}

impl Defaults {
    /// Returns the columns for the objects of a layout.
    pub(super) fn of(layout: &Arc<Layout>) -> Self {
        let descs = || {
            let groups = layout.groups().iter().map(|group| &group.plan);
            groups.flat_map(|plan| {
                plan.columns().iter().map(|column| &plan.schema().descs()[column.desc])
            })
        };
        let mut columns: Vec<(ColumnKind, usize)> = Vec::new();
        for (names, kind, place) in DEFAULTS {
            let fits = |desc: &Desc| match kind {
                Kind::Quantile(_) => desc.stat_type.is_histogram(),
                Kind::Share => counts(desc) && is_time(desc),
                Kind::Amount | Kind::Total => counts(desc),
            };
            let has = |name: &&&str| descs().any(|desc| *desc.name == ***name && fits(desc));
            if let Some(name) = names.iter().find(has) {
                columns.push((kind.of(name), place));
            }
        }
        if columns.len() < COLUMNS_MIN {
            let is_new = |desc: &&Desc| {
                counts(desc) && !DEFAULTS.iter().any(|(names, ..)| names.contains(&&*desc.name))
            };
            for desc in descs().filter(is_new) {
                let kind = ColumnKind::Amount(desc.name.to_string());
                if columns.len() >= DEFAULTS.len() {
                    break;
                }
                if columns.iter().all(|(known, _)| *known != kind) {
                    columns.push((kind, DEFAULTS.len() + columns.len()));
                }
            }
        }
        Self { columns }
    }

    /// Returns the most important columns that there is room for, from left to right.
    pub(super) fn shown(&self, room: usize) -> Vec<ColumnKind> {
        let mut shown: Vec<&(ColumnKind, usize)> = self.columns.iter().take(room).collect();
        shown.sort_by_key(|(_, place)| *place);
        shown.into_iter().map(|(kind, _)| kind.clone()).collect()
    }

    /// Returns the statistics that a chart shows, the most important first.
    pub(super) fn charted(&self) -> Vec<String> {
        let preferred = ["exits", "sum_exits", "run_delay", "run_time"];
        let amounts = self.columns.iter().filter_map(|(kind, _)| match kind {
            ColumnKind::Amount(name) => Some(name),
            _ => None,
        });
        let mut names: Vec<String> = amounts.cloned().collect();
        // A stable sort: the others follow in their order.
        names.sort_by_key(|name| preferred.iter().position(|it| it == name).unwrap_or(usize::MAX));
        names
    }
}

impl Kind {
    fn of(self, name: &str) -> ColumnKind {
        match self {
            Self::Amount => ColumnKind::Amount(name.to_owned()),
            Self::Share => ColumnKind::Share(name.to_owned()),
            Self::Quantile(percent) => ColumnKind::Quantile(name.to_owned(), percent),
            Self::Total => ColumnKind::Total(name.to_owned()),
        }
    }
}

impl ColumnKind {
    /// Returns the name of the statistic.
    pub(super) fn stat(&self) -> &str {
        match self {
            Self::Amount(name) | Self::Share(name) | Self::Total(name) => name,
            Self::Quantile(name, _) => name,
        }
    }
}

/// Returns the short name of a statistic.
pub(super) fn short(name: &str) -> &str {
    SHORT.iter().find(|(known, _)| *known == name).map_or(name, |(_, short)| short)
}

/// Returns the title of a column, given the statistic's properties if some object has it.
pub(super) fn title(kind: &ColumnKind, desc: Option<&Desc>, amounts: Amounts) -> String {
    let name = short(kind.stat());
    let is_time = desc.is_some_and(is_time);
    match kind {
        ColumnKind::Amount(_) => {
            let end = match (amounts, is_time) {
                _ if desc.is_some_and(|desc| !counts(desc)) => "",
                (Amounts::Rate, true) => " ms/s",
                (Amounts::Rate, false) => "/s",
                (_, true) => " ms",
                (Amounts::Delta | Amounts::Total, false) => "",
            };
            let sign = if amounts == Amounts::Delta { "+" } else { "" };
            format!("{sign}{}{end}", cut(name, TITLE_CHARS - sign.len() - end.len()))
        }
        ColumnKind::Share(_) | ColumnKind::Total(_) => cut(name, TITLE_CHARS).to_owned(),
        ColumnKind::Quantile(_, percent) => {
            let start = format!("p{percent} ");
            let rest = TITLE_CHARS.saturating_sub(start.len());
            format!("{start}{}", cut(name, rest))
        }
    }
}

/// Returns the title of a chart or a sparkline of a statistic.
pub(super) fn chart_title(name: &str, desc: Option<&Desc>) -> String {
    match desc {
        Some(desc) if !counts(desc) => short(name).to_owned(),
        Some(desc) if is_time(desc) => format!("{}, ms/s", short(name)),
        _ => format!("{}/s", short(name)),
    }
}

/// Returns the first characters of a text.
fn cut(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{Mask, ReadPlan, Scale, Schema, StatType, Target, Unit};

    use super::*;

    fn defaults(names: &[&str]) -> Defaults {
        let descs = names.iter().zip(0..).map(|(name, at)| {
            let desc = Desc::counter(name, 8 * at);
            if name.ends_with("_ns") || name.starts_with("run_") {
                return Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
            }
            let level = name.starts_with("level");
            Desc { stat_type: if level { StatType::Instant } else { desc.stat_type }, ..desc }
        });
        let schema = Schema::new("xyz", Target::Vcpu, descs.collect());
        Defaults::of(&Layout::new(1, vec![(ReadPlan::new(&schema, &Mask::all(&schema)), vec![])]))
    }

    fn shown(names: &[&str], room: usize) -> Vec<String> {
        let columns = defaults(names).shown(room);
        columns.iter().map(|kind| title(kind, None, Amounts::Rate)).collect()
    }

    #[test]
    fn the_columns_are_those_that_there_are() {
        let x86 = ["halt_wait_ns", "exits", "irq_injections", "halt_exits", "insn_emulation"];
        assert_eq!(shown(&x86, 2), ["exits/s", "halts/s"]);
        let all = ["exits/s", "emulated/s", "halts/s", "IRQs/s", "halted", "exits"];
        assert_eq!(shown(&x86, 99), all);
        let arm = ["hvc_exit_stat", "wfi_exit_stat", "mmio_exit_kernel", "exits"];
        let want = ["exits/s", "mmio_exit/s", "halts/s", "hypercall/s", "exits"];
        assert_eq!(shown(&arm, 99), want);
        // A table of a program, with more than fits.
        let queue = ["level_now", "requests", "bytes_of_all_requests", "requests"];
        assert_eq!(shown(&queue, 99), ["requests/s", "bytes_of_/s"]);
        assert_eq!(shown(&[], 9), [""; 0]);
    }

    #[test]
    fn titles_say_what_the_numbers_are() {
        let time =
            Desc { unit: Unit::Seconds, scale: Scale::NANO, ..Desc::counter("run_delay", 0) };
        let count = Desc::counter("exits", 0);
        let level = Desc { stat_type: StatType::Instant, ..Desc::counter("level", 0) };
        for (desc, amounts, want) in [
            (&time, Amounts::Rate, "steal ms/s"),
            (&time, Amounts::Delta, "+steal ms"),
            (&time, Amounts::Total, "steal ms"),
            (&count, Amounts::Rate, "exits/s"),
            (&count, Amounts::Delta, "+exits"),
            (&level, Amounts::Rate, "level"),
        ] {
            let kind = ColumnKind::Amount(desc.name.to_string());
            assert_eq!(title(&kind, Some(desc), amounts), want);
        }
        let quantile = ColumnKind::Quantile("a_long_histogram".into(), 99);
        assert_eq!(title(&quantile, None, Amounts::Rate), "p99 a_long_");
        assert_eq!(chart_title("run_delay", Some(&time)), "steal, ms/s");
        assert_eq!(chart_title("level", Some(&level)), "level");
    }

    #[test]
    fn charts_are_of_the_most_important() {
        let names = ["halt_exits", "run_time", "run_delay", "exits"];
        assert_eq!(defaults(&names).charted(), ["exits", "run_delay", "run_time", "halt_exits"]);
    }
}
