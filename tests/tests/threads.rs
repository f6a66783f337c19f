//! The threads of the library, as /proc shows them: in each of them the program's function has run
//! first, but in the broker's, which is there to keep its capabilities.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::thread::{CapabilitySet, CapabilitySets, gettid, set_capabilities};
use vmstrobe::bpf::{Bpf, BpfMode};
use vmstrobe::fd_server::FdServer;
use vmstrobe::table::{Cryptodev, TableWriter};
use vmstrobe::{Attachment, Broker, NewVcpu, Options, OwnKvm, Sources, ThreadStart, Timing};
use vmstrobe_guest::{Irqchip, Vm};
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::require_lending_qemu;

/// The threads that must have run the function.
const ALL: [&str; 9] = [
    "vmstrobe-export",
    "vmstrobe-import",
    "vmstrobe-qmp",
    "vmstrobe-reaper",
    "vmstrobe-roster",
    "vmstrobe-sched",
    "vmstrobe-stats",
    "vmstrobe-tick",
    "vmstrobe-watch",
];
/// The thread that must not.
const BROKER: &str = "vmstrobe-broker";

/// The threads in which the function has run: the name of each by its number.
type Started = Arc<Mutex<BTreeMap<i32, String>>>;

/// Returns a start of threads that notes each and drops its capabilities.
fn noting(started: &Started) -> ThreadStart {
    let started = Arc::clone(started);
    ThreadStart::new(move || {
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, none).expect("a thread may drop its capabilities");
        let name = fs::read_to_string("/proc/thread-self/comm").expect("/proc is mounted");
        let (number, name) = (gettid().as_raw_nonzero().get(), name.trim_end().to_owned());
        started.lock().expect("the function does not panic").insert(number, name);
        Ok(())
    })
}

/// Returns the name and the effective capabilities of each thread of this process.
fn threads() -> BTreeMap<i32, (String, CapabilitySet)> {
    let entries = fs::read_dir("/proc/self/task").expect("/proc is mounted");
    let of_one = |entry: fs::DirEntry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let bits = u64::from_str_radix(of("CapEff:")?.trim(), 16).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        let name = of("Name:")?.trim().to_owned();
        Some((number, (name, CapabilitySet::from_bits_retain(bits))))
    };
    // One that has ended meanwhile is left out.
    entries.flatten().filter_map(of_one).collect()
}

/// Exports a VM of this process with one vCPU, and a table.
fn exports(path: &Path, vm: &Vm, threads: &ThreadStart) -> FdServer {
    let vcpu = vm.vcpu(0).expect("KVM can make a vCPU");
    let kvm = OwnKvm::with_threads("own", vm.fd(), None, threads.clone());
    let kvm = kvm.expect("a VM of ours has statistics");
    // By a thread of its own, as any but the one that runs the vCPU adds it.
    kvm.add_vcpu(NewVcpu::new(0, vcpu.fd())).expect("it does not run");
    let server = FdServer::with_threads(path, threads).expect("the path is free");
    server.offer(Arc::new(kvm)).expect("the server runs");
    let table = TableWriter::new("exported").expect("there is memory for a table");
    server.offer(Arc::new(table)).expect("the server runs");
    server
}

#[test]
fn the_function_runs_first_in_every_thread_but_the_brokers() {
    if !require_lending_qemu() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let [socket, exported] = ["qmp", "exported"].map(|name| directory.path().join(name));
    let qmp = format!("unix:{},server=on,wait=off", socket.display());
    let extra = ["-qmp", &qmp];
    let qemu = Qemu::start(&Config { name: "threads", vcpus: 1, paused: true, extra: &extra });
    let vm = Vm::new(Irqchip::None).expect("KVM can make a VM");

    let started = Started::default();
    let threads_of_ours = noting(&started);
    let _server = exports(&exported, &vm, &threads_of_ours);
    let cryptodev = Cryptodev::with_threads(threads_of_ours.clone());
    let broker = Broker::start().expect("a thread can be started");
    let bpf = Bpf::with_broker(BpfMode::Off, broker);
    let options = Options { bpf, sched: true, threads: threads_of_ours, ..Options::default() };
    let (qmp, sockets) = (vec![socket], vec![exported]);
    let sources = Sources { pids: vec![qemu.pid()], qmp, sockets, ..Sources::default() };
    let attachment = Attachment::open(&sources, &options).expect("all of them can be read");
    attachment.registry().add(Arc::new(cryptodev.expect("there is memory for a table")));
    let filters = vec!["vcpu".parse().expect("the filter is well-formed")];
    let timing = Timing::hz(10.0).expect("the rate is within the bounds");
    let session = attachment.start(filters, timing).expect("threads can be started");

    let threads = threads();
    let started = started.lock().expect("the function does not panic");
    let names: BTreeSet<&str> = started.values().map(String::as_str).collect();
    assert!(ALL.iter().all(|name| names.contains(name)), "{names:?}");
    let of_ours = threads.iter().filter(|(_, (name, _))| name.starts_with("vmstrobe-"));
    let (brokers, others): (Vec<_>, Vec<_>) = of_ours.partition(|(_, (name, _))| name == BROKER);
    for (number, (name, capabilities)) in others {
        assert_eq!(started.get(number), Some(name), "the function has not run in it");
        assert!(capabilities.is_empty(), "{name}: {capabilities:?}");
    }
    let [(number, (_, capabilities))] = brokers[..] else { panic!("{brokers:?}") };
    assert!(!started.contains_key(number), "the function has run in the broker");
    let here = rustix::thread::capabilities(None).expect("a thread may ask for its own");
    assert_eq!(*capabilities, here.effective, "the broker has lost some");
    drop(session);
}
