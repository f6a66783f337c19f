//! The examples for authors of providers work as their texts promise: the statistics of a device
//! backend can be read from outside while it runs, for 15 lines of its own; and a provider that is
//! registered while a sampler runs is sampled.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use vmstrobe::scan_all;
use vmstrobe::table::Tables;
use vmstrobe_core::{Provider, Snapshot, StatType, Unit};
use vmstrobe_sampler::Fanout;
use vmstrobe_tests::command::{example, run_within};
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::require::require;
use vmstrobe_tests::rig::{Rig, rig, show, wait_for};

const LIMIT: Duration = Duration::from_secs(30);
const QUEUE: &str = "/xyz/queue[0]";
/// The number of threads of queue_stats that count.
const THREADS: u64 = 2;

/// Returns requests, bytes, and the sum of the latencies' buckets of the snapshot.
fn counted(snapshot: &Snapshot) -> [u64; 3] {
    let queue = snapshot.object(QUEUE).expect("the object is sampled");
    let value = |name| queue.get(name).unwrap_or_else(|| panic!("{name}: {:?}", queue.state()));
    let number = |name| value(name).number().expect("the statistic is a number");
    let latencies = value("latency").buckets().expect("a histogram").iter().sum();
    [number("requests"), number("bytes"), latencies]
}

#[test]
fn queue_stats_can_be_sampled_while_it_runs() {
    let child = Command::new(example("queue_stats"))
        .args(["--seconds", "60"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program can be executed");
    let mut child = Reaped(child);
    let tables = Arc::new(Tables::new().expect("a thread can be started"));
    wait_for("the process has a table", LIMIT, || {
        assert!(
            child.try_wait().expect("the process is a child of this one").is_none(),
            "the process has ended"
        );
        // A table that is being made cannot be read yet, and its queue appears a moment after it.
        tables.attach(child.id()).is_ok()
            && !tables.objects().expect("the provider lists its objects").is_empty()
    });
    let found = scan_all().expect("/proc can be read");
    assert!(found.tables.iter().any(|table| table.pid == child.id() && table.provider == "xyz"));

    let Rig { mut sampler, control, .. } = rig(tables, &["queue"], Fanout::Inline);
    let mut sample = || {
        sampler.tick();
        control.latest().load_full()
    };
    let first = sample();
    wait_for("the device serves requests", LIMIT, || {
        counted(&sample())[0] > counted(&first)[0] + 100
    });
    let (before, after) = (sample(), sample());
    let ([was, was_bytes, had], [is, is_bytes, has]) = (counted(&before), counted(&after));
    // Each thread may just count one more request.
    assert!(was <= has + THREADS && had <= is + THREADS, "{was} {had}, then {is} {has}");
    assert!(is_bytes >= was_bytes && was_bytes >= 512 * (was - THREADS), "{was_bytes} of {was}");
    let queue = after.object(QUEUE).expect("the object is sampled");
    let desc = |name| queue.get(name).expect("the row was read").desc();
    assert_eq!(desc("bytes").unit, Unit::Bytes);
    assert_eq!(desc("latency").stat_type, StatType::Log2Histogram);
    assert_eq!(queue.get("latency").expect("the row was read").unit_text(), "ns");

    child.kill().expect("a child of ours can be ended");
    child.wait().expect("the child has not been reaped");
    wait_for("the end of the VM is seen", LIMIT, || {
        let snapshot = sample();
        let row = snapshot.object(QUEUE).expect("the object is still in the layout");
        row.get("requests").is_none()
    });
}

#[test]
fn queue_stats_counts_what_its_guest_asks_for() {
    let output = run_within(LIMIT, example("queue_stats"), &["--seconds", "0.3"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let numbers: Vec<u64> =
        output.stdout.lines().last().map_or(Vec::new(), |line| {
            line.split(' ').filter_map(|word| word.parse().ok()).collect()
        });
    let [requests, bytes] = numbers[..] else { panic!("{output:?}") };
    assert!(requests > 0 && bytes >= requests * 512, "{output:?}");
    let output = run_within(LIMIT, example("queue_stats"), &["--nonsense"]);
    assert_eq!(output.code, Some(1), "{output:?}");
}

#[test]
fn vmstrobe_adds_at_most_15_lines_to_queue_stats() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/queue_stats.rs");
    let source = fs::read_to_string(source).expect("the example is there");
    let (mut inside, mut lines) = (false, 0);
    for line in source.lines() {
        match line.trim() {
            "// vmstrobe: from here" => {
                assert!(!inside, "a change began twice");
                inside = true;
            }
            "// vmstrobe: to here" => inside = false,
            line if inside => {
                assert!(!line.is_empty() && !line.starts_with("//"), "not a line of code: {line}");
                lines += 1;
            }
            line => assert!(!line.contains("vmstrobe_"), "outside of the markers: {line}"),
        }
    }
    assert!(!inside, "a change began and did not end");
    show(&format!("queue_stats: {lines} lines of vmstrobe"));
    assert_eq!(lines, 15);
}

#[test]
fn own_provider_is_sampled_once_it_is_registered() {
    let scheduler = fs::read_to_string("/proc/self/schedstat").map_err(|error| error.to_string());
    if !require("schedstat", scheduler.map(drop)) {
        return;
    }
    let output = run_within(LIMIT, example("own_provider"), &["--seconds", "1"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stderr, "");
    let (first, rest) = output.stdout.split_once('\n').expect("the child prints lines");
    assert_eq!(first, "sampled without a provider: 0 objects");
    // The line is "/xyz/thread[TID]: N ns in N slices", and the run time of a thread only grows.
    let mut threads: Vec<(&str, Vec<u64>)> = Vec::new();
    for line in rest.lines().filter(|line| line.starts_with('/')) {
        let (path, numbers) = line.split_once(": ").expect(line);
        let run_ns = numbers.split(' ').next().and_then(|n| n.parse().ok()).expect(line);
        match threads.iter_mut().find(|(known, _)| *known == path) {
            Some((_, run)) => run.push(run_ns),
            None => threads.push((path, vec![run_ns])),
        }
    }
    // The program's first thread, the sampler's, the roster's, and the one that is busy.
    assert!(threads.len() >= 4, "{}", output.stdout);
    assert!(threads.iter().all(|(path, run)| path.starts_with("/xyz/thread[") && run.is_sorted()));
    let ran_ms = threads.iter().map(|(_, run)| (run[run.len() - 1] - run[0]) / 1_000_000).max();
    assert!(ran_ms.is_some_and(|ms| ms > 50), "nobody was busy: {}", output.stdout);
}
