//! Commands: first a good one, then, for some, a few things done to it that are wrong in any
//! place, at any depth.
//!
//! Invariant: the commands named here are those that both sides have and that change nothing. A
//! command that only QEMU has, or only we have, is never sent. No object of a request has two
//! wrong members: QEMU names the one that a hash table has first, our servers the first in the
//! text.

use fastrand::Rng;

use super::Vocabulary;
use super::hmp;
use super::json::Json;
use super::word::{any, once_in, one_of, string, weird};

/// Commands whose replies are each side's own; asked with a member too many, both refuse it.
const OWN_REPLIES: &[&str] = &["query-version", "query-commands", "query-qmp-schema"];

/// A request's value: mostly an object, mostly a command.
pub(super) fn request(rng: &mut Rng, vocabulary: &Vocabulary) -> Json {
    loop {
        let request = any_request(rng, vocabulary);
        if !has_two_wrong_members(&request) {
            return request;
        }
    }
}

fn any_request(rng: &mut Rng, vocabulary: &Vocabulary) -> Json {
    let mut request = match rng.u32(..100) {
        ..60 => command("query-stats", Some(filter(rng, vocabulary))),
        60..68 => {
            let provider = rng.bool().then(|| Json::dict([("provider", provider(rng))]));
            command("query-stats-schemas", provider)
        }
        68..82 => command("human-monitor-command", Some(hmp_arguments(rng, vocabulary))),
        82..86 => {
            let enable = || Json::dict([("enable", Json::List(vec!["oob".into()]))]);
            command("qmp_capabilities", rng.bool().then(enable))
        }
        86..92 => command(&weird(rng), rng.bool().then(|| any(rng, vocabulary))),
        92..96 => {
            let arguments = Json::Dict(vec![unexpected(rng, vocabulary)]);
            let refused = command(one_of(rng, OWN_REPLIES), Some(arguments));
            return identified(rng, vocabulary, refused);
        }
        _ => return any(rng, vocabulary),
    };
    if once_in(rng, 15) {
        rename(&mut request, "execute", "exec-oob");
    }
    request = identified(rng, vocabulary, request);
    if rng.u32(..100) < 45 {
        for _ in 0..rng.usize(1..4) {
            spoil(rng, vocabulary, &mut request);
        }
    }
    request
}

/// Whether QEMU and our servers may name different members in their refusal.
fn has_two_wrong_members(request: &Json) -> bool {
    let Json::Dict(members) = request else { return false };
    let is_right = |name: &str, value: &Json| match name {
        "id" => true,
        "execute" => matches!(value, Json::String(_)),
        "arguments" => matches!(value, Json::Dict(_)),
        _ => false,
    };
    if members.iter().filter(|(name, value)| !is_right(name, value)).count() > 1 {
        return true;
    }
    let Some(arguments) = request.get("arguments") else { return false };
    let command = request.get("execute").or(request.get("exec-oob")).and_then(Json::as_str);
    let known: &[&str] = match command {
        Some("query-stats") if arguments.get("target").and_then(Json::as_str) == Some("vcpu") => {
            &["target", "providers", "vcpus"]
        }
        Some("query-stats") => &["target", "providers"],
        Some("query-stats-schemas") => &["provider"],
        Some("human-monitor-command") => &["command-line", "cpu-index"],
        Some("qmp_capabilities") => &["enable"],
        Some(name) if OWN_REPLIES.contains(&name) => &[],
        // A command that neither side has is refused before its arguments are looked at.
        _ => return false,
    };
    let entries = match arguments.get("providers") {
        Some(Json::List(entries)) => &entries[..],
        _ => &[],
    };
    let is_entry_wrong = |entry| count_others(entry, &["provider", "names"]) > 1;
    count_others(arguments, known) > 1 || entries.iter().any(is_entry_wrong)
}

/// Returns the number of members of an object that have another name than these.
fn count_others(object: &Json, known: &[&str]) -> usize {
    let Json::Dict(members) = object else { return 0 };
    members.iter().filter(|(name, _)| !known.contains(&name.as_str())).count()
}

/// Whether crypto devices might be asked for some of their statistics by name.
pub(super) fn filters_cryptodev(request: &Json) -> bool {
    let Some(arguments) = request.get("arguments") else { return false };
    let line = arguments.get("command-line").and_then(Json::as_str);
    let target = arguments.get("target").and_then(Json::as_str);
    let has_names = |entry: &Json| entry.get("names").is_some();
    line.is_some_and(|line| line.contains("cryptodev"))
        || target == Some("cryptodev")
            && matches!(arguments.get("providers"),
                Some(Json::List(entries)) if entries.iter().any(has_names))
}

fn command(name: &str, arguments: Option<Json>) -> Json {
    let mut members = vec![("execute".to_owned(), name.into())];
    members.extend(arguments.map(|arguments| ("arguments".to_owned(), arguments)));
    Json::Dict(members)
}

/// Gives it an `id`, or none, and its members any order.
fn identified(rng: &mut Rng, vocabulary: &Vocabulary, mut request: Json) -> Json {
    if let Json::Dict(members) = &mut request {
        if rng.u32(..5) > 1 {
            members.push(("id".to_owned(), any(rng, vocabulary)));
        }
        rng.shuffle(members);
    }
    request
}

fn rename(request: &mut Json, from: &str, to: &str) {
    let Json::Dict(members) = request else { return };
    for (name, _) in members.iter_mut().filter(|(name, _)| name == from) {
        to.clone_into(name);
    }
}

/// A StatsFilter that QEMU accepts, or one with a word in it that it does not know.
fn filter(rng: &mut Rng, vocabulary: &Vocabulary) -> Json {
    const TARGETS: &[&str] =
        &["vcpu", "vcpu", "vcpu", "vcpu", "vcpu", "vm", "vm", "cryptodev", "bad"];
    let target = one_of(rng, TARGETS);
    let mut members = vec![("target".to_owned(), target.into())];
    if rng.u32(..4) > 0 {
        let count = [0, 1, 1, 1, 1, 2, 2, 3][rng.usize(..8)];
        let mut entries: Vec<Json> = (0..count).map(|_| entry(rng, vocabulary)).collect();
        if once_in(rng, 8) && !entries.is_empty() {
            entries.push(entries[0].clone());
        }
        members.push(("providers".to_owned(), Json::List(entries)));
    }
    // QEMU takes them for vCPUs alone.
    if target == "vcpu" && rng.u32(..5) < 2 || once_in(rng, 30) {
        let vcpus = some_of(rng, &vocabulary.vcpus, 6);
        members.push(("vcpus".to_owned(), Json::List(vcpus)));
    }
    rng.shuffle(&mut members);
    Json::Dict(members)
}

/// A StatsRequest.
fn entry(rng: &mut Rng, vocabulary: &Vocabulary) -> Json {
    let mut members = vec![("provider".to_owned(), provider(rng))];
    if rng.u32(..4) > 0 {
        let names = some_of(rng, &vocabulary.names, 8);
        members.push(("names".to_owned(), Json::List(names)));
    }
    rng.shuffle(&mut members);
    Json::Dict(members)
}

fn provider(rng: &mut Rng) -> Json {
    one_of(rng, &["kvm", "kvm", "kvm", "kvm", "kvm", "kvm", "cryptodev", "cryptodev", "bad"]).into()
}

/// Some of these in any order, some of them more than once, or with one that is not of these.
fn some_of(rng: &mut Rng, of: &[String], at_most: usize) -> Vec<Json> {
    let count = rng.usize(..=at_most);
    let mut some: Vec<Json> =
        (0..count).map(|_| of[rng.usize(..of.len())].as_str().into()).collect();
    if once_in(rng, 6) {
        some.push(weird(rng).as_str().into());
    }
    if once_in(rng, 6) {
        // Nearly one of these is none of these.
        let nearly = format!("{}/", of[rng.usize(..of.len())]);
        some.push(one_of(rng, &[&*nearly, &nearly.to_uppercase(), &nearly[1..]]).into());
    }
    rng.shuffle(&mut some);
    some
}

fn hmp_arguments(rng: &mut Rng, vocabulary: &Vocabulary) -> Json {
    let mut members = vec![("command-line".to_owned(), (&*hmp::line(rng, vocabulary)).into())];
    if once_in(rng, 3) {
        let index = [0, 0, 1, 1, 2, 3, 4, -1, i64::MAX, i64::MIN, 1 << 32][rng.usize(..11)];
        members.push(("cpu-index".to_owned(), index.into()));
    }
    rng.shuffle(&mut members);
    Json::Dict(members)
}

/// Does one wrong thing to one of its values.
fn spoil(rng: &mut Rng, vocabulary: &Vocabulary, request: &mut Json) {
    let n = rng.usize(..request.count());
    let place = request.nth_mut(n).expect("it is less than their number");
    match (rng.u32(..6), place) {
        (0, place) => *place = Json::Null,
        (1 | 2, Json::Dict(members)) if !members.is_empty() => {
            members.remove(rng.usize(..members.len()));
        }
        (1, Json::List(items)) if !items.is_empty() => {
            items.push(items[0].clone());
        }
        (2, Json::List(items)) => items.insert(rng.usize(..=items.len()), any(rng, vocabulary)),
        (3 | 4, Json::Dict(members)) => {
            let (name, value) = unexpected(rng, vocabulary);
            if members.iter().all(|(known, _)| *known != name) {
                members.push((name, value));
            }
            rng.shuffle(members);
        }
        (_, place) => *place = any(rng, vocabulary),
    }
}

/// A member that no command has.
fn unexpected(rng: &mut Rng, vocabulary: &Vocabulary) -> (String, Json) {
    let name = match rng.u32(..3) {
        0 => string(rng, vocabulary),
        1 => weird(rng),
        _ => (0..rng.usize(1..9)).map(|_| rng.lowercase()).collect(),
    };
    let value = if rng.bool() { Json::Null } else { string(rng, vocabulary).as_str().into() };
    (name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crypto_devices_asked_by_name_are_known() {
        let entry = |names: bool| {
            let mut members = vec![("provider".to_owned(), "cryptodev".into())];
            members.extend(names.then(|| ("names".to_owned(), Json::Null)));
            Json::Dict(members)
        };
        let filter = |target: &str, names| {
            let providers = Json::List(vec![entry(false), entry(names)]);
            Some(Json::dict([("target", target.into()), ("providers", providers)]))
        };
        let line = |line: &str| Some(Json::dict([("command-line", line.into())]));
        for (arguments, asked) in [
            (filter("cryptodev", true), true),
            (filter("cryptodev", false), false),
            (filter("vcpu", true), false),
            (line("info stats cryptodev * kvm"), true),
            (line("info stats vm"), false),
            (Some(Json::Null), false),
            (None, false),
        ] {
            let request = command("query-stats", arguments);
            assert_eq!(filters_cryptodev(&request), asked, "{request:?}");
        }
    }
    #[test]
    fn two_wrong_members_of_one_object_are_seen() {
        let dict = |names: &[&str]| {
            Json::Dict(names.iter().map(|name| ((*name).to_owned(), "vm".into())).collect())
        };
        for (arguments, has_two) in [
            (dict(&["target", "a"]), false),
            (dict(&["target", "a", "b"]), true),
            (dict(&["target", "vcpus", "a"]), true),
            (Json::dict([("providers", Json::List(vec![dict(&["a"]), dict(&["b"])]))]), false),
            (Json::dict([("providers", Json::List(vec![dict(&["a", "b"])]))]), true),
        ] {
            let request = command("query-stats", Some(arguments));
            assert_eq!(has_two_wrong_members(&request), has_two, "{request:?}");
        }
        assert!(!has_two_wrong_members(&dict(&["execute", "id", "a"])));
        assert!(has_two_wrong_members(&dict(&["execute", "a", "b"])));
        assert!(has_two_wrong_members(&dict(&["execute", "arguments", "a"])));
    }
}
