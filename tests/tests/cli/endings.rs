//! The end of what `stat` samples, whatever it is: it is told, and what was measured is printed.
//! And what is no end.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe::fd_server::FdServer;
use vmstrobe::table::{CryptoOp, CryptoServices, Cryptodev, TableConfig, TableWriter};
use vmstrobe_tests::command::{RUN_LIMIT, spawn};

use super::same::list;
use super::tables::{directory, queue_stats, queues};
use crate::json as parsed;

/// A run ends with the named process, the table in the file, or the other end of the socket.
#[test]
fn a_run_ends_with_its_last_object() {
    let (mut program, pid) = queue_stats();
    let named = format!("process queue_stats (pid {pid}) has ended");
    ends(&["-p", &pid], &named, || program.kill().expect("the child has not been reaped"));

    let directory = directory();
    let path = directory.path().join("xyz");
    let shown = path.to_str().expect("the path is text").to_owned();
    let table = TableWriter::at(&path, TableConfig::of("xyz")).expect("the directory is on tmpfs");
    let queues = queues(&table, &[1]);
    let named = format!("the table {shown} has ended");
    ends(&["--table", &shown], &named, || drop((queues, table)));

    let socket = directory.path().join("xyz.sock");
    let cryptodev = Cryptodev::new().expect("there is memory for a table");
    let device =
        cryptodev.device("c0", CryptoServices::Symmetric).expect("the table has a free slot");
    assert!(device.account(CryptoOp::SymEncrypt, 512));
    let hand_over = FdServer::listen(&socket).expect("the path is free");
    hand_over.offer(Arc::new(cryptodev.table().clone())).expect("the server runs");
    let shown = socket.to_str().expect("the path is text");
    let named = format!("the process behind {shown} has ended");
    ends(&["--from-socket", shown], &named, || drop(hand_over));
}

/// Checks that a measurement of that source ends with it, with a report and a message.
fn ends(source: &[&str], word: &str, end: impl FnOnce()) {
    let mut child = spawn(&[&["stat", "-z", "-i", "50", "--json"], source].concat());
    let mut stdout = BufReader::new(child.stdout.take().expect("the child's stream is a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the child prints lines");
    assert!(!list(&parsed(&line)["stats"]).is_empty(), "{source:?}: {line}");
    end();
    let rest = thread::spawn(move || {
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).map(|_| rest)
    });
    let status = child.wait_within(RUN_LIMIT).expect("the process ends in time");
    rest.join()
        .expect("the thread does not panic")
        .expect("the output is text")
        .lines()
        .for_each(|line| drop(parsed(line)));
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .expect("the child's stream is a pipe")
        .read_to_string(&mut stderr)
        .expect("the output is text");
    assert_eq!((status.code(), stderr), (Some(1), format!("vmstrobe: {word}\n")), "{source:?}");
}

/// A queue that is removed and made again at once has not ended.
#[test]
fn an_object_that_is_made_again_does_not_end_a_run() {
    let directory = directory();
    let path = directory.path().join("xyz");
    let table = TableWriter::at(&path, TableConfig::of("xyz")).expect("the directory is on tmpfs");
    let mut held = queues(&table, &[1]);
    let shown = path.to_str().expect("the path is text");
    let args = ["stat", "--table", shown, "-z", "-i", "100", "-d", "4s", "--json"];
    let mut child = spawn(&args);
    let mut stdout = BufReader::new(child.stdout.take().expect("the child's stream is a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the child prints lines");
    held.clear();
    thread::sleep(Duration::from_millis(200));
    held = queues(&table, &[1]);
    let mut last = String::new();
    for line in stdout.lines() {
        last = line.expect("the output is text");
    }
    let status = child.wait_within(RUN_LIMIT).expect("the process ends in time");
    assert_eq!(status.code(), Some(0));
    let stats = &parsed(&last)["stats"];
    assert_eq!(stats[0]["name"], "requests", "{last}");
    drop(held);
}
