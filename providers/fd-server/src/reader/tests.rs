//! Lenders that keep to nothing: each is refused in time, and what it sent is closed.

use std::fs;
use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread::JoinHandle;

use rustix::cmsg_space;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept, bind, listen, recv, sendmsg, socket_with,
};
use vmstrobe_core::{RowState, Target};
use vmstrobe_kvm::kvm_get_stats_fd;
use vmstrobe_testing::{soon, states, tick};

use super::*;
use crate::FdClient;
use crate::tests::{Guest, Place, connect, opened, providers, table, told};

const LIMIT: Duration = Duration::from_secs(10);
pub(crate) const HELLO: &[u8] = b"vmstrobe-handover 1";

/// Packets, each with its descriptors.
type Script<'a> = Vec<(&'a [u8], Vec<BorrowedFd<'a>>)>;

pub(crate) fn listening(path: &Path) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&socket, 1).unwrap();
    socket
}

pub(crate) fn say(
    socket: &OwnedFd,
    packet: &[u8],
    fds: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Says all that, as far as it is listened to, and waits until the other end is closed.
fn play(socket: &OwnedFd, script: &Script<'_>) {
    for (packet, fds) in script {
        if say(socket, packet, fds).is_err() {
            break;
        }
    }
    while recv(socket, &mut [0_u8; 1][..], RecvFlags::empty()).is_ok_and(|(_, bytes)| bytes > 0) {}
}

/// Connects to a server with that script; returns the result, and the time that it took.
fn outcome(script: &Script<'_>) -> (Result<FdClient>, Duration) {
    let place = Place::new();
    let socket = listening(&place.socket());
    thread::scope(|scope| {
        scope.spawn(|| play(&accept(&socket).unwrap(), script));
        let before = Instant::now();
        let outcome = connect(&place.socket());
        let took = before.elapsed();
        // Closed here: the script ends with that.
        (outcome.inspect_err(|_| ()), took)
    })
}

fn refused(script: &Script<'_>, kind: ErrorKind, text: &str) -> Duration {
    let (outcome, took) = outcome(script);
    let error = outcome.expect_err(text);
    assert_eq!(error.kind(), kind, "{}", told(&error));
    assert!(told(&error).contains(text), "{}", told(&error));
    assert!(error.to_string().starts_with("cannot use the descriptors offered at /"), "{error}");
    took
}

/// True once nobody has the other end.
fn is_closed(pipe: impl AsFd) -> bool {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
    poll(&mut fds, Some(&limit)).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

/// A server in a thread, which says hello and then does as it is told.
pub(crate) fn server<T: Send + 'static>(
    path: &Path,
    act: impl FnOnce(&OwnedFd) -> T + Send + 'static,
) -> JoinHandle<T> {
    let socket = listening(path);
    thread::spawn(move || {
        let socket = accept(&socket).unwrap();
        say(&socket, HELLO, &[]).unwrap();
        act(&socket)
    })
}

#[test]
fn what_is_no_server_is_refused_at_once() {
    let long = [b'x'; MAX_PACKET_BYTES + 1];
    let malformed = ErrorKind::Malformed;
    for (script, kind, text) in [
        (vec![&b"HTTP/1.1 400 Bad Request"[..]], malformed, "the unknown packet 'HTTP/1.1 400"),
        (vec![b"\x00\x01\x02"], malformed, "no line of text"),
        (vec![b"\xff"], malformed, "no line of text"),
        (vec![&long], malformed, "a packet of over 512 bytes"),
        (vec![&[b'x'; 100_000]], malformed, "a packet of over 512 bytes"),
        (vec![b""], malformed, "closes the connection at once"),
        (vec![b"all"], malformed, "'all' at the wrong time"),
        (vec![b"vmstrobe-handover 2"], ErrorKind::Unsupported, "speaks version 2 of the protocol"),
        (vec![HELLO, HELLO], malformed, "'vmstrobe-handover 1' at the wrong time"),
        (vec![HELLO, b"full"], ErrorKind::Busy, "serves no more clients"),
        (vec![HELLO, b"gone 1.1"], malformed, "1.1 is gone, which was not there"),
        (vec![HELLO, b"anything 1.1"], malformed, "unknown packet"),
        (vec![HELLO, b""], ErrorKind::NotFound, "the server has ended"),
    ] {
        let script = script.into_iter().map(|packet| (packet, Vec::new())).collect();
        let took = refused(&script, kind, text);
        assert!(took < Duration::from_secs(1), "{text}: {took:?}");
    }
}

#[test]
fn who_says_nothing_is_waited_for_no_longer_than_the_limit() {
    for (script, text) in
        [(vec![], "nothing was sent"), (vec![(HELLO, Vec::new())], "not everything arrived within")]
    {
        let took = refused(&script, ErrorKind::Busy, text);
        assert!(took >= CONNECT_LIMIT && took < 2 * CONNECT_LIMIT, "{took:?}");
    }
    // Nobody accepts, and the queue is full.
    let place = Place::new();
    let socket = listening(&place.socket());
    thread::scope(|scope| {
        let connects: Vec<_> = (0..8).map(|_| scope.spawn(|| connect(&place.socket()))).collect();
        let errors = connects.into_iter().map(|thread| thread.join().unwrap().unwrap_err());
        let busy = errors.inspect(|error| assert_eq!(error.kind(), ErrorKind::Busy));
        assert!(
            busy.filter(|error| error.to_string().contains("accepts no connection")).count() > 0
        );
    });
    drop(socket);
}

#[test]
fn what_is_not_what_it_is_called_is_refused_and_closed() {
    let Some(guest) = Guest::new("x", 1) else { return };
    let vcpu = kvm_get_stats_fd(guest.vcpus[0].fd()).unwrap();
    let vm = kvm_get_stats_fd(guest.vm.fd()).unwrap();
    let (pipe_end, pipe) = io::pipe().unwrap();
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let zero = fs::File::open("/dev/zero").unwrap();
    let file = fs::File::open("/proc/self/exe").unwrap();
    let (table, _object) = table("xyz", "/a");
    let table = table.descriptor().unwrap();
    let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memory, 4096).unwrap();
    let others = [pipe.as_fd(), event.as_fd(), zero.as_fd(), file.as_fd(), memory.as_fd()];
    let wrong = [vm.as_fd(), guest.vcpus[0].fd(), guest.vm.fd(), table.as_fd()];
    for fd in others.into_iter().chain(wrong) {
        let script = vec![(HELLO, vec![]), (b"kvm-vcpu 1.1 0 /x", vec![fd])];
        let text = "something else as 'kvm-vcpu 1.1 0 /x'";
        assert!(refused(&script, ErrorKind::Malformed, text) < Duration::from_secs(1));
    }
    for fd in others.into_iter().chain([vcpu.as_fd(), table.as_fd()]) {
        let script = vec![(HELLO, vec![]), (b"kvm-vm 1.1 /x", vec![fd])];
        refused(&script, ErrorKind::Malformed, "something else as 'kvm-vm 1.1 /x'");
    }
    for fd in [pipe.as_fd(), event.as_fd(), zero.as_fd(), file.as_fd(), vcpu.as_fd()] {
        let script = vec![(HELLO, vec![]), (b"table 1.1", vec![fd])];
        refused(&script, ErrorKind::Malformed, "something else as 'table 1.1'");
    }
    let script = vec![(HELLO, vec![]), (b"table 1.1", vec![memory.as_fd()])];
    refused(&script, ErrorKind::Malformed, "not a table");
    drop(pipe);
    assert!(is_closed(pipe_end));
}

#[test]
fn one_descriptor_comes_with_an_export_and_none_with_anything_else() {
    let Some(guest) = Guest::new("x", 0) else { return };
    let vm = kvm_get_stats_fd(guest.vm.fd()).unwrap();
    let (pipe_end, pipe) = io::pipe().unwrap();
    let vm_export = b"kvm-vm 1.1 /x";
    for (packet, fds, text) in [
        (&vm_export[..], 0, "'kvm-vm 1.1 /x' with 0 descriptors"),
        (vm_export, 2, "'kvm-vm 1.1 /x' with 2 descriptors"),
        (b"table 1.1", 250, "and more descriptors"),
        (b"all", 1, "'all' with 1 descriptors"),
        (b"all", 250, "and more descriptors"),
        (HELLO, 1, "'vmstrobe-handover 1' with 1 descriptors"),
        (b"anything", 250, "the unknown packet"),
        (b"", 3, "the unknown packet ''"),
    ] {
        let script = vec![
            (HELLO, vec![]),
            (packet, vec![vm.as_fd(); fds]),
            (packet, vec![pipe.as_fd(); fds]),
            (packet, vec![pipe.as_fd(); fds]),
        ];
        refused(&script, ErrorKind::Malformed, text);
        let script = vec![(HELLO, vec![]), (packet, vec![pipe.as_fd(); fds])];
        refused(&script, ErrorKind::Malformed, "");
    }
    drop(pipe);
    assert!(is_closed(pipe_end), "all that was refused is closed, and what was never read");
}

#[test]
fn keys_and_paths_are_not_used_twice() {
    let Some(guest) = Guest::new("x", 0) else { return };
    let vm = kvm_get_stats_fd(guest.vm.fd()).unwrap();
    let mut script = vec![(HELLO, vec![]), (b"kvm-vm 1.1 /x", vec![vm.as_fd()])];
    script.push(script[1].clone());
    refused(&script, ErrorKind::Malformed, "the key 1.1 again");
    script.truncate(2);
    script.extend([(&b"gone 1.1"[..], vec![]), (b"gone 1.1", vec![])]);
    refused(&script, ErrorKind::Malformed, "1.1 is gone, which was not there");
    script.truncate(2);
    script.push((b"kvm-vm 1.3 /x.1.2", vec![vm.as_fd()]));
    script.push((b"kvm-vm 1.2 /x", vec![vm.as_fd()]));
    refused(&script, ErrorKind::Malformed, "the path /x again and again");
}

#[test]
fn there_is_an_end_to_what_is_taken() {
    let Some(guest) = Guest::new("x", 0) else { return };
    let vm = kvm_get_stats_fd(guest.vm.fd()).unwrap();
    let (table, _object) = table("xyz", "/a");
    let table = table.descriptor().unwrap();
    let packets: Vec<_> = (0..=MAX_TABLES).map(|n| format!("table 1.{n}")).collect();
    let mut script = vec![(HELLO, vec![])];
    script.extend(packets.iter().map(|packet| (packet.as_bytes(), vec![table.as_fd()])));
    refused(&script, ErrorKind::TooLarge, "16 tables, which is the limit");

    // Without end, and without ever being done.
    let place = Place::new();
    let socket = listening(&place.socket());
    let server = thread::spawn(move || {
        let socket = accept(&socket).unwrap();
        let mut outcome = say(&socket, HELLO, &[]);
        while outcome.is_ok() {
            outcome = say(&socket, b"kvm-vm 1.1 /x", &[vm.as_fd()]);
            outcome = outcome.and_then(|()| say(&socket, b"gone 1.1", &[]));
        }
    });
    // It is given up, though it goes on for as long as anybody listens.
    let error = connect(&place.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    server.join().unwrap();
}

#[test]
fn a_peer_that_breaks_the_rules_later_is_disconnected() {
    let Some(guest) = Guest::new("x", 0) else { return };
    let vm = kvm_get_stats_fd(guest.vm.fd()).unwrap();
    let (broken, breaks) = std::sync::mpsc::channel::<()>();
    let place = Place::new();
    let server = server(&place.socket(), move |socket| {
        let packets: Script<'_> = vec![(b"kvm-vm 1.1 /x", vec![vm.as_fd()]), (b"all", vec![])];
        packets.iter().for_each(|(packet, fds)| say(socket, packet, fds).unwrap());
        breaks.recv().unwrap();
        play(socket, &vec![(b"anything", vec![])]);
    });
    let handed_over = connect(&place.socket()).unwrap();
    let [kvm, tables] = providers(&handed_over);
    let (object, mut rows) = opened(&kvm, &Target::Vm);
    assert_eq!(states(&mut *rows, &object), [RowState::Good]);
    broken.send(()).unwrap();
    assert!(soon(LIMIT, || states(&mut *rows, &object) == [RowState::Gone]));
    // The server sees that the connection is closed, and ends.
    server.join().unwrap();
    assert!(soon(LIMIT, || kvm.objects().is_err()));
    let error = kvm.objects().unwrap_err();
    assert!(error.to_string().contains("the unknown packet 'anything'"), "{error}");
    assert_eq!(tables.objects().unwrap().len(), 0);
}

#[test]
fn who_sends_without_end_gets_little_of_a_cpu() {
    let Some(guest) = Guest::new("x", 0) else { return };
    let vm = kvm_get_stats_fd(guest.vm.fd()).unwrap();
    let place = Place::new();
    let server = server(&place.socket(), move |socket| {
        say(socket, b"kvm-vm 1.1 /x", &[vm.as_fd()]).unwrap();
        let (began, mut sent) = (Instant::now(), 0_u64);
        while say(socket, b"all", &[]).is_ok() {
            sent += 1;
        }
        (sent, began.elapsed())
    });
    let handed_over = connect(&place.socket()).unwrap();
    let [kvm, _] = providers(&handed_over);
    let (object, mut rows) = opened(&kvm, &Target::Vm);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(tick(&mut *rows, object.schema.data_bytes() / 8).0, [RowState::Good]);
    drop((rows, kvm, handed_over));
    let (sent, took) = server.join().unwrap();
    // 64 in 10 ms, and what lay in the socket's buffer.
    assert!(sent < took.as_millis() as u64 * 64 / 10 + 2000, "{sent} in {took:?}");
}
