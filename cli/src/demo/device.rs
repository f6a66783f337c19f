//! The demo's crypto device: a row for what it encrypts and one for what it decrypts, each with a
//! little chart.
//!
//! Invariant: rates are of operations and bytes that were accounted for, whoever did them.

use vmstrobe::{Snapshot, Target};

use super::history::{Changed, Chart, POINTS_PER_SECOND, Samples, changes, dash, rate, rate_text};
use crate::table::{Align, Table};

/// The rows that are shown of the device, each with the operation's name and its statistics.
const ROWS: [(&str, [&str; 2]); 2] = [
    ("encrypt", ["sym-encrypt-ops", "sym-encrypt-bytes"]),
    ("decrypt", ["sym-decrypt-ops", "sym-decrypt-bytes"]),
];

/// The device, and its operations in the last points, by row.
#[derive(Default)]
pub(super) struct Device {
    charts: [Chart; 2],
}

/// The figures of one kind of operation, as text.
struct Figures {
    path: String,
    what: &'static str,
    ops: String,
    megabytes: String,
}

impl Device {
    /// Lines of [`Device::table`].
    pub(super) const LINES: usize = 1 + ROWS.len();

    /// Takes what happened between two points.
    pub(super) fn add_changes(&mut self, before: &Snapshot, after: &Snapshot) {
        for (chart, (_, [ops, _])) in self.charts.iter_mut().zip(ROWS) {
            let changes = changes(before, after, &Target::Cryptodev, ops);
            chart.push(changes.first().and_then(|(_, change)| change.as_ref()));
        }
    }

    /// A row for each kind of operation below a header.
    pub(super) fn table(&self, samples: &Samples) -> Vec<String> {
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

    /// A line for each kind of operation where there is no terminal; it lines up with those of the
    /// vCPUs.
    pub(super) fn lines(&self, samples: &Samples, time: &str) -> Vec<String> {
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

fn figures(samples: &Samples) -> Vec<Figures> {
    let of_row = |(what, names): (&'static str, [&str; 2])| {
        let [ops, bytes] = samples.changes(&Target::Cryptodev, names);
        let first = |changed: Vec<Changed<'_>>| {
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
