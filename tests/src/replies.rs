//! The comparison of two servers' replies to the same requests.
//!
//! Invariant: every difference is found. The permitted differences are named here and nowhere else:
//! in the default mode the order of lists, in both modes the text of a parse error.

use serde_json::{Deserializer, Value};

use crate::requests::Wanted;

/// The likeness that replies must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alike {
    /// Equal but for the order of lists, lines and members in the result: the default mode of a
    /// server.
    InAnyOrder,
    /// Equal byte for byte: a server with `--qemu-order`, or QEMU itself.
    Exactly,
}

/// Returns the reason why these cannot be the replies to the same request; `None` if they can.
pub fn difference(
    wanted: Wanted,
    alike: Alike,
    theirs: &[Vec<u8>],
    ours: &[Vec<u8>],
) -> Option<String> {
    match wanted {
        Wanted::ParseError => {
            let silent = |lines: &[Vec<u8>]| !lines.iter().any(|line| is_parse_error(line));
            let who = match (silent(theirs), silent(ours)) {
                (false, false) => return None,
                (true, _) => "QEMU has",
                (false, true) => "we have",
            };
            Some(format!("{who} no JSON parse error for it"))
        }
        _ if theirs.len() != 1 => Some("QEMU answers not once".to_owned()),
        _ if ours.len() != 1 => Some(format!("{} replies", ours.len())),
        Wanted::SameInQemuOrder if alike == Alike::InAnyOrder => None,
        _ if theirs[0] == ours[0] => None,
        _ if alike == Alike::Exactly => Some("the bytes differ".to_owned()),
        _ => (canonical(&theirs[0]) != canonical(&ours[0])).then(|| "the JSON differs".to_owned()),
    }
}

/// Returns true for `{"error": {"class": "GenericError", "desc": "JSON parse error..."}}` without
/// an `id`.
fn is_parse_error(line: &[u8]) -> bool {
    let start = br#"{"error": {"class": "GenericError", "desc": "JSON parse error"#;
    line.starts_with(start) && serde_json::from_slice::<Value>(line).is_ok()
}

/// Returns a reply with its `return` sorted, so that the order of lists does not matter; all that
/// comes behind it, such as the `id`, is unchanged. Any other reply is returned whole.
fn canonical(line: &[u8]) -> (Option<Value>, &[u8]) {
    let Some(rest) = line.strip_prefix(b"{\"return\": ") else { return (None, line) };
    let mut values = Deserializer::from_slice(rest).into_iter::<Value>();
    let Some(Ok(mut value)) = values.next() else { return (None, line) };
    sort(&mut value);
    (Some(value), &rest[values.byte_offset()..])
}

fn sort(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(sort),
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_cached_key(Value::to_string);
        }
        Value::String(text) => {
            // The text of `info stats`: lines, in some of them buckets by their number.
            let mut lines: Vec<String> = text.split("\r\n").map(sorted_buckets).collect();
            lines.sort();
            *text = lines.join("\r\n");
        }
        _ => (),
    }
}

/// Turns `    a (b): [1]=7 [2]=5 ` into `    a (b): =5 =7 `: each value without its number, sorted.
fn sorted_buckets(line: &str) -> String {
    let Some((name, values)) = line.split_once(": [1]=") else { return line.to_owned() };
    let values = format!("[1]={values}");
    let mut values: Vec<&str> = values
        .split(' ')
        .map(|value| value.split_once(']').map_or(value, |(_, value)| value))
        .collect();
    values.sort_unstable();
    format!("{name}: {}", values.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differ(alike: Alike, theirs: &str, ours: &str) -> bool {
        let lines = |text: &str| vec![text.as_bytes().to_vec()];
        difference(Wanted::Same, alike, &lines(theirs), &lines(ours)).is_some()
    }

    #[test]
    fn lists_may_differ_in_order_only_in_the_default_mode() {
        let line = |text: &str| format!(r#"{{"return": "a: [1]=1 [2]=20 \r\n{text}\r\n"}}"#);
        for (theirs, ours) in [
            (
                r#"{"return": [{"a": 1}, {"a": [3, 2]}]}"#,
                r#"{"return": [{"a": [2, 3]}, {"a": 1}]}"#,
            ),
            (r#"{"return": {"a": 1, "b": 2}}"#, r#"{"return": {"b": 2, "a": 1}}"#),
            (r#"{"return": "a\r\nb: [1]=2 [2]=1 "}"#, r#"{"return": "b: [1]=1 [2]=2 \r\na"}"#),
        ] {
            assert!(!differ(Alike::InAnyOrder, theirs, ours), "{theirs} {ours}");
            assert!(differ(Alike::Exactly, theirs, ours), "{theirs} {ours}");
        }
        for (theirs, ours) in [
            (r#"{"return": [1, 1]}"#, r#"{"return": [1]}"#),
            (r#"{"return": [], "id": [1, 2]}"#, r#"{"return": [], "id": [2, 1]}"#),
            (r#"{"return": [], "id": 1}"#, r#"{"id": 1, "return": []}"#),
            (r#"{"id": 1, "error": {}}"#, r#"{"error": {}, "id": 1}"#),
            (r#"{"return": [{"a": 1}]}"#, r#"{"return": [{"a": 1}], "id": 1}"#),
            (r#"{"return": [{"a": true}]}"#, r#"{"return": [{"a": 1}]}"#),
            (&*line("b (x): 1"), &*line("b (y): 1")),
            (&*line("b: [1]=1 [2]=2 "), &*line("b: [1]=1 [2]=3 ")),
            (&*line("b: [1]=1 "), &*line("b: [1]=1 [2]=1 ")),
        ] {
            assert!(differ(Alike::InAnyOrder, theirs, ours), "{theirs} {ours}");
        }
    }

    #[test]
    fn parse_errors_may_differ_in_text_and_number() {
        let error = |class: &str, desc: &str| {
            format!(r#"{{"error": {{"class": "{class}", "desc": "{desc}"}}}}"#).into_bytes()
        };
        let theirs = [error("GenericError", "JSON parse error, stray 'T'")];
        let differ = |ours: &[Vec<u8>]| {
            difference(Wanted::ParseError, Alike::Exactly, &theirs, ours).is_some()
        };
        assert!(!differ(&[error("GenericError", "JSON parse error: at byte 7")]));
        assert!(!differ(&[
            error("GenericError", "other"),
            error("GenericError", "JSON parse error")
        ]));
        assert!(differ(&[error("CommandNotFound", "JSON parse error")]));
        assert!(differ(&[error("GenericError", "other")]));
        assert!(differ(&[]));
    }
}
