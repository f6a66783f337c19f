//! A query that is repeated with another id allocates nothing but the reply's own bytes.

use std::sync::Arc;

use vmstrobe_core::{Order, Provider, Registry};
use vmstrobe_server::qmp::answers;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::farm;

use super::count::{Counted, alone, counted, take_part};

const VCPUS: usize = 4;
const NEGOTIATION: &[u8] = b"{\"execute\": \"qmp_capabilities\"}";

/// Returns `count` requests, each with an id of its own.
fn requests(count: usize) -> Vec<String> {
    let request = |id: usize| {
        let names = r#"{"provider": "kvm", "names": ["exits", "halt_exits"]}"#;
        let arguments = format!(r#"{{"target": "vcpu", "providers": [{names}]}}"#);
        format!(r#"{{"execute": "query-stats", "arguments": {arguments}, "id": "q-{id}"}}"#)
    };
    (0..count).map(request).collect()
}

/// Counts the allocations of a conversation of `count` queries, and checks that all replies arrive.
fn conversation(registry: &Registry, count: usize) -> Counted {
    let requests = requests(count);
    let pieces = [NEGOTIATION].into_iter().chain(requests.iter().map(String::as_bytes));
    take_part(true);
    let (replies, counted) = counted(|| answers(registry, Order::Schema, pieces));
    take_part(false);
    let replies = String::from_utf8(replies).expect("the text is ASCII");
    let last = format!(r#", "id": "q-{}"}}"#, count - 1);
    assert!(replies.trim_end().ends_with(&last), "{replies}");
    assert_eq!(replies.matches("qom-path").count(), VCPUS * count);
    counted
}

#[test]
fn a_query_that_is_asked_again_allocates_nothing() {
    if !require_kvm() {
        return;
    }
    let _alone = alone();
    let (_farm, kvm) = farm(VCPUS);
    let registry = Registry::default();
    registry.add(kvm as Arc<dyn Provider>);
    // At the first look, the registry gives each object its path.
    assert_eq!(registry.objects().expect("the provider lists its objects").len(), VCPUS + 1);
    let (some, many) = (conversation(&registry, 100), conversation(&registry, 10_000));
    assert!(some.allocated > 0, "the query has to be prepared once");
    let more = (many.allocated - some.allocated, many.freed - some.freed);
    assert_eq!(more, (0, 0), "{some:?}, {many:?}");
    // The replies are kept here, in memory that is doubled whenever it is full.
    assert!(many.reallocated - some.reallocated <= 7, "{some:?}, {many:?}");
}
