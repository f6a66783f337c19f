//! The report of one interval: a table as `perf stat` prints it.
//!
//! Invariant: a report counts the statistics that it leaves out because they did not change. It
//! names those that cannot be summed, and all ticks, samples, rows and objects that are missing.

use vmstrobe::json::EventEntry;
use vmstrobe::{Amount, Rate, ReadStatus, StatTally, StatType, Tally, Target, Unit, Window};

use crate::read_status;
use crate::table::{Align, Table};
use crate::text::{
    amount, counted, in_unit, per_second, percent, quantile_text, seconds, thousands, utc,
};

/// A relative error below this is not printed exactly.
const ERROR_MIN: f64 = 0.001;
/// The largest number of objects or statistics that a note names.
const NAMED_MAX: usize = 4;
/// The largest number of marks that the report of a whole recording has.
const EVENTS_MAX: usize = 20;

/// The options of printing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) json: bool,
    pub(super) per_object: bool,
    pub(super) zeros: bool,
    /// The report is one of several, and its lines begin with the time.
    pub(super) timed: bool,
    /// The number of columns of the terminal, or no limit.
    pub(super) width: usize,
}

/// One interval, and facts about it that its tally does not have.
pub(super) struct Report<'a> {
    pub(super) tally: &'a Tally,
    pub(super) lost_samples: u64,
    /// The begin of the first interval, on CLOCK_MONOTONIC.
    pub(super) start_ns: u64,
    /// The interval is the first, whose report has the headers.
    pub(super) is_first: bool,
    /// The method by which objects of KVM were read, if the report has it.
    pub(super) read: Option<ReadStatus>,
    /// The marks and triggers of a recording that are new since the last report.
    pub(super) events: &'a [EventEntry<'a>],
}

impl Report<'_> {
    /// Returns the lines for people.
    pub(super) fn lines(&self, style: Style) -> Vec<String> {
        if style.timed { self.timed(style) } else { self.whole(style) }
    }

    /// Returns the lines of the only interval.
    fn whole(&self, style: Style) -> Vec<String> {
        let of_stats = self.tally.stats(style.per_object);
        let (table, hidden) = table(style, &of_stats, None, self.is_first);
        let began = format!(" began {}", begin_rfc3339(self.tally.begin()));
        let mut lines = vec![String::new(), self.title(&of_stats), began, String::new()];
        if !table.is_empty() {
            lines.extend(table.lines_fitting(style.width));
            lines.push(String::new());
        }
        if hidden > 0 {
            let hidden = counted(hidden, "statistic");
            lines.push(format!(" not shown: {hidden} that did not change (-z shows them)"));
        }
        lines.extend(without_sum(&of_stats).map(|note| format!(" {note}")));
        lines.extend(notes(self.tally, self.lost_samples).map(|note| format!(" {note}")));
        lines.extend(self.events.iter().take(EVENTS_MAX).map(|event| {
            let at = event_time(event, self.start_ns);
            format!(" {} at {at} s: {}", event.kind, event.text)
        }));
        let more = self.events.len().saturating_sub(EVENTS_MAX);
        let more = (more > 0).then(|| counted(more, "mark"));
        lines.extend(more.map(|more| format!(" and {more} more (-i prints each in its interval)")));
        lines.extend(self.read.iter().map(|read| {
            format!(" sampled by {}", read_status::text_with_reason(read, "an", "object"))
        }));
        lines
    }

    /// Returns the lines of one of several intervals.
    fn timed(&self, style: Style) -> Vec<String> {
        let time = time(self.tally.end(), self.start_ns);
        let of_stats = self.tally.stats(style.per_object);
        let (mut table, hidden) = table(style, &of_stats, Some(&time), self.is_first);
        if table.is_empty() && hidden > 0 {
            let cells = [time.clone(), String::new(), "nothing changed".to_owned()];
            table.row(cells.into_iter().filter(|cell| style.per_object || !cell.is_empty()));
        }
        // This note is the same for all intervals.
        let without_sum = without_sum(&of_stats).filter(|_| self.is_first);
        let notes = without_sum.into_iter().chain(notes(self.tally, self.lost_samples));
        let notes = notes.map(|note| format!("{time:>9}  {note}"));
        let read = self.read.iter().map(|read| read_line(read, &time));
        // The times of all reports are relative to this one.
        let began = self.is_first.then(|| format!("began {}", begin_rfc3339(self.tally.begin())));
        let events = self.events.iter().map(|event| {
            let at = event_time(event, self.start_ns);
            format!("{at:>9}  {}: {}", event.kind, event.text)
        });
        let table = table.lines_fitting(style.width);
        began.into_iter().chain(events).chain(table).chain(notes).chain(read).collect()
    }

    fn title(&self, lines: &[StatTally]) -> String {
        let tally = self.tally;
        let target = lines.first().map(|line| line.schema.target());
        let objects = objects_text(target, tally.objects());
        let time = seconds(tally.interval().map_or(0.0, |interval| interval.seconds));
        let samples = counted(tally.samples() as usize, "sample");
        let vm = tally.path().map(|path| format!("{path}, ")).unwrap_or_default();
        format!(" {vm}{objects} over {time}, {samples}:")
    }
}

/// Returns a number of objects of a target.
pub(crate) fn objects_text(target: Option<&Target>, objects: usize) -> String {
    match target {
        Some(Target::Vcpu) => counted(objects, "vCPU"),
        Some(Target::Vm) => counted(objects, "VM"),
        Some(Target::Cryptodev) => counted(objects, "crypto device"),
        Some(Target::Other(name)) => counted(objects, name),
        None => counted(objects, "object"),
    }
}

/// Returns a note on each kind of missing data: ticks, samples, rows, objects.
pub(crate) fn notes(tally: &Tally, lost_samples: u64) -> impl Iterator<Item = String> {
    let some = |number: usize, text: String| (number > 0).then_some(text);
    let missed = tally.missed_ticks(lost_samples) as usize;
    let lost = lost_samples as usize;
    let (ticks, unread) = (tally.ticks() as usize, tally.unread_rows() as usize);
    let named = |paths: Vec<&str>, forgotten: usize, what: &str| {
        let text = match (paths.is_empty(), forgotten) {
            (true, 0) => return None,
            (true, _) => format!("{} whose names were not kept", counted(forgotten, "object")),
            (false, _) => listed(&paths, forgotten),
        };
        Some(format!("absent {what}: {text}"))
    };
    let (joined, left) = (tally.joined_and_forgotten(), tally.forgotten_objects());
    let unsummed = tally.lost_stats();
    [
        some(missed, format!("missed {} of {}", thousands(missed as u64), counted(ticks, "tick"))),
        some(lost, format!("lost {}: they came too fast to be processed", counted(lost, "sample"))),
        some(unread, format!("could not read {}", counted(unread, "row"))),
        named(tally.joined().collect(), joined, "at the beginning"),
        named(tally.left().collect(), left, "at the end"),
        some(
            unsummed,
            format!("not in the sums: {} of objects that ended", counted(unsummed, "statistic")),
        ),
    ]
    .into_iter()
    .flatten()
}

/// Returns the time at which a sample was taken, in s since the first.
pub(super) fn time(window: Window, start_ns: u64) -> String {
    format!("{:.3}", window.begin_ns.saturating_sub(start_ns) as f64 * 1e-9)
}

/// Returns the time of a mark or trigger, in s since the first sample. It may be before that.
fn event_time(event: &EventEntry<'_>, start_ns: u64) -> String {
    let ns = i128::from(event.ns) - i128::from(start_ns);
    format!("{:.3}", ns as f64 * 1e-9)
}

/// Returns the line on the method by which objects of KVM were read, for intervals of which the
/// last ended at this time.
pub(super) fn read_line(read: &ReadStatus, time: &str) -> String {
    format!("{time:>9}  sampled by {}", read_status::text_with_reason(read, "an", "object"))
}

/// Returns the time of day at which a window begins.
fn begin_rfc3339(window: Window) -> String {
    utc(window.begin_wall_ns())
}

/// Returns the table, and the number of statistics that are left out because they did not change.
fn table(style: Style, lines: &[StatTally], time: Option<&str>, is_first: bool) -> (Table, usize) {
    let header = |name: &'static str| if time.is_some() && is_first { name } else { "" };
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
    for line in lines {
        if line.has_no_sum() {
            continue;
        }
        if line.is_at_rest() && !style.zeros {
            hidden += 1;
            continue;
        }
        let time = time.map(str::to_owned);
        let path = style.per_object.then(|| match &line.path {
            Some(path) => path.to_string(),
            None => format!("{} that ended", thousands(line.objects as u64)),
        });
        table.row(time.into_iter().chain(path).chain(cells(line)));
    }
    (table, hidden)
}

/// Returns a note that names the statistics which are left out because they cannot be summed.
fn without_sum(lines: &[StatTally]) -> Option<String> {
    let left_out = lines.iter().filter(|line| line.has_no_sum());
    let names: Vec<&str> = left_out.map(|line| &*line.desc().name).collect();
    let listed = listed(&names, 0);
    (!names.is_empty())
        .then(|| format!("not shown: {listed}, of which there is no sum (--per-vcpu shows it)"))
}

/// Returns the first of these names, and the number of the others, including `unnamed` ones.
pub(crate) fn listed(names: &[&str], unnamed: usize) -> String {
    let first = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) + unnamed {
        0 => first,
        more => format!("{first} and {} more", thousands(more as u64)),
    }
}

/// Returns the cells of a line: value, name, rate, error of the rate, and a note.
fn cells(line: &StatTally) -> [String; 5] {
    let desc = line.desc();
    let (mut rate, mut error) = match line.rate {
        Some(rate) => (per_second(rate.per_second), error_text(rate)),
        None => (String::new(), String::new()),
    };
    let (value, mut note) = match &line.amount {
        Amount::Count(count) => {
            let mut note = String::new();
            if let (Unit::Seconds, Some(seconds), Some(_)) =
                (desc.unit, in_unit(desc, *count), line.rate)
            {
                rate = percent(seconds / line.object_seconds);
                let objects = if line.objects > 1 { line.schema.target().name() } else { "the" };
                note = format!("of {objects} time");
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
            (percent(level.true_share()), "of samples true".to_owned())
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

/// Returns the largest error of the rate, as a share of the rate.
fn error_text(rate: Rate) -> String {
    let off = (rate.high - rate.per_second).max(rate.per_second - rate.low) / rate.per_second;
    match off {
        _ if rate.per_second == 0.0 => String::new(),
        ..ERROR_MIN => "± <0.1 %".to_owned(),
        _ if off.is_finite() => format!("± {}", percent(off)),
        _ => "± ?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_testing::snapshots::{laid_out, snapshot, vcpu};

    use super::*;

    /// The number of ended objects that the library keeps one by one.
    const MAX_GONE: usize = 1024;
    const STYLE: Style =
        Style { json: false, per_object: false, zeros: false, timed: false, width: 80 };

    /// Returns the tally of two vCPUs over one second. The second vCPU appears late and is reset.
    fn tally() -> Tally {
        let begin = snapshot(1, 0, &[(vcpu(0), Some([0, 0, 0, 0, 0, 0]))]);
        let mut tally = Tally::new(&begin);
        let later = [(vcpu(0), Some([600, 250, 1, 0, 1, 0])), (vcpu(1), Some([9, 0, 0, 0, 1, 0]))];
        tally.add(&snapshot(2, 500, &later));
        let last = [(vcpu(0), Some([1200, 500, 3, 1, 0, 0])), (vcpu(1), Some([4, 0, 0, 0, 1, 0]))];
        tally.add(&snapshot(4, 1000, &last));
        tally
    }

    fn report(tally: &Tally) -> Report<'_> {
        let read = Some(ReadStatus::by_pread(2));
        Report { tally, lost_samples: 0, start_ns: 0, is_first: true, read, events: &[] }
    }

    fn lines(style: Style) -> Vec<String> {
        report(&tally()).lines(style)
    }

    fn squeezed(lines: &[String]) -> Vec<String> {
        lines.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_note_names_four_and_counts_the_rest() {
        let names: Vec<String> = (0..1204).map(|at| format!("name{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(listed(&names[..2], 0), "name0, name1");
        assert_eq!(listed(&names, 0), "name0, name1, name2, name3 and 1,200 more");
        assert_eq!(listed(&names[..1], 3), "name0 and 3 more");
    }

    #[test]
    fn one_report_is_a_table_and_notes_on_missing_data() {
        let want = [
            "",
            "/vm/web, 2 vCPUs over 1.00 s, 2 samples:",
            "began 2001-09-09T01:46:40.000Z",
            "",
            "1,204 exits was reset",
            "500 ms wait_ms 33.3 % ± <0.1 % of vcpu time",
            "4 wait_hist 4.000 /sec ± <0.1 %",
            "p50 ≤ 1 ns p99 ≥ 1 ns",
            "75.0 % blocking of samples true",
            "",
            "not shown: 1 statistic that did not change (-z shows them)",
            "missed 1 of 3 ticks",
            "absent at the beginning: /vm/web/vcpu[1]",
            "sampled by one pread an object and tick; BPF reader: switched off",
        ];
        assert_eq!(squeezed(&lines(STYLE)), want);
        let zeros = lines(Style { zeros: true, ..STYLE });
        assert!(zeros.iter().any(|line| line.contains("0  level")), "{zeros:?}");
    }

    #[test]
    fn the_lines_of_one_of_several_reports_begin_with_the_time() {
        let style = Style { timed: true, per_object: true, ..STYLE };
        let lines = squeezed(&lines(style));
        assert_eq!(lines[0], "began 2001-09-09T01:46:40.000Z");
        assert_eq!(lines[1], "time object value statistic rate");
        assert_eq!(lines[2], "1.000 /vm/web/vcpu[0] 1,200 exits 1.200 K/sec ± <0.1 %");
        assert!(lines.contains(&"1.000 missed 1 of 3 ticks".to_owned()), "{lines:?}");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("1.000 sampled by one pread an object and tick; BPF reader: switched off")
        );
    }

    #[test]
    fn an_interval_without_changes_says_so() {
        let row = [(vcpu(0), Some([0; 6]))];
        let mut tally = Tally::new(&snapshot(1, 0, &row));
        tally.add(&snapshot(2, 500, &row));
        let report = Report { is_first: false, read: None, ..report(&tally) };
        let lines = report.lines(Style { timed: true, ..STYLE });
        assert_eq!(squeezed(&lines), ["0.500 nothing changed"]);
    }

    #[test]
    fn marks_are_lines_of_their_own() {
        let tally = tally();
        let mark = EventEntry { ns: 250_000_000, wall_ns: 0, kind: "mark", text: "begin" };
        let report = Report { events: &[mark; 22], ..report(&tally) };
        let lines = squeezed(&report.lines(Style { timed: true, ..STYLE }));
        assert_eq!(lines[1..23], vec!["0.250 mark: begin"; 22]);
        let lines = squeezed(&report.lines(STYLE));
        let marks = lines.iter().filter(|line| *line == "mark at 0.250 s: begin").count();
        assert_eq!(marks, EVENTS_MAX);
        assert!(lines.contains(&"and 2 marks more (-i prints each in its interval)".to_owned()));
        let before = EventEntry { ns: 0, ..mark };
        assert_eq!(event_time(&before, 1_000_000), "-0.001");
    }

    #[test]
    fn objects_without_names_are_counted() {
        let all = |count: u32| -> Vec<_> {
            (0..count).map(|at| (vcpu(at), Some([u64::from(at); 6]))).collect()
        };
        let there = MAX_GONE as u32 + 1;
        let mut tally = Tally::new(&laid_out(0, 1, 0, &all(there)));
        // Ten objects appear and end. Then so many others end that the names of the ten are
        // dropped.
        for (generation, count) in [(1, there + 10), (2, there), (3, 1)] {
            tally.add(&laid_out(generation, 1 + generation, generation * 100, &all(count)));
        }
        let report = Report { read: None, ..report(&tally) };
        let lines = squeezed(&report.lines(STYLE));
        let want = "absent at the beginning: 10 objects whose names were not kept";
        assert!(lines.iter().any(|line| line == want), "{lines:?}");
        let at_the_end = lines.iter().find(|line| line.starts_with("absent at the end: /vm/"));
        assert!(at_the_end.is_some_and(|line| line.ends_with(" and 1,030 more")), "{lines:?}");
    }
}
