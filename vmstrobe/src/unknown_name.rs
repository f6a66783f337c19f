//! A name that no statistic has, and the names that may have been meant.
//!
//! Invariant: what is suggested is the name of a statistic, and similar; for a pattern nothing is.

use std::fmt;

/// The most similar names that are suggested.
const SIMILAR_MAX: usize = 3;
/// The least similarity of a name that is suggested: 1 is equal.
const SIMILAR_MIN: f64 = 0.5;

/// A name that no statistic has, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownName {
    /// The name, glob or regex.
    pub name: String,
    /// Names that there are and that are similar, the most similar first.
    pub similar: Vec<String>,
}

impl UnknownName {
    /// Returns the unknown name with suggestions from the known names.
    pub(crate) fn new(name: &str, known: &[&str]) -> Self {
        let is_pattern = name.contains(['*', '?', '/']);
        let similar = if is_pattern { Vec::new() } else { similar(name, known) };
        Self { name: name.to_owned(), similar }
    }
}

impl fmt::Display for UnknownName {
    /// `no statistic named 'exit': did you mean 'exits'?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, similar } = self;
        if name.contains(['*', '?', '/']) {
            return write!(f, "no statistic matches '{name}'");
        }
        write!(f, "no statistic named '{name}'")?;
        if similar.is_empty() {
            return Ok(());
        }
        let similar: Vec<String> = similar.iter().map(|name| format!("'{name}'")).collect();
        write!(f, ": did you mean {}?", similar.join(", "))
    }
}

fn similar(typed: &str, known: &[&str]) -> Vec<String> {
    let similarity = |name: &str| {
        let like = strsim::normalized_damerau_levenshtein(typed, name);
        // A part of a name is a good hint, whatever else is in it.
        if typed.len() > 2 && name.contains(typed) { like.max(SIMILAR_MIN) } else { like }
    };
    let mut near: Vec<(f64, &str)> = known.iter().map(|name| (similarity(name), *name)).collect();
    near.retain(|(like, _)| *like >= SIMILAR_MIN);
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    near.dedup();
    near.iter().take(SIMILAR_MAX).map(|(_, name)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["exits", "irq_exits", "halt_exits", "halt_wait_ns", "blocking"];

    #[test]
    fn similar_names_are_suggested() {
        for (typed, want) in [
            ("exit", "no statistic named 'exit': did you mean 'exits', 'irq_exits', 'halt_exits'?"),
            (
                "halt_wait",
                "no statistic named 'halt_wait': did you mean 'halt_wait_ns', 'halt_exits'?",
            ),
            ("blokcing", "no statistic named 'blokcing': did you mean 'blocking'?"),
            ("zzz", "no statistic named 'zzz'"),
            ("zzz*", "no statistic matches 'zzz*'"),
        ] {
            assert_eq!(UnknownName::new(typed, &KNOWN).to_string(), want);
        }
    }
}
