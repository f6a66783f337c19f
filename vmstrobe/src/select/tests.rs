//! Selections from made-up schemas and objects.

use vmstrobe_core::Desc;

use super::*;

const KNOWN: [&str; 5] = ["exits", "irq_exits", "halt_exits", "halt_wait_ns", "blocking"];

fn object(provider: &str, target: &str) -> Object {
    let schema = Schema::new(provider, Target::from_name(target), Vec::new());
    Object { path: "/a".into(), index: None, schema, key: 0 }
}

#[test]
fn vcpus_are_meant_or_else_the_only_target_there_is() {
    let own = (OWN_PROVIDER, vmstrobe_sampler::TARGET);
    for (objects, provider, want) in [
        (&[("kvm", "vm"), ("kvm", "vcpu"), ("xyz", "queue")][..], None, Ok("vcpu")),
        (&[("kvm", "vm"), ("kvm", "vcpu"), ("xyz", "queue")], Some("kvm"), Ok("vcpu")),
        (&[("kvm", "vcpu"), ("xyz", "queue"), ("xyz", "queue")], Some("xyz"), Ok("queue")),
        (&[("cryptodev", "cryptodev")], None, Ok("cryptodev")),
        (&[], None, Ok("vcpu")),
        (&[], Some(OWN_PROVIDER), Ok(own.1)),
        (
            &[("xyz", "queue"), ("cryptodev", "cryptodev"), ("xyz", "disk")],
            None,
            Err("no vCPUs here, but objects of target cryptodev, disk and queue: select one"),
        ),
        (&[("xyz", "queue"), ("xyz", "disk")], Some("xyz"), Err("disk and queue: select one")),
    ] {
        let objects: Vec<Object> =
            objects.iter().chain([&own]).map(|(name, target)| object(name, target)).collect();
        match (default_target(&objects, &[], provider), want) {
            (Ok(target), Ok(want)) => assert_eq!(target.name(), want),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
            (got, want) => panic!("{got:?} is not {want:?}"),
        }
    }
    // A QEMU can have crypto devices before it has any.
    let could = [object("cryptodev", "cryptodev").schema];
    let target = default_target(&[], &could, Some("cryptodev")).map_err(|e| e.to_string());
    assert_eq!(target, Ok(Target::Cryptodev));
}

#[test]
fn the_error_says_what_there_is_instead() {
    let vcpus = object("kvm", "vcpu").schema;
    let queues = object("xyz", "queue").schema;
    let text = |target: &str, provider, known: &[&Arc<Schema>]| {
        let (target, known) = (Target::from_name(target), known.iter().copied());
        nothing_of(&target, provider, known, Some(BpfStatus::Off), Vec::new()).to_string()
    };
    let none = text("vm", None, &[&vcpus]);
    assert!(none.ends_with("which needs none, cannot be used: switched off"), "{none}");
    for (target, provider, of) in [("vm", None, ""), ("vm", Some("xyz"), " of provider 'xyz'")] {
        let want = format!("there are no objects of target '{target}'{of} here, only of queue");
        assert_eq!(text(target, provider, &[&queues, &queues]), want);
    }
    let want = "there are no objects of target 'disk' of provider 'abc' here";
    assert_eq!(text("disk", Some("abc"), &[&queues]), want);
    assert!(text("disk", None, &[&vcpus, &queues]).ends_with("only of queue and vcpu"));
    let own = object(OWN_PROVIDER, vmstrobe_sampler::TARGET).schema;
    assert!(text("vcpu", None, &[&own]).starts_with("no source has objects"));
}

#[test]
fn a_filter_selects_something_or_is_refused() {
    let descs = KNOWN.iter().zip(0..).map(|(name, i)| Desc::counter(name, 8 * i)).collect();
    let schema = Schema::new("kvm", Target::Vcpu, descs);
    let check = |names: &str| {
        let names = Names::parse(names).expect(names);
        let unknown = check_names(Some(&names), &[Arc::clone(&schema)]);
        unknown.map(|names| names.len()).map_err(|error| error.to_string())
    };
    assert_eq!((check("exits"), check("exits,nope")), (Ok(0), Ok(1)));
    let none = "no statistic named 'nope'; no statistic matches 'zzz*'";
    assert_eq!(check("nope,zzz*"), Err(none.to_owned()));
    assert_eq!(check("exits,-exits"), Err("no statistic is selected".to_owned()));
}

#[test]
fn an_unknown_vcpu_is_an_error_with_those_that_there_are() {
    let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
    let object = Object { path: "/vm/a/vcpu[0]".into(), index: Some(0), schema, key: 0 };
    let check = |vcpu: &str| {
        let vcpus = Some([VcpuRef::parse(vcpu)].into_iter().collect());
        let filter = Filter { vcpus, ..Filter::all(Target::Vcpu) };
        check_vcpus(&filter, std::slice::from_ref(&object))
    };
    assert!(check("0").is_ok() && check("/vm/a/vcpu[0]").is_ok());
    let text = check("7").expect_err("there is none").to_string();
    assert_eq!(text, "there is no vCPU 7, only /vm/a/vcpu[0]");
    assert!(check("/vm/b").is_err());
}
