//! `--provider sched`: the scheduler's statistics of vCPU threads, read by both methods, and shown
//! only if they are asked for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vmstrobe_tests::command::spawn;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::show;
use vmstrobe_tests::serve::Serve;

use super::same::{list, run_a_while, sorted_by};
use crate::{fine, json as parsed, paused_qemu, says, vmstrobe};

const NAMES: [&str; 4] = ["run_delay", "run_time", "timeslices", "thread_id"];
/// The two methods: the BPF reader, if it can be used, and /proc.
const WAYS: [&str; 2] = ["auto", "off"];
const SCHED: [&str; 2] = ["--provider", "sched"];

/// Returns the results of a query, with the statistics of each by their names.
fn query(args: &[&str]) -> Vec<(Json, Json)> {
    let output = vmstrobe(&[&["query", "--json"], args].concat());
    fine(&output);
    let by_name = |result: &Json| {
        assert_eq!(result["provider"], "sched", "{result}");
        let stats = list(&result["stats"]);
        assert_eq!(stats.iter().map(|stat| &stat["name"]).collect::<Vec<_>>(), NAMES);
        let values = NAMES.iter().zip(stats).map(|(name, stat)| (*name, stat["value"].clone()));
        (result["qom-path"].clone(), values.collect())
    };
    list(&parsed(&output.stdout)).iter().map(by_name).collect()
}

/// Returns the providers of results or schemas.
fn providers(entries: &Json) -> Vec<&str> {
    list(entries)
        .iter()
        .map(|entry| entry["provider"].as_str().expect("the value is a string"))
        .collect()
}

#[test]
fn sched_is_shown_only_if_it_is_asked_for() {
    if !require_kvm() {
        return;
    }
    let unasked = |args: &[&str]| {
        let output = vmstrobe(args);
        fine(&output);
        parsed(&output.stdout)
    };
    assert_eq!(providers(&unasked(&["query", "--demo", "--json"])), ["kvm"; 4]);
    let schemas = unasked(&["schema", "--demo", "--json"]);
    let schemas = providers(&schemas);
    assert!(schemas.contains(&"kvm") && !schemas.contains(&"sched"), "{schemas:?}");

    let output = vmstrobe(&[&["schema", "--demo", "--json"], &SCHED[..]].concat());
    fine(&output);
    let time = |name: &str| {
        json!({"name": name, "exponent": -9, "unit": "seconds", "base": 10,
                                   "type": "cumulative"})
    };
    let want = json!([{"provider": "sched", "target": "vcpu", "stats": [
        time("run_delay"),
        time("run_time"),
        {"name": "timeslices", "exponent": 0, "type": "cumulative"},
        {"name": "thread_id", "exponent": 0, "type": "instant"},
    ]}]);
    assert_eq!(parsed(&output.stdout), want);
    let text = vmstrobe(&["info", "stats", "--demo", "vcpu", "timeslices", "sched"]);
    fine(&text);
    assert_eq!(text.stdout.matches("    timeslices (cumulative): ").count(), 4, "{text:?}");
}

/// A running `stat --json`, read interval by interval.
struct Intervals {
    child: Reaped,
    lines: BufReader<ChildStdout>,
}

impl Intervals {
    fn start(args: &[&str]) -> Self {
        let stat = ["stat", "--json", "--per-vcpu", "-i", "1000"];
        let mut child = spawn(&[&stat, &SCHED[..], args].concat());
        let lines = BufReader::new(child.stdout.take().expect("the child's stream is a pipe"));
        Self { child, lines }
    }

    fn next(&mut self) -> Json {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the child prints lines");
        parsed(&line)
    }
}

#[test]
fn both_methods_agree_on_the_demo() {
    if !require_kvm() {
        return;
    }
    for bpf in WAYS {
        let mut intervals = Intervals::start(&["--demo", "--bpf", bpf]);
        let report = intervals.next();
        let stats = list(&report["stats"]);
        assert_eq!(stats.len(), 4 * NAMES.len(), "{report}");
        for (vcpu, stats) in stats.chunks(NAMES.len()).enumerate() {
            let names: Vec<&Json> = stats.iter().map(|stat| &stat["name"]).collect();
            assert_eq!(names, NAMES);
            let of_this = |stat: &Json| stat["qom-path"] == format!("/vm/demo/vcpu[{vcpu}]");
            assert!(stats.iter().all(of_this), "{report}");
            let number =
                |at: usize, key: &str| stats[at][key].as_u64().expect("the value is an integer");
            // The thread ran, and no longer than the elapsed time; it had a turn on a CPU.
            let seconds = report["seconds"].as_f64().expect("the value is a number");
            let ran = number(1, "delta") as f64 * 1e-9;
            assert!(0.0 < ran && ran < 1.1 * seconds, "{ran} of {seconds} s: {report}");
            assert!(number(2, "delta") > 0, "{report}");
            // The thread is that of the vCPU.
            let task = format!("/proc/{}/task/{}", intervals.child.id(), number(3, "level"));
            let name =
                fs::read_to_string(format!("{task}/comm")).expect("the thread is of that process");
            assert_eq!(name.trim_end(), format!("CPU {vcpu}/KVM"));
            assert!(number(3, "min") == number(3, "max"), "{report}");
        }
        let read = &report["read"];
        show(&format!("sched of the demo, --bpf {bpf}: {read}"));
        let by_proc = read["method"] == "proc" && read["reason"].is_string();
        let bulk = read["method"] == "bpf" && read["bpf_objects"] == 4;
        assert!(by_proc || bulk && bpf == "auto", "{read}");
    }
}

#[test]
fn a_sum_of_threads_is_not_shown() {
    if !require_kvm() {
        return;
    }
    let args = [&["stat", "--demo", "-d", "1s"], &SCHED[..]].concat();
    let output = vmstrobe(&args);
    fine(&output);
    let told = |name: &str| output.stdout.lines().any(|line| line.contains(&format!("  {name}  ")));
    assert!(told("run_time") && told("timeslices") && !told("thread_id"), "{output:?}");
    let note = " not shown: thread_id, of which there is no sum (--per-vcpu shows it)\n";
    assert!(output.stdout.contains(note), "{output:?}");
    let of_vcpus = |line: &str| line.contains(" run_time ") && line.ends_with(" of vcpu time");
    assert!(output.stdout.lines().any(of_vcpus), "{output:?}");

    let output = vmstrobe(&[&args[..], &["--json"]].concat());
    fine(&output);
    let report = parsed(&output.stdout);
    let threads = list(&report["stats"]).iter().find(|stat| stat["name"] == "thread_id");
    let threads = threads.expect("nothing is left out for programs");
    assert!(threads.get("level").is_none() && threads["min"].as_u64() < threads["max"].as_u64());
    // A thread id has no sum.
    let output = vmstrobe(&[&args[..], &["--vcpu", "1"]].concat());
    fine(&output);
    assert!(output.stdout.contains(" thread_id") && !output.stdout.contains("no sum"));
}

#[test]
fn the_threads_of_a_qemu_are_those_that_it_names() {
    let Some((mut qemu, pid)) = paused_qemu("threads", 3) else { return };
    run_a_while(&mut qemu);
    let cpus = qemu.execute("query-cpus-fast", Json::Null);
    let cpus = sorted_by(list(&cpus).to_vec(), "cpu-index");
    let threads: Vec<&Json> = cpus.iter().map(|cpu| &cpu["thread-id"]).collect();
    for bpf in WAYS {
        let ours = query(&[&["-p", &pid, "--bpf", bpf], &SCHED[..]].concat());
        let paths: Vec<&str> = ours.iter().filter_map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, [0, 1, 2].map(|at| format!("/vm/threads/vcpu[{at}]")));
        let ids: Vec<&Json> = ours.iter().map(|(_, stats)| &stats["thread_id"]).collect();
        assert_eq!(ids, threads, "{bpf}");
        for (_, stats) in &ours {
            let tid = &stats["thread_id"];
            // The threads sleep, but QEMU may wake each for a moment.
            let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"));
            let text = text.expect("the process has not been reaped");
            let words: Vec<u64> = text
                .split_whitespace()
                .map(|word| word.parse().expect("the text is a number"))
                .collect();
            for (name, word) in ["run_time", "run_delay", "timeslices"].iter().zip(words) {
                let ours = stats[name].as_u64().expect("the value is an integer");
                assert!(ours > 0 || *name == "run_delay", "{stats}");
                assert!(ours <= word, "{name}: {ours} was more than {word} is");
            }
        }
    }
}

#[test]
fn without_vcpus_there_is_an_error() {
    let output = vmstrobe(&[&["query", "--target", "sampler"], &SCHED[..]].concat());
    let why =
        "there is no provider 'sched' here, only vmstrobe: it exists only for virtual machines";
    says(&output, 1, &[why]);
    assert_eq!(output.stdout, "");
}

#[test]
fn a_server_has_sched_if_it_is_asked_for() {
    if !require_kvm() {
        return;
    }
    let ask = |serve: &Serve, command: &str, arguments: Json| {
        let mut qmp = Qmp::connect(serve.socket()).expect("the server accepts the client");
        qmp.execute(command, arguments)
    };
    let plain = Serve::start(&["--demo"]);
    let schemas = ask(&plain, "query-stats-schemas", json!({}));
    assert!(!providers(&schemas).contains(&"sched"), "{schemas}");
    let serve = Serve::start(&["--demo", "--sched"]);
    serve.wait_for_text("(4 vCPUs");
    let schemas = ask(&serve, "query-stats-schemas", json!({"provider": "sched"}));
    assert_eq!(providers(&schemas), ["sched"], "{schemas}");
    // Both providers have the same vCPU.
    let vcpu = "/vm/demo/vcpu[1]";
    let both = ask(&serve, "query-stats", json!({"target": "vcpu", "vcpus": [vcpu]}));
    assert_eq!(providers(&both), ["kvm", "sched"], "{both}");
    assert!(list(&both).iter().all(|entry| entry["qom-path"] == vcpu), "{both}");
    let run_time = || {
        let sched = json!([{"provider": "sched", "names": ["run_time"]}]);
        let arguments = json!({"target": "vcpu", "vcpus": [vcpu], "providers": sched});
        let reply = ask(&serve, "query-stats", arguments);
        let [entry] = list(&reply) else { panic!("{reply}") };
        entry["stats"][0]["value"].as_u64().expect("the value is an integer")
    };
    let before = run_time();
    thread::sleep(Duration::from_millis(500));
    let after = run_time();
    assert!(0 < before && before < after, "{before} {after}");
}
