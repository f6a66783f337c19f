//! Conversations with a session over objects whose every value is the number of readings.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use vmstrobe_core::{
    Desc, Error, ErrorKind, Object, Order, Provider, ReadPlan, Registry, Result, RowState, Rows,
    Schema, Source, StatType, Target,
};

use super::*;
use crate::qmp::Config;
use crate::qmp::budget::{BUSY_HZ, Budget, LONG_REQUEST_BYTES};
use crate::qmp::filter::{MAX_NAMES, MAX_NAMES_BYTES, MAX_REQUESTS, MAX_VCPUS};
use crate::qmp::framer::lexer::MAX_NESTING;
use crate::qmp::parse::MAX_VALUES;
use crate::qmp::query::{
    MAX_KEPT_BYTES, MAX_KEPT_QUERIES, MAX_KEPT_REQUEST_BYTES, MAX_KEPT_SOURCES,
};

/// A provider whose objects have the number of readings so far in every word.
#[derive(Debug)]
struct Readings {
    schemas: Vec<Arc<Schema>>,
    objects: Mutex<Vec<(Object, RowState)>>,
    readings: Arc<AtomicU64>,
    is_busy: std::sync::atomic::AtomicBool,
}

struct Reading {
    states: Vec<RowState>,
    readings: Arc<AtomicU64>,
}

impl Source for Reading {
    fn rows(&self) -> usize {
        self.states.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let reading = self.readings.fetch_add(1, SeqCst) + 1;
        rows.fill_from(&self.states, |state, row| {
            row.fill(reading);
            *state
        });
    }
}

impl Provider for Readings {
    fn name(&self) -> &str {
        "readings"
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(self.schemas.clone())
    }

    fn objects(&self) -> Result<Vec<Object>> {
        Ok(self.objects.lock().unwrap().iter().map(|(object, _)| object.clone()).collect())
    }

    fn open(&self, objects: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        let known = self.objects.lock().unwrap();
        let state = |object: &Object| {
            known.iter().find(|(known, _)| known.key == object.key).map_or(RowState::Gone, |k| k.1)
        };
        let states = objects.iter().map(state).collect();
        Ok(vec![Box::new(Reading { states, readings: Arc::clone(&self.readings) })])
    }

    fn refresh(&self, _: &Target) -> Result<()> {
        if self.is_busy.load(SeqCst) {
            return Err(Error::new(ErrorKind::Busy, "it does not answer"));
        }
        Ok(())
    }
}

impl Readings {
    fn object(&self, schema: usize, at: u32) -> Object {
        let schema = Arc::clone(&self.schemas[schema]);
        let path = format!("/{}[{at}]", schema.target().name()).into();
        let key = u64::from(at) + 100 * schema.target().name().len() as u64;
        let index = (*schema.target() == Target::Vcpu).then_some(at);
        Object { path, index, schema, key }
    }

    fn set(&self, objects: &[(usize, u32, RowState)]) {
        let objects = objects.iter().map(|(schema, at, state)| (self.object(*schema, *at), *state));
        *self.objects.lock().unwrap() = objects.collect();
    }
}

/// Makes a registry of two vCPUs and a crypto device.
fn readings() -> (Registry, Arc<Readings>) {
    let hist =
        Desc { stat_type: StatType::Log2Histogram, size: 2, ..Desc::counter("wait_hist", 8) };
    let vcpu = vec![Desc::counter("exits", 0), hist, Desc::counter("halt_exits", 24)];
    let device = vec![Desc::counter("sym-encrypt-ops", 0), Desc::counter("sym-decrypt-ops", 8)];
    let schemas = vec![
        Schema::new("kvm", Target::Vcpu, vcpu),
        Schema::new("cryptodev", Target::Cryptodev, device),
    ];
    let (objects, readings) = (Mutex::default(), Arc::default());
    let provider = Arc::new(Readings { schemas, objects, readings, is_busy: false.into() });
    provider.set(&[(0, 0, RowState::Good), (0, 1, RowState::Good), (1, 0, RowState::Good)]);
    let registry = Registry::default();
    registry.add(Arc::clone(&provider) as Arc<dyn Provider>);
    (registry, provider)
}

/// Makes a conversation that has negotiated.
fn session(registry: &Registry, order: Order) -> Session {
    session_within(registry, order, &Budget::new())
}

/// Makes a conversation that has negotiated, with a given budget.
fn session_within(registry: &Registry, order: Order, budget: &Budget) -> Session {
    let shared =
        Shared::new(registry, Config { order, budget: budget.clone(), ..Config::default() })
            .unwrap();
    let mut session = Session::new(Arc::new(shared));
    assert_eq!(say(&mut session, r#"{"execute": "qmp_capabilities"}"#), [r#"{"return": {}}"#]);
    session
}

/// Returns the lines of all replies to a text.
fn say(session: &mut Session, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    session.push(text.as_bytes());
    while session.answer_next(&mut out) {}
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<String> = out.split("\r\n").map(str::to_owned).collect();
    assert_eq!(lines.last().map(String::as_str), Some(""), "a line end stands behind every reply");
    lines[..lines.len() - 1].to_vec()
}

fn one(session: &mut Session, text: &str) -> String {
    let replies = say(session, text);
    assert_eq!(replies.len(), 1, "{text}: {replies:?}");
    replies[0].clone()
}

fn stats(session: &mut Session, arguments: &str) -> String {
    one(session, &format!(r#"{{"execute": "query-stats", "arguments": {arguments}}}"#))
}

const EXITS: &str = r#"{"target": "vcpu", "providers": [{"provider": "kvm", "names": ["exits"]}]}"#;

fn exits_of_both(value: u64) -> String {
    let of = |at| {
        let stats = format!(r#"[{{"name": "exits", "value": {value}}}]"#);
        format!(r#"{{"provider": "kvm", "stats": {stats}, "qom-path": "/vcpu[{at}]"}}"#)
    };
    format!("[{}, {}]", of(0), of(1))
}

#[test]
fn capabilities_come_first_and_once() {
    let (registry, _) = readings();
    let shared = Arc::new(
        Shared::new(
            &registry,
            Config { order: Order::Schema, budget: Budget::new(), ..Config::default() },
        )
        .unwrap(),
    );
    let mut session = Session::new(Arc::clone(&shared));
    let expecting = concat!(
        r#""error": {"class": "CommandNotFound", "desc": "#,
        r#""Expecting capabilities negotiation with 'qmp_capabilities'"}}"#,
    );
    let bad = r#"{"error": {"class": "GenericError", "desc": "#;
    for (request, want) in [
        (r#"{"execute": "query-version"}"#, format!("{{{expecting}")),
        (r#"{"execute": "nonsense", "id": [1]}"#, format!(r#"{{"id": [1], {expecting}"#)),
        (
            r#"{"exec-oob": "qmp_capabilities"}"#,
            format!(r#"{bad}"QMP input member 'exec-oob' is unexpected"}}}}"#),
        ),
        (
            r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob", "foo"]}}"#,
            format!(r#"{bad}"Parameter 'null' does not accept value 'foo'"}}}}"#),
        ),
        (
            r#"{"execute": "qmp_capabilities", "arguments": {"enable": [1]}}"#,
            format!(r#"{bad}"Invalid parameter type for 'enable[0]', expected: string"}}}}"#),
        ),
        (
            r#"{"execute": "qmp_capabilities", "arguments": {"x": 1}}"#,
            format!(r#"{bad}"Parameter 'x' is unexpected"}}}}"#),
        ),
        (
            r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}, "id": 0}"#,
            r#"{"return": {}, "id": 0}"#.to_owned(),
        ),
        (
            r#"{"execute": "qmp_capabilities"}"#,
            concat!(
                r#"{"error": {"class": "CommandNotFound", "desc": "#,
                r#""Capabilities negotiation is already complete, command ignored"}}"#,
            )
            .to_owned(),
        ),
        (
            r#"{"exec-oob": "query-stats", "arguments": {"target": "vm"}, "id": 1}"#,
            concat!(
                r#"{"id": 1, "error": {"class": "GenericError", "desc": "#,
                r#""The command query-stats does not support OOB"}}"#,
            )
            .to_owned(),
        ),
    ] {
        assert_eq!(one(&mut session, request), want, "{request}");
    }
}

#[test]
fn every_text_has_one_reply_in_order() {
    let (registry, _) = readings();
    let mut session = session(&registry, Order::Schema);
    let text = concat!(
        r#"{"execute": "query-stats", "arguments": {"target": "vm"}, "id": 1} "#,
        r#"{"execute": "quit", "id": "two"}"#,
        r#"{"execute": "nope"} {"id": 01}"#,
        "\n",
        r#"{"execute": "query-version", "id": {"b": 1, "a": [true, null]}}"#,
    );
    let replies = say(&mut session, text);
    assert_eq!(replies[0], r#"{"return": [], "id": 1}"#);
    assert!(replies[1].starts_with(r#"{"id": "two", "error": {"class": "GenericError""#));
    assert!(replies[2].contains(r#""CommandNotFound", "desc": "The command nope has not been"#));
    assert!(
        replies[3].contains(r#""GenericError", "desc": "JSON parse error, "#),
        "{}",
        replies[3]
    );
    let version = replies.last().unwrap();
    assert!(version.contains(r#""package": "vmstrobe "#), "{version}");
    assert!(version.ends_with(r#", "id": {"a": [true, null], "b": 1}}"#), "{version}");
}

#[test]
fn an_id_is_echoed_unless_it_is_long() {
    let (registry, _) = readings();
    let mut session = session(&registry, Order::Schema);
    let mut ask = |command: &str, id: &str| {
        one(&mut session, &format!(r#"{{"execute": "{command}", "id": "{id}"}}"#))
    };
    let id = "\u{7f}".repeat(MAX_ID_BYTES - 100);
    assert!(ask("query-version", &id).ends_with(r#"\u007F\u007F"}"#));
    let want = error(&format!("QMP input member 'id' has more than {MAX_ID_BYTES} bytes"));
    for command in ["query-version", "nope"] {
        assert_eq!(ask(command, &"x".repeat(MAX_ID_BYTES)), want);
    }
    assert!(ask("query-version", "1").ends_with(r#""id": "1"}"#));
    // The request has the deepest allowed nesting.
    let levels = MAX_NESTING - 1;
    let id = r#"{"a": "#.repeat(levels) + "0" + &"}".repeat(levels);
    let request = format!(r#"{{"execute": "query-version", "id": {id}}}"#);
    assert!(one(&mut session, &request).ends_with(&format!(r#""id": {id}}}"#)));
}

/// This holds also for a kept query, recognised by its bytes or its arguments.
#[test]
fn values_are_read_when_they_are_asked_for() {
    let (registry, provider) = readings();
    let mut session = session(&registry, Order::Schema);
    let request =
        |id: &str| format!(r#"{{"execute": "query-stats", "arguments": {EXITS}, "id": {id}}}"#);
    for (nth, id) in (1..).zip(["1", "2", r#""x""#, "[3]", "4", "-5", "5"]) {
        let want = format!(r#"{{"return": {}, "id": {id}}}"#, exits_of_both(nth));
        assert_eq!(one(&mut session, &request(id)), want);
        assert_eq!(provider.readings.load(SeqCst), nth, "nothing else was read");
    }
    // The request uses QEMU's extensions of JSON, twice.
    for nth in [8, 9] {
        let dialect = request("5").replace('"', "'");
        let want = format!(r#"{{"return": {}, "id": 5}}"#, exits_of_both(nth));
        assert_eq!(one(&mut session, &dialect), want);
    }
    // The requests have no id, come in several pieces, and many at once.
    assert_eq!(stats(&mut session, EXITS), format!(r#"{{"return": {}}}"#, exits_of_both(10)));
    let text = request("9");
    let replies: Vec<String> = text
        .as_bytes()
        .chunks(7)
        .flat_map(|c| say(&mut session, str::from_utf8(c).unwrap()))
        .collect();
    assert_eq!(replies, [format!(r#"{{"return": {}, "id": 9}}"#, exits_of_both(11))]);
    let replies =
        say(&mut session, &(12..32).map(|id| request(&id.to_string())).collect::<String>());
    for (reply, nth) in replies.iter().zip(12..32) {
        assert_eq!(*reply, format!(r#"{{"return": {}, "id": {nth}}}"#, exits_of_both(nth)));
    }
    assert_eq!(replies.len(), 20);
}

#[test]
fn filters_want_what_qemu_understands() {
    let (registry, _) = readings();
    let mut session = session(&registry, Order::Schema);
    // Returns the numbers of objects and of statistics in a reply.
    for (arguments, want) in [
        (r#"{"target": "vcpu"}"#, (2, 6)),
        (r#"{"target": "vm"}"#, (0, 0)),
        (r#"{"target": "cryptodev"}"#, (1, 2)),
        (r#"{"target": "vcpu", "providers": []}"#, (0, 0)),
        (r#"{"target": "vcpu", "providers": [{"provider": "cryptodev"}]}"#, (0, 0)),
        (r#"{"target": "vcpu", "providers": [{"provider": "kvm", "names": []}]}"#, (0, 0)),
        (r#"{"target": "vcpu", "providers": [{"provider": "kvm", "names": ["x"]}]}"#, (0, 0)),
        (r#"{"target": "vcpu", "providers": [{"provider": "kvm", "names": ["*"]}]}"#, (0, 0)),
        (
            concat!(
                r#"{"target": "vcpu", "providers": [{"provider": "kvm", "#,
                r#""names": ["x", "exits"]}, {"provider": "kvm"}]}"#,
            ),
            (4, 8),
        ),
        (r#"{"target": "vcpu", "vcpus": []}"#, (0, 0)),
        (r#"{"target": "vcpu", "vcpus": ["/vcpu[1]", "/vcpu[1]", "1", "nope"]}"#, (1, 3)),
        (
            concat!(
                r#"{"target": "cryptodev", "providers": [{"provider": "cryptodev", "#,
                r#""names": ["sym-encrypt-ops"]}]}"#,
            ),
            (1, 1),
        ),
    ] {
        let reply = stats(&mut session, arguments);
        let found = (reply.matches("qom-path").count(), reply.matches(r#""name""#).count());
        assert_eq!(found, want, "{arguments}: {reply}");
    }
    for (arguments, want) in [
        (r#"{}"#, "Parameter 'target' is missing"),
        (
            r#"{"target": "bad", "providers": 1, "x": 1}"#,
            "Parameter 'target' does not accept value 'bad'",
        ),
        (
            r#"{"target": "vm", "providers": 1, "x": 1}"#,
            "Invalid parameter type for 'providers', expected: array",
        ),
        (r#"{"target": "vm", "vcpus": []}"#, "Parameter 'vcpus' is unexpected"),
        (
            r#"{"target": "vm", "providers": [{"provider": "bad"}]}"#,
            "Parameter 'provider' does not accept value 'bad'",
        ),
        (
            concat!(
                r#"{"target": "vm", "providers": [{"provider": "kvm"}, "#,
                r#"{"provider": "kvm", "names": ["a", 1]}]}"#,
            ),
            "Invalid parameter type for 'providers[1].names[1]', expected: string",
        ),
        (
            r#"{"target": "vm", "providers": [{"provider": "kvm", "x": 1}], "y": 1}"#,
            "Parameter 'providers[0].x' is unexpected",
        ),
        (
            r#"{"target": "vcpu", "vcpus": [1], "y": 1}"#,
            "Invalid parameter type for 'vcpus[0]', expected: string",
        ),
    ] {
        let want = format!(r#"{{"error": {{"class": "GenericError", "desc": "{want}"}}}}"#);
        assert_eq!(stats(&mut session, arguments), want, "{arguments}");
    }
}

#[test]
fn qemus_order_is_the_other_way_round() {
    let (registry, _) = readings();
    let mut session = session(&registry, Order::Qemu);
    let want = concat!(
        r#"{"return": [{"provider": "kvm", "stats": [{"name": "halt_exits", "value": 1}, "#,
        r#"{"name": "wait_hist", "value": [1, 1]}], "qom-path": "/vcpu[0]"}, "#,
        r#"{"provider": "kvm", "stats": [{"name": "exits", "value": 1}], "#,
        r#""qom-path": "/vcpu[0]"}]}"#,
    );
    let arguments = concat!(
        r#"{"target": "vcpu", "vcpus": ["/vcpu[0]"], "providers": [{"provider": "kvm", "#,
        r#""names": ["exits"]}, {"provider": "kvm", "names": ["wait_hist", "halt_exits"]}]}"#,
    );
    assert_eq!(stats(&mut session, arguments), want);
    let reply = stats(&mut session, r#"{"target": "vcpu"}"#);
    assert!(reply.find("/vcpu[1]") < reply.find("/vcpu[0]"), "{reply}");
    // Crypto devices ignore names.
    let arguments =
        r#"{"target": "cryptodev", "providers": [{"provider": "cryptodev", "names": ["x"]}]}"#;
    let reply = stats(&mut session, arguments);
    assert!(reply.find("sym-decrypt-ops") < reply.find("sym-encrypt-ops"), "{reply}");
    let reply = one(&mut session, r#"{"execute": "query-stats-schemas"}"#);
    let (kvm, crypto) = (reply.find(r#""target": "vcpu""#), reply.find(r#""target": "cryptodev""#));
    assert!(kvm.is_some() && kvm < crypto, "{reply}");
    assert!(reply.find("halt_exits") < reply.find("wait_hist"), "{reply}");
}

#[test]
fn schemas_are_those_of_the_provider_that_is_asked_for() {
    let (registry, provider) = readings();
    // This happens if one process is read by two methods.
    registry.add(provider as Arc<dyn Provider>);
    let mut session = session(&registry, Order::Schema);
    let mut schemas = |arguments: &str| {
        let request = format!(r#"{{"execute": "query-stats-schemas", "arguments": {arguments}}}"#);
        one(&mut session, &request).matches(r#""target""#).count()
    };
    assert_eq!(schemas("{}"), 2, "each once");
    assert_eq!(schemas(r#"{"provider": "kvm"}"#), 1);
    assert_eq!(schemas(r#"{"provider": "bad"}"#), 0);
    assert_eq!(schemas(r#"{"provider": null}"#), 0);
}

#[test]
fn what_cannot_be_read_is_left_out_and_nothing_at_all_is_an_error() {
    let (registry, provider) = readings();
    for (states, want) in [
        ([RowState::Good, RowState::Gone], (1, None)),
        ([RowState::Good, RowState::Io(5)], (1, None)),
        ([RowState::Gone, RowState::Gone], (0, None)),
        ([RowState::Gone, RowState::Io(5)], (0, Some("/vcpu[1] could not be read: Input/output"))),
        ([RowState::Torn, RowState::Gone], (0, Some("/vcpu[0] kept changing"))),
        (
            [RowState::Stale, RowState::Aged(90)],
            (0, Some("/vcpu[1]: its source has stopped answering")),
        ),
    ] {
        provider.set(&[(0, 0, states[0]), (0, 1, states[1])]);
        let mut session = session(&registry, Order::Schema);
        let reply = stats(&mut session, EXITS);
        let is_unread = |state: &&RowState| !matches!(state, RowState::Good | RowState::Gone);
        let unread = states.iter().filter(is_unread).count() as u64;
        assert_eq!(session.state.shared.counts.counts().unread_rows, unread, "{states:?}");
        let error = want.1.is_none_or(|why| reply.contains(&format!(r#""desc": "{why}"#)));
        assert!(error && reply.contains(r#""error""#) == want.1.is_some(), "{states:?}: {reply}");
        assert_eq!(reply.matches("qom-path").count(), want.0, "{states:?}: {reply}");
    }
    provider.set(&[(0, 0, RowState::Good)]);
    provider.is_busy.store(true, SeqCst);
    let mut session = session(&registry, Order::Schema);
    for _ in 0..2 {
        let reply = stats(&mut session, EXITS);
        assert_eq!(reply, r#"{"error": {"class": "GenericError", "desc": "it does not answer"}}"#);
    }
}

#[test]
fn objects_that_come_and_go_are_found() {
    let (registry, provider) = readings();
    let mut session = session(&registry, Order::Schema);
    let mut paths = || stats(&mut session, EXITS).matches("qom-path").count();
    assert_eq!(paths(), 2);
    for (objects, want) in [(3, 3), (0, 0), (1, 1)] {
        let objects: Vec<_> = (0..objects).map(|at| (0, at, RowState::Good)).collect();
        provider.set(&objects);
        let deadline = Instant::now() + Duration::from_secs(10);
        while paths() != want {
            assert!(Instant::now() < deadline, "{want} objects are not seen");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn error(desc: &str) -> String {
    format!(r#"{{"error": {{"class": "GenericError", "desc": "{desc}"}}}}"#)
}

/// Returns `providers` with so many entries, each with a known name of its own and an unknown one.
fn entries(count: usize, nonce: usize) -> String {
    let names = ["exits", "wait_hist", "halt_exits"];
    let entry = |at: usize| {
        let name = names[(at + nonce) % names.len()];
        format!(r#"{{"provider": "kvm", "names": ["{name}", "x{nonce}.{at}"]}}"#)
    };
    (0..count).map(entry).collect::<Vec<_>>().join(", ")
}

#[test]
fn all_entries_of_a_request_are_read_at_once() {
    for order in [Order::Schema, Order::Qemu] {
        let (registry, provider) = readings();
        let mut session = session(&registry, order);
        for nth in 1..=3 {
            let entries = entries(MAX_REQUESTS, 0);
            let ask = format!(r#"{{"target": "vcpu", "providers": [{entries}]}}"#);
            let reply = stats(&mut session, &ask);
            assert_eq!(reply.matches("qom-path").count(), 2 * MAX_REQUESTS);
            assert_eq!(provider.readings.load(SeqCst), nth, "by one source");
        }
        let pools = session.state.shared.budget.pools();
        assert_eq!(pools.sources.max() - pools.sources.left(), 1);
    }
}

#[test]
fn lists_in_a_request_are_limited() {
    let (registry, _) = readings();
    let mut session = session(&registry, Order::Schema);
    let list = |count: usize| {
        let items: Vec<String> = (0..count).map(|at| format!("\"{at}\"")).collect();
        format!("[{}]", items.join(","))
    };
    let none = r#"{"return": []}"#;
    let mut vcpus =
        |list: &str| stats(&mut session, &format!(r#"{{"target": "vcpu", "vcpus": {list}}}"#));
    assert_eq!(vcpus(&list(MAX_VCPUS)), none);
    let want = error(&format!("Parameter 'vcpus' has more than {MAX_VCPUS} paths"));
    assert_eq!(vcpus(&list(MAX_VCPUS + 1)), want);
    // Each path counts once.
    let same = vec!["\"/a\""; MAX_VALUES - 10].join(",");
    assert_eq!(vcpus(&format!("[{same}]")), none);
    let half = MAX_NAMES / 2;
    let mut names = |one: usize, other: usize| {
        let entry = |count| format!(r#"{{"provider": "kvm", "names": {}}}"#, list(count));
        let entries = format!("{}, {}", entry(one), entry(other));
        stats(&mut session, &format!(r#"{{"target": "vcpu", "providers": [{entries}]}}"#))
    };
    assert_eq!(names(half, half), none);
    let want = error(&format!("Parameter 'providers' has more than {MAX_NAMES} names"));
    assert_eq!(names(half, half + 1), want);
    assert_eq!(names(MAX_NAMES + 1, 0), want);
    let mut long = |bytes: usize| {
        let name = "x".repeat(bytes);
        let entries = format!(r#"{{"provider": "kvm", "names": ["{name}"]}}"#);
        stats(&mut session, &format!(r#"{{"target": "vcpu", "providers": [{entries}]}}"#))
    };
    assert_eq!(long(MAX_NAMES_BYTES), none);
    let want =
        error(&format!("Parameter 'providers' has names of more than {MAX_NAMES_BYTES} bytes"));
    assert_eq!(long(MAX_NAMES_BYTES + 1), want);
    let many = format!("[{}]", vec!["0"; MAX_VALUES].join(","));
    assert_eq!(one(&mut session, &many), error("JSON token count limit exceeded"));
}

#[test]
fn a_connection_keeps_so_much_and_no_more() {
    let (registry, _) = readings();
    let mut session = session(&registry, Order::Schema);
    for nth in 0..3 * MAX_KEPT_QUERIES {
        stats(&mut session, &format!(r#"{{"target": "vcpu", "vcpus": ["{nth}"]}}"#));
    }
    assert_eq!(session.state.queries.kept(), MAX_KEPT_QUERIES);
    // A long request is answered, and its query is not kept.
    let kept = |session: &mut Session, bytes: usize| {
        let long = "x".repeat(bytes);
        stats(session, &format!(r#"{{"target": "vcpu", "vcpus": ["/vcpu[0]", "{long}"]}}"#));
        session.state.queries.kept()
    };
    assert_eq!(kept(&mut session, MAX_KEPT_REQUEST_BYTES), MAX_KEPT_QUERIES - 1);
    assert_eq!(kept(&mut session, MAX_KEPT_REQUEST_BYTES - 200), MAX_KEPT_QUERIES);
}

#[test]
fn what_a_connection_keeps_is_counted() {
    let (registry, budget) = (histogram(60_000), Budget::new());
    let mut session = session_within(&registry, Order::Schema, &budget);
    let pool = &budget.pools().query_bytes;
    for nth in 0..MAX_KEPT_QUERIES {
        let vcpus = format!(r#""vcpus": ["/vcpu[0]", "{nth}"]"#);
        assert!(stats(&mut session, &format!(r#"{{"target": "vcpu", {vcpus}}}"#)).len() > 1 << 20);
        let taken = pool.max() - pool.left();
        assert!(taken <= MAX_KEPT_BYTES, "{taken} bytes for {nth} queries");
    }
    // Each has more than a ninth of the limit: 60000 words of 8 bytes.
    assert_eq!(session.state.queries.kept(), 8);
    drop(session);
    assert_eq!(pool.left(), pool.max());
}

#[test]
fn a_connection_keeps_so_many_sources_and_no_more() {
    let registry = Registry::default();
    for _ in 0..MAX_KEPT_SOURCES / 3 {
        let (_, provider) = readings();
        registry.add(provider as Arc<dyn Provider>);
    }
    // Each query takes a third of the limit.
    let mut session = session(&registry, Order::Schema);
    for nth in 0..5 {
        let entries = entries(1, nth);
        stats(&mut session, &format!(r#"{{"target": "vcpu", "providers": [{entries}]}}"#));
    }
    assert_eq!(session.state.queries.kept(), 3);
}

/// There are 8 sources. While 4 of them are open, a further query is closed after its answer.
#[test]
fn what_others_need_is_given_back_and_everybody_is_answered() {
    let (registry, _) = readings();
    let budget = Budget::of(Some(64), 1);
    let sources = &budget.pools().sources;
    assert_eq!(sources.max(), 8);
    let mut hogs: Vec<Session> =
        (0..3).map(|_| session_within(&registry, Order::Schema, &budget)).collect();
    for nth in 0..10 {
        for hog in &mut hogs {
            let entries = entries(2, nth);
            let ask = format!(r#"{{"target": "vcpu", "providers": [{entries}]}}"#);
            assert_eq!(stats(hog, &ask).matches("qom-path").count(), 4);
            assert!(sources.left() >= 4, "half of them are for others");
        }
    }
    assert_eq!(sources.left(), 4);
    let mut another = session_within(&registry, Order::Schema, &budget);
    for _ in 0..3 {
        assert_eq!(stats(&mut another, EXITS).matches("qom-path").count(), 2);
    }
    assert_eq!(another.state.queries.kept(), 0);
    // Nothing is kept any more, so the query is accepted.
    drop(hogs);
    stats(&mut another, EXITS);
    assert_eq!((another.state.queries.kept(), sources.left()), (1, 7));
    // A request that finds nothing left gets an error, and kept queries are still answered.
    let _all = sources.take(7).unwrap();
    let reply = stats(&mut another, r#"{"target": "cryptodev"}"#);
    let want = "queries may have 8 sources open in all, and this one needs 1, and other clients \
                hold too many: ask again, or for less";
    assert_eq!(reply, error(want));
    assert_eq!(stats(&mut another, EXITS).matches("qom-path").count(), 2);
}

/// Makes a registry of one vCPU with a histogram of so many buckets.
fn histogram(size: u16) -> Registry {
    let words = Desc { stat_type: StatType::Log2Histogram, size, ..Desc::counter("h", 0) };
    let schemas = vec![Schema::new("kvm", Target::Vcpu, vec![words])];
    let (objects, readings) = (Mutex::default(), Arc::new(AtomicU64::new(u64::MAX / 2)));
    let provider = Arc::new(Readings { schemas, objects, readings, is_busy: false.into() });
    provider.set(&[(0, 0, RowState::Good)]);
    let registry = Registry::default();
    registry.add(provider as Arc<dyn Provider>);
    registry
}

#[test]
fn replies_of_all_clients_share_what_there_is() {
    let registry = histogram(60_000);
    let budget = Budget::new();
    let bytes = &budget.pools().reply_bytes;
    let mut session = session_within(&registry, Order::Schema, &budget);
    let ask = r#"{"target": "vcpu"}"#;
    assert!(stats(&mut session, ask).len() > 1 << 20);
    let taken = bytes.max() - bytes.left();
    assert!(taken > 900_000, "{taken}");
    let others = bytes.take(bytes.left()).unwrap();
    let mut another = session_within(&registry, Order::Schema, &budget);
    let refused = stats(&mut another, ask);
    assert!(refused.contains("does not fit now: ask again"), "{refused}");
    assert!(!stats(&mut another, r#"{"target": "vm"}"#).contains("error"), "a little is free");
    drop(others);
    assert!(stats(&mut another, ask).len() > 1 << 20);
}

#[test]
fn large_texts_wait_for_each_other_and_long_ones_for_few() {
    let (registry, _) = readings();
    let budget = Budget::new();
    let pools = budget.pools();
    let mut session = session_within(&registry, Order::Schema, &budget);
    let text = |bytes: usize| format!(r#"{{"execute": "{}"}}"#, "x".repeat(bytes));
    let other = pools.large_texts.take(pools.large_texts.max()).unwrap();
    assert!(one(&mut session, &text(LARGE_TEXT_BYTES / 2)).contains("CommandNotFound"));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| one(&mut session, &text(LARGE_TEXT_BYTES)));
        thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished(), "another is being answered");
        drop(other);
        assert!(waiting.join().unwrap().contains("CommandNotFound"));
    });
    // The text is received in pieces.
    let (text, mut out) = (text(4 * LONG_REQUEST_BYTES), Vec::new());
    let mut push = |session: &mut Session, bytes: &str| {
        session.make_room(&mut out);
        session.push(bytes.as_bytes());
        while session.answer_next(&mut out) {}
        String::from_utf8(std::mem::take(&mut out)).unwrap()
    };
    let (start, end) = text.split_at(2 * LONG_REQUEST_BYTES);
    assert_eq!(push(&mut session, start), "");
    assert_eq!(push(&mut session, &end[..10]), "");
    assert_eq!(pools.long_requests.max() - pools.long_requests.left(), 1);
    assert!(push(&mut session, &end[10..]).contains("CommandNotFound"));
    assert!(push(&mut session, " ").is_empty());
    assert_eq!(pools.long_requests.max(), pools.long_requests.left());
    let _others = pools.long_requests.take(pools.long_requests.max()).unwrap();
    assert_eq!(push(&mut session, start), "");
    let refused = push(&mut session, end);
    assert!(refused.contains("are being received, the most at a time"), "{refused}");
    assert_eq!(refused.lines().count(), 1, "the rest of it is not taken for a request");
    assert!(push(&mut session, r#"{"execute": "query-version"}"#).contains("return"));
}

#[test]
fn streams_take_no_more_than_half_of_the_cpus() {
    let (registry, _) = readings();
    let (budget, third) = (Budget::of(None, 2), BUSY_HZ / 3);
    let subscribe = |session: &mut Session, rate: usize| {
        let arguments = format!(r#"{{"target": "vcpu", "rate": {rate}}}"#);
        one(session, &format!(r#"{{"execute": "stats-subscribe", "arguments": {arguments}}}"#))
    };
    // The servers share the budget: one gets what the other leaves.
    let [mut one, mut other] = [(); 2].map(|()| session_within(&registry, Order::Schema, &budget));
    assert!(subscribe(&mut one, 2 * third).contains("return"));
    assert!(subscribe(&mut other, third).contains("return"));
    let refused = subscribe(&mut other, third);
    let limit = format!("all streams may take {BUSY_HZ} samples a second");
    assert!(refused.contains(&limit) && refused.contains("and 2 are left"), "{refused}");
    drop(one);
    // The fastest counts as one that keeps a CPU busy.
    assert!(!subscribe(&mut other, 1_000_000).contains("return"));
    drop(other);
    let mut alone = session_within(&registry, Order::Schema, &budget);
    assert!(subscribe(&mut alone, 1_000_000).contains("return"));
    assert!(!subscribe(&mut alone, 1).contains("return"));
}

#[test]
fn a_reply_and_its_parts_are_limited() {
    let registry = histogram(u16::MAX);
    let mut session = session(&registry, Order::Schema);
    let mut ask = |entries: usize| {
        let entries = vec![r#"{"provider": "kvm"}"#; entries].join(", ");
        stats(&mut session, &format!(r#"{{"target": "vcpu", "providers": [{entries}]}}"#))
    };
    assert_eq!(ask(3).matches("qom-path").count(), 3);
    let error = r#"{"error": {"class": "GenericError", "desc": "#;
    let limit = crate::qmp::cost::MAX_REPLY_BYTES;
    let want =
        format!(r#"{error}"the reply would have more than {limit} bytes: ask for less"}}}}"#);
    assert_eq!(ask(MAX_REQUESTS), want);
    let text = format!("Parameter 'providers' has more than {MAX_REQUESTS} entries");
    assert_eq!(ask(MAX_REQUESTS + 1), format!(r#"{error}"{text}"}}}}"#));
}

#[test]
fn what_qemu_can_do_beyond_statistics_is_refused() {
    let (registry, _) = readings();
    let mut session = session(&registry, Order::Schema);
    let reply = one(&mut session, r#"{"execute": "quit"}"#);
    assert!(reply.contains("GenericError") && reply.contains("to leave, disconnect"), "{reply}");
    let reply = one(&mut session, r#"{"execute": "stop"}"#);
    assert!(reply.contains(r#""CommandNotFound", "desc": "The command stop has not"#), "{reply}");
    for command in introspect::COMMANDS {
        let reply = one(&mut session, &format!(r#"{{"execute": "{command}"}}"#));
        assert!(!reply.contains("has not been found"), "{reply}");
    }
}
