//! A sampler over real vCPUs of our own, and what tests that run one have in common.
//!
//! Whatever fails here is no finding of the test that uses it, so it panics with a plain text.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe::bpf::Bpf;
use vmstrobe::kvm::{NewVcpu, OwnKvm};
use vmstrobe_core::{Filter, ObjectView, Provider, Registry, Snapshot};
use vmstrobe_guest::{Farm, Vcpu, Vm};
use vmstrobe_sampler::{Control, Fanout, Health, PROVIDER, Roster, Sampler};

use crate::process::POLL;

/// A sampler that has not ticked yet, and what belongs to it.
#[derive(Debug)]
pub struct Rig {
    /// The roster of what is sampled, to be refreshed or watched.
    pub roster: Roster,
    /// The sampler.
    pub sampler: Sampler,
    /// Its handle.
    pub control: Control,
}

/// A sampler of what these filters want of this provider, and of its own health.
///
/// # Panics
///
/// If a filter cannot be understood, or something cannot be opened.
pub fn rig(provider: Arc<dyn Provider>, filters: &[&str], fanout: Fanout) -> Rig {
    let (health, health_writer) = Health::new();
    let registry = Registry::default();
    registry.add(provider);
    registry.add(Arc::new(health));
    let filters: Vec<Filter> =
        filters.iter().map(|text| text.parse().expect("the filter is well-formed")).collect();
    let mut roster = Roster::new(registry, filters);
    let sources = roster.open().expect("the objects open");
    let (sampler, control) =
        Sampler::new(sources, health_writer, fanout).expect("threads can be started");
    Rig { roster, sampler, control }
}

/// The provider of a VM of ours with these vCPUs, none of which runs.
///
/// # Panics
///
/// If KVM refuses.
pub fn own_kvm(name: &str, vm: &Vm, vcpus: &[Vcpu]) -> Arc<OwnKvm> {
    own_kvm_by(Bpf::off(), name, vm, vcpus)
}

/// Makes the provider of [`own_kvm`], with the BPF reader or without.
///
/// # Panics
///
/// As [`own_kvm`] does.
pub fn own_kvm_by(bpf: Bpf, name: &str, vm: &Vm, vcpus: &[Vcpu]) -> Arc<OwnKvm> {
    let kvm = OwnKvm::with_bulk(name, vm.fd(), bpf).expect("a VM of ours has statistics");
    for vcpu in vcpus {
        // On this thread: a vCPU that never runs cannot keep it waiting.
        kvm.add_vcpu(NewVcpu::here(vcpu.id(), vcpu.fd())).expect("a vCPU of ours has statistics");
    }
    Arc::new(kvm)
}

/// Makes `vcpus` vCPUs that do not run in one VM, `/vm/farm`, and their provider.
///
/// # Panics
///
/// If KVM refuses.
pub fn farm(vcpus: usize) -> (Farm, Arc<OwnKvm>) {
    let farm = Farm::new(vcpus).expect("KVM can make vCPUs");
    let [vm] = farm.vms() else { panic!("{vcpus} vCPUs do not fit one VM") };
    let kvm = own_kvm("farm", vm.vm(), vm.vcpus());
    (farm, kvm)
}

/// Sets the flag when it goes, also by a panic: so threads that wait for it end in any case.
#[derive(Debug)]
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The path of vCPU `index` of a VM of that name.
pub fn vcpu_path(vm: &str, index: u32) -> String {
    format!("/vm/{vm}/vcpu[{index}]")
}

/// The sampler's own health, as this snapshot shows it.
///
/// # Panics
///
/// If it was not sampled or could not be read.
pub fn health<'a>(snapshot: &'a Snapshot, name: &str) -> u64 {
    let its_own = |view: &ObjectView<'a>| view.object().schema.provider() == PROVIDER;
    let view = snapshot.objects().find(its_own).expect("health is sampled");
    let value = view.get(name).unwrap_or_else(|| panic!("{name}: {:?}", view.state()));
    value.number().expect("the statistic is a number")
}

/// Looks again and again until it is so.
///
/// # Panics
///
/// If it is not within the limit.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !so() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Prints a line that the test harness does not keep to itself: a figure to be seen, not judged.
///
/// # Panics
///
/// If standard output is gone.
pub fn show(line: &str) {
    show_again(&format!("measured: {line}"));
}

/// Prints a line that [`show`] printed in another process.
///
/// # Panics
///
/// If standard output is gone.
pub fn show_again(line: &str) {
    let line = format!("{line}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("standard output takes a line");
}
