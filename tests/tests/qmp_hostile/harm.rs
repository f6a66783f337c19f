//! Clients that do harm to a server. Each function runs until it is stopped, and returns the number
//! of bytes that it sent. Most connect again when they are disconnected.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// The time that a client waits for the server before it checks whether to stop.
const PATIENCE: Duration = Duration::from_millis(20);

pub(super) const NEGOTIATE: &[u8] = b"{\"execute\": \"qmp_capabilities\"}\n";
/// A request of 60 bytes with a reply of 9 KB.
pub(super) const ALL: &[u8] =
    b"{\"execute\": \"query-stats\", \"arguments\": {\"target\": \"vcpu\"}}\n";

/// A way to be a nuisance.
pub(super) type Harm = fn(&Path, &AtomicBool) -> usize;

/// A connection that waits for nobody for long.
fn connect(socket: &Path) -> Option<UnixStream> {
    let Ok(stream) = UnixStream::connect(socket) else {
        thread::sleep(PATIENCE);
        return None;
    };
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket has time limits");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has time limits");
    Some(stream)
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Writes all of it, however long that takes, and adds what was taken; false if it is to stop or is
/// thrown out.
fn write(stream: &mut UnixStream, bytes: &[u8], stop: &AtomicBool, taken: &mut usize) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        if stop.load(Relaxed) {
            return false;
        }
        match stream.write(rest) {
            Ok(count) => {
                rest = &rest[count..];
                *taken += count;
            }
            Err(error) if is_late(&error) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Starts a thread that reads everything, for as long as the connection lasts.
fn read_all(stream: &UnixStream) {
    let mut reader = stream.try_clone().expect("there is a free descriptor");
    reader.set_read_timeout(None).expect("a socket has time limits");
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while reader.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
}

/// Connects, sends the items of the generator and reads all replies, again and again.
fn pour<I: Iterator<Item = Vec<u8>>>(
    socket: &Path,
    stop: &AtomicBool,
    chunks: impl Fn() -> I,
) -> usize {
    let mut taken = 0;
    while !stop.load(Relaxed) {
        let Some(mut stream) = connect(socket) else { continue };
        read_all(&stream);
        for chunk in chunks() {
            if !write(&mut stream, &chunk, stop, &mut taken) {
                break;
            }
        }
        // What the thread holds is the same connection.
        let _ = stream.shutdown(Shutdown::Both);
    }
    taken
}

/// Megabytes of random bytes.
pub(super) fn garbage(socket: &Path, stop: &AtomicBool) -> usize {
    let mut rng = Rng::with_seed(1);
    let chunk: Vec<u8> = (0..1 << 16).map(|_| rng.u8(..)).collect();
    pour(socket, stop, || std::iter::repeat_n(chunk.clone(), 64))
}

/// Sends one string of 100 MB.
pub(super) fn endless_string(socket: &Path, stop: &AtomicBool) -> usize {
    let start = b"{\"execute\": \"".to_vec();
    pour(socket, stop, || std::iter::once(start.clone()).chain(endless(b'x')))
}

/// Returns 100 MB of one byte, in chunks.
fn endless(byte: u8) -> impl Iterator<Item = Vec<u8>> {
    std::iter::repeat_n(vec![byte; 1 << 20], 100)
}

/// Sends 10,000 nested lists and closes them, over and over.
pub(super) fn nested(socket: &Path, stop: &AtomicBool) -> usize {
    let text = [vec![b'['; 10_000], vec![b']'; 10_000], vec![b'\n']].concat();
    pour(socket, stop, || std::iter::repeat_n(text.clone(), 100))
}

/// Sends requests that never end, from several connections.
pub(super) fn halves(socket: &Path, stop: &AtomicBool) -> usize {
    let (mut held, mut taken) = (Vec::new(), 0);
    for count in (1..ALL.len() - 1).step_by(4) {
        if let Some(mut stream) = connect(socket) {
            write(&mut stream, &[NEGOTIATE, &ALL[..count]].concat(), stop, &mut taken);
            held.push(stream);
        }
    }
    while !stop.load(Relaxed) {
        thread::sleep(PATIENCE);
    }
    taken
}

/// A million requests, none of whose replies is read.
pub(super) fn unread(socket: &Path, stop: &AtomicBool) -> usize {
    let (thousand, mut taken) = (ALL.repeat(1000), 0);
    while !stop.load(Relaxed) {
        let Some(mut stream) = connect(socket) else { continue };
        write(&mut stream, NEGOTIATE, stop, &mut taken);
        for _ in 0..1000 {
            if !write(&mut stream, &thousand, stop, &mut taken) {
                break;
            }
        }
    }
    taken
}

/// Leaves after each byte of a conversation in turn.
pub(super) fn leaves_anywhere(socket: &Path, stop: &AtomicBool) -> usize {
    let conversation = [NEGOTIATE, ALL, b"[1, {]}\n", ALL].concat();
    let mut taken = 0;
    for count in (0..=conversation.len()).cycle() {
        if stop.load(Relaxed) {
            break;
        }
        let Some(mut stream) = connect(socket) else { continue };
        write(&mut stream, &conversation[..count], stop, &mut taken);
        if count % 2 == 0 {
            // Every second client has read something when it leaves.
            let _ = stream.read(&mut [0; 100]);
        }
    }
    taken
}

/// Connects 200 clients that stay, each of which sends one byte if it can.
pub(super) fn crowd(socket: &Path, stop: &AtomicBool) -> usize {
    let mut taken = 0;
    let mut held: Vec<UnixStream> = (0..200).filter_map(|_| connect(socket)).collect();
    for stream in &mut held {
        write(stream, b" ", stop, &mut taken);
    }
    while !stop.load(Relaxed) {
        thread::sleep(PATIENCE);
    }
    taken
}

/// Asks for 2 MB and takes a byte a second.
pub(super) fn slow_reader(socket: &Path, stop: &AtomicBool) -> usize {
    let (requests, mut taken) = ([NEGOTIATE, &ALL.repeat(200)].concat(), 0);
    while !stop.load(Relaxed) {
        let Some(mut stream) = connect(socket) else { continue };
        if !write(&mut stream, &requests, stop, &mut taken) {
            continue;
        }
        let mut next = Instant::now();
        while !stop.load(Relaxed) {
            if Instant::now() >= next {
                next += Duration::from_secs(1);
                if matches!(stream.read(&mut [0; 1]), Ok(0)) {
                    break;
                }
            }
            thread::sleep(PATIENCE);
        }
    }
    taken
}
