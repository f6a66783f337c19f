//! `--bpf`: the reported method is the one that was used, impossible wishes are refused, and `list
//! -v` shows the methods.

use vmstrobe_tests::require::{bpf, require_bpf, require_kvm};

use crate::{Nobody, fine, json, paused_qemu, require_root, says, vmstrobe};

/// The text for vCPUs that are each read alone.
const PREAD: &str = "one pread an object and tick";

#[test]
fn without_bpf_the_summary_names_pread() {
    if !require_kvm() {
        return;
    }
    let stat = ["stat", "--demo", "--names", "exits", "--bpf", "off"];
    let way = format!("{PREAD}; BPF reader: switched off");
    let output = vmstrobe(&[&stat[..], &["-d", "200ms"]].concat());
    fine(&output);
    assert!(output.stdout.ends_with(&format!("\n sampled by {way}\n")), "{output:?}");
    // The method is printed once for several intervals.
    let output = vmstrobe(&[&stat[..], &["-d", "300ms", "-i", "100"]].concat());
    assert_eq!(output.stdout.matches(&way).count(), 1, "{output:?}");
    let last = output.stdout.lines().last().unwrap_or_default();
    assert!(last.trim_start().starts_with("0.3") && last.ends_with(&way), "{output:?}");
    // In JSON each interval has the method.
    let output = vmstrobe(&[&stat[..], &["-d", "300ms", "-i", "100", "--json"]].concat());
    fine(&output);
    let read: Vec<_> = output.stdout.lines().map(|line| json(line)["read"].clone()).collect();
    let want = serde_json::json!({
        "method": "pread", "objects": 4, "bpf_objects": 0, "fallback_ticks": 0, "bpf": "off",
        "reason": "BPF reader: switched off",
    });
    assert!(!read.is_empty() && read.iter().all(|said| *said == want), "{read:?}");

    let output = vmstrobe(&["demo", "-d", "200ms", "--bpf", "off", "--json"]);
    fine(&output);
    let summary = json(&output.stdout);
    assert_eq!((&summary["read"], &summary["threads"]), (&want, &1.into()));
    let output = vmstrobe(&["demo", "-d", "200ms", "--bpf", "off"]);
    let want = "\none pread a vCPU and tick, else no system call, inline; BPF reader: \
                switched off.\n";
    assert!(output.stdout.contains(want), "{output:?}");
}

#[test]
fn without_kvm_objects_no_method_is_named() {
    let args = ["stat", "--target", "sampler", "--names", "ticks", "-d", "100ms"];
    let output = vmstrobe(&args);
    fine(&output);
    assert!(!output.stdout.contains("sampled by"), "{output:?}");
    let output = vmstrobe(&[&args[..], &["--json"]].concat());
    assert_eq!(json(&output.stdout).get("read"), None, "{output:?}");
}

#[test]
fn bpf_is_used_if_it_is_required() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    let demo = ["demo", "-d", "500ms", "--bpf", "require"];
    let output = vmstrobe(&[&demo[..], &["--json"]].concat());
    fine(&output);
    let summary = json(&output.stdout);
    let want = serde_json::json!({
        "method": "bpf", "objects": 4, "bpf_objects": 4, "fallback_ticks": 0, "bpf": "open",
    });
    assert_eq!(summary["read"], want);
    assert_eq!(summary["unread_rows"], 0, "{summary}");
    let output = vmstrobe(&demo);
    fine(&output);
    let way = "): one call for 4 vCPUs, else no system call, inline";
    assert!(output.stdout.contains("at 1 kHz for ") && output.stdout.contains(way), "{output:?}");
    assert!(output.stdout.contains("\nthe BPF reader ("), "{output:?}");

    let output = vmstrobe(&["stat", "--demo", "-d", "300ms", "--bpf", "require"]);
    fine(&output);
    let last = output.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with(" sampled by the BPF reader ("), "{output:?}");
    assert!(last.ends_with("): one call for 4 objects"), "{output:?}");
    fine(&vmstrobe(&["query", "--demo", "--names", "exits", "--bpf", "require"]));
    fine(&vmstrobe(&["info", "stats", "--demo", "vcpu", "exits", "--bpf", "require"]));
}

#[test]
fn requiring_bpf_where_it_is_refused_fails_with_the_reason() {
    if !require_root() {
        return;
    }
    let nobody = Nobody::new();
    let own = &["--target", "sampler", "--bpf", "require"][..];
    for command in [&["stat", "-d", "100ms"][..], &["query"], &["schema"]] {
        let output = nobody.vmstrobe(&[command, own].concat());
        says(&output, 1, &["vmstrobe: --bpf require: "]);
        assert_eq!(output.stdout, "");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
    let output = nobody.vmstrobe(&["demo", "-d", "100ms", "--bpf", "require"]);
    says(&output, 1, &["vmstrobe: --bpf require: "]);
    // With `auto` it is neither an error nor a message.
    let args = ["stat", "--target", "sampler", "--names", "ticks", "-d", "100ms"];
    fine(&nobody.vmstrobe(&args));
}

#[test]
fn list_shows_the_methods() {
    let Some((qemu, pid)) = paused_qemu("ways", 3) else { return };
    let usable = bpf();
    let output = vmstrobe(&["list", "-v", "--json"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let entries = json(&output.stdout);
    let entries = entries.as_array().expect("the value is a list");
    let ours = entries.iter().find(|entry| entry["pid"] == qemu.pid()).expect("the thread runs");
    let [pread, bpf_method] = [0, 1].map(|at| &ours["methods"][at]);
    assert_eq!((&pread["method"], &pread["open"]), (&"pread".into(), &true.into()), "{ours}");
    assert_eq!(ours["stats_fds"], json(r#"{"vcpus": 3, "vm": false}"#));
    assert_eq!(bpf_method["method"], "bpf");
    assert_eq!(bpf_method["open"], usable.is_ok(), "{ours} {usable:?}");
    let how = match &usable {
        Ok(()) => bpf_method["instructions"].as_str().expect("an open method has instructions"),
        Err(why) => {
            assert_eq!(bpf_method["reason"], **why);
            why
        }
    };

    let output = vmstrobe(&["list", "-v"]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.trim_start().starts_with(&pid))
        .expect("the list has the running VM");
    let column = lines[0].find("HOW").expect("the table has the column");
    for (line, method) in lines[at + 1..].iter().zip(["pread", "bpf", "qmp"]) {
        assert!(line[..column].trim().is_empty(), "{output:?}");
        assert!(line[column..].starts_with(method), "{output:?}");
    }
    let stats_fds =
        "open: stats fds of its 3 vCPUs, none of the VM (QEMU opens that one only while";
    assert!(output.stdout.replace("\n", " ").contains(stats_fds), "{output:?}");
    assert!(lines[at + 2].contains(how), "{output:?}");
}
