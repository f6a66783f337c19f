//! The JSON about recordings: the files of a dump, marks, and the triggers of a dry run.
//!
//! Invariant: a time is in ns, and a value in the unit that stands beside it.

use serde::{Serialize, Serializer};

use crate::condition::Hit;
#[cfg(feature = "server")]
use crate::control::{DumpedFile, RunningRecorder};
use crate::record::{DryRun, DryTrigger};

/// The files of a dump, to be written as JSON: a list with an element for each.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug)]
pub struct DumpReport<'a>(pub &'a [DumpedFile]);

/// A recording that was marked, to be written as JSON.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug)]
pub struct MarkReport<'a> {
    /// The recorder.
    pub recorder: &'a RunningRecorder,
    /// The time of the mark, in ns since 1970.
    pub wall_ns: u64,
}

/// A trigger of a dry run, to be written as JSON.
#[derive(Clone, Copy, Debug)]
pub struct TriggerReport<'a> {
    /// The condition as it was typed.
    pub condition: &'a str,
    /// The trigger.
    pub trigger: &'a DryTrigger,
}

#[cfg(feature = "server")]
#[derive(Serialize)]
struct FileEntry<'a> {
    path: std::borrow::Cow<'a, str>,
    bytes: u64,
    samples: u64,
    begin_wall_ns: u64,
    end_wall_ns: u64,
}

#[cfg(feature = "server")]
#[derive(Serialize)]
struct MarkEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    socket: std::borrow::Cow<'a, str>,
    wall_ns: u64,
}

#[derive(Serialize)]
struct TriggerEntry<'a> {
    number: u64,
    after_ns: u64,
    wall_ns: u64,
    since_ns: u64,
    ns: u64,
    hits: Vec<HitEntry<'a>>,
}

#[derive(Serialize)]
struct HitEntry<'a> {
    comparison: &'a str,
    #[serde(rename = "qom-path", skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    per_second: bool,
    objects: usize,
}

#[derive(Serialize)]
struct DryRunEntry {
    triggers: u64,
    samples: u64,
    length_ns: u64,
}

#[cfg(feature = "server")]
impl Serialize for DumpReport<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|file| FileEntry {
            path: file.path.to_string_lossy(),
            bytes: file.bytes,
            samples: file.samples,
            begin_wall_ns: file.begin_wall_ns,
            end_wall_ns: file.end_wall_ns,
        }))
    }
}

#[cfg(feature = "server")]
impl Serialize for MarkReport<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { recorder, wall_ns } = *self;
        let socket = recorder.path.to_string_lossy();
        MarkEntry { pid: recorder.pid, socket, wall_ns }.serialize(serializer)
    }
}

impl<'a> HitEntry<'a> {
    fn new(condition: &'a str, hit: &'a Hit) -> Self {
        Self {
            comparison: condition.get(hit.place.clone()).unwrap_or_default(),
            path: hit.path.as_deref(),
            value: hit.value,
            unit: hit.unit.name(),
            per_second: hit.is_rate,
            objects: hit.objects,
        }
    }
}

impl Serialize for TriggerReport<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let DryTrigger { triggered, after_ns, wall_ns } = self.trigger;
        let entry = TriggerEntry {
            number: triggered.number,
            after_ns: *after_ns,
            wall_ns: *wall_ns,
            since_ns: triggered.since_ns,
            ns: triggered.at_ns,
            hits: triggered.hits.iter().map(|hit| HitEntry::new(self.condition, hit)).collect(),
        };
        entry.serialize(serializer)
    }
}

impl Serialize for DryRun {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { triggers, samples, length_ns, .. } = *self;
        DryRunEntry { triggers, samples, length_ns }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::Unit;

    use super::*;
    use crate::condition::Triggered;
    use crate::json::text;

    #[test]
    fn a_trigger_has_each_comparison_with_its_value() {
        let condition = "exits.rate > 5 and sum halt_wait_ns.delta > 1ms";
        let hit = |place, path: Option<&str>, unit, is_rate| Hit {
            place,
            path: path.map(Into::into),
            value: 7.5,
            unit,
            is_rate,
            objects: 2,
        };
        let hits = vec![
            hit(0..14, Some("/vm/\"a\""), Unit::None, true),
            hit(19..47, None, Unit::Seconds, false),
        ];
        let triggered = Triggered { number: 1, since_ns: 2, at_ns: 3, hits };
        let trigger = &DryTrigger { triggered, after_ns: 4, wall_ns: 5 };
        let line = text(&TriggerReport { condition, trigger });
        let want = [
            r#"{"number": 1, "after_ns": 4, "wall_ns": 5, "since_ns": 2, "ns": 3, "hits": "#,
            r#"[{"comparison": "exits.rate > 5", "qom-path": "/vm/\"a\"", "value": 7.5, "#,
            r#""per_second": true, "objects": 2}, "#,
            r#"{"comparison": "sum halt_wait_ns.delta > 1ms", "value": 7.5, "#,
            r#""unit": "seconds", "per_second": false, "objects": 2}]}"#,
        ];
        assert_eq!(line, want.concat());
        let done = DryRun { samples: 1, triggers: 2, length_ns: 3, cut: None };
        assert_eq!(text(&done), r#"{"triggers": 2, "samples": 1, "length_ns": 3}"#);
    }
}
