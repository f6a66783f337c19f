//! Our QMP server, compared with a bare echo server and with QEMU's own.

use std::error::Error;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::cpus::{Placed, Servers};
use crate::pairs::{Effort, Medians, median, ns, ns_each};
use crate::qmp_client::{ALL, Client, FILTERED};
use crate::qmp_echo::{ECHO, Echo, READ_AND_ECHO};
use crate::qmp_rig::{Rig, VCPUS};
use crate::{Goal, Line};

/// The round trips that are timed together.
const GROUP: u32 = 8;
/// The number of such groups in one side of a pair. They take about 1 ms, so that the sides of a
/// pair follow each other closely.
const GROUPS: u32 = 25;
/// The queries to our server in one side of a pair with QEMU.
const OURS: u32 = 800;
/// The queries to QEMU in one side of a pair, which take about as long.
const PEERS: u32 = 16;
/// The requests in flight.
const IN_FLIGHT: u32 = 16;
/// The clients that ask at the same time.
const CLIENTS: usize = 8;
/// The queries of all these clients together.
const QUERIES_OF_ALL: usize = 4000;

type Measured = Result<Line, Box<dyn Error>>;

/// Measures the round trip of a filtered query, over that of the same request to a server that
/// sends the same reply every time. Both run on the client's CPU, where all work counts.
pub(crate) fn echo(name: &str, effort: Effort) -> Measured {
    beside(name, effort, ECHO, Servers::Beside, Goal::RatioAtMost(1.25))
}

/// Measures as [`echo`] does, but the peer also reads the statistics of as many vCPUs before each
/// reply: the difference is the work of our server besides system calls.
pub(crate) fn echo_reads(name: &str, effort: Effort) -> Measured {
    beside(name, effort, READ_AND_ECHO, Servers::Beside, Goal::None)
}

/// Measures as [`echo`] does, with the servers on another CPU than the client.
pub(crate) fn echo_apart(name: &str, effort: Effort) -> Measured {
    beside(name, effort, ECHO, Servers::Apart, Goal::None)
}

fn beside(name: &str, effort: Effort, how: &str, servers: Servers, goal: Goal) -> Measured {
    let rig = Rig::start()?;
    let reply = str::from_utf8(answer(rig.ours()?.ask(FILTERED)))?.to_owned();
    let echo = Echo::start(how, &reply)?;
    // It has made its vCPUs, if it reads any.
    answer(echo.client()?.ask(FILTERED));
    let placed = Placed::here(servers)?;
    placed.keep(rig.server_pid())?;
    placed.keep(echo.pid())?;
    Ok(ratio(name, round_trips(&rig, &echo, effort), goal))
}

/// Measures round trips. Each side of a pair has a new connection, so that one placement of its
/// server's thread does not last for the whole series.
fn round_trips(rig: &Rig, echo: &Echo, effort: Effort) -> Medians {
    let side = |mut client: Client| {
        _ = client.ask(FILTERED);
        let some = |_| ns_each(GROUP, || _ = black_box(client.ask(FILTERED)));
        // The median of some: something else may run in between.
        median((0..GROUPS).map(some).collect())
    };
    effort.pairs(
        501,
        || side(rig.ours().expect("the server accepts the client")),
        || side(echo.client().expect("the server accepts the client")),
    )
}

pub(crate) fn filtered(name: &str, effort: Effort) -> Measured {
    over_qemu(name, effort, FILTERED, 1, 10.0)
}

pub(crate) fn all(name: &str, effort: Effort) -> Measured {
    over_qemu(name, effort, ALL, 1, 6.0)
}

pub(crate) fn pipelined(name: &str, effort: Effort) -> Measured {
    over_qemu(name, effort, FILTERED, IN_FLIGHT, 40.0)
}

/// Measures the time per query of a client that sends `in_flight` at once; QEMU's over ours.
fn over_qemu(name: &str, effort: Effort, request: &str, in_flight: u32, least: f64) -> Measured {
    let rig = Rig::start()?;
    let requests = request.repeat(in_flight as usize);
    let side = |mut client: Client, queries: u32| {
        answer(client.ask_many(&requests, in_flight));
        let ask = || _ = black_box(client.ask_many(&requests, in_flight));
        ns_each(queries.div_ceil(in_flight), ask) / f64::from(in_flight)
    };
    let medians = effort.pairs(
        101,
        || side(rig.ours().expect("the server accepts the client"), OURS),
        || side(rig.peer().expect("QEMU accepts another client"), PEERS),
    );
    let bytes = |mut client: Client| answer(client.ask(request)).len();
    let (ours, peer) = (bytes(rig.ours()?), bytes(rig.peer()?));
    // They differ in order only; but counters moved on between the two.
    assert!(ours.abs_diff(peer) < peer / 20, "{ours} bytes are no reply like {peer} bytes");
    Ok(speedup(name, medians, least))
}

/// Measures the wall time per query while eight clients ask; one client's over the eight's.
pub(crate) fn clients_8(name: &str, effort: Effort) -> Measured {
    let rig = Rig::start()?;
    let side = |clients: usize| {
        let connected =
            (0..clients).map(|_| rig.ours().expect("the server accepts so many clients"));
        let mut clients: Vec<Client> = connected.collect();
        clients.iter_mut().for_each(|client| _ = answer(client.ask(FILTERED)));
        together(&mut clients)
    };
    Ok(speedup(name, effort.pairs(101, || side(CLIENTS), || side(1)), 1.0))
}

/// Runs a thread for each client, and returns the ns per query, from the first request of any
/// client to the last reply to any.
fn together(clients: &mut [Client]) -> f64 {
    let each = QUERIES_OF_ALL / clients.len();
    let barrier = Barrier::new(clients.len());
    let ask = |client: &mut Client| {
        barrier.wait();
        let start = Instant::now();
        (0..each).for_each(|_| _ = black_box(client.ask(FILTERED)));
        (start, Instant::now())
    };
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let start = |client| scope.spawn(|| ask(client));
        let threads: Vec<_> = clients.iter_mut().map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("every reply came")).collect()
    });
    let start = spans.iter().map(|span| span.0).min().expect("there is at least one client");
    let end = spans.iter().map(|span| span.1).max().expect("there is at least one client");
    ns(end - start) / (each * clients.len()) as f64
}

/// Returns the reply; panics if it does not have one entry for each vCPU.
fn answer(reply: &[u8]) -> &[u8] {
    let value: Value = serde_json::from_slice(reply).expect("a reply is JSON");
    assert_eq!(value["return"].as_array().map(Vec::len), Some(VCPUS), "{value}");
    reply
}

fn ratio(name: &str, medians: Medians, goal: Goal) -> Line {
    let Medians { ours, peer, ratio } = medians;
    Line { name: name.into(), ours, peer, ratio, goal, unit: "ns" }
}

/// Makes a line of the ratio of the peer's time to ours.
fn speedup(name: &str, medians: Medians, least: f64) -> Line {
    let medians = Medians { ratio: 1.0 / medians.ratio, ..medians };
    ratio(name, medians, Goal::SpeedupAtLeast(least))
}
