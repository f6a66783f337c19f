//! The crates that a user of the library compiles, by `cargo tree`.

use std::collections::BTreeSet;
use std::process::Command;

/// The crates behind the library with these features alone, by `cargo tree`.
fn crates_behind_the_library(features: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--package", "vmstrobe", "--edges", "normal", "--prefix", "none"])
        .args(["--no-default-features", "--features", features])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("the names of crates are text");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn a_vmm_that_wants_its_own_vcpus_compiles_little() {
    let barred = ["serde_json", "clap", "kvm-ioctls", "memmap2", "libc"];
    let little = crates_behind_the_library("kvm");
    println!("{} crates: {little:?}", little.len());
    assert!(barred.iter().all(|name| !little.contains(*name)), "{little:?}");
    // The check can fail: these come with what needs them.
    let all = crates_behind_the_library("bpf,table,qmp,server,kvm-ioctls");
    for name in ["serde_json", "kvm-ioctls", "memmap2", "libc"] {
        assert!(all.contains(name), "{name}: {all:?}");
    }
}

#[test]
fn a_feature_brings_no_provider_but_its_own() {
    for (features, barred) in [
        ("table", &["vmstrobe-kvm", "vmstrobe-bpf", "vmstrobe-qmp", "serde_json"][..]),
        ("qmp", &["vmstrobe-kvm", "vmstrobe-bpf", "vmstrobe-table", "memmap2"]),
        ("kvm", &["vmstrobe-bpf", "vmstrobe-table", "vmstrobe-qmp", "vmstrobe-fd-server"]),
    ] {
        let behind = crates_behind_the_library(features);
        assert!(behind.contains(&format!("vmstrobe-{features}")), "{behind:?}");
        let found: Vec<_> = barred.iter().filter(|name| behind.contains(**name)).collect();
        assert!(found.is_empty(), "{features}: {found:?}");
    }
}
