//! The library's [`ReadStatus`], which says how objects were read, as text.
//!
//! Invariant: the text has the facts that the JSON has.

use vmstrobe::{BpfStatus, OneByOne, ReadStatus};

use crate::text::{counted, thousands};

/// The method for those objects of `sched` that the BPF reader does not read.
const BY_PROC: &str =
    "/proc, read ten times a second (rates and shares are over the time between two reads)";

/// Describes how objects were read, and the reason. `article` and `noun` name one of them:
/// `one pread an object and tick; BPF reader: switched off`.
pub(crate) fn text_with_reason(read: &ReadStatus, article: &str, noun: &str) -> String {
    let reason = read.reason().map(|reason| format!("; {reason}")).unwrap_or_default();
    text(read, article, noun) + &reason
}

/// Describes how objects were read, without the reason.
pub(crate) fn text(read: &ReadStatus, article: &str, noun: &str) -> String {
    let one_by_one = match read.one_by_one {
        OneByOne::Pread => format!("one pread {article} {noun}"),
        OneByOne::Proc { .. } => BY_PROC.to_owned(),
    };
    let program = match &read.bpf {
        BpfStatus::Open(how) => format!("the BPF reader ({how})"),
        _ => "the BPF reader".to_owned(),
    };
    match (read.bpf_objects, read.fallback_ticks) {
        (0, 0) if read.one_by_one == OneByOne::Pread => format!("{one_by_one} and tick"),
        (0, 0) => one_by_one,
        (0, ticks) => {
            let ticks = counted(ticks as usize, "tick");
            format!("{one_by_one} in the last {ticks}")
        }
        (of_bpf, _) if of_bpf >= read.objects => {
            format!("{program}: one call for {}", counted(read.objects, noun))
        }
        (of_bpf, _) => {
            let (of_bpf, objects) = (thousands(of_bpf as u64), counted(read.objects, noun));
            let each = match read.one_by_one {
                OneByOne::Pread => "a pread for each other",
                OneByOne::Proc { .. } => "the others by /proc",
            };
            format!("{program}: one call for {of_bpf} of {objects}, {each}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(
        bpf_objects: usize,
        fallback_ticks: u64,
        bpf: BpfStatus,
        one_by_one: OneByOne,
    ) -> ReadStatus {
        let mut read = ReadStatus::by_pread(5);
        (read.bpf_objects, read.fallback_ticks) = (bpf_objects, fallback_ticks);
        (read.bpf, read.one_by_one) = (bpf, one_by_one);
        read
    }

    fn status_texts(
        bulk: usize,
        fallback_ticks: u64,
        status: BpfStatus,
    ) -> (String, Option<String>) {
        texts(bulk, fallback_ticks, status, OneByOne::Pread)
    }

    fn texts(
        bulk: usize,
        fallback_ticks: u64,
        status: BpfStatus,
        one_by_one: OneByOne,
    ) -> (String, Option<String>) {
        let read = status_of(bulk, fallback_ticks, status, one_by_one);
        (text(&read, "an", "object"), read.reason())
    }

    #[test]
    fn the_text_names_the_method_for_threads() {
        let open = || BpfStatus::Open("may_goto".to_owned());
        let (proc, program) = (BY_PROC, "the BPF reader (may_goto): one call for");
        let why = "a pid namespace";
        for (bulk, fallback_ticks, status, text, reason) in [
            (5, 0, open(), format!("{program} 5 objects"), None),
            (3, 0, open(), format!("{program} 3 of 5 objects, the others by /proc"), None),
            (5, 2, open(), format!("{program} 5 objects"), Some("2 ticks by /proc")),
            (0, 0, open(), proc.to_owned(), Some(why)),
            (0, 0, BpfStatus::Off, proc.to_owned(), Some("BPF reader: switched off")),
            (
                0,
                7,
                BpfStatus::GivenUp("it was wrong".to_owned()),
                format!("{proc} in the last 7 ticks"),
                Some("the BPF reader was given up: it was wrong"),
            ),
        ] {
            let want = (text, reason.map(str::to_owned));
            let one_by_one = OneByOne::Proc { warning: Some(why.to_owned()) };
            assert_eq!(texts(bulk, fallback_ticks, status.clone(), one_by_one), want, "{status:?}");
        }
    }

    #[test]
    fn the_text_names_the_method_and_the_reason() {
        let open = || BpfStatus::Open("may_goto, rdonly_cast".to_owned());
        let refused = || BpfStatus::Refused("it takes CAP_BPF".to_owned());
        let given_up = || BpfStatus::GivenUp("it was wrong".to_owned());
        let program = "the BPF reader (may_goto, rdonly_cast): one call for";
        for (bulk, fallback_ticks, status, text, reason) in [
            (5, 0, open(), format!("{program} 5 objects"), None),
            (3, 0, open(), format!("{program} 3 of 5 objects, a pread for each other"), None),
            (5, 1, open(), format!("{program} 5 objects"), Some("1 tick by pread")),
            (
                0,
                0,
                open(),
                "one pread an object and tick".to_owned(),
                Some("quicker here than the BPF reader"),
            ),
            (
                0,
                0,
                BpfStatus::Off,
                "one pread an object and tick".to_owned(),
                Some("BPF reader: switched off"),
            ),
            (
                0,
                0,
                refused(),
                "one pread an object and tick".to_owned(),
                Some("BPF reader: it takes CAP_BPF"),
            ),
            (
                0,
                1200,
                given_up(),
                "one pread an object in the last 1,200 ticks".to_owned(),
                Some("the BPF reader was given up: it was wrong"),
            ),
        ] {
            let want = (text, reason.map(str::to_owned));
            assert_eq!(status_texts(bulk, fallback_ticks, status.clone()), want, "{status:?}");
        }
    }
}
