//! The helper on this very machine: what it finds, what it hands over, and processes that keep it
//! waiting.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vmstrobe_testing::soon;

use super::*;
use crate::gone_epoch::GoneEpoch;

const THIS: fn() -> u32 = std::process::id;

fn process(pid: u32) -> Process {
    Process::open(pid, &GoneEpoch::default()).unwrap()
}

/// Memory of a table's name.
fn table(name: &str) -> OwnedFd {
    memfd(format!("vmstrobe-table:{name}").as_str(), MemfdFlags::ALLOW_SEALING).unwrap()
}

#[test]
fn only_memory_is_seen_as_a_table() {
    let table = table("host-sees-me");
    // Not memory, whatever its name.
    let dir = std::env::temp_dir().join(format!("vmstrobe-host-{}", THIS()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = File::create(dir.join("memfd:vmstrobe-table:x")).unwrap();
    let seen = Host::default().look(THIS(), Care::FULL).unwrap();
    let names: Vec<_> = seen.tables.iter().map(|table| &table.name[..]).collect();
    assert!(names.contains(&&b"host-sees-me (deleted)"[..]), "{seen:?}");
    assert!(seen.tables.iter().all(|table| table.fd != file.as_raw_fd()));
    std::fs::remove_dir_all(dir).unwrap();
    drop(table);
}

#[test]
fn only_the_file_that_was_meant_is_borrowed() {
    let memory = table("borrow-me");
    let other = File::open("/dev/null").unwrap();
    let host = Host::default();
    let wanted = [
        (memory.as_raw_fd(), None),
        (other.as_raw_fd(), None),
        (other.as_raw_fd(), Some(KvmLink::Vm)),
        (memory.as_raw_fd(), Some(KvmLink::Vm)),
        (1 << 20, None),
    ];
    let borrowed = host.borrow(&process(THIS()), &wanted).unwrap();
    let errors: Vec<_> = borrowed.iter().map(|fd| fd.as_ref().err().copied()).collect();
    let gone = Some(Errno::NOENT);
    assert_eq!(errors, [None, gone, gone, gone, Some(Errno::BADF)]);
    // More than one request names.
    let many = vec![(other.as_raw_fd(), None); wire::MAX_NAMED + 1];
    assert_eq!(host.borrow(&process(THIS()), &many).unwrap().len(), many.len());
    let seen = host.look(THIS(), Care::FULL).unwrap();
    assert!(seen.is_reader, "who borrows bears the mark");
}

#[test]
fn a_crowded_process_is_looked_at_as_far_as_was_said() {
    let files: Vec<File> = (0..20).map(|_| File::open("/dev/null").unwrap()).collect();
    let table = table("crowd");
    let host = Host::default();
    let few = host.look(THIS(), Care { makers: false, fds: 3 }).unwrap();
    assert!(few.is_crowded && few.kvm.is_empty());
    assert!(!host.look(THIS(), Care::FULL).unwrap().is_crowded);
    drop((files, table));
}

#[test]
fn the_arguments_of_a_process_are_whole() {
    let long = "x".repeat(3 * wire::MAX_PACKET_BYTES);
    let mut shell = Command::new("sh");
    let mut child = shell.args(["-c", "read line", &long]).stdin(Stdio::piped()).spawn().unwrap();
    let host = Host::default();
    let want = format!("sh\0-c\0read line\0{long}\0");
    let so = || host.cmdline(child.id()) == want.as_bytes();
    assert!(soon(Duration::from_secs(5), so));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_helper_that_was_killed_is_replaced_and_one_that_is_not_needed_ends() {
    let host = Host::default();
    host.look(THIS(), Care::FULL).unwrap();
    let pid = host.state().helper.as_ref().unwrap().pid();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let again = soon(Duration::from_secs(5), || {
        host.look(THIS(), Care::FULL).is_ok()
            && host.state().helper.as_ref().is_some_and(|helper| helper.pid() != pid)
    });
    assert!(again);
    let pid = host.state().helper.as_ref().unwrap().pid();
    drop(host);
    assert!(!std::fs::exists(format!("/proc/{}", pid.as_raw_nonzero())).unwrap());
}

#[test]
fn who_does_not_exist_is_not_found() {
    let mut child: Child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let error = Host::default().look(child.id(), Care::FULL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn one_file_is_one_class() {
    let (a, b) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
    let again = a.try_clone().unwrap();
    let place = |file: &File| (THIS(), file.as_raw_fd());
    let classes =
        Host::default().classes(&[place(&a), place(&b), place(&again), (THIS(), 1 << 20)]);
    // Not built into every kernel.
    if let Some(classes) = classes {
        assert_eq!(classes, [0, 1, 0, 3]);
    }
    assert_eq!(Host::default().classes(&vec![place(&a); wire::MAX_NAMED + 1]), None);
}
