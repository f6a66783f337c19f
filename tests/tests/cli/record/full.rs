//! Disks that become full while a recording is written.

use std::fs;

use vmstrobe_export::End;
use vmstrobe_tests::command::Output;
use vmstrobe_tests::require::require_namespaces;

use super::{Place, read};
use crate::{says, under};

/// Records into a file system of that size until it is full. Returns what was said; the file is in
/// `copy`.
fn record_into(place: &Place, name: &str, size: &str, copy: &str) -> Output {
    let script = "mount -t tmpfs -o size=$SIZE tmpfs \"$1\" && shift && out=$1 && shift && \
                  \"$@\"; status=$?; cp \"$FILE\" \"$out\"; exit $status";
    let mount = place.file("disk");
    fs::create_dir_all(&mount).expect("there is room");
    let output = format!("{mount}/{name}");
    let (file, size) = (format!("FILE={output}"), format!("SIZE={size}"));
    let shell = ["unshare", "-m", "env", &file, &size, "sh", "-c", script, "sh", &mount, copy];
    under(&shell, &["record", "--demo", "-o", &output, "-d", "5s", "--no-control"])
}

#[test]
fn a_full_disk_is_one_error_and_the_file_is_good_up_to_there() {
    let Some(place) = Place::new() else { return };
    if !require_namespaces() {
        return;
    }
    let copy = place.file("copy");
    let done = record_into(&place, "run.arrows", "300k", &copy);
    says(&done, 1, &["cannot write", "No space left on device", "are good"]);
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    let read = read(&copy);
    assert!(!read.ticks.is_empty() && read.end == Some(End::Unfinished), "{:?}", read.end);
    // Of Parquet nothing is good without its end, and the message says so.
    let done = record_into(&place, "run.parquet", "64k", &copy);
    says(&done, 1, &["cannot write", "No space left on device", "nothing of it can be read"]);
    assert!(done.stderr.lines().count() == 1 && !done.stderr.contains("are good"), "{done:?}");
    for (name, size) in [("run.csv", "300k"), ("run.jsonl", "300k")] {
        let done = record_into(&place, name, size, &copy);
        says(&done, 1, &["cannot write", "No space left on device", "are good"]);
        // It ends with a whole row.
        let text = fs::read_to_string(&copy).expect("it is text");
        assert!(text.ends_with('\n') && text.lines().count() > 10, "{name}: {}", text.len());
    }
}
