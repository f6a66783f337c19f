//! Output for programs: QAPI's `StatsResult` and `StatsSchema` in QEMU's own spelling.
//!
//! Keys stand in the order in which QEMU writes them, with `, ` and `: ` between them, on one line,
//! in ASCII. Lists are in our order: statistics as in the schema, buckets ascending.
//!
//! Invariant: what QEMU's `query-stats` would have said of the same statistic, a client of QEMU
//! reads here. What QEMU drops because it does not know it is here by the name that
//! `vmstrobe_core` gives it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use vmstrobe_core::{Base, Desc, ObjectView, Schema, StatType, Target, Unit, Value};

/// QAPI `StatsResult`: one object's statistics.
#[derive(Serialize)]
pub(crate) struct StatsResult<'a> {
    provider: &'a str,
    stats: Vec<Stats<'a>>,
    #[serde(rename = "qom-path", skip_serializing_if = "Option::is_none")]
    qom_path: Option<&'a str>,
}

#[derive(Serialize)]
struct Stats<'a> {
    name: &'a str,
    value: StatsValue<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum StatsValue<'a> {
    Boolean(bool),
    Number(u64),
    List(&'a [u64]),
}

/// QAPI `StatsSchema`: what a provider has for one target.
#[derive(Serialize)]
pub(crate) struct StatsSchema<'a> {
    provider: &'a str,
    stats: Vec<StatsSchemaValue<'a>>,
    target: &'a str,
}

#[derive(Serialize)]
struct StatsSchemaValue<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<StatsBase>,
    #[serde(rename = "bucket-size", skip_serializing_if = "Option::is_none")]
    bucket_size: Option<u32>,
    exponent: i16,
    #[serde(rename = "type")]
    stat_type: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum StatsBase {
    Known(u32),
    Unknown(String),
}

/// One object of a snapshot. QEMU gives no path for a VM, because it has but one.
pub(crate) fn stats_result<'a>(view: ObjectView<'a>, with_path: bool) -> StatsResult<'a> {
    let object = view.object();
    let value = |value: Value<'a>| match (value.boolean(), value.words()) {
        (Some(truth), _) => StatsValue::Boolean(truth),
        (None, [number]) => StatsValue::Number(*number),
        (None, words) => StatsValue::List(words),
    };
    StatsResult {
        provider: object.schema.provider(),
        stats: view.stats().map(|v| Stats { name: &v.desc().name, value: value(v) }).collect(),
        qom_path: (with_path || *object.schema.target() != Target::Vm).then_some(&*object.path),
    }
}

/// Some statistics of a schema.
pub(crate) fn stats_schema<'a>(
    schema: &'a Schema,
    descs: impl IntoIterator<Item = &'a Desc>,
) -> StatsSchema<'a> {
    let stats = descs.into_iter().map(|desc| StatsSchemaValue {
        name: &desc.name,
        unit: match desc.unit {
            Unit::Unknown(bits) => Some(format!("unit-{bits}")),
            unit => unit.name().map(str::to_owned),
        },
        base: (desc.scale.exponent != 0).then(|| match desc.scale.base {
            Base::Unknown(bits) => StatsBase::Unknown(format!("base-{bits}")),
            base => StatsBase::Known(base.value().unwrap_or_default()),
        }),
        bucket_size: (desc.stat_type == StatType::LinearHistogram).then_some(desc.bucket_size),
        exponent: desc.scale.exponent,
        stat_type: desc.stat_type.to_string(),
    });
    StatsSchema {
        provider: schema.provider(),
        stats: stats.collect(),
        target: schema.target().name(),
    }
}

/// The text of a value, as QEMU would write it; without a line end.
pub(crate) fn text(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, Qemu);
    value.serialize(&mut serializer).expect("our types have no maps, and a Vec takes everything");
    String::from_utf8(bytes).expect("it is ASCII")
}

/// Writes as QEMU's `json-writer.c` does.
struct Qemu;

impl Formatter for Qemu {
    fn begin_array_value<W: Write + ?Sized>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }

    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for c in fragment.chars() {
            match c {
                ' '..='~' => writer.write_all(&[c as u8])?,
                _ => c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .try_for_each(|unit| write!(writer, "\\u{unit:04X}"))?,
            }
        }
        Ok(())
    }

    fn write_char_escape<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let letter = match escape {
            CharEscape::Quote => '"',
            CharEscape::ReverseSolidus => '\\',
            CharEscape::Solidus => '/',
            CharEscape::Backspace => 'b',
            CharEscape::FormFeed => 'f',
            CharEscape::LineFeed => 'n',
            CharEscape::CarriageReturn => 'r',
            CharEscape::Tab => 't',
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04X}"),
        };
        write!(writer, "\\{letter}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vmstrobe_core::{Layout, Mask, Object, ReadPlan, RowState, Scale, Snapshot};

    fn descs() -> Vec<Desc> {
        let ns = |desc| Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
        vec![
            Desc::counter("exits", 0),
            ns(Desc {
                stat_type: StatType::Log2Histogram,
                size: 3,
                ..Desc::counter("wait_hist", 8)
            }),
            Desc {
                stat_type: StatType::Instant,
                unit: Unit::Boolean,
                ..Desc::counter("blocking", 32)
            },
            Desc {
                stat_type: StatType::LinearHistogram,
                bucket_size: 4,
                ..Desc::counter("one", 40)
            },
            Desc {
                stat_type: StatType::Unknown(9),
                unit: Unit::Unknown(7),
                scale: Scale { base: Base::Unknown(3), exponent: 2 },
                ..Desc::counter("newer", 0)
            },
        ]
    }

    fn snapshot(target: Target) -> Snapshot {
        let schema = Schema::new("kvm", target, descs());
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let object = Object { path: "/vm/é\u{1}\"".into(), index: Some(0), schema, key: 0 };
        let mut snapshot = Snapshot::new(&Layout::new(0, vec![(Arc::clone(&plan), vec![object])]));
        let (words, states) = snapshot.begin(1);
        plan.keep(&[u64::MAX, 1, 2, 3, 5, 6], words);
        states.fill(RowState::Good);
        snapshot
    }

    fn result(target: Target, with_path: bool) -> String {
        let snapshot = snapshot(target);
        let views = snapshot.objects().map(|view| stats_result(view, with_path));
        text(&views.collect::<Vec<_>>())
    }

    #[test]
    fn results_are_spelt_as_qemu_does() {
        let stats = concat!(
            r#"[{"provider": "kvm", "stats": ["#,
            r#"{"name": "exits", "value": 18446744073709551615}, "#,
            r#"{"name": "wait_hist", "value": [1, 2, 3]}, "#,
            r#"{"name": "blocking", "value": true}, "#,
            r#"{"name": "one", "value": 6}, "#,
            r#"{"name": "newer", "value": 18446744073709551615}]"#,
        );
        let path = r#", "qom-path": "/vm/\u00E9\u0001\"""#;
        assert_eq!(result(Target::Vcpu, false), format!("{stats}{path}}}]"));
        assert_eq!(result(Target::Vm, true), format!("{stats}{path}}}]"));
        assert_eq!(result(Target::Vm, false), format!("{stats}}}]"));
    }

    #[test]
    fn schemas_are_spelt_as_qemu_does() {
        let schema = Schema::new("kvm", Target::Vcpu, descs());
        let want = concat!(
            r#"{"provider": "kvm", "stats": ["#,
            r#"{"name": "exits", "exponent": 0, "type": "cumulative"}, "#,
            r#"{"name": "wait_hist", "unit": "seconds", "base": 10, "exponent": -9, "#,
            r#""type": "log2-histogram"}, "#,
            r#"{"name": "blocking", "unit": "boolean", "exponent": 0, "type": "instant"}, "#,
            r#"{"name": "one", "bucket-size": 4, "exponent": 0, "type": "linear-histogram"}, "#,
            r#"{"name": "newer", "unit": "unit-7", "base": "base-3", "exponent": 2, "#,
            r#""type": "type-9"}], "target": "vcpu"}"#,
        );
        assert_eq!(text(&stats_schema(&schema, schema.descs())), want);
    }

    #[test]
    fn text_is_ascii() {
        assert_eq!(text(&"a/\\\n\t\u{7f}😀"), r#""a/\\\n\t\u007F\uD83D\uDE00""#);
        assert_eq!(text(&[1.5, f64::INFINITY]), "[1.5, null]");
        assert_eq!(text(&Vec::<u64>::new()), "[]");
    }
}
