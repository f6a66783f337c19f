//! Clients that keep to nothing: others are served as before, and the server holds no more.

use std::path::Path;
use std::sync::Mutex;

use rustix::net::{SendFlags, send};
use vmstrobe_core::{ErrorKind, Result};
use vmstrobe_host::Broker;
use vmstrobe_table::TableWriter;
use vmstrobe_testing::soon;

use super::*;
use crate::packet::receive;
use crate::socket::connected;
use crate::tests::{self, Guest, Place, connect, paths, providers, table, told};
use crate::{ExportFds, FdServer};

const LIMIT: Duration = Duration::from_secs(10);

fn deadline() -> Instant {
    Instant::now() + LIMIT
}

/// A connection of somebody who knows no rules.
pub(crate) fn raw(path: &Path) -> OwnedFd {
    connected(path, &Broker::default(), deadline()).unwrap()
}

pub(crate) fn next(socket: &OwnedFd) -> String {
    let packet = receive(socket, Some(deadline())).unwrap().expect("a packet");
    String::from_utf8(packet.text).unwrap()
}

/// Whether the other end was closed, within that time.
fn is_cut_off(socket: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    poll(&mut fds, Some(&limit)).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

#[test]
fn who_never_reads_is_cut_off_and_keeps_nobody_waiting() {
    let Some(guest) = Guest::with_all("web", 64) else { return };
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    let dead: Vec<_> = (1..MAX_CLIENTS).map(|_| raw(&place.socket())).collect();
    thread::sleep(Duration::from_millis(100));
    let before = Instant::now();
    let handed_over = connect(&place.socket()).unwrap();
    // It was served while they were still waited for.
    assert!(!is_cut_off(&dead[0], Duration::ZERO));
    assert_eq!(paths(&providers(&handed_over)[0]).len(), 65);

    // Also what changes now.
    assert!(guest.kvm.remove_vcpu(7));
    assert!(soon(LIMIT, || paths(&providers(&handed_over)[0]).len() == 64));
    for socket in &dead {
        assert!(is_cut_off(socket, 2 * SEND_LIMIT));
    }
    assert!(before.elapsed() > SEND_LIMIT / 2);
    // They were sent little.
    let mut taken = 0;
    while receive(&dead[0], Some(deadline())).unwrap().is_some_and(|p| !p.text.is_empty()) {
        taken += 1;
    }
    assert!((2..=16).contains(&taken), "{taken} packets for somebody who takes none");
    assert_eq!(paths(&providers(&handed_over)[0]).len(), 64);
}

#[test]
fn who_reads_slowly_gets_everything() {
    let Some(guest) = Guest::with_all("web", 40) else { return };
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    let slow = raw(&place.socket());
    let mut texts = Vec::new();
    while texts.last().is_none_or(|text| text != "all") {
        texts.push(next(&slow));
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(texts.len(), 43);
    assert_eq!(
        texts[..3],
        ["vmstrobe-handover 1", "kvm-vm 1.0 /vm/web", "kvm-vcpu 1.1 0 /vm/web/vcpu[0]"]
    );
}

#[test]
fn more_than_may_be_are_told_so() {
    let (table, _object) = table("xyz", "/a");
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(Arc::new(table)).unwrap();
    let mut all: Vec<_> = (0..MAX_CLIENTS).map(|_| connect(&place.socket()).unwrap()).collect();
    for _ in 0..3 {
        let error = connect(&place.socket()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(told(&error).contains("serves no more clients"), "{}", told(&error));
    }
    assert!(all.iter().all(|one| paths(&providers(one)[1]) == ["/a"]));
    all.pop();
    assert!(soon(LIMIT, || connect(&place.socket()).is_ok()));
}

#[test]
fn a_thousand_who_come_and_go_do_no_harm() {
    let Some(guest) = Guest::with_all("web", 2) else { return };
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    let handed_over = connect(&place.socket()).unwrap();
    let kept: Vec<_> = (0..1000)
        .map(|n| (n, raw(&place.socket())))
        .filter_map(|(n, socket)| (n % 10 == 0).then_some(socket))
        .collect();
    assert_eq!(paths(&providers(&handed_over)[0]).len(), 3);
    drop(kept);
    assert!(soon(LIMIT, || connect(&place.socket()).is_ok()));
    assert_eq!(paths(&providers(&handed_over)[0]).len(), 3);
    drop(hand_over);
}

#[test]
fn what_borrowers_say_is_not_heard() {
    let (table, _object) = table("xyz", "/a");
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(Arc::new(table)).unwrap();
    let socket = raw(&place.socket());
    let texts: Vec<_> = (0..3).map(|_| next(&socket)).collect();
    assert_eq!(texts, ["vmstrobe-handover 1", "table 1.0", "all"]);
    assert_eq!(send(&socket, b"gone 1.0", SendFlags::NOSIGNAL), Err(Errno::PIPE));
    // The client is served as before.
    let (other, _object) = tests::table("abc", "/b");
    hand_over.offer(Arc::new(other)).unwrap();
    assert_eq!([next(&socket), next(&socket)], ["table 2.0", "all"]);
    drop(hand_over);
    assert_eq!(next(&socket), "");
}

/// Has tables that come and go.
#[derive(Debug, Default)]
struct Shelf(Mutex<Vec<(u64, TableWriter)>>);

impl ExportFds for Shelf {
    fn exports(&self) -> Result<Vec<ExportedFd>> {
        let tables = self.0.lock().unwrap();
        tables.iter().map(|(key, table)| Ok(ExportedFd::table(*key, table.descriptor()?))).collect()
    }
}

#[test]
fn tables_over_the_limit_wait_until_another_is_lent_no_more() {
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    let shelves = [Arc::new(Shelf::default()), Arc::new(Shelf::default())];
    let put = |shelf: usize, key| {
        let table = TableWriter::new("xyz").unwrap();
        shelves[shelf].0.lock().unwrap().push((key, table));
    };
    for shelf in &shelves {
        hand_over.offer(Arc::clone(shelf) as _).unwrap();
    }
    (1..MAX_TABLES as u64).for_each(|key| put(1, key));
    let socket = raw(&place.socket());
    let exported: Vec<_> = (0..=MAX_TABLES).map(|_| next(&socket)).collect();
    assert_eq!(
        (&*exported[0], &*exported[1], &*exported[16]),
        ("vmstrobe-handover 1", "table 2.1", "all")
    );
    // Only one has room, and none that is exported already makes way for others.
    (1..=3).for_each(|key| put(0, key));
    assert_eq!([next(&socket), next(&socket)], ["table 1.1", "all"]);
    shelves[1].0.lock().unwrap().drain(3..5);
    let texts: Vec<_> = (0..5).map(|_| next(&socket)).collect();
    assert_eq!(texts, ["gone 2.4", "gone 2.5", "table 1.2", "table 1.3", "all"]);
    connect(&place.socket()).unwrap();
}
