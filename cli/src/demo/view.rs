//! The display of the demo: its vCPUs, its crypto device, and the sampler's own figures.
//!
//! Figures are of the last second. The charts have a point for each 100 ms, whatever the rate at
//! which the screen is refreshed.
//!
//! Invariant: lines that do not fit the terminal are left out, the least important ones first.

use std::sync::Arc;
use std::time::Duration;

use vmstrobe::demo::CRYPTO_DEVICE;
use vmstrobe::{RecentSamples, Snapshot};

use super::chart::{dash, with_charts};
use super::device::Device;

use super::vcpus::Vcpus;
use crate::terminal::Size;
use crate::text::{counted, hertz, nanos, percent, thousands};
use crate::width::{fit, width};

const BAR_WIDTH: usize = 8;
/// The width of a terminal from which on it has bars.
const BARS_FROM_WIDTH: usize = 80;
/// The number of lines above and below the rows of vCPUs.
const LINES_AROUND: usize = 7 + 1 + Device::LINES;

/// The state of the display.
pub(super) struct View {
    rate_hz: f64,
    samples: RecentSamples,
    vcpus: Vcpus,
    device: Device,
}

impl View {
    /// Creates a view that begins with this sample.
    pub(super) fn new(first: &Arc<Snapshot>, vcpus: u32, rate_hz: f64) -> Self {
        let (samples, vcpus) = (RecentSamples::new(first), Vcpus::new(vcpus));
        Self { rate_hz, samples, vcpus, device: Device::default() }
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, sample: &Arc<Snapshot>) {
        if let Some(before) = self.samples.add(sample) {
            self.vcpus.add_changes(&before, sample);
            self.device.add_changes(&before, sample);
        }
    }

    /// Returns the title: what is sampled, and at which rate.
    fn about(&self) -> String {
        let rate = hertz(self.rate_hz);
        match self.vcpus.count() {
            0 => format!("vmstrobe demo: a crypto device, sampled at {rate}"),
            vcpus => {
                let vcpus = counted(vcpus, "vCPU");
                format!("vmstrobe demo: {vcpus} and a crypto device, sampled at {rate}")
            }
        }
    }

    /// Returns the lines above the blocks of [`View::lines`].
    pub(super) fn title(&self) -> Vec<String> {
        [vec![self.about(), String::new()], self.vcpus.header()].concat()
    }

    /// Returns a block of lines, for output that is not a terminal.
    pub(super) fn lines(&self, elapsed: Duration) -> Vec<String> {
        let time = format!("{:.1} s", elapsed.as_secs_f64());
        let sampler = format!("{time:>8}  {}", self.sampler().join("; "));
        let vcpus = self.vcpus.lines(&self.samples, &time);
        [vcpus, self.device.lines(&self.samples, &time), vec![sampler]].concat()
    }

    /// Returns the lines of a screen of this size.
    pub(super) fn screen(&self, size: Size) -> Vec<String> {
        let mut lines = vec![format!("{}. Ctrl-C ends it.", self.about()), String::new()];
        lines.extend(self.rows(size));
        let [ticks, times] = self.sampler();
        lines.extend([String::new(), format!("sampler: {ticks}"), format!("         {times}")]);
        let mut legend = self.vcpus.legend();
        legend.push(CRYPTO_DEVICE.to_owned());
        if lines.len() + legend.len() < size.height {
            lines.push(String::new());
            lines.extend(legend);
        }
        lines
    }

    /// Returns the lines that remain of the last screen: the title and the rows.
    pub(super) fn final_lines(&self, size: Size) -> Vec<String> {
        let lines = [vec![self.about(), String::new()], self.rows(size)].concat();
        lines.iter().map(|line| fit(line, size.width)).collect()
    }

    /// Returns a row for each vCPU, as many as there is room for, and the rows of the device. Their
    /// charts begin in one column.
    fn rows(&self, size: Size) -> Vec<String> {
        let shown = size.height.saturating_sub(LINES_AROUND).max(1);
        let bar_width = if size.width < BARS_FROM_WIDTH { 0 } else { BAR_WIDTH };
        let vcpus = self.vcpus.table(&self.samples, shown, bar_width);
        let device = self.device.table(&self.samples);
        let used = vcpus.iter().chain(&device).map(|line| width(line));
        let columns = used.max().unwrap_or(0) + 2..size.width;
        let gap = (!vcpus.is_empty()).then(String::new);
        let vcpus = with_charts(vcpus, self.vcpus.charts(shown), "exits/s", columns.clone());
        let device = with_charts(device, self.device.charts(), "ops/s", columns);
        vcpus.into_iter().chain(gap).chain(device).collect()
    }

    /// Returns the sampler's own figures: the numbers of ticks, and their lateness and cost.
    fn sampler(&self) -> [String; 2] {
        let newest = self.samples.newest();
        let number = |name| newest.stat(name).find_map(|(_, value)| value.number());
        let [ticks, missed] = ["ticks", "missed_ticks"].map(|name| number(name).unwrap_or(0));
        // The sampler computes its quantiles about once a second. Until then they are 0.
        let time = |name| number(name).filter(|&ns| ns > 0).map_or_else(dash, nanos);
        let share = percent(missed as f64 / (ticks + missed).max(1) as f64);
        let late = ["lateness_ns_p50", "lateness_ns_p99", "lateness_ns_max"].map(time);
        let cost = ["tick_ns_p50", "tick_ns_p99"].map(time);
        let of = |[p50, p99]: [&String; 2]| format!("p50 {p50}, p99 {p99}");
        [
            format!("{} ticks, {} missed ({share})", thousands(ticks), thousands(missed)),
            format!(
                "late by {}, max {}; a tick costs {}",
                of([&late[0], &late[1]]),
                late[2],
                of([&cost[0], &cost[1]])
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::vcpus::NAMES;
    use super::*;
    use vmstrobe::{
        Desc, Layout, Mask, Object, ReadPlan, RowState, Scale, Schema, StatType, Target, Unit,
        Window,
    };

    /// Returns a snapshot of two vCPUs and a crypto device. The second vCPU has twice the exits,
    /// and the device encrypts once for each exit of the first.
    fn snapshot(at_ms: u64, exits: u64) -> Arc<Snapshot> {
        let ns = |desc| Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
        let hist = StatType::Log2Histogram;
        let descs = vec![
            Desc::counter(NAMES[0], 0),
            Desc::counter(NAMES[1], 8),
            ns(Desc::counter(NAMES[2], 16)),
            ns(Desc { stat_type: hist, size: 21, ..Desc::counter(NAMES[3], 24) }),
        ];
        let operations = ["sym-encrypt-ops", "sym-decrypt-ops"].into_iter();
        let operations = operations.chain(["sym-encrypt-bytes", "sym-decrypt-bytes"]).zip(0..);
        let operations = operations.map(|(name, at)| Desc::counter(name, 8 * at)).collect();
        let vcpus = Schema::new("kvm", Target::Vcpu, descs);
        let devices = Schema::new("cryptodev", Target::Cryptodev, operations);
        let plan = |schema: &Arc<Schema>| ReadPlan::new(schema, &Mask::all(schema));
        let object = |path: &str, schema: &Arc<Schema>, key| {
            let schema = Arc::clone(schema);
            Object { path: path.into(), index: None, schema, key }
        };
        let both = [0, 1].map(|at| object(&format!("/vm/demo/vcpu[{at}]"), &vcpus, at)).to_vec();
        let device = vec![object("/objects/crypto0", &devices, 2)];
        let layout = Layout::new(1, vec![(plan(&vcpus), both), (plan(&devices), device)]);
        let mut snapshot = Snapshot::new(&layout);
        let (words, states) = snapshot.begin(at_ms);
        let (rows, device) = words.split_at_mut(48);
        for (row, factor) in rows.chunks_mut(24).zip([1, 2]) {
            // Each exit is a halt that waits 1 ms, which is 2^20 ns or less.
            row[..3].copy_from_slice(&[exits * factor, exits, exits * 1_000_000]);
            row[23] = exits;
        }
        device.copy_from_slice(&[exits, exits / 2, exits * 4096, exits * 2048]);
        states.fill(RowState::Good);
        let begin_ns = at_ms * 1_000_000;
        snapshot.stamp(Window { begin_ns, end_ns: begin_ns, wall_offset_ns: 0 });
        Arc::new(snapshot)
    }

    /// Returns a view after two seconds at 100 Hz, with 500 exits a second.
    fn view(vcpus: u32) -> View {
        let mut view = View::new(&snapshot(0, 0), vcpus, 100.0);
        (1..=200).for_each(|at| view.add(&snapshot(at * 10, at * 5)));
        view
    }

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn figures_are_of_the_last_second() {
        let view = view(2);
        let size = Size { width: 100, height: 24 };
        let screen = view.screen(size);
        assert_eq!(words(&screen[3])[..4], ["0", "steady", "500", "500"], "{screen:#?}");
        assert!(screen[3].contains("50.0 %"), "{screen:#?}");
        assert!(screen[4].contains("1,000"), "{screen:#?}");
        let row = ["/objects/crypto0", "encrypt", "500", "2.05", "████████████████████"];
        assert_eq!(words(&screen[7]), row, "{screen:#?}");
        assert_eq!(words(&screen[8])[..4], ["/objects/crypto0", "decrypt", "250", "1.02"]);
        assert!(screen.iter().any(|line| line.starts_with("vCPU 1: square wave: ")));
        assert!(screen.iter().any(|line| line.starts_with("crypto0: AES-128-CTR ")));
        assert!(screen.iter().all(|line| line.chars().count() <= size.width), "{screen:#?}");
        // The charts begin in one column.
        let chart = |line: &str| line.chars().position(|c| c == '█').expect("the line has a chart");
        let last = |line: &str| line.chars().count();
        assert_eq!(last(&screen[3]), last(&screen[7]));
        assert!(chart(&screen[7]) > 60, "{screen:#?}");
    }

    #[test]
    fn a_small_terminal_leaves_out_the_least_important_lines() {
        let view = view(2);
        let narrow = view.screen(Size { width: 70, height: 13 });
        assert!(narrow[2].ends_with("p99"), "{narrow:#?}");
        assert!(!narrow.iter().any(|line| line.starts_with("vCPU 0: ")), "{narrow:#?}");
        let flat = view.rows(Size { width: 70, height: 3 });
        assert_eq!(flat[2], "      and 1 more");
        let remains = view.final_lines(Size { width: 40, height: 24 });
        assert!(remains.iter().all(|line| line.chars().count() <= 40), "{remains:#?}");
    }

    #[test]
    fn lines_are_aligned_with_their_titles() {
        let view = view(2);
        let (title, lines) = (view.title(), view.lines(Duration::from_secs(2)));
        let end = |text: &str, word| text.find(word).map(|at| text[..at].chars().count());
        assert_eq!(end(&title[2], "load"), end(&lines[0], "steady"));
        assert!(lines[0].starts_with("   2.0 s     0  steady"), "{lines:#?}");
        assert!(lines[2].starts_with("   2.0 s  crypto0 encrypt "), "{lines:#?}");
        assert_eq!(words(&lines[3])[3..8], ["decrypt", "250", "ops/s", "1.02", "MB/s"]);
        assert_eq!(end(&lines[0], "█"), end(&lines[2], "█"), "{lines:#?}");
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn without_vcpus_only_the_device_is_shown() {
        let view = view(0);
        assert_eq!(view.title().len(), 2);
        assert!(view.about().contains("demo: a crypto device, sampled at 100 Hz"));
        let screen = view.screen(Size { width: 100, height: 24 });
        assert_eq!(words(&screen[3])[..3], ["/objects/crypto0", "encrypt", "500"], "{screen:#?}");
        assert_eq!(view.lines(Duration::from_secs(2)).len(), 3);
    }
}
