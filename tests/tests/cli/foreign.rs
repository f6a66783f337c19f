//! Names that others made up, through every command: to a pipe, to a terminal, into a log, into the
//! text of a monitor and into the names of files. None does anything there, and each is shown.
//!
//! A list of its own says which characters do something, not the code under test.

use std::fs;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vmstrobe_tests::command::Output;
use vmstrobe_tests::host::namespace::run_in_namespaces;
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::{require_lending_qemu, require_namespaces};
use vmstrobe_tests::serve::Serve;
use vmstrobe_tests::terminal::{COLUMNS, on_terminal};

use crate::{LIMIT, vmstrobe};
use world::{World, head, long, text};

mod world;

/// The longest time that one of these tests may take.
const TEST_LIMIT: Duration = Duration::from_secs(110);

/// A hostile text that stands in names after their letters, and fits into a provider's name.
const CONTROLS: &str = "\u{1b}]52;c;YQ\u{7}\u{1b}[2J\u{9b}2J\t\u{7f}";
const LINES: &str = "\r\nvmstrobe: fake\u{2028}\u{b}\u{85}";
const UNSEEN: &str = "\u{202e}\u{2066}\u{200f}\u{61c}\u{feff}\u{e0041}";

/// The letters by which each kind of name is known.
const KINDS: [&str; 11] =
    ["VMX", "VML", "COM", "PRV", "TGT", "OBJ", "STA", "MEM", "FIL", "SOC", "ARG"];

#[test]
fn control_characters_do_nothing() {
    check("cli::foreign::control_characters_do_nothing", CONTROLS);
}

#[test]
fn line_breaks_do_nothing() {
    check("cli::foreign::line_breaks_do_nothing", LINES);
}

#[test]
fn invisible_characters_do_nothing() {
    check("cli::foreign::invisible_characters_do_nothing", UNSEEN);
}

/// Runs every command on a host of its own, on which every name contains this text.
fn check(test: &str, hostile: &str) {
    if !require_lending_qemu() || !require_namespaces() {
        return;
    }
    run_in_namespaces(test, TEST_LIMIT, || {
        let world = World::new(hostile);
        let rows = rows(&world);
        every_command_has_a_row(&rows);
        rows.iter().for_each(|row| row.check(&world));
        what_is_served(&world);
    });
}

/// A command line, and the names that it shows.
struct Row {
    args: Vec<String>,
    shows: &'static [&'static str],
}

impl Row {
    fn new(args: &[&str], shows: &'static [&'static str]) -> Row {
        Row { args: args.iter().map(|&arg| arg.to_owned()).collect(), shows }
    }
}

/// The command lines: each command has one at least, and each kind of name is shown by some.
fn rows(world: &World) -> Vec<Row> {
    let row = Row::new;
    let (arg, target, provider) = (&*world.name("ARG"), &*world.name("TGT"), &*world.name("PRV"));
    let many = &*long(arg);
    let file = &*text(world.home.join(arg));
    let mut rows = vec![
        row(&["demo", "-d", "200ms"], &[]),
        row(&["demo", "--vcpus", arg], &["ARG"]),
        row(&["list"], &["VMX", "VML", "COM", "PRV", "TGT", "MEM"]),
        row(&["list", "-v"], &["VMX", "VML", "COM", "PRV", "TGT", "MEM"]),
        row(&["list", "--json"], &["VMX", "VML", "COM", "PRV", "TGT", "MEM"]),
        row(&["info", "stats", "vcpu", "-p", &world.pid], &["OBJ", "PRV", "STA"]),
        row(&["info", "stats", target, "-p", &world.pid], &["OBJ", "PRV", "STA"]),
        row(&["info", "stats", target, many, provider, "-p", &world.pid], &["ARG"]),
        row(&["info", "stats", "vcpu", "-p", &world.vm], &[]),
        row(&["query"], &["VMX", "VML", "COM", "PRV"]),
        row(&["query", "-p", &world.idle], &["COM"]),
        row(&["query", "--pid", arg], &["ARG"]),
        row(&["query", "--table", &world.table_file, "--target", target, "-z"], &["OBJ", "STA"]),
        row(&["query", "--table", many], &["ARG"]),
        row(&["query", "--from-socket", &world.hand_over, "-z"], &["OBJ", "STA"]),
        row(&["query", "--from-socket", file], &["ARG"]),
        row(&["query", "--from-qmp", &world.refusing_qmp], &["SOC", "ARG"]),
        row(&["query", "--from-qmp", file], &["ARG"]),
        row(&["query", "-p", &world.vm, "-z"], &["VMX"]),
        row(&["stat", "-p", &world.vm, "-z", "-i", "50", "-d", "100ms", "--per-vcpu"], &["VMX"]),
        row(&["stat", "--all", "-z", "-d", "100ms", "--per-vcpu", "--target", target], &["OBJ"]),
        row(&["stat", "-p", &world.vm, "--from-qmp", &world.qmp, "-z", "-d", "100ms"], &[]),
        row(&["stat", "-p", &world.pid, "--", file], &["ARG"]),
        row(&["stat", "-d", "100ms", "-p", &world.pid, "-o", file], &[]),
        row(&["stat", "--rate", many], &["ARG"]),
        row(&["top", "-b", "-n", "1", "-i", "100", "-p", &world.vm], &["VMX"]),
        row(&["top", "-b", "-n", "1", "-i", "100", "-p", &world.pid], &[]),
        row(&["top", "-b", "-i", arg], &["ARG"]),
        row(&["serve", "-p", &world.pid, "-p", &world.vm, "-p", arg, "--qmp", file], &["ARG"]),
        row(&["serve", "--all", "--qmp-dir", file], &["ARG"]),
        row(&["serve", "-p", &world.vm, "--qmp", &world.hand_over], &["SOC"]),
        row(&["serve", "--all", "--qmp-dir", "/", "--vm-user", arg], &["ARG"]),
        row(&["record", "--demo", "-d", "100ms", "-o", many], &["ARG"]),
        row(&["record", "--demo", "--last", "1s", "--control", file, "-d", "100ms"], &[]),
        row(&["dump", "--control", file], &["ARG"]),
        row(&["dump", "--control", &world.refusing_qmp], &["ARG"]),
        row(&["mark", "--control", &world.refusing_qmp, arg], &["SOC", "ARG"]),
        row(&["mark", "--control", &world.hand_over, arg], &["SOC"]),
        row(&["convert", file, many], &["ARG"]),
        row(&["report", file, many], &["ARG"]),
        row(&["report", "-p", &world.vm, "-z", "-d", "100ms"], &["VMX"]),
        row(&["report", "-p", &world.pid, "-z", "-d", "100ms", "--markdown"], &["TGT", "STA"]),
        row(&[arg], &["ARG"]),
        row(&[&format!("--{many}")], &["ARG"]),
        row(&["--help"], &[]),
    ];
    rows.extend(rows_of_a_table(world));
    rows
}

/// Runs each command that reads a table, on one table.
fn rows_of_a_table(world: &World) -> Vec<Row> {
    let (arg, target) = (&*world.name("ARG"), &*world.name("TGT"));
    let pattern = &*format!("*{arg}*,/{arg}(/");
    let many = &*long(arg);
    let mut rows = Vec::new();
    for (command, zeros, shown, exact) in [
        (&["query"][..], &["-z"][..], &["OBJ", "STA"][..], &["OBJ", "STA"][..]),
        (&["stat", "-d", "100ms"], &["-z"], &["TGT", "STA"], &["STA"]),
        (&["report", "-d", "100ms"], &["-z"], &["TGT", "STA"], &["TGT", "STA"]),
        (&["schema"], &[], &["PRV", "TGT", "STA"], &["PRV", "TGT", "STA"]),
    ] {
        let mut add = |args: &[&str], shows| {
            let of_table = ["-p", &*world.pid];
            rows.push(Row::new(&[command, &of_table, args].concat(), shows));
        };
        add(&[&["--target", target], zeros].concat(), shown);
        add(&["--target", target, "--json"], exact);
        add(&["--names", arg], &["ARG"]);
        add(&["--names", pattern], &["ARG"]);
        add(&["--target", many], &["ARG", "TGT"]);
        add(&["--provider", arg], &["ARG", "PRV"]);
        add(&["--bpf", arg], &["ARG"]);
        if command[0] != "schema" {
            add(&["--vcpu", arg], &["ARG", "OBJ"]);
        }
    }
    rows
}

/// Checks that each command of `--help` has a row, so that a new one is tested too, and that each
/// kind of name is shown.
fn every_command_has_a_row(rows: &[Row]) {
    let help = vmstrobe(&["--help"]).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"list") && commands.contains(&"help"), "{help}");
    for command in commands.into_iter().filter(|&command| command != "help") {
        assert!(rows.iter().any(|row| row.args[0] == command), "{command} has no row");
    }
    for kind in KINDS.into_iter().filter(|&kind| kind != "FIL") {
        assert!(rows.iter().any(|row| row.shows.contains(&kind)), "nothing shows {kind}");
    }
}

impl Row {
    fn check(&self, world: &World) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let what = format!("{:?}", args.iter().map(|arg| head(arg, 60)).collect::<Vec<_>>());
        let piped = vmstrobe(&args);
        let shown = on_terminal(LIMIT, &args);
        assert_eq!(piped.code, shown.code, "{what}: {piped:?} {shown:?}");
        // The command with a screen, and the help with its colours, show no names.
        let is_drawn = ["demo", "--help"].contains(&args[0]) && self.shows.is_empty();
        let none = String::new();
        let screen = shown.stdout.replace("\r\n", "\n");
        for text in [&piped.stdout, &piped.stderr, if is_drawn { &none } else { &screen }] {
            does_nothing(&what, text);
        }
        for kind in self.shows {
            for text in [&(piped.stdout.clone() + &piped.stderr), &screen] {
                assert!(text.contains(kind), "{what} does not show {kind}: {text}");
            }
        }
        if args.contains(&"--json") && piped.code == Some(0) {
            assert!(piped.stdout.is_ascii(), "{what}: {}", piped.stdout);
            let values: Vec<Json> = piped.stdout.lines().map(crate::json).collect();
            let all = strings(&Json::from(values)).concat();
            for kind in self.shows {
                let name = world.name(kind);
                // The kernel keeps 15 bytes of a process name.
                let name = if *kind == "COM" { head(&name, 15) } else { &name };
                assert!(all.contains(name), "{what} has no {name:?}: {all:?}");
            }
        } else if args[0] == "list" && args.len() == 1 {
            fits(&piped, &screen);
        }
    }
}

/// Checks that a name of 10 kB breaks no row on a terminal.
fn fits(piped: &Output, screen: &str) {
    for line in screen.lines().filter(|line| !line.starts_with("vmstrobe: ")) {
        assert!(line.chars().count() <= COLUMNS.into(), "{line}: {screen}");
    }
    let row = |text: &str| text.lines().find(|line| line.contains("VML")).map(str::to_owned);
    let (piped, screen) = (row(&piped.stdout), row(screen));
    let (piped, screen) =
        (piped.expect("the list has the entry"), screen.expect("the list has the entry"));
    let columns = screen.chars().count();
    assert!(columns <= COLUMNS.into() && screen.contains('…'), "{columns}: {screen}");
    assert!(!piped.contains('…') && piped.chars().count() > 128, "{piped}");
}

/// Checks the messages of a server, the names of its sockets, and the text of its monitor.
fn what_is_served(world: &World) {
    let all = Serve::spawn(&["--all", "--qmp-dir", &text(&world.home)]);
    all.wait_for_text("try it: ");
    let files = fs::read_dir(&world.home).expect("the directory is readable").map(|file| {
        file.expect("the directory is readable").file_name().into_string().expect("a name is text")
    });
    let files: Vec<String> = files.filter(|file| file.ends_with(".sock")).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for (file, kind) in files.iter().flat_map(|file| [(file, "VMX"), (file, "VML")]) {
        does_nothing("a socket", file);
        assert!(!file.contains('\n') && file.len() < 107, "{file:?}");
        assert!(files.iter().any(|file| file.starts_with(kind)), "{kind}: {files:?}");
    }
    does_nothing("serve --all", &all.said());

    for order in [&["--table", &*world.table_file][..], &["--qemu-order"]] {
        let serve = Serve::start(&[&["-p", &*world.pid], order].concat());
        serve.wait_for_text("serving process COM");
        assert_eq!(serve.said().contains("/FIL"), order[0] == "--table", "{}", serve.said());
        let mut qmp = Qmp::connect(serve.socket()).expect("the server accepts the client");
        let line = json!({"command-line": "info stats vcpu"});
        let shown = qmp.execute("human-monitor-command", line);
        let shown = shown.as_str().expect("the value is a string").replace("\r\n", "\n");
        does_nothing("info stats over QMP", &shown);
        assert!(shown.contains("provider: PRV") && shown.contains("    STA"), "{shown}");
        // JSON has the names unchanged.
        let stats = qmp.execute("query-stats", json!({"target": "vcpu"}));
        let names = strings(&stats);
        let wanted = [world.name("PRV"), world.name("STA")];
        assert!(wanted.iter().all(|name| names.contains(name)), "{names:?}");
        does_nothing("serve", &serve.said());
    }
}

/// Checks that nothing in the text moves a cursor, hides text, turns its direction, or begins a
/// line.
#[track_caller]
fn does_nothing(what: &str, text: &str) {
    let does = |c: char| {
        let is_unseen = matches!(
            c,
            '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}'
        );
        is_unseen || c.is_control() && c != '\n'
    };
    let found: Vec<char> = text.chars().filter(|&c| does(c)).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
    let fake = text.lines().find(|line| line.starts_with("vmstrobe: fake"));
    assert!(fake.is_none(), "{what} begins a line: {text:?}");
}

/// Returns all texts in a value.
fn strings(value: &Json) -> Vec<String> {
    match value {
        Json::String(text) => vec![text.clone()],
        Json::Array(values) => values.iter().flat_map(strings).collect(),
        Json::Object(members) => members
            .iter()
            .flat_map(|(key, value)| [vec![key.clone()], strings(value)].concat())
            .collect(),
        _ => Vec::new(),
    }
}
