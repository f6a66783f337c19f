//! The commands `stats-dump` and `stats-mark`, which a server has whose program records.
//!
//! Invariant: the program's functions are called by the thread of the client that asked, which
//! holds nothing meanwhile that another client could wait for.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::{Result, json};

use super::budget::LARGE_TEXT_BYTES;
use super::members::Members;
use super::refusal::Refusal;
use super::value::{Dict, Value};

/// The commands, in QEMU's order: the one that is defined last comes first.
pub(super) const COMMANDS: &[&str] = &["stats-mark", "stats-dump"];

/// The functions of a program that records. A thread of the server waits for each call, and
/// dropping the server waits for that thread, so a call must end in bounded time.
#[derive(Clone)]
pub struct Recorder {
    /// Writes a dump, and returns its files.
    pub dump: Arc<DumpFn>,
    /// Notes a text at this moment, and returns the time in ns since 1970.
    pub mark: Arc<MarkFn>,
}

/// The function behind `stats-dump`.
pub type DumpFn = dyn Fn(DumpArguments) -> Result<Vec<DumpedFile>> + Send + Sync;
/// The function behind `stats-mark`.
pub type MarkFn = dyn Fn(&str) -> Result<u64> + Send + Sync;

/// The arguments of `stats-dump`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpArguments {
    /// The time before now that is dumped; `None` for all that is held.
    pub last: Option<Duration>,
    /// The file, an absolute path; `None` for the program's choice.
    pub path: Option<PathBuf>,
}

/// A file of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedFile {
    /// The path.
    pub path: PathBuf,
    /// The length.
    pub bytes: u64,
    /// The number of samples.
    pub samples: u64,
    /// The time of the first sample, in ns since 1970.
    pub begin_wall_ns: u64,
    /// The time of the last sample, in ns since 1970.
    pub end_wall_ns: u64,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Executes one of [`COMMANDS`], whose request has so many bytes, and returns its return value
    /// as text.
    ///
    /// # Errors
    /// GenericError if an argument is wrong, or with the error of the function.
    pub(super) fn execute(
        &self,
        command: &str,
        arguments: &Dict<'_>,
        request_bytes: usize,
    ) -> std::result::Result<String, Refusal> {
        let mut members = Members::of_arguments(arguments);
        if command == "stats-mark" {
            let text = members.string("text")?;
            members.finish()?;
            let wall_ns = (self.mark)(text).map_err(Refusal::from)?;
            return Ok(json::text(&dict([("wall-ns", number(wall_ns))])));
        }
        // Only one large text is answered at a time, and this command may take long.
        if request_bytes > LARGE_TEXT_BYTES {
            let text = format!("the request has more than {LARGE_TEXT_BYTES} bytes: send less");
            return Err(Refusal::generic(text));
        }
        let last = members.optional_int("last-ns")?.map(last).transpose()?;
        let path = members.optional_string("filename")?.map(path).transpose()?;
        members.finish()?;
        let files = (self.dump)(DumpArguments { last, path }).map_err(Refusal::from)?;
        let files = files.iter().map(DumpedFile::value).collect();
        Ok(json::text(&dict([("files", Value::List(files))])))
    }
}

impl DumpedFile {
    fn value(&self) -> Value<'_> {
        dict([
            ("filename", Value::String(self.path.to_string_lossy())),
            ("bytes", number(self.bytes)),
            ("samples", number(self.samples)),
            ("begin-wall-ns", number(self.begin_wall_ns)),
            ("end-wall-ns", number(self.end_wall_ns)),
        ])
    }
}

/// Takes the argument `last-ns`.
fn last(ns: i64) -> std::result::Result<Duration, Refusal> {
    let ns = u64::try_from(ns).ok().filter(|&ns| ns > 0);
    ns.map(Duration::from_nanos).ok_or_else(|| {
        Refusal::generic("Parameter 'last-ns' expects a time in ns, which is more than 0")
    })
}

/// Takes the argument `filename`. The server does not know the client's working directory.
fn path(name: &str) -> std::result::Result<PathBuf, Refusal> {
    if Path::new(name).is_absolute() {
        return Ok(name.into());
    }
    Err(Refusal::generic("Parameter 'filename' expects an absolute path"))
}

fn dict<'a, const N: usize>(members: [(&'static str, Value<'a>); N]) -> Value<'a> {
    let members = members.map(|(name, value)| (Cow::Borrowed(name), value));
    Value::Dict(Dict::new(members.into()))
}

fn number(number: u64) -> Value<'static> {
    i64::try_from(number).map_or(Value::Uint(number), Value::Int)
}

#[cfg(test)]
mod tests;
