//! An attachment: the providers of one or more sources, ready to be read, and their end.
//!
//! Invariant: providers that read a virtual machine of this process are dropped before the guard
//! that keeps that machine, which is what the order of the fields is for.

use std::path::Path;
use std::sync::Arc;

use crate::parts::Bpf;
use crate::parts::{Qmp, QmpShare};
use vmstrobe_core::{Filter, Object, Provider, Registry, Schema, Snapshot, ThreadStart};
use vmstrobe_host::Reaper;
use vmstrobe_sampler::{Fanout, Health, HealthWriter, Roster, Sampler};

use crate::arrivals::Arrivals;
use crate::error::{Error, Result};
use crate::member::{self, Absence, Member};
use crate::notice::{Notice, Notices};
use crate::open::{self, Opener};
use crate::qemu;
use crate::sources::{Options, Sources};

/// The providers of one or more sources: of one virtual machine, of several, of programs.
///
/// It is what statistics are selected from and read from, once ([`Attachment::read`]) or again and
/// again ([`Attachment::sample`], [`Attachment::start`]).
///
/// ```no_run
/// let mut vm = vmstrobe::attach(4711)?;
/// let now = vm.read(&"vcpu: exits, halt_exits".parse()?)?;
/// for (object, exits) in now.stat("exits") {
///     println!("{} {:?}", object.object().path, exits.number());
/// }
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Debug)]
pub struct Attachment {
    pub(crate) registry: Registry,
    pub(crate) members: Vec<Member>,
    /// The search for members that come later, if all of this host are meant.
    pub(crate) arrivals: Option<Arrivals>,
    pub(crate) bpf: Bpf,
    pub(crate) health: Option<(Health, HealthWriter)>,
    pub(crate) notices: Notices,
    pub(crate) threads: ThreadStart,
    absence: Absence,
    /// The opener, by which a QEMU can be added, if this is one process and nothing else.
    opener: Option<Opener>,
    qemus: Vec<Arc<Qmp>>,
    pub(crate) guard: Option<Guard>,
    /// True if it reads a virtual machine of this process, for which there can be provider `sched`.
    is_of_own_vm: bool,
}

/// Something that must live for as long as it is read, such as a virtual machine of this process.
pub(crate) struct Guard(#[expect(dead_code, reason = "held to be dropped")] Box<dyn Send>);

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

/// Attaches to the process with that id, with the default options: its virtual machine, its tables,
/// or both.
///
/// # Errors
/// [`Error::NoStatistics`] if it has neither; [`Error::VmRefused`] if they cannot be read, with
/// what is missing: a capability, a newer QEMU.
pub fn attach(pid: u32) -> Result<Attachment> {
    Attachment::open(&Sources::pid(pid), &Options::default())
}

impl Attachment {
    /// Opens the sources that the user named; if none is named, the only virtual machine on this
    /// host, or else the only program with tables.
    ///
    /// # Errors
    /// If one that was named cannot be read, or it is not clear which one is meant.
    pub fn open(sources: &Sources, options: &Options) -> Result<Self> {
        let attachment = Self::of(Registry::default()).with_options(options);
        let (members, arrivals) =
            open::open(sources, options, &attachment.registry, &attachment.notices)?;
        Ok(Self { members, arrivals, ..attachment })
    }

    /// Returns an attachment to the providers of a registry: a VMM's own, for example.
    pub fn of(registry: Registry) -> Self {
        Self {
            registry,
            members: Vec::new(),
            arrivals: None,
            bpf: Bpf::off(),
            health: None,
            notices: Notices::default(),
            threads: ThreadStart::default(),
            absence: Absence::default(),
            opener: None,
            qemus: Vec::new(),
            guard: None,
            is_of_own_vm: false,
        }
    }

    /// Opens one process and nothing else, to which a QEMU can be added.
    ///
    /// # Errors
    /// If nothing of it can be read.
    pub(crate) fn of_process(pid: u32, reaper: Reaper, options: &Options) -> Result<Self> {
        let attachment = Self::of(Registry::default()).with_options(options);
        let (registry, notices) = (attachment.registry.clone(), attachment.notices.clone());
        let mut opener = Opener::new(registry, reaper, options, false, notices)?;
        let members = vec![opener.process(pid)?];
        Ok(Self { members, opener: Some(opener), ..attachment })
    }

    /// Opens one QEMU and nothing else.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub(crate) fn of_qemu(socket: &Path, options: &Options) -> Result<Self> {
        let qmp = Arc::new(Qmp::connect_by(socket, QmpShare::All, &options.host())?);
        let members = vec![qemu::member(socket, &qmp, true)];
        let registry = Registry::default();
        let policy = qemu::policy(&qmp);
        registry.add_with(qmp, policy);
        Ok(Self { members, ..Self::of(registry).with_options(options) })
    }

    /// Keeps something for as long as the providers are read, and drops it after them: a virtual
    /// machine of this process, say.
    #[must_use]
    pub fn keeping(self, guard: impl Send + 'static) -> Self {
        Self { guard: Some(Guard(Box::new(guard))), ..self }
    }

    /// Notes that a virtual machine of this process is read.
    #[cfg(feature = "demo")]
    pub(crate) fn of_own_vm(self) -> Self {
        Self { is_of_own_vm: true, ..self }
    }

    /// Takes from the options how threads are started, and the BPF reader whose state
    /// [`Session::read_status`](crate::Session::read_status) gives: for an attachment to a registry
    /// whose providers were given that reader.
    #[must_use]
    pub fn with_options(self, options: &Options) -> Self {
        Self { bpf: options.bpf.clone(), threads: options.threads.clone(), ..self }
    }

    /// Adds the sampler's own statistics: provider `vmstrobe`, target `sampler`.
    #[must_use]
    pub fn with_own_statistics(mut self) -> Self {
        if self.health.is_none() {
            let (health, writer) = Health::new();
            self.registry.add(Arc::new(health.clone()));
            self.health = Some((health, writer));
        }
        self
    }

    /// Adds what only the QEMU of its process knows, once.
    pub(crate) fn add_qemu(&mut self, qmp: &Arc<Qmp>) {
        let (Some(opener), Some(pid)) = (&self.opener, self.main().and_then(|vm| vm.pid)) else {
            return;
        };
        if !self.qemus.iter().any(|known| Arc::ptr_eq(known, qmp)) {
            self.qemus.push(Arc::clone(qmp));
            opener.add_qemu(pid, Arc::clone(qmp));
        }
    }

    /// Returns the providers. Clones are this registry, which may grow.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the processes, sockets and files that the providers belong to; none if they are this
    /// process's own.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the virtual machine, or else the first member.
    pub fn main(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.is_vm).or(self.members.first())
    }

    /// Returns all schemas, each once.
    ///
    /// # Errors
    /// If a provider cannot give its schemas.
    pub fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(self.registry.schemas()?)
    }

    /// Returns the objects that there are now.
    ///
    /// # Errors
    /// If a provider cannot list its objects.
    pub fn objects(&self) -> Result<Vec<Object>> {
        Ok(self.registry.objects()?)
    }

    /// Takes the notices that have come up since the last call.
    pub fn notices(&self) -> Vec<Notice> {
        self.notices.take()
    }

    /// Returns an error unless there is one virtual machine at most.
    ///
    /// # Errors
    /// [`Error::SeveralVms`].
    pub fn check_one_vm(&self) -> Result<()> {
        let vms = self.members.iter().filter(|member| member.is_vm);
        let titles: Vec<String> = vms.map(|member| member.title.clone()).collect();
        if titles.len() > 1 { Err(Error::SeveralVms { titles }) } else { Ok(()) }
    }

    /// Looks whether anything is there, if nothing else tells the end. To be called about once a
    /// second for [`Attachment::has_ended`].
    pub fn look(&self) {
        if !self.members.iter().all(Member::is_process) {
            let is_there = self.registry.objects().is_ok_and(|objects| !objects.is_empty());
            self.absence.note_whether(is_there);
        }
    }

    /// Returns true if the virtual machine has ended; or, if there is none, every member. Providers
    /// of this process have no end.
    pub fn has_ended(&self) -> bool {
        let members = match self.main() {
            Some(vm) if vm.is_vm => std::slice::from_ref(vm),
            Some(_) => &self.members[..],
            None => return false,
        };
        member::ended(members, self.absence.lasts()).all(|has_ended| has_ended)
    }

    /// Returns true if a virtual machine is read whose threads are on this host.
    pub(crate) fn has_threads(&self) -> bool {
        self.is_of_own_vm || self.members.iter().any(|one| one.is_vm && one.is_process())
    }

    /// Reads what the filter wants, once. The sampler's own statistics are those of the first
    /// reading.
    ///
    /// # Errors
    /// If it cannot be opened. An object that cannot be read is no error: its row is marked.
    pub fn read(&mut self, filter: &Filter) -> Result<Arc<Snapshot>> {
        let sources = Roster::new(self.registry.clone(), vec![filter.clone()]).open()?;
        let warnings = self.registry.warnings();
        warnings.into_iter().for_each(|warning| self.notices.add(Notice::Provider(warning)));
        let writer = self.health.take().map(|(_, writer)| writer).unwrap_or_default();
        let (mut sampler, control) = Sampler::new(sources, writer, Fanout::Inline)?;
        sampler.tick();
        Ok(control.latest().load_full())
    }

    /// Returns the warnings of the provider with that name.
    pub(crate) fn warnings(&self, provider: &str) -> Vec<vmstrobe_core::Error> {
        let providers = self.registry.providers();
        let named = providers.iter().filter(|one| one.name() == provider);
        named.flat_map(|one: &Arc<dyn Provider>| one.warnings()).collect()
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_table::{TableSchema, TableWriter};

    use super::*;

    fn member(name: &str, is_vm: bool) -> Member {
        let mut member = Member::remote(format!("it {name}"), name.to_owned(), None, Vec::new());
        member.is_vm = is_vm;
        member
    }

    fn attachment(members: Vec<Member>) -> Attachment {
        Attachment { members, ..Attachment::of(Registry::default()) }
    }

    #[test]
    fn a_vm_gives_the_name_whatever_stands_before_it() {
        let name = |members| {
            let attachment = attachment(members);
            attachment.main().map(|member| member.name.clone())
        };
        assert_eq!(name(vec![member("table", false), member("web", true)]), Some("web".into()));
        assert_eq!(name(vec![member("a", false), member("b", false)]), Some("a".into()));
        assert_eq!(name(Vec::new()), None);
        assert!(!attachment(Vec::new()).has_ended());
    }

    #[test]
    fn several_vms_are_an_error_where_one_is_needed() {
        assert!(attachment(vec![member("a", true), member("b", false)]).check_one_vm().is_ok());
        let both = attachment(vec![member("a", true), member("b", true)]).check_one_vm();
        let text = both.expect_err("there are two").to_string();
        assert_eq!(text, "one virtual machine is needed, and these are several: it a, it b");
    }

    #[test]
    fn a_member_that_is_there_no_more_has_ended() {
        let gone = attachment(vec![member("web", true)]);
        assert!(!gone.has_ended());
        gone.look();
        // It is absent, but not yet for long.
        assert!(gone.absence.lasts().is_some() && !gone.has_ended());
    }

    #[test]
    fn the_samplers_own_statistics_are_added_on_request_and_once() {
        let table = TableWriter::new("vm").expect("there is memory");
        let _object = table.add("/a", &TableSchema::new(vmstrobe_core::Target::from_name("queue")));
        let sources = Sources::pid(std::process::id());
        let options = Options { bpf: Bpf::off(), sched: true, ..Options::default() };
        let vm = Attachment::open(&sources, &options).expect("it has a table");
        let names = |vm: &Attachment| {
            let providers = vm.registry().providers();
            providers.iter().map(|provider| provider.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&vm), ["kvm", "table"]);
        let vm = vm.with_own_statistics().with_own_statistics();
        assert_eq!(names(&vm), ["kvm", "table", vmstrobe_sampler::PROVIDER]);
    }
}
