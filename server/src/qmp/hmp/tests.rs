//! Tests of the monitor's output, for a catalog made by hand, and compared with a real QEMU.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use vmstrobe_core::{
    Base, Desc, Object, Provider, ReadPlan, Registry, RowState, Rows, Scale, Source, StatType, Unit,
};

use super::*;

fn output(
    line: &str,
    cpu: Option<i64>,
    catalog: &Catalog,
    order: Order,
) -> Result<String, Refusal> {
    Monitor { catalog, order, budget: &Budget::new() }.output(line, cpu)
}

/// A provider with given values.
#[derive(Debug)]
struct Told {
    name: String,
    schemas: Vec<Arc<Schema>>,
    objects: Vec<Object>,
    /// The words of each object, by its key.
    words: HashMap<u64, Vec<u64>>,
}

struct Words(Arc<ReadPlan>, Vec<Vec<u64>>);

impl Source for Words {
    fn rows(&self) -> usize {
        self.1.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let Self(plan, words) = self;
        let span = plan.span_bytes().start / 8..plan.span_bytes().end / 8;
        rows.fill(|at, row| {
            plan.keep(&words[at][span.clone()], row);
            RowState::Good
        });
    }
}

impl Provider for Told {
    fn name(&self) -> &str {
        &self.name
    }

    fn schemas(&self) -> vmstrobe_core::Result<Vec<Arc<Schema>>> {
        Ok(self.schemas.clone())
    }

    fn objects(&self) -> vmstrobe_core::Result<Vec<Object>> {
        Ok(self.objects.clone())
    }

    fn open(
        &self,
        objects: &[Object],
        plan: &Arc<ReadPlan>,
    ) -> vmstrobe_core::Result<Vec<Box<dyn Source>>> {
        let words = objects.iter().map(|object| self.words[&object.key].clone());
        Ok(vec![Box::new(Words(Arc::clone(plan), words.collect()))])
    }
}

impl Told {
    fn new(name: &str) -> Self {
        let (schemas, objects, words) = Default::default();
        Self { name: name.to_owned(), schemas, objects, words }
    }

    fn add(&mut self, path: &str, index: Option<u32>, schema: &Arc<Schema>, words: Vec<u64>) {
        let key = self.objects.len() as u64;
        self.words.insert(key, words);
        let schema = Arc::clone(schema);
        self.objects.push(Object { path: path.into(), index, schema, key });
    }
}

fn catalog(tellers: Vec<Told>) -> Catalog {
    let registry = Registry::default();
    tellers.into_iter().for_each(|told| registry.add(Arc::new(told)));
    let (catalog, errors) = Catalog::look(&registry);
    assert!(errors.is_empty(), "{errors:?}");
    catalog
}

/// Makes a catalog of a VM with vCPUs 1 and 0, a crypto device, and a disk with a target of its
/// own.
fn by_hand() -> Catalog {
    let schema = |provider, target: &str, names: [&str; 2]| {
        let descs = vec![Desc::counter(names[0], 0), Desc::counter(names[1], 8)];
        Schema::new(provider, Target::from_name(target), descs)
    };
    let mut kvm = Told::new("kvm");
    let vm = schema("kvm", "vm", ["flushes", "pages"]);
    let vcpu = schema("kvm", "vcpu", ["exits", "halts"]);
    kvm.add("/vm/a", None, &vm, vec![1, 2]);
    kvm.add("/vm/a/vcpu[1]", Some(1), &vcpu, vec![11, 12]);
    kvm.add("/vm/a/vcpu[0]", Some(0), &vcpu, vec![3, u64::MAX]);
    kvm.schemas = vec![vm, vcpu];
    let mut crypto = Told::new("cryptodev");
    crypto.schemas = vec![schema("cryptodev", "cryptodev", ["ops", "bytes"])];
    crypto.add("/objects/c1", None, &crypto.schemas[0].clone(), vec![5, 6]);
    let mut own = Told::new("xyz");
    own.schemas = vec![schema("xyz", "disk", ["exits", "seeks"])];
    own.add("/disk/0", None, &own.schemas[0].clone(), vec![7, 8]);
    catalog(vec![kvm, crypto, own])
}

#[test]
fn a_line_is_split_as_qemu_does() {
    let words = |target: &str, names: Option<&str>, provider: Option<&str>| {
        let [names, provider] = [names, provider].map(|word| word.map(str::to_owned));
        Command::InfoStats(StatsWords { target: target.to_owned(), names, provider })
    };
    let say = |text: &str| Command::Say(text.to_owned());
    let expected = "stats: string expected\nTry \"help info stats\" for more information\n";
    for (line, want) in [
        ("info stats vm", words("vm", None, None)),
        ("\tinfo  stats\x0b\x0cvm a,b\n kvm\r", words("vm", Some("a,b"), Some("kvm"))),
        (r#"info stats "vm""a, b""kvm""#, words("vm", Some("a, b"), Some("kvm"))),
        (r#"info stats vm "\n\r\\\'\"""#, words("vm", Some("\n\r\\'\""), None)),
        (r#"info stats v\nm"x" """#, words(r#"v\nm"x""#, Some(""), None)),
        ("info stats/x", words("/x", None, None)),
        ("info stats vm\0", words("vm\0", None, None)),
        ("info\u{a0}stats", say("unknown command: 'info\u{a0}stats'\n")),
        ("info stats", say(expected)),
        (r#"info stats "vm"#, say(expected)),
        (r#"info stats vm "\m""#, say(expected)),
        (r#"info stats vm "\"#, say(expected)),
        ("info /x", say("unknown command: 'info '\n")),
        ("/x", say("unknown command: ''\n")),
        ("info/stats vm", say("unknown command: 'info'\n")),
        ("  info  stat x", say("unknown command: '  info  stat'\n")),
        ("quit", say("unknown command: 'quit'\n")),
        (" \t", say("")),
    ] {
        assert_eq!(parse(line), want, "{line:?}");
    }
    let Command::Say(more) = parse(" info stats vm * kvm x") else { panic!("too many words") };
    let more: Vec<&str> = more.lines().collect();
    assert_eq!(more[0], "stats: extraneous characters at the end of line");
    assert_eq!(more[1], r#"Try "help  info stats" for more information"#);
}

#[test]
fn a_word_is_cut_at_its_limit() {
    let target = |word: &str| match parse(&format!("info stats {word}")) {
        Command::InfoStats(words) => words.target,
        Command::Say(text) => panic!("{text}"),
    };
    let a = "a".repeat(MAX_WORD_BYTES);
    assert_eq!(target(&a), a);
    assert_eq!(target(&format!("{a}b")), a);
    assert_eq!(target(&format!("\"{a}b\" c")), a);
    let half = format!("{}\u{e9}", &a[1..]);
    assert_eq!(target(&half), format!("{}\u{fffd}", &a[1..]));
}

#[test]
fn what_is_asked_for_is_printed() {
    let catalog = by_hand();
    let ours = |line: &str| output(line, None, &catalog, Order::Schema).unwrap();
    let qemus = |line: &str| output(line, None, &catalog, Order::Qemu).unwrap();
    let exits = "provider: kvm\r\n    exits (cumulative): 3\r\n";
    assert_eq!(ours("info stats vcpu exits"), exits);
    assert_eq!(ours(r#"info stats vcpu "exits, halts""#), exits);
    let halts = |number: &str| format!("    halts (cumulative): {number}\r\n");
    assert_eq!(ours("info stats vcpu halts kvm"), halts("18446744073709551615"));
    assert_eq!(qemus("info stats vcpu halts kvm"), halts("-1"));
    let second = output("info stats vcpu halts kvm", Some(1), &catalog, Order::Schema);
    assert_eq!(second.unwrap(), halts("12"));
    let all = ["    flushes (cumulative): 1\r\n", "    pages (cumulative): 2\r\n"];
    assert_eq!(ours("info stats vm * kvm"), all.concat());
    assert_eq!(qemus("info stats vm * kvm"), [all[1], all[0]].concat());
    assert_eq!(ours("info stats disk seeks"), "provider: xyz\r\n    seeks (cumulative): 8\r\n");
    assert_eq!(ours("info stats disk seeks xyz"), "    seeks (cumulative): 8\r\n");
    for nothing in ["vm nope", "vm \"\"", "vm * cryptodev", "vm *,x", "disk seeks kvm"] {
        assert_eq!(ours(&format!("info stats {nothing}")), "", "{nothing}");
    }
    assert_eq!(ours("info stats VM"), "invalid stats target VM\r\n");
    assert_eq!(ours("info stats nope * nope"), "invalid stats target nope\r\n");
    assert_eq!(ours("info stats vm * \"\""), "invalid stats provider \r\n");
}

#[test]
fn in_qemus_order_a_crypto_device_has_all_names() {
    let catalog = by_hand();
    for words in ["ops", "ops cryptodev"] {
        let lines = |order| {
            let line = format!("info stats cryptodev {words}");
            let text = output(&line, None, &catalog, order).unwrap();
            text.lines().filter(|line| line.starts_with(' ')).count()
        };
        assert_eq!((lines(Order::Schema), lines(Order::Qemu)), (1, 2), "{words}");
    }
    let none = output("info stats cryptodev \"\" cryptodev", None, &catalog, Order::Qemu);
    assert_eq!(none.unwrap(), "");
}

#[test]
fn only_a_vcpu_that_there_is_may_be_named() {
    let catalog = by_hand();
    let text = "Parameter 'cpu-index' expects a CPU number";
    for cpu in [2, -1, 1 << 31, i64::MAX] {
        let refusal = output("info", Some(cpu), &catalog, Order::Schema).unwrap_err();
        assert_eq!(refusal, Refusal::generic(text), "{cpu}");
    }
    for cpu in [1, 1 + (1 << 32), i64::MIN] {
        assert!(output("info", Some(cpu), &catalog, Order::Schema).is_ok(), "{cpu}");
    }
    let empty = self::catalog(Vec::new());
    assert_eq!(output("info stats vcpu", None, &empty, Order::Qemu).unwrap(), "");
    assert!(output("info stats vcpu", Some(0), &empty, Order::Qemu).is_err());
}

#[test]
fn help_tells_what_there_is() {
    let catalog = catalog(Vec::new());
    let said = |line: &str| output(line, None, &catalog, Order::Schema).unwrap();
    let stats = HELP_STATS.replace('\n', "\r\n");
    for line in ["info", " info ", "help info", "help info stats", "? info \"stats\" more"] {
        assert_eq!(said(line), stats, "{line}");
    }
    for line in ["help", "? "] {
        assert!(said(line).starts_with("help|? ") && said(line).ends_with(&stats), "{line}");
    }
    assert_eq!(said("help ?"), HELP_HELP.replace('\n', "\r\n"));
    assert_eq!(said("help stats"), "unknown command: 'stats'\r\n");
    assert_eq!(said("help info x y"), "unknown command: 'info x'\r\n");
    assert_eq!(said("help \""), "");
    let words = |count| format!("help{}", " a".repeat(count));
    assert_eq!(said(&words(MAX_HELP_WORDS)), "unknown command: 'a'\r\n");
    assert_eq!(said(&words(MAX_HELP_WORDS + 1)), "");
}

/// Lines to which QEMU gives the same output, those of the conformance cases first.
const LINES: &[&str] = &[
    "info stats",
    "info stats vm",
    "info stats vcpu nested_run,hypercalls",
    "info stats vcpu hypercalls,nested_run",
    "info stats vcpu nested_run kvm",
    "info stats vcpu nope",
    "info stats vcpu nope kvm",
    "info stats vcpu nested_run,",
    "info stats vcpu nested_run,,nested_run",
    "info stats vcpu \"\"",
    "info stats vcpu \"nested_run, hypercalls\"",
    "info stats bad",
    "info stats VM",
    "info stats vm * bad",
    "info stats vm * kvm extra",
    "info stats vm \"",
    "info stats cryptodev",
    "info stats cryptodev * cryptodev",
    "info stats cryptodev sym-encrypt-ops cryptodev",
    "info stats vm * cryptodev",
    "info stats vm remote_tlb_flush",
    "info stat",
    "INFO stats vm",
    "stats vm",
    "help stats",
    "info stats vcpu blocking",
    "info stats vcpu halt_wait_ns",
    "info stats vm nested_run",
    "",
    "info stats vcpu",
    "info stats vcpu * kvm",
    "info stats cryptodev nope",
    "info stats cryptodev \"\"",
    "info stats cryptodev \"\" cryptodev",
    "info stats cryptodev * kvm",
    "  info   stat x",
    "info /x",
    "/x",
    "info/stats vm",
    "info stats/x",
    "info|x",
    "%s",
    "help %s",
    "help info stat x",
    "help \"a b\" c",
    "help \"",
    "help a b c d e f g h i j k l m n o p",
    "help a b c d e f g h i j k l m n o p q",
    "  info   stats  ",
    "info stats \"v\\m\"",
    "info stats \"v\\",
    "info stats \"vm\"\"remote_tlb_flush\"\"kvm\"",
    "info stats vm\"x\"",
    "info stats v\\nm",
    "info stats \"v\\nm\"",
    "info stats \"v\\r\\'\\\"\\\\m\"",
    "info stats \"\" ",
    "info stats vm \"\" \"\"",
    "info stats vm *,x kvm",
    "info stats vm \x0b\x0cremote_tlb_flush\n\r",
    "info stats vm\0x",
    "info stats \u{e9}\x7f",
    "info\u{a0}stats",
];

/// In QEMU's order every output equals QEMU's, byte for byte; in our order it has the same lines.
#[test]
fn lines_say_what_a_real_qemu_says() {
    let Some(mut qemu) = Qemu::start() else { return };
    let catalog = catalog(qemu.told());
    assert_eq!(catalog.objects().count(), 1 + 4 + 2, "a VM, vCPUs, crypto devices");
    let mut lines: Vec<(String, Option<i64>)> =
        LINES.iter().map(|line| ((*line).to_owned(), None)).collect();
    for a in [1022, 1023, 1024] {
        lines.push((format!("info stats {}\u{e9}", "a".repeat(a)), None));
    }
    for a in [1005, 1006, 1007] {
        lines.push((format!("info stats vm {},remote_tlb_flush", "a".repeat(a)), None));
    }
    for cpu in [0, 1, 3, 4, -1, 1 << 31, 1 << 32, i64::MIN, i64::MAX] {
        lines.push(("info stats vcpu".to_owned(), Some(cpu)));
    }
    for (line, cpu) in lines {
        let mut arguments = json!({"command-line": line});
        if let Some(cpu) = cpu {
            arguments["cpu-index"] = cpu.into();
        }
        let theirs = qemu.ask("human-monitor-command", &arguments);
        let ours = |order| match output(&line, cpu, &catalog, order) {
            Ok(text) => json!({"return": text}),
            Err(refusal) => json!({"error": refusal}),
        };
        assert_eq!(ours(Order::Qemu), theirs, "{line:?}, {cpu:?}");
        if !line.starts_with("info stats cryptodev ") {
            let ours = ours(Order::Schema);
            assert_eq!(unordered(&ours), unordered(&theirs), "{line:?}, {cpu:?}");
        }
    }
}

/// Returns the lines of a reply, sorted, without the buckets of a histogram.
fn unordered(reply: &Json) -> Vec<&str> {
    let text = reply["return"].as_str().or(reply["error"]["desc"].as_str()).unwrap();
    let without_buckets = |line| str::split(line, "[1]=").next();
    let mut lines: Vec<&str> = text.split("\r\n").filter_map(without_buckets).collect();
    lines.sort_unstable();
    lines
}

/// A QEMU with four paused vCPUs and two crypto devices. Dropping it ends it.
pub(in crate::qmp) struct Qemu {
    child: Child,
    _folder: tempfile::TempDir,
    replies: BufReader<UnixStream>,
}

impl Qemu {
    /// Starts QEMU; `None` if there is no QEMU of 8.1 or later.
    pub(in crate::qmp) fn start() -> Option<Self> {
        if !has_qemu() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let mut command = Process::new("qemu-system-x86_64");
        command.args(["-accel", "kvm", "-machine", "q35", "-smp", "4", "-m", "64", "-S"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-object", "cryptodev-backend-builtin,id=c1"]);
        command.args(["-object", "cryptodev-backend-builtin,id=c2"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", path.display())]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            assert!(child.try_wait().unwrap().is_none(), "QEMU has ended");
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut qemu = Self { child, _folder: folder, replies: BufReader::new(stream) };
        assert!(qemu.reply()["QMP"].is_object());
        qemu.ask("qmp_capabilities", &json!({}));
        Some(qemu)
    }

    /// Returns the reply to a command.
    pub(in crate::qmp) fn ask(&mut self, command: &str, arguments: &Json) -> Json {
        let request = json!({"execute": command, "arguments": arguments}).to_string() + "\n";
        self.replies.get_ref().write_all(request.as_bytes()).unwrap();
        loop {
            let reply = self.reply();
            if reply["event"].is_null() {
                return reply;
            }
        }
    }

    fn reply(&mut self) -> Json {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Asks for all statistics, and returns them by provider, in the kernel's order.
    fn told(&mut self) -> Vec<Told> {
        let schemas = self.ask("query-stats-schemas", &json!({}));
        let mut tellers: Vec<Told> = Vec::new();
        for schema in schemas["return"].as_array().unwrap().iter().rev() {
            let (provider, target) = (&schema["provider"], &schema["target"]);
            let (provider, target) = (provider.as_str().unwrap(), target.as_str().unwrap());
            let results = self.ask("query-stats", &json!({"target": target}));
            let results = results["return"].as_array().unwrap();
            let schema = schema_of(provider, target, &schema["stats"], &results[0]["stats"]);
            if !tellers.iter().any(|told| told.name == provider) {
                tellers.push(Told::new(provider));
            }
            let told = tellers.iter_mut().find(|told| told.name == provider).unwrap();
            for (result, index) in results.iter().rev().zip(0..) {
                let path = result["qom-path"].as_str().unwrap_or("/vm/a");
                let stats = result["stats"].as_array().unwrap().iter().rev();
                let words = stats.flat_map(|stat| words_of(&stat["value"])).collect();
                told.add(path, (target == "vcpu").then_some(index), &schema, words);
            }
            told.schemas.push(schema);
        }
        tellers
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the statistics of an object, as the schema describes them.
fn schema_of(provider: &str, target: &str, described: &Json, had: &Json) -> Arc<Schema> {
    let mut offset = 0;
    let descs = had.as_array().unwrap().iter().rev().map(|stat| {
        let is_it = |desc: &&Json| desc["name"] == stat["name"];
        let desc = described.as_array().unwrap().iter().find(is_it).unwrap();
        let size = words_of(&stat["value"]).len();
        offset += size * 8;
        desc_of(desc, size, offset - size * 8)
    });
    Schema::new(provider, Target::from_name(target), descs.collect())
}

fn desc_of(desc: &Json, size: usize, offset: usize) -> Desc {
    let number = |key: &str| desc[key].as_i64().unwrap_or(0);
    let types = (0..5).map(StatType::from_bits);
    let units = (0..5).map(|bits| Unit::from_bits(bits << 4));
    Desc {
        name: desc["name"].as_str().unwrap().into(),
        stat_type: types.into_iter().find(|one| desc["type"] == one.to_string()).unwrap(),
        unit: units.into_iter().find(|one| desc["unit"].as_str() == one.name()).unwrap(),
        scale: Scale {
            base: if number("base") == 2 { Base::Two } else { Base::Ten },
            exponent: number("exponent").try_into().unwrap(),
        },
        other_flags: 0,
        size: size.try_into().unwrap(),
        offset: offset.try_into().unwrap(),
        bucket_size: number("bucket-size").try_into().unwrap(),
    }
}

fn words_of(value: &Json) -> Vec<u64> {
    match value {
        Json::Bool(truth) => vec![u64::from(*truth)],
        Json::Array(buckets) => buckets.iter().rev().flat_map(words_of).collect(),
        number => vec![number.as_u64().unwrap()],
    }
}

/// Returns whether there is a QEMU of 8.1 or later that can use KVM, and prints a line if not.
fn has_qemu() -> bool {
    let version = || -> Option<(u32, u32)> {
        let said = Process::new("qemu-system-x86_64").arg("--version").output().ok()?;
        let said = String::from_utf8(said.stdout).ok()?;
        let mut numbers = said.split("version ").nth(1)?.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    let has_kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if has_kvm && version().is_some_and(|version| version >= (8, 1)) {
        return true;
    }
    let promised = std::env::var("VMSTROBE_REQUIRE").unwrap_or_default();
    let named = promised.split(',').any(|name| name.trim() == "qemu-8.1");
    assert!(!named, "VMSTROBE_REQUIRE promises qemu-8.1, but there is none that can use KVM");
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?");
    // This is not println!, whose output is shown only if the test fails.
    writeln!(std::io::stdout(), "skipped: {name}: qemu-8.1: none that can use KVM").unwrap();
    false
}
