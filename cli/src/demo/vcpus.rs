//! The rows of the demo's vCPUs, each with a chart of the vCPU's exits.
//!
//! Invariant: a row has the number and the load of its own vCPU, because objects are in the order
//! in which the vCPUs were created.

use vmstrobe::demo::describe_vcpu;
use vmstrobe::{Change, POINTS_PER_SECOND, RecentSamples, Snapshot, Target, changes_between};

use super::chart::{Chart, dash, rate, rate_text};
use crate::table::{Align, Table};
use crate::text::{bar, percent, quantile_text};

/// The statistics of a vCPU that are shown.
pub(super) const NAMES: [&str; 4] = ["exits", "halt_exits", "halt_wait_ns", "halt_wait_hist"];

const HALTED_NOTE: &str =
    "The time of a halt is counted when the halt ends, so the time halted may exceed 100 %.";
/// The number of different loads. vCPU n has load n modulo this number.
const LOADS: u32 = 4;

/// The charts of the vCPUs' exits.
pub(super) struct Vcpus {
    charts: Vec<Chart>,
}

/// The figures of one vCPU.
struct Figures {
    exits: String,
    halts: String,
    /// The share of the time that the vCPU was halted. A halt is counted when it ends, so the share
    /// may exceed 1.
    halted: Option<f64>,
    p50: String,
    p99: String,
}

impl Vcpus {
    pub(super) fn new(count: u32) -> Self {
        Self { charts: vec![Chart::default(); count as usize] }
    }

    pub(super) fn count(&self) -> usize {
        self.charts.len()
    }

    /// Adds a point to each chart: the rate between two samples.
    pub(super) fn add_changes(&mut self, before: &Snapshot, after: &Snapshot) {
        let exits = changes_between(before, after, &Target::Vcpu, NAMES[0]);
        for (chart, (_, change)) in self.charts.iter_mut().zip(exits) {
            chart.push(change.as_ref());
        }
    }

    /// Returns a header and the rows of the first `shown` vCPUs, with bars of this width. Returns
    /// nothing if there are no vCPUs.
    pub(super) fn table(
        &self,
        samples: &RecentSamples,
        shown: usize,
        bar_width: usize,
    ) -> Vec<String> {
        let mut table = Table::new()
            .column("vCPU", Align::Right)
            .column("load", Align::Left)
            .wide_column("exits/s", Align::Right, 7)
            .wide_column("halts/s", Align::Right, 7)
            .wide_column("time halted", Align::Left, bar_width + 9)
            .wide_column("halt p50", Align::Right, 9)
            .wide_column("p99", Align::Right, 9);
        for (at, figures) in self.figures(samples).into_iter().take(shown).enumerate() {
            let halted = figures.halted.map_or_else(dash, |share| {
                format!("{} {:>8}", bar(share, bar_width), percent(share))
            });
            let Figures { exits, halts, p50, p99, .. } = figures;
            table.row([at.to_string(), load(at).to_owned(), exits, halts, halted, p50, p99]);
        }
        if table.is_empty() {
            return Vec::new();
        }
        let more = self.count().saturating_sub(shown);
        let more = (more > 0).then(|| format!("      and {more} more"));
        table.lines().into_iter().chain(more).collect()
    }

    /// Returns the charts of the first `shown` vCPUs.
    pub(super) fn charts(&self, shown: usize) -> &[Chart] {
        &self.charts[..shown.min(self.charts.len())]
    }

    /// Returns the header above all blocks of [`Vcpus::lines`]; nothing if there are no vCPUs.
    pub(super) fn header(&self) -> Vec<String> {
        if self.count() == 0 { Vec::new() } else { plain_table("time").lines() }
    }

    /// Returns a line for each vCPU, for output that is not a terminal.
    pub(super) fn lines(&self, samples: &RecentSamples, time: &str) -> Vec<String> {
        let mut table = plain_table("");
        for (at, figures) in self.figures(samples).into_iter().enumerate() {
            table.row([
                time.to_owned(),
                at.to_string(),
                load(at).to_owned(),
                figures.exits,
                figures.halts,
                figures.halted.map_or_else(dash, percent),
                figures.p50,
                figures.p99,
                self.charts[at].text(POINTS_PER_SECOND),
            ]);
        }
        if table.is_empty() { Vec::new() } else { table.lines() }
    }

    /// Describes the loads, one line each; nothing if there are no vCPUs.
    pub(super) fn legend(&self) -> Vec<String> {
        let loads = (0..LOADS).take(self.count());
        let mut legend: Vec<String> =
            loads.map(|vcpu| format!("vCPU {vcpu}: {}", describe_vcpu(vcpu))).collect();
        if !legend.is_empty() {
            legend.push(HALTED_NOTE.to_owned());
        }
        legend
    }

    fn figures(&self, samples: &RecentSamples) -> Vec<Figures> {
        let [exits, halts, waited, waits] = samples.changes(&Target::Vcpu, NAMES);
        let each = exits.into_iter().zip(halts).zip(waited).zip(waits).take(self.count());
        each.map(|((((_, exits), (_, halts)), (_, waited)), (view, waits))| {
            let desc = view.get(NAMES[3]).map(|value| value.desc());
            let quantile = |q| match (desc, &waits) {
                (Some(desc), Some(Change::Buckets { deltas, .. })) => {
                    quantile_text(desc, deltas, q)
                }
                _ => dash(),
            };
            Figures {
                exits: rate_text(exits.as_ref()),
                halts: rate_text(halts.as_ref()),
                halted: rate(waited.as_ref()).map(|ns_per_s| ns_per_s * 1e-9),
                p50: quantile(0.5),
                p99: quantile(0.99),
            }
        })
        .collect()
    }
}

/// Creates the table of [`Vcpus::lines`], with fixed widths, so that all blocks line up.
fn plain_table(time: &str) -> Table {
    let header = |name: &'static str| if time.is_empty() { "" } else { name };
    Table::new()
        .wide_column(time, Align::Right, 8)
        .wide_column(header("vCPU"), Align::Right, 4)
        .wide_column(header("load"), Align::Left, 11)
        .wide_column(header("exits/s"), Align::Right, 7)
        .wide_column(header("halts/s"), Align::Right, 7)
        .wide_column(header("halted"), Align::Right, 8)
        .wide_column(header("halt p50"), Align::Right, 9)
        .wide_column(header("p99"), Align::Right, 9)
        .column(header("exits/s of the last second"), Align::Left)
}

/// Returns the name of a vCPU's load, such as `steady`.
fn load(vcpu: usize) -> &'static str {
    let about = describe_vcpu(vcpu as u32);
    about.split_once(':').map_or(about, |(word, _)| word)
}
