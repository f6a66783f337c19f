//! `.jsonl`: a line of JSON for each object and tick, tick after tick.
//!
//! The first line is `{"recording": {…}}` with the circumstances of the recording. A line of an
//! object has the members `seconds` (since the first sample), `time` (RFC 3339), `tick`,
//! `window_ns`, `vm` and `vcpu` where there are such, `path`, `provider`, `target`, `state`, for an
//! aged row `age_ms`, for a failed one `errno`, and `stats` if the row has values: a number, a
//! truth value, or a list of buckets by the statistic's name. A line of an event has `seconds`,
//! `time`, `event` (its kind) and `text`.
//!
//! Invariant: a line is one JSON object in ASCII, and no member occurs twice.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::{Group, Layout, RowState, Value, json};

use crate::batch::{Batch, TickRows};
use crate::error::Result;
use crate::exporter::{Destination, Event, Exporter, Outcome};
use crate::laid::vm_name;
use crate::metadata::Metadata;
use crate::text::{CHUNK_BYTES, Thinning, number, state_name, time};

/// Writes lines of JSON. It takes batches of any columns.
///
/// ```
/// # fn main() -> Result<(), vmstrobe_export::Error> {
/// use vmstrobe_export::{Exporter, JsonLinesWriter, Metadata};
/// let mut file = Vec::new();
/// let mut writer = JsonLinesWriter::new(&mut file, &Metadata::default(), None)?;
/// writer.finish()?;
/// assert!(file.starts_with(b"{\"recording\": {"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct JsonLinesWriter<W> {
    destination: Destination<W>,
    vm: Option<String>,
    thinning: Thinning,
    laid: Option<Laid>,
    chunk: Vec<u8>,
}

/// A layout, prepared for the writer.
#[derive(Debug)]
struct Laid {
    layout: Arc<Layout>,
    /// For each group the text before each value.
    names: Vec<Vec<String>>,
    /// For each object the members that do not change.
    objects: Vec<String>,
}

impl<W: Write> JsonLinesWriter<W> {
    /// Writes the line of the recording. With `every`, only the first tick of each such stretch of
    /// time is written.
    ///
    /// # Errors
    /// As [`Exporter::write`].
    pub fn new(destination: W, metadata: &Metadata, every: Option<Duration>) -> Result<Self> {
        let mut pairs = metadata.pairs();
        // A label may be given twice.
        pairs.sort();
        pairs.dedup_by(|(later, _), (key, _)| later == key);
        let members = pairs.iter().map(|(key, text)| member(key, text));
        let line = format!("{{\"recording\": {{{}}}}}\n", members.collect::<Vec<_>>().join(", "));
        let mut destination = Destination::new(destination);
        destination.write(line.as_bytes())?;
        let (vm, thinning) = (metadata.vm.clone(), Thinning::new(every));
        Ok(Self { destination, vm, thinning, laid: None, chunk: Vec::new() })
    }

    /// Begins a line with its time.
    fn begin(&mut self, monotonic_ns: u64, wall_ns: u64) {
        self.chunk.extend(b"{\"seconds\": ");
        self.thinning.seconds(&mut self.chunk, monotonic_ns);
        self.chunk.extend(b", \"time\": \"");
        time(&mut self.chunk, wall_ns);
        self.chunk.extend(b"\", ");
    }
}

impl<W: Write> Exporter for JsonLinesWriter<W> {
    fn write(&mut self, batch: &Batch) -> Result<Outcome> {
        let known = |laid: &Laid| Arc::ptr_eq(&laid.layout, batch.layout());
        let known = self.laid.take().filter(known);
        let new = || Laid::new(batch.layout(), self.vm.as_deref());
        let laid = known.unwrap_or_else(new);
        self.chunk.clear();
        let mut ticks = batch.by_tick();
        while let Some(tick) = ticks.next() {
            if !self.thinning.keeps(tick.window) {
                continue;
            }
            for (group, names) in batch.layout().groups().iter().zip(&laid.names) {
                for at in 0..group.objects.len() {
                    self.begin(tick.window.middle_ns(), tick.window.wall_ns());
                    let object = &laid.objects[group.first_row + at];
                    write_row(&mut self.chunk, &tick, group, at, object, names);
                }
            }
            if self.chunk.len() >= CHUNK_BYTES {
                self.destination.write(&self.chunk)?;
                self.chunk.clear();
            }
        }
        self.destination.write(&self.chunk)?;
        self.laid = Some(laid);
        Ok(Outcome::Written)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        event.check()?;
        self.chunk.clear();
        self.begin(event.monotonic_ns, event.wall_ns());
        let members = [member("event", event.kind.name()), member("text", &event.text)];
        self.chunk.extend(members.join(", ").as_bytes());
        self.chunk.extend(b"}\n");
        self.destination.write(&self.chunk)
    }

    fn flush(&mut self) -> Result<()> {
        self.destination.flush()
    }

    fn finish(&mut self) -> Result<()> {
        self.destination.flush()?;
        self.destination.end();
        Ok(())
    }

    fn whole_bytes(&self) -> u64 {
        self.destination.whole_bytes()
    }
}

impl Laid {
    fn new(layout: &Arc<Layout>, vm: Option<&str>) -> Self {
        let mut objects = Vec::with_capacity(layout.rows());
        for group in layout.groups() {
            let schema = group.plan.schema();
            for object in &group.objects {
                let vm = vm_name(&object.path).or(vm).map(|vm| member("vm", vm));
                let vcpu = object.index.map(|index| format!("\"vcpu\": {index}"));
                let rest = [
                    member("path", &object.path),
                    member("provider", schema.provider()),
                    member("target", schema.target().name()),
                ];
                let members: Vec<String> = vm.into_iter().chain(vcpu).chain(rest).collect();
                objects.push(members.join(", "));
            }
        }
        let names = layout.groups().iter().map(names).collect();
        Self { layout: Arc::clone(layout), names, objects }
    }
}

/// Returns the text before each value of a group's objects. A later statistic of one name has a
/// number behind it.
fn names(group: &Group) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let columns = group.plan.columns().iter();
    let names = columns.map(|column| {
        let name = &group.plan.schema().descs()[column.desc].name;
        let mut unique = name.to_string();
        while seen.contains_key(&unique) {
            let number = seen.entry(name.to_string()).or_insert(1);
            *number += 1;
            unique = format!("{name}#{number}");
        }
        seen.insert(unique.clone(), 1);
        format!("{}: ", json::text(&unique))
    });
    names.collect()
}

/// Appends the members of a row behind its time, and ends the line.
fn write_row(
    out: &mut Vec<u8>,
    tick: &TickRows<'_>,
    group: &Group,
    at: usize,
    object: &str,
    names: &[String],
) {
    let state = tick.states[group.first_row + at];
    out.extend(b"\"tick\": ");
    number(out, tick.tick);
    out.extend(b", \"window_ns\": ");
    number(out, tick.window.end_ns.saturating_sub(tick.window.begin_ns));
    out.extend(b", ");
    out.extend(object.as_bytes());
    out.extend(format!(", \"state\": \"{}\"", state_name(state)).as_bytes());
    match state {
        RowState::Aged(age_ms) => out.extend(format!(", \"age_ms\": {age_ms}").as_bytes()),
        RowState::Io(errno) => out.extend(format!(", \"errno\": {errno}").as_bytes()),
        _ => {}
    }
    if state.has_values() {
        out.extend(b", \"stats\": {");
        let first = group.first_word + at * group.plan.row_words();
        let row = &tick.words[first..first + group.plan.row_words()];
        for (index, (column, name)) in group.plan.columns().iter().zip(names).enumerate() {
            out.extend(if index == 0 { &b""[..] } else { b", " });
            out.extend(name.as_bytes());
            let desc = &group.plan.schema().descs()[column.desc];
            value(out, Value::new(desc, &row[column.words.clone()]));
        }
        out.push(b'}');
    }
    out.extend(b"}\n");
}

/// Appends a value: a truth value, a number, or a list.
fn value(out: &mut Vec<u8>, value: Value<'_>) {
    if let Some(boolean) = value.boolean() {
        out.extend(if boolean { &b"true"[..] } else { b"false" });
        return;
    }
    if value.buckets().is_none()
        && let [word] = value.words()
    {
        return number(out, *word);
    }
    out.push(b'[');
    for (index, &word) in value.words().iter().enumerate() {
        out.extend(if index == 0 { &b""[..] } else { b", " });
        number(out, word);
    }
    out.push(b']');
}

fn member(key: &str, text: &str) -> String {
    format!("{}: {}", json::text(&key), json::text(&text))
}

#[cfg(test)]
mod tests;
