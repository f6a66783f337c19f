//! Errors in the command line, and the help texts.

use vmstrobe_tests::require::require_kvm;

use crate::{fine, says, vmstrobe};

pub(super) const COMMANDS: [&[&str]; 15] = [
    &[],
    &["demo"],
    &["list"],
    &["schema"],
    &["query"],
    &["info"],
    &["info", "stats"],
    &["stat"],
    &["top"],
    &["record"],
    &["dump"],
    &["mark"],
    &["convert"],
    &["report"],
    &["serve"],
];

#[test]
fn every_help_has_an_example() {
    for command in COMMANDS {
        let output = vmstrobe(&[command, &["--help"]].concat());
        fine(&output);
        assert!(output.stdout.contains("EXAMPLE"), "{command:?}: {}", output.stdout);
        assert!(output.stdout.contains("Usage: vmstrobe"), "{command:?}: {}", output.stdout);
        let wide = output.stdout.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{command:?}");
    }
    let version = vmstrobe(&["--version"]);
    fine(&version);
    assert!(version.stdout.starts_with("vmstrobe "), "{version:?}");
}

#[test]
fn bad_usage_is_status_2() {
    for (line, parts) in [
        ("", &["no command is given", "Usage: vmstrobe"][..]),
        ("frobnicate", &["unrecognized subcommand 'frobnicate'"]),
        ("info", &["Usage: vmstrobe info"]),
        ("info stats", &["<TARGET>"]),
        ("stat -r 0", &["a rate of 0 Hz cannot be sampled: use one from 0.001 Hz to 1 MHz"]),
        ("stat -r 1e12", &["a rate of 1000000000000 Hz cannot be sampled"]),
        ("stat -r -5", &["a rate of -5 Hz cannot be sampled"]),
        ("stat -r fast", &["'fast' is not a rate: write 1000, 1k"]),
        ("demo -r 0", &["cannot be sampled"]),
        ("demo --vcpus 65", &["use 1 to 64"]),
        ("demo -d 0", &["cannot be measured"]),
        ("stat -d soon", &["'soon' is not a time"]),
        ("stat --count 0", &["write 1 or more"]),
        ("query --names /a(/", &["'/a(/' is not a pattern we can match"]),
        ("query --names /abc", &["has no closing '/'"]),
        ("query --names ,", &["the list of names is empty"]),
        ("query -p qemu", &["'qemu' is not a process id: `vmstrobe list` shows"]),
        ("query --demo --all", &["cannot be used with"]),
        ("query --demo --from-qmp a", &["cannot be used with"]),
        ("query --frobnicate", &["unexpected argument '--frobnicate'"]),
        ("stat sleep 1", &["put the command to measure after `--`: vmstrobe stat -- sleep 1\n"]),
        ("stat -r 10 sh -c x", &["argument 'sh'", "after `--`: vmstrobe stat -r 10 -- sh -c x\n"]),
        ("stat -a -- true", &["argument '-a'", "--all"]),
        ("stat -e exits", &["argument '-e'", "--names"]),
        ("stat -I 100", &["argument '-I'", "-i MS"]),
        ("stat -x,", &["argument '-x'", "--json"]),
        ("query sleep 1", &["unexpected argument 'sleep' found\n\nUsage"]),
        ("stat -d 1s -- true", &["cannot be used with"]),
        ("stat --bpf on", &["invalid value 'on' for '--bpf <WHEN>'", "auto, off, require"]),
        ("top --redraw 1k", &["a screen cannot be drawn 1k times a second: use 0.1 to 60"]),
        ("top -n 3", &["--batch"]),
        ("top --ascii --marker block", &["cannot be used with"]),
        ("top --replay a -r 10", &["cannot be used with"]),
        ("query --replay a --demo", &["cannot be used with"]),
        ("stat --replay a -p 1", &["cannot be used with"]),
        ("stat --replay a -r 10", &["cannot be used with"]),
        ("stat --replay a --bpf off", &["cannot be used with"]),
        ("stat --replay a -- true", &["cannot be used with"]),
        ("stat --replay a --speed 0", &["'0' is not a speed: write 1, 0.1, 10 or max"]),
        ("stat --speed 2", &["--replay <FILE>"]),
        ("query --replay a --at noon", &["'noon' is not a time of a recording: write 1.5s"]),
        ("query --at 1s", &["--replay <FILE>"]),
        ("serve --replay a --qmp b --sched", &["cannot be used with"]),
        ("record --replay a -o b", &["'--replay'", "`vmstrobe convert` writes a recording in"]),
        ("record --dry-run a", &["--when <EXPR>"]),
        ("record --dry-run a --when x>1 -o b", &["cannot be used with"]),
        ("record -o a --when x>1", &["--last <TIME>|--dry-run <FILE>"]),
        ("dump -p 1 --control a", &["cannot be used with"]),
        ("record --last 1s --control a --no-control", &["cannot be used with"]),
        ("mark", &["<TEXT>"]),
        ("list --bpf off", &["unexpected argument '--bpf'"]),
    ] {
        let args: Vec<&str> = line.split_whitespace().collect();
        let output = vmstrobe(&args);
        says(&output, 2, parts);
        assert_eq!(output.stdout, "", "{line}");
    }
}

/// The arguments are valid, but no such object exists: the status is 1, and the message lists the
/// objects that exist.
#[test]
fn a_missing_object_is_status_1() {
    if !require_kvm() {
        return;
    }
    for (line, parts) in [
        ("query --demo --names exots", &["no statistic named 'exots': did you mean 'exits'"][..]),
        ("query --demo --names zzz*,exots", &["matches 'zzz*'", "named 'exots'"]),
        ("query --demo --names exits,-exits", &["no statistic is selected: `vmstrobe schema`"]),
        ("schema --demo --names exots", &["did you mean 'exits'"]),
        ("stat --demo -d 1s --names exots", &["did you mean 'exits'"]),
        (
            "query --demo --vcpu 7",
            &["there is no vCPU 7: choose one of these with --vcpu\n", "/vm/demo/vcpu[3]"],
        ),
        ("query --demo --target disk", &["no objects of target 'disk'", "only of cryptodev, vcpu"]),
        (
            "query --demo --provider xyz",
            &["no provider 'xyz' here, only cryptodev, kvm, sched and vmstrobe"],
        ),
        ("info stats --demo vcpu exots", &["did you mean 'exits'"]),
    ] {
        let args: Vec<&str> = line.split_whitespace().collect();
        let output = vmstrobe(&args);
        says(&output, 1, parts);
        assert_eq!(output.stdout, "", "{line}");
    }
}

#[test]
fn an_unknown_name_among_others_is_a_warning() {
    if !require_kvm() {
        return;
    }
    let output = vmstrobe(&["query", "--demo", "--names", "exots,exits"]);
    says(&output, 0, &["no statistic named 'exots': did you mean 'exits'"]);
    assert!(output.stdout.contains("exits "), "{output:?}");
    assert!(!output.stdout.contains("halt_exits"), "{output:?}");
}

#[test]
fn only_the_requested_vcpus_are_shown() {
    if !require_kvm() {
        return;
    }
    let args = ["query", "--demo", "--vcpu", "2", "--vcpu", "/vm/demo/vcpu[0]", "--json"];
    let output = vmstrobe(&args);
    fine(&output);
    let results = crate::json(&output.stdout);
    let results = results.as_array().expect("the value is a list");
    let paths: Vec<_> = results.iter().filter_map(|result| result["qom-path"].as_str()).collect();
    assert_eq!(paths, ["/vm/demo/vcpu[0]", "/vm/demo/vcpu[2]"]);
}
