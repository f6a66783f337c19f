//! Subscriptions of a provider in memory, with their threads: samples, losses and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use serde_json::Value as Json;
use vmstrobe_core::{
    Desc, Object, Order, Provider, ReadPlan, Registry, Result, RowState, Rows, Schema, Source,
    StatType, Target, Unit,
};

use super::*;
use crate::qmp::Config;
use crate::qmp::budget::Budget;
use crate::qmp::parse::parse;
use crate::qmp::value::Value;
use vmstrobe_core::json;

/// The longest wait for an event that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A provider of a variable number of vCPUs. Every word of a row is the number of times that its
/// source was read. The last vCPU of three or more cannot be read.
#[derive(Debug)]
pub(super) struct Numbers {
    schema: Arc<Schema>,
    pub(super) objects: AtomicU64,
    /// The number of open sources.
    sources: Arc<AtomicUsize>,
}

struct NumbersSource {
    rows: usize,
    reads: u64,
    sources: Arc<AtomicUsize>,
}

impl Numbers {
    /// Makes vCPUs with a counter, a boolean, and a histogram of so many buckets.
    pub(super) fn new(objects: u64, buckets: u16) -> Arc<Self> {
        let (boolean, log2) = (Unit::Boolean, StatType::Log2Histogram);
        let descs = vec![
            Desc::counter("reads", 0),
            Desc { unit: boolean, stat_type: StatType::Instant, ..Desc::counter("seen", 8) },
            Desc { size: buckets, stat_type: log2, ..Desc::counter("hist", 16) },
        ];
        let schema = Schema::new("numbers", Target::Vcpu, descs);
        Arc::new(Self { schema, objects: objects.into(), sources: Arc::default() })
    }

    pub(super) fn registry(self: &Arc<Self>) -> Registry {
        let registry = Registry::default();
        registry.add(Arc::clone(self) as Arc<dyn Provider>);
        registry
    }

    fn shared(self: &Arc<Self>) -> Shared {
        Shared::new(
            &self.registry(),
            Config { order: Order::Qemu, budget: Budget::new(), ..Config::default() },
        )
        .unwrap()
    }
}

impl Provider for Numbers {
    fn name(&self) -> &str {
        "numbers"
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(vec![Arc::clone(&self.schema)])
    }

    fn objects(&self) -> Result<Vec<Object>> {
        let object = |key| Object {
            path: format!("/n[{key}]").into(),
            index: Some(key as u32),
            schema: Arc::clone(&self.schema),
            key,
        };
        Ok((0..self.objects.load(SeqCst)).map(object).collect())
    }

    fn open(&self, objects: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        self.sources.fetch_add(1, SeqCst);
        let sources = Arc::clone(&self.sources);
        Ok(vec![Box::new(NumbersSource { rows: objects.len(), reads: 0, sources })])
    }
}

impl Source for NumbersSource {
    fn rows(&self) -> usize {
        self.rows
    }

    fn read(&mut self, rows: Rows<'_>) {
        self.reads += 1;
        rows.fill(|row, words| {
            words.fill(self.reads);
            if row < 2 { RowState::Good } else { RowState::Torn }
        });
    }
}

impl Drop for NumbersSource {
    fn drop(&mut self) {
        self.sources.fetch_sub(1, SeqCst);
    }
}

/// Subscribes with these arguments. Returns the text of the return value or of the error.
fn subscribe(
    streams: &mut Streams,
    shared: &Shared,
    arguments: &str,
) -> std::result::Result<String, String> {
    let Ok(Value::Dict(dict)) = parse(arguments.as_bytes()) else { panic!("{arguments}") };
    let mut out = Vec::new();
    let mut room = Room::new(&shared.budget.pools().reply_bytes);
    let done = streams.subscribe(shared, &dict, &mut room, &mut out);
    done.map(|()| String::from_utf8(out).unwrap()).map_err(|refusal| refusal.desc)
}

fn unsubscribe(streams: &mut Streams, arguments: &str) -> std::result::Result<(), String> {
    let Ok(Value::Dict(dict)) = parse(arguments.as_bytes()) else { panic!("{arguments}") };
    streams.unsubscribe(&dict).map_err(|refusal| refusal.desc)
}

/// Sleeps until something is due, as a connection's thread does. Returns the events of one look.
fn look(streams: &mut Streams) -> Vec<Json> {
    let due = streams.next_due().unwrap();
    thread::sleep(due.saturating_duration_since(Instant::now()));
    let mut out = Vec::new();
    let count = streams.write_events(&mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.is_empty() || text.ends_with("\r\n"));
    assert_eq!(text.lines().count() as u64, count);
    text.split_terminator("\r\n").map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Collects events until `is_enough` holds for all of them.
fn events(streams: &mut Streams, is_enough: impl Fn(&[Json]) -> bool) -> Vec<Json> {
    let (mut all, until) = (Vec::new(), Instant::now() + PATIENCE);
    while !is_enough(&all) {
        assert!(Instant::now() < until, "it does not come: {} events", all.len());
        all.extend(look(streams));
    }
    all
}

fn samples(event: &Json) -> &[Json] {
    event["data"]["samples"].as_array().unwrap()
}

/// Checks that samples and losses add up to the ticks until the last one of each event.
#[track_caller]
fn all_ticks_are_accounted_for(events: &[Json]) -> u64 {
    let (mut samples_so_far, mut lost_so_far, mut last) = (0, 0, 0);
    for event in events.iter().filter(|event| event["event"] == "STATS_SAMPLES") {
        lost_so_far += event["data"]["lost"].as_u64().unwrap();
        for sample in samples(event) {
            let tick = sample["tick"].as_u64().unwrap();
            assert!(tick > last, "{tick} comes after {last}");
            last = tick;
            samples_so_far += 1;
        }
        assert_eq!(samples_so_far + lost_so_far, last);
    }
    lost_so_far
}

#[test]
fn samples_come_in_batches_and_in_order() {
    let (numbers, mut streams) = (Numbers::new(3, 2), Streams::default());
    let shared = numbers.shared();
    assert_eq!(streams.next_due(), None);
    let ask = r#"{"target": "vcpu", "rate": 1000, "batch": 20}"#;
    let reply = subscribe(&mut streams, &shared, ask).unwrap();
    let head = concat!(
        r#"{"groups": [{"provider": "numbers", "stats": ["#,
        r#"{"name": "reads", "exponent": 0, "type": "cumulative"}, "#,
        r#"{"name": "seen", "unit": "boolean", "exponent": 0, "type": "instant"}, "#,
        r#"{"name": "hist", "exponent": 0, "type": "log2-histogram"}], "#,
        r#""objects": ["/n[0]", "/n[1]", "/n[2]"], "target": "vcpu"}], "#,
        r#""batch": 20, "subscription": 1, "generation": 1, "rate": 1000}"#,
    );
    assert_eq!(reply, head);

    let (mut all, mut looks, begin) = (Vec::new(), 0, Instant::now());
    while all.len() < 10 {
        all.extend(look(&mut streams));
        looks += 1;
    }
    // There is one look for each batch, and more on a busy machine, where a look may come too
    // early. Samples are due each millisecond, so the number of further looks follows the lateness.
    let late_ms = begin.elapsed().as_millis().saturating_sub(20 * all.len() as u128);
    let most = 10 * all.len() as u128 + late_ms;
    assert!(looks <= most, "{looks} looks for {} events, {late_ms} ms late", all.len());
    all_ticks_are_accounted_for(&all);
    let mut end_ns = 0;
    for event in &all {
        assert_eq!(event["event"], "STATS_SAMPLES");
        assert_eq!(event["data"]["subscription"], 1);
        assert_eq!(event["data"]["generation"], 1);
        assert_eq!(samples(event).len(), 20);
        for sample in samples(event) {
            let reads = &sample["values"][0][0];
            let row = serde_json::json!([reads, true, [reads, reads]]);
            assert_eq!(sample["values"], serde_json::json!([row, row, null]));
            assert!(sample["begin-ns"].as_u64().unwrap() > end_ns);
            end_ns = sample["end-ns"].as_u64().unwrap();
        }
        let wall_ns = event["data"]["wall-offset-ns"].as_i64().unwrap() + end_ns as i64;
        let written_s = event["timestamp"]["seconds"].as_i64().unwrap();
        assert!((wall_ns / 1_000_000_000 - written_s).abs() <= 5, "{event}");
    }
}

#[test]
fn names_are_chosen_as_for_query_stats() {
    let (numbers, mut streams) = (Numbers::new(3, 2), Streams::default());
    let shared = numbers.shared();
    let ask = concat!(
        r#"{"target": "vcpu", "rate": 500, "batch": 1, "vcpus": ["/n[1]"], "providers": ["#,
        r#"{"provider": "numbers", "names": ["seen"]}, "#,
        r#"{"provider": "numbers", "names": ["reads", "nope"]}]}"#,
    );
    let reply: Json =
        serde_json::from_str(&subscribe(&mut streams, &shared, ask).unwrap()).unwrap();
    assert_eq!(reply["groups"][0]["objects"], serde_json::json!(["/n[1]"]));
    assert_eq!(reply["groups"][0]["stats"].as_array().unwrap().len(), 2);
    let first = &events(&mut streams, |all| !all.is_empty())[0];
    assert_eq!(samples(first)[0]["values"], serde_json::json!([[1, true]]));

    for nothing in [r#""providers": []"#, r#""vcpus": []"#] {
        let ask = format!(r#"{{"target": "vcpu", "rate": 1000, {nothing}}}"#);
        let reply = subscribe(&mut streams, &shared, &ask).unwrap();
        assert!(reply.starts_with(r#"{"groups": [], "#), "{reply}");
    }
}

/// The queue of large samples is 17 deep, and is not looked into for 100 ticks.
#[test]
fn a_slow_client_loses_samples_and_each_is_counted() {
    let (numbers, mut streams) = (Numbers::new(1, 60_000), Streams::default());
    let shared = numbers.shared();
    let ask = r#"{"target": "vcpu", "rate": 1000, "batch": 5}"#;
    subscribe(&mut streams, &shared, ask).unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(100));
        all.extend(events(&mut streams, |all| all.len() >= 6));
    }
    let lost = all_ticks_are_accounted_for(&all);
    assert!(lost >= 100, "only {lost} were lost");
}

#[test]
fn what_comes_and_goes_is_told_before_its_samples() {
    let (numbers, mut streams) = (Numbers::new(1, 1), Streams::default());
    let shared = numbers.shared();
    let ask = r#"{"target": "vcpu", "rate": 1000, "batch": 30}"#;
    subscribe(&mut streams, &shared, ask).unwrap();
    let objects = |event: &Json| event["event"] == "STATS_OBJECTS";
    for count in [2, 0, 1] {
        numbers.objects.store(count, SeqCst);
        // Every change is reported, and samples continue if there are objects.
        let all = events(&mut streams, |all| {
            all.iter().position(objects).is_some_and(|at| count == 0 || at + 2 < all.len())
        });
        let at = all.iter().position(objects).unwrap();
        let generation = all[at]["data"]["generation"].as_u64().unwrap();
        let paths: Vec<_> = (0..count).map(|n| format!("/n[{n}]")).collect();
        let groups = &all[at]["data"]["groups"];
        match count {
            0 => assert_eq!(*groups, serde_json::json!([])),
            _ => assert_eq!(groups[0]["objects"], serde_json::json!(paths)),
        }
        for event in &all[..at] {
            assert_eq!(event["data"]["generation"], generation - 1);
        }
        for event in &all[at + 1..] {
            assert_eq!(event["data"]["generation"], generation);
            for sample in samples(event) {
                assert_eq!(sample["values"].as_array().unwrap().len() as u64, count);
            }
        }
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let (numbers, mut streams) = (Numbers::new(1, 1), Streams::default());
    let shared = numbers.shared();
    let rate = "Parameter 'rate' expects a number of Hz from 1 to 1000000";
    let batch = "Parameter 'batch' expects a number of samples from 1 to 10000";
    for (ask, want) in [
        (r#"{"rate": 1}"#, "Parameter 'target' is missing"),
        (r#"{"target": "vm"}"#, "Parameter 'rate' is missing"),
        (r#"{"target": "vm", "rate": 0}"#, rate),
        (r#"{"target": "vm", "rate": 1000001}"#, rate),
        (r#"{"target": "vm", "rate": -9223372036854775808}"#, rate),
        (
            r#"{"target": "vm", "rate": 1.0}"#,
            "Invalid parameter type for 'rate', expected: integer",
        ),
        (r#"{"target": "vm", "rate": 1, "batch": 0}"#, batch),
        (r#"{"target": "vm", "rate": 1, "batch": 10001}"#, batch),
        (r#"{"target": "vm", "rate": 1, "vcpus": []}"#, "Parameter 'vcpus' is unexpected"),
        (r#"{"target": "vm", "rate": 1, "x": 1}"#, "Parameter 'x' is unexpected"),
    ] {
        assert_eq!(subscribe(&mut streams, &shared, ask), Err(want.to_owned()), "{ask}");
    }
    let unknown =
        "Parameter 'subscription' expects the number of a subscription of this connection";
    for (ask, want) in [
        (r"{}", "Parameter 'subscription' is missing"),
        (r#"{"subscription": 1}"#, unknown),
        (r#"{"subscription": -1}"#, unknown),
        (
            r#"{"subscription": "1"}"#,
            "Invalid parameter type for 'subscription', expected: integer",
        ),
        (r#"{"subscription": 1, "x": 1}"#, "Parameter 'x' is unexpected"),
    ] {
        assert_eq!(unsubscribe(&mut streams, ask), Err(want.to_owned()), "{ask}");
    }
    assert_eq!(streams.next_due(), None);
}

#[test]
fn the_highest_rate_and_batch_are_taken() {
    let (numbers, mut streams) = (Numbers::new(0, 1), Streams::default());
    let shared = numbers.shared();
    let ask = r#"{"target": "vcpu", "rate": 1000000, "batch": 10000}"#;
    let reply = subscribe(&mut streams, &shared, ask).unwrap();
    assert!(reply.ends_with(r#""rate": 1000000}"#), "{reply}");
    assert_eq!([1, 9, 10, 1000, 1_000_000].map(default_batch), [1, 1, 1, 100, MAX_BATCH_SAMPLES]);
}

#[test]
fn a_connection_and_a_server_have_so_many_subscriptions() {
    let shared = Numbers::new(1, 1).shared();
    let ask = r#"{"target": "vcpu", "rate": 1}"#;
    let mut connections: Vec<Streams> = Vec::new();
    for _ in 0..MAX_SERVER_SUBSCRIPTIONS / MAX_SUBSCRIPTIONS {
        let mut streams = Streams::default();
        for _ in 0..MAX_SUBSCRIPTIONS {
            subscribe(&mut streams, &shared, ask).unwrap();
        }
        let error = subscribe(&mut streams, &shared, ask).unwrap_err();
        assert!(error.starts_with("this connection has 8 subscriptions"), "{error}");
        connections.push(streams);
    }
    let mut another = Streams::default();
    let error = subscribe(&mut another, &shared, ask).unwrap_err();
    assert!(error.starts_with("this server has 32 subscriptions"), "{error}");
    // Neither a refused request nor an ended subscription keeps a lease.
    unsubscribe(&mut connections[0], r#"{"subscription": 3}"#).unwrap();
    subscribe(&mut another, &shared, r#"{"target": "vcpu"}"#).unwrap_err();
    subscribe(&mut another, &shared, ask).unwrap();
    subscribe(&mut another, &shared, ask).unwrap_err();
    drop(connections);
    assert_eq!(shared.subscriptions.left(), MAX_SERVER_SUBSCRIPTIONS - 1);
}

#[test]
fn an_ended_subscription_is_silent_and_its_number_is_not_given_again() {
    let (numbers, mut streams) = (Numbers::new(1, 1), Streams::default());
    let shared = numbers.shared();
    let ask = r#"{"target": "vcpu", "rate": 1000, "batch": 2}"#;
    subscribe(&mut streams, &shared, ask).unwrap();
    subscribe(&mut streams, &shared, ask).unwrap();
    let of = |all: &[Json], number: u64| all.iter().any(|e| e["data"]["subscription"] == number);
    events(&mut streams, |all| of(all, 1) && of(all, 2));
    thread::sleep(Duration::from_millis(10));
    unsubscribe(&mut streams, r#"{"subscription": 2}"#).unwrap();
    let all = events(&mut streams, |all| all.len() > 10);
    assert!(of(&all, 1) && !of(&all, 2));
    unsubscribe(&mut streams, r#"{"subscription": 2}"#).unwrap_err();
    let reply = subscribe(&mut streams, &shared, ask).unwrap();
    assert!(reply.contains(r#""subscription": 3, "#), "{reply}");
}

#[test]
fn threads_and_sources_end_with_the_connection() {
    let (numbers, mut streams) = (Numbers::new(2, 1), Streams::default());
    let shared = numbers.shared();
    for rate in [1, 1, 1, 1, 1000] {
        let ask = format!(r#"{{"target": "vcpu", "rate": {rate}}}"#);
        subscribe(&mut streams, &shared, &ask).unwrap();
    }
    assert_eq!(numbers.sources.load(SeqCst), 5);
    let begin = Instant::now();
    drop(streams);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(numbers.sources.load(SeqCst), 0);
    assert_eq!(shared.subscriptions.left(), MAX_SERVER_SUBSCRIPTIONS);
}

/// Tests that parsing a line and writing it in QEMU's order changes nothing.
#[test]
fn keys_stand_in_qemus_order() {
    let (numbers, mut streams) = (Numbers::new(3, 2), Streams::default());
    let shared = numbers.shared();
    let ask = r#"{"target": "vcpu", "rate": 1000, "batch": 3}"#;
    let mut lines = vec![subscribe(&mut streams, &shared, ask).unwrap()];
    let until = Instant::now() + PATIENCE;
    while !lines.iter().any(|line| line.contains("STATS_OBJECTS")) {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(20));
        let mut out = Vec::new();
        streams.write_events(&mut out);
        let text = String::from_utf8(out).unwrap();
        lines.extend(text.split_terminator("\r\n").map(str::to_owned));
        numbers.objects.store(2, SeqCst);
    }
    for line in &lines {
        assert_eq!(json::text(&parse(line.as_bytes()).unwrap()), *line);
    }
    assert!(lines.iter().any(|line| line.contains("STATS_SAMPLES")));
}
