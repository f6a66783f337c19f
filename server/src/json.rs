//! QEMU's spelling of JSON, and in it QAPI's `StatsSchema`.
//!
//! Keys stand in the order in which QEMU writes them, with `, ` and `: ` between them, on one line,
//! in ASCII.
//!
//! Invariant: what QEMU's `query-stats-schemas` would have said of a statistic, a client of QEMU
//! reads here. What QAPI has no word for is called what `vmstrobe_core` calls it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use serde_json::value::RawValue;
use vmstrobe_core::{Base, Desc, Schema, StatType, Unit};

/// QAPI `StatsSchema`: what a provider has for one target.
#[derive(Debug, Serialize)]
pub struct StatsSchema<'a> {
    provider: &'a str,
    stats: Vec<StatsSchemaValue<'a>>,
    target: &'a str,
}

/// QAPI `StatsSchemaValue`.
#[derive(Debug, Serialize)]
pub(crate) struct StatsSchemaValue<'a> {
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
    /// These statistics of a schema, in that order.
    pub fn new(schema: &'a Schema, descs: impl IntoIterator<Item = &'a Desc>) -> Self {
        let stats = descs.into_iter().map(StatsSchemaValue::new).collect();
        Self { provider: schema.provider(), stats, target: schema.target().name() }
    }
}

impl<'a> StatsSchemaValue<'a> {
    pub(crate) fn new(desc: &'a Desc) -> Self {
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

/// The text of a value, as QEMU would write it; without a line end.
pub fn text(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes, value);
    String::from_utf8(bytes).expect("it is ASCII")
}

/// Puts the text of a value behind what there is.
pub fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    let mut serializer = Serializer::with_formatter(out, Qemu);
    value.serialize(&mut serializer).expect("our keys are strings, and a Vec takes everything");
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

/// A double as QEMU writes it: with 17 digits, where we write as few as tell it from all others.
pub(crate) struct Double(pub(crate) f64);

impl Serialize for Double {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match RawValue::from_string(shortest_of_17(self.0)) {
            Ok(text) => text.serialize(serializer),
            // Not a number, which no JSON text has.
            Err(_) => serializer.serialize_f64(self.0),
        }
    }
}

/// As C's `%.17g`: 17 digits at most, no zeros at the end, an exponent if it is below -4 or above
/// 16.
fn shortest_of_17(value: f64) -> String {
    let scientific = format!("{value:.16e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |digits: &str| digits.trim_end_matches('0').trim_end_matches('.').to_owned();
    if (-4..17).contains(&exponent) {
        let decimals = usize::try_from(16 - exponent).unwrap_or(0);
        let fixed = format!("{value:.decimals$}");
        return if decimals == 0 { fixed } else { trimmed(&fixed) };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vmstrobe_core::{Scale, Target};

    /// One of each kind, the last of kinds that nobody knows.
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

    /// As glibc's printf does.
    #[test]
    fn doubles_have_17_digits() {
        for (value, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.10000000000000001"),
            (1e5, "100000"),
            (-1.5, "-1.5"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (18446744073709551616.0, "1.8446744073709552e+19"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (123456789.125, "123456789.125"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
        ] {
            assert_eq!(text(&Double(value)), want);
        }
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
