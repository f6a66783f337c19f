//! The JSON of a run: the method by which its objects were read, and its quality and cost.
//!
//! Invariant: figures are not rounded, and a method has no sentences but its reason.

use serde::{Serialize, Serializer};
use vmstrobe_sampler::TimeQuantiles;

use crate::read_status::ReadStatus;
use crate::run_summary::RunSummary;

#[derive(Serialize)]
struct ReadEntry {
    method: &'static str,
    objects: usize,
    bpf_objects: usize,
    fallback_ticks: u64,
    bpf: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct RunEntry<'a> {
    sampled: &'a [String],
    vcpus: usize,
    rate_hz: f64,
    seconds: f64,
    begin_wall_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<&'a ReadStatus>,
    threads: usize,
    ticks: u64,
    missed_ticks: u64,
    starved_ticks: u64,
    lost_samples: u64,
    unread_rows: u64,
    lateness_ns: QuantilesEntry,
    tick_ns: QuantilesEntry,
}

#[derive(Serialize)]
struct QuantilesEntry {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Serialize for ReadStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = ReadEntry {
            method: self.method().name(),
            objects: self.objects,
            bpf_objects: self.bpf_objects,
            fallback_ticks: self.fallback_ticks,
            bpf: self.bpf.name(),
            reason: self.reason(),
        };
        entry.serialize(serializer)
    }
}

impl From<TimeQuantiles> for QuantilesEntry {
    fn from(of: TimeQuantiles) -> Self {
        Self { p50: of.p50_ns, p99: of.p99_ns, p999: of.p999_ns, max: of.max_ns }
    }
}

impl Serialize for RunSummary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = RunEntry {
            sampled: &self.sampled,
            vcpus: self.vcpus,
            rate_hz: self.rate_hz,
            seconds: self.seconds,
            begin_wall_ns: self.begin_wall_ns,
            read: self.read.as_ref(),
            threads: self.threads,
            ticks: self.ticks,
            missed_ticks: self.missed_ticks,
            starved_ticks: self.starved_ticks,
            lost_samples: self.lost_samples,
            unread_rows: self.unread_rows,
            lateness_ns: self.lateness.into(),
            tick_ns: self.tick_cost.into(),
        };
        entry.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;
    use crate::parts::BpfStatus;
    use crate::read_status::OneByOne;

    fn status_of(bpf_objects: usize, bpf: BpfStatus, one_by_one: OneByOne) -> ReadStatus {
        ReadStatus { bpf_objects, bpf, one_by_one, ..ReadStatus::by_pread(5) }
    }

    #[test]
    fn the_method_has_the_facts_without_sentences() {
        let want = r#"{"method": "pread", "objects": 5, "bpf_objects": 0, "fallback_ticks": 0, "#
            .to_owned()
            + r#""bpf": "off", "reason": "BPF reader: switched off"}"#;
        assert_eq!(text(&ReadStatus::by_pread(5)), want);
        let bpf = BpfStatus::Open("may_goto".to_owned());
        let want = r#"{"method": "bpf", "objects": 5, "bpf_objects": 5, "fallback_ticks": 0, "#
            .to_owned()
            + r#""bpf": "open"}"#;
        assert_eq!(text(&status_of(5, bpf, OneByOne::Pread)), want);
        let bpf = BpfStatus::GivenUp("it was wrong".to_owned());
        let json = text(&status_of(0, bpf, OneByOne::Proc { warning: None }));
        assert!(json.contains(r#""method": "proc""#) && json.contains(r#""given-up""#), "{json}");
    }

    #[test]
    fn the_summary_has_all_figures() {
        let mut quantiles = TimeQuantiles::default();
        (quantiles.p50_ns, quantiles.p99_ns) = (5000, 85_000);
        (quantiles.p999_ns, quantiles.max_ns) = (200_000, 1_200_000);
        let summary = RunSummary {
            sampled: vec!["vcpu".to_owned(), "cryptodev".to_owned()],
            vcpus: 4,
            rate_hz: 1000.0,
            seconds: 10.5,
            begin_wall_ns: 1_000_000_000_000_000_000,
            read: Some(ReadStatus::by_pread(4)),
            threads: 1,
            ticks: 9_997,
            missed_ticks: 3,
            lateness: quantiles,
            tick_cost: quantiles,
            ..RunSummary::default()
        };
        let times = r#"{"p50": 5000, "p99": 85000, "p999": 200000, "max": 1200000}"#;
        let want = r#"{"sampled": ["vcpu", "cryptodev"], "vcpus": 4, "rate_hz": 1000.0, "#
            .to_owned()
            + r#""seconds": 10.5, "begin_wall_ns": 1000000000000000000, "#
            + r#""read": {"method": "pread", "objects": 4, "bpf_objects": 0, "#
            + r#""fallback_ticks": 0, "bpf": "off", "reason": "BPF reader: switched off"}, "#
            + r#""threads": 1, "ticks": 9997, "missed_ticks": 3, "starved_ticks": 0, "#
            + r#""lost_samples": 0, "unread_rows": 0, "lateness_ns": "#
            + &format!(r#"{times}, "tick_ns": {times}}}"#);
        assert_eq!(text(&summary), want);
        assert!(!text(&RunSummary { read: None, ..summary }).contains("read\""));
    }
}
