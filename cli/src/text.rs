//! Numbers as people read them.
//!
//! Invariant: pure functions; a number is rounded to the digits that are shown and never changed
//! otherwise. What they return is ASCII, or of characters that are one column wide.

pub(crate) use vmstrobe::text::{counted, thousands};
use vmstrobe::{Bucket, Desc, Scale, Unit, Window, quantile};

/// Above this, a number in seconds or bytes has more digits than anyone reads.
const READABLE_MAX: f64 = 1e18;
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// So many digits, if there are as many behind the point.
fn significant(value: f64, digits: usize) -> String {
    // Of an infinite value, the whole part has more digits than can be counted.
    let whole = (value.abs().max(1.0).log10().floor() as usize).saturating_add(1);
    format!("{value:.*}", digits.saturating_sub(whole))
}

/// The number in the largest of these units, ascending, in which it is not below 1 once rounded.
fn in_best_unit(value: f64, digits: usize, units: &[(f64, &str)]) -> String {
    let one = 1.0 - 0.5 * 0.1_f64.powi(digits as i32);
    let best = units.iter().rev().find(|(size, _)| value / size >= one);
    let (size, unit) = best.or(units.first()).copied().unwrap_or((1.0, ""));
    let space = if unit.is_empty() { "" } else { " " };
    format!("{}{space}{unit}", significant(value / size, digits))
}

/// `1.234 K`, `17.00`, with four digits.
pub(crate) fn si(value: f64) -> String {
    let units = [(1.0, ""), (1e3, "K"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P")];
    in_best_unit(value, 4, &units)
}

/// `1.234 K/sec`.
pub(crate) fn per_second(rate: f64) -> String {
    let text = si(rate);
    if text.ends_with(char::is_alphabetic) { text + "/sec" } else { text + " /sec" }
}

/// `1.05 ms`, with three digits.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 0.5e-9 {
        return "0 ns".to_owned();
    }
    let units = [(1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s")];
    let text = in_best_unit(seconds, 3, &units);
    // There are no fractions of a nanosecond.
    if text.ends_with(" ns") { format!("{:.0} ns", seconds * 1e9) } else { text }
}

/// As [`seconds`], from nanoseconds.
pub(crate) fn nanos(time_ns: u64) -> String {
    seconds(time_ns as f64 * 1e-9)
}

/// `1.50 MiB`.
fn bytes(value: f64) -> String {
    let power = |exponent: i32| 1024_f64.powi(exponent);
    let units =
        [(1.0, "B"), (power(1), "KiB"), (power(2), "MiB"), (power(3), "GiB"), (power(4), "TiB")];
    if value < 1024.0 { format!("{value:.0} B") } else { in_best_unit(value, 3, &units) }
}

/// `91.2 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A rate as people write it: `1 kHz`.
pub(crate) fn hertz(rate_hz: f64) -> String {
    let (value, unit) = match rate_hz {
        1e6.. => (rate_hz / 1e6, "MHz"),
        1e3.. => (rate_hz / 1e3, "kHz"),
        _ => (rate_hz, "Hz"),
    };
    format!("{} {unit}", (value * 1e3).round() / 1e3)
}

/// Returns the time of day at which a window begins, in ns since 1970.
pub(crate) fn begin_wall_ns(window: Window) -> u64 {
    window.begin_ns.saturating_add_signed(window.wall_offset_ns)
}

/// A number of a statistic in its unit without prefix; `None` if its base is not known, or its
/// exponent makes of it what no float holds or no one reads.
pub(crate) fn in_unit(desc: &Desc, number: u64) -> Option<f64> {
    let factor = desc.scale.factor().filter(|factor| factor.is_normal())?;
    Some(number as f64 * factor).filter(|&value| value <= READABLE_MAX)
}

/// A number of a statistic in its unit: times and sizes with a prefix, counts with commas.
pub(crate) fn amount(desc: &Desc, number: u64) -> String {
    match (desc.unit, in_unit(desc, number)) {
        (Unit::Seconds, Some(value)) => seconds(value),
        (Unit::Bytes, Some(value)) => bytes(value),
        _ if desc.is_id() => number.to_string(),
        (Unit::None, _) if desc.scale == Scale::ONE => thousands(number),
        _ => format!("{} {}", thousands(number), desc.scale.text(desc.unit)),
    }
}

/// Returns the bound of a quantile: the upper one of its bucket, or the lower one if it is open.
fn bound(desc: &Desc, bucket: Bucket) -> String {
    match bucket.end {
        Some(end) => format!("≤ {}", amount(desc, end)),
        None => format!("≥ {}", amount(desc, bucket.low)),
    }
}

/// A quantile's bound; a dash if nothing was counted.
pub(crate) fn quantile_text(desc: &Desc, counts: &[u64], q: f64) -> String {
    quantile(desc, counts, q).map_or_else(|| "-".to_owned(), |q| bound(desc, q.bucket))
}

/// A little chart: one character a value, the lowest for 0, the highest for `max`.
pub(crate) fn sparkline(values: impl IntoIterator<Item = f64>, max: f64) -> String {
    let top = SPARKS.len() - 1;
    let spark = |value: f64| {
        // A max of 0 has only values of 0.
        let share = if max > 0.0 { (value / max).clamp(0.0, 1.0) } else { 0.0 };
        SPARKS[(share * top as f64).round() as usize]
    };
    values.into_iter().map(spark).collect()
}

/// A share as a bar of so many characters, to an eighth of one; more than all of it is a full bar.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (width * EIGHTHS.len()) as f64) as usize;
    let (full, rest) = (eighths / EIGHTHS.len(), eighths % EIGHTHS.len());
    let rest = if full < width { EIGHTHS[rest].to_string() } else { String::new() };
    format!("{:<width$}", "█".repeat(full) + &rest)
}

#[cfg(test)]
mod tests {
    use vmstrobe::{Base, StatType};

    use super::*;

    #[test]
    fn numbers_have_commas() {
        for (number, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(thousands(number), want);
        }
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(counted(1, "vCPU") + " " + &counted(2000, "tick"), "1 vCPU 2,000 ticks");
    }

    #[test]
    fn what_is_infinite_has_a_text() {
        assert_eq!([per_second(f64::INFINITY), seconds(f64::INFINITY)], ["inf P/sec", "inf s"]);
        assert_eq!(bytes(f64::INFINITY), "inf TiB");
        assert_eq!(percent(f64::INFINITY), "inf %");
    }

    #[test]
    fn rates_have_prefixes() {
        for (rate, want) in [
            (0.0, "0.000 /sec"),
            (0.5, "0.500 /sec"),
            (17.0, "17.00 /sec"),
            (999.96, "1.000 K/sec"),
            (1234.5, "1.234 K/sec"),
            (8.2e9, "8.200 G/sec"),
        ] {
            assert_eq!(per_second(rate), want);
        }
        for (rate, want) in [(1000.0, "1 kHz"), (0.5, "0.5 Hz"), (2.5e6, "2.5 MHz")] {
            assert_eq!(hertz(rate), want);
        }
    }

    #[test]
    fn times_are_in_their_best_unit() {
        for (time_ns, want) in [
            (0, "0 ns"),
            (7, "7 ns"),
            (999, "999 ns"),
            (1000, "1.00 µs"),
            (85_130, "85.1 µs"),
            (999_996, "1.00 ms"),
            (1 << 20, "1.05 ms"),
            (8_214_000_000, "8.21 s"),
            (4_200_000_000_000, "4200 s"),
        ] {
            assert_eq!(nanos(time_ns), want);
        }
    }

    #[test]
    fn amounts_follow_the_unit() {
        let desc = |unit, scale| Desc { unit, scale, ..Desc::counter("n", 0) };
        assert_eq!(amount(&desc(Unit::Seconds, Scale::NANO), 1 << 20), "1.05 ms");
        assert_eq!(amount(&desc(Unit::Bytes, Scale::ONE), 3 << 19), "1.50 MiB");
        assert_eq!(amount(&desc(Unit::Bytes, Scale::ONE), 1023), "1023 B");
        assert_eq!(amount(&desc(Unit::None, Scale::ONE), 12345), "12,345");
        assert_eq!(amount(&desc(Unit::Cycles, Scale::ONE), 12345), "12,345 cycles");
        assert_eq!(amount(&desc(Unit::Unknown(7), Scale::NANO), 1), "1 * 10^-9 unit-7");
        let named = |name, stat_type| Desc { stat_type, ..Desc::counter(name, 0) };
        assert_eq!(amount(&named("thread_id", StatType::Instant), 12345), "12345");
        assert_eq!(amount(&named("depth", StatType::Instant), 12345), "12,345");
        assert_eq!(amount(&named("lost_id", StatType::Cumulative), 12345), "12,345");
        let to_the = |exponent| Scale { base: Base::Ten, exponent };
        for (unit, exponent, number, want) in [
            (Unit::Seconds, 32767, 3, "3 * 10^32767 seconds"),
            (Unit::Seconds, -32768, 3, "3 * 10^-32768 seconds"),
            (Unit::Bytes, 32767, 0, "0 * 10^32767 bytes"),
            (Unit::Bytes, 300, 7, "7 * 10^300 bytes"),
            (Unit::Seconds, 0, u64::MAX, "18,446,744,073,709,551,615 s"),
        ] {
            assert_eq!(amount(&desc(unit, to_the(exponent)), number), want);
        }
        let ns = desc(Unit::Seconds, Scale::NANO);
        assert_eq!(bound(&ns, Bucket { low: 1024, end: Some(2048) }), "≤ 2.05 µs");
        assert_eq!(bound(&ns, Bucket { low: 1 << 30, end: None }), "≥ 1.07 s");
    }

    #[test]
    fn charts_stay_in_their_frame() {
        assert_eq!(sparkline([0.0, 5.0, 10.0, 99.0], 10.0), "▁▅██");
        assert_eq!(sparkline([0.0, 0.0], 0.0), "▁▁");
        assert_eq!([bar(0.5, 4), bar(1.7, 4), bar(-1.0, 2)], ["██  ", "████", "  "]);
        assert_eq!([bar(0.95, 4), bar(0.01, 4), bar(0.04, 4)], ["███▊", "    ", "▏   "]);
        assert_eq!(percent(0.9123), "91.2 %");
    }
}
