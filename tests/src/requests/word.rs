//! Words, strings, numbers and whole values at random.
//!
//! Invariant: no word of these is a command of QEMU, over QMP or typed, whether as a whole or by
//! its first part, so that wherever one ends up, nothing happens to QEMU.

use fastrand::Rng;

use super::Vocabulary;
use super::json::Json;

/// The depth to which values nest, but for the few that are made deep on purpose.
const DEPTH: u32 = 4;

/// The depth of those few: three of them, one in the other, are less than QEMU's 1024.
const VERY_DEEP: usize = 300;

/// The length of the longest strings, in characters. QEMU takes some us for each byte.
const LONG: usize = 3000;

/// Words of the protocol itself.
const WORDS: &[&str] = &[
    "kvm",
    "cryptodev",
    "vm",
    "vcpu",
    "KVM",
    "Vm",
    "vcpus",
    "names",
    "target",
    "provider",
    "providers",
    "execute",
    "exec-oob",
    "arguments",
    "oob",
    "null",
    "*",
    "nope",
    "exits,halt_wait_ns",
    "",
];

/// Numbers by their spelling. Those at which integers become doubles, and forms of doubles.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "42",
    "2147483647",
    "2147483648",
    "-2147483649",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "0.0",
    "1.0",
    "0.1",
    "-0.5",
    "1e5",
    "1E5",
    "1e+5",
    "1e-5",
    "1.5e300",
    "2.2250738585072014e-308",
    "4.9e-324",
    "1.7976931348623157e308",
    "3.141592653589793238462643383279",
    "100000000000000000000",
    "0.30000000000000004",
    "5e-1",
    "123456.789e3",
];

/// One of these.
pub(super) fn one_of<'a, T: ?Sized>(rng: &mut Rng, of: &[&'a T]) -> &'a T {
    of[rng.usize(..of.len())]
}

/// True once in so many times.
pub(super) fn once_in(rng: &mut Rng, times: u32) -> bool {
    rng.u32(..times) == 0
}

/// Any value.
pub(super) fn any(rng: &mut Rng, vocabulary: &Vocabulary) -> Json {
    if once_in(rng, 200) {
        let leaf = Json::List(Vec::new());
        return (0..VERY_DEEP).fold(leaf, |inner, i| match i % 3 {
            0 => Json::dict([("a", inner)]),
            _ => Json::List(vec![inner]),
        });
    }
    value(rng, vocabulary, DEPTH)
}

fn value(rng: &mut Rng, vocabulary: &Vocabulary, depth: u32) -> Json {
    let kinds = if depth == 0 { 6 } else { 9 };
    match rng.u32(..kinds) {
        0 => Json::Null,
        1 => Json::Bool(rng.bool()),
        2 | 3 => Json::Number(number(rng)),
        4 | 5 => Json::String(string(rng, vocabulary)),
        6 | 7 => {
            let count = rng.usize(..4);
            Json::List((0..count).map(|_| value(rng, vocabulary, depth - 1)).collect())
        }
        _ => {
            let mut members: Vec<(String, Json)> = Vec::new();
            for _ in 0..rng.usize(..6) {
                let name = string(rng, vocabulary);
                if members.iter().all(|(known, _)| *known != name) {
                    members.push((name, value(rng, vocabulary, depth - 1)));
                }
            }
            Json::Dict(members)
        }
    }
}

/// A number's spelling: one of the well-known, an integer of any size, or a double of any.
fn number(rng: &mut Rng) -> String {
    match rng.u32(..4) {
        0 | 1 => one_of(rng, NUMBERS).to_owned(),
        2 => {
            let bits = rng.u32(1..=64);
            (rng.u64(..) >> (64 - bits)).to_string()
        }
        _ => {
            let double = f64::from_bits(rng.u64(..));
            // An infinity has no spelling; a zero may have a sign.
            if !double.is_finite() || double == 0.0 {
                return "1.25".to_owned();
            }
            if rng.bool() { format!("{double:e}") } else { format!("{:.3e}", double.abs().sqrt()) }
        }
    }
}

/// A string: a word that means something somewhere, or one that means nothing anywhere.
pub(super) fn string(rng: &mut Rng, vocabulary: &Vocabulary) -> String {
    match rng.u32(..5) {
        0 => one_of(rng, WORDS).to_owned(),
        1 => vocabulary.names[rng.usize(..vocabulary.names.len())].clone(),
        2 => vocabulary.vcpus[rng.usize(..vocabulary.vcpus.len())].clone(),
        _ => weird(rng),
    }
}

/// A text of characters of every kind. The first of them begins no command.
pub(super) fn weird(rng: &mut Rng) -> String {
    let mut text =
        String::from(one_of(rng, &["Z", "Y_", "%d", "~", "é", "{", "😀", "\u{7f}", "0", "\\"]));
    let count = if once_in(rng, 200) { LONG } else { rng.usize(..12) };
    text.extend((0..count).map(|_| character(rng)));
    text
}

/// A character, neither NUL nor a noncharacter.
fn character(rng: &mut Rng) -> char {
    let c = match rng.u32(..8) {
        0 => rng.char('\u{1}'..='\u{1f}'),
        1 => rng.char('\u{7f}'..='\u{ff}'),
        2 => rng.char('\u{100}'..='\u{ffff}'),
        3 => rng.char('\u{10000}'..='\u{10ffff}'),
        4 => one_of(
            rng,
            &["\"", "\\", "/", "\u{7f}", "\u{feff}", "\u{2028}", "\u{d7ff}", "\u{e000}"],
        )
        .chars()
        .next()
        .expect("none of them is empty"),
        _ => rng.char(' '..='~'),
    };
    let is_noncharacter = ('\u{fdd0}'..='\u{fdef}').contains(&c) || u32::from(c) & 0xfffe == 0xfffe;
    if is_noncharacter { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled_as_both_readers_read_them() {
        let mut rng = Rng::with_seed(5);
        for _ in 0..10_000 {
            let number = number(&mut rng);
            let parsed: serde_json::Value = serde_json::from_str(&number).expect(&number);
            assert!(parsed.is_number(), "{number}");
            assert!(number != "-0" && !number.starts_with("0e"), "{number}");
        }
    }

    #[test]
    fn a_text_without_meaning_begins_no_command() {
        let mut rng = Rng::with_seed(6);
        for _ in 0..10_000 {
            let text = weird(&mut rng);
            assert!(!text.contains(['\0', '\u{fffe}', '\u{ffff}', '\u{fdd0}']), "{text:?}");
            let first = text.chars().next().expect("it is not empty");
            assert!(!first.is_ascii_lowercase() && !first.is_whitespace() && first != '?');
        }
    }
}
