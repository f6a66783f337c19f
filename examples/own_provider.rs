//! A provider of a program's own statistics, registered while a sampler already runs.
//!
//! The provider is "xyz". Its objects are the threads of this program, and their statistics are
//! those of the scheduler. It shows the two halves of every provider:
//!
//! * [`Threads`] is the control half: it lists the objects and opens them, and may block.
//! * [`ThreadSource`] is the data half: a tick makes one read for each thread. It allocates nothing
//!   and does not wait, and it marks the row of a thread that has ended.
//!
//! The sampler has no objects at first. Then the provider is added to its registry, and the next
//! look at the objects finds the threads: from then on their rows are in the snapshots.
//!
//! ```text
//! cargo run --release -p vmstrobe-examples --example own_provider -- [--seconds N]
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use vmstrobe_core::{
    Desc, ErrorKind, Object, Provider, ReadPlan, Registry, RowState, Rows, Scale, Schema, Source,
    Target, Unit,
};
use vmstrobe_sampler::{Fanout, HealthWriter, Roster, Sampler, Timing};

/// The statistics of a thread: its run time, its wait time, and the number of its turns on a CPU
/// (`/proc/PID/task/TID/schedstat`).
const STATS: usize = 3;
/// The kernel's `ESRCH`: there is no such thread any more.
const NO_SUCH_THREAD: i32 = 3;
/// The time between two looks at the objects, and between two snapshots that are printed.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let run_time = arguments()?;
    let registry = Registry::default();
    let mut roster = Roster::new(registry.clone(), vec!["thread".parse()?]);
    let sources = roster.open()?;
    let (sampler, control) = Sampler::new(sources, HealthWriter::default(), Fanout::Auto)?;
    let mut latest = control.latest();
    let sampling = sampler.start(Timing::hz(1000.0)?)?;
    let watch = roster.watch(control, LOOK_PERIOD, |error| eprintln!("{error}"))?;
    thread::sleep(LOOK_PERIOD);
    println!("sampled without a provider: {} objects", latest.load().objects().count());

    registry.add(Arc::new(Threads::new()));
    let until = Instant::now() + run_time;
    let busy = thread::spawn(move || while Instant::now() < until {});
    while Instant::now() < until {
        thread::sleep(LOOK_PERIOD);
        let snapshot = latest.load();
        println!("tick {}:", snapshot.tick());
        for view in snapshot.objects() {
            let number = |name| view.get(name).and_then(|value| value.number());
            if let (Some(run_ns), Some(slices)) = (number("run"), number("slices")) {
                println!("{}: {run_ns} ns in {slices} slices", view.object().path);
            }
        }
    }
    busy.join().expect("the thread does not panic");
    drop(watch);
    sampling.stop()?;
    Ok(())
}

/// The control half of the provider.
#[derive(Debug)]
struct Threads {
    schema: Arc<Schema>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    threads: Vec<(Object, Arc<File>)>,
    last_key: u64,
}

impl Threads {
    fn new() -> Self {
        let ns = |desc| Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
        let descs = vec![
            ns(Desc::counter("run", 0)),
            ns(Desc::counter("wait", 8)),
            Desc::counter("slices", 16),
        ];
        let schema = Schema::new("xyz", Target::from_name("thread"), descs);
        Self { schema, known: Mutex::default() }
    }
}

impl Provider for Threads {
    fn name(&self) -> &str {
        "xyz"
    }

    fn schemas(&self) -> vmstrobe_core::Result<Vec<Arc<Schema>>> {
        Ok(vec![Arc::clone(&self.schema)])
    }

    fn objects(&self) -> vmstrobe_core::Result<Vec<Object>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // An open file stays that of one thread, so a thread with a reused number has another key.
        known.threads.retain(|(_, file)| read(file).is_ok());
        let entries = fs::read_dir("/proc/self/task").map_err(|error| {
            vmstrobe_core::Error::caused(ErrorKind::Io, "cannot see the threads", error)
        })?;
        for entry in entries.flatten() {
            let path = format!("/xyz/thread[{}]", entry.file_name().display());
            // The thread has ended if the file cannot be opened.
            let Ok(file) = File::open(entry.path().join("schedstat")) else { continue };
            if !known.threads.iter().any(|(object, _)| *object.path == *path) {
                known.last_key += 1;
                let (schema, key) = (Arc::clone(&self.schema), known.last_key);
                let object = Object { path: path.into(), index: None, schema, key };
                known.threads.push((object, Arc::new(file)));
            }
        }
        Ok(known.threads.iter().map(|(object, _)| object.clone()).collect())
    }

    fn open(
        &self,
        objects: &[Object],
        plan: &Arc<ReadPlan>,
    ) -> vmstrobe_core::Result<Vec<Box<dyn Source>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let file = |object: &Object| {
            let thread = known.threads.iter().find(|(known, _)| known.key == object.key);
            thread.map(|(_, file)| Arc::clone(file))
        };
        let files = objects.iter().map(file).collect();
        Ok(vec![Box::new(ThreadSource { plan: Arc::clone(plan), files })])
    }
}

/// The data half of the provider.
struct ThreadSource {
    plan: Arc<ReadPlan>,
    /// The file of each thread; `None` if the thread had ended before it was opened.
    files: Vec<Option<Arc<File>>>,
}

impl Source for ThreadSource {
    fn rows(&self) -> usize {
        self.files.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let span = self.plan.span_bytes();
        rows.fill(|index, words| {
            let Some(file) = &self.files[index] else { return RowState::Gone };
            match read(file).map_err(|error| error.raw_os_error()) {
                Ok(stats) => {
                    self.plan.keep(&stats[span.start / 8..span.end / 8], words);
                    RowState::Good
                }
                Err(Some(NO_SUCH_THREAD)) => RowState::Gone,
                Err(errno) => RowState::Io(errno.unwrap_or_default()),
            }
        });
    }
}

/// Reads a thread's run and wait time in ns, and the number of its turns on a CPU.
fn read(file: &File) -> io::Result<[u64; STATS]> {
    // Three numbers of at most 20 digits.
    let mut text = [0; 64];
    let bytes = file.read_at(&mut text, 0)?;
    let mut numbers = text[..bytes]
        .split(u8::is_ascii_whitespace)
        .map(|digits| str::from_utf8(digits).ok()?.parse().ok());
    let mut next = || numbers.next().flatten().ok_or(io::ErrorKind::InvalidData);
    Ok([next()?, next()?, next()?])
}

fn arguments() -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let mut seconds = 3.0;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--seconds" => seconds = arguments.next().ok_or("--seconds needs a number")?.parse()?,
            other => return Err(format!("{other} is no argument: --seconds N is").into()),
        }
    }
    Ok(Duration::try_from_secs_f64(seconds)?)
}
