//! The rules that need no more than a file's lines.

use super::tree::File;

const MAX_LINES: usize = 350;
const MIN_LINES: usize = 80;
const MAX_COLUMNS: usize = 100;

/// Files that hold a crate or a module together, or one short thing, by their nature.
const GLUE: &[&str] = &["lib.rs", "mod.rs", "main.rs", "sync.rs", "sys.rs", "error.rs", "tests.rs"];

/// Folders where a file is as long as its one test, example or target.
const GLUE_PLACES: &[&str] = &["tests", "examples", "benches", "fuzz"];

/// Files that are short for a reason: (file, reason).
pub(crate) const SHORT: &[(&str, &str)] = &[
    ("core/src/mask.rs", "one set of bits"),
    ("core/src/seq.rs", "one protocol, to be read beside its loom model and nothing else"),
    ("cli/src/privileges/launcher.rs", "one thread that starts one command"),
    ("cli/src/read_status.rs", "one value of the library in words"),
    ("cli/src/demo/summary.rs", "one text"),
    ("cli/src/top/ascii.rs", "one table of characters"),
    ("cli/src/top/job.rs", "one question, whether anybody lets a stopped process go on"),
    ("cli/src/top/look.rs", "two types, below everything that draws"),
    ("cli/src/top/sparkline.rs", "two shapes in one row"),
    ("cli/src/record/control.rs", "one socket of the library, and its events in words"),
    ("cli/src/demo/chart.rs", "one kind of chart, and its numbers"),
    ("cli/src/args/report.rs", "the arguments of one command"),
    ("cli/src/child.rs", "one command that is started and ends"),
    ("export/src/perfetto/changes.rs", "one order of values, beside the rest of the writer"),
    ("export/src/perfetto/fields.rs", "numbers of Perfetto's fields"),
    ("export/src/perfetto/proto.rs", "one wire format, as far as it is needed"),
    ("cli/src/record/on_trigger.rs", "one command, started and not waited for"),
    ("vmstrobe/src/error/text.rs", "parts of texts"),
    ("cli/src/limits.rs", "one limit of the system, raised and given back"),
    ("providers/testing/src/snapshots.rs", "one fixture"),
    ("guest/src/processor.rs", "what is of one processor alone"),
    ("guest/src/other_processor.rs", "one stand-in"),
    ("providers/host/src/vm_info.rs", "two types"),
    ("vmstrobe/src/found.rs", "which one is meant if none was named"),
    ("vmstrobe/src/view/action.rs", "all actions, to be read as one list"),
    ("vmstrobe/src/view/matching.rs", "one filter of names"),
    ("vmstrobe/src/unknown_name.rs", "one type, and what it suggests"),
    ("vmstrobe/src/parts.rs", "the optional providers, and nothing else"),
    ("vmstrobe/src/parts/without_fd_server.rs", "one stand-in"),
    ("vmstrobe/src/parts/without_qmp.rs", "one stand-in"),
    ("vmstrobe/src/parts/without_table.rs", "one stand-in"),
    ("vmstrobe/src/serve/socket_files.rs", "one list, shared with the thread that ends a process"),
    ("providers/host/src/host/facts.rs", "what may be asked of /proc about another process"),
    ("providers/host/src/host/link.rs", "the kernel's names for KVM's files"),
    ("providers/host/src/host/refused.rs", "one error, for all that the helper does"),
    ("providers/kvm/src/vcpu.rs", "one type"),
    ("providers/kvm/src/vcpu_owner.rs", "one trait, between two providers and a third"),
    ("providers/host/src/refusal/proc.rs", "one mount, and whom it hides"),
    ("providers/table/src/attach.rs", "one way to come by tables"),
    ("providers/host/src/host/relay.rs", "one connection and its helper"),
    ("providers/host/src/host/seen.rs", "the types of what is seen; how, the helper knows"),
    ("providers/bpf/src/kernel.rs", "what bulk readers are made with; the trial makes it"),
    ("providers/bpf/src/sys/apart.rs", "one kind of thread, and its conditions"),
    ("providers/kvm/src/attach/options.rs", "one set of options"),
    ("providers/kvm/src/proc.rs", "one name in a command line"),
    ("providers/host/src/memfd.rs", "one call, which older kernels know without a flag"),
    ("providers/host/src/release.rs", "one fault of some kernels"),
    ("providers/bpf/src/sys/attr.rs", "the kernel's structures of bpf(2)"),
    ("providers/fd-server/src/export.rs", "one trait, and who implements it"),
    ("providers/kvm/src/opened.rs", "one object with its descriptor, and its path"),
    ("providers/kvm/src/ioctls.rs", "two types of one crate, by a feature"),
    ("providers/kvm/src/sched/watched.rs", "one vCPU that is asked for"),
    ("providers/qmp/src/block.rs", "one object that is asked for"),
    ("providers/table/src/find.rs", "one name to look for in /proc"),
    ("providers/fd-server/src/packet.rs", "one packet, as both ends send and receive it"),
    ("providers/host/src/gone_epoch.rs", "one counter and its ordering argument"),
    ("providers/host/src/reaper.rs", "one thread that closes"),
    ("export/src/arrows.rs", "the table of a format's columns, and its parts"),
    ("export/src/arrows/events.rs", "one list as keys and texts, and back"),
    ("export/src/columns/names.rs", "one rule of names"),
    ("export/src/columns/properties.rs", "one statistic as keys and texts, and back"),
    ("export/src/text.rs", "what two formats share, and no third"),
    ("export/src/parquet.rs", "the choices of a format, and its parts"),
    ("export/src/parquet/codec.rs", "one codec, and what it trusts"),
    ("export/src/parquet/events.rs", "one list as a text, and back"),
    ("export/src/limits.rs", "the limits, to be read as one list"),
    ("sampler/src/clock.rs", "two clocks; everyone else is to read them here"),
    ("server/src/qmp/config.rs", "one struct that programs fill in"),
    ("server/src/qmp/refusal.rs", "one kind of reply"),
    ("server/src/qmp/shared.rs", "one struct, below everything that uses it"),
    ("server/src/qmp/version.rs", "what we say we are"),
];

/// The folders of the crates whose users must not see a panic.
const PRODUCT: &[&str] =
    &["core", "providers", "sampler", "listen", "export", "server", "guest", "vmstrobe", "cli"];

/// Commands that a user must find: (file, the command).
const SHOWN: &[(&str, &str)] = &[
    ("README.md", "cargo run --release -- demo"),
    ("README.md", "ci/test.sh"),
    (".ci/run", "ci/test.sh"),
];

/// Words for a person, which no process, client, thread or user of a program is.
const PERSONS: &[&str] = &["he", "him", "his", "himself", "she", "her", "hers", "herself"];

/// Words with which a comment begins that has no verb of its own.
const HEADLESS: &[&str] =
    &["What", "Who", "Whose", "Where", "Which", "How", "Those", "That", "The same"];

// The rules below search for words that must not stand in the tree, so not in here either: they
// are written in two pieces.

const LEFTOVERS: &[&str] = &[
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("db", "g!"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
];

const IGNORED: &str = concat!("#[ig", "nore");

const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("debian", ".org"),
    concat!("ubuntu", ".com"),
    concat!("pypi", ".org"),
    concat!("npmjs", ".org"),
    concat!("golang", ".org"),
];

/// A Rust file opens with what it is for.
pub(crate) fn opens_with_its_purpose(file: &File) -> Vec<String> {
    let opening = file.text.lines().next().unwrap_or_default();
    if !file.is_rust() || opening.starts_with("//!") {
        return Vec::new();
    }
    vec![file.at(1, opening)]
}

/// A Rust file above its tests is neither a heap nor a crumb.
pub(crate) fn size(file: &File) -> Vec<String> {
    let lines = file.lines_above_tests().count();
    let may_be_short = GLUE.contains(&file.name())
        || file.path.split('/').any(|folder| GLUE_PLACES.contains(&folder))
        || SHORT.iter().any(|(path, _)| *path == file.path);
    let text = match lines {
        _ if !file.is_rust() => return Vec::new(),
        ..MIN_LINES if !may_be_short => format!("{lines} lines, less than {MIN_LINES}"),
        ..=MAX_LINES => return Vec::new(),
        _ => format!("{lines} lines above the tests, more than {MAX_LINES}"),
    };
    vec![file.at(lines, text)]
}

/// Each file of a list such as [`SHORT`] is there, and is short.
pub(crate) fn listed_as_short(list: &[(&str, &str)], tree: &[File]) -> Vec<String> {
    let is_short = |path: &str| {
        let mut files = tree.iter().filter(|file| file.path == path);
        files.any(|file| file.lines_above_tests().count() < MIN_LINES)
    };
    let stale = list.iter().filter(|(path, _)| !is_short(path));
    stale
        .map(|(path, why)| format!("{path}:1: not there or not short, but listed: {why}"))
        .collect()
}

/// A line of Rust fits a screen, and one of prose; tables and what is shown as code may be wider.
pub(crate) fn columns(file: &File) -> Vec<String> {
    let wide = |line: &str| line.chars().count() > MAX_COLUMNS;
    let mut found = find(file, file.is_rust(), file.lines(), wide);
    let mut is_code = false;
    let prose = file.lines().filter(|(_, line)| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code && !line.starts_with('|')
    });
    found.extend(find(file, file.is_markdown(), prose, wide));
    found
}

/// Returns true for a file of a crate that users run.
pub(crate) fn is_product(path: &str) -> bool {
    let package = path.split_once("/src/").map_or("", |(package, _)| package);
    let folder = package.split('/').next().unwrap_or_default();
    PRODUCT.contains(&folder) && package != "providers/testing"
}

/// Checks that the product has no panic by `unwrap`.
pub(crate) fn unwraps(file: &File) -> Vec<String> {
    let product = is_product(&file.path);
    let hit = |line: &str| line.contains(".unwrap()") && !line.trim_start().starts_with("//");
    find(file, file.is_rust() && product, file.lines_above_tests(), hit)
}

/// Checks that no code is unfinished, and that no debugging aid is left.
pub(crate) fn leftovers(file: &File) -> Vec<String> {
    find(file, file.is_rust(), file.lines(), |line| has_any(line, LEFTOVERS))
}

/// A process, a client and a thread are "it", and people are "they".
pub(crate) fn persons(file: &File) -> Vec<String> {
    let is_ours = file.is_rust() || file.is_markdown();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let hit = |line: &str| {
        let mut words = line.split(|c| !is_word(c));
        words.any(|word| PERSONS.iter().any(|person| word.eq_ignore_ascii_case(person)))
    };
    // Where the words stand that are searched for.
    find(file, is_ours && !file.path.starts_with("tests/tests/tidy"), file.lines(), hit)
}

/// A doc comment has a verb: "Returns ...", or is a noun phrase that defines. A question may begin
/// as it likes.
pub(crate) fn headless(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let begins = |text: &str| {
        let rest = HEADLESS.iter().filter_map(|word| text.strip_prefix(word));
        rest.into_iter().any(|rest| !rest.starts_with(char::is_alphanumeric))
    };
    let hit = |(number, line): (usize, &str)| {
        let is_headless = doc_text(line).is_some_and(begins);
        is_headless && !is_question(&lines[number - 1..])
    };
    let found = file.lines().filter(|line| file.is_rust() && hit(*line));
    found.map(|(number, line)| file.at(number, line.trim())).collect()
}

/// The text of a line of a doc comment.
fn doc_text(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim)
}

/// Returns true if the sentence with which these lines of a doc comment begin is a question.
fn is_question(lines: &[&str]) -> bool {
    let words = lines.iter().map_while(|line| doc_text(line)).flat_map(str::split_whitespace);
    let mut ends = words.filter(|word| word.ends_with(['.', '?', '!']));
    ends.next().is_some_and(|word| word.ends_with('?'))
}

/// A test runs, or says at run time why not.
pub(crate) fn ignored_tests(file: &File) -> Vec<String> {
    find(file, file.is_rust(), file.lines(), |line| line.contains(IGNORED))
}

/// Checks that no text is true on one machine only.
pub(crate) fn machine_paths(file: &File) -> Vec<String> {
    find(file, true, file.lines(), |line| has_any(line, MACHINE_PATHS))
}

/// Checks that no host of a package registry is named: packages come from where the machine is set
/// up.
pub(crate) fn registry_hosts(file: &File) -> Vec<String> {
    let locked = |line: &str| file.name() == "Cargo.lock" && line.starts_with("source = ");
    find(file, true, file.lines(), |line| has_any(line, REGISTRIES) && !locked(line))
}

/// The commands of [`SHOWN`] stand where a user looks for them.
pub(crate) fn shown_commands(tree: &[File]) -> Vec<String> {
    let missing = |path: &str, text: &str| {
        !tree.iter().any(|file| file.path == path && file.text.contains(text))
    };
    let shown = SHOWN.iter().filter(|(path, text)| missing(path, text));
    shown.map(|(path, text)| format!("{path}:1: does not show: {text}")).collect()
}

/// Returns the lines that `hit` finds, if the rule applies to this file.
fn find<'a>(
    file: &File,
    applies: bool,
    lines: impl Iterator<Item = (usize, &'a str)>,
    hit: impl Fn(&str) -> bool,
) -> Vec<String> {
    let lines = lines.filter(|(_, line)| applies && hit(line));
    lines.map(|(number, line)| file.at(number, line.trim())).collect()
}

/// Returns true if one of the words begins somewhere in the line, and is not the end of a longer
/// one.
fn has_any(line: &str, words: &[&str]) -> bool {
    let begins = |at: usize| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    };
    words.iter().any(|word| line.match_indices(word).any(|(at, _)| begins(at)))
}
