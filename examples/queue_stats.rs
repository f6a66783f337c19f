//! A device backend that publishes its own statistics, for the author of a device to copy.
//!
//! The device is a disk in memory, with one queue of requests and two threads that serve them; the
//! guest is a thread that makes requests. The code for vmstrobe is between the marker comments, 15
//! lines in all: it defines the statistics, adds the queue to a table, and lets each thread count
//! there, which takes a few ns. Another process samples the table without stopping a thread.
//!
//! ```text
//! cargo run --release -p vmstrobe-examples --example queue_stats -- [--seconds N]
//! vmstrobe query -p PID --target queue
//! ```

use std::error::Error;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, process, thread};

// vmstrobe: from here
use vmstrobe::table::{Stat, TableSchema, TableWriter};
use vmstrobe_core::Target;
// vmstrobe: to here

const THREADS: usize = 2;
const DISK_BYTES: usize = 1 << 20;
/// The sizes that the guest asks for, in turn.
const REQUEST_BYTES: [usize; 3] = [512, 4096, 65536];
/// The pause between two requests.
const PAUSE: Duration = Duration::from_micros(200);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A request to read a number of bytes of the disk.
struct Request {
    bytes: usize,
    made: Instant,
}

fn main() -> Result<()> {
    let run_time = arguments()?;
    let (guest, requests_of_guest) = channel();
    let device = Arc::new(Device::new(requests_of_guest));

    // vmstrobe: from here
    let mut stats = TableSchema::new(Target::from_name("queue"));
    let requests = stats.counter("requests");
    let bytes = stats.counter(Stat::bytes("bytes"));
    let latency = stats.log2_histogram(Stat::ns("latency"), 32);
    let table = TableWriter::new("xyz")?;
    let queue = table.add("/xyz/queue[0]", &stats)?; // it exists as long as this value
    let requests = queue.get(requests);
    let bytes = queue.get(bytes);
    let latency = queue.get(latency);
    // vmstrobe: to here

    let serve = |_| {
        let device = Arc::clone(&device);
        // vmstrobe: from here
        let (requests, bytes, latency) = (requests.clone(), bytes.clone(), latency.clone());
        // vmstrobe: to here
        thread::spawn(move || {
            while let Some(request) = device.next() {
                device.serve(&request);
                // vmstrobe: from here
                requests.add(1);
                bytes.add(request.bytes as u64);
                latency.record(request.made.elapsed().as_nanos() as u64);
                // vmstrobe: to here
            }
        })
    };
    let threads: Vec<_> = (0..THREADS).map(serve).collect();
    println!(
        "a queue is served for {run_time:?}: vmstrobe query -p {} --target queue",
        process::id()
    );
    let (made, asked_bytes) = run_guest(guest, run_time)?;
    threads.into_iter().for_each(|thread| thread.join().expect("the thread does not panic"));
    println!("{made} requests, {asked_bytes} bytes");
    Ok(())
}

/// Makes requests for this time. Returns their number, and the sum of their bytes.
fn run_guest(requests: Sender<Request>, time: Duration) -> Result<(u64, u64)> {
    let (began, mut made, mut asked_bytes) = (Instant::now(), 0, 0);
    for bytes in REQUEST_BYTES.into_iter().cycle().take_while(|_| began.elapsed() < time) {
        requests.send(Request { bytes, made: Instant::now() })?;
        made += 1;
        asked_bytes += bytes as u64;
        thread::sleep(PAUSE);
    }
    Ok((made, asked_bytes))
}

/// A disk with a queue, which any thread may serve.
struct Device {
    queue: Mutex<Receiver<Request>>,
    disk: Vec<u8>,
}

impl Device {
    fn new(queue: Receiver<Request>) -> Self {
        Self { queue: Mutex::new(queue), disk: vec![0; DISK_BYTES] }
    }

    /// Returns the next request; `None` once the guest has ended and all are served.
    fn next(&self) -> Option<Request> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }

    /// Copies the bytes of a request, as if into the guest's memory.
    fn serve(&self, request: &Request) {
        let mut buffer = [0; 65536];
        let buffer = &mut buffer[..request.bytes];
        buffer.copy_from_slice(&self.disk[..request.bytes]);
        std::hint::black_box(buffer);
    }
}

fn arguments() -> Result<Duration> {
    let mut seconds = 60.0;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--seconds" => seconds = arguments.next().ok_or("--seconds needs a number")?.parse()?,
            other => return Err(format!("{other} is no argument: --seconds N is").into()),
        }
    }
    Ok(Duration::try_from_secs_f64(seconds)?)
}
