//! The summary at the end of a demo: the quality and the cost of the sampling.
//!
//! Invariant: the figures come from the sampler's health and cover all ticks. JSON has them without
//! rounding.

use serde::Serialize;
use vmstrobe::{ReadStatus, Sampler, TimeQuantiles};

use crate::read_status::{self, ReadData};
use crate::table::{Align, Table};
use crate::text::{counted, hertz, nanos, percent, seconds, thousands};

/// The commands to try next, and what each shows.
const NEXT: [(&str, &str); 4] = [
    ("vmstrobe list", "the virtual machines and tables on this host"),
    ("vmstrobe stat --demo -d 3s", "everything a vCPU counts, as deltas and rates"),
    ("vmstrobe stat -p PID -- CMD", "what a virtual machine does while a command runs"),
    ("vmstrobe demo -r 10k", "this demo again, at ten times the rate"),
];

/// The number of vCPUs that were sampled, at which rate and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunParameters {
    pub(super) vcpus: u32,
    pub(super) rate_hz: f64,
    pub(super) seconds: f64,
    /// The time of the first sample, in ns since 1970.
    pub(super) begin_wall_ns: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    sampled: Vec<&'static str>,
    vcpus: u32,
    rate_hz: f64,
    seconds: f64,
    begin_wall_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<ReadData>,
    threads: usize,
    /// The method by which the objects were read, for people.
    #[serde(skip)]
    how_read: String,
    ticks: u64,
    missed_ticks: u64,
    starved_ticks: u64,
    lost_samples: u64,
    unread_rows: u64,
    lateness_ns: Quantiles,
    tick_ns: Quantiles,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl From<TimeQuantiles> for Quantiles {
    fn from(of: TimeQuantiles) -> Self {
        Self { p50: of.p50_ns, p99: of.p99_ns, p999: of.p999_ns, max: of.max_ns }
    }
}

impl Summary {
    pub(super) fn new(
        sampler: &Sampler,
        parameters: &RunParameters,
        read: Option<&ReadStatus>,
        lost_samples: u64,
    ) -> Self {
        let RunParameters { vcpus, rate_hz, seconds, begin_wall_ns } = *parameters;
        let health = sampler.health();
        let counts = health.counts();
        Self {
            sampled: if vcpus > 0 { vec!["vcpu", "cryptodev"] } else { vec!["cryptodev"] },
            vcpus,
            rate_hz,
            seconds,
            begin_wall_ns,
            read: read.map(ReadData::from),
            threads: sampler.threads(),
            how_read: how_read(read, sampler.threads()),
            ticks: counts.ticks,
            missed_ticks: counts.missed_ticks,
            starved_ticks: counts.starved_ticks,
            lost_samples,
            unread_rows: counts.unread_rows,
            lateness_ns: health.lateness().into(),
            tick_ns: health.tick_cost().into(),
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let what = match self.vcpus {
            0 => "a crypto device".to_owned(),
            vcpus => format!("{} and a crypto device", counted(vcpus as usize, "vCPU")),
        };
        let (rate, time) = (hertz(self.rate_hz), seconds(self.seconds));
        let title = format!("vmstrobe sampled {what} at {rate} for {time}:");
        let due = (self.ticks + self.missed_ticks + self.starved_ticks).max(1);
        let mut counts =
            Table::new().column("", Align::Left).column("", Align::Right).column("", Align::Left);
        for (name, count, what) in [
            ("  ticks", self.ticks, "samples taken".to_owned()),
            ("  missed", self.missed_ticks, {
                let share = percent(self.missed_ticks as f64 / due as f64);
                format!("{share}: their time had passed before they could begin")
            }),
            (
                "  starved",
                self.starved_ticks,
                "skipped because readers held all buffers".to_owned(),
            ),
            (
                "  lost",
                self.lost_samples,
                "samples that the demo could not process in time".to_owned(),
            ),
            ("  unread", self.unread_rows, "objects that could not be read in a tick".to_owned()),
        ] {
            counts.row([name.to_owned(), thousands(count), what]);
        }
        let mut times = Table::new().column("", Align::Left);
        for quantile in ["p50", "p99", "p99.9", "max"] {
            times = times.column(quantile, Align::Right);
        }
        for (name, of) in [("  lateness", &self.lateness_ns), ("  tick cost", &self.tick_ns)] {
            let cells = [of.p50, of.p99, of.p999, of.max].map(nanos);
            times.row([name.to_owned()].into_iter().chain(cells));
        }
        let mut next = Table::new().column("", Align::Left).column("", Align::Left);
        for (command, what) in NEXT {
            next.row([format!("  {command}"), what.to_owned()]);
        }
        let blocks = [
            vec![String::new(), title, self.how_read.clone() + "."],
            counts.lines(),
            times.lines(),
            [vec!["Try next:".to_owned()], next.lines()].concat(),
        ];
        blocks.join(&String::new())
    }
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
    use super::*;
    use vmstrobe::json;

    fn summary(vcpus: u32) -> Summary {
        let quantiles = || Quantiles { p50: 5000, p99: 85_000, p999: 200_000, max: 1_200_000 };
        Summary {
            sampled: vec!["vcpu", "cryptodev"],
            vcpus,
            rate_hz: 1000.0,
            seconds: 10.0,
            begin_wall_ns: 1_000_000_000_000_000_000,
            read: Some(ReadData::from(&ReadStatus::by_pread(4))),
            threads: 1,
            how_read: "one pread a vCPU and tick, else no system call, inline".to_owned(),
            ticks: 9_997,
            missed_ticks: 3,
            starved_ticks: 0,
            lost_samples: 0,
            unread_rows: 0,
            lateness_ns: quantiles(),
            tick_ns: quantiles(),
        }
    }

    #[test]
    fn the_summary_has_all_figures() {
        let text = summary(4).lines().join("\n");
        for part in [
            "4 vCPUs and a crypto device at 1 kHz for 10.0 s:\none pread a vCPU and tick, else no ",
            "ticks    9,997  samples taken",
            "missed       3  0.0 %",
            "p50      p99   p99.9      max",
            "lateness   5.00 µs  85.0 µs  200 µs  1.20 ms",
            "vmstrobe list ",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(summary(0).lines().join("\n").contains("vmstrobe sampled a crypto device at"));
    }

    #[test]
    fn without_a_guest_nothing_is_read_by_system_calls() {
        assert_eq!(how_read(None, 1), "no system call, inline");
        assert_eq!(how_read(None, 2), "no system call, 2 threads");
    }

    #[test]
    fn json_has_the_same_figures() {
        let text = json::text(&summary(4));
        assert!(
            text.starts_with(r#"{"sampled": ["vcpu", "cryptodev"], "vcpus": 4, "rate_hz": "#),
            "{text}"
        );
        assert!(text.contains(r#""read": {"method": "pread", "objects": 4, "#), "{text}");
        assert!(!text.contains("how_read") && !text.contains("system call"), "{text}");
        assert!(text.contains(r#""lateness_ns": {"p50": 5000, "p99": 85000, "#), "{text}");
    }
}
