//! QMP as text: what we ask, and what QEMU answers. The only file that knows serde and serde_json.
//!
//! Members that we do not know are passed over, and a value of a kind that we do not know is
//! [`StatValue::Unreadable`], so that a later QEMU can add what it likes. Lists stay in QEMU's
//! order, which is reversed.
//!
//! Invariant: pure functions of one text. What they allocate is a small multiple of its length.

use std::borrow::Cow;
use std::fmt;

pub(super) use serde::de::Deserialize;
/// An answer of which nothing is wanted.
pub(super) use serde::de::IgnoredAny as Anything;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::json;
use vmstrobe_core::{Base, Desc, Error, ErrorKind, Result, Scale, StatType, Unit};

/// The number that stands for a type, unit or base of a later QEMU: QMP gives its name, of which a
/// descriptor has no room for more than this.
const UNKNOWN: u8 = 15;

/// The most buckets of a histogram: a descriptor's size has 16 bits.
pub(super) const MAX_BUCKETS: usize = u16::MAX as usize;

/// The most characters of QEMU's own words in an error of ours.
const QUOTE_CHARS_MAX: usize = 200;

/// QEMU's answer to a command.
#[derive(Debug, PartialEq)]
pub(super) enum Answer<T> {
    /// It was done.
    Return(T),
    /// It was not.
    Refused(Refusal),
}

/// QAPI's error: a class for programs, and a text.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub(super) struct Refusal {
    pub(super) class: String,
    pub(super) desc: String,
}

#[derive(serde::Deserialize)]
struct Envelope<T> {
    #[serde(rename = "return")]
    value: Option<T>,
    error: Option<Refusal>,
    id: Option<u64>,
}

#[derive(serde::Deserialize)]
struct Event {
    #[serde(rename = "event")]
    _event: Anything,
}

#[derive(serde::Deserialize)]
struct Greeting<'a> {
    #[serde(rename = "QMP", borrow)]
    qmp: Offer<'a>,
}

#[derive(serde::Deserialize)]
struct Offer<'a> {
    #[serde(default, borrow)]
    version: Version<'a>,
}

/// QAPI `VersionInfo`.
#[derive(Default, serde::Deserialize)]
struct Version<'a> {
    #[serde(default, borrow)]
    package: Cow<'a, str>,
}

/// `query-name`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct VmName {
    pub(super) name: Option<String>,
}

/// One of `query-cpus-fast`.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Cpu {
    pub(super) cpu_index: u32,
    pub(super) qom_path: String,
    pub(super) thread_id: u32,
}

/// One of `query-stats-schemas`: what a provider's target can have.
#[derive(Debug, serde::Deserialize)]
pub(super) struct StatsSchema {
    pub(super) provider: String,
    pub(super) target: String,
    pub(super) stats: Vec<StatsSchemaValue>,
}

/// One statistic of a schema.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct StatsSchemaValue {
    pub(super) name: String,
    #[serde(rename = "type")]
    stat_type: String,
    unit: Option<String>,
    base: Option<StatValue>,
    #[serde(default)]
    exponent: i16,
    #[serde(default)]
    bucket_size: u32,
}

/// One of `query-stats`: what an object has.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct StatsResult<'a> {
    #[serde(borrow)]
    pub(super) provider: Cow<'a, str>,
    pub(super) qom_path: Option<String>,
    #[serde(borrow)]
    pub(super) stats: Vec<Stat<'a>>,
}

/// One statistic of an object.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Stat<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) value: StatValue,
}

/// A value: QAPI's alternate of a number, a boolean and a list of numbers.
#[derive(Debug, PartialEq)]
pub(super) enum StatValue {
    /// A number, or a boolean as 0 or 1.
    Number(u64),
    /// A list of at most [`MAX_BUCKETS`] numbers, in QEMU's order.
    List(Vec<u64>),
    /// A value that no word can hold.
    Unreadable,
}

impl StatValue {
    /// Returns the number of words that it takes; 0 if it cannot be had.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Number(_) => 1,
            Self::List(list) => list.len(),
            Self::Unreadable => 0,
        }
    }
}

/// A command as QEMU reads it: byte by byte, so it is short.
pub(super) fn request(command: &str, arguments: Option<&str>, id: u64) -> String {
    let arguments = arguments.map_or(String::new(), |text| format!(",\"arguments\":{text}"));
    format!("{{\"execute\":\"{command}\"{arguments},\"id\":{id}}}\n")
}

/// The arguments of `query-stats`: everything of a target, or what these providers have of it.
pub(super) fn stats_arguments(target: &str, providers: Option<&[&str]>) -> String {
    let Some(providers) = providers else { return json!({ "target": target }).to_string() };
    let providers: Vec<_> = providers.iter().map(|name| json!({ "provider": name })).collect();
    json!({ "target": target, "providers": providers }).to_string()
}

/// Whether it is an event, which may come between a command and its answer.
pub(super) fn is_event(text: &[u8]) -> bool {
    // QEMU's answers begin so: a long one is not read twice.
    !text.starts_with(b"{\"return\"") && serde_json::from_slice::<Event>(text).is_ok()
}

/// # Errors
/// `Malformed` if it is no greeting of QMP; `Unsupported` if it is that of a vmstrobe: its lists
/// are in another order, and what it has it has from a QEMU that can be asked itself.
pub(super) fn greeting(text: &[u8]) -> Result<()> {
    let greeting: Greeting<'_> = serde_json::from_slice(text).map_err(malformed)?;
    if greeting.qmp.version.package.starts_with("vmstrobe ") {
        let text =
            "a vmstrobe listens there, not a QEMU: give the socket of the QEMU itself, or its pid";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    Ok(())
}

/// Reads the answer to the command of that id.
///
/// # Errors
/// `Malformed` if it is none, or one to another command.
pub(super) fn answer<'a, T: Deserialize<'a>>(text: &'a [u8], id: u64) -> Result<Answer<T>> {
    let envelope: Envelope<T> = serde_json::from_slice(text).map_err(malformed)?;
    if envelope.id != Some(id) {
        let got = envelope.id.map_or("none".to_owned(), |id| id.to_string());
        return Err(malformed(format!("an answer to command {got} instead of {id}")));
    }
    match (envelope.value, envelope.error) {
        (Some(value), None) => Ok(Answer::Return(value)),
        (None, Some(refusal)) => Ok(Answer::Refused(refusal)),
        _ => Err(malformed("neither a result nor an error")),
    }
}

/// Whether it is an answer, and to a command of another id.
pub(super) fn is_anothers(text: &[u8], id: u64) -> bool {
    serde_json::from_slice::<Envelope<Anything>>(text).is_ok_and(|answer| answer.id != Some(id))
}

/// Reads the answer to the command of that id, and forgets it.
pub(super) fn settled(text: &[u8], id: u64) -> Result<()> {
    answer::<Anything>(text, id).map(drop)
}

fn malformed(what: impl fmt::Display) -> Error {
    let what = quoted(&what.to_string());
    Error::new(ErrorKind::Malformed, format!("this is not QMP as QEMU speaks it: {what}"))
}

/// Words of a peer, short enough for an error.
pub(super) fn quoted(words: &str) -> String {
    words.chars().take(QUOTE_CHARS_MAX).collect()
}

impl StatsSchemaValue {
    /// The statistic as a descriptor of one word at offset 0. `None` for a linear histogram without
    /// a bucket width, of which nobody could say what it counts.
    pub(super) fn desc(&self) -> Option<Desc> {
        let stat_type = match &*self.stat_type {
            "cumulative" => StatType::Cumulative,
            "instant" => StatType::Instant,
            "peak" => StatType::Peak,
            "linear-histogram" => StatType::LinearHistogram,
            "log2-histogram" => StatType::Log2Histogram,
            _ => StatType::Unknown(UNKNOWN),
        };
        let unit = match self.unit.as_deref() {
            None => Unit::None,
            Some("bytes") => Unit::Bytes,
            Some("seconds") => Unit::Seconds,
            Some("cycles") => Unit::Cycles,
            Some("boolean") => Unit::Boolean,
            Some(_) => Unit::Unknown(UNKNOWN),
        };
        let base = match self.base {
            Some(StatValue::Number(2)) => Base::Two,
            Some(StatValue::Number(10)) => Base::Ten,
            // QEMU leaves it out where it does not matter.
            None if self.exponent == 0 => Base::Ten,
            _ => Base::Unknown(UNKNOWN),
        };
        let scale = Scale { base, exponent: self.exponent };
        let is_linear = stat_type == StatType::LinearHistogram;
        let bucket_size = if is_linear { self.bucket_size } else { 0 };
        let plain = Desc::counter(&self.name, 0);
        let desc = Desc { stat_type, unit, scale, bucket_size, ..plain };
        (!is_linear || bucket_size > 0).then_some(desc)
    }
}

impl<'de> Deserialize<'de> for StatValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        from.deserialize_any(AnyValue)
    }
}

/// Takes whatever JSON has.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = StatValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<StatValue, E> {
        Ok(StatValue::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<StatValue, E> {
        Ok(StatValue::Number(value))
    }

    // Only of negative numbers.
    fn visit_i64<E>(self, _: i64) -> std::result::Result<StatValue, E> {
        Ok(StatValue::Unreadable)
    }

    // Of fractions, and of numbers from 2^64 on.
    fn visit_f64<E>(self, _: f64) -> std::result::Result<StatValue, E> {
        Ok(StatValue::Unreadable)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<StatValue, E> {
        Ok(StatValue::Unreadable)
    }

    fn visit_unit<E>(self) -> std::result::Result<StatValue, E> {
        Ok(StatValue::Unreadable)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<StatValue, A::Error> {
        let (mut words, mut is_readable) = (Vec::new(), true);
        while let Some(value) = list.next_element()? {
            match value {
                StatValue::Number(word) if is_readable && words.len() < MAX_BUCKETS => {
                    words.push(word);
                }
                _ => is_readable = false,
            }
        }
        Ok(if is_readable { StatValue::List(words) } else { StatValue::Unreadable })
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut members: A,
    ) -> std::result::Result<StatValue, A::Error> {
        while members.next_entry::<Anything, Anything>()?.is_some() {}
        Ok(StatValue::Unreadable)
    }
}
