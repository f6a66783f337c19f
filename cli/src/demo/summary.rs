//! The summary at the end of a demo: the quality and the cost of the sampling.
//!
//! Invariant: the lines have the figures that the JSON has, rounded.

use vmstrobe::{ReadStatus, RunSummary};

use crate::read_status;
use crate::table::{Align, Table};
use crate::text::{counted, hertz, nanos, percent, seconds, thousands};

/// The commands to try next, and what each shows.
const NEXT: [(&str, &str); 4] = [
    ("vmstrobe list", "the virtual machines and tables on this host"),
    ("vmstrobe stat --demo -d 3s", "everything a vCPU counts, as deltas and rates"),
    ("vmstrobe stat -p PID -- CMD", "what a virtual machine does while a command runs"),
    ("vmstrobe demo -r 10k", "this demo again, at ten times the rate"),
];

/// Returns the lines of the summary.
pub(super) fn lines(summary: &RunSummary) -> Vec<String> {
    let what = match summary.vcpus {
        0 => "a crypto device".to_owned(),
        vcpus => format!("{} and a crypto device", counted(vcpus, "vCPU")),
    };
    let (rate, time) = (hertz(summary.rate_hz), seconds(summary.seconds));
    let title = format!("vmstrobe sampled {what} at {rate} for {time}:");
    let due = (summary.ticks + summary.missed_ticks + summary.starved_ticks).max(1);
    let mut counts =
        Table::new().column("", Align::Left).column("", Align::Right).column("", Align::Left);
    for (name, count, what) in [
        ("  ticks", summary.ticks, "samples taken".to_owned()),
        ("  missed", summary.missed_ticks, {
            let share = percent(summary.missed_ticks as f64 / due as f64);
            format!("{share}: their time had passed before they could begin")
        }),
        ("  starved", summary.starved_ticks, "skipped because readers held all buffers".to_owned()),
        (
            "  lost",
            summary.lost_samples,
            "samples that the demo could not process in time".to_owned(),
        ),
        ("  unread", summary.unread_rows, "objects that could not be read in a tick".to_owned()),
    ] {
        counts.row([name.to_owned(), thousands(count), what]);
    }
    let mut times = Table::new().column("", Align::Left);
    for quantile in ["p50", "p99", "p99.9", "max"] {
        times = times.column(quantile, Align::Right);
    }
    for (name, of) in [("  lateness", summary.lateness), ("  tick cost", summary.tick_cost)] {
        let cells = [of.p50_ns, of.p99_ns, of.p999_ns, of.max_ns].map(nanos);
        times.row([name.to_owned()].into_iter().chain(cells));
    }
    let mut next = Table::new().column("", Align::Left).column("", Align::Left);
    for (command, what) in NEXT {
        next.row([format!("  {command}"), what.to_owned()]);
    }
    let blocks = [
        vec![String::new(), title, how_read(summary.read.as_ref(), summary.threads) + "."],
        counts.lines(),
        times.lines(),
        [vec!["Try next:".to_owned()], next.lines()].concat(),
    ];
    blocks.join(&String::new())
}

/// Describes the method by which the vCPUs were read, and the number of threads. Reading the crypto
/// device takes no system call, because its table is in the memory of this process.
fn how_read(read: Option<&ReadStatus>, threads: usize) -> String {
    let vcpus =
        read.map(|read| read_status::text(read, "a", "vCPU") + ", else ").unwrap_or_default();
    let how = if threads > 1 { format!("{threads} threads") } else { "inline".to_owned() };
    let reason =
        read.and_then(ReadStatus::reason).map(|reason| format!("; {reason}")).unwrap_or_default();
    format!("{vcpus}no system call, {how}{reason}")
}

#[cfg(test)]
mod tests {
    use vmstrobe::TimeQuantiles;

    use super::*;

    fn summary(vcpus: usize) -> RunSummary {
        let mut quantiles = TimeQuantiles::default();
        (quantiles.p50_ns, quantiles.p99_ns) = (5000, 85_000);
        (quantiles.p999_ns, quantiles.max_ns) = (200_000, 1_200_000);
        let mut summary = RunSummary::default();
        (summary.vcpus, summary.rate_hz, summary.seconds) = (vcpus, 1000.0, 10.0);
        (summary.ticks, summary.missed_ticks, summary.threads) = (9_997, 3, 1);
        (summary.lateness, summary.tick_cost) = (quantiles, quantiles);
        summary.read = (vcpus > 0).then(|| ReadStatus::by_pread(vcpus));
        summary
    }

    #[test]
    fn the_summary_has_all_figures() {
        let text = lines(&summary(4)).join("\n");
        for part in [
            "4 vCPUs and a crypto device at 1 kHz for 10.0 s:\none pread a vCPU and tick, else no ",
            "system call, inline; BPF reader: switched off.\n",
            "ticks    9,997  samples taken",
            "missed       3  0.0 %",
            "p50      p99   p99.9      max",
            "lateness   5.00 µs  85.0 µs  200 µs  1.20 ms",
            "vmstrobe list ",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let text = lines(&summary(0)).join("\n");
        assert!(text.contains("vmstrobe sampled a crypto device at"), "{text}");
    }

    #[test]
    fn without_a_guest_nothing_is_read_by_system_calls() {
        assert_eq!(how_read(None, 1), "no system call, inline");
        assert_eq!(how_read(None, 2), "no system call, 2 threads");
    }
}
