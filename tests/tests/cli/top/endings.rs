//! The terminal after each way of ending, compared with before: its modes, its screen, its cursor.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vmstrobe_tests::require::{require_kvm, require_tmux};
use vmstrobe_tests::tmux::Tmux;

/// The script that notes the modes before and after.
const SCRIPT: &str = "stty -a >before; vmstrobe top --demo; echo status $? >status; \
                      stty -a >after; echo it is done; read x";

/// Runs the demo on a screen, ends it, and checks that the terminal is as before.
fn check(what: &str, status: &str, end: impl FnOnce(&Tmux)) {
    let tmux = Tmux::open((80, 24), SCRIPT);
    tmux.wait_for("● live");
    assert_eq!([tmux.fact("alternate_on"), tmux.fact("cursor_flag")], ["1", "0"], "{what}");
    end(&tmux);
    let screen = tmux.wait_for("it is done");
    let file =
        |name: &str| fs::read_to_string(tmux.directory().join(name)).expect("the script wrote it");
    assert_eq!(file("status").trim(), status, "{what}");
    assert_eq!(file("before"), file("after"), "{what}");
    assert_eq!([tmux.fact("alternate_on"), tmux.fact("cursor_flag")], ["0", "1"], "{what}");
    assert!(!screen.iter().any(|line| line.contains("live")), "{what}: {screen:?}");
}

/// Returns the process that runs in a window's shell.
fn child(tmux: &Tmux) -> Pid {
    let shell = tmux.fact("pane_pid");
    let path = format!("/proc/{shell}/task/{shell}/children");
    let children = fs::read_to_string(path).expect("the shell runs");
    let child = children.split_whitespace().next().expect("the shell has a child");
    Pid::from_raw(child.parse().expect("a number")).expect("a process has a number")
}

#[test]
fn the_terminal_is_as_before() {
    if !require_kvm() || !require_tmux() {
        return;
    }
    check("q", "status 0", |tmux| tmux.text("q"));
    check("Ctrl-C", "status 0", |tmux| tmux.keys(&["C-c"]));
    check("q in the help", "status 0", |tmux| {
        tmux.text("?");
        tmux.wait_for("any key closes this");
        tmux.text("xq");
    });
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        check(&format!("{signal:?}"), "status 0", |tmux| {
            kill_process(child(tmux), signal).expect("it runs");
        });
    }
}

#[test]
fn a_job_is_stopped_and_goes_on() {
    if !require_kvm() || !require_tmux() {
        return;
    }
    let tmux = Tmux::open((80, 24), "PS1='$ ' bash --norc -i");
    tmux.wait_for("$");
    tmux.text("stty -a >before");
    tmux.keys(&["Enter"]);
    for stop in ["Ctrl-Z", "SIGTSTP"] {
        tmux.text(if stop == "Ctrl-Z" { "vmstrobe top --demo" } else { "fg" });
        tmux.keys(&["Enter"]);
        tmux.wait_for("● live");
        assert_eq!(tmux.fact("alternate_on"), "1");
        if stop == "Ctrl-Z" {
            tmux.keys(&["C-z"]);
        } else {
            kill_process(child(&tmux), Signal::TSTP).expect("it runs");
        }
        tmux.wait("the shell", |screen| {
            screen.iter().rev().find(|line| !line.is_empty()).is_some_and(|line| line == "$")
        });
        assert_eq!([tmux.fact("alternate_on"), tmux.fact("cursor_flag")], ["0", "1"], "{stop}");
        tmux.text("stty -a >after; clear");
        tmux.keys(&["Enter"]);
        let file = |name: &str| fs::read_to_string(tmux.directory().join(name));
        tmux.wait("the modes are noted", |_| file("after").is_ok_and(|text| !text.is_empty()));
        assert_eq!(file("before").ok(), file("after").ok(), "{stop}");
    }
    tmux.text("fg");
    tmux.keys(&["Enter"]);
    tmux.wait_for("● live");
    // Keys are read one by one again.
    tmux.text("?");
    tmux.wait_for("any key closes this");
    tmux.text("xq");
    tmux.wait("the shell", |_| tmux.fact("alternate_on") == "0");
}

#[test]
fn a_process_that_nobody_lets_go_on_does_not_stop() {
    if !require_kvm() || !require_tmux() {
        return;
    }
    // The first process of the terminal.
    let tmux = Tmux::open((80, 24), "exec vmstrobe top --demo");
    tmux.wait_for("● live");
    tmux.keys(&["C-z"]);
    std::thread::sleep(Duration::from_millis(300));
    tmux.text("?");
    tmux.wait_for("any key closes this");
}

#[test]
fn it_ends_with_its_terminal() {
    if !require_kvm() || !require_tmux() {
        return;
    }
    // Without a shell, which would end it.
    let tmux = Tmux::open((80, 24), "exec vmstrobe top --demo");
    tmux.wait_for("● live");
    let comm = format!("/proc/{}/comm", tmux.fact("pane_pid"));
    let runs = || fs::read_to_string(&comm).is_ok_and(|name| name.trim() == "vmstrobe");
    assert!(runs(), "it took the place of the shell");
    drop(tmux);
    let deadline = Instant::now() + Duration::from_secs(20);
    while runs() {
        assert!(Instant::now() < deadline, "it goes on without a terminal");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_last_screen_stays_if_it_is_wanted() {
    if !require_kvm() || !require_tmux() {
        return;
    }
    let tmux = Tmux::open((80, 24), "vmstrobe top --demo --keep-screen; echo it is done; read x");
    tmux.wait_for("● live");
    tmux.text("q");
    let screen = tmux.wait_for("it is done");
    assert!(screen.iter().any(|line| line.contains("demo")), "{screen:?}");
    assert_eq!(tmux.fact("alternate_on"), "0");
}

#[test]
fn no_color_is_obeyed() {
    if !require_kvm() || !require_tmux() {
        return;
    }
    // From 30 on, codes are colours, but for 39 and 49: as the terminal has them.
    let has_colours = |tmux: &Tmux| {
        let styled = tmux.styled();
        let codes = styled.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m'));
        let mut codes = codes.flat_map(|(codes, _)| codes.split(';'));
        codes
            .any(|code| code.parse().is_ok_and(|code: u32| code >= 30 && ![39, 49].contains(&code)))
    };
    let tmux = Tmux::open((80, 24), "NO_COLOR=1 vmstrobe top --demo");
    tmux.wait_for("● live");
    tmux.keys(&["Left"]);
    tmux.wait_for("BACK IN TIME");
    assert!(!has_colours(&tmux), "{:?}", tmux.styled());
    assert!(tmux.styled().contains("\u{1b}[1m") || tmux.styled().contains("\u{1b}[7m"));
    let tmux = Tmux::open((80, 24), "vmstrobe top --demo");
    tmux.wait_for("● live");
    assert!(has_colours(&tmux), "{:?}", tmux.styled());
}
