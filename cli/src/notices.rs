//! The library's notices, said on standard error.
//!
//! Invariant: however many processes were left out, a few lines say it, and each is named.

use vmstrobe::{LeftOut, Notice, WhyLeftOut};

use crate::error::with_causes;
use crate::out::say;
use crate::text::thousands;

/// The most processes that have a line each.
const LINES_MAX: usize = 20;
/// The most that are named by their numbers in one line.
const NUMBERS_MAX: usize = 500;

/// Says notices, each in a line, with the limit that was met if that is the cause.
pub(crate) fn say_notices(notices: impl IntoIterator<Item = Notice>) {
    for notice in notices {
        match notice {
            Notice::LeftOut(processes) => say_left_out(&processes),
            Notice::NotRead(error) => {
                say(format_args!("left out: {}", crate::error::Error::from(error)));
            }
            Notice::OnlyVm { pid, error } => {
                let error = with_causes(&error);
                say(format_args!("pid {pid}: only the VM is read, not the tables: {error}"));
            }
            Notice::OnlyTables { pid, error } => {
                let error = with_causes(&error);
                say(format_args!("pid {pid}: only the tables are read, not the VM: {error}"));
            }
            Notice::Provider(error) => say(with_causes(&error)),
            other => say(other),
        }
    }
}

/// Names the processes that were not looked at, on standard error.
pub(crate) fn say_left_out(left_out: &[LeftOut]) {
    lines(left_out).into_iter().for_each(say);
}

/// A line for each process that is in the way, and one for all that there was no time for.
fn lines(left_out: &[LeftOut]) -> Vec<String> {
    let is_late = |one: &&LeftOut| one.why == WhyLeftOut::NoTime;
    let (late, others): (Vec<&LeftOut>, Vec<&LeftOut>) = left_out.iter().partition(is_late);
    let line = |one: &&LeftOut| format!("left out: pid {} ({}): {}", one.pid, one.comm, one.why);
    let mut lines: Vec<String> = others.iter().take(LINES_MAX).map(line).collect();
    let more = others.get(LINES_MAX..).unwrap_or_default();
    if !more.is_empty() {
        lines.push(format!("left out as well: {}", numbers(more)));
    }
    if !late.is_empty() {
        lines.push(format!(
            "left out: {}: there was no time left to look at their descriptors; name one by -p",
            numbers(&late)
        ));
    }
    lines
}

/// So many processes, by their numbers.
fn numbers(processes: &[&LeftOut]) -> String {
    let numbers = processes.iter().take(NUMBERS_MAX).map(|one| one.pid.to_string());
    let numbers = numbers.collect::<Vec<_>>().join(" ");
    let and_so_on = if processes.len() > NUMBERS_MAX { " ..." } else { "" };
    let (count, noun) = match processes.len() {
        1 => (String::new(), "pid"),
        count => (format!("{} processes, ", thousands(count as u64)), "pids"),
    };
    format!("{count}{noun} {numbers}{and_so_on}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(pids: std::ops::Range<u32>, why: WhyLeftOut) -> Vec<LeftOut> {
        pids.map(|pid| LeftOut { pid, comm: "p".to_owned(), why }).collect()
    }

    #[test]
    fn each_that_is_in_the_way_has_a_line_and_the_late_have_one() {
        let all = [
            left_out(7..8, WhyLeftOut::Silent),
            left_out(8..9, WhyLeftOut::NoTime),
            left_out(9..10, WhyLeftOut::Crowded),
            left_out(10..11, WhyLeftOut::NoTime),
        ];
        let lines = lines(&all.concat());
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("left out: pid 7 (p): does not let itself"), "{lines:?}");
        assert!(lines[1].starts_with("left out: pid 9 (p): has more"), "{lines:?}");
        assert!(lines[2].starts_with("left out: 2 processes, pids 8 10: there was"), "{lines:?}");
    }

    #[test]
    fn many_are_few_lines() {
        let lines = |why, count: u32| lines(&left_out(1..count + 1, why));
        assert!(lines(WhyLeftOut::Silent, 0).is_empty());
        assert_eq!(lines(WhyLeftOut::Silent, 20).len(), 20);
        let of_21 = lines(WhyLeftOut::Silent, 21);
        assert_eq!(of_21.last().map(String::as_str), Some("left out as well: pid 21"));
        let late = lines(WhyLeftOut::NoTime, 1200);
        assert!(late[0].starts_with("left out: 1,200 processes, pids 1 2"), "{late:?}");
        assert!(late[0].contains(" 499 500 ...: there was"), "{late:?}");
    }
}
