//! The filter: names that match a part of a name, a glob or a regular expression.
//!
//! Invariant: any text is a filter, also one that is being typed: a pattern that has no end yet, or
//! cannot be understood, is a part of a name.

use vmstrobe_core::Names;

/// A filter, as it was typed and compiled.
#[derive(Clone, Debug)]
pub(super) struct Matching {
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    /// A part of a name, in small letters.
    Part(String),
    Names(Names),
}

impl Matching {
    /// Makes a filter; `None` if the text is empty.
    pub(super) fn new(text: &str) -> Option<Self> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return None;
        }
        let is_pattern = trimmed.contains(['*', '?', ',']) || trimmed.starts_with(['/', '-']);
        let names = if is_pattern { Names::parse(trimmed).ok() } else { None };
        let part = trimmed.trim_start_matches('/').to_lowercase();
        let matcher = names.map_or(Matcher::Part(part), Matcher::Names);
        Some(Self { text: text.to_owned(), matcher })
    }

    /// Returns the filter as it was typed.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether a name matches.
    pub(super) fn matches(&self, name: &str) -> bool {
        match &self.matcher {
            Matcher::Part(part) => name.to_lowercase().contains(part),
            Matcher::Names(names) => names.wants(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, matching: &[&str], others: &[&str]) {
        let filter = Matching::new(text).expect("it is a filter");
        assert_eq!(filter.text(), text);
        for name in matching {
            assert!(filter.matches(name), "{text} {name}");
        }
        for name in others {
            assert!(!filter.matches(name), "{text} {name}");
        }
    }

    #[test]
    fn parts_globs_and_patterns_match() {
        check("halt", &["halt_exits", "my_HALT"], &["exits"]);
        check(" Web", &["web", "webber"], &["we"]);
        check("halt_*", &["halt_exits"], &["xhalt_exits"]);
        check("?xits, halt_*", &["exits", "halt_ns"], &["xexits"]);
        check("/^(exits|x)$/", &["exits", "x"], &["exits1"]);
        check("-*_hist", &["exits"], &["halt_wait_hist"]);
        assert!(Matching::new("  ").is_none());
    }

    #[test]
    fn a_pattern_that_is_being_typed_is_a_part() {
        check("/ha", &["halt"], &["exits"]);
        check("/(/", &["a(/b"], &["a"]);
        check("[", &["a[0]"], &["a0"]);
    }
}
