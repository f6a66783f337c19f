//! Parses a JSON text: RFC 8259, and QEMU's extensions, which are strings in single quotes, the
//! escape `\'`, and the integer -0, which is 0.
//!
//! Invariant: any other text is refused, and the cost of parsing is linear in the length of the
//! text (times its logarithm, for the keys of large objects). A text has at most [`MAX_VALUES`]
//! values, because a value takes far more memory than the 2 bytes that it can be written in.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::refusal::Refusal;
use super::value::{Dict, Value};

/// The most values in one text, including lists and objects. QEMU takes 2 Mi tokens. The longest
/// useful request is a list of paths of vCPUs, and has half of this number. A value takes up to 140
/// bytes, so all values of a text take up to 2.5 MiB.
pub(super) const MAX_VALUES: usize = 1 << 14;
/// The most members of an object that are compared each with each.
const FEW_MEMBERS: usize = 16;

/// Parses one JSON text.
///
/// # Errors
/// GenericError: `JSON parse error, ...` if the text is no JSON or an object in it has a key twice;
/// `JSON token count limit exceeded` if it has more than [`MAX_VALUES`] values.
pub(super) fn parse(text: &[u8]) -> Result<Value<'_>, Refusal> {
    // QEMU's extensions are rare, so they are looked for only if the text is no standard JSON.
    let usual = match read(text, false) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let value = match (usual, standard(text)) {
        (Failure::TooManyValues, _) => Err(Failure::TooManyValues),
        (Failure::Json(_), None) => read(text, true),
        (Failure::Json(_), Some(standard)) => read(&standard, true).map(Value::into_owned),
    };
    value.map_err(|failure| match failure {
        Failure::TooManyValues => Refusal::generic("JSON token count limit exceeded"),
        Failure::Json(error) => Refusal::generic(format!("JSON parse error, {}", reason(&error))),
    })
}

/// The reason why a text was not parsed.
enum Failure {
    /// The text has more than [`MAX_VALUES`] values.
    TooManyValues,
    Json(serde_json::Error),
}

fn read(text: &[u8], has_minus_zero: bool) -> Result<Value<'_>, Failure> {
    let left = Cell::new(Some(MAX_VALUES));
    let mut json = serde_json::Deserializer::from_slice(text);
    json.disable_recursion_limit();
    let value = Any { has_minus_zero, left: &left }.deserialize(&mut json);
    let value = value.and_then(|value| json.end().map(|()| value));
    value.map_err(|error| match left.get() {
        None => Failure::TooManyValues,
        Some(_) => Failure::Json(error),
    })
}

/// Returns the text of a parse error. As in QEMU, that for a duplicate key has no position.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((reason, _)) if error.is_data() => reason.to_owned(),
        _ => text,
    }
}

/// A visitor for any value.
#[derive(Clone, Copy)]
struct Any<'c> {
    /// Whether a double may be -0. Only this distinguishes an integer -0 in the text from -0.0.
    has_minus_zero: bool,
    /// The number of values that may still follow; `None` after one too many.
    left: &'c Cell<Option<usize>>,
}

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value<'de>, D::Error> {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(1)));
        if self.left.get().is_none() {
            return Err(D::Error::custom("too many values"));
        }
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(bool))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(int))
    }

    fn visit_u64<E>(self, uint: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(uint).map_or(Value::Uint(uint), Value::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, double: f64) -> Result<Value<'de>, E> {
        if double == 0.0 && double.is_sign_negative() && !self.has_minus_zero {
            return Err(E::custom("-0"));
        }
        Ok(Value::Double(double))
    }

    fn visit_borrowed_str<E>(self, string: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Borrowed(string)))
    }

    fn visit_str<E>(self, string: &str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Owned(string.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key_seed(Key)? {
            members.push((name, map.next_value_seed(self)?));
        }
        if has_twice(&members) {
            return Err(Error::custom("duplicate key"));
        }
        Ok(Value::Dict(Dict::new(members)))
    }
}

/// A visitor for a member's key.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Cow<'de, str>, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, string: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(string))
    }

    fn visit_str<E>(self, string: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(string.to_owned()))
    }
}

/// Returns whether two members have the same key, in less than quadratic time.
fn has_twice(members: &[(Cow<'_, str>, Value<'_>)]) -> bool {
    if members.len() <= FEW_MEMBERS {
        let mut rest = members;
        while let Some(((name, _), others)) = rest.split_first() {
            if others.iter().any(|(other, _)| other == name) {
                return true;
            }
            rest = others;
        }
        return false;
    }
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// Returns the text as RFC 8259 requires it; `None` if it needs no change.
fn standard(text: &[u8]) -> Option<Vec<u8>> {
    let mut standard = Vec::with_capacity(text.len());
    let (mut quote, mut at) = (None, 0);
    while let Some(&byte) = text.get(at) {
        let next = text.get(at + 1).copied();
        match (quote, byte) {
            (Some(_), b'\\') if next == Some(b'\'') => {
                standard.push(b'\'');
                at += 1;
            }
            (Some(_), b'\\') => {
                standard.push(byte);
                standard.extend(next);
                at += 1;
            }
            (Some(open), _) if byte == open => {
                standard.push(b'"');
                quote = None;
            }
            (Some(_), b'"') => standard.extend(b"\\\""),
            (None, b'"' | b'\'') => {
                standard.push(b'"');
                quote = Some(byte);
            }
            // A blank, so that the token before it is not joined to the 0.
            (None, b'-') if is_integer_zero(text, at) => standard.push(b' '),
            _ => standard.push(byte),
        }
        at += 1;
    }
    (standard != text).then_some(standard)
}

/// Returns whether the minus at `at` is the sign of an integer 0, and not of an exponent.
fn is_integer_zero(text: &[u8], at: usize) -> bool {
    let is_exponent = at > 0 && matches!(text[at - 1], b'e' | b'E');
    let after = text.get(at + 2).copied();
    !is_exponent
        && text.get(at + 1) == Some(&b'0')
        && !matches!(after, Some(b'.' | b'e' | b'E' | b'0'..=b'9'))
}

#[cfg(test)]
mod tests;
