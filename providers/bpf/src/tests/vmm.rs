//! A VMM in a process of its own, which can be killed: two vCPUs that have run, and no stats fd.
//!
//! Invariant: it is ended when it is dropped, and ends by itself when we do.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::process::{Child, ChildStdout, Command, Stdio};

use vmstrobe_guest::Farm;
use vmstrobe_host::{Care, GoneEpoch, Host, KvmLink, Process};

const VMM: &str = "tests::vmm::a_vmm_that_waits";
const VCPUS: usize = 2;
/// The text that the VMM prints once it has done something; its test harness prints others.
const DONE: &str = "the VMM has done it";

/// The VMM below.
pub(crate) struct Vmm {
    child: Child,
    said: BufReader<ChildStdout>,
    /// The handle by which its descriptors are borrowed; nobody watches it for its end.
    process: Process,
}

impl Vmm {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", VMM, "--nocapture"])
            .env(VMM, "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let process = Process::open(child.id(), &GoneEpoch::default()).unwrap();
        let mut vmm = Self { child, said, process };
        vmm.wait();
        vmm
    }

    /// Its VM's own descriptor.
    pub(crate) fn vm(&self) -> OwnedFd {
        self.borrow(KvmLink::Vm)
    }

    /// Its vCPUs' own descriptors.
    pub(crate) fn vcpus(&self) -> [OwnedFd; VCPUS] {
        [0, 1].map(|id| self.borrow(KvmLink::Vcpu(id)))
    }

    fn borrow(&self, link: KvmLink) -> OwnedFd {
        let links = kvm_links(self.child.id());
        let (fd, _) = links.into_iter().find(|(_, known)| *known == link).unwrap();
        let borrowed = Host::default().borrow(&self.process, &[(fd, Some(link))]).unwrap();
        borrowed.into_iter().next().unwrap().unwrap()
    }

    /// Has it close its descriptors, and its memory with them.
    pub(crate) fn close(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap(), "close").unwrap();
        self.wait();
        assert_eq!(kvm_links(self.child.id()), []);
    }

    /// Kills it, and does not wait for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    fn wait(&mut self) {
        let mut line = String::new();
        while !line.trim_end().ends_with(DONE) {
            line.clear();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it has ended");
        }
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// KVM's descriptors of a process, ascending.
fn kvm_links(pid: u32) -> Vec<(RawFd, KvmLink)> {
    let seen = Host::default().look(pid, Care { makers: false, ..Care::FULL }).unwrap();
    seen.kvm.iter().map(|seen| (seen.fd, seen.link)).collect()
}

/// No test, but what [`Vmm`] runs.
#[test]
fn a_vmm_that_waits() {
    if env::var_os(VMM).is_none() {
        return;
    }
    let farm = Farm::new(VCPUS).unwrap();
    farm.run_each(20, 1).unwrap();
    let mut farm = Some(farm);
    println!("{DONE}");
    for line in io::stdin().lines() {
        assert_eq!(line.unwrap(), "close");
        farm = None;
        println!("{DONE}");
    }
    drop(farm);
}
