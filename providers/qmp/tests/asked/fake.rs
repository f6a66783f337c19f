//! A QEMU of ours behind a socket, which answers well, late, wrongly or not at all.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe_qmp::{Qmp, QmpShare};

use super::MAX_REPLY_BYTES;

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";
const EVENT: &str = "{\"timestamp\": {\"seconds\": 1}, \"event\": \"STOP\"}\r\n";

/// The reaction of the QEMU of ours to the next `query-stats`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Manner {
    Answers,
    /// Answers a little later, with the number of queries for that target up to this one.
    Counts,
    /// So many ms later.
    Late(u64),
    /// Not before it has another manner.
    Silent,
    /// With events before it.
    AmongEvents,
    /// Closes the connection in the middle of the answer.
    CutsOff,
    WrongId,
    NoJson,
    TooLong,
    /// The answer never ends.
    Endless,
    /// Events, and never an answer.
    EventsForEver,
    Refuses,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) manner: Manner,
    /// Sent to each client that connects.
    pub(super) greeting: String,
    pub(super) schemas: String,
    /// The result of `query-stats`.
    pub(super) stats: String,
    /// The times at which each `query-stats` was read, and answered.
    pub(super) queries: Vec<(Instant, Instant)>,
    /// The number of queries for each target, counted before they are answered.
    pub(super) asked: HashMap<String, u64>,
    /// The number of queries for its schemas.
    pub(super) renewals: usize,
}

/// The QEMU of ours; dropped, it closes its socket.
pub(super) struct Fake {
    dir: PathBuf,
    model: Arc<Mutex<Model>>,
    connections: Arc<AtomicUsize>,
}

/// A path for a socket of this test's own, in a directory of this test's own.
pub(super) fn own_dir() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = env::temp_dir().join(format!("vmstrobe-qmp-{}-{count}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    dir
}

impl Fake {
    pub(super) fn start() -> Self {
        let dir = own_dir();
        let model = Arc::new(Mutex::new(Model {
            manner: Manner::Answers,
            greeting: GREETING.to_owned(),
            schemas: schema("\"x\""),
            stats: device("/objects/a", "7"),
            queries: Vec::new(),
            asked: HashMap::new(),
            renewals: 0,
        }));
        let (theirs, connections) = (Arc::clone(&model), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&connections);
        let listener = UnixListener::bind(dir.join("s")).unwrap();
        // As QEMU does: one client after the other. It ends with the tests.
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                // Whatever happens to a connection is the client's doing.
                let _ = serve(stream.unwrap(), &theirs);
            }
        });
        Self { dir, model, connections }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }

    pub(super) fn connect(&self) -> Qmp {
        Qmp::connect(&self.socket(), QmpShare::All).unwrap()
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    pub(super) fn set(&self, manner: Manner) {
        self.model().manner = manner;
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.set(Manner::Answers);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub(super) fn schema(names: &str) -> String {
    let stat = |name: &str| format!("{{\"name\": {name}, \"type\": \"log2-histogram\"}}");
    let stats = names.split(", ").map(stat).collect::<Vec<_>>().join(", ");
    format!("[{{\"provider\": \"crypto\", \"target\": \"device\", \"stats\": [{stats}]}}]")
}

pub(super) fn device(path: &str, x: &str) -> String {
    format!(
        "[{{\"provider\": \"crypto\", \"qom-path\": \"{path}\", \
           \"stats\": [{{\"name\": \"x\", \"value\": {x}}}]}}]"
    )
}

fn serve(mut stream: UnixStream, model: &Mutex<Model>) -> std::io::Result<()> {
    let greeting = model.lock().unwrap().greeting.clone();
    stream.write_all(greeting.as_bytes())?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let (read, line) = (Instant::now(), line?);
        let request: serde_json::Value = serde_json::from_str(&line)?;
        let (id, command) = (&request["id"], request["execute"].as_str().unwrap_or_default());
        let ok = |result: &str| format!("{{\"return\": {result}, \"id\": {id}}}\r\n");
        if command != "query-stats" {
            stream.write_all(ok(&other_than_stats(command, model)).as_bytes())?;
            continue;
        }
        let target = request["arguments"]["target"].as_str().unwrap_or_default().to_owned();
        let (manner, stats, asked) = {
            let mut model = model.lock().unwrap();
            let asked = *model.asked.entry(target).and_modify(|asked| *asked += 1).or_insert(1);
            (model.manner, model.stats.clone(), asked)
        };
        let answer = ok(&stats);
        match manner {
            Manner::Answers => stream.write_all(answer.as_bytes())?,
            Manner::Counts => {
                thread::sleep(Duration::from_micros(100));
                let answer = ok(&device("/objects/a", &asked.to_string()));
                stream.write_all(answer.as_bytes())?;
            }
            Manner::Late(ms) => {
                thread::sleep(Duration::from_millis(ms));
                stream.write_all(answer.as_bytes())?;
            }
            Manner::Silent => {
                while model.lock().unwrap().manner == Manner::Silent {
                    thread::sleep(Duration::from_millis(1));
                }
                stream.write_all(answer.as_bytes())?;
            }
            Manner::AmongEvents => stream.write_all((EVENT.repeat(20) + &answer).as_bytes())?,
            Manner::CutsOff => return stream.write_all(&answer.as_bytes()[..answer.len() / 2]),
            Manner::WrongId => {
                let wrong = format!("{{\"return\": {stats}, \"id\": 1000000}}\r\n");
                stream.write_all(wrong.as_bytes())?;
            }
            Manner::NoJson => stream.write_all(b"hello\r\n")?,
            Manner::TooLong => {
                let long = ok(&format!("[{}1]", "1, ".repeat(MAX_REPLY_BYTES / 3)));
                stream.write_all(long.as_bytes())?;
            }
            Manner::Endless => {
                stream.write_all(b"{\"return\": [")?;
                while model.lock().unwrap().manner == Manner::Endless {
                    stream.write_all(b"1, ")?;
                }
            }
            Manner::EventsForEver => {
                while model.lock().unwrap().manner == Manner::EventsForEver {
                    stream.write_all(EVENT.as_bytes())?;
                }
                stream.write_all(answer.as_bytes())?;
            }
            Manner::Refuses => {
                let error = "{\"class\": \"GenericError\", \"desc\": \"not now\"}";
                stream.write_all(format!("{{\"id\": {id}, \"error\": {error}}}\r\n").as_bytes())?;
            }
        }
        model.lock().unwrap().queries.push((read, Instant::now()));
    }
    Ok(())
}

/// Returns the result of a command other than `query-stats`.
fn other_than_stats(command: &str, model: &Mutex<Model>) -> String {
    match command {
        "query-name" => "{\"name\": \"fake\"}".to_owned(),
        "query-stats-schemas" => {
            let mut model = model.lock().unwrap();
            model.renewals += 1;
            model.schemas.clone()
        }
        "query-cpus-fast" => {
            "[{\"cpu-index\": 4, \"qom-path\": \"/cpu4\", \"thread-id\": 44}]".to_owned()
        }
        _ => "{}".to_owned(),
    }
}
