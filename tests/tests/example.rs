//! The example for VMM authors runs as its text promises: it serves `info stats` while its guest
//! runs, prints what the guest did, and takes 30 lines for it.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use vmstrobe_tests::command::example;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::{show, wait_for};

const LIMIT: Duration = Duration::from_secs(30);
const PATHS: [&str; 3] = ["/vm/minimal", "/vm/minimal/vcpu[0]", "/vm/minimal/vcpu[1]"];

/// Writes to a port per halt of the guest.
const OUTS: u64 = 1000;

#[test]
fn minimal_vmm_serves_its_statistics() {
    if !require_kvm() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("stats.sock");
    let child = Command::new(example("minimal_vmm"))
        .args(["--seconds", "1.5"])
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut child = Reaped(child);
    let mut served = String::new();
    wait_for("the guest runs and is served", LIMIT, || {
        let is_alive = child.try_wait().expect("a child of ours").is_none();
        assert!(is_alive, "it ended before it served: {}", all(&mut child));
        served = info_stats(&socket).unwrap_or_default();
        exits(&served, PATHS[1]) > Some(0)
    });
    is_info_stats(&served);
    let first = exits(&served, PATHS[2]).expect("it has a second vCPU");
    wait_for("the next client sees more", LIMIT, || {
        info_stats(&socket).is_ok_and(|text| exits(&text, PATHS[2]) > Some(first))
    });

    let status = child.wait_within(LIMIT).expect("it ends by itself");
    let printed = all(&mut child);
    assert_eq!(status.code(), Some(0), "{printed}");
    assert!(!socket.exists(), "the socket is left behind");
    has_grown(&printed);
}

/// What a client of the socket is given.
fn info_stats(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Everything that the child has printed; it has ended.
fn all(child: &mut Reaped) -> String {
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text).expect("it prints text");
    }
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).expect("it prints text");
    }
    text
}

/// The `exits` of an object in a text of `info stats`.
fn exits(text: &str, path: &str) -> Option<u64> {
    let after = text.lines().skip_while(|line| *line != path).skip(1);
    let mut own = after.take_while(|line| line.starts_with("    "));
    own.find_map(|line| line.strip_prefix("    exits (cumulative): "))?.parse().ok()
}

/// Paths, and below each lines as QEMU writes them: `    NAME (TYPE[, UNIT]): VALUE`.
fn is_info_stats(text: &str) {
    let paths: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(paths, PATHS, "{text}");
    let mut histograms = 0;
    for line in text.lines().filter(|line| line.starts_with(' ')) {
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
    assert!(histograms >= 2 && text.lines().count() > 60, "{text}");
}

/// `[1]=v [2]=v `, a blank behind each.
fn is_buckets(text: &str) -> bool {
    text.ends_with(' ')
        && text.split_terminator(' ').enumerate().all(|(at, bucket)| {
            let value = bucket.strip_prefix(&format!("[{}]=", at + 1));
            value.is_some_and(|value| value.parse::<u64>().is_ok())
        })
}

/// The deltas at the end are the guest's: 1000 port writes a halt, each an exit as well.
fn has_grown(printed: &str) {
    for path in &PATHS[1..] {
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
fn what_vmstrobe_takes_is_30_lines() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/minimal_vmm.rs");
    let source = fs::read_to_string(source).expect("the example is there");
    let (mut inside, mut lines, mut parts) = (false, 0, 0);
    for line in source.lines() {
        match line.trim() {
            "// vmstrobe: from here" => {
                assert!(!inside, "begun twice");
                inside = true;
                parts += 1;
            }
            "// vmstrobe: to here" => inside = false,
            _ => lines += usize::from(inside),
        }
    }
    assert!(!inside && parts >= 3, "{parts} parts, the last one open: {inside}");
    show(&format!("minimal_vmm: {lines} lines of vmstrobe in {parts} places"));
    assert!((1..=30).contains(&lines), "{lines} lines");
}
