//! No reply has an old value: an event between two queries is counted in the second.

use std::collections::BTreeMap;
use std::process;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use vmstrobe_guest::KnownGuest;
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::{own_kvm, show};
use vmstrobe_tests::serve::Serve;

use crate::observed;

/// The number of times that a value must differ between QEMU's reply before ours and that after.
const MOVED_MIN: usize = 100;
const LIMIT: Duration = Duration::from_secs(30);

/// The numbers by object and name.
type Numbers = BTreeMap<(String, String), u64>;

/// Returns the values of these statistics of all vCPUs.
fn cumulative(client: &mut Qmp, names: &Json) -> Numbers {
    let filter = json!({"target": "vcpu", "providers": [{"provider": "kvm", "names": names}]});
    let results = client.execute("query-stats", filter);
    let mut numbers = Numbers::new();
    for result in results.as_array().expect("the value is a list") {
        for stat in result["stats"].as_array().expect("the value is a list") {
            let text = |of: &Json| of.as_str().expect("a text").to_owned();
            let key = (text(&result["qom-path"]), text(&stat["name"]));
            numbers.insert(key, stat["value"].as_u64().expect("the value is an integer"));
        }
    }
    numbers
}

/// Returns the names of all cumulative statistics of a vCPU.
fn cumulative_names(client: &mut Qmp) -> Json {
    let schemas = client.execute("query-stats-schemas", json!({"provider": "kvm"}));
    let schemas = schemas.as_array().expect("the value is a list");
    let schema =
        schemas.iter().find(|schema| schema["target"] == "vcpu").expect("the entry exists");
    let stats = schema["stats"].as_array().expect("the value is a list").iter();
    stats.filter(|stat| stat["type"] == "cumulative").map(|stat| stat["name"].clone()).collect()
}

/// QEMU, our server and QEMU return the counters of a running guest one after the other: ours are
/// never below the first or above the second answer of QEMU.
#[test]
fn our_values_lie_between_those_of_qemu_before_and_after() {
    let Some(mut observed) = observed("between", &[]) else { return };
    let serve = observed.serve(0, &[]);
    let mut ours = Qmp::connect(serve.socket()).expect("the server accepts the client");
    let names = cumulative_names(&mut ours);
    let (begin, mut asked, mut moved) = (Instant::now(), 0, 0);
    while moved < MOVED_MIN {
        assert!(begin.elapsed() < LIMIT, "a guest at rest shows nothing: {moved} of {asked}");
        if asked % 100 == 0 {
            // A guest that starts is busy for a while. A guest whose start was cut short may have
            // stopped for good, and only the next reset helps.
            observed.qemu.execute("system_reset", Json::Null);
            observed.qemu.qmp().exchange(r#"{"execute": "cont"}"#).expect("QEMU answers");
        }
        let before = cumulative(observed.qemu.qmp(), &names);
        let between = cumulative(&mut ours, &names);
        let after = cumulative(observed.qemu.qmp(), &names);
        assert!(!before.is_empty() && before.len() == between.len());
        for (what, value) in &between {
            let (from, to) = (before[what], after[what]);
            assert!((from..=to).contains(value), "{what:?}: {value} is not in {from}..={to}");
        }
        asked += 1;
        moved += usize::from(before != after);
    }
    show(&format!("{asked} queries between two of QEMU's, {moved} while counters moved"));
}

/// A guest that makes a known number of exits between two queries.
#[test]
fn a_reply_has_exactly_the_exits_before_its_request() {
    const HALTS: u32 = 3;
    if !require_kvm() {
        return;
    }
    let guest = KnownGuest::new().expect("KVM can make a guest");
    // This process keeps the stats fds open, so that the server can duplicate them.
    let _kvm = own_kvm("known", guest.vm(), std::slice::from_ref(guest.vcpu()));
    let serve = Serve::start(&["-p", &process::id().to_string()]);
    let mut client = Qmp::connect(serve.socket()).expect("the server accepts the client");
    let mut read = || {
        let numbers = cumulative(&mut client, &json!(["exits", "halt_exits"]));
        let of = |name: &str| numbers.iter().find(|((_, known), _)| known == name);
        let number = |name: &str| *of(name).unwrap_or_else(|| panic!("{name}: {numbers:?}")).1;
        (number("halt_exits"), number("exits"))
    };
    let mut last = read();
    for i in 0..300 {
        guest.run(i, HALTS).expect("KVM runs the guest");
        let now = read();
        assert_eq!(now.0 - last.0, u64::from(HALTS), "{now:?} after {last:?}");
        assert!(now.1 - last.1 >= u64::from(i + HALTS), "{now:?} after {last:?}");
        last = now;
    }
    assert_eq!(read(), last, "the counters of a stopped guest do not change");
}
