//! JSON as a tree that remembers how its numbers are spelled, and the many ways to write it.
//!
//! Invariant: what is written is JSON by RFC 8259, and means the same to QEMU's reader, which
//! departs from it: no `-0`, no exponent behind a bare 0, no number beyond a double's range, no
//! NUL and no noncharacter in a string.

use fastrand::Rng;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is spelled.
    Number(String),
    /// A string, as it is meant.
    String(String),
    /// An array.
    List(Vec<Json>),
    /// An object, its members in the order in which they are sent.
    Dict(Vec<(String, Json)>),
}

/// The spelling of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Without white space.
    Tight,
    /// As Python writes it.
    Plain,
    /// White space of every kind anywhere, and characters escaped that need not be.
    Wild,
}

const SPACES: [&str; 8] = ["", "", "", " ", "\t", "\n", "\r\n", "  \n\t"];

impl Style {
    pub(super) fn any(rng: &mut Rng) -> Style {
        [Style::Tight, Style::Plain, Style::Plain, Style::Wild][rng.usize(..4)]
    }

    /// Writes what may stand between two tokens.
    pub(super) fn space(self, rng: &mut Rng, out: &mut Vec<u8>) {
        if self == Style::Wild {
            out.extend_from_slice(SPACES[rng.usize(..SPACES.len())].as_bytes());
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::String(text.to_owned())
    }
}

impl From<i64> for Json {
    fn from(number: i64) -> Json {
        Json::Number(number.to_string())
    }
}

impl Json {
    /// An object of these members.
    pub fn dict<const N: usize>(members: [(&str, Json); N]) -> Json {
        Json::Dict(members.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// The member of that name, of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let Json::Dict(members) = self else { return None };
        members.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Json::String(text) = self { Some(text) } else { None }
    }

    /// Returns the number of values that it holds, itself among them.
    pub(super) fn count(&self) -> usize {
        let below: usize = match self {
            Json::List(items) => items.iter().map(Json::count).sum(),
            Json::Dict(members) => members.iter().map(|(_, value)| value.count()).sum(),
            _ => 0,
        };
        1 + below
    }

    /// Its `n`th value, itself being the first.
    pub(super) fn nth_mut(&mut self, n: usize) -> Option<&mut Json> {
        if n == 0 {
            return Some(self);
        }
        let below: Vec<&mut Json> = match self {
            Json::List(items) => items.iter_mut().collect(),
            Json::Dict(members) => members.iter_mut().map(|(_, value)| value).collect(),
            _ => return None,
        };
        let mut n = n - 1;
        for child in below {
            let count = child.count();
            if n < count {
                return child.nth_mut(n);
            }
            n -= count;
        }
        None
    }
}

/// The text of a value in that style.
pub(super) fn text(rng: &mut Rng, value: &Json, style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    style.space(rng, &mut out);
    for token in tokens(rng, value, style) {
        out.extend_from_slice(&token);
        style.space(rng, &mut out);
        if style == Style::Plain && matches!(token[..], [b',' | b':']) {
            out.push(b' ');
        }
    }
    // Only what follows shows that such a number or word is over.
    if matches!(value, Json::Null | Json::Bool(_) | Json::Number(_)) {
        out.push(b'\n');
    }
    out
}

/// The tokens of a value: brackets, commas, colons, and scalars as they are spelled.
pub(super) fn tokens(rng: &mut Rng, value: &Json, style: Style) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    push_tokens(rng, value, style, &mut out);
    out
}

fn push_tokens(rng: &mut Rng, value: &Json, style: Style, out: &mut Vec<Vec<u8>>) {
    let mark = |text: &str| text.as_bytes().to_vec();
    match value {
        Json::Null => out.push(mark("null")),
        Json::Bool(truth) => out.push(mark(if *truth { "true" } else { "false" })),
        Json::Number(spelled) => out.push(mark(spelled)),
        Json::String(text) => out.push(quoted(rng, text, style)),
        Json::List(items) => {
            out.push(mark("["));
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(mark(","));
                }
                push_tokens(rng, item, style, out);
            }
            out.push(mark("]"));
        }
        Json::Dict(members) => {
            out.push(mark("{"));
            for (i, (name, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(mark(","));
                }
                out.push(quoted(rng, name, style));
                out.push(mark(":"));
                push_tokens(rng, value, style, out);
            }
            out.push(mark("}"));
        }
    }
}

/// A string's token. What must be escaped is; in [`Style::Wild`] also what need not be.
fn quoted(rng: &mut Rng, text: &str, style: Style) -> Vec<u8> {
    let mut out = String::from("\"");
    for c in text.chars() {
        let short = match c {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '/' => Some("\\/"),
            '\u{8}' => Some("\\b"),
            '\u{c}' => Some("\\f"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            _ => None,
        };
        let must = c < ' ' || c == '"' || c == '\\';
        if !must && (style != Style::Wild || rng.u32(..4) > 0) {
            out.push(c);
        } else if let Some(short) = short.filter(|_| rng.bool()) {
            out.push_str(short);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let hex = if rng.bool() { format!("{unit:04x}") } else { format!("{unit:04X}") };
                out.push_str("\\u");
                out.push_str(&hex);
            }
        }
    }
    out.push('"');
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_means_the_same() {
        let value = Json::dict([
            ("a/\"\\\n\u{7f}é😀", Json::List(vec![Json::Null, Json::Bool(true), 7.into()])),
            ("b", Json::dict([("c", Json::Number("1.5e3".to_owned())), ("d", "".into())])),
        ]);
        let want = serde_json::json!({
            "a/\"\\\n\u{7f}é😀": [null, true, 7], "b": {"c": 1500.0, "d": ""},
        });
        let mut rng = Rng::with_seed(0);
        for _ in 0..300 {
            let style = Style::any(&mut rng);
            let text = text(&mut rng, &value, style);
            let parsed: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(parsed, want, "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn each_value_has_its_number() {
        let mut value =
            Json::List(vec![Json::dict([("a", Json::Null), ("b", 1.into())]), 2.into()]);
        assert_eq!(value.count(), 5);
        assert_eq!(value.nth_mut(3), Some(&mut 1.into()));
        assert_eq!(value.nth_mut(4), Some(&mut 2.into()));
        assert_eq!(value.nth_mut(5), None);
    }
}
