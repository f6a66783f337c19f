//! The text of streams: the description of a subscription, its samples and its events.
//!
//! Invariant: keys have the order in which QEMU would write them (that of a QDict). Values have the
//! order of the schema, whatever the order of the server's other replies.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use vmstrobe_core::json::{self, StatsSchemaValue};
use vmstrobe_core::{Group, Layout, Snapshot, Value};

/// The `return` value of `stats-subscribe`.
pub(super) struct Subscribed<'a> {
    pub(super) subscription: u64,
    pub(super) rate_hz: u64,
    pub(super) batch: usize,
    pub(super) layout: &'a Layout,
}

/// The members of an event `STATS_SAMPLES` besides its samples.
pub(super) struct Batch {
    pub(super) subscription: u64,
    pub(super) generation: u64,
    /// The samples since the last such event that are in no event.
    pub(super) lost: u64,
    pub(super) wall_offset_ns: i64,
}

impl Subscribed<'_> {
    /// Appends the return value.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{");
        groups(out, self.layout);
        member(out, ", \"batch\": ", self.batch as u64);
        member(out, ", \"subscription\": ", self.subscription);
        member(out, ", \"generation\": ", self.layout.generation());
        member(out, ", \"rate\": ", self.rate_hz);
        out.extend_from_slice(b"}");
    }
}

impl Batch {
    /// Appends the whole event. `samples` is the text that [`sample`] wrote.
    pub(super) fn write(&self, out: &mut Vec<u8>, samples: &[u8]) {
        begin(out, "STATS_SAMPLES");
        out.extend_from_slice(b"{\"wall-offset-ns\": ");
        json::write(out, &self.wall_offset_ns);
        member(out, ", \"lost\": ", self.lost);
        out.extend_from_slice(b", \"samples\": [");
        out.extend_from_slice(samples);
        member(out, "], \"subscription\": ", self.subscription);
        member(out, ", \"generation\": ", self.generation);
        out.extend_from_slice(b"}}\r\n");
    }
}

/// Appends an event `STATS_OBJECTS`.
pub(super) fn objects(out: &mut Vec<u8>, subscription: u64, layout: &Layout) {
    begin(out, "STATS_OBJECTS");
    out.extend_from_slice(b"{");
    groups(out, layout);
    member(out, ", \"subscription\": ", subscription);
    member(out, ", \"generation\": ", layout.generation());
    out.extend_from_slice(b"}}\r\n");
}

/// Appends a sample, with a separator if it is not the first.
pub(super) fn sample(samples: &mut Vec<u8>, snapshot: &Snapshot) {
    let window = snapshot.window();
    separate(samples, samples.is_empty());
    member(samples, "{\"end-ns\": ", window.end_ns);
    member(samples, ", \"begin-ns\": ", window.begin_ns);
    member(samples, ", \"tick\": ", snapshot.tick());
    samples.extend_from_slice(b", \"values\": [");
    for (at, view) in snapshot.objects().enumerate() {
        separate(samples, at == 0);
        if view.state().has_values() {
            list(samples, view.stats(), value);
        } else {
            samples.extend_from_slice(b"null");
        }
    }
    samples.extend_from_slice(b"]}");
}

/// Appends a value as QAPI's `StatsValue`.
fn value(out: &mut Vec<u8>, value: Value<'_>) {
    match (value.boolean(), value.words()) {
        (Some(truth), _) => json::write(out, &truth),
        (None, [number]) => json::write(out, number),
        (None, words) => list(out, words, json::write),
    }
}

/// Appends the member `groups`. Each group is a QAPI `StatsSchema` of the sampled statistics, with
/// the paths of its objects.
fn groups(out: &mut Vec<u8>, layout: &Layout) {
    let text = |group: &Group| {
        let (schema, columns) = (group.plan.schema(), group.plan.columns());
        let descs = columns.iter().map(|column| &schema.descs()[column.desc]);
        json::text(&SchemaAndObjects {
            provider: schema.provider(),
            stats: descs.map(StatsSchemaValue::new).collect(),
            objects: group.objects.iter().map(|object| &*object.path).collect(),
            target: schema.target().name(),
        })
    };
    out.extend_from_slice(b"\"groups\": ");
    list(out, layout.groups(), |out, group| out.extend_from_slice(text(group).as_bytes()));
}

/// A `StatsSchema` with the paths of its objects, in QEMU's order of keys.
#[derive(Serialize)]
struct SchemaAndObjects<'a> {
    provider: &'a str,
    stats: Vec<StatsSchemaValue<'a>>,
    objects: Vec<&'a str>,
    target: &'a str,
}

/// Appends the begin of an event, up to its data.
fn begin(out: &mut Vec<u8>, event: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 is reported as 1970.
    let now = now.unwrap_or(Duration::ZERO);
    member(out, "{\"timestamp\": {\"seconds\": ", now.as_secs());
    member(out, ", \"microseconds\": ", now.subsec_micros().into());
    out.extend_from_slice(b"}, \"event\": \"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\", \"data\": ");
}

fn member(out: &mut Vec<u8>, before: &str, number: u64) {
    out.extend_from_slice(before.as_bytes());
    json::write(out, &number);
}

fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.extend_from_slice(b"[");
    for (at, item) in items.into_iter().enumerate() {
        separate(out, at == 0);
        write(out, item);
    }
    out.extend_from_slice(b"]");
}

fn separate(out: &mut Vec<u8>, is_first: bool) {
    if !is_first {
        out.extend_from_slice(b", ");
    }
}
