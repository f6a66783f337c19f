//! Recordings of the command, read by programs that nobody here wrote.

use std::time::Duration;

use vmstrobe_tests::command::run_within;
use vmstrobe_tests::python::{python_program, require_readers, run_reader};

use super::{Place, read};
use crate::{says, vmstrobe};

#[test]
fn hdrhistogram_reads_every_interval() {
    let Some(place) = Place::new() else { return };
    if !require_readers() {
        return;
    }
    let log = place.file("run.hlog");
    let (status, said) = place.start("run.arrows", &["-d", "3s", "--histlog", &log]).end();
    assert_eq!(status, Some(0), "{said}");
    let args = [&*place.file("run.arrows"), &log, "halt_wait_hist"];
    let done = run_reader("intervals.py", &args, Duration::from_secs(120));
    assert_eq!(done.code, Some(0), "{done:?}");
    println!("{}", done.stdout);
    let other = ["--histlog", &log, "--histlog-stat", "exits", "-d", "1s", "--overwrite"];
    let line = [&["record", "--demo", "-o", args[0]], &other[..]].concat();
    says(&vmstrobe(&line), 2, &["there is no histogram 'exits' here"]);
}

#[test]
fn parquet_has_every_row() {
    let Some(place) = Place::new() else { return };
    if !require_readers() {
        return;
    }
    let (recording, parquet) = (place.file("run.arrows"), place.file("run.parquet"));
    let (status, said) = place.start("run.arrows", &["-d", "1s"]).end();
    assert_eq!(status, Some(0), "{said}");
    says(&vmstrobe(&["convert", &recording, &parquet]), 0, &["wrote "]);
    let query = "import pyarrow as pa, pyarrow.parquet as pq, sys
def plain(table):
    for at, name in enumerate(table.schema.names):
        if pa.types.is_dictionary(table.schema.field(at).type):
            table = table.set_column(at, name, table[name].cast(pa.string()))
    return table.sort_by([('path', 'ascending'), ('tick', 'ascending')])
arrows = plain(pa.ipc.open_stream(open(sys.argv[1], 'rb')).read_all())
parquet = plain(pq.read_table(sys.argv[2]))
assert parquet.schema.names == arrows.schema.names, parquet.schema.names
for name in arrows.schema.names:
    assert parquet[name].to_pylist() == arrows[name].to_pylist(), name
print(parquet.num_rows, 'rows equal')";
    let python = python_program("python3");
    let args = ["-c", query, &recording, &parquet];
    let done = run_within(Duration::from_secs(60), python, &args);
    assert_eq!(done.code, Some(0), "{done:?}");
    let back = place.file("back.arrows");
    says(&vmstrobe(&["convert", &parquet, &back]), 0, &["wrote "]);
    let all = |path: &str| read(path).ticks;
    assert_eq!(all(&back), all(&recording));
}

#[test]
fn perfetto_reads_every_counter() {
    let Some(place) = Place::new() else { return };
    if !require_readers() {
        return;
    }
    let (status, log) = place.start("run.arrows", &["-d", "2s"]).end();
    assert_eq!(status, Some(0), "{log}");
    let (recording, trace) = (place.file("run.arrows"), place.file("run.pftrace"));
    says(&vmstrobe(&["convert", &recording, &trace]), 0, &["are left out of"]);
    let done = run_reader("counters.py", &[&recording, &trace], Duration::from_secs(120));
    assert_eq!(done.code, Some(0), "{done:?}");
    println!("{}", done.stdout);
}
