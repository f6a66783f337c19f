//! The CPU time of sampling and recording 64 vCPUs with all their statistics at 1 kHz, over that of
//! a bare loop that sleeps, reads the same descriptors by pread, and writes the raw bytes.
//!
//! Eight vCPUs have the demo's loads and run; the others do not. Both sides read by pread. Of the
//! session, its sampling, its recording and its writing thread count.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::io::pread;
use tempfile::TempDir;
use vmstrobe::kvm::{NewVcpu, OwnKvm, kvm_get_stats_fd};
use vmstrobe::{Attachment, FileOptions, FlightOptions, Recording, Session, Timing};
use vmstrobe_core::wire::Header;
use vmstrobe_core::{Filter, Registry};
use vmstrobe_export::{Compression, Metadata};
use vmstrobe_guest::{DemoGuest, Farm};

use crate::pairs::Effort;
use crate::rig::ALL;
use crate::sleep::{at_1khz, cpu_ns};
use crate::{Goal, Line};

const BUSY: u32 = 8;
const IDLE: usize = 56;
const PAIRS: usize = 9;
/// The time until buffers and dictionaries have their size.
const WARM_UP: Duration = Duration::from_millis(700);
/// The ticks of one side of a pair.
const TICKS: u64 = 2000;
/// The names of the threads that count.
const THREADS: [&str; 3] = ["vmstrobe-tick", "vmstrobe-record", "vmstrobe-write"];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) fn arrows_64(name: &str, effort: Effort) -> Result<Line> {
    measure(name, effort, 1.3, |session, place| {
        let options = FileOptions { overwrite: true, ..FileOptions::default() };
        session.record_to(&place.join("run.arrows"), options)
    })
}

pub(crate) fn perfetto_64(name: &str, effort: Effort) -> Result<Line> {
    measure(name, effort, 1.0, |session, place| {
        let options = FileOptions { overwrite: true, ..FileOptions::default() };
        session.record_to(&place.join("run.pftrace"), options)
    })
}

pub(crate) fn parquet_64(name: &str, effort: Effort) -> Result<Line> {
    measure(name, effort, 1.9, |session, place| {
        let options = FileOptions { overwrite: true, ..FileOptions::default() };
        session.record_to(&place.join("run.parquet"), options)
    })
}

pub(crate) fn flight_64(name: &str, effort: Effort) -> Result<Line> {
    measure(name, effort, 1.3, |session, place| {
        session.fly(FlightOptions {
            last: Duration::from_secs(30),
            memory_bytes: 256 << 20,
            template: place.join("{time}.arrows"),
            compression: Compression::default(),
            trigger: None,
            after: Duration::ZERO,
            metadata: Metadata::default(),
            broker: vmstrobe::Broker::default(),
        })
    })
}

/// The vCPUs, and their descriptors for the bare loop.
pub(crate) struct Vms {
    registry: Registry,
    fds: Vec<OwnedFd>,
    offset: u64,
    _guest: DemoGuest,
    _farm: Farm,
}

impl Vms {
    pub(crate) fn new() -> Result<Self> {
        vmstrobe_guest::usable()?;
        let mut guest = DemoGuest::new(BUSY)?;
        let farm = Farm::new(IDLE)?;
        let (registry, mut fds) = (Registry::default(), Vec::new());
        let demo = OwnKvm::new("demo", guest.vm().fd())?;
        for vcpu in guest.vcpus() {
            demo.add_vcpu(NewVcpu::here(vcpu.id(), vcpu.fd()))?;
            fds.push(kvm_get_stats_fd(vcpu.fd())?);
        }
        registry.add(Arc::new(demo));
        for (number, vm) in farm.vms().iter().enumerate() {
            let kvm = OwnKvm::new(&format!("farm{number}"), vm.vm().fd())?;
            for vcpu in vm.vcpus() {
                kvm.add_vcpu(NewVcpu::here(vcpu.id(), vcpu.fd()))?;
                fds.push(kvm_get_stats_fd(vcpu.fd())?);
            }
            registry.add(Arc::new(kvm));
        }
        farm.run_each(4, 1)?;
        guest.start()?;
        let mut header = [0; Header::BYTES];
        pread(&fds[0], &mut header, 0)?;
        let offset = Header::parse(&header)?.data_offset.into();
        Ok(Self { registry, fds, offset, _guest: guest, _farm: farm })
    }

    pub(crate) fn session(&self) -> Result<Session> {
        let filter: Filter = ALL.parse()?;
        let attachment = Attachment::of(self.registry.clone());
        Ok(attachment.start(vec![filter], Timing::hz(1000.0)?)?)
    }
}

/// Measures the CPU time of a tick, in us.
fn measure(
    name: &str,
    effort: Effort,
    most: f64,
    record: impl Fn(Session, &Path) -> vmstrobe::Result<Recording>,
) -> Result<Line> {
    let (vms, place) = (Vms::new()?, tempfile::tempdir_in("/var/tmp")?);
    let ticks = if effort == Effort::Quick { TICKS / 10 } else { TICKS };
    let row_bytes = {
        let session = vms.session()?;
        8 * session.first().layout().groups()[0].plan.row_words()
    };
    let mut lost = 0;
    let ours = || {
        let session = vms.session().expect("it was sampled before");
        let recording = record(session, place.path()).expect("a thread can be had");
        thread::sleep(WARM_UP);
        let (before_ns, samples) = (threads_ns(), recording.progress().samples);
        thread::sleep(Duration::from_millis(ticks));
        let (after_ns, all) = (threads_ns(), recording.progress().samples);
        lost += recording.stop().expect("there is room").progress.lost_samples;
        (after_ns - before_ns) as f64 / (all - samples) as f64 / 1000.0
    };
    let medians = effort.pairs(PAIRS, ours, || bare(&vms, &place, row_bytes, ticks));
    eprintln!("{name}: {lost} samples lost");
    Ok(Line {
        name: name.into(),
        ours: medians.ours,
        peer: medians.peer,
        ratio: medians.ratio,
        goal: Goal::RatioAtMost(most),
        unit: "us",
    })
}

/// Returns the CPU time of the sampling and the recording thread, in ns, up to their last sleep.
fn threads_ns() -> u64 {
    let threads = fs::read_dir("/proc/self/task").expect("a process sees its threads");
    let counts = threads.filter_map(|thread| {
        let path = thread.ok()?.path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let time = fs::read_to_string(path.join("schedstat")).ok()?;
        let counts = THREADS.contains(&name.trim_end());
        time.split(' ').next()?.parse::<u64>().ok().filter(|_| counts)
    });
    counts.sum()
}

/// The least that a recorder can do: sleep to a time, read, write, and on.
fn bare(vms: &Vms, place: &TempDir, row_bytes: usize, ticks: u64) -> f64 {
    let mut file = File::create(place.path().join("raw")).expect("there is room");
    file.rewind().expect("a file can be rewound");
    let mut bytes = vec![0; row_bytes * vms.fds.len()];
    let before_ns = cpu_ns();
    at_1khz(ticks, || {
        for (fd, row) in vms.fds.iter().zip(bytes.chunks_exact_mut(row_bytes)) {
            let read = pread(fd, &mut *row, vms.offset);
            assert_eq!(read, Ok(row_bytes), "a statistics fd is read whole");
        }
        file.write_all(&bytes).expect("there is room");
    });
    (cpu_ns() - before_ns) as f64 / ticks as f64 / 1000.0
}
