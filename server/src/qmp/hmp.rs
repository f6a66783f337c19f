//! The command `human-monitor-command`, for the lines of QEMU's monitor that are about statistics.
//!
//! A line is split as in QEMU's monitor (7.2 to 10.2, `monitor/hmp.c`): words are separated by
//! blanks, or stand in double quotes with escapes; a long word is cut. The texts are QEMU's, except
//! for the help.
//!
//! Invariant: a mistake in a line is reported in its output; only a vCPU that does not exist is an
//! error. Every value was read after the request arrived.

use vmstrobe_core::hmp::{InfoStats, Order};
use vmstrobe_core::{Filter, Names, Request, RowState, Schema, Target, VcpuRef};
use vmstrobe_sampler::Catalog;

use super::budget::Budget;
use super::cost::Cost;
use super::filter::{NAMELESS, PROVIDERS, TARGETS, is_known};
use super::query::Opened;
use super::refusal::Refusal;
use super::shared::Shared;

/// The most bytes of a word, that is QEMU's buffer without the NUL. The rest of a word is dropped.
const MAX_WORD_BYTES: usize = 1023;
/// The most words that `help` takes. With more, its output is empty.
const MAX_HELP_WORDS: usize = 16;

/// The memory that the text takes while it is made, as a multiple of the reply to `query-stats`.
const TEXT_COPIES: usize = 4;

const HELP_HELP: &str = "help|? [cmd] -- list the commands, or explain one\n";
const HELP_STATS: &str = "info stats target [names] [provider] -- print what is counted of a \
    target (vm, vcpu, cryptodev); of all names (*) or those in a list with commas, of every \
    provider or one\n";

/// Returns the output of a command line, with `\r\n` behind each line. `cpu` is the index of the
/// current vCPU; by default it is the first.
///
/// # Errors
/// GenericError if there is no such vCPU.
pub(super) fn command_line(
    line: &str,
    cpu: Option<i64>,
    shared: &Shared,
) -> Result<String, Refusal> {
    let catalog = &shared.inventory.catalog();
    Monitor { catalog, order: shared.order, budget: &shared.budget }.output(line, cpu)
}

/// The objects that can be printed, the order of the output, and the budget for printing.
struct Monitor<'a> {
    catalog: &'a Catalog,
    order: Order,
    budget: &'a Budget,
}

impl Monitor<'_> {
    fn output(&self, line: &str, cpu: Option<i64>) -> Result<String, Refusal> {
        let cpu = current_vcpu(cpu, self.catalog)?;
        let text = match parse(line) {
            Command::Say(text) => text,
            Command::InfoStats(words) => self.info_stats(&words, cpu),
        };
        Ok(text.replace('\n', "\r\n"))
    }

    /// Returns the text of `info stats`.
    fn info_stats(&self, words: &StatsWords, vcpu: Option<VcpuRef>) -> String {
        let (StatsWords { target, names, provider }, catalog) = (words, self.catalog);
        if !is_known(target, &TARGETS, catalog, |schema| schema.target().name()) {
            return format!("invalid stats target {target}\n");
        }
        if let Some(provider) = provider
            && !is_known(provider, &PROVIDERS, catalog, Schema::provider)
        {
            return format!("invalid stats provider {provider}\n");
        }
        let names = match names.as_deref() {
            Some("") => return String::new(),
            Some("*") | None => None,
            Some(names) => Some(Names::exact(names.split(','))),
        };
        let providers = Some(requests(names, provider.as_deref(), self.order));
        let target = Target::from_name(target);
        let vcpus = vcpu.map(|vcpu| [vcpu].into_iter().collect());
        let filter = Filter { target, providers, vcpus };
        let text = self.text_of(&filter, provider.is_none());
        text.unwrap_or_else(|refusal| format!("{}\n", refusal.desc))
    }

    fn text_of(&self, filter: &Filter, with_provider: bool) -> Result<String, Refusal> {
        let (pools, order) = (self.budget.pools(), self.order);
        let mut cost = Cost::of(filter, std::slice::from_ref(filter), self.catalog);
        // The text is written, then its line ends are replaced, and then it is written as JSON.
        cost.reply_bytes = cost.reply_bytes.saturating_mul(TEXT_COPIES);
        cost.bytes = cost.bytes.saturating_add(cost.reply_bytes);
        let mut opened = Opened::new(filter, cost, self.catalog, pools)?;
        let snapshot = opened.reader.read().map_err(Refusal::from)?;
        // Objects that have ended are left out, as in `query-stats`.
        if snapshot.objects().all(|view| view.state() == RowState::Gone) {
            return Ok(String::new());
        }
        Ok(InfoStats { snapshot, with_provider, with_path: false, order }.to_string())
    }
}

/// Returns the vCPU that a line is about; `None` if there is none and none was asked for.
fn current_vcpu(cpu: Option<i64>, catalog: &Catalog) -> Result<Option<VcpuRef>, Refusal> {
    let vcpus = catalog.objects().filter(|object| *object.schema.target() == Target::Vcpu);
    let Some(cpu) = cpu else {
        let first = vcpus.min_by_key(|vcpu| vcpu.index.unwrap_or(u32::MAX));
        return Ok(first.map(|vcpu| match vcpu.index {
            Some(index) => VcpuRef::Index(index),
            None => VcpuRef::Path(vcpu.path.clone().into()),
        }));
    };
    // QEMU uses the low 32 bits.
    let index = u32::try_from(cpu as i32).ok();
    let is_there = index.is_some() && vcpus.into_iter().any(|vcpu| vcpu.index == index);
    match index.filter(|_| is_there) {
        Some(index) => Ok(Some(VcpuRef::Index(index))),
        None => Err(Refusal::generic("Parameter 'cpu-index' expects a CPU number")),
    }
}

/// A parsed command line.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    /// Text that does not depend on statistics.
    Say(String),
    InfoStats(StatsWords),
}

/// The arguments of `info stats`.
#[derive(Debug, PartialEq, Eq)]
struct StatsWords {
    target: String,
    names: Option<String>,
    provider: Option<String>,
}

fn parse(line: &str) -> Command {
    let Some((name, rest)) = command_name(line) else {
        return Command::Say(String::new());
    };
    match name {
        "help" | "?" => Command::Say(help(rest)),
        "info" => match command_name(rest) {
            None => Command::Say(HELP_STATS.to_owned()),
            Some(("stats", rest)) => stats_words(line, rest),
            Some((_, rest)) => unknown(before(line, rest)),
        },
        _ => unknown(before(line, rest)),
    }
}

/// Splits a line into the name of the command and the rest; `None` if the line is blank.
fn command_name(rest: &str) -> Option<(&str, &str)> {
    let start = rest.trim_start_matches(is_blank);
    let end = start.find(|c| c == '/' || is_blank(c)).unwrap_or(start.len());
    (!start.is_empty()).then(|| start.split_at(end))
}

/// Returns the part of a line before its rest.
fn before<'a>(line: &'a str, rest: &str) -> &'a str {
    &line[..line.len() - rest.len()]
}

fn unknown(command: &str) -> Command {
    Command::Say(format!("unknown command: '{command}'\n"))
}

/// Parses the words behind `info stats`.
fn stats_words(line: &str, rest: &str) -> Command {
    let asked = before(line, rest);
    let wrong = |what: &str| {
        let try_help = format!("Try \"help {asked}\" for more information\n");
        Command::Say(format!("stats: {what}\n{try_help}"))
    };
    let mut rest = rest;
    let (Some(target), Some(names), Some(provider)) =
        (word(&mut rest), optional_word(&mut rest), optional_word(&mut rest))
    else {
        return wrong("string expected");
    };
    if !is_all_blank(rest) {
        return wrong("extraneous characters at the end of line");
    }
    Command::InfoStats(StatsWords { target, names, provider })
}

/// Takes a word, if there is one; `None` if it is malformed.
fn optional_word(rest: &mut &str) -> Option<Option<String>> {
    if is_all_blank(rest) { Some(None) } else { word(rest).map(Some) }
}

/// Takes a word; `None` if there is none, its quotes are not closed, or it has an unknown escape.
fn word(rest: &mut &str) -> Option<String> {
    let start = rest.trim_start_matches(is_blank);
    let Some(quoted) = start.strip_prefix('"') else {
        let (word, behind) = start.split_at(start.find(is_blank).unwrap_or(start.len()));
        *rest = behind;
        return (!word.is_empty()).then(|| cut(word.to_owned()));
    };
    let (mut word, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => word.push(match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                c @ ('\\' | '\'' | '"') => c,
                _ => return None,
            }),
            c => word.push(c),
        }
    }
    *rest = chars.as_str();
    Some(cut(word))
}

/// Cuts a word to QEMU's buffer, which may leave half a character.
fn cut(word: String) -> String {
    match word.as_bytes().get(..MAX_WORD_BYTES) {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => word,
    }
}

/// Returns whether C's `isspace` holds.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

fn is_all_blank(text: &str) -> bool {
    text.chars().all(is_blank)
}

/// Returns the output of `help` with these words; empty if they are malformed or too many.
fn help(mut rest: &str) -> String {
    let mut words = Vec::new();
    while !is_all_blank(rest) {
        match word(&mut rest) {
            Some(word) if words.len() < MAX_HELP_WORDS => words.push(word),
            _ => return String::new(),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words {
        [] => format!("{HELP_HELP}{HELP_STATS}"),
        ["help" | "?", ..] => HELP_HELP.to_owned(),
        ["info"] | ["info", "stats", ..] => HELP_STATS.to_owned(),
        ["info", other, ..] => format!("unknown command: 'info {other}'\n"),
        [other, ..] => format!("unknown command: '{other}'\n"),
    }
}

/// Returns the requests to providers. In QEMU's order, [`NAMELESS`] is asked for all names.
fn requests(names: Option<Names>, provider: Option<&str>, order: Order) -> Vec<Request> {
    let mut requests = vec![Request { provider: provider.map(str::to_owned), names }];
    if order == Order::Qemu && provider.is_none_or(|provider| provider == NAMELESS) {
        requests.push(Request { provider: Some(NAMELESS.to_owned()), names: None });
    }
    requests
}

#[cfg(test)]
pub(super) mod tests;
