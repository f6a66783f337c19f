//! The guest of `vmstrobe demo`: several vCPUs whose loads differ and change over time.
//!
//! Each vCPU sleeps in the kernel on its own local-APIC timer, wakes, reads from ports the number
//! of writes to make and the time to sleep next (`load.rs` has them), does it, and sleeps again. So
//! exits, halts, `halt_wait_ns`, its histogram and `blocking` all move, at little cost.
//!
//! Invariant: a running vCPU comes back to its thread at least every [`load::PERIOD_NS_MAX`]
//! (40 ms), because each answer arms a timer at most that long and the wake-up ends in a port
//! read. The stop flag is read at each of these, which bounds [`DemoGuest::stop`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::code::{DEMO_ENTRY, PORT_OUTS, PORT_PERIOD_NS, PORT_WORK, STACKS, stack_top};
use crate::error::{EINTR, Error, refused};
use crate::load::{self, Load};
use crate::machine::{Irqchip, Vcpu, Vm};
use crate::processor;

/// A guest with changing loads: [`DemoGuest::new`], take the fds, then [`DemoGuest::start`].
///
/// ```no_run
/// # use vmstrobe_guest::DemoGuest;
/// # fn main() -> Result<(), vmstrobe_guest::Error> {
/// let mut guest = DemoGuest::new(4)?;
/// for vcpu in guest.vcpus() {
///     println!("{:?}: {}", vcpu.fd(), DemoGuest::describe(vcpu.id()));
/// }
/// guest.start()?;
/// std::thread::sleep(std::time::Duration::from_secs(5));
/// guest.stop()
/// # }
/// ```
#[derive(Debug)]
pub struct DemoGuest {
    threads: Vec<JoinHandle<Result<(), Error>>>,
    shared: Arc<Shared>,
    vm: Vm,
}

/// The state that the vCPU threads and the owner share.
#[derive(Debug)]
struct Shared {
    vcpus: Vec<Vcpu>,
    exits_seen: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl DemoGuest {
    /// Builds a guest with `vcpus` vCPUs, 1 to 64; nothing runs yet.
    ///
    /// Running costs about 5 % of a CPU for each vCPU where KVM emulates real mode.
    ///
    /// # Errors
    /// If KVM is unusable or refuses a step, or for 0 or too many vCPUs.
    pub fn new(vcpus: u32) -> Result<DemoGuest, Error> {
        if vcpus == 0 || vcpus > STACKS {
            return Err(Error::VcpuCount { asked: vcpus, max: STACKS });
        }
        let vm = Vm::new(Irqchip::InKernel)?;
        let vcpus = (0..vcpus).map(|id| vm.vcpu(id)).collect::<Result<Vec<_>, _>>()?;
        for vcpu in &vcpus {
            make_runnable(&vcpu.hold(), vcpu.id())?;
        }
        let exits_seen = vcpus.iter().map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { vcpus, exits_seen, stop: AtomicBool::new(false) });
        Ok(DemoGuest { threads: Vec::new(), shared, vm })
    }

    /// Returns the VM.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Returns the vCPUs; the index is the vCPU's id. Their fds stay valid while they run.
    pub fn vcpus(&self) -> &[Vcpu] {
        &self.shared.vcpus
    }

    /// Returns a description of the load of vCPU `id`, one line for users.
    pub fn describe(id: u32) -> &'static str {
        load::describe(id)
    }

    /// Returns the number of times that vCPU `id` has returned to its thread.
    ///
    /// The kernel's `exits` is larger: it also counts halts, which end in the kernel.
    ///
    /// # Panics
    /// For an id the guest does not have.
    pub fn exits_seen(&self, id: u32) -> u64 {
        self.shared.exits_seen[id as usize].load(Ordering::Relaxed)
    }

    /// Runs every vCPU on a thread of its own, named as QEMU names them: `CPU 0/KVM`.
    ///
    /// Does nothing if they run already; after [`DemoGuest::stop`] they continue.
    ///
    /// # Errors
    /// If a thread cannot be spawned; none is left running then.
    pub fn start(&mut self) -> Result<(), Error> {
        if !self.threads.is_empty() {
            return Ok(());
        }
        self.shared.stop.store(false, Ordering::Relaxed);
        let began = Instant::now();
        for id in 0..self.shared.vcpus.len() {
            let shared = Arc::clone(&self.shared);
            let spawned = thread::Builder::new()
                .name(format!("CPU {id}/KVM"))
                .spawn(move || shared.drive(id, began));
            match spawned {
                Ok(thread) => self.threads.push(thread),
                Err(errno) => {
                    self.stop()?;
                    return Err(Error::Refused { step: "start a vCPU thread", errno });
                }
            }
        }
        Ok(())
    }

    /// Stops and joins the threads, within about 40 ms. Does nothing if none runs.
    ///
    /// # Errors
    /// The first error that ended a vCPU early. All threads have ended in any case.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut outcome = Ok(());
        for (vcpu, thread) in (0..).zip(self.threads.drain(..)) {
            let ended = thread.join().unwrap_or_else(|_| {
                Err(Error::Stray { vcpu, reason: "its thread panicked".to_owned() })
            });
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl Drop for DemoGuest {
    fn drop(&mut self) {
        // A caller that wants to know how the vCPUs ended calls `stop`.
        let _ = self.stop();
    }
}

impl Shared {
    /// Runs vCPU `id` until the stop flag is set.
    fn drive(&self, id: usize, began: Instant) -> Result<(), Error> {
        let vcpu_id = self.vcpus[id].id();
        let mut vcpu = self.vcpus[id].hold();
        // Relaxed: the flag carries no data, and the exit count is only ever a number to show.
        while !self.stop.load(Ordering::Relaxed) {
            match vcpu.run() {
                Ok(exit) => {
                    let load = load::load(vcpu_id, began.elapsed().as_nanos() as u64);
                    answer(vcpu_id, exit, load)?;
                }
                Err(errno) if errno.errno() == EINTR => {}
                Err(errno) => return Err(refused("run a vCPU")(errno)),
            }
            self.exits_seen[id].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Answers one exit of the demo program; the length of `data` is that of its instruction.
fn answer(vcpu: u32, exit: VcpuExit<'_>, load: Load) -> Result<(), Error> {
    match exit {
        VcpuExit::IoOut(PORT_WORK, _) => {}
        VcpuExit::IoIn(PORT_PERIOD_NS, data @ [_, _, _, _]) => {
            data.copy_from_slice(&load.period_ns.to_le_bytes());
        }
        VcpuExit::IoIn(PORT_OUTS, data @ [_, _]) => {
            data.copy_from_slice(&load.outs.to_le_bytes());
        }
        exit => return Err(Error::Stray { vcpu, reason: format!("{exit:?}") }),
    }
    Ok(())
}

/// Gives the vCPU an x2APIC and points it at the demo program.
fn make_runnable(vcpu: &VcpuFd, id: u32) -> Result<(), Error> {
    processor::give_x2apic(vcpu)?;
    // All but vCPU 0 would wait for a start-up interrupt, and no vCPU sends one.
    let runnable = kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE };
    vcpu.set_mp_state(runnable).map_err(refused("make a vCPU runnable"))?;
    processor::enter(vcpu, DEMO_ENTRY, stack_top(id), 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vmstrobe_require::require;

    use super::*;
    use crate::host::usable;

    /// Sleeps until every vCPU has made `exits` more exits; panics after ten seconds.
    fn wait_for_exits(guest: &DemoGuest, exits: u64) {
        let ids = 0..guest.vcpus().len() as u32;
        let goal: Vec<u64> = ids.clone().map(|id| guest.exits_seen(id) + exits).collect();
        let began = Instant::now();
        while ids.clone().any(|id| guest.exits_seen(id) < goal[id as usize]) {
            assert!(began.elapsed() < Duration::from_secs(10), "a vCPU does not move");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn vcpus_have_different_loads() {
        if !require("kvm", usable()) {
            return;
        }
        let mut guest = DemoGuest::new(4).unwrap();
        guest.start().unwrap();
        wait_for_exits(&guest, 20);
        guest.stop().unwrap();

        let seen: Vec<u64> = (0..4).map(|id| guest.exits_seen(id)).collect();
        assert!(seen[3] < seen[2] && seen[2] < seen[1] && seen[0] < seen[1], "{seen:?}");
        assert!(seen[3] * 10 < seen[0], "{seen:?}");
    }

    #[test]
    fn a_stopped_guest_makes_no_exits_and_can_continue() {
        if !require("kvm", usable()) {
            return;
        }
        let mut guest = DemoGuest::new(2).unwrap();
        guest.stop().unwrap();
        for _ in 0..3 {
            guest.start().unwrap();
            guest.start().unwrap();
            wait_for_exits(&guest, 10);
            guest.stop().unwrap();
        }
        let still = guest.exits_seen(0);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(guest.exits_seen(0), still);
    }

    #[test]
    fn a_guest_of_the_largest_size_runs() {
        if !require("kvm", usable()) {
            return;
        }
        let mut guest = DemoGuest::new(STACKS).unwrap();
        guest.start().unwrap();
        wait_for_exits(&guest, 4);
        drop(guest);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for asked in [0, STACKS + 1] {
            let error = DemoGuest::new(asked).unwrap_err().to_string();
            assert_eq!(error, format!("A demo guest cannot have {asked} vCPUs: use 1 to 64"));
        }
    }
}
