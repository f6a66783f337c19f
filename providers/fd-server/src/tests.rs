//! Two processes: a server that is killed, a client without any right, and those who come to the
//! limits of what a process may have. And what the tests of all parts share.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmstrobe_core::{Error, ErrorKind, Object, Provider, Result, RowState, Source, Target};
use vmstrobe_guest::{Irqchip, Vcpu, Vm};
use vmstrobe_host::{FdOwner, Reaper};
use vmstrobe_kvm::{AttachedKvm, NewVcpu, OwnKvm, kvm_get_stats_fd};
use vmstrobe_table::{TableSchema, TableWriter, Tables};
use vmstrobe_testing::{has_kvm, open_all, soon, states};

use super::kvm::ExportedKvm;
use super::message::{Key, Kind};
use super::packet::receive;
use super::reader::tests::{say, server};
use super::serve::tests::{next, raw};
use super::serve::{MAX_CLIENTS, SEND_LIMIT};
use super::*;

/// A directory of a test's own, removed with all that is in it.
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    pub(super) fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("vmstrobe-handover-{}-{number}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("stats")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A VM with vCPUs that never run, and its provider with those of them that shall be exported.
pub(super) struct Guest {
    pub(super) kvm: Arc<OwnKvm>,
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) vm: Vm,
}

impl Guest {
    /// `None` where there is no KVM.
    pub(super) fn new(name: &str, vcpus: u32) -> Option<Self> {
        if !has_kvm() {
            return None;
        }
        let vm = Vm::new(Irqchip::None).unwrap();
        let vcpus: Vec<_> = (0..vcpus).map(|id| vm.vcpu(id).unwrap()).collect();
        let kvm = Arc::new(OwnKvm::new(name, vm.fd()).unwrap());
        Some(Self { kvm, vcpus, vm })
    }

    pub(super) fn with_all(name: &str, vcpus: u32) -> Option<Self> {
        let guest = Self::new(name, vcpus)?;
        (0..vcpus).for_each(|index| guest.add(index));
        Some(guest)
    }

    pub(super) fn add(&self, index: u32) {
        self.kvm.add_vcpu(NewVcpu::here(index, self.vcpus[index as usize].fd())).unwrap();
    }
}

pub(super) fn connect(path: &Path) -> Result<FdClient> {
    FdClient::connect(path, Reaper::new().unwrap())
}

/// The two providers: of stats fds and of tables.
pub(super) fn providers(handed_over: &FdClient) -> [Arc<dyn Provider>; 2] {
    handed_over.providers().try_into().expect("two")
}

pub(super) fn paths(provider: &Arc<dyn Provider>) -> Vec<String> {
    provider.objects().unwrap().into_iter().map(|object| object.path.into()).collect()
}

/// All objects of a target, opened at once.
pub(super) fn opened(provider: &Arc<dyn Provider>, target: &Target) -> (Object, Box<dyn Source>) {
    let mut objects = provider.objects().unwrap();
    objects.retain(|object| object.schema.target() == target);
    let mut sources = open_all(&**provider, &objects);
    assert_eq!(sources.len(), 1);
    (objects.remove(0), sources.remove(0))
}

/// A table with one object, and what keeps that there.
pub(super) fn table(provider: &str, path: &str) -> (TableWriter, impl Sized) {
    let mut schema = TableSchema::new(Target::from_name("queue"));
    let counter = schema.counter("requests");
    let table = TableWriter::new(provider).unwrap();
    let object = table.add(path, &schema).unwrap();
    object.get(counter).add(7);
    (table, object)
}

/// Returns the text of an error with that of its cause.
pub(super) fn told(error: &Error) -> String {
    let cause = std::error::Error::source(error);
    format!("{error}: {}", cause.map(ToString::to_string).unwrap_or_default())
}

const LIMIT: Duration = Duration::from_secs(20);
const SERVER: &str = "tests::a_server";
const CLIENT: &str = "tests::a_client";
/// A user that owns nothing.
const NOBODY: u32 = 65534;

/// This program in another process, as one of the tests below; killed when dropped.
struct Other(Child);

impl Other {
    fn start(test: &str, path: &Path, uid: Option<u32>) -> std::io::Result<Self> {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(test, path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        command.spawn().map(Self)
    }

    /// Returns the lines that it prints before that line.
    fn said(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for line in BufReader::new(self.0.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            if line == last {
                return lines;
            }
            lines.push(line);
        }
        panic!("it never said {last}: {lines:?}");
    }

    /// Returns all lines that it prints until its end.
    fn said_all(&mut self) -> Vec<String> {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        lines.map(|line| line.unwrap()).collect()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says so, and gives false.
fn skip(why: &str) -> bool {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("?"));
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    false
}

/// No test, but what [`Other`] runs: exports a VM with two vCPUs and a table, until its input ends.
#[test]
fn a_server() {
    let Some(path) = env::var_os(SERVER) else { return };
    let hand_over = FdServer::listen(Path::new(&path)).unwrap();
    let guest = Guest::with_all("child", 2).unwrap();
    let (table, _object) = table("xyz", "/xyz/queue[0]");
    hand_over.offer(guest.kvm.clone()).unwrap();
    hand_over.offer(Arc::new(table)).unwrap();
    println!("\nready");
    let _ = std::io::stdin().lines().count();
}

/// No test, but what [`Other`] runs: borrows, and says what it has.
#[test]
fn a_client() {
    let Some(path) = env::var_os(CLIENT) else { return };
    // Ends the line that the test harness may have begun.
    println!();
    let connected = connect(Path::new(&path));
    let handed_over = match connected {
        Ok(handed_over) => handed_over,
        Err(error) => return println!("{:?}: {error}\nend", error.kind()),
    };
    let [kvm, tables] = providers(&handed_over);
    let server = std::os::unix::process::parent_id();
    let attached = AttachedKvm::new(Reaper::new().unwrap()).unwrap().attach(server);
    println!("attach: {:?}", attached.unwrap_err().kind());
    println!("attach: {:?}", Tables::new().unwrap().attach(server).unwrap_err().kind());
    for provider in [kvm, tables] {
        for object in provider.objects().unwrap() {
            let mut source = open_all(&*provider, std::slice::from_ref(&object)).remove(0);
            println!("{}: {:?}", object.path, states(&mut *source, &object)[0]);
        }
    }
    println!("end");
}

/// True in a process of the test's own, which may have many files open. Elsewhere it is run there.
fn is_alone(test: &str, uid: Option<u32>) -> bool {
    if env::var_os(test).is_some() {
        let most = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
        return true;
    }
    let mut other = match Other::start(test, Path::new(""), uid) {
        Ok(other) => other,
        Err(error) => return skip(&format!("uid: {error}")),
    };
    let said = other.said_all();
    assert!(other.0.wait().unwrap().success(), "{said:?}");
    false
}

#[test]
fn a_thousand_vcpus_arrive_in_time() {
    if !has_kvm() || !is_alone("tests::a_thousand_vcpus_arrive_in_time", None) {
        return;
    }
    // Three fds a vCPU, and some.
    let room = getrlimit(Resource::Nofile).maximum.is_none_or(|most| most > 3200);
    let guest = Guest::with_all("big", if room { 1000 } else { 200 }).unwrap();
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    let handed_over = connect(&place.socket()).unwrap();
    assert_eq!(paths(&providers(&handed_over)[0]).len(), 1 + guest.vcpus.len());
}

#[test]
fn as_many_exports_as_may_be_and_not_one_more() {
    let test = "tests::as_many_exports_as_may_be_and_not_one_more";
    if !has_kvm() || !is_alone(test, None) {
        return;
    }
    let guest = Guest::new("x", 0).unwrap();
    let vm = kvm_get_stats_fd(guest.vm.fd()).unwrap();
    let place = Place::new();
    let server = server(&place.socket(), move |socket| {
        let mut sent = 0;
        while say(socket, format!("kvm-vm 1.{sent} /{sent}").as_bytes(), &[vm.as_fd()]).is_ok() {
            sent += 1;
        }
        sent
    });
    let error = connect(&place.socket()).unwrap_err();
    let sent = server.join().unwrap();
    // Or as many as this process may have open, or as it has time for.
    let told = told(&error);
    match error.kind() {
        ErrorKind::TooLarge => {
            assert!(
                sent > MAX_EXPORTED_FDS && told.contains("tables, which is the limit"),
                "{told}"
            )
        }
        ErrorKind::Io => assert!(told.contains("no room for another descriptor"), "{told}"),
        kind => assert_eq!(kind, ErrorKind::Busy, "{told}"),
    }
}

#[test]
fn a_client_without_room_says_so() {
    let test = "tests::a_client_without_room_says_so";
    if !has_kvm() || !is_alone(test, None) {
        return;
    }
    let guest = Guest::with_all("web", 40).unwrap();
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(open + 20), ..limits }).unwrap();
    let error = connect(&place.socket()).unwrap_err();
    setrlimit(Resource::Nofile, limits).unwrap();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(told(&error).contains("no room for another descriptor: raise"), "{}", told(&error));
    // It was not the server's fault, and it goes on.
    connect(&place.socket()).unwrap();
}

#[test]
fn a_server_without_room_lets_in_later() {
    if !is_alone("tests::a_server_without_room_lets_in_later", None) {
        return;
    }
    let place = Place::new();
    let _hand_over = FdServer::listen(&place.socket()).unwrap();
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limits }).unwrap();
    let mut files: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    files.pop();
    let began = cpu_time();
    let socket = raw(&place.socket());
    assert!(receive(&socket, Some(Instant::now() + SEND_LIMIT / 4)).unwrap().is_none());
    files.clear();
    assert_eq!([next(&socket), next(&socket)], ["vmstrobe-handover 1", "all"]);
    let took = cpu_time() - began;
    assert!(took < SEND_LIMIT / 16, "it tried again and again, for {took:?}");
}

/// Returns the CPU time of all threads of this process.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(now).unwrap()
}

/// A user without privileges can have only so many descriptors under way.
#[test]
fn a_server_with_too_many_under_way_sends_the_rest_later() {
    let test = "tests::a_server_with_too_many_under_way_sends_the_rest_later";
    if !is_alone(test, rustix::process::geteuid().is_root().then_some(NOBODY)) {
        return;
    }
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    for _ in 0..MAX_TABLES {
        hand_over.offer(Arc::new(TableWriter::new("xyz").unwrap())).unwrap();
    }
    let mut dead: Vec<_> = (1..MAX_CLIENTS).map(|_| raw(&place.socket())).collect();
    let is_told = |socket| matches!(next(socket), text if text == "vmstrobe-handover 1");
    assert!(dead.iter().all(is_told));
    std::thread::sleep(Duration::from_millis(100));
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(open + 4), ..limits }).unwrap();
    let late = raw(&place.socket());
    assert_eq!(next(&late), "vmstrobe-handover 1");
    assert!(receive(&late, Some(Instant::now() + SEND_LIMIT / 4)).unwrap().is_none());
    dead.clear();
    let texts: Vec<_> = (0..=MAX_TABLES).map(|_| next(&late)).collect();
    assert_eq!(texts.last().map(String::as_str), Some("all"), "{texts:?}");
}

#[test]
fn a_server_that_is_killed_is_gone_at_once() {
    if !has_kvm() {
        return;
    }
    let place = Place::new();
    let mut other = Other::start(SERVER, &place.socket(), None).unwrap();
    other.said("ready");
    let handed_over = connect(&place.socket()).unwrap();
    assert!(handed_over.peer_pid().is_none_or(|pid| pid == other.0.id()));
    let [kvm, tables] = providers(&handed_over);
    assert_eq!(paths(&kvm), ["/vm/child", "/vm/child/vcpu[0]", "/vm/child/vcpu[1]"]);
    assert_eq!(paths(&tables), ["/xyz/queue[0]"]);
    let (vcpu, mut vcpus) = opened(&kvm, &Target::Vcpu);
    let (queue, mut queues) = opened(&tables, &Target::from_name("queue"));
    assert_eq!(states(&mut *vcpus, &vcpu), [RowState::Good; 2]);
    assert_eq!(states(&mut *queues, &queue), [RowState::Good]);
    assert!(kvm.ended().is_empty() && tables.ended().is_empty());
    other.0.kill().unwrap();
    other.0.wait().unwrap();
    // It may have no number here.
    assert_eq!(kvm.ended(), handed_over.peer_pid().as_slice());
    let within = Duration::from_millis(500);
    assert!(soon(within, || states(&mut *vcpus, &vcpu) == [RowState::Gone; 2]));
    assert!(soon(within, || states(&mut *queues, &queue) == [RowState::Gone]));
    assert!(soon(within, || paths(&kvm).is_empty()));
    assert!(paths(&tables).is_empty());
    // Its socket is left behind, and replaced.
    assert!(place.socket().exists());
    assert_eq!(connect(&place.socket()).unwrap_err().kind(), ErrorKind::NotFound);
    let _hand_over = FdServer::listen(&place.socket()).unwrap();
    assert!(soon(LIMIT, || connect(&place.socket()).is_ok()));
}

#[test]
fn a_client_needs_no_right_but_to_connect() {
    let Some(guest) = Guest::with_all("web", 2) else { return };
    if !rustix::process::geteuid().is_root() {
        skip("root: only root can be somebody else");
        return;
    }
    let place = Place::new();
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o755)).unwrap();
    let (table, _object) = table("xyz", "/xyz/queue[0]");
    let hand_over = FdServer::listen(&place.socket()).unwrap();
    hand_over.offer(guest.kvm.clone()).unwrap();
    hand_over.offer(Arc::new(table)).unwrap();
    let borrow = || Other::start(CLIENT, &place.socket(), Some(NOBODY)).map(|mut o| o.said("end"));
    let refused = match borrow() {
        Ok(said) => said,
        Err(error) => {
            skip(&format!("uid: {error}"));
            return;
        }
    };
    let last = refused.last().map_or("", |line| line);
    assert!(last.starts_with("Denied: cannot connect to "), "{refused:?}");
    fs::set_permissions(place.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let said = borrow().unwrap();
    let at = said.iter().position(|line| line.starts_with("attach")).expect("it was let in");
    assert_eq!(
        said[at..],
        [
            "attach: Denied",
            "attach: Denied",
            "/vm/web: Good",
            "/vm/web/vcpu[0]: Good",
            "/vm/web/vcpu[1]: Good",
            "/xyz/queue[0]: Good",
        ]
    );
}

#[test]
fn no_stats_fd_is_held_where_it_may_outlive_its_vm() {
    let Some(vm) = vmstrobe_testing::vm() else { return };
    let fd = kvm_get_stats_fd(vm.fd()).unwrap();
    let (alive, watch) = (Arc::new(AtomicBool::new(true)), Arc::new(()));
    let server = FdOwner { alive, watch, seat: None };
    let release = Some("5.15.90".to_owned());
    let kvm = ExportedKvm::new(Reaper::new().unwrap(), None, server, None, release);
    let key = Key { offer: 1, export: 1 };
    let error = kvm.add(key, Kind::Vm { path: "/vm/x".into() }, fd).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("this kernel (5.15.90) reads freed memory"), "{error}");
    assert_eq!(kvm.objects().unwrap().len(), 0);
}
