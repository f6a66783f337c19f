//! What the demo shows: a row for each vCPU, and a line for the sampler.
//!
//! Figures are of the last second; the little chart has a point for each 100 ms, however often the
//! rest is refreshed. That the samples come a thousand times a second makes its points sharp.
//!
//! Invariant: a figure comes from two samples of the same vCPU; where there are none, there is a
//! dash. At most [`POINTS_PER_SECOND`] and some samples are kept from the sampler.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::{Change, Interval, ObjectView, Snapshot, Target, change};
use vmstrobe_guest::DemoGuest;

use super::NAMES;
use crate::query::quantile_text;
use crate::table::{Align, Table};
use crate::terminal::Size;
use crate::text::{bar, counted, fit, hertz, nanos, percent, sparkline, thousands};

const POINT_NS: u64 = 100_000_000;
const POINTS_PER_SECOND: usize = 10;
/// What the widest terminal can show.
const POINTS_MAX: usize = 400;
const BAR_WIDTH: usize = 8;
/// A narrower terminal has no bars.
const BARS_FROM_WIDTH: usize = 80;
/// Above and below the rows of vCPUs.
const LINES_AROUND: usize = 7;
const HALTED_NOTE: &str =
    "A halt's time counts when the halt ends, so that the time halted may exceed 100 %.";
/// vCPU 0 to 3 have a load each, and the others repeat them.
const LOADS: u32 = 4;

/// The samples of the last second, and points of what went before.
pub(super) struct View {
    vcpus: u32,
    rate_hz: f64,
    /// A sample for each of the last points, the oldest a second old.
    points: VecDeque<Arc<Snapshot>>,
    newest: Arc<Snapshot>,
    /// Exits a second, by vCPU and point.
    exits: Vec<VecDeque<f64>>,
}

/// What is shown of one vCPU.
struct Figures {
    exits: String,
    halts: String,
    /// How much of the time it waited in halt. A wait counts when it ends: it may exceed 1.
    halted: Option<f64>,
    p50: String,
    p99: String,
}

impl View {
    /// A view that begins with this sample. Without vCPUs it is one of the sampler alone.
    pub(super) fn new(first: &Arc<Snapshot>, vcpus: u32, rate_hz: f64) -> Self {
        Self {
            vcpus,
            rate_hz,
            points: VecDeque::from([Arc::clone(first)]),
            newest: Arc::clone(first),
            exits: (0..vcpus).map(|_| VecDeque::new()).collect(),
        }
    }

    /// Takes a sample.
    pub(super) fn add(&mut self, sample: &Arc<Snapshot>) {
        self.newest = Arc::clone(sample);
        let begin_ns = |snapshot: &Snapshot| snapshot.window().begin_ns;
        let Some(point) = self.points.back() else { return };
        if begin_ns(sample) < begin_ns(point) + POINT_NS {
            return;
        }
        for (exits, (_, change)) in self.exits.iter_mut().zip(changes(point, sample, NAMES[0])) {
            exits.push_back(rate(change.as_ref()).unwrap_or(0.0));
            if exits.len() > POINTS_MAX {
                exits.pop_front();
            }
        }
        self.points.push_back(Arc::clone(sample));
        if self.points.len() > POINTS_PER_SECOND + 1 {
            self.points.pop_front();
        }
    }

    /// What this is.
    fn about(&self) -> String {
        let rate = hertz(self.rate_hz);
        match self.vcpus {
            0 => format!("vmstrobe demo: its own sampler, sampled at {rate}"),
            vcpus => {
                let vcpus = counted(vcpus as usize, "vCPU");
                format!("vmstrobe demo: a KVM guest of our own, its {vcpus} sampled at {rate}")
            }
        }
    }

    /// What stands above the blocks of [`View::lines`].
    pub(super) fn title(&self) -> Vec<String> {
        let title = vec![self.about(), String::new()];
        let header = if self.vcpus > 0 { plain_table("time").lines() } else { Vec::new() };
        [title, header].concat()
    }

    /// A block of lines for where there is no terminal.
    pub(super) fn lines(&self, elapsed: Duration) -> Vec<String> {
        let time = format!("{:.1} s", elapsed.as_secs_f64());
        let mut table = plain_table("");
        for (at, figures) in self.figures().into_iter().enumerate() {
            table.row([
                time.clone(),
                at.to_string(),
                load(at).to_owned(),
                figures.exits,
                figures.halts,
                figures.halted.map_or_else(dash, percent),
                figures.p50,
                figures.p99,
                self.chart(at, POINTS_PER_SECOND),
            ]);
        }
        let rows = if table.is_empty() { Vec::new() } else { table.lines() };
        [rows, vec![format!("{time:>8}  {}", self.sampler().join("; "))]].concat()
    }

    /// A whole screen of that size.
    pub(super) fn screen(&self, size: Size) -> Vec<String> {
        let mut lines = vec![format!("{}. Ctrl-C ends it.", self.about()), String::new()];
        lines.extend(self.rows(size));
        let [ticks, times] = self.sampler();
        lines.extend([String::new(), format!("sampler: {ticks}"), format!("         {times}")]);
        let mut legend: Vec<String> = (0..self.vcpus.min(LOADS))
            .map(|vcpu| format!("vCPU {vcpu}: {}", DemoGuest::describe(vcpu)))
            .collect();
        if !legend.is_empty() {
            legend.push(HALTED_NOTE.to_owned());
        }
        if lines.len() + legend.len() < size.height && !legend.is_empty() {
            lines.push(String::new());
            lines.extend(legend);
        }
        lines
    }

    /// What remains of the last screen.
    pub(super) fn remains(&self, size: Size) -> Vec<String> {
        let lines = [vec![self.about(), String::new()], self.rows(size)].concat();
        lines.iter().map(|line| fit(line, size.width)).collect()
    }

    /// A row for each vCPU, as many as there is room for.
    fn rows(&self, size: Size) -> Vec<String> {
        let shown = size.height.saturating_sub(LINES_AROUND).max(1);
        let bar_width = if size.width < BARS_FROM_WIDTH { 0 } else { BAR_WIDTH };
        let figures = self.figures();
        let more = figures.len().saturating_sub(shown);
        let mut table = Table::new()
            .column("vCPU", Align::Right)
            .column("load", Align::Left)
            .wide_column("exits/s", Align::Right, 7)
            .wide_column("halts/s", Align::Right, 7)
            .wide_column("time halted", Align::Left, bar_width + 9)
            .wide_column("halt p50", Align::Right, 9)
            .wide_column("p99", Align::Right, 9);
        for (at, figures) in figures.into_iter().take(shown).enumerate() {
            let halted = figures.halted.map_or_else(dash, |share| {
                format!("{} {:>8}", bar(share, bar_width), percent(share))
            });
            let Figures { exits, halts, p50, p99, .. } = figures;
            table.row([at.to_string(), load(at).to_owned(), exits, halts, halted, p50, p99]);
        }
        if table.is_empty() {
            return Vec::new();
        }
        let more = (more > 0).then(|| format!("      and {more} more"));
        self.with_charts(table.lines(), size.width).into_iter().chain(more).collect()
    }

    /// Puts the little charts behind the lines of a table, if there is room for them.
    fn with_charts(&self, lines: Vec<String>, width: usize) -> Vec<String> {
        let used = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) + 2;
        let room = width.saturating_sub(used).min(POINTS_MAX);
        let header = [format!("exits/s of the last {} s", room / POINTS_PER_SECOND)];
        let header = header.into_iter().filter(|header| header.chars().count() <= room);
        let charts = (0..lines.len()).map(|at| self.chart(at, room));
        let mut behind = vec![header.collect::<String>()];
        behind.extend(charts);
        let join = |(line, chart): (String, String)| format!("{line:<used$}{chart}");
        lines.into_iter().zip(behind).map(join).map(|line| line.trim_end().to_owned()).collect()
    }

    /// Exits of the last points of that vCPU, the highest of them as high as can be.
    fn chart(&self, vcpu: usize, points: usize) -> String {
        let Some(exits) = self.exits.get(vcpu) else { return String::new() };
        let shown = exits.iter().skip(exits.len().saturating_sub(points)).copied();
        sparkline(shown.clone(), shown.fold(0.0, f64::max))
    }

    fn figures(&self) -> Vec<Figures> {
        let Some(base) = self.points.front() else { return Vec::new() };
        let of = |name| changes(base, &self.newest, name);
        let [exits, halts, waited, waits] = NAMES.map(of);
        let each = exits.into_iter().zip(halts).zip(waited).zip(waits);
        each.map(|((((_, exits), (_, halts)), (_, waited)), (view, waits))| {
            let number =
                |change| rate(change).map_or_else(dash, |rate| thousands(rate.round() as u64));
            let desc = view.get(NAMES[3]).map(|value| value.desc());
            let quantile = |q| match (desc, &waits) {
                (Some(desc), Some(Change::Buckets { deltas, .. })) => {
                    quantile_text(desc, deltas, q)
                }
                _ => dash(),
            };
            Figures {
                exits: number(exits.as_ref()),
                halts: number(halts.as_ref()),
                halted: rate(waited.as_ref()).map(|ns_per_s| ns_per_s * 1e-9),
                p50: quantile(0.5),
                p99: quantile(0.99),
            }
        })
        .collect()
    }

    /// The sampler's own figures: what became of its ticks, and its times.
    fn sampler(&self) -> [String; 2] {
        let number = |name| self.newest.stat(name).find_map(|(_, value)| value.number());
        let [ticks, missed] = ["ticks", "missed_ticks"].map(|name| number(name).unwrap_or(0));
        // It works its quantiles out about once a second: before, they are 0.
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

/// The table of [`View::lines`], so wide that blocks line up.
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

/// What a vCPU does, in a word.
fn load(vcpu: usize) -> &'static str {
    let about = DemoGuest::describe(vcpu as u32);
    about.split_once(':').map_or(about, |(word, _)| word)
}

fn dash() -> String {
    "-".to_owned()
}

/// How one statistic of each vCPU changed between two samples.
fn changes<'a>(
    was: &Snapshot,
    is: &'a Snapshot,
    name: &str,
) -> Vec<(ObjectView<'a>, Option<Change>)> {
    let interval = Interval::between(was.window(), is.window());
    let vcpus = is.objects().filter(|view| *view.object().schema.target() == Target::Vcpu);
    let changed = |view: &ObjectView<'_>| {
        let earlier = was.object(&view.object().path)?.get(name)?;
        Some(change(earlier, view.get(name)?, interval?))
    };
    vcpus.map(|view| (view, changed(&view))).collect()
}

fn rate(change: Option<&Change>) -> Option<f64> {
    match change? {
        Change::Delta { rate, .. } | Change::Buckets { rate, .. } => Some(rate.per_second),
        Change::Reset { .. } | Change::Level(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstrobe_core::{
        Desc, Layout, Mask, Object, ReadPlan, RowState, Scale, Schema, StatType, Unit, Window,
    };

    /// A snapshot of two vCPUs, of which the second makes twice the exits.
    fn snapshot(at_ms: u64, exits: u64) -> Arc<Snapshot> {
        let ns = |desc| Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
        let hist = StatType::Log2Histogram;
        let descs = vec![
            Desc::counter(NAMES[0], 0),
            Desc::counter(NAMES[1], 8),
            ns(Desc::counter(NAMES[2], 16)),
            ns(Desc { stat_type: hist, size: 21, ..Desc::counter(NAMES[3], 24) }),
        ];
        let schema = Schema::new("kvm", Target::Vcpu, descs);
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let object = |index: u32| Object {
            path: format!("/vm/demo/vcpu[{index}]").into(),
            index: Some(index),
            schema: Arc::clone(&schema),
            key: index.into(),
        };
        let objects = vec![object(0), object(1)];
        let mut snapshot = Snapshot::new(&Layout::new(1, vec![(plan, objects)]));
        let (words, states) = snapshot.begin(at_ms);
        for (row, factor) in words.chunks_mut(24).zip([1, 2]) {
            // Each exit is a halt that waits 1 ms, which is 2^20 ns or less.
            row[..3].copy_from_slice(&[exits * factor, exits, exits * 1_000_000]);
            row[23] = exits;
        }
        states.fill(RowState::Good);
        let begin_ns = at_ms * 1_000_000;
        snapshot.stamp(Window { begin_ns, end_ns: begin_ns, wall_offset_ns: 0 });
        Arc::new(snapshot)
    }

    /// Two seconds at 100 Hz; 500 exits a second.
    fn view() -> View {
        let mut view = View::new(&snapshot(0, 0), 2, 100.0);
        (1..=200).for_each(|at| view.add(&snapshot(at * 10, at * 5)));
        view
    }

    #[test]
    fn figures_are_of_the_last_second() {
        let view = view();
        let size = Size { width: 100, height: 24 };
        let screen = view.screen(size);
        let row: Vec<&str> = screen[3].split_whitespace().collect();
        assert_eq!(row[..4], ["0", "steady", "500", "500"], "{screen:#?}");
        assert!(screen[3].contains("50.0 %"), "{screen:#?}");
        assert!(screen[4].contains("1,000"), "{screen:#?}");
        assert!(screen.iter().any(|line| line.starts_with("vCPU 1: square wave: ")));
        assert!(screen.iter().all(|line| line.chars().count() <= size.width), "{screen:#?}");
        assert_eq!(view.chart(0, 5), "█████");
    }

    #[test]
    fn a_small_terminal_loses_the_least_important_first() {
        let view = view();
        let narrow = view.screen(Size { width: 70, height: 9 });
        assert!(narrow[2].ends_with("p99"), "{narrow:#?}");
        assert!(!narrow.iter().any(|line| line.starts_with("vCPU 0: ")), "{narrow:#?}");
        let flat = view.rows(Size { width: 70, height: 3 });
        assert_eq!(flat.last().map(String::as_str), Some("      and 1 more"));
        let remains = view.remains(Size { width: 40, height: 24 });
        assert!(remains.iter().all(|line| line.chars().count() <= 40), "{remains:#?}");
    }

    #[test]
    fn lines_stand_under_their_titles() {
        let view = view();
        let (title, lines) = (view.title(), view.lines(Duration::from_secs(2)));
        let end = |text: &str, word| text.find(word).map(|at| text[..at].chars().count());
        assert_eq!(end(&title[2], "load"), end(&lines[0], "steady"));
        assert!(lines[0].starts_with("   2.0 s     0  steady"), "{lines:#?}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn without_vcpus_there_is_the_sampler_alone() {
        let view = View::new(&snapshot(0, 0), 0, 100.0);
        assert_eq!(view.title().len(), 2);
        let view = View { vcpus: 0, exits: Vec::new(), ..view };
        assert!(view.about().contains("its own sampler, sampled at 100 Hz"));
    }
}
