//! Real vCPUs with a sampler on them, and the bare loop over the same statistics fds.
//!
//! Invariant: the bare loop reads the very bytes that the sampler's plan spans, into one buffer
//! that stays in the cache, by the same system call; it does nothing else.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::pread;
use vmstrobe::bpf::Bpf;
use vmstrobe::kvm::{NewVcpu, OwnKvm, kvm_get_stats_fd};
use vmstrobe_core::wire::Header;
use vmstrobe_core::{Filter, Registry, RowState};
use vmstrobe_guest::Farm;
use vmstrobe_sampler::{Control, Fanout, HealthWriter, Roster, Sampler, Tick};

/// The filter of three statistics, as a plotting tool would use it.
pub(crate) const THREE: &str = "vcpu: exits, halt_exits, halt_wait_ns";
/// The filter of every statistic.
pub(crate) const ALL: &str = "vcpu";

/// Sampled vCPUs that do not run.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) sampler: Sampler,
    pub(crate) control: Control,
    pub(crate) bare: Bare,
    /// Keeps the VMs.
    _farm: Farm,
}

/// The peer: a loop of pread.
#[derive(Debug)]
pub(crate) struct Bare {
    fds: Vec<OwnedFd>,
    offset: u64,
    /// The buffer, with room to begin at a cache line, where the kernel's copy is fastest.
    buffer: Vec<u64>,
    span_words: usize,
}

impl Bare {
    /// Reads every fd once.
    #[inline]
    pub(crate) fn read(&mut self) {
        let first = self.buffer.as_ptr().align_offset(64);
        let words = &mut self.buffer[first..first + self.span_words];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
        for fd in &self.fds {
            let got = pread(fd, &mut *bytes, self.offset);
            assert_eq!(got, Ok(bytes.len()), "a statistics fd is read whole");
        }
        std::hint::black_box(&mut self.buffer);
    }
}

/// Makes `vcpus` vCPUs, and a sampler that reads the statistics of `filter` by pread.
pub(crate) fn rig(vcpus: usize, filter: &str, fanout: Fanout) -> Result<Rig, Box<dyn Error>> {
    rig_with(vcpus, filter, fanout, Bpf::off())
}

/// Makes a rig as [`rig`] does, which is read by BPF or by pread as `bpf` says.
pub(crate) fn rig_with(
    vcpus: usize,
    filter: &str,
    fanout: Fanout,
    bpf: Bpf,
) -> Result<Rig, Box<dyn Error>> {
    vmstrobe_guest::usable()?;
    let farm = Farm::new(vcpus)?;
    let registry = Registry::default();
    let mut fds = Vec::new();
    for (number, vm) in farm.vms().iter().enumerate() {
        let kvm = OwnKvm::with_bulk(&format!("farm{number}"), vm.vm().fd(), bpf.clone())?;
        for vcpu in vm.vcpus() {
            // On this thread: a vCPU that never runs cannot keep it waiting.
            kvm.add_vcpu(NewVcpu::here(vcpu.id(), vcpu.fd()))?;
            fds.push(kvm_get_stats_fd(vcpu.fd())?);
        }
        registry.add(Arc::new(kvm));
    }
    // Statistics of vCPUs that have run are not 0.
    farm.run_each(4, 1)?;
    let filter: Filter = filter.parse()?;
    let mut roster = Roster::new(registry, vec![filter]);
    let sources = roster.open()?;
    let span = sources.layout().groups()[0].plan.span_bytes();
    let mut header = [0; Header::BYTES];
    pread(&fds[0], &mut header, 0)?;
    let offset = u64::from(Header::parse(&header)?.data_offset) + span.start as u64;
    let (mut sampler, control) = Sampler::new(sources, HealthWriter::default(), fanout)?;
    assert_eq!(sampler.tick(), Tick::Published);
    let newest = control.latest().load_full();
    assert_eq!(newest.objects().count(), vcpus);
    assert!(newest.objects().all(|view| view.state() == RowState::Good));
    let span_words = span.len() / 8;
    let bare = Bare { fds, offset, buffer: vec![0; span_words + 8], span_words };
    Ok(Rig { sampler, control, bare, _farm: farm })
}
