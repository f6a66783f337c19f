//! Recordings of QEMUs that there are, that may come, and that lie.

use std::collections::HashSet;
use std::sync::Arc;

use vmstrobe_core::wire::{MAX_DATA_BYTES, MAX_DESCS, MAX_NAME_BYTES};
use vmstrobe_core::{Base, Desc, ErrorKind, Scale, Schema, StatType, Target, Unit};

use super::*;
use crate::framer::MAX_REPLY_BYTES;
use crate::group::MAX_HELD_BYTES;
use crate::message::MAX_BUCKETS;
use crate::table::{MAX_OBJECTS, MAX_PATH_BYTES, MAX_SCHEMAS};

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";
const CPUS: &str = "[{\"cpu-index\": 1, \"qom-path\": \"/cpu[b]\", \"thread-id\": 12}, \
                    {\"cpu-index\": 0, \"qom-path\": \"/cpu[a]\", \"thread-id\": 11}]";

/// A QEMU's side of a connection: the results of its commands, in their order from `query-name` on.
fn recording(results: &[&str]) -> Vec<u8> {
    let mut text = GREETING.to_owned();
    for (at, result) in ["{}"].iter().chain(results).enumerate() {
        text += &format!("{{\"return\": {result}, \"id\": {}}}\r\n", at + 1);
    }
    text.into_bytes()
}

/// Replays a recording of a VM called `web` with vCPUs a and b.
fn heard(schemas: &str, stats: &[&str]) -> Result<Vec<(Object, Vec<u64>)>> {
    let before = ["{\"name\": \"web\"}", schemas, CPUS];
    replay(&recording(&[&before, stats].concat()), QmpShare::All)
}

fn schema(provider: &str, target: &str, stats: &str) -> String {
    format!("[{{\"provider\": \"{provider}\", \"stats\": [{stats}], \"target\": \"{target}\"}}]")
}

fn object(provider: &str, path: &str, stats: &str) -> String {
    format!("{{\"provider\": \"{provider}\", \"stats\": [{stats}], \"qom-path\": \"{path}\"}}")
}

/// A schema of plain counters, in QEMU's order.
fn counters(names: &[&str]) -> String {
    let counter =
        |name| format!("{{\"name\": \"{name}\", \"exponent\": 0, \"type\": \"cumulative\"}}");
    names.iter().map(counter).collect::<Vec<_>>().join(", ")
}

fn stats(values: &[(&str, &str)]) -> String {
    let stat = |(name, value)| format!("{{\"name\": \"{name}\", \"value\": {value}}}");
    values.iter().copied().map(stat).collect::<Vec<_>>().join(", ")
}

fn names(schema: &Schema) -> Vec<&str> {
    schema.descs().iter().map(|desc| &*desc.name).collect()
}

#[test]
fn crypto_devices_and_all_they_have_are_turned_round() {
    let kernels = [
        "sym-encrypt-ops",
        "sym-decrypt-ops",
        "sym-encrypt-bytes",
        "sym-decrypt-bytes",
        "asym-encrypt-ops",
        "asym-decrypt-ops",
        "asym-sign-ops",
        "asym-verify-ops",
        "asym-encrypt-bytes",
        "asym-decrypt-bytes",
        "asym-sign-bytes",
        "asym-verify-bytes",
    ];
    let qemus: Vec<&str> = kernels.iter().rev().copied().collect();
    let numbers: Vec<String> = (0..12).rev().map(|number| number.to_string()).collect();
    let values: Vec<(&str, &str)> =
        qemus.iter().copied().zip(numbers.iter().map(|number| &**number)).collect();
    let schemas = schema("cryptodev", "cryptodev", &counters(&qemus));
    // QEMU 10.0.2 gives devices made as c1, zz, a0 and b9 in this order.
    let device = |id| object("cryptodev", &format!("/objects/{id}"), &stats(&values));
    let devices = ["zz", "b9", "c1", "a0"].map(device).join(", ");
    let found = heard(&schemas, &[&format!("[{devices}]")]).unwrap();
    let paths: Vec<&str> = found.iter().map(|(object, _)| &*object.path).collect();
    assert_eq!(paths, ["/objects/a0", "/objects/c1", "/objects/b9", "/objects/zz"]);
    for (object, words) in &found {
        assert_eq!(names(&object.schema), kernels);
        assert_eq!(*words, (0..12).collect::<Vec<u64>>());
    }
}

#[test]
fn what_qemu_reverses_is_turned_round() {
    let kinds = "{\"name\": \"blocking\", \"unit\": \"boolean\", \"exponent\": 0, \
                  \"type\": \"instant\"}, \
                 {\"name\": \"wait_hist\", \"unit\": \"seconds\", \"base\": 10, \
                  \"exponent\": -9, \"type\": \"log2-histogram\"}, \
                 {\"name\": \"size\", \"unit\": \"bytes\", \"base\": 2, \"exponent\": 10, \
                  \"bucket-size\": 5, \"type\": \"linear-histogram\"}, \
                 {\"name\": \"exits\", \"exponent\": 0, \"type\": \"cumulative\"}";
    let of = |exits: &str| {
        stats(&[
            ("blocking", "true"),
            ("wait_hist", "[4, 3, 2, 1]"),
            ("size", "9"),
            ("exits", exits),
        ])
    };
    let vcpus = format!(
        "[{}, {}]",
        object("kvm", "/cpu[b]", &of("18446744073709551615")),
        object("kvm", "/cpu[a]", &of("7"))
    );
    let found = heard(&schema("kvm", "vcpu", kinds), &[&vcpus]).unwrap();

    let plain = |name, offset| Desc::counter(name, offset);
    let want = Schema::new(
        "kvm",
        Target::Vcpu,
        vec![
            plain("exits", 0),
            Desc {
                stat_type: StatType::LinearHistogram,
                unit: Unit::Bytes,
                scale: Scale { base: Base::Two, exponent: 10 },
                bucket_size: 5,
                ..plain("size", 8)
            },
            Desc {
                stat_type: StatType::Log2Histogram,
                unit: Unit::Seconds,
                scale: Scale::NANO,
                size: 4,
                ..plain("wait_hist", 16)
            },
            Desc { stat_type: StatType::Instant, unit: Unit::Boolean, ..plain("blocking", 48) },
        ],
    );
    let paths: Vec<_> = found.iter().map(|(object, _)| (&*object.path, object.index)).collect();
    assert_eq!(paths, [("/cpu[a]", Some(0)), ("/cpu[b]", Some(1))]);
    assert_eq!(found[0].1, [7, 9, 1, 2, 3, 4, 1]);
    assert_eq!(found[1].1, [u64::MAX, 9, 1, 2, 3, 4, 1]);
    assert_eq!(found[0].0.schema, want);
    assert!(Arc::ptr_eq(&found[0].0.schema, &found[1].0.schema), "equal ones are one");
}

#[test]
fn what_a_later_qemu_adds_is_shown() {
    let kinds = "{\"name\": \"power\", \"type\": \"moving-average\", \"unit\": \"joules\", \
                  \"base\": 8, \"exponent\": 2, \"new\": {\"a\": [1]}}, \
                 {\"name\": \"plain\", \"type\": \"instant\", \"base\": \"two\", \"exponent\": 1}";
    let of =
        |value| format!("{{\"provider\": \"xyz\", \"stats\": [{}], \"new\": 1}}", stats(value));
    let disks = format!("[{}, {}]", of(&[("plain", "2")]), of(&[("power", "1"), ("else", "5")]));
    let found = heard(&schema("xyz", "disk", kinds), &[&disks]).unwrap();
    let paths: Vec<_> = found.iter().map(|(object, words)| (&*object.path, &words[..])).collect();
    assert_eq!(paths, [("/xyz/disk[0]", &[1][..]), ("/xyz/disk[1]", &[2])]);
    let schema = &found[0].0.schema;
    assert_eq!((schema.provider(), schema.target().name()), ("xyz", "disk"));
    let odd = Scale { base: Base::Unknown(15), exponent: 2 };
    let desc = Desc {
        stat_type: StatType::Unknown(15),
        unit: Unit::Unknown(15),
        scale: odd,
        ..Desc::counter("power", 0)
    };
    assert_eq!(schema.descs(), [desc]);
    assert_eq!(found[1].0.schema.descs()[0].scale.base, Base::Unknown(15));
}

#[test]
fn only_what_a_word_can_hold_is_a_value() {
    for (value, want) in [
        ("18446744073709551615", Some(u64::MAX)),
        ("false", Some(0)),
        ("true", Some(1)),
        ("[5]", Some(5)),
        ("18446744073709551616", None),
        ("-1", None),
        ("1.5", None),
        ("null", None),
        ("\"7\"", None),
        ("{\"a\": {\"b\": [1]}}", None),
        ("[]", None),
        ("[1, -1]", None),
        ("[1, [2]]", None),
    ] {
        let one = object("kvm", "/cpu[a]", &stats(&[("x", value), ("y", "3")]));
        let found = heard(&schema("kvm", "vcpu", &counters(&["x", "y"])), &[&format!("[{one}]")]);
        let (object, words) = found.unwrap().remove(0);
        let shown: Vec<_> = names(&object.schema).into_iter().zip(words).collect();
        let want: Vec<_> = [("y", 3)].into_iter().chain(want.map(|word| ("x", word))).collect();
        assert_eq!(shown, want, "{value}");
    }
}

#[test]
fn objects_have_only_what_they_have() {
    let all = counters(&["d", "c", "b", "a"]);
    let of = |path, values: &[(&str, &str)]| object("cryptodev", path, &stats(values));
    let devices = [
        of("/objects/none", &[]),
        of("/objects/low2", &[("b", "4"), ("a", "3")]),
        of("/objects/all", &[("d", "8"), ("c", "7"), ("b", "6"), ("a", "5")]),
        of("/objects/low1", &[("b", "2"), ("a", "1")]),
    ];
    let devices = format!("[{}]", devices.join(","));
    let found = heard(&schema("cryptodev", "cryptodev", &all), &[&devices]).unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|(object, words)| (&*object.path, names(&object.schema).join(""), &words[..]))
        .collect();
    assert_eq!(
        shown,
        [
            ("/objects/low1", "ab".to_owned(), &[1, 2][..]),
            ("/objects/all", "abcd".to_owned(), &[5, 6, 7, 8]),
            ("/objects/low2", "ab".to_owned(), &[3, 4]),
            ("/objects/none", String::new(), &[]),
        ]
    );
    assert!(Arc::ptr_eq(&found[0].0.schema, &found[2].0.schema), "equal ones are one");
    assert!(found.iter().all(|(object, _)| object.index.is_none()));
}

#[test]
fn statistics_of_one_name_are_told_apart_by_their_order() {
    let kinds = counters(&["dup", "x", "dup"]);
    let one =
        object("kvm", "/cpu[a]", &stats(&[("dup", "30"), ("x", "2"), ("dup", "1"), ("dup", "9")]));
    let found = heard(&schema("kvm", "vcpu", &kinds), &[&format!("[{one}]")]).unwrap();
    assert_eq!(names(&found[0].0.schema), ["dup", "x", "dup"]);
    // Turned round there are 9, 1, and one too many.
    assert_eq!(found[0].1, [9, 2, 1]);
}

#[test]
fn histograms_are_as_long_as_the_longest() {
    let kinds = "{\"name\": \"h\", \"exponent\": 0, \"type\": \"log2-histogram\"}";
    let of = |a, b| {
        let [a, b] = [("/cpu[a]", a), ("/cpu[b]", b)]
            .map(|(path, list)| object("kvm", path, &stats(&[("h", list)])));
        format!("[{b}, {a}]")
    };
    let rounds = [of("[2, 1]", "7"), of("3", "[3, 2, 1]"), of("[5, 4]", "[]")];
    let rounds: Vec<&str> = rounds.iter().map(|round| &**round).collect();
    let schema = schema("kvm", "vcpu", kinds);
    let words = |rounds: &[&str]| {
        let found = heard(&schema, rounds).unwrap();
        found.into_iter().map(|(object, words)| (object.key, words)).collect::<Vec<_>>()
    };
    let first = words(&rounds[..1]);
    assert_eq!(first, [(0, vec![1, 2]), (1, vec![7, 0])]);
    let second = words(&rounds[..2]);
    assert_eq!(second, [(2, vec![3, 0, 0]), (3, vec![1, 2, 3])], "other schemas, other keys");
    // A list of no bucket is no value.
    assert_eq!(words(&rounds), [(2, vec![4, 5, 0]), (4, vec![])]);
}

#[test]
fn a_linear_histogram_without_a_width_is_left_out() {
    let kinds = "{\"name\": \"h\", \"exponent\": 0, \"type\": \"linear-histogram\", \
                  \"bucket-size\": 0}";
    let one = object("kvm", "/cpu[a]", &stats(&[("h", "[2, 1]")]));
    let found = heard(&schema("kvm", "vcpu", kinds), &[&format!("[{one}]")]).unwrap();
    assert!(found[0].1.is_empty());
}

#[test]
fn what_has_no_path_gets_one() {
    let kinds = counters(&["x"]);
    let none = format!("{{\"provider\": \"kvm\", \"stats\": [{}]}}", stats(&[("x", "1")]));
    let vms = format!("[{none}, {none}]");
    let of = |name: &str| {
        let name = format!("{{\"name\": {name}}}");
        let results = [&name, &*schema("kvm", "vm", &kinds), "[]", &vms];
        let found = replay(&recording(&results), QmpShare::All).unwrap();
        found.into_iter().map(|(object, _)| String::from(object.path)).collect::<Vec<_>>()
    };
    assert_eq!(of("\"web\""), ["/vm/web", "/kvm/vm[1]"]);
    assert_eq!(of("\"a/b\\u001b[2J\"")[0], "/vm/a_b\u{1b}[2J");
    assert_eq!(of("null")[0], "/vm/qemu");
    assert_eq!(of("\"\"")[0], "/vm/qemu");
    assert_eq!(of(&format!("\"{}\"", "ü".repeat(1000)))[0], format!("/vm/{}", "ü".repeat(128)));
}

#[test]
fn two_objects_of_one_path_are_one() {
    let one = |value| object("kvm", "/cpu[a]", &stats(&[("x", value)]));
    let vcpus = format!("[{}, {}]", one("2"), one("1"));
    let found = heard(&schema("kvm", "vcpu", &counters(&["x"])), &[&vcpus]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1, [1]);
}

#[test]
fn beside_kvm_its_vcpus_are_left_out() {
    let kinds = counters(&["x"]);
    let schemas = [("kvm", "vcpu"), ("new", "vcpu"), ("kvm", "vm"), ("cryptodev", "cryptodev")];
    let schemas = schemas.map(|(provider, target)| schema(provider, target, &kinds));
    let schemas = schemas.map(|one| one[1..one.len() - 1].to_owned()).join(", ");
    let vm = format!("[{{\"provider\": \"kvm\", \"stats\": [{}]}}]", stats(&[("x", "1")]));
    let vcpu = |provider| object(provider, "/cpu[a]", &stats(&[("x", "2")]));
    let vcpus = format!("[{}, {}]", vcpu("new"), vcpu("kvm"));
    let results = ["{}", &format!("[{schemas}]"), CPUS, &vm, &vcpus, "[]"];
    let found = |share| {
        let found = replay(&recording(&results), share).unwrap().into_iter();
        let object = |object: Object| (object.schema.provider().to_owned(), object.path.into());
        found.map(|(found, _)| object(found)).collect::<Vec<(String, String)>>()
    };
    let [vm, new, kvm] = [("kvm", "/vm/qemu"), ("new", "/cpu[a]"), ("kvm", "/cpu[a]")]
        .map(|(provider, path)| (provider.to_owned(), path.to_owned()));
    assert_eq!(found(QmpShare::All), [vm.clone(), new.clone(), kvm]);
    assert_eq!(found(QmpShare::BesideKvm), [vm, new]);

    let mut table = Table::new(QmpShare::BesideKvm, "web");
    table.set_schemas(&serde_json::from_str::<Vec<_>>(&format!("[{schemas}]")).unwrap()).unwrap();
    let queries: Vec<_> = table.queries().into_iter().map(|query| query.arguments).collect();
    let only_new = "{\"providers\":[{\"provider\":\"new\"}],\"target\":\"vcpu\"}";
    assert_eq!(queries, ["{\"target\":\"vm\"}", only_new, "{\"target\":\"cryptodev\"}"]);
}

#[test]
fn each_limit_holds() {
    let kinds = counters(&["x"]);
    let one = |stats: &str| schema("kvm", "vcpu", stats);
    let many = |item: &dyn Fn(usize) -> String, count: usize| {
        format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(","))
    };
    let group =
        |at: usize| format!("{{\"provider\": \"p{at}\", \"stats\": [], \"target\": \"vm\"}}");
    let with_path =
        |bytes: usize| format!("[{}]", object("kvm", &"a".repeat(bytes), &stats(&[("x", "1")])));
    let named = |bytes: usize| one(&counters(&[&"a".repeat(bytes)]));
    let name = MAX_NAME_BYTES as usize;
    let descs = |count: usize| one(&counters(&vec!["x"; count]));
    let empty = |at: usize| format!("{{\"provider\":\"kvm\",\"stats\":[],\"qom-path\":\"{at}\"}}");
    let (most, list) = (MAX_DESCS as usize, format!("[{}0]", "0,".repeat(MAX_BUCKETS - 1)));
    let lists = |count: usize| {
        let names = ["a", "b", "c"];
        let values = names.map(|name| (name, &*list));
        (one(&counters(&names)), format!("[{}]", object("kvm", "/o", &stats(&values[..count]))))
    };
    let heavy = |count: usize| {
        let value = |at: usize| if at == 0 { list.clone() } else { "1".to_owned() };
        let heavy = |at: usize| object("kvm", &format!("/{at}"), &stats(&[("x", &value(at))]));
        many(&heavy, count)
    };
    let (two, three) = (lists(2), lists(3));
    const { assert!(2 * MAX_BUCKETS * 8 < MAX_DATA_BYTES && 3 * MAX_BUCKETS * 8 > MAX_DATA_BYTES) };
    let heaviest = MAX_HELD_BYTES / (MAX_BUCKETS * 8 + 512);
    let vcpus = one(&kinds);
    for (what, schemas, stats, is_allowed) in [
        ("schemas", many(&group, MAX_SCHEMAS), "[]".to_owned(), true),
        ("schemas", many(&group, MAX_SCHEMAS + 1), "[]".to_owned(), false),
        ("statistics", descs(most), "[]".to_owned(), true),
        ("statistics", descs(most + 1), "[]".to_owned(), false),
        ("name", named(name - 1), "[]".to_owned(), true),
        ("name", named(name), "[]".to_owned(), false),
        ("path", vcpus.clone(), with_path(MAX_PATH_BYTES), true),
        ("path", vcpus.clone(), with_path(MAX_PATH_BYTES + 1), false),
        ("objects", vcpus.clone(), many(&empty, MAX_OBJECTS), true),
        ("objects", vcpus.clone(), many(&empty, MAX_OBJECTS + 1), false),
        ("data", two.0, two.1, true),
        ("data", three.0, three.1, false),
        ("all data", vcpus.clone(), heavy(heaviest), true),
        ("all data", vcpus, heavy(heaviest + 1), false),
    ] {
        let found = heard(&schemas, &[&stats]);
        match found {
            Ok(_) => assert!(is_allowed, "{what}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TooLarge, "{what}: {error}");
                assert!(!is_allowed, "{what}: {error}");
            }
        }
    }
}

#[test]
fn a_list_that_is_too_long_is_no_value() {
    let list = format!("[{}0]", "0,".repeat(MAX_BUCKETS));
    let one = object("kvm", "/cpu[a]", &stats(&[("x", &list)]));
    let found = heard(&schema("kvm", "vcpu", &counters(&["x"])), &[&format!("[{one}]")]).unwrap();
    assert!(found[0].1.is_empty());
}

#[test]
fn schemas_of_parts_count_too() {
    // Each object has another selection of statistics. One answer is too short for so many.
    let named: Vec<String> = (0..MAX_DESCS).map(|at| format!("n{at}")).collect();
    let names: Vec<&str> = named.iter().map(|name| &**name).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|&name| (name, "1")).collect();
    let but =
        |at: usize| object("p", &format!("/{at}"), &stats(&[&all[..at], &all[at + 1..]].concat()));
    let kinds = counters(&names);
    let [one, two] = ["one", "two"].map(|target| schema("p", target, &kinds));
    let schemas = format!("{}, {}", &one[..one.len() - 1], &two[1..]);
    let half = MAX_HELD_BYTES / (MAX_DESCS as usize * 128) / 2 + 1;
    let objects = |count| format!("[{}]", (0..count).map(but).collect::<Vec<_>>().join(","));
    let (few, many) = (objects(8), objects(half));
    assert!(many.len() < MAX_REPLY_BYTES);
    assert_eq!(heard(&schemas, &[&many, &few]).unwrap().len(), half + 8);
    let error = heard(&schemas, &[&many, &many]).unwrap_err();
    assert_eq!(error.to_string(), "QEMU's statistics take more than 67108864 bytes");
}

#[test]
fn a_new_vcpus_number_is_asked_for_at_once() {
    let x = stats(&[("x", "1")]);
    let (old, new) = (object("kvm", "/cpu[a]", &x), object("kvm", "/cpu[c]", &x));
    let (one, both) = (format!("[{old}]"), format!("[{new}, {old}]"));
    let vcpus = schema("kvm", "vcpu", &counters(&["x"]));
    let cpus = CPUS.replace("/cpu[b]", "/cpu[c]");
    let paths = |results: &[&str]| {
        let found = heard(&vcpus, results).unwrap().into_iter();
        found.map(|(object, _)| (object.path.into(), object.index)).collect::<Vec<(String, _)>>()
    };
    let [a, c] = [("/cpu[a]", 0), ("/cpu[c]", 1)].map(|(path, n)| (path.to_owned(), Some(n)));
    assert_eq!(paths(&[&one, &both]), std::slice::from_ref(&a), "not without its number");
    assert_eq!(paths(&[&one, &both, &vcpus, &cpus, &both]), [a, c]);
}

#[test]
fn events_are_passed_over() {
    let one = object("kvm", "/cpu[a]", &stats(&[("x", "1")]));
    let results = ["{}", &schema("kvm", "vcpu", &counters(&["x"])), CPUS, &format!("[{one}]")];
    let text = String::from_utf8(recording(&results)).unwrap();
    let event = "{\"timestamp\": {\"seconds\": 1}, \"event\": \"STOP\", \"data\": {\"id\": 7}}\r\n";
    let lines: Vec<&str> = text.lines().collect();
    let mixed = lines.join(&format!("\r\n{event}{event}"));
    let plain = replay(text.as_bytes(), QmpShare::All).unwrap();
    assert_eq!(plain.len(), 1);
    assert_eq!(replay(mixed.as_bytes(), QmpShare::All).unwrap(), plain);
}

#[test]
fn whoever_refuses_is_said_to() {
    let before = String::from_utf8(recording(&["{}"])).unwrap();
    for (class, desc, kind, words) in [
        ("CommandNotFound", "The command x has not been found", ErrorKind::Unsupported, "QEMU 7.1"),
        (
            "GenericError",
            "only after \\u001b initialization",
            ErrorKind::Io,
            "only after \u{fffd} init",
        ),
    ] {
        let error = format!("{{\"class\": \"{class}\", \"desc\": \"{desc}\"}}");
        let text = format!("{before}{{\"id\": 3, \"error\": {error}}}");
        let error = replay(text.as_bytes(), QmpShare::All).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn what_is_not_qmp_is_malformed() {
    let (greeting, error) = (GREETING.trim_end(), "{\"class\": \"a\", \"desc\": \"b\"}");
    let deep = format!("{greeting}{{\"return\": {}", "[".repeat(4096)) + &"]".repeat(4096) + "}";
    for text in [
        "hello",
        "{}",
        "{\"QMP\": 1",
        &format!("{greeting}{{\"return\": {{}}}}"),
        &format!("{greeting}{{\"return\": {{}}, \"id\": 2}}"),
        &format!("{greeting}{{\"return\": {{}}, \"id\": \"1\"}}"),
        &format!("{greeting}{{\"id\": 1}}"),
        &format!("{greeting}{{\"id\": 1, \"return\": {{}}, \"error\": {error}}}"),
        &format!("{greeting}{{\"id\": 1, \"return\": {{]}}"),
        &format!("{greeting}garbage"),
        &deep,
    ] {
        match replay(text.as_bytes(), QmpShare::All) {
            // Not whole.
            Ok(found) => assert!(found.is_empty() && text.ends_with('1'), "{text}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Malformed, "{text}: {error}"),
        }
    }
}

#[test]
fn a_recording_may_end_anywhere_and_say_anything() {
    let one = |value| object("kvm", "/cpu[a]", &stats(&[("x", value)]));
    let kinds = "{\"name\": \"x\", \"unit\": \"seconds\", \"base\": 10, \"exponent\": -9, \
                  \"type\": \"log2-histogram\"}";
    let (first, second) = (format!("[{}]", one("[2, 1]")), format!("[{}]", one("[3, 2, 1]")));
    let results = ["{\"name\": \"web\"}", &schema("kvm", "vcpu", kinds), CPUS, &first, &second];
    let whole = recording(&results);
    let mut found = HashSet::new();
    for end in 0..=whole.len() {
        let objects = replay(&whole[..end], QmpShare::All).unwrap();
        found.insert(objects.into_iter().map(|(_, words)| words).collect::<Vec<_>>());
    }
    assert_eq!(found, [vec![], vec![vec![1, 2]], vec![vec![1, 2, 3]]].into());
    let (mut refused, mut read) = (0, 0);
    for at in 0..whole.len() {
        for byte in *b"\"{}[]:,\\0-e\xff\0" {
            let mut changed = whole.clone();
            changed[at] = byte;
            match replay(&changed, QmpShare::All) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1000 && read > 1000, "{refused} refused, {read} read");
}
