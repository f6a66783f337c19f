//! One interval, printed: a table as `perf stat` has it, or a line of JSON.
//!
//! Invariant: what the table leaves out (statistics that did not move) it counts, what has no sum
//! and what went missing on the way (ticks, samples, rows, objects) it names. JSON leaves out
//! nothing but sums that are none.

use serde::Serialize;
use vmstrobe_core::hmp::printable;
use vmstrobe_core::{Desc, Rate, StatType, Target, Unit, Window};
use vmstrobe_server::json;

use super::line::{Amount, Line};
use super::tally::Tally;
use crate::query::quantile_text;
use crate::table::{Align, Table};
use crate::text::{amount, counted, per_second, percent, seconds, thousands};

/// A relative error below this is not worth its digits.
const ERROR_MIN: f64 = 0.001;
/// How many objects a note names.
const NAMED_MAX: usize = 4;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) json: bool,
    pub(super) per_object: bool,
    pub(super) zeros: bool,
    /// One of several intervals: with the time in front.
    pub(super) timed: bool,
}

/// One interval and what is known beside it.
pub(super) struct Report<'a> {
    pub(super) tally: &'a Tally,
    pub(super) lost_samples: u64,
    /// When the first of all intervals began.
    pub(super) start_ns: u64,
    /// The first of all has the headers.
    pub(super) is_first: bool,
    /// Which way objects of KVM were read, if it is to be said.
    pub(super) way: Option<String>,
}

impl Report<'_> {
    pub(super) fn lines(&self, style: Style) -> Vec<String> {
        match (style.json, style.timed) {
            (true, _) => vec![json::text(&self.interval(style))],
            (false, true) => self.timed(style),
            (false, false) => self.whole(style),
        }
    }

    /// The only interval there is.
    fn whole(&self, style: Style) -> Vec<String> {
        let (table, hidden) = self.table(style, None);
        let mut lines = vec![String::new(), self.title(), String::new()];
        if !table.is_empty() {
            lines.extend(table.lines());
            lines.push(String::new());
        }
        if hidden > 0 {
            let hidden = counted(hidden, "statistic");
            lines.push(format!(" not shown: {hidden} that did not move (-z shows them)"));
        }
        lines.extend(self.without_sum(style).map(|note| format!(" {note}")));
        lines.extend(self.notes().map(|note| format!(" {note}")));
        lines.extend(self.way.as_deref().map(|way| format!(" sampled by {way}")));
        lines
    }

    /// One of several intervals.
    fn timed(&self, style: Style) -> Vec<String> {
        let time = time(self.tally.end(), self.start_ns);
        let (mut table, hidden) = self.table(style, Some(&time));
        if table.is_empty() && hidden > 0 {
            let cells = [time.clone(), String::new(), "nothing moved".to_owned()];
            table.row(cells.into_iter().filter(|cell| style.per_object || !cell.is_empty()));
        }
        // It is so in all intervals.
        let without_sum = self.without_sum(style).filter(|_| self.is_first);
        let notes = without_sum.into_iter().chain(self.notes());
        let notes = notes.map(|note| format!("{time:>9}  {note}"));
        let way = self.way.as_deref().map(|way| way_line(way, &time));
        table.lines().into_iter().chain(notes).chain(way).collect()
    }

    /// The table, and how many of its lines did not move and are left out.
    fn table(&self, style: Style, time: Option<&str>) -> (Table, usize) {
        let header = |name: &'static str| if time.is_some() && self.is_first { name } else { "" };
        let mut table = Table::new();
        if time.is_some() {
            table = table.wide_column(header("time"), Align::Right, 9);
        }
        if style.per_object {
            table = table.wide_column(header("object"), Align::Left, 8);
        }
        let mut table = table
            .wide_column(header("value"), Align::Right, 14)
            .wide_column(header("statistic"), Align::Left, 24)
            .wide_column(header("rate"), Align::Right, 12)
            .wide_column("", Align::Right, 8)
            .column("", Align::Left);
        let mut hidden = 0;
        for line in self.tally.lines(style.per_object) {
            if line.has_no_sum() {
                continue;
            }
            if line.is_at_rest() && !style.zeros {
                hidden += 1;
                continue;
            }
            let time = time.map(str::to_owned);
            let path = line.path.as_ref().map(ToString::to_string);
            table.row(time.into_iter().chain(path).chain(cells(&line)));
        }
        (table, hidden)
    }

    /// What is left out because it has no sum.
    fn without_sum(&self, style: Style) -> Option<String> {
        let lines = self.tally.lines(style.per_object);
        let left_out = lines.iter().filter(|line| line.has_no_sum());
        let names: Vec<&str> = left_out.map(|line| &*line.desc().name).collect();
        let names = names.join(", ");
        (!names.is_empty())
            .then(|| format!("not shown: {names}, of which there is no sum (--per-vcpu shows it)"))
    }

    fn title(&self) -> String {
        let tally = self.tally;
        let lines = tally.lines(false);
        let target = lines.first().map(|line| line.schema.target());
        let objects = match target {
            Some(Target::Vcpu) => counted(tally.objects(), "vCPU"),
            Some(Target::Vm) => counted(tally.objects(), "VM"),
            Some(Target::Cryptodev) => counted(tally.objects(), "crypto device"),
            Some(Target::Other(name)) => counted(tally.objects(), &printable(name)),
            None => counted(tally.objects(), "object"),
        };
        let time = seconds(tally.interval().map_or(0.0, |interval| interval.seconds));
        let samples = counted(tally.samples() as usize, "sample");
        let vm = tally.path().map(|path| printable(path) + ", ").unwrap_or_default();
        format!(" {vm}{objects} over {time}, {samples}:")
    }

    fn missed_ticks(&self) -> u64 {
        self.tally.ticks().saturating_sub(self.tally.samples() + self.lost_samples)
    }

    /// What is missing, if anything is.
    fn notes(&self) -> impl Iterator<Item = String> {
        let some = |number: usize, text: String| (number > 0).then_some(text);
        let [missed, lost] = [self.missed_ticks(), self.lost_samples].map(|n| n as usize);
        let (ticks, unread) = (self.tally.ticks() as usize, self.tally.unread_rows() as usize);
        let named = |paths: Vec<&str>, what: &str| {
            let more = paths.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let names = paths.iter().take(NAMED_MAX).copied().map(printable);
            let names = names.collect::<Vec<_>>().join(", ");
            (!paths.is_empty()).then(|| format!("not there {what}: {names}{more}"))
        };
        [
            some(
                missed,
                format!("missed {} of {}", thousands(missed as u64), counted(ticks, "tick")),
            ),
            some(lost, format!("lost {}: too fast for this machine", counted(lost, "sample"))),
            some(unread, format!("could not read {}", counted(unread, "row"))),
            named(self.tally.joined().collect(), "at the beginning"),
            named(self.tally.left().collect(), "at the end"),
        ]
        .into_iter()
        .flatten()
    }
}

/// When a sample was taken, in s since the first.
pub(super) fn time(window: Window, start_ns: u64) -> String {
    format!("{:.3}", window.begin_ns.saturating_sub(start_ns) as f64 * 1e-9)
}

/// Which way objects of KVM were read, behind intervals of which the last ended at that time.
pub(super) fn way_line(way: &str, time: &str) -> String {
    format!("{time:>9}  sampled by {way}")
}

/// Value, name, rate, its error, and what else is to be said.
fn cells(line: &Line) -> [String; 5] {
    let desc = line.desc();
    let (mut rate, mut error) = match line.rate {
        Some(rate) => (per_second(rate.per_second), error_text(rate)),
        None => (String::new(), String::new()),
    };
    let (value, mut note) = match &line.amount {
        Amount::Count(count) => {
            let mut note = String::new();
            if let (Unit::Seconds, Some(factor), Some(_)) =
                (desc.unit, desc.scale.factor(), line.rate)
            {
                rate = percent(*count as f64 * factor / line.object_seconds);
                let whose = if line.objects > 1 { line.schema.target().name() } else { "the" };
                note = format!("of {whose} time");
            }
            (amount(desc, *count), note)
        }
        Amount::Buckets(counts) => {
            let quantiles = [("p50", 0.5), ("p99", 0.99)];
            let text = |(name, q)| format!("{name} {}", quantile_text(desc, counts, q));
            let note = quantiles.map(text).join("  ");
            let count = line.amount.total();
            (thousands(count), if count > 0 { note } else { String::new() })
        }
        Amount::Level(level) if desc.is_boolean() => {
            let share = level.trues as f64 / level.samples.max(1) as f64;
            (percent(share), "of samples true".to_owned())
        }
        Amount::Level(level) => {
            let peak = desc.stat_type == StatType::Peak && line.objects > 1;
            let value = amount(desc, if peak { level.max } else { level.last });
            let each = if line.objects > 1 { " each" } else { "" };
            let range = format!("{}..{}{each}", amount(desc, level.min), amount(desc, level.max));
            (value, if level.min < level.max { range } else { String::new() })
        }
    };
    if line.was_reset() {
        (rate, error) = (String::new(), String::new());
        note += if note.is_empty() { "was reset" } else { "  was reset" };
    }
    if matches!(line.amount, Amount::Level(_)) && desc.size > 1 {
        note += &format!("  first of {} words", desc.size);
    }
    [value, desc.name.to_string(), rate, error, note]
}

/// How far off the rate can be, as a share of it.
fn error_text(rate: Rate) -> String {
    let off = (rate.high - rate.per_second).max(rate.per_second - rate.low) / rate.per_second;
    match off {
        _ if rate.per_second == 0.0 => String::new(),
        ..ERROR_MIN => "± <0.1 %".to_owned(),
        _ if off.is_finite() => format!("± {}", percent(off)),
        _ => "± ?".to_owned(),
    }
}

/// One interval, for programs.
#[derive(Serialize)]
struct JsonInterval<'a> {
    begin_ns: u64,
    end_ns: u64,
    seconds: f64,
    stats: Vec<JsonStat>,
    ticks: u64,
    missed_ticks: u64,
    lost_samples: u64,
    unread_rows: u64,
    joined: Vec<&'a str>,
    left: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    way: Option<&'a str>,
}

#[derive(Default, Serialize)]
struct JsonStat {
    #[serde(rename = "qom-path", skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deltas: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    true_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reset: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_high: Option<f64>,
}

impl Report<'_> {
    fn interval(&self, style: Style) -> JsonInterval<'_> {
        let tally = self.tally;
        JsonInterval {
            begin_ns: tally.begin().begin_ns,
            end_ns: tally.end().end_ns,
            seconds: tally.interval().map_or(0.0, |interval| interval.seconds),
            stats: tally.lines(style.per_object).iter().map(json_stat).collect(),
            ticks: tally.samples(),
            missed_ticks: self.missed_ticks(),
            lost_samples: self.lost_samples,
            unread_rows: tally.unread_rows(),
            joined: tally.joined().collect(),
            left: tally.left().collect(),
            way: self.way.as_deref(),
        }
    }
}

fn json_stat(line: &Line) -> JsonStat {
    let desc: &Desc = line.desc();
    let mut stat = JsonStat {
        path: line.path.as_ref().map(ToString::to_string),
        name: desc.name.to_string(),
        reset: line.was_reset(),
        rate: line.rate.map(|rate| rate.per_second),
        rate_low: line.rate.map(|rate| rate.low),
        rate_high: line.rate.map(|rate| rate.high),
        ..JsonStat::default()
    };
    match &line.amount {
        Amount::Count(count) => stat.delta = Some(*count),
        Amount::Buckets(counts) => stat.deltas = Some(counts.clone()),
        Amount::Level(level) if desc.is_boolean() => {
            stat.true_share = Some(level.trues as f64 / level.samples.max(1) as f64);
        }
        Amount::Level(level) => {
            stat.level = (!line.has_no_sum()).then_some(level.last);
            (stat.min, stat.max) = (Some(level.min), Some(level.max));
        }
    }
    stat
}

#[cfg(test)]
mod tests {
    use super::super::tally::tests::{snapshot, vcpu};
    use super::*;

    const STYLE: Style = Style { json: false, per_object: false, zeros: false, timed: false };

    /// Two vCPUs over a second, of which the second comes late and was reset.
    fn tally() -> Tally {
        let begin = snapshot(1, 0, &[(vcpu(0), Some([0, 0, 0, 0, 0, 0]))]);
        let mut tally = Tally::new(&begin);
        let later = [(vcpu(0), Some([600, 250, 1, 0, 1, 0])), (vcpu(1), Some([9, 0, 0, 0, 1, 0]))];
        tally.add(&snapshot(2, 500, &later));
        let last = [(vcpu(0), Some([1200, 500, 3, 1, 0, 0])), (vcpu(1), Some([4, 0, 0, 0, 1, 0]))];
        tally.add(&snapshot(4, 1000, &last));
        tally
    }

    fn lines(style: Style) -> Vec<String> {
        let tally = tally();
        let way = Some("one pread an object and tick".to_owned());
        let report = Report { tally: &tally, lost_samples: 0, start_ns: 0, is_first: true, way };
        report.lines(style)
    }

    fn squeezed(lines: &[String]) -> Vec<String> {
        lines.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_whole_is_a_table_and_what_is_missing() {
        let want = [
            "",
            "/vm/web, 2 vCPUs over 1.00 s, 2 samples:",
            "",
            "1,204 exits was reset",
            "500 ms wait_ms 33.3 % ± <0.1 % of vcpu time",
            "4 wait_hist 4.000 /sec ± <0.1 % p50 ≤ 1 ns p99 ≥ 1 ns",
            "75.0 % blocking of samples true",
            "",
            "not shown: 1 statistic that did not move (-z shows them)",
            "missed 1 of 3 ticks",
            "not there at the beginning: /vm/web/vcpu[1]",
            "sampled by one pread an object and tick",
        ];
        assert_eq!(squeezed(&lines(STYLE)), want);
        let zeros = lines(Style { zeros: true, ..STYLE });
        assert!(zeros.iter().any(|line| line.contains("0  level")), "{zeros:?}");
    }

    #[test]
    fn an_interval_of_several_has_the_time_in_front() {
        let style = Style { timed: true, per_object: true, ..STYLE };
        let lines = squeezed(&lines(style));
        assert_eq!(lines[0], "time object value statistic rate");
        assert_eq!(lines[1], "1.000 /vm/web/vcpu[0] 1,200 exits 1.200 K/sec ± <0.1 %");
        assert!(lines.contains(&"1.000 missed 1 of 3 ticks".to_owned()), "{lines:?}");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("1.000 sampled by one pread an object and tick")
        );
    }

    #[test]
    fn an_interval_at_rest_says_so() {
        let row = [(vcpu(0), Some([0; 6]))];
        let mut tally = Tally::new(&snapshot(1, 0, &row));
        tally.add(&snapshot(2, 500, &row));
        let report =
            Report { tally: &tally, lost_samples: 0, start_ns: 0, is_first: false, way: None };
        let lines = report.lines(Style { timed: true, ..STYLE });
        assert_eq!(squeezed(&lines), ["0.500 nothing moved"]);
    }

    #[test]
    fn json_leaves_out_nothing() {
        let lines = lines(Style { json: true, ..STYLE });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        for part in [
            r#"{"begin_ns": 0, "end_ns": 1000000000, "seconds": 1.0, "stats": [{"name": "exits", "#,
            r#""delta": 1204, "reset": true}"#,
            r#""deltas": [3, 1], "rate": 4.0, "rate_low": "#,
            r#"{"name": "blocking", "true_share": 0.75}"#,
            r#"{"name": "level", "level": 0, "min": 0, "max": 0}"#,
            r#""ticks": 2, "missed_ticks": 1, "lost_samples": 0, "unread_rows": 0, "#,
            r#""joined": ["/vm/web/vcpu[1]"], "left": [], "way": "one pread an object and tick"}"#,
        ] {
            assert!(line.contains(part), "{part} is not in\n{line}");
        }
    }
}
