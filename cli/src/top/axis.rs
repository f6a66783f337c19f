//! Ticks of axes: steps of 1, 2 or 5 times a power of ten, and labels that are exact.
//!
//! Invariant: a label is the value of its tick, not rounded; labels of one axis never overlap.

use crate::width::width;

/// The number of ns in a second.
const SECOND: f64 = 1e9;
/// The number of ns in a millisecond.
const MS: f64 = 1e6;
/// The columns that a label of time takes at least, with the gap to the next one.
const TIME_COLUMNS: usize = 12;
/// The rows between two labels of a value.
const VALUE_ROWS: usize = 3;

/// Returns the smallest step of 1, 2 or 5 times a power of ten of which at most so many fit into a
/// range; `None` for a range that has no steps.
pub(super) fn step(range: f64, steps_max: usize) -> Option<f64> {
    if !(range.is_finite() && range > 0.0) || steps_max == 0 {
        return None;
    }
    let least = range / steps_max as f64;
    let power = 10_f64.powi(least.log10().floor() as i32);
    // A step that is exactly the least one must not fall to the next because of rounding.
    let fits = |factor: &f64| factor * power >= least * (1.0 - 1e-9);
    [1.0, 2.0, 5.0, 10.0].into_iter().find(fits).map(|factor| factor * power)
}

/// Returns the values with a label on an axis from 0 to `top` of so many rows.
pub(super) fn value_ticks(top: f64, rows: usize) -> Vec<f64> {
    let Some(step) = step(top, (rows / VALUE_ROWS).max(1)) else { return vec![0.0] };
    let count = (top / step * (1.0 + 1e-9)).floor() as usize;
    (0..=count).map(|index| index as f64 * step).collect()
}

/// Returns the label of a value: `5 k`; of a time in ns per second, its ms/s.
pub(super) fn value_label(value: f64, is_time: bool) -> String {
    let value = if is_time { value / MS } else { value };
    let (size, prefix) = match value.abs() {
        _ if is_time => (1.0, ""),
        1e12.. => (1e12, " T"),
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e3.. => (1e3, " k"),
        _ => (1.0, ""),
    };
    format!("{}{prefix}", exact(value / size))
}

/// Returns a number without the digits that only its binary form has.
fn exact(value: f64) -> String {
    let text = format!("{value:.9}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The times on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Clock {
    /// Times before the right edge, which is now.
    BeforeNow,
    /// Times after that moment, in ns.
    Since(u64),
}

impl Clock {
    /// Returns the times of a view of the past, or of the newest samples.
    pub(super) fn of(is_past: bool, start_ns: u64) -> Self {
        if is_past { Self::Since(start_ns) } else { Self::BeforeNow }
    }
}

/// A label of time: the column of its tick, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeLabel {
    /// The first column of the text.
    pub(super) column: usize,
    /// The text.
    pub(super) text: String,
}

/// Returns the labels of an axis from `begin_ns` to `end_ns` of so many columns, from left to
/// right.
pub(super) fn time_labels(
    clock: Clock,
    (begin_ns, end_ns): (u64, u64),
    columns: usize,
) -> Vec<TimeLabel> {
    let span_ns = end_ns.saturating_sub(begin_ns) as f64;
    let Some(step_ns) = step(span_ns, columns / TIME_COLUMNS) else { return Vec::new() };
    let zero = match clock {
        Clock::BeforeNow => end_ns as f64,
        Clock::Since(start_ns) => start_ns as f64,
    };
    let (first, last) = (begin_ns as f64 - zero, end_ns as f64 - zero);
    // A tick within a column of an end is on the axis.
    let column_ns = span_ns / columns as f64;
    let from = ((first - column_ns) / step_ns).ceil() as i64;
    let to = ((last + column_ns) / step_ns).floor() as i64;
    let mut labels: Vec<TimeLabel> = Vec::new();
    for index in from..=to {
        let at_ns = index as f64 * step_ns;
        let text = time_label(clock, at_ns, step_ns, span_ns);
        let place = (at_ns - first) / span_ns * columns as f64;
        // The text stands at the middle of its tick, but within the axis.
        let wanted = (place - width(&text) as f64 / 2.0).round().max(0.0) as usize;
        let column = wanted.min(columns.saturating_sub(width(&text)));
        let behind = labels.last().map_or(0, |last| last.column + width(&last.text) + 1);
        if column >= behind || labels.is_empty() {
            labels.push(TimeLabel { column, text });
        }
    }
    labels
}

/// Returns the label of a time: `−8 s`, `−20 ms`, `now`, or `37.28 s` after the start.
fn time_label(clock: Clock, at_ns: f64, step_ns: f64, span_ns: f64) -> String {
    if clock == Clock::BeforeNow && at_ns == 0.0 {
        return "now".to_owned();
    }
    let is_short = clock == Clock::BeforeNow && span_ns <= SECOND;
    let (size, unit) = if is_short { (MS, "ms") } else { (SECOND, "s") };
    // As many decimals as the step has, so that labels of one axis have the same.
    let decimals = (-(step_ns / size).log10().floor()).max(0.0) as usize;
    let sign = if at_ns < 0.0 { "−" } else { "" };
    format!("{sign}{:.decimals$} {unit}", at_ns.abs() / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_1_2_or_5() {
        for (range, steps, want) in [
            (10.0, 5, 2.0),
            (10.0, 10, 1.0),
            (7_200.0, 2, 5_000.0),
            (0.08, 5, 0.02),
            (1.0, 1, 1.0),
            (1001.0, 1, 2000.0),
        ] {
            let step = step(range, steps).expect("it has steps");
            assert!((step - want).abs() < want * 1e-9, "{range} {steps}: {step}");
        }
        for (range, steps) in [(0.0, 5), (-1.0, 5), (f64::NAN, 5), (f64::INFINITY, 5), (1.0, 0)] {
            assert_eq!(step(range, steps), None);
        }
    }

    #[test]
    fn values_have_exact_labels() {
        let labels = |top, rows, is_time| {
            let ticks = value_ticks(top, rows);
            ticks.into_iter().map(|tick| value_label(tick, is_time)).collect::<Vec<_>>()
        };
        assert_eq!(labels(7_200.0, 8, false), ["0", "5 k"]);
        assert_eq!(labels(7_200.0, 15, false), ["0", "2 k", "4 k", "6 k"]);
        assert_eq!(labels(0.9, 9, false), ["0", "0.5"]);
        assert_eq!(labels(676e6, 9, true), ["0", "500"]);
        assert_eq!(labels(2_400e6, 9, true), ["0", "1000", "2000"]);
        assert_eq!(labels(0.0, 9, false), ["0"]);
        assert_eq!(labels(f64::NAN, 9, true), ["0"]);
        assert_eq!(value_label(2_500_000.0, false), "2.5 M");
    }

    #[test]
    fn times_are_before_now_or_after_the_start() {
        let labels = |clock, span, columns| {
            let labels = time_labels(clock, span, columns);
            labels.into_iter().map(|label| label.text).collect::<Vec<_>>()
        };
        let s = |seconds: f64| (seconds * SECOND) as u64;
        assert_eq!(
            labels(Clock::BeforeNow, (s(5.0), s(15.0)), 73),
            ["−10 s", "−8 s", "−6 s", "−4 s", "−2 s", "now"]
        );
        assert_eq!(
            labels(Clock::BeforeNow, (s(0.0), s(0.08)), 60),
            ["−80 ms", "−60 ms", "−40 ms", "−20 ms", "now"]
        );
        assert_eq!(
            labels(Clock::Since(s(3.0)), (s(40.252), s(40.322)), 73),
            ["37.26 s", "37.28 s", "37.30 s", "37.32 s"]
        );
        assert_eq!(labels(Clock::BeforeNow, (5, 5), 73), Vec::<String>::new());
        assert_eq!(labels(Clock::BeforeNow, (0, s(1.0)), 5), Vec::<String>::new());
    }

    #[test]
    fn labels_never_overlap_and_stay_on_their_axis() {
        for columns in 0..200 {
            for span_ns in [1_000_000, 80_000_000, 999_999_999, 10_000_000_000, 3_600_000_000_000] {
                for clock in [Clock::BeforeNow, Clock::Since(7)] {
                    let labels = time_labels(clock, (7, 7 + span_ns), columns);
                    let mut behind = 0;
                    for label in labels {
                        assert!(label.column >= behind, "{columns} {span_ns} {label:?}");
                        behind = label.column + width(&label.text);
                        assert!(behind <= columns, "{columns} {span_ns} {label:?}");
                    }
                }
            }
        }
    }
}
