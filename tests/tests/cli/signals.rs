//! Signals: those that reach the measured command, the report at the end, and the processes that
//! are left.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vmstrobe::table::{TableConfig, TableObject, TableWriter};
use vmstrobe_tests::command::binary;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::wait_for;

use super::tables::{directory, queues};
use crate::{LIMIT, json, require_root};

mod terminal;

/// The longest time that the command may take to end.
const SOON: Duration = Duration::from_secs(1);
/// The wrapper that resets the signals which the tests were started with.
const DEFAULT: &[&str] = &["env", "--default-signal=HUP,INT,QUIT,TERM"];
/// The number that a shell adds to the signal that ended a command.
const SIGNALLED: i32 = 128;

/// A source to measure.
struct Source {
    directory: TempDir,
    path: String,
    _held: (TableWriter, Vec<TableObject>),
}

impl Source {
    fn new() -> Source {
        let directory = directory();
        let file = directory.path().join("xyz");
        let table =
            TableWriter::at(&file, TableConfig::of("xyz")).expect("the directory is on tmpfs");
        let queues = queues(&table, &[1]);
        let path = file.to_str().expect("the path is text").to_owned();
        Source { directory, path, _held: (table, queues) }
    }

    /// Starts `stat` of the source with these arguments, by that wrapper.
    fn stat(&self, wrapper: &[&str], args: &[&str]) -> Run {
        Run::start(wrapper, &[&["stat", "--table", &self.path, "-z"], args].concat())
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("the path is text").to_owned()
    }
}

/// A run of the command, whose standard output and error are a file.
struct Run {
    child: Reaped,
    said: File,
    _directory: TempDir,
}

impl Run {
    fn start(wrapper: &[&str], args: &[&str]) -> Run {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("said");
        let sink = File::create(&path).expect("the directory is writable");
        let twin = sink.try_clone().expect("there is a free descriptor");
        let child = Command::new(wrapper[0])
            .args(&wrapper[1..])
            .arg(binary())
            .args(args)
            .stdin(Stdio::null())
            .stdout(sink)
            .stderr(twin)
            .spawn()
            .expect("the program can be executed");
        let said = File::open(path).expect("the file exists");
        Run { child: Reaped(child), said, _directory: directory }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .expect("the process has not been reaped");
    }

    /// Checks that the run ends soon with this status, and returns its output.
    #[track_caller]
    fn ends(mut self, within: Duration) -> (Option<i32>, String) {
        let status = self.child.wait_within(within).expect("the process ends in time");
        let mut said = String::new();
        self.said.read_to_string(&mut said).expect("the output is text");
        (status.code(), said)
    }
}

/// Returns a script that runs `then` and then writes its process id into that file.
fn command(file: &str, then: &str) -> String {
    format!("{then}; echo $$ > {file}.new; mv {file}.new {file}")
}

/// Returns the process id in that file, once it exists.
fn ready(file: &str) -> String {
    wait_for("the command is ready", LIMIT, || Path::new(file).exists());
    fs::read_to_string(file).expect("the file is readable text").trim().to_owned()
}

fn runs(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[test]
fn a_signal_to_us_alone_is_passed_on_and_the_report_is_printed() {
    let source = Source::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let file = source.file("pid");
        let script = command(&file, "ulimit -c 0") + "; exec sleep 60";
        let run = source.stat(DEFAULT, &["--", "sh", "-c", &script]);
        let pid = ready(&file);
        run.signal(signal);
        let (status, said) = run.ends(SOON);
        assert_eq!(status, Some(SIGNALLED + signal.as_raw()), "{said}");
        assert!(said.contains("1 queue over ") && said.contains("requests"), "{said}");
        assert!(!runs(&pid), "{signal:?}");
        fs::remove_file(file).expect("the file exists");
    }
}

/// A command may become another user, to whose processes our threads without capabilities cannot
/// send a signal.
#[test]
fn a_command_of_another_user_gets_signals_too() {
    if !require_root() {
        return;
    }
    let source = Source::new();
    let file = source.file("pid");
    let becomes = "; exec setpriv --reuid=65534 --regid=65534 --clear-groups sleep 60";
    let run = source.stat(DEFAULT, &["--", "sh", "-c", &(command(&file, ":") + becomes)]);
    let pid = ready(&file);
    let status = format!("/proc/{pid}/status");
    wait_for("the process is another user's", LIMIT, || {
        let status = fs::read_to_string(&status).expect("the process has not been reaped");
        status.contains("\nUid:\t65534\t")
    });
    run.signal(Signal::TERM);
    let (status, said) = run.ends(SOON);
    assert_eq!(status, Some(SIGNALLED + Signal::TERM.as_raw()), "{said}");
    assert!(!runs(&pid));
}

#[test]
fn a_second_signal_kills_a_command_that_ignores_the_first() {
    let source = Source::new();
    let file = source.file("pid");
    let script = command(&file, "trap '' TERM INT") + "; while :; do sleep 0.05; done";
    let mut run = source.stat(DEFAULT, &["--", "sh", "-c", &script]);
    let pid = ready(&file);
    run.signal(Signal::TERM);
    // timeout(1) sends its signal twice in this way.
    run.signal(Signal::TERM);
    assert_eq!(
        run.child.wait_within(Duration::from_millis(300)),
        None,
        "vmstrobe waits for the command"
    );
    run.signal(Signal::INT);
    let (status, said) = run.ends(SOON);
    assert_eq!(status, Some(SIGNALLED + Signal::KILL.as_raw()), "{said}");
    assert!(said.contains("1 queue over "), "{said}");
    assert!(!runs(&pid));
}

/// The command handles SIGHUP, which daemons take as a request to read their configuration again.
#[test]
fn a_second_signal_much_later_counts_as_a_first() {
    let source = Source::new();
    let file = source.file("pid");
    let script = command(&file, "trap : HUP") + "; while :; do sleep 0.05; done";
    let mut run = source.stat(DEFAULT, &["--", "sh", "-c", &script]);
    let pid = ready(&file);
    run.signal(Signal::HUP);
    thread::sleep(Duration::from_millis(5200));
    run.signal(Signal::HUP);
    assert_eq!(run.child.wait_within(Duration::from_millis(300)), None, "the command continues");
    assert!(runs(&pid));
    run.signal(Signal::HUP);
    assert_eq!(run.ends(SOON).0, Some(SIGNALLED + Signal::KILL.as_raw()));
}

#[test]
fn the_report_is_in_the_file_whatever_signal_ends_the_run() {
    let source = Source::new();
    for signal in [Signal::HUP, Signal::TERM, Signal::INT] {
        let file = source.file("report");
        let run = source.stat(DEFAULT, &["-o", &file]);
        wait_for("the process has begun", LIMIT, || Path::new(&file).exists());
        thread::sleep(Duration::from_millis(300));
        run.signal(signal);
        let (status, said) = run.ends(SOON);
        assert_eq!((status, &*said), (Some(0), ""), "{signal:?}");
        let report = fs::read_to_string(&file).expect("the file is readable text");
        assert!(report.contains("requests"), "{signal:?}: {report}");
        fs::remove_file(file).expect("the file exists");
    }
}

#[test]
fn sighup_stays_ignored_under_nohup() {
    let source = Source::new();
    let file = source.file("pid");
    let script = command(&file, "true") + "; exec sleep 60";
    for command in [&[][..], &["--", "sh", "-c", &script]] {
        let args = [&["-i", "50", "--json"], command].concat();
        let mut run = source.stat(&["env", "--default-signal=TERM", "--ignore-signal=HUP"], &args);
        wait_for("the process prints", LIMIT, || {
            run.said.metadata().is_ok_and(|file| file.len() > 0)
        });
        run.signal(Signal::HUP);
        assert_eq!(run.child.wait_within(Duration::from_millis(300)), None, "{command:?}");
        run.signal(Signal::TERM);
        let status = if command.is_empty() { 0 } else { SIGNALLED + Signal::TERM.as_raw() };
        assert_eq!(run.ends(SOON).0, Some(status), "{command:?}");
    }
}

#[test]
fn a_server_that_loses_its_terminal_leaves_no_socket() {
    if !require_kvm() {
        return;
    }
    let directory = directory();
    let socket = directory.path().join("demo.sock");
    let path = socket.to_str().expect("the path is text");
    let run = Run::start(DEFAULT, &["serve", "--demo", "--qmp", path]);
    wait_for("the server listens", LIMIT, || socket.exists());
    thread::sleep(Duration::from_millis(100));
    run.signal(Signal::HUP);
    let (status, said) = run.ends(SOON);
    assert_eq!(status, Some(0), "{said}");
    assert!(!socket.exists());
}

/// The run is stopped for a while: each interval has the ticks that were missed in it.
#[test]
fn missed_ticks_belong_to_the_interval_in_which_they_were_missed() {
    let source = Source::new();
    let args = ["stat", "--table", &source.path, "-r", "1000", "-i", "300", "-d", "3s", "--json"];
    let mut child = vmstrobe_tests::command::spawn(&[&args[..], &["-z"]].concat());
    let mut stdout = BufReader::new(child.stdout.take().expect("the child's stream is a pipe"));
    let mut lines = vec![String::new()];
    stdout.read_line(&mut lines[0]).expect("the child prints lines");
    let stopped = Instant::now();
    kill_process(Pid::from_child(&child), Signal::STOP).expect("the process has not been reaped");
    thread::sleep(Duration::from_millis(1200));
    kill_process(Pid::from_child(&child), Signal::CONT).expect("the process has not been reaped");
    let stopped = stopped.elapsed();
    lines.extend(stdout.lines().map(|line| line.expect("the output is text")));
    assert!(child.wait_within(LIMIT).expect("the process ends in time").success());
    let (mut most, mut late) = (0, 0);
    for report in lines.iter().map(|line| json(line)) {
        let number = |key: &str| report[key].as_u64().expect("the value is an integer");
        let due = report["seconds"].as_f64().expect("the value is a number") * 1000.0;
        let counted = number("ticks") + number("missed_ticks") + number("lost_samples");
        // A thread that waits for its CPU between a deadline and the sample moves the sample, not
        // the count. That happens now and then; ticks of another interval would be hundreds.
        let difference = (counted as f64 - due).abs();
        assert!(difference < 60.0, "{due} were due: {report}");
        late += usize::from(difference >= 5.0);
        most = most.max(number("missed_ticks"));
    }
    assert!(late * 3 <= lines.len(), "{late} of {} intervals differ", lines.len());
    assert!(most >= stopped.as_millis() as u64 - 200, "{most} in {stopped:?}");
}
