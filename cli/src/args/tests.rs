//! Command lines, and the arguments or errors that they become.

use clap::CommandFactory;

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::error::{Error, Kind};

fn parse(line: &str) -> std::result::Result<Command, Error> {
    let words = std::iter::once("vmstrobe").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.command).map_err(Error::from)
}

fn stat(line: &str) -> StatArgs {
    match parse(line) {
        Ok(Command::Stat(args)) => args,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn check_refused(line: &str, part: &str) {
    let error = parse(line).expect_err(line);
    assert_eq!(error.kind, Kind::Usage, "{line}");
    assert!(error.to_string().contains(part), "{line}: {error}");
}

#[test]
fn the_definition_passes_claps_own_checks() {
    Cli::command().debug_assert();
}

#[test]
fn stat_parses_all_of_its_options() {
    let args = stat(
        "stat -p 1 --pid 2 --target vm --names -*_hist,exits --provider kvm -r 10kHz -i 100 -z \
         --per-vcpu -o x --json --vcpu 0 --vcpu /vm/a/vcpu[1] -- ls -l --json",
    );
    assert_eq!(args.source.pids, [1, 2]);
    assert_eq!(args.select.target.as_deref(), Some("vm"));
    assert!(
        args.select.of.names.is_some_and(|names| names.wants("exits") && !names.wants("a_hist"))
    );
    assert_eq!(args.pace.rate, 10_000.0);
    assert_eq!(args.interval, Some(Duration::from_millis(100)));
    assert_eq!(args.vcpus.vcpus, ["0", "/vm/a/vcpu[1]"]);
    assert_eq!(args.command, ["ls", "-l", "--json"]);
}

#[test]
fn an_option_that_is_left_out_stays_undecided() {
    assert_eq!(stat("stat").select.target, None);
    assert!(
        stat("stat").select.providers() == ProviderSet::WithoutSched
            && !stat("stat").source.is_named()
    );
    assert_eq!(stat("stat").pace.rate, 1000.0);
    assert_eq!(stat("stat --target xyz").select.target.as_deref(), Some("xyz"));
    for (line, providers) in [
        ("stat --target sampler", ProviderSet::OwnOnly),
        ("stat --provider vmstrobe", ProviderSet::OwnOnly),
        ("stat --target sampler --provider sched", ProviderSet::OwnOnly),
        ("stat --provider kvm", ProviderSet::WithoutSched),
        ("stat --provider sched", ProviderSet::WithSched),
        ("stat --target vcpu --provider sched", ProviderSet::WithSched),
    ] {
        assert_eq!(stat(line).select.providers(), providers, "{line}");
    }
}

#[test]
fn sources_can_be_combined() {
    let source = stat("stat -p 1 --from-qmp a --from-qmp b --table c --from-socket d").source;
    assert_eq!(source.qmp, ["a", "b"].map(PathBuf::from));
    assert_eq!((source.tables, source.sockets), (vec!["c".into()], vec!["d".into()]));
    for source in ["-p 1", "--all", "--demo", "--from-qmp a", "--table a", "--from-socket a"] {
        assert!(stat(&format!("stat {source}")).source.is_named(), "{source}");
    }
}

#[test]
fn the_bpf_reader_is_automatic_by_default() {
    assert_eq!(stat("stat").method.bpf, BpfWhen::Auto);
    assert_eq!(stat("stat --bpf require -- ls --bpf off").method.bpf, BpfWhen::Require);
    for command in ["demo", "query", "info stats vcpu", "schema", "stat", "serve --qmp a"] {
        assert!(parse(&format!("{command} --bpf off")).is_ok(), "{command}");
        check_refused(&format!("{command} --bpf on"), "auto, off, require");
    }
    check_refused("list --bpf off", "unexpected argument");
}

fn serve(line: &str) -> ServeArgs {
    match parse(line) {
        Ok(Command::Serve(args)) => args,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn serve_takes_one_socket_or_one_directory() {
    let args = serve(
        "serve -p 1 --from-qmp a --table t --qmp b --mode 666 --group kvm --qemu-order --on-exit \
         wait --sched",
    );
    assert_eq!((args.qmp_path, args.qmp_dir), (Some("b".into()), None));
    assert_eq!((args.source.qmp, args.source.tables), (vec!["a".into()], vec!["t".into()]));
    assert!(args.sched && !serve("serve --qmp b").sched);
    assert!(args.qemu_order && args.group.is_some_and(|group| group == "kvm"));
    let args = serve("serve --all --qmp-dir d --from-qmp a");
    assert_eq!((args.qmp_path, args.qmp_dir), (None, Some("d".into())));
    check_refused("serve", "<--qmp <PATH>|--qmp-dir <DIR>>");
    check_refused("serve --all", "required arguments were not provided");
    check_refused("serve --qmp a --qmp-dir d", "cannot be used with");
    // A table in a file or behind a socket cannot be assigned to a virtual machine.
    check_refused("serve --all --qmp-dir d --table t", "cannot be used with");
    check_refused("serve --all --qmp-dir d --from-socket s", "cannot be used with");
    check_refused("serve --qmp a --mode 680", "'680' is not a mode of a socket: write 0600");
    check_refused("serve --qmp a --mode 1777", "is not a mode");
    check_refused("serve --qmp a --on-exit stay", "end, wait");
}

#[test]
fn the_defaults_of_serve_follow_from_other_options() {
    for (line, on_exit, mode) in [
        ("--qmp a", OnExit::End, 0o600),
        ("-p 1 --qmp-dir d", OnExit::End, 0o600),
        ("--all --qmp a", OnExit::End, 0o600),
        ("--all --qmp-dir d", OnExit::Wait, 0o600),
        ("--all --qmp-dir d --on-exit end", OnExit::End, 0o600),
        ("--qmp a --on-exit wait", OnExit::Wait, 0o600),
        ("--qmp a --group kvm", OnExit::End, 0o660),
        ("--qmp a --group kvm --mode 0600", OnExit::End, 0o600),
    ] {
        let args = serve(&format!("serve {line}"));
        assert_eq!((args.on_exit(), args.mode()), (on_exit, mode), "{line}");
    }
}

#[test]
fn values_out_of_bounds_and_conflicting_options_are_refused() {
    let rate = "a rate of 0 Hz cannot be sampled: use one from 0.001 Hz to 1 MHz";
    assert_eq!(parse("stat -r 0").map_err(|e| e.to_string()).err(), Some(rate.to_owned()));
    check_refused("stat -r 1e12", "a rate of 1000000000000 Hz cannot be sampled");
    check_refused("stat -r -1", "a rate of -1 Hz cannot");
    check_refused("demo --vcpus 0", "use 1 to 64");
    check_refused("demo -d 0", "cannot be measured");
    check_refused("stat --count 0", "write 1 or more");
    check_refused("query -p x", "`vmstrobe list`");
    check_refused("query --names /a", "no closing");
    check_refused("query --demo --all", "cannot be used with");
    check_refused("query --demo --from-qmp a", "cannot be used with");
    check_refused("query --demo --table a", "cannot be used with");
    check_refused("query --all -p 1", "cannot be used with");
    check_refused("stat -d 1s -- true", "cannot be used with");
    check_refused("info", "no command is given");
    check_refused("info stats", "<TARGET>");
    check_refused("frobnicate", "unrecognized subcommand");
    check_refused("", "no command is given: choose one of these\n\nA stroboscope");
    let error = parse("query --nope").expect_err("the option does not exist").to_string();
    assert!(!error.starts_with("error"), "{error}");
}

#[test]
fn every_help_text_has_examples() {
    for command in ["", "demo", "list", "schema", "query", "info", "info stats", "stat", "serve"] {
        let error = parse(&format!("{command} --help")).expect_err("help is returned as an error");
        assert_eq!(error.kind, Kind::Help);
        let text = error.to_string();
        assert!(text.contains("EXAMPLES\n") && text.contains("vmstrobe "), "{text}");
    }
    assert!(
        parse("--version")
            .expect_err("the version is returned as an error")
            .to_string()
            .contains("vmstrobe 0")
    );
}

#[test]
fn a_line_break_in_an_argument_does_not_break_a_message() {
    let hostile = "a\nvmstrobe: b\u{1b}[2J\u{202e}\u{9b}c";
    for words in [
        &["vmstrobe", hostile][..],
        &["vmstrobe", "list", hostile],
        &["vmstrobe", "list", &format!("--{hostile}")],
        &["vmstrobe", "query", &format!("--pid{hostile}")],
        &["vmstrobe", "query", "--bpf", hostile],
        &["vmstrobe", "query", "--pid", hostile],
        &["vmstrobe", "stat", "--rate", hostile],
        &["vmstrobe", "info", hostile],
        &["vmstrobe", "serve", "--on-exit", hostile],
    ] {
        let error = Error::from(Cli::try_parse_from(words).expect_err("the arguments are invalid"));
        assert_eq!(error.kind, Kind::Usage, "{error}");
        // The only line breaks are ours; a break in an argument has become U+FFFD.
        let is_broken = |line: &String| line.starts_with("vmstrobe: b");
        assert!(!error.lines().iter().any(is_broken), "{words:?}: {error}");
        assert!(
            error.lines()[0].contains("a\u{fffd}vmstrobe: b") || error.lines()[0].contains(hostile),
            "{words:?}: {error}"
        );
    }
}
