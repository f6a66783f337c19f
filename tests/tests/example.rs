//! The example for VMM authors works as its text promises: it answers QMP while its guest runs,
//! prints the guest's exits, and needs 20 lines for it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use vmstrobe_tests::command::{example, run_within};
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::{show, wait_for};

const LIMIT: Duration = Duration::from_secs(30);
const PATHS: [&str; 2] = ["/vm/minimal/vcpu[0]", "/vm/minimal/vcpu[1]"];

/// The port writes for each halt of the guest.
const OUTS: u64 = 1000;

#[test]
fn minimal_vmm_serves_its_statistics() {
    if !require_kvm() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let socket = directory.path().join("stats.sock");
    let child = Command::new(example("minimal_vmm"))
        .args(["--seconds", "1.5"])
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be executed");
    let mut child = Reaped(child);
    let mut client = None;
    wait_for("the server listens", LIMIT, || {
        let is_alive = child.try_wait().expect("the process is a child of this one").is_none();
        assert!(is_alive, "it ended before it served: {}", all(&mut child));
        client = Qmp::connect(&socket).ok();
        client.is_some()
    });
    let mut client = client.expect("the server accepts the client");
    wait_for("the guest runs", LIMIT, || exits(&mut client).iter().all(|count| *count > 0));
    let first = exits(&mut client);
    wait_for("the counters have grown", LIMIT, || {
        exits(&mut client).iter().zip(&first).all(|(a, b)| a > b)
    });
    let vm = client.execute("query-stats", json!({"target": "vm"}));
    assert_eq!(vm.as_array().map(Vec::len), Some(1), "{vm}");
    let line = json!({"command-line": "info stats vcpu", "cpu-index": 1});
    let text = client.execute("human-monitor-command", line);
    is_info_stats(text.as_str().expect("the value is a string"));

    let status = child.wait_within(LIMIT).expect("the process ends in time");
    let printed = all(&mut child);
    assert_eq!(status.code(), Some(0), "{printed}");
    assert!(!socket.exists(), "the socket is left behind");
    has_grown(&printed);
}

/// Returns the `exits` of both vCPUs.
fn exits(client: &mut Qmp) -> Vec<u64> {
    let names = json!([{"provider": "kvm", "names": ["exits"]}]);
    let stats = client.execute("query-stats", json!({"target": "vcpu", "providers": names}));
    let of = |path: &&str| {
        let mut results = stats.as_array().into_iter().flatten();
        let own = results.find(|result| result["qom-path"] == **path);
        own.and_then(|own| own["stats"][0]["value"].as_u64()).expect("the VM has the vCPU")
    };
    PATHS.iter().map(of).collect()
}

/// Returns all output of the child, which has ended.
fn all(child: &mut Reaped) -> String {
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text).expect("the output is text");
    }
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).expect("the output is text");
    }
    text
}

/// Checks for lines as QEMU writes them: `    NAME (TYPE[, UNIT]): VALUE`, below the provider's.
fn is_info_stats(text: &str) {
    let first = text.lines().next();
    assert_eq!(first, Some("provider: kvm"), "{text}");
    let mut histograms = 0;
    for line in text.lines().skip(1) {
        let (name, rest) = line.trim_start().split_once(" (").expect(line);
        assert!(line.starts_with(&format!("    {name} (")), "{line}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        let (kind, value) = rest.split_once("): ").expect(line);
        let kind = kind.split_once(", ").map_or(kind, |(kind, _)| kind);
        let number = |text: &str| text.parse::<u64>().is_ok();
        let fits = match kind {
            "log2-histogram" | "linear-histogram" => {
                histograms += 1;
                is_buckets(value)
            }
            "cumulative" | "peak" => number(value),
            "instant" => number(value) || ["yes", "no"].contains(&value),
            _ => false,
        };
        assert!(fits, "{line}");
    }
    assert!(histograms >= 2 && text.lines().count() > 40, "{text}");
}

/// Returns true for `[1]=v [2]=v `, with a blank after each value.
fn is_buckets(text: &str) -> bool {
    text.ends_with(' ')
        && text.split_terminator(' ').enumerate().all(|(at, bucket)| {
            let value = bucket.strip_prefix(&format!("[{}]=", at + 1));
            value.is_some_and(|value| value.parse::<u64>().is_ok())
        })
}

/// The deltas at the end are those of the guest: 1000 port writes for each halt, which is an exit
/// as well.
fn has_grown(printed: &str) {
    for path in &PATHS {
        let delta = |name: &str| -> u64 {
            let line = printed.lines().find_map(|l| l.strip_prefix(&format!("{path} {name}: +")));
            line.unwrap_or_else(|| panic!("no {name} of {path}: {printed}"))
                .parse()
                .expect("digits")
        };
        let (exits, halts) = (delta("exits"), delta("halt_exits"));
        show(&format!("minimal_vmm, {path}: {exits} exits, {halts} halts"));
        assert!(halts > 0 && exits >= (OUTS + 1) * halts, "{path}: {exits} exits, {halts} halts");
    }
}

#[test]
fn attach_prints_two_rates_of_each_vcpu() {
    if !require_kvm() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let vmm = Command::new(example("minimal_vmm"))
        .args(["--seconds", "60"])
        .arg(directory.path().join("stats.sock"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let vmm = Reaped(vmm);
    let (attach, pid) = (example("attach"), vmm.id().to_string());
    let attach = attach.to_str().expect("the path is text");
    let mut output = run_within(LIMIT, attach, &[&pid]);
    wait_for("it has its vCPUs", LIMIT, || {
        output = run_within(LIMIT, attach, &[&pid]);
        output.stdout.contains("/vcpu[1] ")
    });
    assert_eq!(output.code, Some(0), "{output:?}");
    // From outside, a VM without a name goes by its process id.
    for path in [0, 1].map(|index| format!("/vm/{pid}/vcpu[{index}]")) {
        for name in ["exits", "halt_exits"] {
            let start = format!("{path} {name} ");
            let rates = output.stdout.lines().filter_map(|line| line.strip_prefix(&start));
            let rate = |rate: &str| rate.strip_suffix("/s").and_then(|rate| rate.parse().ok());
            let rates: Vec<f64> = rates.map(|text| rate(text).expect("a rate")).collect();
            // The vCPU halts hundreds of times a second, and exits for each write.
            assert!(rates.len() == 20 && rates.iter().any(|rate| *rate > 10.0), "{rates:?}");
        }
    }
    let nobody = run_within(LIMIT, attach, &[&std::process::id().to_string()]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains("NoStatistics"), "{nobody:?}");
}

/// Returns the lines between the markers of an example.
fn lines_of_vmstrobe(example: &str) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example);
    let source = fs::read_to_string(source).expect("the example is there");
    let (mut inside, mut lines) = (false, Vec::new());
    for line in source.lines() {
        match line.trim() {
            "// vmstrobe: from here" => {
                assert!(!inside, "a change began twice");
                inside = true;
            }
            "// vmstrobe: to here" => inside = false,
            line if inside => lines.push(line.to_owned()),
            _ => {}
        }
    }
    assert!(!inside && !lines.is_empty(), "{example}: the last part is open: {inside}");
    show(&format!("{example}: {} lines of vmstrobe", lines.len()));
    lines
}

#[test]
fn attaching_takes_10_lines_and_four_types() {
    let lines = lines_of_vmstrobe("attach.rs");
    assert!(lines.len() <= 10, "{lines:?}");
    let types = lines.iter().flat_map(|line| line.split("vmstrobe::").skip(1));
    let types: BTreeSet<&str> = types
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default())
        .filter(|name| name.starts_with(char::is_uppercase))
        .collect();
    assert_eq!(types, BTreeSet::from(["Tally"]));
}

#[test]
fn vmstrobe_adds_at_most_20_lines_and_no_unsafe() {
    let lines = lines_of_vmstrobe("minimal_vmm.rs");
    assert!(lines.len() <= 20, "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("unsafe")), "{lines:?}");
}
