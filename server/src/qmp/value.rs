//! JSON values, and their text in QEMU's order and spelling.
//!
//! Invariant: no object of a value has a key twice. Numbers are those of QEMU: an integer is an
//! `i64`, else a `u64`, else a double.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

/// A JSON value. Its strings are borrowed from the text if they have no escapes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer that is no `i64`.
    Uint(u64),
    Double(f64),
    String(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Dict(Dict<'a>),
}

/// A JSON object, with its members in the order in which they were sent. No key stands twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Dict<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl Value<'_> {
    /// Returns the value with strings of its own.
    pub(super) fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Bool(bool) => Value::Bool(bool),
            Value::Int(int) => Value::Int(int),
            Value::Uint(uint) => Value::Uint(uint),
            Value::Double(double) => Value::Double(double),
            Value::String(string) => Value::String(Cow::Owned(string.into_owned())),
            Value::List(items) => Value::List(own_items(items)),
            Value::Dict(dict) => Value::Dict(dict.into_owned()),
        }
    }
}

/// The bytes that an allocation takes besides its contents.
const ALLOCATION_BYTES: usize = 32;

impl Value<'_> {
    /// Returns the bytes of memory that an owned value refers to.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Value::String(string) => string.len() + ALLOCATION_BYTES,
            Value::List(items) => {
                let item = |item: &Value<'_>| size_of::<Value<'_>>() + item.bytes();
                items.iter().map(item).sum::<usize>() + ALLOCATION_BYTES
            }
            Value::Dict(dict) => dict.bytes(),
            _ => 0,
        }
    }
}

/// Makes each item own its strings. It is a function of its own, so that a level of nesting takes
/// less of the stack.
fn own_items(items: Vec<Value<'_>>) -> Vec<Value<'static>> {
    let mut owned = Vec::with_capacity(items.len());
    for item in items {
        owned.push(item.into_owned());
    }
    owned
}

impl<'a> Dict<'a> {
    /// Makes an object of these members, in the order in which they were sent. No key stands twice.
    pub(super) fn new(members: Vec<(Cow<'a, str>, Value<'a>)>) -> Self {
        Self(members)
    }

    /// Returns the value of a member.
    pub(super) fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Returns the members in the order in which they were sent.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value<'a>)> + Clone {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Returns the number of members.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the bytes of memory that an owned object refers to.
    pub(super) fn bytes(&self) -> usize {
        let member = |(name, value): &(Cow<'_, str>, Value<'_>)| {
            size_of::<(Cow<'_, str>, Value<'_>)>() + name.len() + ALLOCATION_BYTES + value.bytes()
        };
        self.0.iter().map(member).sum::<usize>() + ALLOCATION_BYTES
    }

    /// Returns the object with strings of its own.
    pub(super) fn into_owned(self) -> Dict<'static> {
        let mut owned = Vec::with_capacity(self.0.len());
        for (name, value) in self.0 {
            let value = value.into_owned();
            owned.push((Cow::Owned(name.into_owned()), value));
        }
        Dict(owned)
    }
}

impl<'a> IntoIterator for Dict<'a> {
    type Item = (Cow<'a, str>, Value<'a>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(bool) => serializer.serialize_bool(*bool),
            Value::Int(int) => serializer.serialize_i64(*int),
            Value::Uint(uint) => serializer.serialize_u64(*uint),
            Value::Double(double) => Double(*double).serialize(serializer),
            Value::String(string) => serializer.serialize_str(string),
            Value::List(items) => serializer.collect_seq(items),
            Value::Dict(dict) => dict.serialize(serializer),
        }
    }
}

impl Serialize for Dict<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.in_qemus_order() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The number of buckets of a `QDict`.
const BUCKETS: u32 = 512;

impl<'a> Dict<'a> {
    /// Returns the members in the order in which QEMU writes a `QDict`: by the bucket of the key,
    /// and within a bucket the one that was sent last first.
    fn in_qemus_order(&self) -> Vec<&(Cow<'a, str>, Value<'a>)> {
        let mut members: Vec<_> = self.0.iter().rev().collect();
        members.sort_by_cached_key(|(name, _)| bucket(name));
        members
    }
}

/// Returns the bucket of a key in a `QDict`, 0 to 511, as QEMU's `qdict.c` computes it.
fn bucket(key: &str) -> u32 {
    let (mut sum, mut len, mut shift) = (0_u32, 0_u32, 0);
    // QEMU keeps a NUL as two bytes, so that it does not end the string.
    let bytes = key.bytes().flat_map(|byte| if byte == 0 { [0xC0, 0x80] } else { [byte, 0] });
    for byte in bytes.filter(|&byte| byte != 0) {
        sum = sum.wrapping_add(u32::from(byte) << shift);
        len = len.wrapping_add(1);
        shift = (shift + 5) % 24;
    }
    let sum = sum.wrapping_add(len.wrapping_mul(0x238F_13AF));
    sum.wrapping_mul(1_103_515_243).wrapping_add(12345) % BUCKETS
}

/// A double as QEMU writes it, with up to 17 digits. (Rust writes the fewest that identify it.)
struct Double(f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match RawValue::from_string(shortest_of_17(self.0)) {
            Ok(text) => text.serialize(serializer),
            // A double that is no JSON number; none is parsed from a text.
            Err(_) => serializer.serialize_f64(self.0),
        }
    }
}

/// Formats as C's `%.17g` does: at most 17 digits, no zeros at the end, and an exponent if it is
/// below -4 or above 16.
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
mod tests {
    use super::*;

    /// Each line was seen in a reply of QEMU 10.0.2.
    #[test]
    fn keys_stand_in_the_order_of_qemus_replies() {
        let table: &[&[&str]] = &[
            &["return", "id"],
            &["id", "error"],
            &["class", "desc"],
            &["provider", "stats", "qom-path"],
            &["name", "unit", "base", "bucket-size", "exponent", "type"],
            &["version", "capabilities"],
            &["timestamp", "event", "data"],
            &["seconds", "microseconds"],
            &["exec-oob", "execute", "arguments", "id"],
            &["m0", "timestamp", "m3", "", "m6", "m2", "class", "minor", "a", "m5", "b", "event"],
            &["m1", "desc", "return", "m4", "m7", "major", "id", "error", "data"],
            &["\u{e9}", "\u{65e5}\u{672c}", "z", "q"],
            &["\0a", "a", "b"],
        ];
        for want in table {
            let mut sent = want.to_vec();
            for _ in 0..sent.len() {
                sent.rotate_left(1);
                let dict =
                    Dict(sent.iter().map(|key| (Cow::Borrowed(*key), Value::Null)).collect());
                let got: Vec<_> = dict.in_qemus_order().into_iter().map(|(key, _)| key).collect();
                assert_eq!(got, *want, "sent as {sent:?}");
            }
        }
    }

    /// The expected texts are those of glibc's `printf`.
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
            assert_eq!(serde_json::to_string(&Double(value)).unwrap(), want);
        }
    }
}
