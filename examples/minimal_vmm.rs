//! A minimal VMM that serves its own statistics, for the author of a VMM to copy.
//!
//! The VMM is one VM with two vCPUs; the guest writes to a port in a loop and halts now and then.
//! The code for vmstrobe is between the marker comments, 15 lines in all:
//!
//! * Before a vCPU runs, its statistics are opened; later, the kernel would make that wait.
//! * While the vCPUs run, a QMP server answers `query-stats` and `info stats` on a Unix socket, as
//!   QEMU would, and one thread samples the statistics 1000 times a second. Neither stops a vCPU.
//! * At the end it prints how much the statistics have grown.
//!
//! ```text
//! cargo run --release --example minimal_vmm -- [--seconds N] [SOCKET]
//! qmp-shell -p SOCKET
//! (QEMU) query-stats target=vcpu
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, io, process, thread};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use memmap2::{MmapMut, MmapRaw};
// vmstrobe: from here
use vmstrobe::server::qmp::{Config, Server};
use vmstrobe::{Attachment, NewVcpu, OwnKvm, Registry};
// vmstrobe: to here

const VCPUS: u64 = 2;
const MEMORY_BYTES: usize = 0x2000;
const GUEST_START: usize = 0x1000;

/// The guest, in 16-bit real mode.
#[rustfmt::skip] // one instruction to a line
const GUEST: &[u8] = &[
    0xb9, 0xe8, 0x03, // work:  mov cx, 1000
    0xe6, 0xe0,       // again: out 0xe0, al
    0xe2, 0xfc,       //        loop again
    0xf4,             //        hlt
    0xeb, 0xf6,       //        jmp work
];

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let (run_time, socket) = arguments()?;
    let mut machine = Machine::new()?;

    // vmstrobe: from here
    let kvm = OwnKvm::new("minimal", &machine.vm)?;
    for (index, vcpu) in (0..).zip(&machine.vcpus) {
        kvm.add_vcpu(NewVcpu::new(index, vcpu))?;
    }
    let registry = Registry::default();
    registry.add(Arc::new(kvm));
    let _server = Server::listen(&socket, registry.clone(), Config::default())?;
    let session = Attachment::of(registry).sample("vcpu", 1000.0)?;
    // vmstrobe: to here

    println!("{VCPUS} vCPUs run for {run_time:?}; ask them: qmp-shell -p {}", socket.display());

    // vmstrobe: from here
    let (ran, measured) = vmstrobe::measure(session, || machine.run(run_time))?;
    for stat in measured.tally.stats(true).iter().filter(|stat| !stat.is_at_rest()) {
        let path = stat.path.as_deref().unwrap_or_default();
        println!("{path} {}: +{}", stat.desc().name, stat.amount.total());
    }
    // vmstrobe: to here
    ran
}

/// A VM with vCPUs that do not run yet.
struct Machine {
    vcpus: Vec<VcpuFd>,
    vm: VmFd,
    // The last field: fields drop in this order, and the memory must outlive the vCPUs.
    _memory: MmapRaw,
}

impl Machine {
    fn new() -> Result<Machine> {
        let kvm = Kvm::new().map_err(|error| format!("cannot open /dev/kvm: {error}"))?;
        let vm = kvm.create_vm()?;
        // Old Intel CPUs cannot run real mode: KVM emulates it and needs three pages for that.
        vm.set_tss_address(0xfffb_d000)?;

        let mut image = MmapMut::map_anon(MEMORY_BYTES)?;
        image[GUEST_START..][..GUEST.len()].copy_from_slice(GUEST);
        let memory = MmapRaw::from(image);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY_BYTES as u64,
            userspace_addr: memory.as_mut_ptr() as u64,
        };
        // SAFETY: the range must be mapped, overlap no other slot, and outlive the vCPUs that can
        // run the guest; and Rust must expect the guest's writes. The range is the whole of
        // `memory`, in the only slot; `Machine` drops it after its vCPUs; and a `MmapRaw` gives
        // out no references.
        unsafe { vm.set_user_memory_region(region)? };

        let vcpus = (0..VCPUS).map(|id| vcpu(&vm, id)).collect::<Result<_>>()?;
        Ok(Machine { vcpus, vm, _memory: memory })
    }

    /// Runs every vCPU on a thread of its own for this time.
    fn run(&mut self, time: Duration) -> Result<()> {
        let stop = &AtomicBool::new(false);
        thread::scope(|scope| {
            let start = |vcpu| scope.spawn(move || run(vcpu, stop));
            let threads: Vec<_> = self.vcpus.iter_mut().map(start).collect();
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().expect("the thread does not panic"))
        })
    }
}

/// Creates a vCPU that will start the guest, in real mode with flat segments.
fn vcpu(vm: &VmFd, id: u64) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(id)?;
    let mut sregs = vcpu.get_sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rflags) = (GUEST_START as u64, 1 << 1); // a bit that is always set
    vcpu.set_regs(&regs)?;
    Ok(vcpu)
}

/// Runs a vCPU until it halts after `stop` is set. It halts every few ms.
fn run(vcpu: &mut VcpuFd, stop: &AtomicBool) -> Result<()> {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(..)) => {} // there is no device at that port
            Ok(VcpuExit::Hlt) if stop.load(Ordering::Relaxed) => return Ok(()),
            Ok(VcpuExit::Hlt) => thread::sleep(Duration::from_millis(1)),
            Ok(exit) => return Err(format!("the guest left with {exit:?}").into()),
            Err(error) => match io::Error::from(error) {
                signal if signal.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error.into()),
            },
        }
    }
}

fn arguments() -> Result<(Duration, PathBuf)> {
    let (mut seconds, mut socket) = (3.0, None);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--seconds" => seconds = arguments.next().ok_or("--seconds needs a number")?.parse()?,
            path => socket = Some(PathBuf::from(path)),
        }
    }
    let default = || env::temp_dir().join(format!("minimal_vmm-{}.sock", process::id()));
    Ok((Duration::try_from_secs_f64(seconds)?, socket.unwrap_or_else(default)))
}
