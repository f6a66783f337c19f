//! A second reader: the statistics files, read and parsed here by the offsets of the kernel's
//! documentation without any code of ours, have exactly the words of a snapshot.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::io::pread;
use vmstrobe::kvm::kvm_get_stats_fd;
use vmstrobe_core::{RowState, Snapshot};
use vmstrobe_guest::{DemoGuest, Vcpu};
use vmstrobe_sampler::{Fanout, Tick};
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::{Rig, own_kvm, rig, show, vcpu_path};

const VCPUS: u32 = 64;
/// The three statistics that a plotting tool shows.
const THREE: [&str; 3] = ["exits", "halt_exits", "halt_wait_ns"];

/// A name and its words.
type Stat = (String, Vec<u64>);

/// 64 vCPUs that do not run have run before, so that their counters are not 0.
#[test]
fn a_snapshot_equals_the_bytes_of_the_kernel() {
    if !require_kvm() {
        return;
    }
    let mut guest = DemoGuest::new(VCPUS).expect("KVM can make a guest");
    let kvm = own_kvm("raw", guest.vm(), guest.vcpus());
    let stats_fd = |vcpu: &Vcpu| kvm_get_stats_fd(vcpu.fd());
    let files: Vec<OwnedFd> =
        guest.vcpus().iter().map(stats_fd).collect::<Result<_, _>>().expect("KVM gives files");
    guest.start().expect("KVM runs the guest");
    thread::sleep(Duration::from_millis(600));
    guest.stop().expect("the sampler's thread does not panic");
    drop(guest);

    let three = format!("vcpu: {}", THREE.join(","));
    let read = || -> Vec<Vec<Stat>> { files.iter().map(file_stats).collect() };
    let (all, wanted) = (read(), |name: &str| THREE.contains(&name));
    for (filter, fanout) in
        [("vcpu", Fanout::Inline), ("vcpu", Fanout::Threads(2)), (&three, Fanout::Inline)]
    {
        let Rig { mut sampler, control, .. } = rig(kvm.clone(), &[filter], fanout);
        assert_eq!(sampler.inside(|sampler| sampler.tick()), Tick::Published);
        let shown = snapshot_stats(&control.latest().load_full());
        let mut want = all.clone();
        if filter == three {
            want.iter_mut().for_each(|stats| stats.retain(|(name, _)| wanted(name)));
        }
        for (index, (shown, want)) in shown.iter().zip(&want).enumerate() {
            assert_eq!(shown, want, "`{filter}`, vCPU {index}");
        }
        let words: usize = shown.iter().flatten().map(|(_, words)| words.len()).sum();
        show(&format!(
            "`{filter}` on {} threads: {words} words as in the files",
            sampler.threads()
        ));
    }
    assert_eq!(read(), all, "the counters of a stopped guest do not change");
    // Otherwise a wrong plan would not be seen: the words tell vCPUs and statistics apart.
    let distinct = |name| {
        let of_name = all.iter().flatten().filter(|(its, words)| its == name && words[0] > 0);
        of_name.collect::<BTreeSet<_>>().len()
    };
    let (waits, exits) = (distinct("halt_wait_ns"), distinct("exits"));
    assert!(waits > VCPUS as usize / 2 && exits > 4, "{waits} and {exits} distinct values");
}

/// Returns the statistics of every vCPU, in schema order.
fn snapshot_stats(snapshot: &Snapshot) -> Vec<Vec<Stat>> {
    let stats = |index| {
        let view = snapshot.object(&vcpu_path("raw", index)).expect("the object is sampled");
        assert_eq!(view.state(), RowState::Good);
        view.stats().map(|value| (value.desc().name.to_string(), value.words().to_vec())).collect()
    };
    (0..VCPUS).map(stats).collect()
}

/// Returns the statistics in a file, in the order of its descriptors.
fn file_stats(file: &OwnedFd) -> Vec<Stat> {
    let header = bytes_at(file, 0, 24);
    let [_, name_size, num_desc, _, desc_offset, data_offset] =
        [0, 4, 8, 12, 16, 20].map(|at| u32_at(&header, at));
    let desc_size = 16 + name_size as usize;
    let descs = bytes_at(file, desc_offset, desc_size * num_desc as usize);
    let stat = |desc: &[u8]| {
        let size = usize::from(u16::from_ne_bytes([desc[6], desc[7]]));
        let name = desc[16..].split(|byte| *byte == 0).next().expect("a piece before the first 0");
        let data = bytes_at(file, data_offset + u32_at(desc, 8), size * 8);
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
        let name = String::from_utf8(name.to_vec()).expect("the kernel writes ASCII");
        (name, data.chunks_exact(8).map(word).collect())
    };
    descs.chunks_exact(desc_size).map(stat).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn bytes_at(file: &OwnedFd, offset: u32, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    assert_eq!(pread(file, &mut bytes[..], offset.into()), Ok(count));
    bytes
}
