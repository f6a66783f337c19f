//! `demo`: its end, and its behaviour without KVM.

use vmstrobe_tests::command::{Output, binary, run_within};
use vmstrobe_tests::require::{kvm, require, require_kvm};

use crate::{LIMIT, Nobody, fine, json, require_root, says, under, vmstrobe};

#[test]
fn demo_ends_with_a_summary() {
    if !require_kvm() {
        return;
    }
    let output = vmstrobe(&["demo", "-d", "1"]);
    fine(&output);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let summary = lines
        .iter()
        .position(|line| line.starts_with("vmstrobe sampled 4 vCPUs and a crypto device at 1 kHz"));
    let summary = &lines[summary.unwrap_or_else(|| panic!("no summary: {output:?}"))..];
    for (name, figures) in [
        ("ticks", 1),
        ("missed", 1),
        ("starved", 1),
        ("lost", 1),
        ("lateness", 4),
        ("tick cost", 4),
    ] {
        let line = summary.iter().find_map(|line| line.trim_start().strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("no {name}: {output:?}"));
        let numbers = line.split_whitespace().filter(|word| word.starts_with(char::is_numeric));
        assert!(numbers.count() >= figures, "{name}: {line}");
    }
    // A pipe receives no sequence for terminals.
    assert!(!output.stdout.contains('\u{1b}'), "{output:?}");
    for vcpu in ["0  steady", "1  square wave", "2  saw-tooth", "3  nearly idle"] {
        assert!(output.stdout.contains(vcpu), "no {vcpu}: {output:?}");
    }
    works(&output);
}

/// Checks that the crypto device has encrypted and decrypted in each block.
fn works(output: &Output) {
    for row in ["crypto0 encrypt", "crypto0 decrypt"] {
        let rows = output.stdout.lines().filter_map(|line| line.split_once(row));
        let rates: Vec<f64> = rows
            .map(|(_, figures)| {
                let ops = figures.split_whitespace().next().expect("the line has figures");
                ops.replace(',', "").parse().unwrap_or_else(|_| panic!("{figures}"))
            })
            .collect();
        assert!(!rates.is_empty() && rates.iter().all(|&rate| rate > 10.0), "{row}: {output:?}");
    }
}

#[test]
fn the_figures_of_the_summary_add_up() {
    if !require_kvm() {
        return;
    }
    let output = vmstrobe(&["demo", "--vcpus", "2", "-r", "500", "--count", "400", "--json"]);
    fine(&output);
    let summary = json(&output.stdout);
    let figure = |key: &str| summary[key].as_u64().unwrap_or_else(|| panic!("{key}: {summary}"));
    assert_eq!((figure("vcpus"), figure("unread_rows")), (2, 0));
    assert_eq!(summary["sampled"], json(r#"["vcpu", "cryptodev"]"#));
    // There is one more sample than ticks: the first is taken before the clock starts.
    let due = figure("ticks") + figure("missed_ticks") + figure("starved_ticks");
    assert!((400..=401).contains(&due), "{summary}");
    for times in ["lateness_ns", "tick_ns"] {
        let of =
            |quantile: &str| summary[times][quantile].as_u64().expect("the value is an integer");
        assert!(of("p50") <= of("p99") && of("p99") <= of("max"), "{summary}");
    }
}

/// The terminal is none, as in editors and build systems, or an unknown one.
#[test]
fn a_dumb_terminal_gets_lines() {
    if !require_kvm() {
        return;
    }
    let path = binary().to_str().expect("the path is text");
    let demo = format!("{path} demo -d 300ms");
    for (term, has_screen) in [
        (&["TERM=xterm"][..], true),
        (&["TERM=dumb"], false),
        (&["TERM="], false),
        (&["-uTERM"], false),
    ] {
        let args = [term, &["script", "-qec", &demo, "/dev/null"]].concat();
        let output = run_within(LIMIT, "env", &args);
        assert_eq!(output.code, Some(0), "{term:?}: {output:?}");
        assert!(output.stdout.contains("crypto0"), "{term:?}: {output:?}");
        assert_eq!(output.stdout.contains('\u{1b}'), has_screen, "{term:?}: {output:?}");
    }
}

#[test]
fn without_kvm_it_says_why_and_samples_the_crypto_device() {
    if kvm().is_err() {
        return check_without(|args| vmstrobe(args));
    }
    if !require_root() {
        return;
    }
    // A file that is no device is in the place of /dev/kvm.
    check_without(|args| {
        let script = "mount --bind /dev/null /dev/kvm && exec \"$0\" \"$@\"";
        under(&["unshare", "--mount", "sh", "-c", script], args)
    });
    // The user may not open /dev/kvm.
    let nobody = Nobody::new();
    let closed = "test ! -w /dev/kvm";
    let line = [&Nobody::WRAPPER[..], &["sh", "-c", closed]].concat();
    let refused = run_within(LIMIT, line[0], &line[1..]);
    let refused = if refused.code == Some(0) { Ok(()) } else { Err("everybody may".to_owned()) };
    if require("a /dev/kvm that is not for everybody", refused) {
        check_without(|args| nobody.vmstrobe(args));
    }
}

fn check_without(vmstrobe: impl Fn(&[&str]) -> Output) {
    let output = vmstrobe(&["demo", "-d", "500ms"]);
    says(&output, 0, &["vmstrobe: /dev/kvm ", "the demo samples only its crypto device"]);
    assert!(output.stdout.contains("vmstrobe sampled a crypto device at 1 kHz"), "{output:?}");
    works(&output);
    let output = vmstrobe(&["demo", "-d", "500ms", "--json"]);
    says(&output, 0, &["vmstrobe: /dev/kvm "]);
    let summary = json(&output.stdout);
    assert_eq!((&summary["sampled"][0], &summary["vcpus"]), (&"cryptodev".into(), &0.into()));
    assert!(summary["ticks"].as_u64() > Some(10), "{summary}");
    // A command that asked for the guest itself fails without it.
    let output = vmstrobe(&["query", "--demo"]);
    says(&output, 1, &["vmstrobe: /dev/kvm "]);
    assert_eq!(output.stdout, "");
}
