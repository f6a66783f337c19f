//! Offers arrive; what is added or withdrawn later is noticed, and so is the end of either side.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Error, ErrorKind, Provider, RowState, Target};
use vmstrobe_host::Reaper;
use vmstrobe_kvm::NewVcpu;
use vmstrobe_table::{TableConfig, TableWriter};
use vmstrobe_testing::{has_link, open_all, soon, states, tick};

use super::*;
use crate::message::MAX_PATH_BYTES;
use crate::tests::{Guest, Place, connect, opened, paths, providers, table};
use crate::{ExportedFd, FdClient, MAX_TABLES};

/// Much longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(10);

/// A table that counts how often it was asked, and fails if it shall.
#[derive(Debug)]
struct Asked {
    table: TableWriter,
    count: AtomicU64,
    fails: AtomicBool,
}

impl Asked {
    fn new(table: &TableWriter) -> Arc<Self> {
        let (count, fails) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { table: table.clone(), count, fails })
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl ExportFds for Asked {
    fn exports(&self) -> Result<Vec<ExportedFd>> {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Io, "no fd left"));
        }
        self.table.exports()
    }
}

#[test]
fn stats_fds_and_a_table_arrive_as_their_owner_calls_them() {
    let Some(guest) = Guest::new("web", 3) else { return };
    let place = Place::new();
    for index in [2, 0] {
        guest.add(index);
    }
    let qom = "/machine/unattached/device[1]";
    guest
        .kvm
        .add_vcpu(NewVcpu { path: Some(qom), ..NewVcpu::new(1, guest.vcpus[1].fd()) })
        .unwrap();
    let (table, _object) = table("xyz", "/xyz/queue[0]");
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    hand_over.offer(Arc::new(table)).unwrap();

    let handed_over = connect(&place.socket()).unwrap();
    let [kvm, tables] = providers(&handed_over);
    assert_eq!(["kvm", "table"], [kvm.name(), tables.name()]);
    assert_eq!(paths(&kvm), ["/vm/web", "/vm/web/vcpu[0]", qom, "/vm/web/vcpu[2]"]);
    assert_eq!(paths(&tables), ["/xyz/queue[0]"]);
    let ours = guest.kvm.objects().unwrap();
    for (theirs, ours) in kvm.objects().unwrap().iter().zip(&ours) {
        assert_eq!((theirs.index, &theirs.schema), (ours.index, &ours.schema));
    }
    assert_eq!(kvm.schemas().unwrap(), guest.kvm.schemas().unwrap());
    let (vcpu, mut vcpus) = opened(&kvm, &Target::Vcpu);
    assert_eq!(states(&mut *vcpus, &vcpu), [RowState::Good; 3]);
    let (queue, mut queues) = opened(&tables, &Target::from_name("queue"));
    assert_eq!(tick(&mut *queues, queue.schema.data_bytes() / 8), (vec![RowState::Good], vec![7]));
    let here = std::process::id();
    assert!(handed_over.peer_pid().is_none_or(|pid| pid == here), "{:?}", handed_over.peer_pid());
}

#[test]
fn what_comes_and_goes_later_is_noticed() {
    let Some(guest) = Guest::with_all("web", 2) else { return };
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    let handed_over = connect(&place.socket()).unwrap();
    let [kvm, tables] = providers(&handed_over);
    assert_eq!((paths(&kvm).len(), paths(&tables).len()), (0, 0));

    hand_over.offer(guest.kvm.clone()).unwrap();
    assert!(soon(LIMIT, || paths(&kvm).len() == 3));
    let old = kvm.objects().unwrap();
    let (vcpu, mut vcpus) = opened(&kvm, &Target::Vcpu);
    let mut rows = || states(&mut *vcpus, &vcpu);
    assert_eq!(rows(), [RowState::Good; 2]);

    assert!(guest.kvm.remove_vcpu(0));
    assert!(soon(LIMIT, || rows() == [RowState::Gone, RowState::Good]));
    assert_eq!(paths(&kvm), ["/vm/web", "/vm/web/vcpu[1]"]);

    // It is another object under its old path, in its place by index.
    guest.add(0);
    assert!(soon(LIMIT, || paths(&kvm) == ["/vm/web", "/vm/web/vcpu[0]", "/vm/web/vcpu[1]"]));
    let new = kvm.objects().unwrap();
    assert_eq!((&new[0], &new[2]), (&old[0], &old[2]));
    assert!(old.iter().all(|old| old.key != new[1].key));
    assert_eq!(rows(), [RowState::Gone, RowState::Good]);

    let (table, _object) = table("xyz", "/a");
    let table: Arc<TableWriter> = Arc::new(table);
    hand_over.offer(table.clone()).unwrap();
    assert!(soon(LIMIT, || paths(&tables) == ["/a"]));
    let (queue, mut queues) = opened(&tables, &Target::from_name("queue"));
    assert!(hand_over.withdraw(&*table));
    assert!(!hand_over.withdraw(&*table));
    assert!(soon(LIMIT, || states(&mut *queues, &queue) == [RowState::Gone]));
    assert!(paths(&tables).is_empty());
    assert!(hand_over.withdraw(&*guest.kvm));
    assert!(soon(LIMIT, || rows() == [RowState::Gone; 2]));
    assert!(paths(&kvm).is_empty() && kvm.schemas().unwrap().is_empty());
}

#[test]
fn with_the_server_everything_is_gone() {
    let Some(guest) = Guest::with_all("web", 2) else { return };
    let place = Place::new();
    let (table, _object) = table("xyz", "/a");
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    hand_over.offer(Arc::new(table)).unwrap();
    let (reaper, closed) = Reaper::held();
    let handed_over = FdClient::connect(&place.socket(), reaper).unwrap();
    let [kvm, tables] = providers(&handed_over);
    let (vcpu, mut vcpus) = opened(&kvm, &Target::Vcpu);
    let (queue, mut queues) = opened(&tables, &Target::from_name("queue"));
    let objects = kvm.objects().unwrap();
    assert_eq!(states(&mut *vcpus, &vcpu), [RowState::Good; 2]);

    drop(hand_over);
    assert!(soon(LIMIT, || states(&mut *vcpus, &vcpu) == [RowState::Gone; 2]));
    assert!(soon(LIMIT, || states(&mut *queues, &queue) == [RowState::Gone]));
    assert!(soon(LIMIT, || paths(&kvm).is_empty()));
    assert!(paths(&tables).is_empty() && kvm.schemas().unwrap().is_empty());
    let mut again = open_all(&*kvm, &objects[1..]).remove(0);
    assert_eq!(states(&mut *again, &vcpu), [RowState::Gone; 2]);
    // The VM's own is closed; the vCPUs' are still held by the rows.
    assert_eq!(closed.try_iter().count(), 1);
    drop((vcpus, again));
    assert_eq!(closed.try_iter().count(), 2);
}

#[test]
fn a_connection_lasts_as_long_as_a_row() {
    let (table, _object) = table("xyz", "/a");
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    let asked = Asked::new(&table);
    hand_over.offer(asked.clone()).unwrap();
    let handed_over = connect(&place.socket()).unwrap();
    let [kvm, tables] = providers(&handed_over);
    let (queue, mut queues) = opened(&tables, &Target::from_name("queue"));
    drop((handed_over, kvm, tables));
    let before = asked.count();
    assert!(soon(LIMIT, || asked.count() > before + 2), "it is asked as long as somebody borrows");
    assert_eq!(states(&mut *queues, &queue), [RowState::Good]);

    drop(queues);
    let at_rest = || {
        let before = asked.count();
        thread::sleep(Duration::from_millis(300));
        asked.count() == before
    };
    assert!(soon(LIMIT, at_rest), "nobody borrows any more, and it is still asked");
}

#[test]
fn whoever_comes_after_another_gets_everything() {
    let (table, _object) = table("xyz", "/a");
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(Arc::new(table)).unwrap();
    for _ in 0..20 {
        assert_eq!(paths(&providers(&connect(&place.socket()).unwrap())[1]), ["/a"]);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_is_kept_open_for_nobody() {
    let Some(guest) = Guest::new("web", 1) else { return };
    // An id that no other test has.
    let vcpu = guest.vm.vcpu(195).unwrap();
    guest.kvm.add_vcpu(NewVcpu::here(195, vcpu.fd())).unwrap();
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    assert_eq!(paths(&providers(&connect(&place.socket()).unwrap())[0]).len(), 2);
    let link = "anon_inode:kvm-vcpu-stats:195";
    assert!(has_link(link));
    assert!(hand_over.withdraw(&*guest.kvm));
    drop(guest);
    assert!(soon(LIMIT, || !has_link(link)));
}

#[test]
fn a_vcpu_that_is_removed_is_gone_from_rows_without_a_provider() {
    let Some(guest) = Guest::with_all("web", 2) else { return };
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    let (vcpu, mut vcpus) =
        opened(&providers(&connect(&place.socket()).unwrap())[0], &Target::Vcpu);
    assert_eq!(states(&mut *vcpus, &vcpu), [RowState::Good; 2]);
    assert!(guest.kvm.remove_vcpu(1));
    let now = [RowState::Good, RowState::Gone];
    assert!(soon(LIMIT, || states(&mut *vcpus, &vcpu) == now));
    // A vCPU that is added now has no provider to go to, and does no harm.
    guest.add(1);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(states(&mut *vcpus, &vcpu), now);
}

#[test]
fn an_owner_that_cannot_answer_for_once_has_lost_nothing() {
    let (table, _object) = table("xyz", "/a");
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    let asked = Asked::new(&table);
    hand_over.offer(asked.clone()).unwrap();
    let handed_over = connect(&place.socket()).unwrap();
    let [_, tables] = providers(&handed_over);
    let objects = tables.objects().unwrap();
    asked.fails.store(true, Ordering::Relaxed);
    let before = asked.count();
    assert!(soon(LIMIT, || asked.count() > before + 3));
    assert_eq!(tables.objects().unwrap(), objects);
    asked.fails.store(false, Ordering::Relaxed);
    assert!(soon(LIMIT, || asked.count() > before + 6));
    assert_eq!(tables.objects().unwrap(), objects);
}

#[test]
fn objects_of_one_path_are_told_apart() {
    let [Some(first), Some(second)] = [1, 1].map(|vcpus| Guest::with_all("web", vcpus)) else {
        return;
    };
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(first.kvm.clone()).unwrap();
    hand_over.offer(first.kvm.clone()).unwrap();
    hand_over.offer(second.kvm.clone()).unwrap();
    let handed_over = connect(&place.socket()).unwrap();
    assert_eq!(
        paths(&providers(&handed_over)[0]),
        ["/vm/web", "/vm/web/vcpu[0]", "/vm/web.2.0", "/vm/web/vcpu[0].2.1"]
    );
}

#[test]
fn whatever_a_path_is_it_arrives_harmless() {
    let name = format!("a\x1b[2J\n{}", "x".repeat(1000));
    let Some(guest) = Guest::with_all(&name, 2) else { return };
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    let handed_over = connect(&place.socket()).unwrap();
    let paths = paths(&providers(&handed_over)[0]);
    let short = format!("/vm/a\u{fffd}[2J\u{fffd}{}", "x".repeat(MAX_PATH_BYTES - 4 - 10));
    // They begin alike, and where they differ they were cut.
    assert_eq!(paths, [short.clone(), format!("{short}.1.1"), format!("{short}.1.2")]);
}

#[test]
fn what_is_not_to_be_lent_is_said_at_once() {
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() {
        let file = in_memory.join(format!("vmstrobe-handover-{}", std::process::id()));
        let table = TableWriter::at(&file, TableConfig::of("xyz")).unwrap();
        let error = hand_over.offer(Arc::new(table)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    let tables: Vec<_> = (0..=MAX_TABLES).map(|_| TableWriter::new("xyz").unwrap()).collect();
    let outcomes = tables.iter().map(|table| hand_over.offer(Arc::new(table.clone())));
    let outcomes: Vec<_> = outcomes.collect();
    assert!(outcomes[..MAX_TABLES].iter().all(Result::is_ok));
    assert_eq!(outcomes[MAX_TABLES].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    // As many as may be are taken.
    assert_eq!(connect(&place.socket()).unwrap().providers().len(), 2);
}
