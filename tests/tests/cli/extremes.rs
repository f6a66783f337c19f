//! The largest numbers that a table can say, in every command: no sum overflows, and what is shown
//! is right. The command is a debug build here, in which an overflow is a panic.

use std::fs::{self, File};
use std::process::Command;

use rustix::fs::{FlockOperation, fcntl_lock};
use tempfile::TempDir;
use vmstrobe_tests::command::Output;
use vmstrobe_tests::hostile::layout::{Block, Image, LINEAR, LOG2, Stat, bytes_of};

use super::same::list;
use super::tables::directory;
use crate::{fine, json, vmstrobe};

/// The words of a histogram.
const BUCKETS: [u64; 3] = [1 << 63, 1 << 63, 5];
/// The numbers of types, among them one that is unknown; the units below have one too.
const TYPES: [u32; 6] = [0, 1, 2, LINEAR, LOG2, 9];
const UNITS: [u32; 6] = [0, 1, 2, 3, 4, 9];
const BASES: [u32; 3] = [0, 1, 7];
const EXPONENTS: [i16; 5] = [i16::MIN, -32767, -9, 0, i16::MAX];
const MAX: &str = "18,446,744,073,709,551,615";

/// A table in a file with two objects, which this process writes, and two files with other words
/// for it: with words of 0, and with the largest words.
pub(crate) struct Tables {
    _directory: TempDir,
    /// The writer's file, open so that a process is seen that writes the table.
    _writer: File,
    pub(crate) path: String,
    pub(crate) zeros: String,
    pub(crate) extremes: String,
}

impl Tables {
    /// Makes tables whose words are all 0.
    pub(crate) fn new() -> Tables {
        let directory = directory();
        let (names, mut zeros) = (names(), Image::new("xyz", 4 << 20, 2));
        let stats: Vec<Stat<'_>> =
            names.iter().map(|(name, stat)| Stat { name, ..*stat }).collect();
        for path in ["/xyz/a", "/xyz/b"] {
            let (target, stats) = ("queue", &stats[..]);
            zeros.add(&Block { path, target, name_bytes: 48, shards: 1, flags: 0, stats });
        }
        let mut image = zeros.clone();
        for (_, words) in (0..2).flat_map(|object| zeros.entry(object).stats) {
            let values = if words.len() == BUCKETS.len() { BUCKETS } else { [u64::MAX; 3] };
            let count = words.len();
            image.words[words].copy_from_slice(&values[..count]);
        }
        let file = |name: &str, image: &Image| {
            let path = directory.path().join(name);
            fs::write(&path, bytes_of(&image.words)).expect("the directory is writable");
            path.to_str().expect("the path is text").to_owned()
        };
        let (path, zeros) = (file("table", &zeros), file("zeros", &zeros));
        let extremes = file("extremes", &image);
        let writer = File::options().write(true).open(&path).expect("this user owns the file");
        // The lock shows a reader that a process writes the table.
        fcntl_lock(&writer, FlockOperation::NonBlockingLockExclusive)
            .expect("the file has no lock");
        Tables { _directory: directory, _writer: writer, path, zeros, extremes }
    }

    /// Returns the command that copies the words of that file into the table.
    fn command(&self, from: &str) -> [String; 6] {
        let (from, to) = (format!("if={from}"), format!("of={}", self.path));
        ["dd", &from, &to, "conv=notrunc", "status=none", "bs=4M"].map(str::to_owned)
    }

    /// Copies the words of that file into the table.
    pub(crate) fn fill(&self, from: &str) {
        let [program, arguments @ ..] = self.command(from);
        let written =
            Command::new(program).args(arguments).status().expect("the program can be executed");
        assert!(written.success());
    }

    /// Measures while the words of the table become those of that file.
    pub(crate) fn stat(&self, to: &str, args: &[&str]) -> Output {
        self.measure("stat", to, args)
    }

    /// Runs `stat` or `report` while the words of the table become those of that file.
    pub(crate) fn measure(&self, by: &str, to: &str, args: &[&str]) -> Output {
        let command = self.command(to);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let source = [by, "--table", &self.path, "-z"];
        vmstrobe(&[&source, args, &["--"], &command].concat())
    }
}

/// Returns a statistic of every kind, each with a name that tells the kind.
fn names() -> Vec<(String, Stat<'static>)> {
    let mut names = Vec::new();
    for stat_type in TYPES {
        let (size, bucket_size) = match stat_type {
            LINEAR => (3, u32::MAX),
            LOG2 => (3, 0),
            9 => (2, 0),
            _ => (1, 0),
        };
        for unit in UNITS {
            for (base, exponent) in BASES.iter().flat_map(|base| EXPONENTS.map(|e| (base, e))) {
                let flags = stat_type | unit << 4 | base << 8;
                let stat = Stat { flags, exponent, size, bucket_size, ..Stat::counter("") };
                names.push((format!("t{stat_type}.u{unit}.b{base}.e{exponent}"), stat));
            }
        }
    }
    names
}

/// Returns the words of the line of that statistic, which occurs once.
#[track_caller]
fn line<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let words = |line: &'a str| line.split_whitespace().collect::<Vec<_>>();
    let mut lines = text.lines().map(words).filter(|words| words.contains(&name));
    let line = lines.next();
    line.unwrap_or_else(|| panic!("there is no {name} in\n{text}"))
}

#[test]
fn numbers_of_every_kind_are_read_once() {
    let tables = Tables::new();
    tables.fill(&tables.extremes);
    let table = ["--table", &tables.path];
    for args in [
        &["query", "-z"][..],
        &["query", "--json"],
        &["schema"],
        &["schema", "--json"],
        &["info", "stats", "queue"],
    ] {
        fine(&vmstrobe(&[args, &table].concat()));
    }
    let text = vmstrobe(&["query", "--table", &tables.path]).stdout;
    assert_eq!(line(&text, "t4.u0.b0.e0"), ["t4.u0.b0.e0", "count", MAX, MAX]);
    // The first bucket holds half of what was counted, as far as a float can tell.
    let rest = &text[text.find("t4.u0.b0.e0 ").expect("the line exists")..];
    let median: Vec<&str> =
        rest.lines().nth(1).expect("the line has the word").split_whitespace().collect();
    assert_eq!(median, ["t4.u0.b0.e0", "p50", "≤", "1", "≤", "1"]);
    assert_eq!(line(&text, "t0.u3.b0.e-9")[1..4], ["*", "10^-9", "cycles"]);
}

#[test]
fn sums_and_rates_of_every_kind_do_not_overflow() {
    let tables = Tables::new();
    for args in [&["--per-vcpu"][..], &["-i", "5"], &["-i", "5", "--json"]] {
        let output = tables.stat(&tables.extremes, args);
        assert_eq!(output.code, Some(0), "{output:?}");
        tables.fill(&tables.zeros);
    }
    let output = tables.stat(&tables.extremes, &[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(line(&output.stdout, "t0.u0.b0.e0")[..2], [MAX, "t0.u0.b0.e0"]);
    assert_eq!(line(&output.stdout, "t4.u0.b0.e0")[..2], [MAX, "t4.u0.b0.e0"]);
    let seconds = line(&output.stdout, "t0.u2.b0.e32767");
    assert_eq!(seconds[..5], [MAX, "*", "10^32767", "seconds", "t0.u2.b0.e32767"]);
    tables.fill(&tables.zeros);
    let output = tables.stat(&tables.extremes, &["--json"]);
    fine(&output);
    let report = json(output.stdout.trim_end());
    let stat = |name: &str| {
        let stats = list(&report["stats"]).iter();
        stats.clone().find(|stat| stat["name"] == name).cloned().expect("the value exists")
    };
    assert_eq!(stat("t0.u0.b0.e0")["delta"], u64::MAX);
    assert_eq!(stat("t2.u0.b0.e0")["level"], u64::MAX);
    let deltas: Vec<u64> = BUCKETS.iter().map(|count| count.saturating_mul(2)).collect();
    assert_eq!(stat("t4.u0.b0.e0")["deltas"], serde_json::json!(deltas));
}

#[test]
fn reports_of_every_kind_do_not_overflow() {
    let tables = Tables::new();
    for args in [&[][..], &["--markdown"], &["--json"]] {
        for to in [&tables.extremes, &tables.zeros] {
            let output = tables.measure("report", to, args);
            assert_eq!(output.code, Some(0), "{output:?}");
        }
    }
    let output = tables.measure("report", &tables.extremes, &["--json"]);
    fine(&output);
    let report = json(output.stdout.trim_end());
    let stats = list(&report["reports"][0]["stats"]);
    let grown = stats.iter().find(|stat| stat["name"] == "t0.u0.b0.e0").expect("it is there");
    assert_eq!(grown["delta"], u64::MAX);
    let level = stats.iter().find(|stat| stat["name"] == "t2.u0.b0.e0").expect("it is there");
    assert_eq!((&level["max"], level["mean"].is_f64()), (&u64::MAX.into(), true));
}
