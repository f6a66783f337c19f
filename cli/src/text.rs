//! Numbers, times and small charts as text for people.
//!
//! Invariant: pure functions. A number is only rounded, to the digits that are shown. All
//! characters of the texts are one column wide.

use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_millis;
use vmstrobe::readout::{duration, in_best_unit};
pub(crate) use vmstrobe::text::{counted, thousands};
use vmstrobe::{Bucket, Desc, Scale, Unit, quantile};

/// The largest number of seconds or bytes that is converted: a larger one has too many digits to be
/// readable.
const READABLE_MAX: f64 = 1e18;
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Formats a number with an SI prefix and four digits: `1.234 K`, `17.00`.
pub(crate) fn si(value: f64) -> String {
    let units = [(1.0, ""), (1e3, "K"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P")];
    in_best_unit(value, 4, &units)
}

/// Formats a rate: `1.234 K/sec`.
pub(crate) fn per_second(rate: f64) -> String {
    let text = si(rate);
    if text.ends_with(char::is_alphabetic) { text + "/sec" } else { text + " /sec" }
}

/// Formats a time in seconds with three digits: `1.05 ms`.
pub(crate) fn seconds(seconds: f64) -> String {
    duration(seconds * 1e9)
}

/// Formats a time in nanoseconds, as [`seconds`] does.
pub(crate) fn nanos(time_ns: u64) -> String {
    duration(time_ns as f64)
}

/// Formats a time in ns since 1970, in UTC as of RFC 3339: `2026-12-01T14:23:38.123Z`.
pub(crate) fn utc(wall_ns: u64) -> String {
    format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(wall_ns)).to_string()
}

/// Formats a size in bytes: `1.50 MiB`.
pub(crate) fn bytes(value: f64) -> String {
    let power = |exponent: i32| 1024_f64.powi(exponent);
    let units =
        [(1.0, "B"), (power(1), "KiB"), (power(2), "MiB"), (power(3), "GiB"), (power(4), "TiB")];
    if value < 1024.0 { format!("{value:.0} B") } else { in_best_unit(value, 3, &units) }
}

/// Formats a share: `91.2 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Formats a frequency: `1 kHz`.
pub(crate) fn hertz(rate_hz: f64) -> String {
    let (value, unit) = match rate_hz {
        1e6.. => (rate_hz / 1e6, "MHz"),
        1e3.. => (rate_hz / 1e3, "kHz"),
        _ => (rate_hz, "Hz"),
    };
    format!("{} {unit}", (value * 1e3).round() / 1e3)
}

/// Returns a number of a statistic in seconds, bytes or its other unit without prefix. `None` if
/// its base is not known, or the number is beyond `f64` or [`READABLE_MAX`].
pub(crate) fn in_unit(desc: &Desc, number: u64) -> Option<f64> {
    let factor = desc.scale.factor().filter(|factor| factor.is_normal())?;
    Some(number as f64 * factor).filter(|&value| value <= READABLE_MAX)
}

/// Formats a number of a statistic in its unit: times and sizes with a prefix, counts with commas.
pub(crate) fn amount(desc: &Desc, number: u64) -> String {
    match (desc.unit, in_unit(desc, number)) {
        (Unit::Seconds, Some(value)) => seconds(value),
        (Unit::Bytes, Some(value)) => bytes(value),
        _ if desc.is_id() => number.to_string(),
        (Unit::None, _) if desc.scale == Scale::ONE => thousands(number),
        _ => format!("{} {}", thousands(number), desc.scale.text(desc.unit)),
    }
}

/// Formats the bound of a quantile: the upper one of its bucket, or the lower one of the last
/// bucket.
pub(crate) fn bound(desc: &Desc, bucket: Bucket) -> String {
    match bucket.end {
        Some(end) => format!("≤ {}", amount(desc, end)),
        None => format!("≥ {}", amount(desc, bucket.low)),
    }
}

/// Formats the bound of a quantile, or a dash if the histogram is empty.
pub(crate) fn quantile_text(desc: &Desc, counts: &[u64], q: f64) -> String {
    quantile(desc, counts, q).map_or_else(|| "-".to_owned(), |q| bound(desc, q.bucket))
}

/// Draws a chart with one character for each value: the lowest for 0, the highest for `max`.
pub(crate) fn sparkline(values: impl IntoIterator<Item = f64>, max: f64) -> String {
    let top = SPARKS.len() - 1;
    let spark = |value: f64| {
        // If the maximum is 0, all values are 0.
        let share = if max > 0.0 { (value / max).clamp(0.0, 1.0) } else { 0.0 };
        SPARKS[(share * top as f64).round() as usize]
    };
    values.into_iter().map(spark).collect()
}

/// Draws a share as a bar of `width` characters, to an eighth of a character. A share above 1 gives
/// a full bar.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (width * EIGHTHS.len()) as f64) as usize;
    let (full, rest) = (eighths / EIGHTHS.len(), eighths % EIGHTHS.len());
    let rest = if full < width { EIGHTHS[rest].to_string() } else { String::new() };
    format!("{:<width$}", "█".repeat(full) + &rest)
}

/// Quotes a word for a shell if the shell would not read it as one word.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:,@%=".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
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
    fn infinite_numbers_have_a_text() {
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
    fn charts_and_bars_stay_within_their_size() {
        assert_eq!(sparkline([0.0, 5.0, 10.0, 99.0], 10.0), "▁▅██");
        assert_eq!(sparkline([0.0, 0.0], 0.0), "▁▁");
        assert_eq!([bar(0.5, 4), bar(1.7, 4), bar(-1.0, 2)], ["██  ", "████", "  "]);
        assert_eq!([bar(0.95, 4), bar(0.01, 4), bar(0.04, 4)], ["███▊", "    ", "▏   "]);
        assert_eq!(percent(0.9123), "91.2 %");
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, want) in [
            ("/run/web-1.sock", "/run/web-1.sock"),
            ("größe", "größe"),
            ("dir/web 1.sock", "'dir/web 1.sock'"),
            ("a$(b)`c`\"d\"", "'a$(b)`c`\"d\"'"),
            ("it's;", r"'it'\''s;'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(path), want);
        }
    }
}
