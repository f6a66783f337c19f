//! Conditions on samples: `exits.rate > 50k and halt_wait.p99 > 2ms`.
//!
//! A condition compares statistics with bounds. It is typed by a user ([`Condition`]), checked
//! against the statistics that there are ([`Condition::check`]), and then follows the samples
//! ([`Check`]).
//!
//! | comparison | of | meaning |
//! |---|---|---|
//! | `exits.rate > 50k` | counters, histograms | increase per second |
//! | `exits.rate[1ms] > 50k` | | the same over a stretch of 1 ms and not of 10 ms |
//! | `halt_wait_ns.delta > 5ms` | counters, histograms | increase over the stretch |
//! | `pages_4k.value > 1M` | anything but histograms | the number itself |
//! | `halt_wait_hist.p99 > 2ms` | histograms | a quantile of what was counted in the stretch |
//! | `halt_wait_hist.max > 2ms` | histograms | the largest value that was counted in the stretch |
//!
//! `any` (the default), `all`, `sum` or `25%` before a comparison says which objects must satisfy
//! it. Comparisons are joined by `and`, which binds more tightly, `or`, and parentheses. A number
//! may have a suffix: `k`, `M`, `G`, `T`, `Ki` to `Ti`, `ns` to `h`, `B` to `TiB`, `%`, and `/s`
//! behind that for a rate.
//!
//! Invariant: a rate is over at least its stretch of time, never over one sample: the tick behind a
//! late one comes early, and the rate between these two alone is fiction. A statistic that was
//! reset within the stretch satisfies nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use vmstrobe_core::Schema;

use crate::error::{Error, Result};
pub use check::{Check, Hit};
use resolve::resolve;
use syntax::Expr;
pub use trigger::{Trigger, TriggerRule, Triggered};

mod check;
mod history;
mod quantity;
mod resolve;
mod syntax;
mod trigger;

/// The stretch of time of a comparison that names none, in ns.
pub const DEFAULT_STRETCH_NS: u64 = 10_000_000;

/// A condition as it was typed. Whether its statistics exist is not known yet.
///
/// ```
/// use vmstrobe::Condition;
/// let condition: Condition = "exits.rate > 50k and halt_wait.p99 > 2ms".parse()?;
/// assert_eq!(condition.to_string(), "exits.rate > 50k and halt_wait.p99 > 2ms");
/// assert!("exits.rate >".parse::<Condition>().is_err());
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Condition {
    text: String,
    expr: Expr,
}

impl FromStr for Condition {
    type Err = Error;

    /// # Errors
    /// [`Error::Condition`] with the place and the reason.
    fn from_str(text: &str) -> Result<Self> {
        let expr = syntax::parse(text).map_err(|fault| Error::condition(text, fault))?;
        Ok(Self { text: text.to_owned(), expr })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// Checks names, types and units against the statistics that there are, and returns what
    /// follows the samples.
    ///
    /// # Errors
    /// [`Error::Condition`] if there is no such statistic, or it cannot be compared in that way.
    pub fn check(&self, schemas: &[Arc<Schema>]) -> Result<Check> {
        let expr = resolve(&self.expr, schemas);
        Ok(Check::new(expr.map_err(|fault| Error::condition(&self.text, fault))?))
    }
}

/// A fault in a condition: the place in its text, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The byte at which the faulty part begins.
    pub at: usize,
    /// A sentence that says how it is wrong, and how it would be right.
    pub text: String,
}

impl Fault {
    fn new(at: usize, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }
}
