//! The texts of `vmstrobe record`: progress, dumps, and what was recorded.

use vmstrobe::export::{SPREADSHEET_ROWS_MAX, Span};
use vmstrobe::{Dump, Filter, Format, Names, Progress, Recorded, RecordedFile};

use crate::text::{bytes, counted, hertz, seconds, shell_word, thousands};

/// Returns the choice of statistics in the notation of the library, a part for each target:
/// `vm: pages_*; vcpu: pages_*`.
pub(super) fn filter_text(filters: &[Filter], names: Option<&Names>) -> String {
    let names = names.map_or_else(|| "*".to_owned(), Names::to_string);
    let parts = filters.iter().map(|filter| format!("{}: {names}", filter.target.name()));
    parts.collect::<Vec<_>>().join("; ")
}

/// Returns the line of progress.
pub(super) fn progress_line(progress: &Progress, period_ns: u64) -> String {
    let Progress { samples, lost_samples, .. } = *progress;
    format!(
        "{}  {} samples  {} lost  {}  {}",
        hertz(1e9 / period_ns as f64),
        thousands(samples),
        thousands(lost_samples),
        bytes(progress.bytes as f64),
        seconds(length(progress)),
    )
}

/// Returns the lines at the end of a recording.
pub(super) fn summary(recorded: &Recorded, period_ns: u64, is_flight: bool) -> Vec<String> {
    let Progress { samples, lost_samples, missing_ticks, .. } = recorded.progress;
    let rate = hertz(1e9 / period_ns as f64);
    let missed = missing_ticks.saturating_sub(lost_samples);
    let quality = format!("{} lost, {} missed", thousands(lost_samples), thousands(missed));
    let what = format!(
        "{} samples in {} at {rate} ({quality})",
        thousands(samples),
        seconds(length(&recorded.progress)),
    );
    if is_flight {
        return vec![format!("ended after {what}")];
    }
    let size = bytes(recorded.progress.bytes as f64);
    let mut lines = match &recorded.files[..] {
        [] => vec!["nothing was recorded".to_owned()],
        [file] => vec![format!("wrote {}: {what}, {size}", file.path.display())],
        [first, .., last] => vec![format!(
            "wrote {} files, {} to {}: {what}, {size}",
            recorded.files.len(),
            first.path.display(),
            last.path.display()
        )],
    };
    let removed = recorded.progress.removed_files;
    if removed > 0 {
        let removed = counted(removed as usize, "older file");
        lines.push(format!("{removed} with their samples were removed (--keep)"));
    }
    lines.extend(format_notes(&recorded.files));
    if let [file] = &recorded.files[..]
        && Format::of(&file.path) == Some(Format::Arrows)
    {
        let other = file.path.with_extension("parquet");
        let [file, other] = [&file.path, &other].map(|path| shell_word(&path.to_string_lossy()));
        lines.push(format!("for Parquet: vmstrobe convert {file} {other}"));
    }
    lines
}

/// Returns what a user must know about the formats of these files: what they leave out, and whether
/// a spreadsheet opens them.
pub(crate) fn format_notes(files: &[RecordedFile]) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(file) = files.iter().find(|file| !file.left_out.is_empty()) {
        notes.push(format!(
            "{} of the statistics are left out of {}: histograms, and those that changed least \
             (--names selects others)",
            file.left_out.len(),
            file.path.display()
        ));
    }
    let is_long = |file: &&RecordedFile| {
        file.spreadsheet_rows.is_some_and(|rows| rows > SPREADSHEET_ROWS_MAX)
    };
    if let Some(file) = files.iter().find(is_long) {
        notes.push(format!(
            "{} has {} rows, of which a spreadsheet opens {}: write fewer with --every 100ms",
            file.path.display(),
            thousands(file.spreadsheet_rows.unwrap_or_default()),
            thousands(SPREADSHEET_ROWS_MAX)
        ));
    }
    notes
}

/// Returns the lines about a dump.
pub(super) fn dump_lines(dump: &Dump) -> Vec<String> {
    match &dump.result {
        Err(error) => {
            let cause = &dump.cause;
            vec![format!("the dump on {cause} failed, and the samples are kept: {error}")]
        }
        Ok(files) => {
            let line = |file: &vmstrobe::DumpFile| {
                let Span { begin_wall_ns, end_wall_ns, samples, .. } = file.span;
                let time = end_wall_ns.saturating_sub(begin_wall_ns) as f64 * 1e-9;
                format!(
                    "dumped {} on {}: {} samples of {}, {}",
                    file.path.display(),
                    dump.cause,
                    thousands(samples),
                    seconds(time),
                    bytes(file.bytes as f64)
                )
            };
            files.iter().map(line).collect()
        }
    }
}

/// Returns the time between the first and the last sample, in s.
fn length(progress: &Progress) -> f64 {
    progress.end_wall_ns.saturating_sub(progress.begin_wall_ns) as f64 * 1e-9
}
