//! Parsers of quantities as people type them: rates, durations, counts, process ids.
//!
//! Invariant: a value that is accepted is within its bounds. The error for any other value is a
//! complete message that says which values are accepted.

use std::time::Duration;

use vmstrobe::Timing;

const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Parses a rate and returns it in Hz: `1000`, `1k`, `10kHz`, `0.5`.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate_hz = hertz(text)?;
    Timing::hz(rate_hz).map(|_| rate_hz).map_err(|error| error.to_string())
}

/// Parses a number of times a second, of whatever.
pub(super) fn hertz(text: &str) -> Result<f64, String> {
    let what = format!("'{text}' is not a rate: write 1000, 1k, 10kHz or 0.5");
    let (number, unit) = number_and_unit(text).ok_or(&what)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "hz" => 1.0,
        "k" | "khz" => 1e3,
        "m" | "mhz" => 1e6,
        _ => return Err(what),
    };
    Ok(number * factor)
}

/// Parses a time, in seconds if it has no unit: `10s`, `500ms`, `2m`, `1.5`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    time(text, 1.0)
}

/// Parses a time, in milliseconds if it has no unit.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    time(text, 1e-3)
}

fn time(text: &str, default_unit: f64) -> Result<Duration, String> {
    let what = format!("'{text}' is not a time: write 10s, 500ms, 2m or 1.5s");
    let (number, unit) = number_and_unit(text).ok_or(&what)?;
    let factor = match unit {
        "" => default_unit,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(what),
    };
    let time = Duration::try_from_secs_f64(number * factor).unwrap_or_default();
    if time.is_zero() || time > DURATION_MAX {
        return Err(format!("a time of {text} cannot be measured: use one from 1us to one year"));
    }
    Ok(time)
}

/// Parses a size, in bytes if it has no unit: `1GiB`, `256M`, `500kB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let what = format!("'{text}' is not a size: write 256MiB, 1GiB or 500MB");
    let (number, unit) = number_and_unit(text).ok_or(&what)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "k" | "K" | "kB" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "T" | "TB" => 1e12,
        "Ki" | "KiB" => 1024.0,
        "Mi" | "MiB" => 1_048_576.0,
        "Gi" | "GiB" => 1_073_741_824.0,
        "Ti" | "TiB" => 1_099_511_627_776.0,
        _ => return Err(what),
    };
    let bytes = number * factor;
    if (1.0..=1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(what) }
}

/// Parses a number of samples, at least one.
pub(super) fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err(format!("'{text}' is not a number of samples: write 1 or more")),
    }
}

/// Parses a process id.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    let refused = || format!("'{text}' is not a process id: `vmstrobe list` shows the ids of VMs");
    text.parse().map_err(|_| refused())
}

/// Parses the number of vCPUs of the demo's guest.
pub(super) fn vcpus(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(vcpus @ 1..=64) => Ok(vcpus),
        _ => Err(format!("the demo's guest cannot have {text} vCPUs: use 1 to 64")),
    }
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    // An `e` belongs to the number: no unit begins with one.
    let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c)));
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    Some((number.trim().parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, want) in [
            ("1000", 1000.0),
            ("1k", 1000.0),
            ("10kHz", 10_000.0),
            ("2 KHz", 2000.0),
            ("0.5", 0.5),
            ("1MHz", 1e6),
            ("1e3", 1000.0),
            ("50Hz", 50.0),
        ] {
            assert_eq!(rate(text), Ok(want), "{text}");
        }
        let cannot = |hz: &str| {
            format!("a rate of {hz} Hz cannot be sampled: use one from 0.001 Hz to 1 MHz")
        };
        for (text, hz) in [("0", "0"), ("1e12", "1000000000000"), ("-5", "-5"), ("2M", "2000000")] {
            assert_eq!(rate(text), Err(cannot(hz)));
        }
        for text in ["", "fast", "1x", "k", "nan", "1 0", "1kk", "--"] {
            assert!(rate(text).is_err_and(|error| error.contains("is not a rate")), "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, want_ms) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1.5", 1500),
            ("3 s", 3000),
            ("1h", 3_600_000),
            ("2500us", 2),
        ] {
            assert_eq!(duration(text).map(|time| time.as_millis()), Ok(want_ms), "{text}");
        }
        assert_eq!(interval("250"), Ok(Duration::from_millis(250)));
        assert_eq!(interval("1s"), Ok(Duration::from_secs(1)));
        for text in ["0", "-1s", "1e30", "400000h", "0.0000000001"] {
            let error = duration(text).expect_err(text);
            assert!(error.contains("cannot be measured"), "{error}");
        }
        for text in ["", "soon", "10 parsecs", "s", "inf"] {
            let error = duration(text).expect_err(text);
            assert!(error.contains("is not a time"), "{error}");
        }
    }

    #[test]
    fn sizes() {
        for (text, want) in [("1GiB", 1 << 30), ("256M", 256_000_000), ("1.5 KiB", 1536), ("7", 7)]
        {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "0", "-1", "1XB", "big", "inf", "1e30", "1s"] {
            assert!(bytes(text).is_err_and(|error| error.contains("is not a size")), "{text}");
        }
    }

    #[test]
    fn whole_numbers() {
        assert_eq!([count("1"), count("18446744073709551615")], [Ok(1), Ok(u64::MAX)]);
        assert!(count("0").is_err() && count("-1").is_err() && count("1k").is_err());
        assert_eq!(pid("4711"), Ok(4711));
        assert!(pid("qemu").is_err() && pid("-1").is_err());
        assert_eq!([vcpus("1"), vcpus("64")], [Ok(1), Ok(64)]);
        assert!(vcpus("0").is_err() && vcpus("65").is_err());
    }
}
