//! The figures that the project promises, each beside its peer in one run.
//!
//! `cargo bench -p vmstrobe-benches --bench ratios` prints a table; `-- --json` an array of
//! `{"name", "ours", "peer", "ratio", "goal", "unit"}`; `-- NAME` measures only names that contain
//! NAME; `-- --quick` takes a few pairs only, to see that everything runs.
//!
//! Our side and the peer run in turn, A B B A, and the ratio is the median of the pairs' ratios, so
//! that a machine that slows down slows both. If a figure cannot be measured, stderr has the
//! reason.

use serde::Serialize;

mod pairs;
mod cpus;
mod rig;
mod latest;
mod qemu;
mod qmp;
mod qmp_client;
mod qmp_echo;
mod qmp_rig;
mod qmp_stream;
mod sleep;
mod table;
mod tick;
mod kernel;
mod words;
mod record;
mod recording;
mod top;

use pairs::Effort;

/// The bound that a measurement has to meet.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// The largest ratio of our figure to the peer's.
    RatioAtMost(f64),
    /// The smallest ratio of the peer's figure to ours.
    SpeedupAtLeast(f64),
    /// The largest figure of ours, in its unit.
    OursAtMost(f64),
    /// No bound: the figure is only shown.
    None,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    ours: f64,
    peer: f64,
    ratio: f64,
    #[serde(serialize_with = "bound")]
    goal: Goal,
    unit: &'static str,
}

fn bound<S: serde::Serializer>(goal: &Goal, serializer: S) -> Result<S::Ok, S::Error> {
    match goal {
        Goal::RatioAtMost(bound) | Goal::SpeedupAtLeast(bound) | Goal::OursAtMost(bound) => {
            serializer.serialize_f64(*bound)
        }
        Goal::None => serializer.serialize_none(),
    }
}

impl Line {
    fn is_met(&self) -> bool {
        match self.goal {
            Goal::RatioAtMost(most) => self.ratio <= most,
            Goal::SpeedupAtLeast(least) => self.ratio >= least,
            Goal::OursAtMost(most) => self.ours <= most,
            Goal::None => true,
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::RatioAtMost(most) => format!("ratio ≤ {most:.2}"),
            Goal::SpeedupAtLeast(least) => format!("ratio ≥ {least:.0}"),
            Goal::OursAtMost(most) => format!("ours ≤ {most} {}", self.unit),
            Goal::None => String::new(),
        }
    }
}

/// A measurement. It returns `None` if its name was not asked for.
type Measure = fn(&str, Effort) -> Result<Line, Box<dyn std::error::Error>>;

const MEASURES: [(&str, Measure); 41] = [
    ("tick/fd/4", tick::fd_4),
    ("tick/fd/64", tick::fd_64),
    ("tick/fd/256", tick::fd_256),
    ("tick/all/64", tick::all_64),
    ("tick/fanout/1024", tick::fanout_1024),
    ("tick/bpf/4", kernel::tick_4),
    ("tick/bpf/64", kernel::tick_64),
    ("tick/bpf/256", kernel::tick_256),
    ("tick/bpf/1024", kernel::tick_1024),
    ("tick/bpf/scalars/64", kernel::tick_scalars_64),
    ("tick/bpf/all/64", kernel::tick_all_64),
    ("cpu/10khz/64", kernel::cpu_10khz_64),
    ("tick/table/64", table::tick_64),
    ("tick/table/1024", table::tick_1024),
    ("tick/table/64/list", table::tick_64_found),
    ("tick/table/64/live", table::tick_64_live),
    ("tick/table/1024/live", table::tick_1024_live),
    ("counter/add", table::counter_add),
    ("counter/add/live", table::counter_add_live),
    ("counter/shared", table::counter_shared),
    ("latest", latest::latest),
    ("sleep/1khz", sleep::sleep_1khz),
    ("qemu/query", qemu::query),
    ("qmp/echo", qmp::echo),
    ("qmp/echo/reads", qmp::echo_reads),
    ("qmp/echo/apart", qmp::echo_apart),
    ("qmp/filtered", qmp::filtered),
    ("qmp/all", qmp::all),
    ("qmp/pipelined", qmp::pipelined),
    ("qmp/clients/8", qmp::clients_8),
    ("qmp/stream", qmp_stream::stream),
    ("qmp/stream/qemu", qmp_stream::stream_qemu),
    ("export/arrows/few", record::few),
    ("export/arrows/all", record::all),
    ("export/size/few", record::few_size),
    ("export/size/all", record::all_size),
    ("record/arrows/64", recording::arrows_64),
    ("record/flight/64", recording::flight_64),
    ("record/parquet/64", recording::parquet_64),
    ("record/perfetto/64", recording::perfetto_64),
    ("top/state/64", top::state_64),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [how, reply] = arguments.as_slice()
        && [qmp_echo::ECHO, qmp_echo::READ_AND_ECHO].contains(&how.as_str())
    {
        return qmp_echo::serve(how, reply);
    }
    let json = arguments.iter().any(|a| a == "--json");
    let effort =
        if arguments.iter().any(|a| a == "--quick") { Effort::Quick } else { Effort::Full };
    let asked: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let mut lines = Vec::new();
    if !json {
        println!("{:20} {:>12} {:>12} {:>8}  {:<16}", "name", "ours", "peer", "ratio", "goal");
    }
    for (name, measure) in MEASURES {
        if !asked.is_empty() && !asked.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        match measure(name, effort) {
            Ok(line) => {
                if !json {
                    print_line(&line);
                }
                lines.push(line);
            }
            Err(error) => eprintln!("{name}: skipped: {error}"),
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&lines).expect("lines are plain numbers"));
    }
    Ok(())
}

fn print_line(line: &Line) {
    let met = match line.goal {
        Goal::None => "",
        _ if line.is_met() => "met",
        _ => "NOT MET",
    };
    let number = |n: f64| format!("{n:.*} {}", if n < 100.0 { 2 } else { 0 }, line.unit);
    println!(
        "{:20} {:>12} {:>12} {:>8.3}  {:<16} {met}",
        line.name,
        number(line.ours),
        number(line.peer),
        line.ratio,
        line.goal_text(),
    );
}
