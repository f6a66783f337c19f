//! The rows of the demo's crypto device: one for encryption and one for decryption, each with a
//! chart.
//!
//! Invariant: the rates come from the counters of the first object of target cryptodev.

use vmstrobe::{ObjectChange, POINTS_PER_SECOND, RecentSamples, Snapshot, Target, changes_between};

use super::chart::{Chart, dash, rate, rate_text};
use crate::table::{Align, Table};

/// The rows of the device: the name of the operation, and its statistics.
const ROWS: [(&str, [&str; 2]); 2] = [
    ("encrypt", ["sym-encrypt-ops", "sym-encrypt-bytes"]),
    ("decrypt", ["sym-decrypt-ops", "sym-decrypt-bytes"]),
];

/// The charts of the device, one for each row.
#[derive(Default)]
pub(super) struct Device {
    charts: [Chart; 2],
}

/// The rates of one kind of operation, as text.
struct Figures {
    path: String,
    what: &'static str,
    ops: String,
    megabytes: String,
}

impl Device {
    /// The number of lines of [`Device::table`].
    pub(super) const LINES: usize = 1 + ROWS.len();

    /// Adds a point to each chart: the rate between two samples.
    pub(super) fn add_changes(&mut self, before: &Snapshot, after: &Snapshot) {
        for (chart, (_, [ops, _])) in self.charts.iter_mut().zip(ROWS) {
            let changes = changes_between(before, after, &Target::Cryptodev, ops);
            chart.push(changes.first().and_then(|(_, change)| change.as_ref()));
        }
    }

    /// Returns a header, and a row for each kind of operation.
    pub(super) fn table(&self, samples: &RecentSamples) -> Vec<String> {
        let mut table = Table::new()
            .column("crypto device", Align::Left)
            .wide_column("operation", Align::Left, 9)
            .wide_column("ops/s", Align::Right, 9)
            .wide_column("MB/s", Align::Right, 9);
        for Figures { path, what, ops, megabytes } in figures(samples) {
            table.row([path, what.to_owned(), ops, megabytes]);
        }
        table.lines()
    }

    pub(super) fn charts(&self) -> &[Chart] {
        &self.charts
    }

    /// Returns a line for each kind of operation, for output that is not a terminal. The columns
    /// line up with those of the vCPUs.
    pub(super) fn lines(&self, samples: &RecentSamples, time: &str) -> Vec<String> {
        let mut table = Table::new()
            .wide_column("", Align::Right, 8)
            .wide_column("", Align::Left, 17)
            .wide_column("", Align::Right, 7)
            .wide_column("", Align::Left, 7)
            .wide_column("", Align::Right, 8)
            .wide_column("", Align::Left, 20)
            .column("", Align::Left);
        for (Figures { path, what, ops, megabytes }, chart) in
            figures(samples).into_iter().zip(&self.charts)
        {
            let device = path.rsplit('/').next().unwrap_or_default();
            table.row([
                time.to_owned(),
                format!("{device} {what}"),
                ops,
                "ops/s".to_owned(),
                megabytes,
                "MB/s".to_owned(),
                chart.text(POINTS_PER_SECOND),
            ]);
        }
        table.lines()
    }
}

fn figures(samples: &RecentSamples) -> Vec<Figures> {
    let of_row = |(what, names): (&'static str, [&str; 2])| {
        let [ops, bytes] = samples.changes(&Target::Cryptodev, names);
        let first = |changed: Vec<ObjectChange<'_>>| {
            let first = changed.into_iter().next();
            first.map_or((dash(), None), |(view, change)| (view.object().path.to_string(), change))
        };
        let ((path, ops), (_, bytes)) = (first(ops), first(bytes));
        let megabytes =
            rate(bytes.as_ref()).map_or_else(dash, |rate| format!("{:.2}", rate * 1e-6));
        Figures { path, what, ops: rate_text(ops.as_ref()), megabytes }
    };
    ROWS.map(of_row).into()
}
