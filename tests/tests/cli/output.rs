//! Standard output: a full disk is a failure, and a reader that has gone is none.

use std::io::{BufRead, BufReader, Read};

use vmstrobe_tests::command::spawn;
use vmstrobe_tests::require::require_kvm;

use crate::{LIMIT, says, under};

#[test]
fn a_full_disk_is_an_error() {
    let full = |args: &[&str]| under(&["sh", "-c", "exec \"$0\" \"$@\" >/dev/full"], args);
    let what = ["cannot write to standard output: No space left on device"];
    says(&full(&["--help"]), 1, &what);
    says(&full(&["list", "--json"]), 1, &what);
    if !require_kvm() {
        return;
    }
    for args in [
        &["query", "--demo"][..],
        &["query", "--demo", "--json"],
        &["schema", "--demo"],
        &["info", "stats", "--demo", "vcpu"],
        &["stat", "--demo", "-i", "50", "-d", "10s"],
        &["stat", "--demo", "--", "true"],
        &["demo", "-d", "1s"],
    ] {
        let output = full(args);
        assert_eq!(output.code, Some(1), "{args:?}: {output:?}");
        says(&output, 1, &what);
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    if !require_kvm() {
        return;
    }
    for args in [
        &["stat", "--demo", "-i", "20", "--json"][..],
        &["stat", "--demo", "-i", "20"],
        &["demo"],
        &["schema", "--demo"],
        &["query", "--demo", "-z"],
    ] {
        let mut child = spawn(args);
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("the child's stream is a pipe"));
        stdout.read_line(&mut line).expect("the child prints lines");
        drop(stdout);
        let status = child.wait_within(LIMIT);
        let mut stderr = String::new();
        child.kill().expect("the child has not been reaped");
        let mut pipe = child.stderr.take().expect("the child's stream is a pipe");
        pipe.read_to_string(&mut stderr).expect("the output is text");
        let status = status.unwrap_or_else(|| panic!("{args:?} goes on for nobody: {stderr}"));
        assert_eq!(status.code(), Some(0), "{args:?}: {stderr}");
        let complains = ["panic", "write", "pipe"].iter().any(|word| stderr.contains(word));
        assert!(!complains, "{args:?}: {stderr}");
    }
}

/// The reader has gone before the command starts.
#[test]
fn a_closed_output_is_no_panic() {
    let closed = |args: &[&str]| under(&["sh", "-c", "exec \"$0\" \"$@\" >&-"], args);
    for args in [&["--help"][..], &["list"], &["list", "--json"]] {
        let output = closed(args);
        assert!(matches!(output.code, Some(0 | 1)), "{args:?}: {output:?}");
    }
}
