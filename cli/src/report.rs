//! `vmstrobe report`: a recording in numbers, the change between two, or a session in numbers.
//!
//! Invariant: what could be read of a recording is reported, and what could not is said. A command
//! beside which is sampled starts after the first sample and is waited for.

use std::path::{Path, PathBuf};

use vmstrobe::json::{self, ReportsText};
use vmstrobe::report::{Report, ReportOptions, compare};

use crate::args::ReportArgs;
use crate::convert::{end_text, filters};
use crate::error::Result;
use crate::limits::OpenFiles;
use crate::out::{Out, say, say_each};
use crate::privileges::Needs;
use crate::terminal;
use text::Style;

mod changes;
mod grid;
mod live;
mod tables;
mod text;

/// Makes the report, and returns the exit status: 1 if a recording is damaged in its middle.
///
/// # Errors
/// If there is nothing to report, or the report cannot be written.
pub(crate) fn run(args: &ReportArgs, open_files: OpenFiles, out: &mut Out) -> Result<u8> {
    // Before capabilities are dropped, because opening the file needs them.
    let mut file = args.output.as_deref().map(Out::file).transpose()?;
    let out = file.as_mut().unwrap_or(out);
    if args.files.is_empty() {
        return live::run(args, open_files, out);
    }
    let broker = Needs::of_files().move_to_broker()?;
    let read = |path: &PathBuf| {
        let filters = filters(path, &args.select, &args.vcpus, &broker)?;
        Ok(Report::of_file(path, ReportOptions { filters, broker: broker.clone() })?)
    };
    let reports = args.files.iter().map(read).collect::<Result<Vec<Report>>>()?;
    write(args, &reports, out)?;
    for (path, report) in args.files.iter().zip(&reports) {
        say_end(path, report);
    }
    Ok(u8::from(reports.iter().any(|report| report.damage.is_some())))
}

/// Says what of a recording was left out.
fn say_end(path: &Path, report: &Report) {
    if let Some(damage) = &report.damage {
        say(format_args!("what stands behind the damage is not in the report: {damage}"));
    }
    say_each(report.end.and_then(|end| end_text(path, end)));
}

/// Writes one report, or two and their comparison.
///
/// # Errors
/// If it cannot be written.
fn write(args: &ReportArgs, reports: &[Report], out: &mut Out) -> Result<()> {
    if args.json {
        out.lines([json::text(&ReportsText(reports))])?;
        return out.flush();
    }
    let style = match args.markdown {
        true => Style::Markdown,
        false => Style::Text { width: terminal::width_of(out) },
    };
    let lines = match reports {
        [before, after] => {
            text::comparison([before, after], &compare(before, after), args.zeros, style)
        }
        reports => {
            reports.iter().flat_map(|report| text::report(report, args.zeros, style)).collect()
        }
    };
    out.lines(lines)?;
    out.flush()
}
