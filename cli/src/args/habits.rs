//! Hints for those who type what `perf stat` and `time` take.
//!
//! Invariant: a hint stands only below an error, which is the same without it.

use std::ffi::{OsStr, OsString};

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Arguments of `perf stat`, and ours.
const OF_PERF: [(&str, &str); 4] = [
    ("-a", "--all measures every virtual machine"),
    ("-e", "--names exits,halt_* selects statistics"),
    ("-I", "-i MS prints intervals"),
    ("-x", "--json prints output for programs"),
];

/// The error with a hint, if it is that `vmstrobe stat` does not know an argument.
pub(super) fn hinted(mut error: Error, words: &[OsString]) -> Error {
    let is_stat = words.get(1).is_some_and(|word| word == "stat");
    if is_stat
        && error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg)
        && let Some(hint) = hint(unknown, words)
    {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
    }
    error
}

fn hint(unknown: &str, words: &[OsString]) -> Option<String> {
    if unknown.starts_with('-') {
        let ours = OF_PERF.iter().find(|(theirs, _)| *theirs == unknown);
        return ours.map(|(_, hint)| (*hint).to_owned());
    }
    let at = words.iter().position(|word| word == OsStr::new(unknown))?;
    let (ours, command) = words.split_at(at);
    let line = [&["vmstrobe".into()], &ours[1..], &["--".into()], command].concat();
    let is_plain = |word: &OsString| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
        word.to_str().filter(|word| !word.is_empty() && word.chars().all(plain)).map(str::to_owned)
    };
    // One that a shell would have to be told how to read is not written out.
    let line: Option<Vec<String>> = line.iter().map(is_plain).collect();
    let line = line.map_or_else(|| "vmstrobe stat ... -- CMD".to_owned(), |line| line.join(" "));
    Some(format!("put the command to measure after `--`: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_behind_two_dashes() {
        for (line, unknown, want) in [
            ("stat sleep 1", "sleep", "vmstrobe stat -- sleep 1"),
            ("stat -p 7 make -j4", "make", "vmstrobe stat -p 7 -- make -j4"),
            ("stat a$b", "a$b", "vmstrobe stat ... -- CMD"),
        ] {
            let words = ["/usr/bin/vmstrobe"].into_iter().chain(line.split(' '));
            let words: Vec<OsString> = words.map(OsString::from).collect();
            let want = format!("put the command to measure after `--`: {want}");
            assert_eq!(hint(unknown, &words), Some(want), "{line}");
        }
        assert!(hint("-x", &[]).is_some_and(|hint| hint.contains("--json")));
        assert_eq!(hint("--frobnicate", &[]), None);
    }
}
