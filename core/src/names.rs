//! Lists of wanted names: exact names as in QMP, or a list that a user types, with globs, regular
//! expressions and exclusions.
//!
//! A typed list is for example `exits,halt_*,-halt_wait_hist,/^pf_/`. Commas separate the items,
//! and blanks around an item do not count. An item with `*` or `?` is a glob for the whole name.
//! `/…/` is a regular expression that may match anywhere in the name. A leading `-` excludes. A
//! name is wanted if it is included and not excluded. A list of exclusions alone includes every
//! other name.
//!
//! Invariant: every list compiles in bounded space and matches in linear time.

use std::fmt;

use regex_lite::{Regex, RegexBuilder};

use crate::error::{Error, ErrorKind, Result};

/// The most names of one list.
const MAX_NAMES: usize = 1024;
/// The most bytes of one typed list.
const MAX_LIST_BYTES: usize = 16 * 1024;
/// The most globs and regular expressions of one list. Together they take at most 1 MiB.
const MAX_PATTERNS: usize = 64;
/// The most bytes that one compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 16 * 1024;
/// The deepest nesting of one pattern's groups.
const MAX_PATTERN_DEPTH: u32 = 32;

/// A list of names, compiled.
///
/// ```
/// use vmstrobe_core::Names;
/// let names = Names::parse("halt_*, -halt_wait_hist, /^pf_/")?;
/// assert!(names.wants("halt_exits") && names.wants("pf_taken"));
/// assert!(!names.wants("halt_wait_hist") && !names.wants("exits"));
/// assert!(Names::exact(["*"]).wants("*")); // QMP knows no globs
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Names {
    includes: Vec<Item>,
    excludes: Vec<Item>,
}

/// One item of a list, as typed and compiled.
#[derive(Clone, Debug)]
struct Item {
    typed: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Exact(String),
    Pattern(Regex),
}

impl Item {
    fn matches(&self, name: &str) -> bool {
        match &self.matcher {
            Matcher::Exact(exact) => exact == name,
            Matcher::Pattern(regex) => regex.is_match(name),
        }
    }
}

impl fmt::Display for Names {
    /// Writes the list as it can be typed, with what is excluded at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let excludes = self.excludes.iter().map(|item| format!("-{}", item.typed));
        let items = self.includes.iter().map(|item| item.typed.clone()).chain(excludes);
        f.write_str(&items.collect::<Vec<_>>().join(","))
    }
}

impl Names {
    /// Makes a list of exact names, as in QMP, without globs and exclusions. An empty list wants
    /// nothing.
    pub fn exact<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let includes = names.into_iter().map(|name| {
            let typed = name.into();
            Item { matcher: Matcher::Exact(typed.clone()), typed }
        });
        Self { includes: includes.collect(), excludes: Vec::new() }
    }

    /// Parses a typed list.
    ///
    /// # Errors
    /// `Filter` if a regular expression cannot be understood or has no end, or the list names
    /// nothing; `TooLarge` if it is over a limit.
    pub fn parse(list: &str) -> Result<Self> {
        if list.len() > MAX_LIST_BYTES {
            let what = format!("a list of names of {} bytes", list.len());
            return Err(too_large(&what, &format!("{MAX_LIST_BYTES} bytes")));
        }
        let parts = split(list)?;
        let patterns = parts.iter().filter(|part| part.contains(['*', '?', '/'])).count();
        if patterns > MAX_PATTERNS {
            return Err(too_large(&format!("{patterns} patterns"), &MAX_PATTERNS.to_string()));
        }
        let mut names = Self::default();
        for typed in parts {
            let (bare, excluded) = match typed.strip_prefix('-') {
                Some(rest) => (rest.trim_start(), true),
                None => (typed, false),
            };
            if bare.is_empty() {
                return Err(filter_error("a '-' that excludes nothing: write -NAME"));
            }
            let item = Item { matcher: matcher(bare)?, typed: bare.to_owned() };
            if excluded { &mut names.excludes } else { &mut names.includes }.push(item);
        }
        match names.items().count() {
            0 => Err(filter_error("the list of names is empty: leave it out to get everything")),
            1..=MAX_NAMES => Ok(names),
            count => Err(too_large(&format!("{count} names"), &MAX_NAMES.to_string())),
        }
    }

    /// Returns whether a name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        let included = if self.includes.is_empty() && !self.excludes.is_empty() {
            true
        } else {
            self.includes.iter().any(|item| item.matches(name))
        };
        included && !self.excludes.iter().any(|item| item.matches(name))
    }

    /// Returns the items, as typed, that match none of the known names and may be misspelt.
    pub fn unmatched<'a>(&'a self, known: &[&str]) -> Vec<&'a str> {
        self.items()
            .filter(|item| !known.iter().any(|name| item.matches(name)))
            .map(|item| &*item.typed)
            .collect()
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.includes.iter().chain(&self.excludes)
    }
}

/// Splits at the commas that are not inside `/…/`, and leaves out blank items.
fn split(list: &str) -> Result<Vec<&str>> {
    let mut parts = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let start = rest.trim_start();
        let body = start.strip_prefix('-').unwrap_or(start).trim_start();
        let body_at = rest.len() - body.len();
        let from = match body.strip_prefix('/') {
            Some(pattern) => {
                let end = pattern_end(pattern).ok_or_else(|| {
                    filter_error(format!("'{body}' has no closing '/': write /regex/"))
                })?;
                body_at + 1 + end
            }
            None => 0,
        };
        let end = rest[from..].find(',').map_or(rest.len(), |at| from + at);
        let part = rest[..end].trim();
        if !part.is_empty() {
            parts.push(part);
        }
        rest = rest.get(end + 1..).unwrap_or("");
    }
    Ok(parts)
}

/// One past the `/` that ends a pattern; `\/` does not.
fn pattern_end(pattern: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in pattern.bytes().enumerate() {
        match byte {
            b'/' if !escaped => return Some(at + 1),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn matcher(typed: &str) -> Result<Matcher> {
    if let Some(inner) = typed.strip_prefix('/') {
        let inner = match inner.strip_suffix('/') {
            Some(pattern) if pattern_end(inner) == Some(inner.len()) => pattern,
            _ => {
                let what = format!("'{typed}' goes on behind its closing '/': write \\/ for a '/'");
                return Err(filter_error(what));
            }
        };
        return regex(typed, &inner.replace("\\/", "/")).map(Matcher::Pattern);
    }
    if typed.contains(['*', '?']) {
        let mut pattern = String::from("^(?s:");
        for c in typed.chars() {
            match c {
                '*' => pattern.push_str(".*"),
                '?' => pattern.push('.'),
                c => pattern.push_str(&regex_lite::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        pattern.push_str(")$");
        return regex(typed, &pattern).map(Matcher::Pattern);
    }
    Ok(Matcher::Exact(typed.to_owned()))
}

fn regex(typed: &str, pattern: &str) -> Result<Regex> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_BYTES)
        .nest_limit(MAX_PATTERN_DEPTH)
        .build()
        .map_err(|error| {
            let context = format!("'{typed}' is not a pattern we can match: {error}");
            Error::new(ErrorKind::Filter, context)
        })
}

fn filter_error(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Filter, what)
}

fn too_large(what: &str, limit: &str) -> Error {
    Error::new(ErrorKind::TooLarge, format!("{what}; the limit is {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_as_it_can_be_typed() {
        for (typed, want) in [("exits, halt_*", "exits,halt_*"), ("-a,/b,c/,d", "/b,c/,d,-a")] {
            let names = Names::parse(typed).expect(typed);
            assert_eq!(names.to_string(), want);
            assert_eq!(Names::parse(want).expect(want).to_string(), want);
        }
    }

    const KNOWN: [&str; 6] =
        ["exits", "halt_exits", "halt_wait_ns", "halt_wait_hist", "pf_taken", "blocking"];

    fn check(list: &str, wanted: &[&str], unmatched: &[&str]) {
        let names = Names::parse(list).expect(list);
        let got: Vec<&str> = KNOWN.into_iter().filter(|name| names.wants(name)).collect();
        assert_eq!(got, wanted, "{list}");
        assert_eq!(names.unmatched(&KNOWN), unmatched, "{list}");
    }

    #[test]
    fn lists_for_people() {
        check("exits", &["exits"], &[]);
        check(" exits , pf_taken ,", &["exits", "pf_taken"], &[]);
        check("halt_*", &["halt_exits", "halt_wait_ns", "halt_wait_hist"], &[]);
        check("*_?s", &["halt_wait_ns"], &[]);
        check("halt_*,-*_hist", &["halt_exits", "halt_wait_ns"], &[]);
        check("-*_hist, -pf_taken", &["exits", "halt_exits", "halt_wait_ns", "blocking"], &[]);
        check("/ex.ts$/", &["exits", "halt_exits"], &[]);
        check("/^(exits|x{1,2})$/, pf_taken", &["exits", "pf_taken"], &[]);
        check("-/halt/", &["exits", "pf_taken", "blocking"], &[]);
        check("exit,-nope,zzz*", &[], &["exit", "zzz*", "nope"]);
        check("*", &KNOWN, &[]);
        check("exits,exits", &["exits"], &[]);
    }

    #[test]
    fn qmp_names_are_exact() {
        assert!(!Names::exact(["*"]).wants("exits"));
        assert!(!Names::exact(["-exits"]).wants("halt_exits"));
        assert!(Names::exact(["exits"]).wants("exits"));
        assert!(!Names::exact::<&str>([]).wants("exits"));
    }

    #[test]
    fn a_slash_in_a_pattern_is_escaped() {
        let names = Names::parse(r"/a\/b/, c").expect("the list is well formed");
        assert!(names.wants("xa/by") && names.wants("c") && !names.wants("a"));
        // An escaped backslash does not escape the slash behind it.
        let names = Names::parse(r"/a\\/,b").expect("the list is well formed");
        assert!(names.wants(r"a\") && names.wants("b") && !names.wants("a"));
    }

    #[test]
    fn bad_lists_say_why() {
        for (list, part) in [
            ("", "empty"),
            (" , ,", "empty"),
            ("/abc", "no closing"),
            ("/a(/", "not a pattern"),
            ("/a/b", "goes on"),
            ("/a/b/", "goes on"),
            ("exits,-", "excludes nothing"),
            ("/x{1001}{1001}/", "not a"),
            (
                "/(((((((((((((((((((((((((((((((((((((a)))))))))))))))))))))))))))))))))))))/",
                "not a",
            ),
            ("/[a-z]{1000}{1000}/", "not a"),
        ] {
            let error = Names::parse(list).expect_err(list).to_string();
            assert!(error.contains(part), "{list}: {error}");
        }
        let long = "a,".repeat(MAX_NAMES + 1);
        assert_eq!(Names::parse(&long).map_err(|e| e.kind()).err(), Some(ErrorKind::TooLarge));
        let patterns = "a*,".repeat(MAX_PATTERNS + 1);
        assert_eq!(Names::parse(&patterns).map_err(|e| e.kind()).err(), Some(ErrorKind::TooLarge));
        let longer = "a".repeat(MAX_LIST_BYTES + 1);
        assert_eq!(Names::parse(&longer).map_err(|e| e.kind()).err(), Some(ErrorKind::TooLarge));
    }
}
