//! Texts that are no JSON: a good request with one thing wrong in its grammar or in one of its
//! tokens.
//!
//! Invariant: whatever of it a reader skips, its brackets are balanced or it ends in more closing
//! ones than it opened, and its strings end with it or with a line: what follows on a new line is
//! a request of its own.

use fastrand::Rng;

use super::json::{Json, Style, tokens};
use super::word::one_of;

/// Texts that are no JSON token. None of them holds a bracket or a quotation mark.
const STRAY: &[&[u8]] = &[
    b"nul",
    b"TRUE",
    b"NaN",
    b"Infinity",
    b"undefined",
    b"01",
    b"-01",
    b"1.",
    b".5",
    b"+1",
    b"-",
    b"1e",
    b"1e+",
    b"0x1",
    b"--1",
    b"%s",
    b"%",
    b"@",
    b"#",
    b"/* x */",
    b"// x",
    b"\\",
    b"\x01",
    b"\x1b",
    b"\x7f",
    b"\xff",
    b"\xfe",
    b"\xc3",
    b"\xef\xbb\xbf",
    b"=",
    b";",
    "é".as_bytes(),
];

/// Strings that are none: a bad escape, half a character, a control character, no end.
const BAD_STRINGS: &[&[u8]] = &[
    b"\"\\x\"",
    b"\"\\u12g4\"",
    b"\"\\u12\"",
    b"\"\\U0041\"",
    b"\"\\uD800\"",
    b"\"\\uDC00\"",
    b"\"\\uD800\\u0041\"",
    b"\"\\uD800x\"",
    b"\"\xc3(\"",
    b"\"\x80\"",
    b"\"\xe2\x82\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"\"\xff\"",
    b"\"\xfe\"",
    b"\"\t\"",
    b"\"a\nb\"",
    b"\"\r\n\"",
    b"\"\x00\"",
    b"\"\x1f\"",
    b"\"no end\n",
];

/// The text of that value with something wrong.
pub(super) fn text(rng: &mut Rng, value: &Json, style: Style) -> Vec<u8> {
    // Where there are members, there is more to break.
    let twice = || Json::List(vec![Json::dict([("twice", 1.into())])]);
    let value = Json::dict([("a", value.clone()), ("b", 1.into()), ("c", twice())]);
    let mut tokens = tokens(rng, &value, style);
    break_one(rng, &mut tokens);
    let mut text = Vec::new();
    for token in tokens {
        text.extend_from_slice(&token);
        style.space(rng, &mut text);
    }
    text
}

fn break_one(rng: &mut Rng, tokens: &mut Vec<Vec<u8>>) {
    // Of the first and the last bracket of all, the one opens what the other ends.
    let (first, last) = (1, tokens.len() - 1);
    let is = |token: &[u8], of: &[u8]| matches!(token, [byte] if of.contains(byte));
    let mut places = |wanted: &dyn Fn(&[u8]) -> bool| {
        let found: Vec<usize> = (first..last).filter(|at| wanted(&tokens[*at])).collect();
        found[rng.usize(..found.len())]
    };
    let comma = places(&|token| is(token, b","));
    let mark = places(&|token| is(token, b",:"));
    let closing = places(&|token| is(token, b"]}"));
    let string = places(&|token| token[0] == b'"');
    let scalar = places(&|token| !is(token, b"[]{},:"));
    let any = places(&|_| true);
    match rng.u32(..10) {
        0 => tokens[mark] = b" ".to_vec(),
        1 => tokens.insert(comma, b",".to_vec()),
        2 => tokens.insert(closing, b",".to_vec()),
        3 => tokens[closing] = if tokens[closing] == b"]" { b"}" } else { b"]" }.to_vec(),
        4 => tokens.push(one_of(rng, &[&b"}"[..], b"]", b",", b":", b"]]}}"]).to_vec()),
        5 => tokens.insert(0, one_of(rng, &[&b"}"[..], b"]", b",", b":"]).to_vec()),
        6 => tokens[string] = one_of(rng, BAD_STRINGS).to_vec(),
        // Apart from what stands beside it, with which it might be a token.
        7 => tokens.insert(any, [&b" "[..], one_of(rng, STRAY), b" "].concat()),
        8 => tokens[scalar] = [&b" "[..], one_of(rng, STRAY), b" "].concat(),
        // `{"a": ..., "b": 1, "c": [{"twice": 1}]}`: the innermost object's end.
        _ => tokens.splice(last - 2..last - 2, [b",\"\\u0074wice\":2".to_vec()]).for_each(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_closes_than_opens() {
        let value = Json::dict([("execute", "x".into()), ("id", Json::List(vec![Json::Null]))]);
        let mut rng = Rng::with_seed(8);
        for _ in 0..2000 {
            let text = text(&mut rng, &value, Style::Tight);
            let count = |of: &[u8]| text.iter().filter(|byte| of.contains(byte)).count();
            let (opened, closed) = (count(b"[{"), count(b"]}"));
            assert!(opened <= closed, "{}", String::from_utf8_lossy(&text));
        }
    }
}
