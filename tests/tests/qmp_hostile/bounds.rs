//! What each of them gets: an error or the end of his connection, and no more than that.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use vmstrobe_tests::wire::{Wire, probe};

use super::harm::{ALL, NEGOTIATE};
use crate::{Target, status};

/// Nobody who does not read is served for longer.
const DROP_LIMIT: Duration = Duration::from_secs(15);
/// The most requests of one who does not read.
const REQUESTS_MAX: usize = 1_000_000;
/// More than the server lets in.
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
    assert!(!errors.is_empty(), "not a word about it");
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

/// However many he sends: he is stopped by his own socket being full, and dropped.
#[test]
fn who_does_not_read_is_dropped_and_counted() {
    let Some(mut target) = Target::start("million") else { return };
    let mut stream = UnixStream::connect(target.serve.socket()).expect("it listens");
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
    kill_process(pid, Signal::TERM).expect("it is ours");
    assert!(target.serve.wait_within(DROP_LIMIT).is_some(), "it does not end");
    let said = target.serve.said();
    assert!(said.contains("dropped 1, who did not read"), "{said}");
}

/// Those who come too late are told so; when the others have gone, they may.
#[test]
fn of_a_crowd_some_are_sent_away() {
    let Some(target) = Target::start("sent-away") else { return };
    let mut first = target.connect();
    let connect = || {
        let stream = UnixStream::connect(target.serve.socket()).expect("it listens");
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
            let error: Json = serde_json::from_slice(&bytes[..count]).expect("it is told why");
            assert!(error["error"]["desc"].is_string(), "{error}");
            assert_eq!(stream.read(&mut bytes).expect("it is over"), 0);
            refused += 1;
        }
    }
    assert!(served.len() >= 8 && refused > 0, "{} served, {refused} refused", served.len());
    assert!(status(&target.serve, "Threads") < CROWD as u64);
    assert!(first.ask(ALL).expect("it is answered").starts_with(b"{\"return\": [{"));
    drop((first, served));
    target.is_well();
}

/// Everything is answered that was asked before the end, however the bytes came.
#[test]
fn who_says_no_more_gets_all_his_replies() {
    let Some(target) = Target::start("says-no-more") else { return };
    let mut client = Wire::connect(target.serve.socket()).expect("it listens");
    let conversation = [NEGOTIATE, &ALL.repeat(50)].concat();
    for byte in conversation.chunks(7) {
        client.send(byte).expect("the server reads");
    }
    client.stream().shutdown(Shutdown::Write).expect("it is connected");
    let rest = client.rest(u64::MAX).expect("it ends");
    assert_eq!(rest.iter().filter(|byte| **byte == b'\n').count(), 51);
    target.is_well();
}
