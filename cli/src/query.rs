//! `vmstrobe query` and `vmstrobe info stats`: the statistics, read once.
//!
//! Invariant: all values that are printed were read in one tick. An object that could not be read
//! is named on standard error. If no object could be read, the command fails.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe::hmp::InfoStats;
use vmstrobe::json::Results;
use vmstrobe::{Names, ObjectView, Order, RowState, Selection, Snapshot, Target, Value, total};

use crate::args::{InfoArgs, MethodArgs, ProviderSet, QueryArgs, ReplayAtArgs, SourceArgs};
use crate::attach;
use crate::error::{Error, Result};
use crate::messages::of_notices;
use crate::out::{Out, say_each};
use crate::table::{Align, Table};
use crate::terminal;
use crate::text::{counted, quantile_text, thousands};

/// The time that a demo guest runs before it is read, so that its counters are not 0.
const DEMO_WARM_UP: Duration = Duration::from_millis(500);

/// Prints the statistics as tables, or as the return value of `query-stats`.
///
/// # Errors
/// If nothing can be read, or the output cannot be written.
pub(crate) fn run(args: &QueryArgs, out: &mut Out) -> Result<u8> {
    let selection = args.select.selection(&args.vcpus);
    let sources = Sources { source: &args.source, replay: &args.replay, method: &args.method };
    let snapshot = read(sources, args.select.providers(), &selection)?;
    if args.json {
        out.lines([Results::new(snapshot.layout(), Order::Schema).text(&snapshot)])?;
    } else {
        out.lines(tables(&snapshot, args.zeros, terminal::width_of(out)))?;
    }
    Ok(0)
}

/// Prints the text of a QEMU monitor's `info stats`.
///
/// # Errors
/// As [`run`].
pub(crate) fn info(args: &InfoArgs, out: &mut Out) -> Result<u8> {
    let names = args.names.as_deref().filter(|names| *names != "*");
    let target = Target::from_name(&args.target);
    let providers = ProviderSet::of(Some(&args.target), args.provider.as_deref());
    let selection = Selection {
        target: Some(target),
        provider: args.provider.clone(),
        names: names.map(|names| Names::exact(names.split(','))),
        vcpus: args.vcpus.refs(),
    };
    let sources = Sources { source: &args.source, replay: &args.replay, method: &args.method };
    let snapshot = read(sources, providers, &selection)?;
    let with_path = snapshot.layout().rows() > 1;
    let with_provider = args.provider.is_none();
    let order = Order::Schema;
    let text = InfoStats { snapshot: &snapshot, with_provider, with_path, order }.to_string();
    out.lines(text.lines())?;
    Ok(0)
}

/// The sources that are read, or the recording.
#[derive(Clone, Copy)]
struct Sources<'a> {
    source: &'a SourceArgs,
    replay: &'a ReplayAtArgs,
    method: &'a MethodArgs,
}

/// Reads the selected statistics of the sources once, and prints which objects could not be read.
///
/// # Errors
/// If nothing is selected, the sources cannot be opened, or no object could be read.
fn read(
    Sources { source, replay, method }: Sources<'_>,
    providers: ProviderSet,
    selection: &Selection,
) -> Result<Arc<Snapshot>> {
    let recording = (replay.replay.file.as_deref(), replay.moment());
    let mut attachment = attach::open_for_reading(source, recording, providers, method)?;
    let filter = attachment.select(selection)?;
    if source.demo {
        thread::sleep(DEMO_WARM_UP);
    }
    let snapshot = attachment.read(&filter)?;
    say_each(of_notices(attachment.notices()));
    say_each(unread(&snapshot));
    if readable(&snapshot).next().is_none() {
        return Err(Error::failed(match recording {
            (None, _) => {
                "no object could be read; the process may have exited: see `vmstrobe list`"
            }
            (Some(_), _) => "no object has values in this sample: choose another with --at TIME",
        }));
    }
    Ok(snapshot)
}

fn readable(snapshot: &Snapshot) -> impl Iterator<Item = ObjectView<'_>> {
    snapshot.objects().filter(|view| view.state().has_values())
}

/// Returns a message for each object that could not be read.
fn unread(snapshot: &Snapshot) -> Vec<String> {
    let message = |view: ObjectView<'_>| {
        let path = &view.object().path;
        Some(match view.state() {
            RowState::Good | RowState::Aged(_) => return None,
            RowState::Stale => format!("{path}: its source does not answer any more"),
            RowState::Torn => format!("{path} changed while it was read"),
            RowState::Gone => format!("{path} does not exist any more"),
            RowState::Io(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                format!("{path} could not be read: {error}")
            }
            _ => format!("{path} was not read"),
        })
    };
    snapshot.objects().filter_map(message).collect()
}

/// Returns a table for each virtual machine, or for each other group of objects with one schema and
/// one parent path: a row for each statistic, a column for each object.
fn tables(snapshot: &Snapshot, zeros: bool, width: usize) -> Vec<String> {
    let views: Vec<ObjectView<'_>> = readable(snapshot).collect();
    let same = |a: &ObjectView<'_>, b: &ObjectView<'_>| {
        parent(a) == parent(b) && a.object().schema == b.object().schema
    };
    let (mut lines, mut hidden) = (Vec::new(), 0);
    for views in views.chunk_by(same) {
        let (part, zero) = table(views, zeros);
        lines.extend(part.lines_split(width, 2));
        lines.push(String::new());
        hidden += zero;
    }
    if hidden > 0 {
        let hidden = counted(hidden, "statistic");
        lines.push(format!("not shown: {hidden} at 0 everywhere (-z shows them)"));
    } else {
        lines.pop();
    }
    lines
}

/// Returns the table of objects with one parent path, and the number of rows that it leaves out.
fn table(views: &[ObjectView<'_>], zeros: bool) -> (Table, usize) {
    let title = views.first().map(parent).unwrap_or_default();
    let mut table = Table::new().column(title, Align::Left).column("", Align::Left);
    for view in views {
        table = table.column(leaf(view), Align::Right);
    }
    let mut hidden = 0;
    let columns: Vec<Vec<Value<'_>>> = views.iter().map(|view| view.stats().collect()).collect();
    for at in 0..columns.first().map_or(0, Vec::len) {
        let row: Vec<Value<'_>> = columns.iter().map(|values| values[at]).collect();
        let has_value = row.iter().any(|value| value.words().iter().any(|&word| word != 0));
        if has_value || zeros {
            add_row(&mut table, &row);
        } else {
            hidden += 1;
        }
    }
    (table, hidden)
}

/// Adds a row for a statistic, or three rows for a histogram: the count and two quantiles.
fn add_row(table: &mut Table, row: &[Value<'_>]) {
    let Some(desc) = row.first().map(Value::desc) else { return };
    let mut add = |label: &str, unit: String, cell: &dyn Fn(&Value<'_>) -> String| {
        let cells = row.iter().map(cell);
        table.row([format!("{}{label}", desc.name), unit].into_iter().chain(cells));
    };
    if row.iter().all(|value| value.buckets().is_some()) {
        let count = |value: &Value<'_>| thousands(total(value.words()));
        add("", "count".to_owned(), &count);
        for (label, q) in [("p50", 0.5), ("p99", 0.99)] {
            add("", label.to_owned(), &|value| quantile_text(desc, value.words(), q));
        }
    } else {
        let unit = row.first().map(Value::unit_text).unwrap_or_default();
        add("", if desc.is_boolean() { String::new() } else { unit }, &value_text);
    }
}

fn value_text(value: &Value<'_>) -> String {
    match value.boolean() {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => {
            let number =
                if value.desc().is_id() { |word: u64| word.to_string() } else { thousands };
            value.words().iter().map(|word| number(*word)).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Returns the path without its last part: the virtual machine of a vCPU, `/objects` of a crypto
/// device.
fn parent(view: &ObjectView<'_>) -> String {
    let path = &view.object().path;
    path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned()
}

/// Returns the last part of the path: the vCPU or the device.
fn leaf(view: &ObjectView<'_>) -> String {
    let path = &view.object().path;
    path.rsplit_once('/').map_or(&**path, |(_, leaf)| leaf).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstrobe::{Desc, Layout, Mask, Object, ReadPlan, Scale, Schema, StatType, Unit};

    /// Returns a snapshot of two vCPUs of one VM. A row without words is not good.
    fn snapshot(rows: [Option<[u64; 6]>; 2]) -> Snapshot {
        let ns = |desc| Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
        let hist = StatType::Log2Histogram;
        let descs = vec![
            Desc::counter("exits", 0),
            ns(Desc::counter("halt_wait_ns", 8)),
            ns(Desc { stat_type: hist, size: 2, ..Desc::counter("halt_wait_hist", 16) }),
            Desc { unit: Unit::Boolean, ..Desc::counter("blocking", 32) },
            Desc::counter("hypercalls", 40),
        ];
        let schema = Schema::new("kvm", Target::Vcpu, descs);
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let objects = (0..2).map(|at| Object {
            path: format!("/vm/web/vcpu[{at}]").into(),
            index: Some(at),
            schema: Arc::clone(&schema),
            key: at.into(),
        });
        let mut snapshot = Snapshot::new(&Layout::new(0, vec![(plan, objects.collect())]));
        let (words, states) = snapshot.begin(1);
        for ((words, state), row) in words.chunks_mut(6).zip(states).zip(rows) {
            if let Some(row) = row {
                words.copy_from_slice(&row);
                *state = RowState::Good;
            }
        }
        snapshot
    }

    #[test]
    fn a_statistic_is_a_row_and_a_vcpu_is_a_column() {
        let snapshot = snapshot([Some([1234, 5_000_000, 3, 1, 1, 0]), Some([0; 6])]);
        let want = [
            "/vm/web                vcpu[0]  vcpu[1]",
            "exits                    1,234        0",
            "halt_wait_ns    ns   5,000,000        0",
            "halt_wait_hist  count        4        0",
        ];
        let lines = tables(&snapshot, false, 80);
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let got: Vec<String> = lines.iter().take(4).map(|line| squeezed(line)).collect();
        assert_eq!(got, want.map(squeezed));
        let last = "not shown: 1 statistic at 0 everywhere (-z shows them)";
        assert_eq!(lines.last().map(String::as_str), Some(last));
        assert!(tables(&snapshot, true, 80).iter().any(|line| line.starts_with("hypercalls")));
    }

    #[test]
    fn objects_that_could_not_be_read_are_left_out() {
        let one = snapshot([None, Some([1; 6])]);
        assert_eq!(unread(&one), ["/vm/web/vcpu[0] was not read"]);
        let lines = tables(&one, false, 80);
        assert!(lines[0].contains("vcpu[1]") && !lines[0].contains("vcpu[0]"), "{}", lines[0]);
        assert_eq!(unread(&snapshot([None, None])).len(), 2);
    }
}
