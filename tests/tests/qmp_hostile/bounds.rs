//! The replies to such clients: each gets an error or the end of its connection, and no more.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use vmstrobe_tests::rig::wait_for;
use vmstrobe_tests::wire::{Wire, probe};

use super::harm::{ALL, NEGOTIATE};
use crate::{Footprint, Target, status};

/// The longest time for which a client that does not read is served.
const DROP_LIMIT: Duration = Duration::from_secs(15);
/// The most requests of one who does not read.
const REQUESTS_MAX: usize = 1_000_000;
/// The most queries that a connection keeps ready, each with the most entries.
const QUERIES: usize = 16;
const ENTRIES: usize = 64;
/// The most descriptors that a source has.
const SOURCE_DESCRIPTORS: usize = 2;
/// The memory that a few streams take, at least.
const STREAMS_BYTES_MIN: u64 = 40 << 20;
/// The most memory that a server with streams may ever have had.
const STREAMS_BYTES_MAX: u64 = 256 << 20;
/// A number of clients beyond the server's limit.
const CROWD: usize = 200;

/// Sends that, then a good request; gives what came before the reply to the latter.
#[track_caller]
fn refused(client: &mut Wire, bytes: &[u8]) -> Vec<Json> {
    client.send(bytes).expect("the server reads it");
    client.send(&probe(1)).expect("the server reads on");
    let lines = client.lines_before(1).expect("the good request is answered");
    let errors = lines.iter().map(|line| serde_json::from_slice(line).expect("replies are JSON"));
    errors.collect()
}

#[track_caller]
fn is_refused_and_the_next_answered(name: &str, bytes: &[u8]) {
    let Some(target) = Target::start(name) else { return };
    let mut client = target.connect();
    let errors = refused(&mut client, bytes);
    assert!(!errors.is_empty(), "there is no message about it");
    for error in &errors {
        assert_eq!(error["error"]["class"], "GenericError", "{error}");
    }
    drop(client);
    target.is_well();
}

#[test]
fn a_string_of_100_mb_is_refused() {
    let mut text = b"{\"execute\": \"".to_vec();
    text.resize(100 << 20, b'x');
    text.extend_from_slice(b"\"}");
    is_refused_and_the_next_answered("long", &text);
}

#[test]
fn nested_lists_are_refused() {
    let text = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    is_refused_and_the_next_answered("deep", &text);
}

/// A client that reads no replies is stopped by its own full socket, and then dropped.
#[test]
fn a_client_that_does_not_read_is_dropped_and_counted() {
    let Some(mut target) = Target::start("million") else { return };
    let mut stream = UnixStream::connect(target.serve.socket()).expect("the server listens");
    stream.set_write_timeout(Some(DROP_LIMIT)).expect("a socket has time limits");
    stream.write_all(NEGOTIATE).expect("the server reads");
    let (begin, mut sent) = (Instant::now(), 0);
    let thousand = ALL.repeat(1000);
    let error = loop {
        if let Err(error) = stream.write_all(&thousand) {
            break error;
        }
        sent += 1000;
        assert!(sent < REQUESTS_MAX, "{sent} requests were taken and none of the replies");
    };
    let thrown_out =
        matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
    assert!(thrown_out, "{error} after {sent} requests and {:?}", begin.elapsed());
    target.is_well();
    let pid = Pid::from_raw(target.serve.pid().cast_signed()).expect("a pid is not 0");
    kill_process(pid, Signal::TERM).expect("the process has not been reaped");
    assert!(target.serve.wait_within(DROP_LIMIT).is_some(), "the process ends in time");
    let said = target.serve.said();
    assert!(said.contains("dropped 1 that did not read"), "{said}");
}

/// Clients beyond the limit get an error and are disconnected. New ones are served again once
/// others have gone.
#[test]
fn clients_beyond_the_limit_are_disconnected() {
    let Some(target) = Target::start("sent-away") else { return };
    let mut first = target.connect();
    let connect = || {
        let stream = UnixStream::connect(target.serve.socket()).expect("the server listens");
        stream.set_read_timeout(Some(DROP_LIMIT)).expect("a socket has time limits");
        stream
    };
    let (mut served, mut refused) = (Vec::new(), 0);
    for _ in 0..CROWD {
        let mut stream = connect();
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("each gets an answer");
        if bytes[..count].starts_with(b"{\"QMP\": ") {
            served.push(stream);
        } else {
            assert_eq!(bytes[..count].iter().filter(|byte| **byte == b'\n').count(), 1);
            let error: Json = serde_json::from_slice(&bytes[..count]).expect("the reply is JSON");
            assert!(error["error"]["desc"].is_string(), "{error}");
            assert_eq!(stream.read(&mut bytes).expect("the connection has ended"), 0);
            refused += 1;
        }
    }
    assert!(served.len() >= 8 && refused > 0, "{} served, {refused} refused", served.len());
    assert!(status(&target.serve, "Threads") < CROWD as u64);
    assert!(first.ask(ALL).expect("the server answers").starts_with(b"{\"return\": [{"));
    drop((first, served));
    target.is_well();
}

/// The memory of streams goes back to the system when their clients have left: the C library alone
/// would keep it, and take more for the next.
#[test]
fn the_memory_of_streams_is_given_back() {
    const SUBSCRIBE: &[u8] = br#"{"execute": "stats-subscribe",
        "arguments": {"target": "vcpu", "rate": 1000, "batch": 1000}}"#;
    let Some(target) = Target::start("given-back") else { return };
    let memory = || status(&target.serve, "VmRSS") * 1024;
    let before = memory();
    let mut clients: Vec<Wire> = (0..2).map(|_| target.connect()).collect();
    for client in &mut clients {
        client.send(&SUBSCRIBE.repeat(8)).expect("the server reads");
        client.stream().set_nonblocking(true).expect("the descriptor is a socket");
    }
    let mut bytes = vec![0; 1 << 20];
    wait_for("the streams have filled their memory", DROP_LIMIT, || {
        // What is read is of no interest here, but who reads nothing is disconnected.
        let read = |client: &Wire, bytes: &mut [u8]| client.stream().read(bytes);
        clients.iter().for_each(|client| while matches!(read(client, &mut bytes), Ok(1..)) {});
        memory() > before + STREAMS_BYTES_MIN
    });
    drop(clients);
    wait_for("their memory is given back", DROP_LIMIT, || {
        memory() < before + STREAMS_BYTES_MIN / 2
    });
    target.is_well_within(STREAMS_BYTES_MAX);
}

/// Every request before the end is answered, however the bytes were cut.
#[test]
fn a_client_that_shuts_down_writing_gets_all_its_replies() {
    let Some(target) = Target::start("says-no-more") else { return };
    let mut client = Wire::connect(target.serve.socket()).expect("the server accepts the client");
    let conversation = [NEGOTIATE, &ALL.repeat(50)].concat();
    for byte in conversation.chunks(7) {
        client.send(byte).expect("the server reads");
    }
    client.stream().shutdown(Shutdown::Write).expect("the connection is open");
    let rest = client.rest(u64::MAX).expect("the server closes the connection");
    assert_eq!(rest.iter().filter(|byte| **byte == b'\n').count(), 51);
    target.is_well();
}

/// A query with as many entries of `providers` as can be, each of other names; its nonce makes it
/// one that is not known yet.
fn many_entries(nonce: usize) -> String {
    let names = ["exits", "halt_exits", "halt_wait_ns", "blocking"];
    let entry = |at: usize| {
        let name = names[(at + nonce) % names.len()];
        format!(r#"{{"provider": "kvm", "names": ["{name}", "x{nonce}.{at}"]}}"#)
    };
    let entries = (0..ENTRIES).map(entry).collect::<Vec<_>>().join(", ");
    let arguments = format!(r#""target": "vcpu", "providers": [{entries}]"#);
    format!(r#"{{"execute": "query-stats", "arguments": {{{arguments}}}}}"#)
}

/// A request is read by the sources of one entry, however many it has.
#[test]
fn entries_of_providers_take_no_descriptors_of_their_own() {
    let Some(target) = Target::start("entries") else { return };
    let mut clients: Vec<Wire> = (0..4).map(|_| target.connect()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        for query in 0..QUERIES {
            let request = many_entries(QUERIES * at + query);
            let reply = client.ask(request.as_bytes()).expect("the server answers");
            let reply: Json = serde_json::from_slice(&reply).expect("replies are JSON");
            let results = reply["return"].as_array().expect("the value is a list").len();
            assert_eq!(results % ENTRIES, 0, "each entry has a result for each vCPU");
        }
    }
    let taken = Footprint::of(&target.serve).descriptors - target.before.descriptors;
    let most = clients.len() * (1 + QUERIES * SOURCE_DESCRIPTORS);
    assert!(taken <= most, "{taken} descriptors for {} clients, not {most}", clients.len());
    drop(clients);
    target.is_well();
}
