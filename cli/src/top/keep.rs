//! Moments that are kept: marks, and files of the last samples.
//!
//! Invariant: a file is new and in the working directory, whatever the virtual machine is called.
//! A thread of its own writes it, while the screen goes on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vmstrobe::export::{Event, EventKind, Metadata};
use vmstrobe::view::{Frame, Moment, View};
use vmstrobe::{Broker, FileOptions, HeldSamples, RecordedFile, Thread, now_ns, plain_name};

use super::title::time_text;
use crate::error::with_causes;
use crate::privileges::unprivileged_threads;
use crate::text::utc;

/// The time that a file has of.
const DUMP_TIME: Duration = Duration::from_secs(30);
/// The most files of one second, told apart by a number.
const SAME_NAMES_MAX: usize = 100;

/// Returns the moment that a frame shows, in ns of `CLOCK_MONOTONIC` and in ns since 1970: of live
/// samples the present.
pub(super) fn moment_of(frame: &Frame) -> (u64, u64) {
    match frame.moment {
        Moment::Back { wall_ns, .. } => (frame.ring.at_ns, wall_ns),
        Moment::Live { .. } => (now_ns(), wall_now_ns()),
    }
}

fn wall_now_ns() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// Marks a moment, and returns what was done.
pub(super) fn mark(view: &mut View, (at_ns, wall_ns): (u64, u64), text: &str) -> String {
    let wall_offset_ns = (wall_ns as i64).wrapping_sub_unsigned(at_ns);
    let (kind, text) = (EventKind::Mark, text.to_owned());
    view.take_event(&Event { monotonic_ns: at_ns, wall_offset_ns, kind, text });
    format!("marked {}", &utc(wall_ns)[11..23])
}

/// The writer of files of the last samples.
#[derive(Debug, Default)]
pub(super) struct Dumper {
    vm: Option<String>,
    broker: Broker,
    running: Option<Thread<Result<String, String>>>,
}

impl Dumper {
    /// Makes a writer of files that are called after a virtual machine, if there is one. They are
    /// made with the rights of a broker.
    pub(super) fn new(vm: Option<String>, broker: Broker) -> Self {
        Self { vm, broker, running: None }
    }

    /// Starts to write the last samples. Returns a message if there is no need to wait for one.
    pub(super) fn start(&mut self, view: &mut View) -> Option<String> {
        if self.running.is_some() {
            return Some("the last file is still being written".to_owned());
        }
        let held = view.freeze(Some(DUMP_TIME));
        if held.samples() == 0 {
            return Some("there are no samples to write".to_owned());
        }
        let name = plain_name(self.vm.as_deref().unwrap_or("top"));
        let stem = format!("{name}-{}", utc(wall_now_ns())[11..19].replace(':', ""));
        let (broker, vm) = (self.broker.clone(), self.vm.clone());
        let write = move || write(&held, &stem, vm, &broker);
        match unprivileged_threads().spawn("vmstrobe-dump", write) {
            Ok(thread) => self.running = Some(thread),
            Err(error) => return Some(with_causes(&error)),
        }
        None
    }

    /// Returns what became of the file, once it is written.
    pub(super) fn poll(&mut self) -> Option<String> {
        self.running.take_if(|thread| thread.is_finished()).map(joined)
    }

    /// Waits until the file is written, and returns what became of it.
    pub(super) fn finish(&mut self) -> Option<String> {
        self.running.take().map(joined)
    }
}

fn joined(thread: Thread<Result<String, String>>) -> String {
    let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    done.unwrap_or_else(|error| error)
}

/// Writes samples to a new file, and returns what was written.
fn write(
    held: &HeldSamples,
    stem: &str,
    vm: Option<String>,
    broker: &Broker,
) -> Result<String, String> {
    let mut name = format!("{stem}.arrows");
    for number in 2..=SAME_NAMES_MAX {
        let metadata = Metadata { vm: vm.clone(), ..Metadata::default() };
        let options = FileOptions { metadata, broker: broker.clone(), ..FileOptions::default() };
        match held.write(Path::new(&name), options) {
            Ok(files) => return Ok(said(held, &files)),
            Err(vmstrobe::Error::RecordFile { source, .. })
                if source.kind() == ErrorKind::AlreadyExists =>
            {
                name = format!("{stem}-{number}.arrows");
            }
            Err(error) => return Err(with_causes(&error)),
        }
    }
    Err(format!("{name} is there already"))
}

fn said(held: &HeldSamples, files: &[RecordedFile]) -> String {
    let time = time_text(u64::try_from(held.length().as_nanos()).unwrap_or(u64::MAX));
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let paths: Vec<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    format!("{time} written to {}, {:.1} MB", names.join(" and "), bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_of_an_empty_view() {
        let mut view = View::new(vmstrobe::view::ViewOptions::default());
        let mut dumper = Dumper::default();
        let said = dumper.start(&mut view);
        assert_eq!(said.as_deref(), Some("there are no samples to write"));
        assert_eq!((dumper.poll(), dumper.finish()), (None, None));
    }

    #[test]
    fn a_mark_is_at_the_moment_that_is_shown() {
        let mut view = View::new(vmstrobe::view::ViewOptions::default());
        let wall_ns = 1_795_995_133_405_000_000;
        assert_eq!(mark(&mut view, (5, wall_ns), "x"), "marked 23:32:13.405");
    }
}
