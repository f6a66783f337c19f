//! Tests of the frames that a [`Bpf`] lends, as a borrower sees them, and of lenders that send
//! arrays which are no frames.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vmstrobe_core::{Object, Provider, RowState, Source, Target};
use vmstrobe_guest::{Irqchip, Vcpu, Vm};

use super::*;
use crate::kvm::bpf::shared::tests::{after_a_run, row};
use crate::kvm::bpf::sys::ArrayUse;
use crate::tests::{open_all, require, soon, states, tick};
use crate::{BpfMode, FdClient, FdServer, KernelFrame, OwnKvm, Reaper, Tables};

const LIMIT: Duration = Duration::from_secs(10);

/// vCPUs that never run, read by the BPF reader only.
struct Guest {
    bpf: Bpf,
    kvm: OwnKvm,
    _vcpus: Vec<Vcpu>,
    _vm: Vm,
}

impl Guest {
    /// `None` where that cannot be.
    fn new(vcpus: u32) -> Option<Self> {
        let bpf = Bpf::new(BpfMode::Require);
        if !require("bpf", bpf.check().map_err(|error| error.to_string())) {
            return None;
        }
        let vm = Vm::new(Irqchip::None).unwrap();
        let kvm = OwnKvm::with_bpf("x", vm.fd(), bpf.clone()).unwrap();
        let vcpus: Vec<_> = (0..vcpus).map(|id| vm.vcpu(id).unwrap()).collect();
        for vcpu in &vcpus {
            kvm.add_vcpu_here(vcpu.id(), None, vcpu.fd()).unwrap();
        }
        Some(Self { bpf, kvm, _vcpus: vcpus, _vm: vm })
    }

    fn open(&self) -> (Object, Box<dyn Source>) {
        let mut objects = self.kvm.objects().unwrap();
        objects.retain(|object| *object.schema.target() == Target::Vcpu);
        let mut sources = open_all(&self.kvm, &objects);
        assert_eq!(sources.len(), 1);
        (objects.remove(0), sources.remove(0))
    }

    fn numbers(&self) -> Vec<u64> {
        self.bpf.numbered_frames().unwrap().into_iter().map(|(number, _)| number).collect()
    }
}

/// A path for a socket, removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("vmstrobe-lend-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn connect(&self) -> Result<FdClient> {
        FdClient::connect(&self.0, Reaper::new()?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Lends whatever it has as a table.
#[derive(Debug)]
struct Evil(OwnedFd);

impl ExportFds for Evil {
    fn loans(&self) -> Result<Vec<ExportedFd>> {
        Ok(vec![ExportedFd::table(9, self.0.try_clone().unwrap())])
    }
}

/// An array with these words; `None` where we may not have one.
fn array(words: &[u64], is_frozen: bool) -> Option<OwnedFd> {
    let array = ArrayMap::create("test", size_of_val(words) as u32, ArrayUse::Mapped);
    let why = array.as_ref().map(drop).map_err(ToString::to_string);
    let array = array.ok().filter(|_| require("bpf", why.clone()))?;
    array.write_value(words).unwrap();
    if is_frozen {
        array.freeze().unwrap();
    }
    Some(array.as_fd().try_clone_to_owned().unwrap())
}

fn paths(provider: &dyn Provider) -> Vec<String> {
    provider.objects().unwrap().into_iter().map(|object| object.path.into()).collect()
}

#[test]
fn a_frame_is_lent_as_long_as_its_source_is_there() {
    let Some(guest) = Guest::new(3) else { return };
    assert!(guest.numbers().is_empty());
    let (_, first) = guest.open();
    let (_, second) = guest.open();
    assert_eq!(guest.numbers(), [1, 2]);
    drop(second);
    assert_eq!(guest.numbers(), [1]);
    let (_, third) = guest.open();
    drop(first);
    assert_eq!(guest.numbers(), [3]);
    assert_eq!((guest.bpf.frames().unwrap().len(), guest.bpf.loans().unwrap().len()), (1, 1));
    guest.bpf.give_up("enough");
    assert!(guest.numbers().is_empty());
    drop(third);
}

#[test]
fn who_has_a_frame_reads_what_the_source_did() {
    let Some(guest) = Guest::new(3) else { return };
    let (vcpu, mut source) = guest.open();
    let frame = KernelFrame::open(guest.bpf.frames().unwrap().remove(0)).unwrap();
    let row_words = vcpu.schema.data_bytes() / 8;
    assert_eq!((frame.objects().len(), frame.row_words()), (3, row_words));
    assert_eq!(frame.objects()[0].schema, vcpu.schema);
    let (mut words, mut states) = (vec![0; 3 * row_words], vec![RowState::Missing; 3]);
    let before = frame.read(&mut words, &mut states).unwrap();
    assert_eq!(tick(&mut *source, row_words), (states.clone(), words.clone()));
    let after = frame.read(&mut words, &mut states).unwrap();
    assert!(before.end_ns <= after.begin_ns && after.begin_ns < after.end_ns);
    assert_eq!(source.read_ns(), Some(after.begin_ns..after.end_ns));
    // The last values stay there.
    drop(source);
    assert_eq!(frame.read(&mut words, &mut states), Ok(after));
}

#[test]
fn a_frame_that_is_handed_over_is_read_as_a_table() {
    let Some(guest) = Guest::new(2) else { return };
    let place = Place::new();
    let hand_over = FdServer::listen(&place.0).unwrap();
    // Nothing yet, and lent when it comes.
    hand_over.offer(Arc::new(guest.bpf.clone())).unwrap();
    let handed_over = place.connect().unwrap();
    let tables = handed_over.providers().remove(1);
    assert_eq!(paths(&*tables), Vec::<String>::new());
    let (_, first) = guest.open();
    assert!(soon(LIMIT, || paths(&*tables) == ["/vm/x/vcpu[0]", "/vm/x/vcpu[1]"]));
    let (vcpu, mut second) = guest.open();
    assert!(soon(LIMIT, || paths(&*tables).len() == 4));
    let objects = tables.objects().unwrap();
    assert_eq!(objects[3].path, "/vm/x/vcpu[1].2".into());
    assert_eq!((objects[3].index, &objects[3].schema), (Some(1), &vcpu.schema));
    let mut rows = open_all(&*tables, &objects).remove(0);
    let (seen, words) = tick(&mut *second, vcpu.schema.data_bytes() / 8);
    assert_eq!(seen, [RowState::Good; 2]);
    let theirs = tick(&mut *rows, vcpu.schema.data_bytes() / 8);
    assert_eq!(theirs, ([RowState::Good; 4].to_vec(), [&words[..], &words[..]].concat()));
    // One of both ends.
    drop(first);
    let gone = [RowState::Gone, RowState::Gone, RowState::Good, RowState::Good];
    assert!(soon(LIMIT, || states(&mut *rows, &vcpu) == gone));
    guest.bpf.give_up("enough");
    assert!(soon(LIMIT, || states(&mut *rows, &vcpu) == [RowState::Gone; 4]));
    assert!(soon(LIMIT, || paths(&*tables).is_empty()));
}

#[test]
fn an_array_is_a_table_once_it_is_frozen() {
    let words = after_a_run();
    let Some(unfrozen) = array(&words, false) else { return };
    let tables = Tables::new().unwrap();
    let refused = tables.add_fd(unfrozen.try_clone().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("a BPF map, but no array of one element"), "{refused}");
    assert_eq!(KernelFrame::open(unfrozen).unwrap_err().kind(), ErrorKind::Unsupported);
    // Two are two, although all maps share one inode.
    for _ in 0..2 {
        tables.add_fd(array(&words, true).unwrap()).unwrap();
    }
    let objects = tables.objects().unwrap();
    assert_eq!(objects.len(), 6);
    let (states, words) = tick(&mut *open_all(&tables, &objects)[0], 2);
    assert_eq!((states, &words[6..]), (vec![RowState::Good; 6], &[0, 1, 10, 11, 20, 21][..]));
}

#[test]
fn a_row_without_data_is_gone_until_it_has_some() {
    let mut words = after_a_run();
    let at = row(&words, 1);
    words[at..at + 2].copy_from_slice(&[2, 0]);
    let Some(frame) = array(&words, true) else { return };
    let tables = Tables::new().unwrap();
    tables.add_fd(frame).unwrap();
    let objects = tables.objects().unwrap();
    let (states, _) = tick(&mut *open_all(&tables, &objects)[0], 2);
    assert_eq!(states, [RowState::Good, RowState::Gone, RowState::Good]);
}

#[test]
fn what_a_lender_calls_a_table_is_found_out() {
    let good = after_a_run();
    let changed = |at: usize, value| {
        let mut words = good.clone();
        words[at] = value;
        words
    };
    let Some(unfrozen) = array(&good, false) else { return };
    let frozen = |words: &[u64]| array(words, true).unwrap();
    for (fd, kind, why) in [
        (unfrozen, ErrorKind::Unsupported, "a BPF map, but no array"),
        (frozen(&changed(0, 0)), ErrorKind::Malformed, "does not begin as one"),
        (frozen(&changed(3, 0)), ErrorKind::Malformed, "its length is not what it says"),
        (frozen(&good[..8]), ErrorKind::Malformed, "it is too short"),
        (frozen(&changed(4, 1 << 40)), ErrorKind::Malformed, "its directory lies outside"),
        (frozen(&changed(16, 1)), ErrorKind::Busy, "keeps changing"),
    ] {
        let place = Place::new();
        let hand_over = FdServer::listen(&place.0).unwrap();
        hand_over.offer(Arc::new(Evil(fd))).unwrap();
        let error = place.connect().unwrap_err();
        let told = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error.kind(), kind, "{told}");
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_frame_is_lent_only_where_others_cannot_load_programs() {
    for setting in ["1\n", "2\n"] {
        check_lendable(setting).unwrap();
    }
    for setting in ["0\n", "", "3\n", "x"] {
        let error = check_lendable(setting).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("set kernel.unprivileged_bpf_disabled"), "{error}");
    }
}
