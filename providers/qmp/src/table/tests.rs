//! Objects that come, change and go: their keys.

use super::*;

fn table() -> Table {
    let mut table = Table::new(QmpShare::All, "web");
    set_schemas(
        &mut table,
        &[("kvm", "vcpu", "\"x\", \"y\""), ("cryptodev", "cryptodev", "\"x\"")],
    );
    table
}

fn set_schemas(table: &mut Table, schemas: &[(&str, &str, &str)]) {
    let schema = |(provider, target, names): &(&str, &str, &str)| {
        let stat = |name: &str| format!("{{\"name\": {name}, \"type\": \"cumulative\"}}");
        let stats = names.split(", ").map(stat).collect::<Vec<_>>().join(", ");
        format!("{{\"provider\": \"{provider}\", \"target\": \"{target}\", \"stats\": [{stats}]}}")
    };
    let schemas = schemas.iter().map(schema).collect::<Vec<_>>().join(", ");
    let schemas: Vec<StatsSchema> = serde_json::from_str(&format!("[{schemas}]")).unwrap();
    table.set_schemas(&schemas).unwrap();
}

fn set_cpus(table: &mut Table, cpus: &[(u32, &str)]) {
    let cpu = |(at, (index, path)): (usize, &(u32, &str))| {
        format!("{{\"cpu-index\": {index}, \"qom-path\": \"{path}\", \"thread-id\": {at}}}")
    };
    let cpus = cpus.iter().enumerate().map(cpu).collect::<Vec<_>>().join(", ");
    let cpus: Vec<Cpu> = serde_json::from_str(&format!("[{cpus}]")).unwrap();
    let names = table.set_cpus(&cpus).unwrap();
    assert_eq!(names.len(), cpus.len());
}

/// An answer to the query for a provider's target of its own name: objects with their statistics,
/// in QEMU's order.
fn apply(table: &mut Table, provider: &str, target: Target, objects: &[(&str, &[&str])]) -> bool {
    let object = |(path, names): &(&str, &[&str])| {
        let stat = |name: &&str| format!("{{\"name\": \"{name}\", \"value\": 1}}");
        let stats = names.iter().map(stat).collect::<Vec<_>>().join(", ");
        format!("{{\"provider\": \"{provider}\", \"qom-path\": \"{path}\", \"stats\": [{stats}]}}")
    };
    let text = format!("[{}]", objects.iter().map(object).collect::<Vec<_>>().join(", "));
    let results: Vec<StatsResult<'_>> = serde_json::from_str(&text).unwrap();
    table.apply(&target, &results, 0).unwrap()
}

fn apply_crypto(table: &mut Table, paths: &[&str]) {
    let objects: Vec<(&str, &[&str])> = paths.iter().map(|&path| (path, &["x"][..])).collect();
    assert!(!apply(table, "cryptodev", Target::Cryptodev, &objects));
}

fn held(table: &Table) -> Vec<(&str, Option<u32>, u64)> {
    table.held().map(|held| (&*held.object.path, held.object.index, held.object.key)).collect()
}

#[test]
fn a_key_is_given_out_once() {
    let mut table = table();
    apply_crypto(&mut table, &["/b", "/a"]);
    assert_eq!(held(&table), [("/a", None, 0), ("/b", None, 1)]);
    apply_crypto(&mut table, &["/c", "/b"]);
    assert_eq!(held(&table), [("/b", None, 1), ("/c", None, 2)]);
    apply_crypto(&mut table, &["/c", "/a", "/b"]);
    assert_eq!(held(&table), [("/b", None, 1), ("/a", None, 3), ("/c", None, 2)]);
    table.clear();
    assert_eq!(held(&table), []);
    assert_eq!(table.schemas().count(), 2, "what QEMU can have is still known");
    apply_crypto(&mut table, &["/b"]);
    assert_eq!(held(&table), [("/b", None, 4)]);
}

#[test]
fn an_answer_is_about_its_target_alone() {
    let mut table = table();
    set_cpus(&mut table, &[(0, "/cpu0")]);
    apply_crypto(&mut table, &["/a"]);
    assert!(!apply(&mut table, "kvm", Target::Vcpu, &[("/cpu0", &["x"])]));
    assert!(!apply(&mut table, "other", Target::Vcpu, &[("/cpu1", &["x"])]));
    assert_eq!(held(&table), [("/a", None, 0)], "QEMU has no vCPU of a known provider any more");
    assert!(!apply(&mut table, "kvm", Target::Vm, &[("/vm", &["x"])]));
    assert_eq!(held(&table), [("/a", None, 0)]);
}

#[test]
fn other_statistics_are_another_object() {
    let mut table = table();
    set_cpus(&mut table, &[(0, "/cpu0"), (1, "/cpu1")]);
    let both: &[&str] = &["x", "y"];
    apply(&mut table, "kvm", Target::Vcpu, &[("/cpu1", both), ("/cpu0", both)]);
    let schema = Arc::clone(&table.held().next().unwrap().object.schema);
    apply(&mut table, "kvm", Target::Vcpu, &[("/cpu1", both), ("/cpu0", &["x"])]);
    assert_eq!(held(&table), [("/cpu0", Some(0), 2), ("/cpu1", Some(1), 1)]);

    // An equal schema changes nothing, another one all of its objects.
    let same = [("kvm", "vcpu", "\"x\", \"y\""), ("cryptodev", "cryptodev", "\"x\"")];
    set_schemas(&mut table, &same);
    apply(&mut table, "kvm", Target::Vcpu, &[("/cpu1", both), ("/cpu0", both)]);
    assert_eq!(held(&table), [("/cpu0", Some(0), 3), ("/cpu1", Some(1), 1)]);
    assert!(Arc::ptr_eq(&table.held().next().unwrap().object.schema, &schema));
    set_schemas(&mut table, &[("kvm", "vcpu", "\"z\", \"x\", \"y\"")]);
    assert_eq!(held(&table).len(), 2, "they stay until there are values");
    apply(&mut table, "kvm", Target::Vcpu, &[("/cpu1", both), ("/cpu0", &["z", "x", "y"])]);
    assert_eq!(held(&table), [("/cpu0", Some(0), 4), ("/cpu1", Some(1), 5)]);
    set_schemas(&mut table, &[]);
    assert_eq!(held(&table), []);
}

#[test]
fn a_vcpu_waits_for_its_number() {
    let mut table = table();
    set_cpus(&mut table, &[(0, "/cpu0")]);
    let x: &[&str] = &["x"];
    let (old, new) = (("/cpu0", x), ("/cpu9", x));
    assert!(!apply(&mut table, "kvm", Target::Vcpu, &[old]));
    // Plugged in since: the names have to be asked for again.
    assert!(apply(&mut table, "kvm", Target::Vcpu, &[new, old]));
    assert_eq!(held(&table), [("/cpu0", Some(0), 0)]);
    set_cpus(&mut table, &[(9, "/cpu9"), (0, "/cpu0")]);
    apply_crypto(&mut table, &[]);
    assert!(!apply(&mut table, "kvm", Target::Vcpu, &[new, old]));
    assert_eq!(held(&table), [("/cpu0", Some(0), 0), ("/cpu9", Some(9), 1)]);

    // One that never gets a number is shown without, and one that changes it is another.
    set_cpus(&mut table, &[(3, "/cpu0")]);
    apply_crypto(&mut table, &[]);
    let odd = ("/odd", x);
    assert!(!apply(&mut table, "kvm", Target::Vcpu, &[odd, old]));
    assert!(!apply(&mut table, "kvm", Target::Vcpu, &[odd, old]));
    assert_eq!(held(&table), [("/cpu0", Some(3), 2), ("/odd", None, 3)]);
}

#[test]
fn limits_of_names_and_numbers_hold() {
    let mut table = table();
    let cpu = |path: String| Cpu { cpu_index: 0, qom_path: path, thread_id: 1 };
    let longest = "a".repeat(MAX_PATH_BYTES);
    assert!(table.set_cpus(&[cpu(longest.clone())]).is_ok());
    assert!(table.set_cpus(&[cpu(longest + "a")]).is_err());
    let many = |count: usize| (0..count).map(|at| cpu(at.to_string())).collect::<Vec<_>>();
    assert!(table.set_cpus(&many(MAX_OBJECTS)).is_ok());
    assert!(table.set_cpus(&many(MAX_OBJECTS + 1)).is_err());
}
