//! `vmstrobe dump` and `vmstrobe mark`: recorders that run are asked over their control sockets.
//!
//! Invariant: only a recorder that the user means is asked for a dump: if there are several, one
//! has to be named. A mark goes to all, also if one of them fails.

use vmstrobe::control::{DumpArguments, DumpedFile, RunningRecorder, running_recorders};
use vmstrobe::json::{self, DumpReport, MarkReport};

use crate::args::{DumpArgs, MarkArgs, RecorderArgs};
use crate::error::{Error, Result};
use crate::out::{Out, say};
use crate::privileges::Needs;
use crate::text::{bytes, seconds, thousands, utc};

/// The most characters of a command line in a list.
const MAX_LINE_CHARS: usize = 200;

/// Has a recorder write a dump, prints its files, and returns the exit status.
///
/// # Errors
/// If no recorder is meant, several are, or it cannot be asked or refuses.
pub(crate) fn dump(args: &DumpArgs, out: &mut Out) -> Result<u8> {
    let broker = Needs::of_files().move_to_broker()?;
    let recorders = meant(&args.recorder)?;
    let [recorder] = &recorders[..] else {
        let text = "several recorders run: choose one of these with -p";
        return Err(Error::failed(text).with_lines(recorders.iter().map(list_line)));
    };
    let path = args.output.as_ref().map(Into::into);
    let files = recorder.dump(&DumpArguments { last: args.last, path }, &broker)?;
    match args.json {
        true => out.lines([json::text(&DumpReport(&files))])?,
        false => out.lines(files.iter().map(file_line))?,
    }
    Ok(0)
}

/// Marks recordings, prints when, and returns the exit status.
///
/// # Errors
/// If no recorder is meant.
pub(crate) fn mark(args: &MarkArgs, out: &mut Out) -> Result<u8> {
    let broker = Needs::of_files().move_to_broker()?;
    let mut status = 0;
    for recorder in meant(&args.recorder)? {
        match recorder.mark(&args.text, &broker) {
            Ok(wall_ns) => out.lines([mark_line(&recorder, wall_ns, args.json)])?,
            Err(error) => {
                say(format_args!("{} is not marked: {error}", title(&recorder)));
                status = 1;
            }
        }
    }
    Ok(status)
}

/// Returns the text for a recording that was marked.
fn mark_line(recorder: &RunningRecorder, wall_ns: u64, json: bool) -> String {
    match json {
        true => json::text(&MarkReport { recorder, wall_ns }),
        false => format!("marked {} at {}", title(recorder), utc(wall_ns)),
    }
}

/// Returns the recorders that are meant, at least one.
///
/// # Errors
/// If there is none.
fn meant(args: &RecorderArgs) -> Result<Vec<RunningRecorder>> {
    if let Some(path) = &args.control {
        return Ok(vec![RunningRecorder::at(path.clone())]);
    }
    let mut running = running_recorders()?;
    let Some(pid) = args.pid else {
        let none = "no recorder of this user runs: start one with `vmstrobe record`, or give the \
                    --control of one that listens elsewhere";
        return if running.is_empty() { Err(Error::failed(none)) } else { Ok(running) };
    };
    let lines: Vec<String> = running.iter().map(list_line).collect();
    running.retain(|recorder| recorder.pid == Some(pid));
    if running.is_empty() {
        let text = format!(
            "pid {pid} is no recorder of this user: {}",
            match &lines[..] {
                [] => "none runs here; give the --control of one that listens elsewhere",
                _ => "these are",
            }
        );
        return Err(Error::failed(text).with_lines(lines));
    }
    Ok(running)
}

/// Returns the text for a file of a dump.
fn file_line(file: &DumpedFile) -> String {
    let DumpedFile { path, samples, begin_wall_ns, end_wall_ns, .. } = file;
    format!(
        "{}: {} samples of {}, {} to {}, {}",
        path.display(),
        thousands(*samples),
        seconds(end_wall_ns.saturating_sub(*begin_wall_ns) as f64 * 1e-9),
        utc(*begin_wall_ns),
        utc(*end_wall_ns),
        bytes(file.bytes as f64),
    )
}

fn title(recorder: &RunningRecorder) -> String {
    match recorder.pid {
        Some(pid) => format!("the recording of pid {pid}"),
        None => format!("the recording at {}", recorder.path.display()),
    }
}

/// Returns the line of a list: the process id, and the command line as far as it can be read.
fn list_line(recorder: &RunningRecorder) -> String {
    let pid = recorder.pid.unwrap_or_default();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    format!("  {pid:>7}  {}", line.chars().take(MAX_LINE_CHARS).collect::<String>().trim_end())
}
