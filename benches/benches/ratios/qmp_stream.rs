//! The CPU time of a sample at 1 kHz, client and server together: streamed in batches, compared
//! with polled.
//!
//! Invariant: both clients end with the same numbers, parsed by serde_json. The start and the end
//! of a stream are not counted.

use std::collections::HashMap;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::hint::black_box;
use std::io;

use serde::Deserialize;

use crate::pairs::{Effort, Medians};
use crate::qmp_client::{Client, FILTERED};
use crate::qmp_rig::{Rig, VCPUS};
use crate::sleep::{at_1khz, cpu_ns};
use crate::{Goal, Line};

/// The number of samples of one side of a pair, which take a second.
const SAMPLES: u64 = 1000;
/// The filtered query's statistics, in batches of 100.
const SUBSCRIBE: &str = concat!(
    r#"{"execute": "stats-subscribe", "arguments": {"target": "vcpu", "#,
    r#""providers": [{"provider": "kvm", "names": ["exits", "halt_exits"]}], "#,
    r#""rate": 1000, "batch": 100}}"#,
    "\n"
);

type Measured = Result<Line, Box<dyn Error>>;

/// The reply to a filtered query.
#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(rename = "return", borrow)]
    objects: Vec<Object<'a>>,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    stats: Vec<Stat<'a>>,
}

#[derive(Deserialize)]
struct Stat<'a> {
    name: &'a str,
    value: u64,
}

/// An event with samples.
#[derive(Deserialize)]
struct Event {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    /// The two statistics of each vCPU, in schema order.
    values: Vec<[u64; 2]>,
}

/// The reply to `stats-subscribe`.
#[derive(Deserialize)]
struct Subscribed {
    #[serde(rename = "return")]
    value: Subscription,
}

#[derive(Deserialize)]
struct Subscription {
    subscription: u64,
}

/// Compares a stream with a client that polls the same server.
pub(crate) fn stream(name: &str, effort: Effort) -> Measured {
    let rig = Rig::start()?;
    let polled = (rig.ours()?, rig.server_pid());
    Ok(line(name, over(&rig, polled, effort)?, Goal::RatioAtMost(0.2)))
}

/// Compares a stream with a client that polls QEMU, which has no streams.
pub(crate) fn stream_qemu(name: &str, effort: Effort) -> Measured {
    let rig = Rig::start()?;
    let polled = (rig.peer()?, rig.qemu_pid());
    Ok(line(name, over(&rig, polled, effort)?, Goal::None))
}

/// Streams from our server, and polls that one.
fn over(rig: &Rig, polled_one: (Client, u32), effort: Effort) -> io::Result<Medians> {
    let (mut polling, pid) = polled_one;
    let mut streaming = rig.ours()?;
    let samples = if effort == Effort::Quick { SAMPLES / 5 } else { SAMPLES };
    Ok(effort.pairs(
        15,
        || streamed(&mut streaming, rig.server_pid(), samples),
        || polled(&mut polling, pid, samples),
    ))
}

/// Returns the CPU time per sample, in us, of a client that receives its samples in events, and of
/// the server.
fn streamed(client: &mut Client, server_pid: u32, samples: u64) -> f64 {
    let reply = client.ask(SUBSCRIBE);
    let subscribed: Subscribed = serde_json::from_slice(reply).expect("a subscription begins");
    // From the end of one batch to the end of another.
    take_event(client);
    let before = BothEnds::now(server_pid);
    let mut taken = 0;
    while taken < samples {
        taken += take_event(client);
    }
    let spent_ns = before.spent_ns(server_pid);
    let number = subscribed.value.subscription;
    client.ask(&format!(
        "{{\"execute\": \"stats-unsubscribe\", \"arguments\": {{\"subscription\": {number}}}}}\n"
    ));
    spent_ns as f64 / taken as f64 / 1000.0
}

/// Receives the next event and returns the number of its samples.
fn take_event(client: &mut Client) -> u64 {
    let text = client.read_line().expect("events come");
    let event: Event =
        serde_json::from_slice(text).expect("nobody came or went: these are samples");
    for sample in &event.data.samples {
        let mut values = [[0; 2]; VCPUS];
        values.copy_from_slice(&sample.values);
        take(values);
    }
    event.data.samples.len() as u64
}

/// Returns the CPU time per sample, in us, of a client that polls each sample at its time, and of
/// the server.
fn polled(client: &mut Client, server_pid: u32, samples: u64) -> f64 {
    let before = BothEnds::now(server_pid);
    at_1khz(samples, || {
        let reply: Reply<'_> =
            serde_json::from_slice(client.ask(FILTERED)).expect("a reply is of that form");
        let mut values = [[0; 2]; VCPUS];
        assert_eq!(reply.objects.len(), VCPUS);
        for (values, object) in values.iter_mut().zip(&reply.objects) {
            for stat in &object.stats {
                values[usize::from(stat.name == "halt_exits")] = stat.value;
            }
        }
        take(values);
    });
    before.spent_ns(server_pid) as f64 / samples as f64 / 1000.0
}

/// The numbers are there: every vCPU of a guest that runs has left it.
fn take(values: [[u64; 2]; VCPUS]) {
    assert!(black_box(values).iter().all(|[exits, _]| *exits > 0), "{values:?}");
}

/// The CPU time, in ns, of this thread, and of each of the server's threads up to its last sleep.
struct BothEnds {
    client_ns: u64,
    threads_ns: HashMap<OsString, u64>,
}

impl BothEnds {
    fn now(server_pid: u32) -> Self {
        let threads_ns = threads_ns(server_pid).expect("a process of ours shows its threads");
        Self { client_ns: cpu_ns(), threads_ns }
    }

    /// Returns the CPU time that both ends have spent since then, in ns. A thread that has ended
    /// meanwhile is left out: it served something else.
    fn spent_ns(&self, server_pid: u32) -> u64 {
        let client_ns = cpu_ns() - self.client_ns;
        let now_ns = threads_ns(server_pid).expect("a process of ours shows its threads");
        let before_ns = |id: &OsString| self.threads_ns.get(id).copied().unwrap_or(0);
        client_ns + now_ns.iter().map(|(id, now_ns)| now_ns - before_ns(id)).sum::<u64>()
    }
}

/// Returns the CPU time of each thread, as the scheduler has counted it.
fn threads_ns(pid: u32) -> io::Result<HashMap<OsString, u64>> {
    let mut threads = HashMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        // One that has ended since the folder was read counts as if it had never been.
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let first = text.split(' ').next().unwrap_or_default();
        threads.insert(thread.file_name(), first.parse().map_err(io::Error::other)?);
    }
    Ok(threads)
}

fn line(name: &str, medians: Medians, goal: Goal) -> Line {
    let Medians { ours, peer, ratio } = medians;
    Line { name: name.into(), ours, peer, ratio, goal, unit: "us" }
}
