//! A VMM that obeys orders, in a process of its own: it makes a VM and vCPUs, closes them again,
//! and keeps only the stats fds that it is told to.
//!
//! It is this test program once more, running only the function below that is not a real test.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use vmstrobe::kvm::kvm_get_stats_fd;
use vmstrobe_guest::{Irqchip, Vcpu, Vm};
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::rig::wait_for;

use crate::LIMIT;

const NAME: &str = "bpf_reader::vmm::a_vmm_that_obeys_orders";

/// The process, which ends when this is dropped.
pub(crate) struct Vmm(Reaped);

impl Vmm {
    pub(crate) fn start() -> Vmm {
        let program = env::current_exe().expect("a test knows its own path");
        let child = Command::new(program)
            .args(["--exact", NAME, "--nocapture"])
            .env(NAME, "")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Vmm(Reaped(child.expect("the program can be executed")))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends an order, and waits until the process has that many VMs and vCPUs.
    #[track_caller]
    pub(crate) fn tell(&mut self, command: &str, count: (usize, usize)) {
        let pid = self.pid();
        writeln!(self.0.stdin.as_mut().expect("the child's stream is a pipe"), "{command}")
            .expect("the server listens");
        wait_for(command, LIMIT, || counted(pid) == count);
    }
}

/// The VMs and vCPUs that a process holds.
fn counted(pid: u32) -> (usize, usize) {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process has not been reaped");
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let links: Vec<_> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let count = |what: fn(&str) -> bool| links.iter().filter(|link| what(link)).count();
    let is_vcpu = |link: &str| link.starts_with("anon_inode:kvm-vcpu:");
    (count(|link| link == "anon_inode:kvm-vm"), count(is_vcpu))
}

/// This is no test but the program that [`Vmm`] runs: it takes `vm`, `vcpu ID`, `stats ID` and
/// `close ID` from its input.
#[test]
fn a_vmm_that_obeys_orders() {
    if env::var_os(NAME).is_none() {
        return;
    }
    let (mut vm, mut vcpus): (Option<Vm>, Vec<Vcpu>) = (None, Vec::new());
    let mut stats = Vec::new();
    for line in io::stdin().lines() {
        let line = line.expect("the child's stream is a pipe");
        let (command, id) = line.split_once(' ').unwrap_or((&line, "0"));
        let id: u32 = id.parse().expect("the text is a number");
        match command {
            "vm" => vm = Some(Vm::new(Irqchip::None).expect("KVM can make a VM")),
            "vcpu" => {
                let vm = vm.as_ref().expect("a VM was created before");
                vcpus.push(vm.vcpu(id).expect("KVM can make vCPUs"));
            }
            "stats" => {
                let vcpu =
                    vcpus.iter().find(|vcpu| vcpu.id() == id).expect("the vCPU was created before");
                stats.push(kvm_get_stats_fd(vcpu.fd()).expect("KVM gives one"));
            }
            "close" => vcpus.retain(|vcpu| vcpu.id() != id),
            _ => panic!("{line}"),
        }
    }
}
