//! Command lines of the human monitor: `info stats` in every form, and what is no command.
//!
//! Invariant: no other command of QEMU's monitor is typed, whole or by its first word.

use fastrand::Rng;

use super::Vocabulary;
use super::word::{once_in, one_of, weird};

/// Longer than the 1023 bytes of a word that QEMU keeps.
const LONG_LIST: usize = 80;

/// A command line.
pub(super) fn line(rng: &mut Rng, vocabulary: &Vocabulary) -> String {
    if once_in(rng, 12) {
        return no_command(rng);
    }
    let target = match rng.u32(..12) {
        ..5 => "vcpu".to_owned(),
        5..9 => "vm".to_owned(),
        9 => "cryptodev".to_owned(),
        10 => one_of(rng, &["bad", "VM", "vm,vcpu", "\"vm\"", "\"v\\\"m\"", "\"\""]).to_owned(),
        _ => word(rng),
    };
    let mut words = vec!["info".to_owned(), "stats".to_owned(), target];
    if rng.u32(..4) > 0 {
        words.push(names(rng, vocabulary));
        if rng.bool() {
            let provider = match rng.u32(..8) {
                ..5 => "kvm".to_owned(),
                5 => "cryptodev".to_owned(),
                6 => one_of(rng, &["bad", "KVM", "\"kvm\"", "\"\"", "\"kvm"]).to_owned(),
                _ => word(rng),
            };
            words.push(provider);
            if once_in(rng, 8) {
                words.push(one_of(rng, &["more", "-x", "\"more\"", "\"", "/x"]).to_owned());
            }
        }
    }
    if once_in(rng, 20) {
        words.truncate(rng.usize(2..=words.len()));
    }
    joined(rng, &words)
}

/// Returns a line that is none of QEMU's commands.
fn no_command(rng: &mut Rng) -> String {
    match rng.u32(..4) {
        0 => one_of(
            rng,
            &["", " ", "stats", "stats vm", "INFO stats vm", "info stat", "Info", "# info stats"],
        )
        .to_owned(),
        1 => format!("info {}", word(rng)),
        2 => format!("{} info stats vm", word(rng)),
        _ => word(rng),
    }
}

/// A comma separated list of names, as a word.
fn names(rng: &mut Rng, vocabulary: &Vocabulary) -> String {
    let count = if once_in(rng, 40) { LONG_LIST } else { rng.usize(..5) };
    let some: Vec<&str> =
        (0..count).map(|_| &*vocabulary.names[rng.usize(..vocabulary.names.len())]).collect();
    let list = some.join(one_of(rng, &[",", ",", ",", ",,", ", "]));
    match rng.u32(..8) {
        0 => "*".to_owned(),
        1 => format!("\"{list}\""),
        2 => format!("{list},"),
        3 => format!(",{list}"),
        4 if rng.bool() => format!("*,{list}"),
        4 => word(rng),
        // Nothing at all would make the provider the list.
        _ if list.is_empty() => "nope".to_owned(),
        _ => list,
    }
}

/// A word in or out of quotes, with what is special between them.
fn word(rng: &mut Rng) -> String {
    const QUOTED: &[&str] = &[
        "\"a b\"",
        "\"a\\\"b\"",
        "\"a\\\\b\"",
        "\"a\\nb\"",
        "\"a\\xb\"",
        "\"open",
        "a\"b",
        "\"\"x",
    ];
    if rng.bool() { one_of(rng, QUOTED).to_owned() } else { weird(rng) }
}

fn joined(rng: &mut Rng, words: &[String]) -> String {
    let mut line = String::from(one_of(rng, &["", "", "", " ", "\t "]));
    for (i, word) in words.iter().enumerate() {
        if i > 0 {
            line.push_str(one_of(rng, &[" ", " ", " ", "  ", "\t", " \t "]));
        }
        line.push_str(word);
    }
    line.push_str(one_of(rng, &["", "", "", " ", "\t"]));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_info_stats_is_typed() {
        let vocabulary = Vocabulary { names: vec!["exits".to_owned()], vcpus: Vec::new() };
        let mut rng = Rng::with_seed(7);
        let mut stats = 0;
        for _ in 0..5000 {
            let line = line(&mut rng, &vocabulary);
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("info") => {
                    let what = words.next().expect("alone it would list what there is");
                    let begins = what.chars().next().expect("a word is not empty");
                    let known = what == "stats" || what == "stat" || what.starts_with("a\"b");
                    assert!(known || !begins.is_ascii_lowercase(), "{line:?}");
                    stats += usize::from(what == "stats");
                }
                Some("stats" | "a\"b") | None => (),
                Some(first) => {
                    let begins = first.chars().next().expect("a word is not empty");
                    assert!(!begins.is_ascii_lowercase() && begins != '?', "{line:?}");
                }
            }
        }
        assert!(stats > 4000, "{stats}");
    }
}
