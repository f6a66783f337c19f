//! JSON as QEMU writes it, and the return values of its statistics commands: [`StatsSchema`] for
//! `query-stats-schemas`, [`Results`] for `query-stats`.
//!
//! A text is one line of ASCII. Its keys have the order in which QEMU writes them, with `, ` and
//! `: ` between them.
//!
//! Invariant: a statistic that QEMU knows is described with the names and the order that QEMU's
//! `query-stats-schemas` uses. A type, unit or base that QAPI has no word for has the name that
//! [`StatType`], [`Unit`] and [`Base`] give it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

use crate::{Base, Desc, Schema, StatType, Unit};

mod results;

pub use self::results::Results;

/// QAPI `StatsSchema`: the statistics of one provider and target.
#[derive(Debug, Serialize)]
pub struct StatsSchema<'a> {
    provider: &'a str,
    stats: Vec<StatsSchemaValue<'a>>,
    target: &'a str,
}

/// QAPI `StatsSchemaValue`: the description of one statistic.
#[doc(hidden)] // For vmstrobe-server, whose streams describe statistics outside a `StatsSchema`.
#[derive(Debug, Serialize)]
pub struct StatsSchemaValue<'a> {
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

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum StatsBase {
    Known(u32),
    Unknown(String),
}

impl<'a> StatsSchema<'a> {
    /// Describes these statistics of a schema, in the given order.
    pub fn new(schema: &'a Schema, descs: impl IntoIterator<Item = &'a Desc>) -> Self {
        let stats = descs.into_iter().map(StatsSchemaValue::new).collect();
        Self { provider: schema.provider(), stats, target: schema.target().name() }
    }
}

impl<'a> StatsSchemaValue<'a> {
    /// Describes one statistic.
    pub fn new(desc: &'a Desc) -> Self {
        let base = match desc.scale.base {
            Base::Unknown(bits) => StatsBase::Unknown(format!("base-{bits}")),
            base => StatsBase::Known(base.value().unwrap_or_default()),
        };
        Self {
            name: &desc.name,
            unit: match desc.unit {
                Unit::Unknown(bits) => Some(format!("unit-{bits}")),
                unit => unit.name().map(str::to_owned),
            },
            base: (desc.scale.exponent != 0).then_some(base),
            bucket_size: (desc.stat_type == StatType::LinearHistogram).then_some(desc.bucket_size),
            exponent: desc.scale.exponent,
            stat_type: desc.stat_type.to_string(),
        }
    }
}

/// Returns the text of a value as QEMU would write it, without a line end.
///
/// # Panics
/// If a map in the value has keys that are not strings.
pub fn text(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes, value);
    String::from_utf8(bytes).expect("write() produces ASCII")
}

/// Appends the text of a value, as [`text`] returns it.
///
/// # Panics
/// If a map in the value has keys that are not strings.
pub fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    let mut serializer = Serializer::with_formatter(out, Qemu);
    value.serialize(&mut serializer).expect("keys are strings, and writing to a Vec does not fail");
}

/// The format of QEMU's `json-writer.c`.
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
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return writer.write_all(fragment.as_bytes());
        }
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
pub(crate) mod tests {
    use super::*;
    use crate::{Scale, Target};

    /// Returns one statistic of each type, the last with a type, unit and base that are unknown.
    pub(crate) fn descs() -> Vec<Desc> {
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
        assert_eq!(text(&StatsSchema::new(&schema, schema.descs())), want);
    }

    #[test]
    fn text_is_ascii() {
        assert_eq!(text(&"a/\\\n\t\u{7f}😀"), r#""a/\\\n\t\u007F\uD83D\uDE00""#);
        assert_eq!(text(&[1.5, f64::INFINITY]), "[1.5, null]");
        assert_eq!(text(&Vec::<u64>::new()), "[]");
    }
}
