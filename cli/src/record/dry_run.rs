//! `vmstrobe record --dry-run FILE --when EXPR`: when a condition would have caused dumps.
//!
//! Invariant: the times and the pauses are those of the recording, so that the result is what a
//! flight recorder would have done while the recording was made. What stands before damage is
//! printed.

use std::path::Path;

use vmstrobe::json::{self, TriggerReport};
use vmstrobe::{DryRun, DryTrigger, Hit, Replay, Unit, utc};

use super::rule;
use crate::args::FlightArgs;
use crate::error::Result;
use crate::messages::of_notices;
use crate::out::{Out, say_each};
use crate::privileges::Needs;
use crate::text::{bytes, counted, nanos, per_second, seconds, si, thousands};

/// A number below this is printed as it is, if it is whole.
const WHOLE_MAX: f64 = 1e15;

/// Prints each time at which the condition would have caused a dump, and how often it would have.
///
/// # Errors
/// If the recording cannot be read, the condition does not fit it, or the output cannot be written.
pub(super) fn run(args: &FlightArgs, recording: &Path, out: &mut Out) -> Result<u8> {
    let rule = rule(args, None).expect("the parser requires a condition for a dry run");
    let broker = Needs::of_files().move_to_broker()?;
    let condition = rule.condition.to_string();
    let mut printed = Ok(());
    let done = Replay::open_by(recording, &broker)?.dry_run(rule, |trigger| {
        printed = out.lines([match args.json {
            true => json::text(&TriggerReport { condition: &condition, trigger: &trigger }),
            false => line(&condition, &trigger),
        }]);
        printed.is_ok() && !out.is_closed()
    });
    printed?;
    let done = done?;
    out.lines([if args.json { json::text(&done) } else { total(&done, args) }])?;
    say_each(of_notices(done.cut));
    Ok(0)
}

/// Returns the line of a trigger: its times, and each comparison with the value that satisfied it.
fn line(condition: &str, trigger: &DryTrigger) -> String {
    let DryTrigger { triggered, after_ns, wall_ns, .. } = trigger;
    let (number, after) = (triggered.number, *after_ns as f64 * 1e-9);
    let time = utc(*wall_ns);
    let hits: Vec<String> = triggered.hits.iter().map(|hit| hit_text(condition, hit)).collect();
    format!("{number:>3}  {after:>11.6} s  {time}  {}", hits.join(", "))
}

/// Returns a comparison with its value: `exits.rate > 50k: 61.20 K/sec at /vm/web/vcpu[1]`.
fn hit_text(condition: &str, hit: &Hit) -> String {
    let comparison = condition.get(hit.place.clone()).unwrap_or_default();
    let whose = match (&hit.path, hit.objects.saturating_sub(1)) {
        (Some(path), 0) => format!(" at {path}"),
        (Some(path), others) => format!(" at {path} and {}", counted(others, "other")),
        (None, _) => format!(" of {} together", counted(hit.objects, "object")),
    };
    format!("{comparison}: {}{whose}", value_text(hit))
}

fn value_text(hit: &Hit) -> String {
    let text = match hit.unit {
        Unit::Seconds => seconds(hit.value),
        Unit::Bytes => bytes(hit.value),
        _ if hit.is_rate => return per_second(hit.value),
        _ if hit.value.fract() == 0.0 && hit.value < WHOLE_MAX => thousands(hit.value as u64),
        _ => si(hit.value),
    };
    if hit.is_rate { text + "/sec" } else { text }
}

/// Returns the last line: how often the condition would have caused a dump.
fn total(done: &DryRun, args: &FlightArgs) -> String {
    let (triggers, samples) = (thousands(done.triggers), thousands(done.samples));
    let times = if done.triggers == 1 { "time" } else { "times" };
    let time = nanos(done.length_ns);
    let text = format!("triggered {triggers} {times} in {time}, {samples} samples");
    if done.triggers > args.max_dumps {
        let most = thousands(args.max_dumps);
        return format!("{text}; a flight recorder would dump the first {most} (--max-dumps)");
    }
    text
}
