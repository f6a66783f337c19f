//! Reports as text or Markdown: the head, the tables, and the notes and events below them.
//!
//! Invariant: what is missing in a report is said above its numbers: ticks, samples, rows, objects
//! and time.

use vmstrobe::export::Event;
use vmstrobe::readout::{count, duration};
use vmstrobe::report::{Comparison, Report};
use vmstrobe::{StatTally, Target};

use super::changes;
use super::grid::{Grid, escaped};
use super::tables::{self, Tables};
use crate::read_status;
use crate::stat::report::{notes, objects_text};
use crate::text::{counted, hertz, utc};
use crate::width::wrap;

/// The most events that are listed.
const EVENTS_MAX: usize = 20;

/// The width up to which all tables give the same to their names.
const NAME_WIDTH_SHARED_MAX: usize = 24;

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Text {
        /// The columns of the terminal, or no limit.
        width: usize,
    },
    Markdown,
}

/// Returns the lines of a report.
pub(super) fn report(report: &Report, zeros: bool, style: Style) -> Vec<String> {
    let mut lines = head(report, title(report), style);
    lines.extend(events(report, style));
    lines.extend(tables_text(&tables::tables(report, zeros), style));
    lines
}

/// Returns the lines of two reports and of the change from the one to the other.
pub(super) fn comparison(
    reports: [&Report; 2],
    comparison: &Comparison<'_>,
    zeros: bool,
    style: Style,
) -> Vec<String> {
    let mut lines = Vec::new();
    for (report, number) in reports.into_iter().zip(["first", "second"]) {
        lines.extend(head(report, format!("{number}: {}", title(report)), style));
        lines.push(String::new());
    }
    lines.pop();
    lines.extend(tables_text(&changes::tables(comparison, zeros), style));
    lines
}

fn title(report: &Report) -> String {
    let name = report.path.as_ref().map(|path| path.display().to_string());
    let path = report.tally.path().map(str::to_owned);
    name.or(path).unwrap_or_else(|| "sampled live".to_owned())
}

/// Returns the lines above the tables.
fn head(report: &Report, title: String, style: Style) -> Vec<String> {
    let facts = facts(report);
    match style {
        Style::Markdown => {
            let facts = facts.iter().map(|fact| format!("* {}", escaped(fact)));
            let title = format!("## {}", escaped(&title));
            [title, String::new()].into_iter().chain(facts).collect()
        }
        Style::Text { width } => {
            let facts = facts.iter().flat_map(|fact| indented(fact, width));
            std::iter::once(title).chain(facts).collect()
        }
    }
}

/// Returns a line, or several if the terminal is narrow, below a title.
fn indented(text: &str, width: usize) -> Vec<String> {
    wrap(&format!("  {text}"), width.max(20), "    ")
}

/// Returns the circumstances of a report, and what is missing in it.
fn facts(report: &Report) -> Vec<String> {
    let (tally, metadata) = (&report.tally, &report.metadata);
    let of = tally.path().filter(|_| report.path.is_some());
    let of = of.map(|path| format!(" of {path}")).unwrap_or_default();
    let time = format!(
        "{} from {}, {}{of}",
        duration(report.seconds() * 1e9),
        utc(tally.begin().begin_wall_ns()),
        objects(report),
    );
    // The first sample only opens the time.
    let samples = counted(tally.samples() as usize + 1, "sample");
    let rate = metadata.hz.filter(|hz| hz.is_finite() && *hz > 0.0);
    let rate = rate.map(|hz| format!(" at {}", hertz(hz))).unwrap_or_default();
    let method = match (&report.read, &metadata.method) {
        (Some(read), _) => {
            format!(", sampled by {}", read_status::text_with_reason(read, "an", "object"))
        }
        (None, Some(method)) => format!(", read by {method}"),
        (None, None) => String::new(),
    };
    let gaps = (report.gaps > 0).then(|| {
        let gaps = counted(report.gaps as usize, "gap");
        format!("{gaps}, {} in all, without rates", duration(report.gaps_ns as f64))
    });
    let host = metadata.host.iter().cloned();
    let kernel = metadata.kernel.iter().map(|kernel| format!("Linux {kernel}"));
    let version = (!metadata.version.is_empty()).then(|| format!("vmstrobe {}", metadata.version));
    let host: Vec<String> = host.chain(kernel).chain(version).collect();
    let labels: Vec<String> =
        metadata.labels.iter().map(|(key, text)| format!("{key}={text}")).collect();
    let labels = (!labels.is_empty()).then(|| format!("labels: {}", labels.join(", ")));
    let facts = [time, format!("{samples}{rate}{method}")].into_iter();
    let facts = facts.chain(notes(tally, report.lost_samples)).chain(gaps);
    facts.chain((!host.is_empty()).then(|| host.join(", "))).chain(labels).collect()
}

/// Returns how many objects of each target there were.
fn objects(report: &Report) -> String {
    let mut targets: Vec<(&Target, usize)> = Vec::new();
    for StatTally { schema, objects, .. } in report.stats.iter().map(|stat| &stat.total) {
        match targets.iter_mut().find(|(target, _)| *target == schema.target()) {
            Some((_, most)) => *most = (*most).max(*objects),
            None => targets.push((schema.target(), *objects)),
        }
    }
    if targets.is_empty() {
        return objects_text(None, report.tally.objects());
    }
    let texts = targets.iter().map(|(target, number)| objects_text(Some(target), *number));
    texts.collect::<Vec<_>>().join(", ")
}

/// Returns the lines about marks and triggers.
fn events(report: &Report, style: Style) -> Vec<String> {
    if report.events.is_empty() {
        return Vec::new();
    }
    let line = |event: &Event| {
        let at = format!("{:.3} s", report.seconds_at(event.monotonic_ns));
        format!("{at:>10}  {}  {}", event.kind.name(), event.text)
    };
    let all = report.events.len() as u64 + report.unlisted_events;
    let listed = report.events.iter().take(EVENTS_MAX).map(line);
    let more = all - report.events.len().min(EVENTS_MAX) as u64;
    let more = (more > 0).then(|| format!("and {} more (--json has them)", count(more)));
    let lines = listed.chain(more);
    match style {
        Style::Markdown => {
            let lines = lines.map(|line| format!("* {}", escaped(line.trim_start())));
            let title = ["", "### events", ""].map(str::to_owned);
            title.into_iter().chain(lines).collect()
        }
        Style::Text { width } => {
            let lines = lines.flat_map(|line| wrap(&line, width.max(20), "    "));
            ["", "events"].map(str::to_owned).into_iter().chain(lines).collect()
        }
    }
}

/// Returns the lines of tables and of the notes below them, each behind an empty one.
fn tables_text(tables: &Tables, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    // Long names of another program may widen their own table only.
    let names = tables.grids.iter().map(Grid::name_width);
    let names = names.filter(|&width| width <= NAME_WIDTH_SHARED_MAX).max().unwrap_or(0);
    for grid in &tables.grids {
        lines.push(String::new());
        lines.extend(match style {
            Style::Text { width } => grid.text(width, names),
            Style::Markdown => grid.markdown(),
        });
    }
    if !tables.notes.is_empty() {
        lines.push(String::new());
    }
    for note in &tables.notes {
        match style {
            Style::Text { width } => lines.extend(wrap(note, width.max(20), "  ")),
            Style::Markdown => lines.push(format!("* {}", escaped(note))),
        }
    }
    lines
}
