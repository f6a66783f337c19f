//! The grammar of conditions, from text to a tree.
//!
//! ```text
//! or         = and ("or" and)*
//! and        = term ("and" term)*
//! term       = "(" or ")" | comparison
//! comparison = [any | all | sum | NUMBER%] STATISTIC[.KIND[[TIME]]] OPERATOR BOUND
//! KIND       = rate | delta | value | max | pNUMBER
//! OPERATOR   = > | >= | < | <=
//! ```
//!
//! Invariant: nesting is bounded, and each part knows its place in the text.

use std::ops::Range;

use super::quantity::{Quantity, number, stretch_ns};
use super::{DEFAULT_STRETCH_NS, Fault};

/// The most comparisons of a condition, ...
const MAX_COMPARISONS: usize = 64;
/// ... and the deepest nesting of parentheses.
const MAX_DEPTH: usize = 16;
/// The advice of a fault in the form.
const HELP: &str = "write for example 'exits.rate > 50k'";

/// A tree of comparisons.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr<C = Comparison> {
    /// One comparison.
    One(C),
    /// True if all are.
    And(Vec<Self>),
    /// True if one is.
    Or(Vec<Self>),
}

/// A comparison as it was typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Comparison {
    /// Its place in the text.
    pub(super) place: Range<usize>,
    pub(super) among: Among,
    /// The statistic's name with its kind: `exits.rate`.
    pub(super) metric: String,
    /// The stretch, if one was given.
    pub(super) stretch_ns: Option<u64>,
    pub(super) operator: Operator,
    pub(super) bound: Quantity,
}

/// The objects that must satisfy a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Among {
    Any,
    All,
    /// The sum over all objects must.
    Sum,
    /// At least this share of the objects must, from 0 to 1.
    Share(f64),
}

/// A comparison with a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    More,
    AtLeast,
    Less,
    AtMost,
}

/// The kind of a comparison's left side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Rate,
    Delta,
    Value,
    Max,
    /// A quantile, from 0 to 1.
    Quantile(f64),
}

impl Kind {
    /// Returns the kind of that name: `rate`, `p99.9`.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "rate" => Some(Self::Rate),
            "delta" => Some(Self::Delta),
            "value" => Some(Self::Value),
            "max" => Some(Self::Max),
            _ => {
                let percent = name.strip_prefix('p')?;
                let is_number = percent.starts_with(|c: char| c.is_ascii_digit());
                let percent: f64 = percent.parse().ok().filter(|_| is_number)?;
                (0.0..=100.0).contains(&percent).then_some(Self::Quantile(percent / 100.0))
            }
        }
    }
}

impl Comparison {
    /// Returns the stretch of time that it is over.
    pub(super) fn stretch_ns(&self) -> u64 {
        self.stretch_ns.unwrap_or(DEFAULT_STRETCH_NS)
    }
}

/// Parses a condition.
///
/// # Errors
/// The first fault in the text.
pub(super) fn parse(text: &str) -> Result<Expr, Fault> {
    let mut parser = Parser { tokens: tokens(text), next: 0, end: text.len(), comparisons: 0 };
    let expr = parser.or(0)?;
    match parser.peek() {
        None => Ok(expr),
        Some(token) if token.text == ")" => Err(token.fault("this ')' closes nothing")),
        Some(token) => Err(token.fault("'and' or 'or' is missing before this")),
    }
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    at: usize,
}

impl Token<'_> {
    fn fault(&self, text: impl Into<String>) -> Fault {
        Fault::new(self.at, text)
    }
}

/// Splits the text at white space, parentheses and operators.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = match first {
            _ if first.is_whitespace() => {
                at += first.len_utf8();
                continue;
            }
            '(' | ')' => 1,
            '<' | '>' => 1 + usize::from(rest[1..].starts_with('=')),
            _ => {
                let ends = |c: char| c.is_whitespace() || "()<>".contains(c);
                rest.find(ends).unwrap_or(rest.len())
            }
        };
        tokens.push(Token { text: &rest[..length], at });
        at += length;
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    /// The length of the text, where its end is.
    end: usize,
    comparisons: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self, what: &str) -> Result<Token<'a>, Fault> {
        let token = self.peek().ok_or_else(|| Fault::new(self.end, format!("{what}: {HELP}")))?;
        self.next += 1;
        Ok(token)
    }

    fn take_if(&mut self, text: &str) -> bool {
        let is_so = self.peek().is_some_and(|token| token.text == text);
        self.next += usize::from(is_so);
        is_so
    }

    fn or(&mut self, depth: usize) -> Result<Expr, Fault> {
        let mut all = vec![self.and(depth)?];
        while self.take_if("or") {
            all.push(self.and(depth)?);
        }
        Ok(joined(all, Expr::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Expr, Fault> {
        let mut all = vec![self.term(depth)?];
        while self.take_if("and") {
            all.push(self.term(depth)?);
        }
        Ok(joined(all, Expr::And))
    }

    fn term(&mut self, depth: usize) -> Result<Expr, Fault> {
        let begin = self.peek();
        if !self.take_if("(") {
            return Ok(Expr::One(self.comparison()?));
        }
        let begin = begin.expect("a token was taken").at;
        if depth == MAX_DEPTH {
            return Err(Fault::new(begin, "too many parentheses are open here"));
        }
        let inner = self.or(depth + 1)?;
        if self.take_if(")") { Ok(inner) } else { Err(Fault::new(begin, "this '(' is not closed")) }
    }

    fn comparison(&mut self) -> Result<Comparison, Fault> {
        let mut token = self.take("a comparison is missing here")?;
        let begin = token.at;
        self.comparisons += 1;
        if self.comparisons > MAX_COMPARISONS {
            let text = format!("these are more than {MAX_COMPARISONS} comparisons");
            return Err(Fault::new(begin, text));
        }
        let among = among(token)?;
        if among.is_some() {
            token = self.take("a statistic is missing here")?;
        }
        let (metric, stretch_ns) = metric(token)?;
        let operator = self.take("an operator is missing here")?;
        let operator = match operator.text {
            ">" => Operator::More,
            ">=" => Operator::AtLeast,
            "<" => Operator::Less,
            "<=" => Operator::AtMost,
            _ => {
                let text = format!("an operator (>, >=, <, <=) is missing before this: {HELP}");
                return Err(operator.fault(text));
            }
        };
        let bound = self.take("a number is missing here")?;
        let place = begin..bound.at + bound.text.len();
        let bound = Quantity::parse(bound.text).map_err(|text| bound.fault(text))?;
        let among = among.unwrap_or(Among::Any);
        Ok(Comparison { place, among, metric, stretch_ns, operator, bound })
    }
}

fn joined(mut all: Vec<Expr>, join: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    match all.len() {
        1 => all.remove(0),
        _ => join(all),
    }
}

/// Returns which objects are meant, if the token says so.
fn among(token: Token<'_>) -> Result<Option<Among>, Fault> {
    Ok(match token.text {
        "any" => Some(Among::Any),
        "all" => Some(Among::All),
        "sum" => Some(Among::Sum),
        text => match text.strip_suffix('%') {
            None => None,
            Some(percent) => {
                let share = number(percent).map(|percent| percent / 100.0);
                let share = share.filter(|share| *share > 0.0 && *share <= 1.0);
                let fault = || token.fault("a share of the objects is more than 0% and up to 100%");
                Some(Among::Share(share.ok_or_else(fault)?))
            }
        },
    })
}

/// Splits `exits.rate[1ms]` into the name with its kind, and the stretch.
fn metric(token: Token<'_>) -> Result<(String, Option<u64>), Fault> {
    let Some((metric, rest)) = token.text.split_once('[') else {
        return Ok((token.text.to_owned(), None));
    };
    let fault = |text| Fault::new(token.at + metric.len(), text);
    let stretch = rest.strip_suffix(']').ok_or_else(|| fault("this '[' is not closed".into()))?;
    Ok((metric.to_owned(), Some(stretch_ns(stretch).map_err(fault)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let fault = parse(text).expect_err(text);
        format!("{}: {}", fault.at, fault.text)
    }

    #[test]
    fn and_binds_more_tightly_than_or() {
        let Ok(Expr::Or(parts)) = parse("a>1 or b.rate[1ms] <= 2k and 25% c.p99.9 < 3ms") else {
            panic!("'or' is the root");
        };
        let [Expr::One(a), Expr::And(both)] = &parts[..] else { panic!("{parts:?}") };
        assert_eq!((a.metric.as_str(), a.among, a.operator), ("a", Among::Any, Operator::More));
        assert_eq!((a.place.clone(), a.stretch_ns()), (0..3, DEFAULT_STRETCH_NS));
        let [Expr::One(b), Expr::One(c)] = &both[..] else { panic!("{both:?}") };
        assert_eq!((b.metric.as_str(), b.stretch_ns), ("b.rate", Some(1_000_000)));
        assert_eq!((c.metric.as_str(), c.among), ("c.p99.9", Among::Share(0.25)));
        assert!(matches!(parse("(a>1 or b>1) and (all c>1)"), Ok(Expr::And(_))));
    }

    #[test]
    fn kinds_have_names() {
        for (name, kind) in [
            ("rate", Some(Kind::Rate)),
            ("max", Some(Kind::Max)),
            ("p50", Some(Kind::Quantile(0.5))),
            ("p99.9", Some(Kind::Quantile(0.999))),
            ("p101", None),
            ("pinf", None),
            ("p", None),
            ("pages", None),
        ] {
            let got = Kind::from_name(name);
            let is_same = match (got, kind) {
                (Some(Kind::Quantile(got)), Some(Kind::Quantile(want))) => {
                    (got - want).abs() < 1e-9
                }
                _ => got == kind,
            };
            assert!(is_same, "{name}: {got:?}");
        }
    }

    #[test]
    fn faults_have_a_place_and_say_what_is_missing() {
        for (text, want) in [
            ("", "0: a comparison is missing here"),
            ("a.rate", "6: an operator is missing here"),
            ("a.rate >", "8: a number is missing here"),
            ("a.rate = 5", "7: an operator (>, >=, <, <=) is missing before this"),
            ("a.rate > 5x", "9: '5x' is not a number"),
            ("a > 1 b > 1", "6: 'and' or 'or' is missing before this"),
            ("(a > 1", "0: this '(' is not closed"),
            ("a > 1)", "5: this ')' closes nothing"),
            ("a > 1 and", "9: a comparison is missing here"),
            ("0% a > 1", "0: a share of the objects"),
            ("a.rate[1ms > 1", "6: this '[' is not closed"),
            ("a.rate[0] > 1", "6: "),
        ] {
            assert!(fault(text).starts_with(want), "{text}: {}", fault(text));
        }
        assert!(fault(&"(".repeat(99)).contains("too many parentheses"));
        assert!(fault(&["a>1"; 65].join(" and ")).contains("more than 64 comparisons"));
        assert!(parse(&["a>1"; 64].join(" and ")).is_ok());
    }
}
