//! Numbers of the table, the charts and the lists: three digits, the prefix or unit apart.
//!
//! Invariant: digits and suffix are two texts, so that in a column digits stand under digits. A
//! number that is not known has a dash, 0 is `0`, and a statistic that does not exist is blank.

use vmstrobe::readout::{count, duration, scaled};
use vmstrobe::view::{Amounts, Cell, ColumnKind};

/// The sign of a number that could not be read.
pub(super) const UNREAD: &str = "–";
/// The text of a quantile that lies in a bucket without an end.
const UNBOUNDED: &str = "∞";
/// The number of ns in a millisecond.
const MS: f64 = 1e6;

/// A number as two texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Figure {
    /// The digits, behind `≤ ` if the number is a bound.
    pub(super) digits: String,
    /// The prefix or unit behind them, if there is any.
    pub(super) suffix: String,
}

impl Figure {
    fn new(digits: impl Into<String>, suffix: impl Into<String>) -> Self {
        Self { digits: digits.into(), suffix: suffix.into() }
    }

    /// Splits a text at its last blank.
    fn split(text: &str) -> Self {
        match text.rsplit_once(' ') {
            Some((digits, suffix)) => Self::new(digits, suffix),
            None => Self::new(text, ""),
        }
    }

    /// Returns both texts as one.
    pub(super) fn text(&self) -> String {
        let space = if self.suffix.is_empty() { "" } else { " " };
        format!("{}{space}{}", self.digits, self.suffix)
    }
}

/// The way in which the numbers of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writing {
    /// True if a time is one per second: it is in ms/s, without a unit.
    pub(super) is_rate: bool,
    /// True if numbers have no prefixes.
    pub(super) is_exact: bool,
}

impl Writing {
    /// Returns the way in which a column is written.
    pub(super) fn of(kind: &ColumnKind, amounts: Amounts, is_exact: bool) -> Self {
        let is_amount = matches!(kind, ColumnKind::Amount(_));
        Self { is_rate: is_amount && amounts == Amounts::Rate, is_exact }
    }

    /// Returns a cell in digits and suffix.
    pub(super) fn figure(self, cell: &Cell) -> Figure {
        match *cell {
            Cell::Absent => Figure::default(),
            Cell::Unread => Figure::new(UNREAD, ""),
            Cell::Number(value) => self.number(value),
            Cell::Nanoseconds(ns) if self.is_rate => Figure::new(self.plain(ns / MS), ""),
            Cell::Nanoseconds(ns) if self.is_exact => Figure::new(thousands_of(ns), "ns"),
            Cell::Nanoseconds(ns) => Figure::split(&duration(ns)),
            Cell::Percent(share) => Figure::new(format!("{share:.1}"), "%"),
            Cell::AtMostNanoseconds(Some(ns)) => bound(Figure::split(&duration(ns as f64))),
            Cell::AtMost(Some(bound_of)) => bound(self.number(bound_of as f64)),
            Cell::AtMostNanoseconds(None) | Cell::AtMost(None) => Figure::new(UNBOUNDED, ""),
        }
    }

    /// Returns a number without a unit.
    pub(super) fn number(self, value: f64) -> Figure {
        if self.is_exact || value.abs() < 999.5 {
            let is_count = !self.is_rate && value.fract() == 0.0;
            let digits = if is_count { thousands_of(value) } else { self.plain(value) };
            return Figure::new(digits, "");
        }
        let scaled = scaled(value);
        Figure::new(scaled.digits, scaled.prefix)
    }

    /// Returns a number in three digits, or in all of those before the point.
    fn plain(self, value: f64) -> String {
        let decimals = match value.abs() {
            0.0 => 0,
            size if size < 9.995 => 2,
            size if size < 99.95 => 1,
            _ => 0,
        };
        match decimals {
            0 if value.is_finite() => thousands_of(value),
            _ => format!("{value:.decimals$}"),
        }
    }
}

fn bound(figure: Figure) -> Figure {
    Figure { digits: format!("≤ {}", figure.digits), ..figure }
}

/// Returns a whole number with commas.
fn thousands_of(value: f64) -> String {
    let sign = if value.round() < 0.0 { "-" } else { "" };
    format!("{sign}{}", count(value.abs().round() as u64))
}

/// Returns the columns that the suffix of such a cell may take, the blank before it included.
pub(super) fn suffix_columns(kind: &ColumnKind, cell: &Cell, writing: Writing) -> u16 {
    match (kind, cell) {
        (ColumnKind::Share(_), _) | (_, Cell::Percent(_)) => 2,
        (_, Cell::AtMostNanoseconds(_)) => 3,
        (_, Cell::Nanoseconds(_)) if writing.is_rate => 0,
        (_, Cell::Nanoseconds(_)) => 3,
        _ => 2,
    }
}

/// Returns a rate or value of a chart: `3.22 k`, or ms/s if it is of a time.
pub(super) fn of_chart(value: f64, is_time: bool) -> String {
    let writing = Writing { is_rate: true, is_exact: false };
    let cell = if is_time { Cell::Nanoseconds(value) } else { Cell::Number(value) };
    writing.figure(&cell).text()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Writing = Writing { is_rate: true, is_exact: false };
    const TOTAL: Writing = Writing { is_rate: false, is_exact: false };
    const EXACT: Writing = Writing { is_rate: false, is_exact: true };
    const EXACT_RATE: Writing = Writing { is_rate: true, is_exact: true };

    #[test]
    fn numbers_have_three_digits_and_their_prefix_apart() {
        for (writing, cell, digits, suffix) in [
            (RATE, Cell::Number(0.0), "0", ""),
            (RATE, Cell::Number(0.21), "0.21", ""),
            (RATE, Cell::Number(7.684), "7.68", ""),
            (RATE, Cell::Number(9.996), "10.0", ""),
            (RATE, Cell::Number(75.0), "75.0", ""),
            (RATE, Cell::Number(645.2), "645", ""),
            (RATE, Cell::Number(999.6), "1.00", "k"),
            (RATE, Cell::Number(12_734.0), "12.7", "k"),
            (TOTAL, Cell::Number(75.0), "75", ""),
            (TOTAL, Cell::Number(1_060_000.0), "1.06", "M"),
            (EXACT, Cell::Number(1_060_123.0), "1,060,123", ""),
            (EXACT_RATE, Cell::Number(12_734.4), "12,734", ""),
            (RATE, Cell::Nanoseconds(43_000_000.0), "43.0", ""),
            (RATE, Cell::Nanoseconds(2_308e6), "2,308", ""),
            (TOTAL, Cell::Nanoseconds(2_320_000.0), "2.32", "ms"),
            (EXACT, Cell::Nanoseconds(2_320_000.0), "2,320,000", "ns"),
            (RATE, Cell::Percent(96.94), "96.9", "%"),
            (RATE, Cell::AtMostNanoseconds(Some(1 << 26)), "≤ 67.1", "ms"),
            (RATE, Cell::AtMostNanoseconds(None), "∞", ""),
            (TOTAL, Cell::AtMost(Some(4096)), "≤ 4.10", "k"),
            (RATE, Cell::Unread, "–", ""),
            (RATE, Cell::Absent, "", ""),
        ] {
            assert_eq!(writing.figure(&cell), Figure::new(digits, suffix), "{cell:?}");
        }
        // A counter that was set back, and what no clock can be.
        assert_eq!(TOTAL.number(-12.0).text(), "-12");
        assert!(!RATE.number(f64::NAN).text().is_empty());
        assert!(!RATE.number(f64::INFINITY).text().is_empty());
    }

    #[test]
    fn a_suffix_fits_into_its_place() {
        let amount = ColumnKind::Amount("exits".to_owned());
        for (kind, cell, writing) in [
            (amount.clone(), Cell::Number(1e9), RATE),
            (amount.clone(), Cell::Nanoseconds(1e9), RATE),
            (amount.clone(), Cell::Nanoseconds(1e5), TOTAL),
            (ColumnKind::Share("a".into()), Cell::Percent(3.0), TOTAL),
            (ColumnKind::Quantile("a".into(), 99), Cell::AtMostNanoseconds(Some(9)), TOTAL),
        ] {
            let suffix = writing.figure(&cell).suffix;
            let columns = suffix.chars().count() + usize::from(!suffix.is_empty());
            assert!(columns <= usize::from(suffix_columns(&kind, &cell, writing)), "{suffix}");
        }
        assert!(Writing::of(&amount, Amounts::Rate, false).is_rate);
        assert!(!Writing::of(&amount, Amounts::Total, false).is_rate);
        let share = ColumnKind::Share("a".into());
        assert!(!Writing::of(&share, Amounts::Rate, false).is_rate);
    }

    #[test]
    fn values_of_charts_are_ms_per_second_or_have_a_prefix() {
        assert_eq!([of_chart(3220.0, false), of_chart(638e6, true)], ["3.22 k", "638"]);
        assert_eq!([of_chart(0.0, true), of_chart(2_308e6, true)], ["0", "2,308"]);
    }
}
