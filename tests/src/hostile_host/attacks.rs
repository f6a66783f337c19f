//! The program `attacker`, run as a user without rights: `attacker ATTACK [WORD]`.
//!
//! ```text
//! fuse REQUESTS    serves the file system whose /dev/fuse is standard input
//! hold FILE        has a VM with one vCPU, and that file open
//! exec FILE        executes another program while that file is open, close-on-exec
//! flip FILE        has a VM whose vCPUs' statistics have numbers that are FILE at times
//! descriptors N    has N descriptors of /dev/null
//! many N ATTACK [WORD]    N processes that do the same
//! vm               has a VM with one vCPU
//! lock DIRECTORY   holds the lock of that directory
//! lend FILE SOCKET hands that file over as a table to whoever connects
//! ```
//!
//! It says `ok` when it has begun. Further words (`-name NAME`) are for those who read its command
//! line.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Error, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::fs::{FlockOperation, flock};
use rustix::io::{dup, dup2};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept, bind, listen, sendmsg, socket_with,
};
use rustix::process::{Signal, set_parent_process_death_signal};
use vmstrobe::kvm::OwnKvm;
use vmstrobe_guest::Farm;

use super::nobody::become_nobody;
use super::server;
use crate::host::descriptors::{self, VCPU_STATS};
use crate::rig::own_kvm;

/// The number of vCPUs of [`flip`]. Each has a number that is flipped, and is one more chance to be
/// seen as one thing and borrowed as the other.
const FLIPPED: usize = 8;
/// The time for which each number is the statistics. A reader looks at it more than once.
const SHOWN: Duration = Duration::from_micros(200);
/// The time for which it is the file, which should be borrowed.
const LENT: Duration = Duration::from_micros(20);

/// Runs the attack that the arguments name, until the process is killed.
///
/// # Errors
///
/// If they make no sense, or the attack cannot begin.
pub fn run(args: &[String]) -> io::Result<()> {
    descriptors::raise_limit()?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match *words {
        ["fuse", unanswered] => server::run(unanswered.parse()?),
        ["hold", file, ..] => {
            let _vm = vm(1)?;
            become_nobody()?;
            let _file = open(file)?;
            rest()
        }
        ["exec", file] => {
            become_nobody()?;
            let _file = open(file)?;
            say_ok()?;
            // It returns only if it fails: the file is close-on-exec.
            Err(Command::new("sleep").arg("1000").exec())
        }
        ["flip", file, ..] => {
            let _vm = vm(FLIPPED)?;
            become_nobody()?;
            flip(&open(file)?)
        }
        ["descriptors", number] => {
            become_nobody()?;
            let null = File::open("/dev/null")?;
            let number = number.parse().map_err(Error::other)?;
            let _copies = (0..number).map(|_| dup(&null)).collect::<Result<Vec<OwnedFd>, _>>()?;
            rest()
        }
        ["many", number, ref attack @ ..] => many(number.parse().map_err(Error::other)?, attack),
        ["vm", ..] => {
            let _vm = vm(1)?;
            become_nobody()?;
            rest()
        }
        ["lock", directory] => {
            become_nobody()?;
            let directory = File::open(directory)?;
            flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
            rest()
        }
        ["lend", file, socket] => {
            let listening = listening(socket)?;
            become_nobody()?;
            lend(&open(file)?, &listening)
        }
        _ => Err(Error::other(format!("there is no attack {words:?}"))),
    }
}

fn say_ok() -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(b"ok\n")?;
    stdout.flush()
}

/// Prints that the attack has begun, and sleeps until the process is killed.
fn rest() -> io::Result<()> {
    // The change of the user id has cleared it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    say_ok()?;
    loop {
        thread::park();
    }
}

/// Makes a VM with these vCPUs and opens their statistics. For root, before it becomes nobody.
fn vm(vcpus: usize) -> io::Result<(Farm, Arc<OwnKvm>)> {
    let farm = Farm::new(vcpus).map_err(Error::other)?;
    let [vm] = farm.vms() else { return Err(Error::other("they do not fit one VM")) };
    let kvm = own_kvm("own", vm.vm(), vm.vcpus());
    Ok((farm, kvm))
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn flip(file: &File) -> io::Result<()> {
    let stats = descriptors::own(VCPU_STATS)?.into_iter().map(descriptors::copy);
    let stats = stats.collect::<io::Result<Vec<OwnedFd>>>()?;
    let mut flipped = stats.iter().map(dup).collect::<Result<Vec<OwnedFd>, _>>()?;
    say_ok()?;
    thread::scope(|scope| {
        let threads = stats.iter().zip(&mut flipped).map(|(stats, number)| {
            scope.spawn(move || -> io::Result<()> {
                loop {
                    dup2(stats, number)?;
                    thread::sleep(SHOWN);
                    dup2(file, number)?;
                    thread::sleep(LENT);
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a thread of dup2 does not panic"))
    })
}

/// Listens as whoever hands descriptors over does.
fn listening(path: &str) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 8)?;
    Ok(socket)
}

fn lend(file: &File, listening: &OwnedFd) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    say_ok()?;
    let send = |to: &OwnedFd, packet: &[u8], fds: &[BorrowedFd<'_>]| -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Error::other("no room for a descriptor"));
        }
        Ok(sendmsg(to, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL).map(drop)?)
    };
    let mut clients = Vec::new();
    loop {
        let client = accept(listening)?;
        send(&client, b"vmstrobe-handover 1", &[])?;
        send(&client, b"table 1.1", &[file.as_fd()])?;
        // Its other end may be with a process that waits for the file.
        clients.push(client);
    }
}

/// Starts so many of this program, and waits until each has begun.
fn many(number: usize, attack: &[&str]) -> io::Result<()> {
    let program = env::current_exe()?;
    let start =
        |_| Command::new(&program).args(attack).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut children = (0..number).map(start).collect::<io::Result<Vec<Child>>>()?;
    for child in &mut children {
        let stdout = child.stdout.take().ok_or_else(|| Error::other("no standard output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line != "ok\n" {
            return Err(Error::other(format!("{attack:?} does not begin: {line}")));
        }
    }
    become_nobody()?;
    rest()
}
