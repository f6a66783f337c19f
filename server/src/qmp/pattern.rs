//! Recognises repeated requests by their bytes. A client that polls sends the same request again,
//! with another `id` each time.
//!
//! Invariant: a recognised request equals, as JSON, the request of the pattern except for the value
//! of its `id`. QEMU would echo that value byte for byte.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest request that is kept for recognition. A longer one is parsed each time.
const MAX_PATTERN_BYTES: usize = 4096;
/// The longest id that is recognised. A request with a longer one is parsed.
const MAX_ID_BYTES: usize = 64;
/// The most digits of a number that is certainly echoed unchanged.
const MAX_ID_DIGITS: usize = 18;

/// The bytes of a request around the value of its id.
#[derive(Debug)]
pub(super) struct Pattern {
    before: Box<[u8]>,
    /// The bytes after the id; `None` for a request without an id, all of which is in `before`.
    after: Option<Box<[u8]>>,
}

/// A request that was recognised.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recognised<'t> {
    /// The length of the request in bytes.
    pub(super) bytes: usize,
    /// The id, as it is to be echoed.
    pub(super) id: Option<&'t [u8]>,
}

#[derive(Deserialize)]
struct Envelope<'t> {
    // Not an `Option`, because null is an id, and a missing id is an error here.
    #[serde(borrow)]
    id: &'t RawValue,
}

impl Pattern {
    /// Makes the pattern of a request's text, with or without an id. `None` if the text is too
    /// long, or the id cannot be found, as in a text with QEMU's extensions of JSON.
    pub(super) fn new(text: &[u8], has_id: bool) -> Option<Self> {
        if text.len() > MAX_PATTERN_BYTES {
            return None;
        }
        if !has_id {
            return Some(Self { before: text.into(), after: None });
        }
        let id = id_in(text)?;
        Some(Self { before: text[..id.start].into(), after: Some(text[id.end..].into()) })
    }

    /// Returns the bytes of memory that the pattern refers to.
    pub(super) fn bytes(&self) -> usize {
        self.before.len() + self.after.as_ref().map_or(0, |after| after.len())
    }

    /// Recognises the request if `bytes` begin with it.
    #[inline]
    pub(super) fn find<'t>(&self, bytes: &'t [u8]) -> Option<Recognised<'t>> {
        let rest = bytes.strip_prefix(&*self.before)?;
        let Some(after) = &self.after else {
            return Some(Recognised { bytes: self.before.len(), id: None });
        };
        let id = plain_id(rest)?;
        rest[id.len()..].strip_prefix(&**after)?;
        Some(Recognised { bytes: self.before.len() + id.len() + after.len(), id: Some(id) })
    }
}

/// Returns the range of the id's value in the text.
fn id_in(text: &[u8]) -> Option<Range<usize>> {
    let id = serde_json::from_slice::<Envelope<'_>>(text).ok()?.id.get();
    let start = id.as_ptr() as usize - text.as_ptr() as usize;
    Some(start..start + id.len())
}

/// Returns a number or string at the begin of `bytes` that is echoed unchanged and certainly ends
/// there.
fn plain_id(bytes: &[u8]) -> Option<&[u8]> {
    let (first, rest) = bytes.split_first()?;
    match first {
        b'"' => {
            let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
            let length = rest.iter().take(MAX_ID_BYTES).take_while(|byte| is_plain(byte)).count();
            (rest.get(length) == Some(&b'"')).then(|| &bytes[..length + 2])
        }
        b'0'..=b'9' => {
            let digits = bytes.iter().take(MAX_ID_DIGITS + 1).take_while(|b| b.is_ascii_digit());
            let length = digits.count();
            // The bytes that follow must equal those of the pattern, which begin with no digit, dot
            // or exponent.
            let is_plain = length <= MAX_ID_DIGITS && (*first != b'0' || length == 1);
            is_plain.then(|| &bytes[..length])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(of: &str, bytes: &str) -> Option<(usize, Option<String>)> {
        let pattern = Pattern::new(of.as_bytes(), of.contains("id\""));
        let found = pattern?.find(bytes.as_bytes())?;
        let id = found.id.map(|id| String::from_utf8(id.to_vec()).unwrap());
        Some((found.bytes, id))
    }

    #[test]
    fn only_the_id_may_differ() {
        let first = r#"{"execute": "query-stats", "id": 7, "arguments": {"id": 1}}"#;
        let some = |length: usize, id: &str| Some((length, Some(id.to_owned())));
        for (bytes, want) in [
            (first.to_owned(), some(first.len(), "7")),
            (format!("{first}\n{first}"), some(first.len(), "7")),
            (first.replace('7', "815"), some(first.len() + 2, "815")),
            (first.replace('7', r#""libvirt-3""#), some(first.len() + 10, r#""libvirt-3""#)),
            (first.replace('7', r#""""#), some(first.len() + 1, r#""""#)),
            (first.replace('7', "0"), some(first.len(), "0")),
            (first.replace('7', "07"), None),
            (first.replace('7', "-7"), None),
            (first.replace('7', "7.0"), None),
            (first.replace('7', "7e1"), None),
            (first.replace('7', " 7"), None),
            (first.replace('7', "1234567890123456789"), None),
            (first.replace('7', r#""\n""#), None),
            (first.replace('7', r#""é""#), None),
            (first.replace('7', "\"\u{7f}\""), None),
            (first.replace('7', r#""a", "x": "b""#), None),
            (first.replace('7', &format!("\"{}\"", "x".repeat(MAX_ID_BYTES + 1))), None),
            (first.replace('7', "[7]"), None),
            (first.replace(": 1", ": 2"), None),
            (first[..first.len() - 1].to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(found(first, &bytes), want, "{bytes}");
        }
    }

    #[test]
    fn any_id_leaves_its_place() {
        for id in [r#"{"a": [1, "}"]}"#, "null", "-1e5", r#""\u0041""#, "12"] {
            let text = format!(r#"{{"id":{id} ,"execute":"x"}}"#);
            let other = text.replace(id, "5");
            assert_eq!(found(&text, &other), Some((other.len(), Some("5".to_owned()))), "{id}");
        }
    }

    #[test]
    fn an_id_that_is_not_found_is_not_left_out() {
        let text = br#"{'execute': 'query-stats', 'id': 1}"#;
        assert!(Pattern::new(text, true).is_none());
    }

    #[test]
    fn a_long_request_is_not_kept() {
        let text = |spaces: usize| format!(r#"{{"id": 1{}}}"#, " ".repeat(spaces));
        let longest = MAX_PATTERN_BYTES - text(0).len();
        assert!(Pattern::new(text(longest).as_bytes(), true).is_some());
        assert!(Pattern::new(text(longest + 1).as_bytes(), true).is_none());
        assert!(Pattern::new(text(longest + 1).as_bytes(), false).is_none());
    }

    #[test]
    fn without_an_id_it_is_all_the_same() {
        let text = r#"{"execute": "query-stats"}"#;
        assert_eq!(found(text, &format!("{text}  ")), Some((text.len(), None)));
        assert_eq!(found(text, r#"{"execute": "query-stats", "id": 1}"#), None);
    }
}
