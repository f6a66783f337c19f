//! Job control: Ctrl-Z, and going on later.
//!
//! Invariant: the process stops only if somebody can make it go on. The kernel stops no process of
//! an orphaned group for SIGTSTP; whoever catches the signal has to look for that too.

use std::fs;

use rustix::process::{Signal, getpid, kill_current_process_group, kill_process};

/// The most parents that are looked at.
const PARENTS_MAX: usize = 32;

/// The place of a process among others, as numbers in /proc: 0 for what is outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ids {
    parent: u32,
    group: u32,
    session: u32,
}

/// Asks all processes of the job to stop, as the terminal does at Ctrl-Z. This one notes it only.
pub(super) fn ask_to_stop() {
    // It fails only for processes of others, which the terminal could not stop either.
    let _ = kill_current_process_group(Signal::TSTP);
}

/// Stops this process until somebody lets it go on; not if nobody would.
pub(super) fn stop() {
    if ids_of("self").is_some_and(|own| has_keeper(own, |pid| ids_of(&pid.to_string()))) {
        let _ = kill_process(getpid(), Signal::STOP);
    }
}

/// Returns true if a process of this session but of another job, such as a shell, is among the
/// parents, before one of another session.
fn has_keeper(own: Ids, ids_of: impl Fn(u32) -> Option<Ids>) -> bool {
    let mut parent = own.parent;
    for _ in 0..PARENTS_MAX {
        let Some(ids) = ids_of(parent).filter(|ids| ids.session == own.session) else {
            return false;
        };
        if ids.group != own.group {
            return true;
        }
        parent = ids.parent;
    }
    false
}

fn ids_of(process: &str) -> Option<Ids> {
    ids_in(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Returns the numbers in the text of `/proc/PID/stat`. The name before them may have any
/// characters.
fn ids_in(stat: &str) -> Option<Ids> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut numbers = fields.split_whitespace().skip(1).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Ids { parent: next()?, group: next()?, session: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(parent: u32, group: u32, session: u32) -> Option<Ids> {
        Some(Ids { parent, group, session })
    }

    #[test]
    fn the_numbers_stand_behind_the_name() {
        assert_eq!(ids_in("7 (a) S) (b) S 5 6 4 0"), ids(5, 6, 4));
        assert_eq!([ids_in(""), ids_in("7 (a)"), ids_in("7 (a) S x 1 2")], [None; 3]);
        assert_eq!(ids_of("self").map(|ids| ids.parent), Some(std::os::unix::process::parent_id()));
    }

    #[test]
    fn a_process_stops_only_if_a_shell_lets_it_go_on() {
        // 2 is the shell of session 2, 5 is a job of it, and 6 is a child of that.
        let of = |pid| match pid {
            2 => ids(1, 2, 2),
            5 => ids(2, 5, 2),
            6 => ids(5, 5, 2),
            1 => ids(0, 1, 1),
            // A loop, which no system has.
            9 => ids(9, 5, 2),
            _ => None,
        };
        let has = |parent, group, session| has_keeper(Ids { parent, group, session }, of);
        assert!(has(2, 5, 2) && has(5, 5, 2) && has(6, 5, 2));
        // The first process of a terminal, and what has lost its shell.
        assert!(!has(1, 2, 2) && !has(1, 5, 2) && !has(0, 5, 2) && !has(9, 5, 2));
    }
}
