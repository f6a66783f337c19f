//! A host on which every name is hostile: VMs, processes, tables and what is in them, sockets,
//! files, and a QEMU's own words.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use vmstrobe::fd_server::FdServer;
use vmstrobe::table::{TableConfig, TableObject, TableSchema, TableWriter};
use vmstrobe_core::Target;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qemu::{Config, Qemu};

use super::super::tables::directory;

/// The length of a name in places where names have no limit.
const LONG_BYTES: usize = 10_000;

/// A host on which every name is hostile.
pub(super) struct World {
    pub(super) hostile: String,
    pub(super) pid: String,
    pub(super) vm: String,
    /// A process that has no statistics.
    pub(super) idle: String,
    /// A directory with a hostile name.
    pub(super) home: PathBuf,
    pub(super) table_file: String,
    pub(super) qmp: String,
    pub(super) refusing_qmp: String,
    pub(super) hand_over: String,
    _held: Held,
}

/// The things that exist as long as the world.
type Held =
    (TempDir, TempDir, Vec<Qemu>, Vec<TableWriter>, Vec<TableObject>, OwnedFd, FdServer, Reaped);

impl World {
    /// Starts all parts. This process becomes one of them.
    pub(super) fn new(hostile: &str) -> World {
        let name = |kind: &str| format!("{kind}{hostile}");
        let (root, shm) =
            (tempfile::tempdir().expect("a temporary directory can be made"), directory());
        let home = root.path().join(name("DIR"));
        fs::create_dir(&home).expect("the directory is writable");
        let at = |kind: &str| text(home.join(name(kind)));
        // This process, which is alone in its namespace, has the tables.
        fs::write("/proc/self/comm", head(&name("COM"), 15)).expect("the directory is writable");
        let table_file = text(shm.path().join(name("FIL")));
        let provider = name("PRV");
        let tables = vec![
            TableWriter::new(&provider).expect("there is memory for a table"),
            TableWriter::at(Path::new(&table_file), TableConfig::of(&provider)).expect("on tmpfs"),
            TableWriter::new(&provider).expect("there is memory for a table"),
        ];
        let objects = tables.iter().flat_map(|table| objects(table, &name)).collect();
        let no_table = memfd_create(format!("vmstrobe-table:{}", name("MEM")), MemfdFlags::CLOEXEC);
        let hand_over = FdServer::listen(Path::new(&at("SOC-h"))).expect("the path is free");
        hand_over.offer(Arc::new(tables[2].clone())).expect("the server runs");
        let (qmp, refusing_qmp) = (at("SOC-q"), at("SOC-r"));
        refuse_all(&refusing_qmp, &name("ARG"));
        let program = home.join(name("COM"));
        symlink("/bin/sleep", &program).expect("the directory is writable");
        let idle = Command::new(&program).arg("600").stdin(Stdio::null()).spawn();
        let idle = Reaped(idle.expect("sleep starts"));
        let qemu = |name: &str, extra: &[&str]| {
            Qemu::start(&Config { name, extra, paused: true, ..Config::default() })
        };
        let second = format!("unix:{qmp},server=on,wait=off");
        let qemus = vec![qemu(&name("VMX"), &["-qmp", &second]), qemu(&long(&name("VML")), &[])];
        World {
            hostile: hostile.to_owned(),
            pid: std::process::id().to_string(),
            vm: qemus[0].pid().to_string(),
            idle: idle.id().to_string(),
            home: home.clone(),
            table_file,
            qmp,
            refusing_qmp,
            hand_over: at("SOC-h"),
            _held: (root, shm, qemus, tables, objects, no_table.expect("memory"), hand_over, idle),
        }
    }

    /// Returns a name of that kind.
    pub(super) fn name(&self, kind: &str) -> String {
        format!("{kind}{}", self.hostile)
    }
}

/// Makes two objects of a target of their own, of which one statistic has no sum, and a vCPU.
fn objects(table: &TableWriter, name: &impl Fn(&str) -> String) -> [TableObject; 3] {
    let schema = |target: &str| {
        let mut schema = TableSchema::new(Target::from_name(target));
        schema.counter(&*name("STA"));
        schema.gauge(&*format!("{}_id", name("STA")));
        schema.log2_histogram(&*name("STA-hist"), 4);
        schema
    };
    let path = |at| format!("/{}/{}[{at}]", name("OBJ"), name("OBJ"));
    let long = head(&long(&path(1)), 240).to_owned();
    [
        table.add(&path(0), &schema(&name("TGT"))).expect("the table has a free slot"),
        table.add(&long, &schema(&name("TGT"))).expect("the table has a free slot"),
        table.add_indexed(&path(2), 2, &schema("vcpu")).expect("the table has a free slot"),
    ]
}

/// Greets as QEMU does, and refuses every command with a hostile message.
fn refuse_all(socket: &str, words: &str) {
    let listener = UnixListener::bind(socket).expect("the path is free");
    let words = long(words);
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("clients come");
            let lines =
                BufReader::new(client.try_clone().expect("there is a free descriptor")).lines();
            let greeting = json!({"QMP": {"version": {"package": words}, "capabilities": []}});
            let mut said = writeln!(client, "{greeting}");
            for line in lines.map_while(Result::ok) {
                let id = serde_json::from_str::<Json>(&line).unwrap_or_default()["id"].take();
                let error = json!({"error": {"class": "GenericError", "desc": words}, "id": id});
                said = said.and_then(|()| writeln!(client, "{error}"));
            }
        }
    });
}

/// Returns the name repeated.
pub(super) fn long(name: &str) -> String {
    name.repeat(LONG_BYTES / name.len() + 1)
}

/// Returns the part of a text that fits into `bytes` bytes.
pub(super) fn head(text: &str, bytes: usize) -> &str {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    &text[..ends.take_while(|&end| end <= bytes).last().unwrap_or(0)]
}

pub(super) fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("the path is text").to_owned()
}
