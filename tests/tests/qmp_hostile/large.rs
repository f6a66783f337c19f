//! 64 clients send requests of 1 MB all the time, in every shape: the memory for all of them is
//! bounded, and another client is answered nearly as soon as without them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use vmstrobe_tests::rig::show;

use super::harm::NEGOTIATE;
use super::latency::{RATIO_MAX, keep_awake, median};
use crate::{Target, status};

/// The most clients of a server, less the one that is measured.
const CLIENTS: usize = 63;
/// A little less than the longest request.
const BYTES: usize = 1_000_000;
/// The most memory that the server may ever have had.
const MEMORY_MAX_BYTES: u64 = 256 << 20;
/// The time for which the clients have run when measuring begins.
const SETTLING: Duration = Duration::from_millis(300);

/// Returns an item repeated with commas between, of at most `bytes` bytes.
fn items(item: &str, bytes: usize) -> String {
    let mut items = format!("{item},").repeat(bytes / (item.len() + 1));
    items.pop();
    items
}

/// Returns `count` items that all differ.
fn numbered(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

fn command(name: &str, arguments: &str) -> String {
    format!(r#"{{"execute":"{name}","arguments":{{{arguments}}}}}"#)
}

/// Returns requests of [`BYTES`], each with its name.
fn shapes() -> Vec<(&'static str, String)> {
    let path = |at| format!("\"/vm/a/vcpu[{at}]\"");
    let paths = format!(r#""target":"vcpu","vcpus":[{}]"#, numbered(8000, path));
    let all = items(r#"{"provider":"kvm"}"#, 64 * 19);
    let name = |at| format!("\"a-name-that-nobody-has-{at}\"");
    let names = numbered(4096, name);
    let long = "x".repeat(BYTES);
    let nested = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    vec![
        ("numbers", format!("[{}]", items("0", BYTES))),
        ("lists", format!("[{}]", items("[]", BYTES))),
        ("lists of one", format!("[{}]", items("[0]", BYTES / 2))),
        ("objects", format!("[{}]", items("{}", BYTES))),
        ("objects of one", format!("[{}]", items(r#"{"a":0}"#, BYTES))),
        ("members", format!("{{{}}}", numbered(16_000, |at| format!("\"{at:048}\":0")))),
        ("the same member", format!("{{{}}}", items(r#""a":0"#, BYTES / 6))),
        ("lists as may be", format!("[{}]", items("[0]", 30_000))),
        ("objects as may be", format!("[{}]", items(r#"{"a":0}"#, 60_000))),
        ("too many members", format!("{{{}}}", numbered(90_000, |at| format!("\"{at:05}\":0")))),
        ("nested", format!("[{}]", items(&nested, BYTES))),
        ("in single quotes", format!("[{}]", items("'12345'", BYTES))),
        ("escapes", format!(r#"{{"execute":"{}"}}"#, r"\u00e9".repeat(BYTES / 6))),
        ("an id", format!(r#"{{"execute":"query-version","id":[{}]}}"#, items("1e9", BYTES / 4))),
        ("an id that grows", {
            let id = "\u{7f}".repeat(BYTES);
            format!(r#"{{"execute":"query-version","id":"{id}"}}"#)
        }),
        ("vcpus", command("query-stats", &paths)),
        ("vcpus, 64 times", command("query-stats", &format!(r#"{paths},"providers":[{all}]"#))),
        ("the same vcpu", command("query-stats", &paths.replace(|c: char| c.is_numeric(), "1"))),
        ("providers", {
            let all = items(r#"{"provider":"kvm"}"#, BYTES);
            command("query-stats", &format!(r#""target":"vcpu","providers":[{all}]"#))
        }),
        ("names", {
            let kvm = format!(r#"{{"provider":"kvm","names":[{names}]}}"#);
            command("query-stats", &format!(r#""target":"vcpu","providers":[{kvm}]"#))
        }),
        ("long names", {
            let kvm = items(&format!("\"{}\"", "x".repeat(250)), 250_000);
            let kvm = format!(r#"{{"provider":"kvm","names":[{kvm}]}}"#);
            command("query-stats", &format!(r#""target":"vcpu","providers":[{kvm}]"#))
        }),
        ("a name", {
            let kvm = format!(r#"{{"provider":"kvm","names":["{long}"]}}"#);
            command("query-stats", &format!(r#""target":"vcpu","providers":[{kvm}]"#))
        }),
        ("a stream", command("stats-subscribe", &format!(r#"{paths},"rate":1"#))),
        ("a line", command("human-monitor-command", &format!(r#""command-line":"{long}""#))),
        ("an argument", command("query-stats", &format!(r#""target":"vm","{long}":1"#))),
    ]
}

/// Sends that once, and again and again until `stop`, each when the one before is answered.
fn ask(socket: &Path, request: &[u8], stop: &AtomicBool, answered: &AtomicUsize) {
    let Ok(mut stream) = UnixStream::connect(socket) else { return };
    let mut buffer = vec![0; 1 << 16];
    let mut line = |stream: &mut UnixStream| loop {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 && !buffer[..count].contains(&b'\n') => {}
            outcome => return outcome.is_ok_and(|count| count > 0),
        }
    };
    if !line(&mut stream) || stream.write_all(NEGOTIATE).is_err() || !line(&mut stream) {
        return;
    }
    loop {
        if stream.write_all(request).is_err() || !line(&mut stream) {
            return;
        }
        answered.fetch_add(1, Relaxed);
        // Not before: the thread may have begun only now.
        if stop.load(Relaxed) {
            return;
        }
    }
}

#[test]
fn many_clients_with_large_requests_do_not_delay_another() {
    let Some(target) = Target::start("large") else { return };
    let (mut client, _awake) = (target.connect(), keep_awake());
    median(&mut client);
    let mut ratios = Vec::new();
    for (name, request) in shapes() {
        assert!((BYTES / 40..=1 << 20).contains(&request.len()), "{name}: {}", request.len());
        let before = median(&mut client);
        let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let during = thread::scope(|scope| {
            let (socket, request) = (target.serve.socket(), request.as_bytes());
            for _ in 0..CLIENTS {
                scope.spawn(|| ask(socket, request, &stop, &answered));
            }
            thread::sleep(SETTLING);
            let during = median(&mut client);
            stop.store(true, Relaxed);
            during
        });
        assert!(answered.load(Relaxed) >= CLIENTS, "{name}: not all are answered");
        let alone = (before + median(&mut client)) / 2;
        let ratio = during.as_secs_f64() / alone.as_secs_f64();
        let peak_mib = status(&target.serve, "VmHWM") / 1024;
        show(&format!(
            "{name}: {during:?} instead of {alone:?}, {ratio:.2} times as long; {answered:?} \
             answered; {peak_mib} MiB at its peak"
        ));
        assert!(peak_mib * 1024 * 1024 <= MEMORY_MAX_BYTES, "{name}: {peak_mib} MiB");
        ratios.push(ratio);
    }
    // Of the shapes, more than half have to be good: any one comparison may meet a busy machine.
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    assert!(ratio <= RATIO_MAX, "{ratio:.2} times as long: {ratios:.2?}");
    drop(client);
    target.is_well_within(MEMORY_MAX_BYTES);
}
