//! Numbers with units, as they stand in conditions: `50k`, `2ms`, `1.5MiB/s`, `25%`.
//!
//! Invariant: a quantity is a finite number of 0 or more, in its dimension's own unit: seconds,
//! bytes, or plain numbers.

use vmstrobe_core::Unit;

/// The longest stretch of time, in ns.
const MAX_STRETCH_NS: u64 = 600_000_000_000;
/// The suffixes, their dimension, and their factor.
const SUFFIXES: [(&str, Dimension, f64); 29] = [
    ("", Dimension::Plain, 1.0),
    ("%", Dimension::Plain, 0.01),
    ("k", Dimension::Plain, 1e3),
    ("M", Dimension::Plain, 1e6),
    ("G", Dimension::Plain, 1e9),
    ("T", Dimension::Plain, 1e12),
    ("Ki", Dimension::Plain, 1024.0),
    ("Mi", Dimension::Plain, 1_048_576.0),
    ("Gi", Dimension::Plain, 1_073_741_824.0),
    ("Ti", Dimension::Plain, 1_099_511_627_776.0),
    ("ns", Dimension::Seconds, 1e-9),
    ("us", Dimension::Seconds, 1e-6),
    ("µs", Dimension::Seconds, 1e-6),
    ("ms", Dimension::Seconds, 1e-3),
    ("s", Dimension::Seconds, 1.0),
    ("min", Dimension::Seconds, 60.0),
    ("h", Dimension::Seconds, 3600.0),
    ("B", Dimension::Bytes, 1.0),
    ("kB", Dimension::Bytes, 1e3),
    ("MB", Dimension::Bytes, 1e6),
    ("GB", Dimension::Bytes, 1e9),
    ("TB", Dimension::Bytes, 1e12),
    ("KiB", Dimension::Bytes, 1024.0),
    ("MiB", Dimension::Bytes, 1_048_576.0),
    ("GiB", Dimension::Bytes, 1_073_741_824.0),
    ("TiB", Dimension::Bytes, 1_099_511_627_776.0),
    // A rate of a plain number.
    ("Hz", Dimension::Plain, 1.0),
    ("kHz", Dimension::Plain, 1e3),
    ("MHz", Dimension::Plain, 1e6),
];

/// A dimension in which quantities can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dimension {
    /// Counts, cycles, and rates of counts.
    Plain,
    Seconds,
    Bytes,
}

impl Dimension {
    /// Returns the dimension of a statistic's unit.
    pub(super) fn of(unit: Unit) -> Self {
        match unit {
            Unit::Seconds => Self::Seconds,
            Unit::Bytes => Self::Bytes,
            _ => Self::Plain,
        }
    }

    /// Returns an example of a number in it.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Plain => "50k",
            Self::Seconds => "2ms",
            Self::Bytes => "4MiB",
        }
    }
}

/// A number in its dimension's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quantity {
    pub(super) value: f64,
    pub(super) dimension: Dimension,
    /// True if it was typed per second: `/s`.
    pub(super) is_per_second: bool,
}

impl Quantity {
    /// Parses a number with its unit.
    ///
    /// # Errors
    /// A sentence that says what can be written.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (amount, is_per_second) = match text.strip_suffix("/s") {
            Some(amount) => (amount, true),
            None => (text, false),
        };
        if let "true" | "false" = amount {
            let value = f64::from(u8::from(amount == "true"));
            return Ok(Self { value, dimension: Dimension::Plain, is_per_second });
        }
        // An `e` belongs to the number: no suffix begins with one.
        let is_unit = |c: char| !(c.is_ascii_digit() || "+-.e".contains(c));
        let (digits, suffix) = amount.split_at(amount.find(is_unit).unwrap_or(amount.len()));
        let known = SUFFIXES.iter().find(|(known, ..)| *known == suffix);
        match (number(digits), known) {
            (Some(number), Some(&(_, dimension, factor))) => {
                Ok(Self { value: number * factor, dimension, is_per_second })
            }
            _ => Err(format!(
                "'{text}' is not a number with a unit: write for example 50k, 2ms, 4MiB or 25%"
            )),
        }
    }
}

/// Parses a number of 0 or more.
pub(super) fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

/// Parses a stretch of time and returns it in ns.
///
/// # Errors
/// A sentence that says what can be written.
pub(super) fn stretch_ns(text: &str) -> Result<u64, String> {
    let time = Quantity::parse(text).ok().filter(|time| time.dimension == Dimension::Seconds);
    let time_ns = time.map(|time| time.value * 1e9);
    let accepted = time_ns.filter(|ns| *ns >= 1000.0 && *ns <= MAX_STRETCH_NS as f64);
    accepted.map(|ns| ns as u64).ok_or_else(|| {
        format!("'{text}' is not a stretch of time from 1us to 10min: write for example [10ms]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        for (text, value, dimension) in [
            ("50k", 50e3, Dimension::Plain),
            ("1.5M/s", 1.5e6, Dimension::Plain),
            ("1e3", 1e3, Dimension::Plain),
            ("25%", 0.25, Dimension::Plain),
            ("true", 1.0, Dimension::Plain),
            ("2ms", 2e-3, Dimension::Seconds),
            ("10µs", 1e-5, Dimension::Seconds),
            ("4KiB", 4096.0, Dimension::Bytes),
            ("2MiB/s", 2_097_152.0, Dimension::Bytes),
        ] {
            let got = Quantity::parse(text).expect(text);
            assert!((got.value - value).abs() <= value * 1e-9, "{text}: {got:?}");
            assert_eq!((got.dimension, got.is_per_second), (dimension, text.ends_with("/s")));
        }
        for text in ["", "k", "5x", "-1", "inf", "nan", "1..2", "5 k", "/s"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn stretches_are_times() {
        assert_eq!(stretch_ns("1ms"), Ok(1_000_000));
        assert_eq!(stretch_ns("10min"), Ok(MAX_STRETCH_NS));
        for text in ["0ms", "5", "1h", "4KiB", "-1s"] {
            assert!(stretch_ns(text).is_err(), "{text}");
        }
    }
}
