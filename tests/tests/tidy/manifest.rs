//! The rules that read the manifests: which crate may depend on which.

use toml::{Table, Value};

use super::tree::File;

/// The arrows of the house: (crate, the only crates of ours that it may depend on).
const ARROWS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("guest", &[]),
    ("listen", &["vmstrobe-core"]),
    ("providers/host", &["vmstrobe-core"]),
    ("providers/kvm", &["vmstrobe-core", "vmstrobe-host"]),
    // Its guest is what the BPF reader is tried on before it is believed.
    ("providers/bpf", &["vmstrobe-core", "vmstrobe-guest", "vmstrobe-host", "vmstrobe-kvm"]),
    ("providers/table", &["vmstrobe-core", "vmstrobe-host"]),
    ("providers/qmp", &["vmstrobe-core", "vmstrobe-host"]),
    // It moves descriptors of both kinds.
    (
        "providers/fd-server",
        &["vmstrobe-core", "vmstrobe-host", "vmstrobe-kvm", "vmstrobe-listen", "vmstrobe-table"],
    ),
    ("providers/testing", &["vmstrobe-core", "vmstrobe-guest", "vmstrobe-require"]),
    ("sampler", &["vmstrobe-core"]),
    ("export", &["vmstrobe-core"]),
    (
        "vmstrobe",
        &[
            "vmstrobe-core",
            "vmstrobe-host",
            "vmstrobe-kvm",
            "vmstrobe-bpf",
            "vmstrobe-table",
            "vmstrobe-qmp",
            "vmstrobe-fd-server",
            "vmstrobe-sampler",
            "vmstrobe-export",
            "vmstrobe-listen",
            "vmstrobe-server",
            // The demo's virtual machine.
            "vmstrobe-guest",
        ],
    ),
    // The tests of every crate may use it, so it can depend on none.
    ("tests/require", &[]),
    ("server", &["vmstrobe-core", "vmstrobe-listen", "vmstrobe-sampler", "vmstrobe-export"]),
    // What a second front door would need is the library's.
    ("cli", &["vmstrobe"]),
];

/// Packages that a crate must never depend on: (crate, the packages).
const BARRED: &[(&str, &[&str])] = &[
    ("core", &["kvm-ioctls", "libc"]),
    ("sampler", &["kvm-ioctls", "libc"]),
    // Its formats are its own: what these bring is more than all else that it has.
    ("export", &["arrow-ipc", "clap", "libc"]),
    // What a VMM takes with it that embeds us: rustix, and nothing else that is not ours.
    ("providers/host", &["clap", "kvm-ioctls", "libc", "memmap2", "serde_json"]),
    ("providers/kvm", &["clap", "libc", "memmap2", "serde_json"]),
    ("providers/bpf", &["libc"]),
    ("providers/table", &["libc"]),
    ("providers/qmp", &["libc"]),
    ("providers/fd-server", &["libc"]),
];

/// A crate depends on those of ours that it may know, and on no package that is barred to it.
/// Its development dependencies are not looked at.
pub(crate) fn arrows(file: &File) -> Vec<String> {
    let Some(package) = file.path.strip_suffix("/Cargo.toml") else { return Vec::new() };
    let manifest: Table = match file.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![file.at(1, error)],
    };
    let ours = |name: &str| name == "vmstrobe" || name.starts_with("vmstrobe-");
    let wrong = |name: &str| {
        row(ARROWS, package).is_some_and(|known| ours(name) && !known.contains(&name))
            || row(BARRED, package).is_some_and(|barred| barred.contains(&name))
    };
    let found = dependencies(&manifest).into_iter().filter(|name| wrong(name));
    found.map(|name| file.at(line_of(file, &name), format!("{package} on {name}"))).collect()
}

fn row<'a>(table: &'a [(&str, &[&'a str])], package: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(name, _)| *name == package).map(|(_, row)| *row)
}

/// The packages behind a crate: for all machines, for some, and for its build script.
fn dependencies(manifest: &Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter();
    let targets = targets.flat_map(Table::values).filter_map(Value::as_table);
    let mut found = Vec::new();
    for place in targets.chain([manifest]) {
        for section in ["dependencies", "build-dependencies"] {
            let entries = place.get(section).and_then(Value::as_table).into_iter().flatten();
            found.extend(entries.map(|(name, entry)| package_name(name, entry)));
        }
    }
    found
}

/// A dependency may be renamed: then its package stands in the entry.
fn package_name(name: &str, entry: &Value) -> String {
    entry.get("package").and_then(Value::as_str).unwrap_or(name).to_owned()
}

fn line_of(file: &File, name: &str) -> usize {
    file.lines().find(|(_, line)| line.contains(name)).map_or(1, |(number, _)| number)
}
