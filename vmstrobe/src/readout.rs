//! Numbers for people: scaled by SI prefixes to three digits, durations, and exact counts.
//!
//! A number is apart from its prefix, because in a table the prefix has a column of its own, so
//! that digits stand under digits. In running text a space stands between them.
//!
//! Invariant: a number is only rounded, to the digits that are shown, and the unit is chosen after
//! rounding: there is no `1000 ms`.

use vmstrobe_core::text::thousands;

/// The digits that are shown of a number that is not exact.
const DIGITS: usize = 3;
/// The prefixes of SI, ascending. A number beyond them has more digits.
const PREFIXES: [(f64, &str); 8] = [
    (1e-9, "n"),
    (1e-6, "µ"),
    (1e-3, "m"),
    (1.0, ""),
    (1e3, "k"),
    (1e6, "M"),
    (1e9, "G"),
    (1e12, "T"),
];
/// The units of durations, ascending, each in ns.
const DURATIONS: [(f64, &str); 4] = [(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")];

/// A number with an SI prefix.
///
/// ```
/// use vmstrobe::readout::scaled;
/// let rate = scaled(4600.0);
/// assert_eq!((&*rate.digits, rate.prefix), ("4.60", "k"));
/// assert_eq!(format!("{}/s", rate.with_unit("")), "4.60 k/s");
/// assert_eq!(scaled(874.0).with_unit("B"), "874 B");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// The digits, with a sign if the number is negative.
    pub digits: String,
    /// The prefix; empty for a number without one.
    pub prefix: &'static str,
}

impl Scaled {
    /// Returns the digits, a space, the prefix and a unit; only the digits if there is neither.
    pub fn with_unit(&self, unit: &str) -> String {
        let space = if self.prefix.is_empty() && unit.is_empty() { "" } else { " " };
        format!("{}{space}{}{unit}", self.digits, self.prefix)
    }
}

/// Returns a number with three digits and a prefix from `n` to `T`. A number that is 0, or rounds
/// to 0 in billionths, is `0`.
pub fn scaled(value: f64) -> Scaled {
    if value.abs() < PREFIXES[0].0 / 2.0 {
        return Scaled { digits: "0".to_owned(), prefix: "" };
    }
    let (size, prefix) = best_unit(value, DIGITS, &PREFIXES);
    Scaled { digits: significant(value / size, DIGITS), prefix }
}

/// Returns a count or its rate: as [`scaled`], but with two decimals and no prefix below 1: `0.17`.
/// A thousandth of an event is nothing that people know.
pub fn scaled_count(value: f64) -> Scaled {
    if value.abs() < 1.0 {
        return Scaled { digits: unscaled(value), prefix: "" };
    }
    scaled(value)
}

/// Returns a number with three digits, or all before the point, and no prefix: `2,308`, `35.9`. So
/// are rates of times, in ms/s.
pub fn unscaled(value: f64) -> String {
    let value = if value.abs() < 0.005 { 0.0 } else { value };
    let text = significant(value.abs(), DIGITS);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let sign = if value < 0.0 { "-" } else { "" };
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), thousands);
    match (value == 0.0, fraction.is_empty()) {
        (true, _) => "0".to_owned(),
        (false, true) => format!("{sign}{whole}"),
        (false, false) => format!("{sign}{whole}.{fraction}"),
    }
}

/// Returns a duration with three digits, as `2.32 ms`. Nanoseconds have no fraction.
pub fn duration(ns: f64) -> String {
    if ns.abs() < 0.5 {
        return "0 ns".to_owned();
    }
    let (size, unit) = best_unit(ns, DIGITS, &DURATIONS);
    let digits = if size == 1.0 { 0 } else { DIGITS };
    format!("{} {unit}", significant(ns / size, digits))
}

/// Returns an exact count, as `117,007`.
pub fn count(value: u64) -> String {
    thousands(value)
}

/// Returns a value, in the largest of these ascending units in which it is at least 1 after
/// rounding to this number of digits.
pub fn in_best_unit(value: f64, digits: usize, units: &[(f64, &str)]) -> String {
    let (size, unit) = best_unit(value, digits, units);
    let space = if unit.is_empty() { "" } else { " " };
    format!("{}{space}{unit}", significant(value / size, digits))
}

fn best_unit<'a>(value: f64, digits: usize, units: &[(f64, &'a str)]) -> (f64, &'a str) {
    let one = 1.0 - 0.5 * 0.1_f64.powi(digits as i32);
    let best = units.iter().rev().find(|(size, _)| value.abs() / size >= one);
    best.or(units.first()).copied().unwrap_or((1.0, ""))
}

/// Returns a value with this number of significant digits, or with all digits before the point.
fn significant(value: f64, digits: usize) -> String {
    // The whole part of an infinite value counts as usize::MAX digits.
    let whole = (value.abs().max(1.0).log10().floor() as usize).saturating_add(1);
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    // Rounding has added a digit before the point.
    let is_longer = text.bytes().filter(u8::is_ascii_digit).count() > digits;
    match text.rsplit_once('.') {
        Some(_) if is_longer => format!("{value:.*}", digits.saturating_sub(whole + 1)),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_prefix() {
        for (value, want) in [
            (0.0, "0"),
            (1e-10, "0"),
            (7e-9, "7.00 n"),
            (0.000_25, "250 µ"),
            (0.5, "500 m"),
            (0.999_6, "1.00"),
            (8.74, "8.74"),
            (9.996, "10.0"),
            (99.96, "100"),
            (874.0, "874"),
            (999.4, "999"),
            (999.6, "1.00 k"),
            (4600.0, "4.60 k"),
            (-35_900.0, "-35.9 k"),
            (8.2e9, "8.20 G"),
            (1.234e15, "1234 T"),
            (f64::INFINITY, "inf T"),
            (f64::NAN, "NaN n"),
        ] {
            assert_eq!(scaled(value).with_unit(""), want, "{value}");
        }
        assert_eq!(scaled(12.0).with_unit("s"), "12.0 s");
    }

    #[test]
    fn counts_have_no_prefix_below_one() {
        let texts = [0.0, 0.166, -0.5, 0.999, 1.0, 4600.0].map(|it| scaled_count(it).with_unit(""));
        assert_eq!(texts, ["0", "0.17", "-0.50", "1.00", "1.00", "4.60 k"]);
    }

    #[test]
    fn numbers_without_a_prefix_have_commas() {
        for (value, want) in [
            (0.0, "0"),
            (0.004, "0"),
            (0.123, "0.12"),
            (8.7449, "8.74"),
            (35.92, "35.9"),
            (-999.6, "-1,000"),
            (2308.4, "2,308"),
            (1_234_567.8, "1,234,568"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(unscaled(value), want, "{value}");
        }
    }

    #[test]
    fn durations_are_in_their_best_unit() {
        for (ns, want) in [
            (0.0, "0 ns"),
            (7.4, "7 ns"),
            (999.0, "999 ns"),
            (1000.0, "1.00 µs"),
            (85_130.0, "85.1 µs"),
            (999_996.0, "1.00 ms"),
            (2_320_000.0, "2.32 ms"),
            (-2_320_000.0, "-2.32 ms"),
            (8_214_000_000.0, "8.21 s"),
            (4.2e12, "4200 s"),
            (f64::INFINITY, "inf s"),
        ] {
            assert_eq!(duration(ns), want, "{ns}");
        }
    }

    #[test]
    fn counts_are_exact() {
        assert_eq!([count(0), count(117_007)], ["0", "117,007"]);
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn units_are_the_callers() {
        let units = [(1.0, ""), (1e3, "K"), (1e6, "M")];
        let text = |value| in_best_unit(value, 4, &units);
        assert_eq!([text(0.5), text(17.0), text(1234.4)], ["0.500", "17.00", "1.234 K"]);
        assert_eq!([text(999.96), text(8.2e9)], ["1.000 K", "8200 M"]);
    }
}
