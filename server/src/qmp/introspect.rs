//! The commands, events and types of this server, for `query-commands` and `query-qmp-schema`.
//!
//! The table below is the part of QAPI's schema that this server implements (QEMU 10.0,
//! `qapi/stats.json`, `misc.json`, `introspect.json`), and four commands and two events of its own.
//! Two of these commands exist only where the program records (see `recorder`).
//! In the reply, types have numbers instead of names and follow the commands and events in the
//! order of first use, as in QEMU.
//!
//! Invariant: everything that QEMU has too is described as QEMU describes it. A command that a
//! server does not have is not listed.

use super::recorder;

/// The commands of every server, in QEMU's order: the one that is defined last comes first.
pub(super) const COMMANDS: &[&str] = &[
    "stats-unsubscribe",
    "stats-subscribe",
    "query-stats-schemas",
    "query-stats",
    "human-monitor-command",
    "query-qmp-schema",
    "quit",
    "query-commands",
    "query-version",
    "qmp_capabilities",
];

/// QAPI `SchemaInfo`. Types are referred to by name; `[type]` is an array of them.
enum Info {
    /// A command: its arguments, return value and features.
    Command(&'static str, &'static str, &'static [&'static str]),
    /// An event: its data.
    Event(&'static str),
    Object(&'static [Member]),
    /// An object with further members that depend on the value of one member: the name of that
    /// member, and the type with the further members for each value.
    Union(&'static str, &'static [Member], &'static [Member]),
    Enum(&'static [&'static str]),
    Alternate(&'static [&'static str]),
}

/// A name and a type. `?` behind the name means optional, `!` means deprecated.
type Member = (&'static str, &'static str);

use Info::{Alternate, Command, Enum, Event, Object, Union};

#[rustfmt::skip] // a table
const SCHEMA: &[(&str, Info)] = &[
    ("qmp_capabilities", Command("Capabilities", "Empty", &[])),
    ("query-version", Command("Empty", "VersionInfo", &[])),
    ("query-commands", Command("Empty", "[CommandInfo]", &[])),
    ("quit", Command("Empty", "Empty", &[])),
    ("query-qmp-schema", Command("Empty", "[SchemaInfo]", &[])),
    ("human-monitor-command", Command("CommandLine", "str", &["savevm-monitor-nodes"])),
    ("query-stats", Command("StatsFilter", "[StatsResult]", &[])),
    ("query-stats-schemas", Command("SchemaFilter", "[StatsSchema]", &[])),
    ("stats-subscribe", Command("StatsRequested", "StatsSubscription", &[])),
    ("stats-unsubscribe", Command("StatsUnwanted", "Empty", &[])),
    ("stats-dump", Command("StatsDump", "StatsDumped", &[])),
    ("stats-mark", Command("StatsMark", "StatsMarked", &[])),
    ("STATS_SAMPLES", Event("StatsSamples")),
    ("STATS_OBJECTS", Event("StatsObjects")),

    ("Empty", Object(&[])),
    ("Capabilities", Object(&[("enable?", "[Capability]")])),
    ("Capability", Enum(&["oob"])),
    ("VersionInfo", Object(&[("qemu", "VersionTriple"), ("package", "str")])),
    ("VersionTriple", Object(&[("major", "int"), ("minor", "int"), ("micro", "int")])),
    ("CommandInfo", Object(&[("name", "str")])),
    ("CommandLine", Object(&[("command-line", "str"), ("cpu-index?", "int")])),

    ("StatsFilter", Union("target", &[
        ("target", "Target"), ("providers?", "[Request]"),
    ], OF_TARGET)),
    ("Target", Enum(&["vm", "vcpu", "cryptodev"])),
    ("Provider", Enum(&["kvm", "cryptodev"])),
    ("Request", Object(&[("provider", "Provider"), ("names?", "[str]")])),
    ("Vcpus", Object(&[("vcpus?", "[str]")])),
    ("StatsResult", Object(&[
        ("provider", "Provider"), ("qom-path?", "str"), ("stats", "[Stats]"),
    ])),
    ("Stats", Object(&[("name", "str"), ("value", "Value")])),
    ("Value", Alternate(&["int", "bool", "[int]"])),
    ("SchemaFilter", Object(&[("provider?", "Provider")])),
    ("StatsSchema", Object(&[("provider", "Provider"), ("target", "Target"), ("stats", "[Desc]")])),
    ("Desc", Object(&[
        ("name", "str"), ("type", "StatsType"), ("unit?", "Unit"), ("base?", "int"),
        ("exponent", "int"), ("bucket-size?", "int"),
    ])),
    ("StatsType", Enum(&["cumulative", "instant", "peak", "linear-histogram", "log2-histogram"])),
    ("Unit", Enum(&["bytes", "seconds", "cycles", "boolean"])),

    ("StatsRequested", Union("target", &[
        ("target", "Target"), ("providers?", "[Request]"), ("rate", "int"), ("batch?", "int"),
    ], OF_TARGET)),
    ("StatsSubscription", Object(&[
        ("subscription", "int"), ("rate", "int"), ("batch", "int"), ("generation", "int"),
        ("groups", "[Group]"),
    ])),
    ("Group", Object(&[
        ("provider", "str"), ("target", "str"), ("stats", "[Desc]"), ("objects", "[str]"),
    ])),
    ("StatsUnwanted", Object(&[("subscription", "int")])),
    ("StatsSamples", Object(&[
        ("subscription", "int"), ("generation", "int"), ("lost", "int"), ("wall-offset-ns", "int"),
        ("samples", "[Sample]"),
    ])),
    ("Sample", Object(&[
        ("tick", "int"), ("begin-ns", "int"), ("end-ns", "int"), ("values", "[Row]"),
    ])),
    ("Row", Alternate(&["[Value]", "null"])),
    ("StatsObjects", Object(&[
        ("subscription", "int"), ("generation", "int"), ("groups", "[Group]"),
    ])),

    ("StatsDump", Object(&[("last-ns?", "int"), ("filename?", "str")])),
    ("StatsDumped", Object(&[("files", "[StatsDumpFile]")])),
    ("StatsDumpFile", Object(&[
        ("filename", "str"), ("bytes", "int"), ("samples", "int"), ("begin-wall-ns", "int"),
        ("end-wall-ns", "int"),
    ])),
    ("StatsMark", Object(&[("text", "str")])),
    ("StatsMarked", Object(&[("wall-ns", "int")])),

    ("SchemaInfo", Union("meta-type", &[
        ("name", "str"), ("meta-type", "MetaType"), ("features?", "[str]"),
    ], &[
        ("builtin", "InfoBuiltin"), ("enum", "InfoEnum"), ("array", "InfoArray"),
        ("object", "InfoObject"), ("alternate", "InfoAlternate"), ("command", "InfoCommand"),
        ("event", "InfoEvent"),
    ])),
    ("MetaType", Enum(&["builtin", "enum", "array", "object", "alternate", "command", "event"])),
    ("InfoBuiltin", Object(&[("json-type", "JsonType")])),
    ("JsonType", Enum(&["string", "number", "int", "boolean", "null", "object", "array", "value"])),
    ("InfoEnum", Object(&[("members", "[InfoEnumMember]"), ("values!", "[str]")])),
    ("InfoEnumMember", Object(&[("name", "str"), ("features?", "[str]")])),
    ("InfoArray", Object(&[("element-type", "str")])),
    ("InfoObject", Object(&[
        ("members", "[InfoMember]"), ("tag?", "str"), ("variants?", "[InfoVariant]"),
    ])),
    ("InfoMember", Object(&[
        ("name", "str"), ("type", "str"), ("default?", "any"), ("features?", "[str]"),
    ])),
    ("InfoVariant", Object(&[("case", "str"), ("type", "str")])),
    ("InfoAlternate", Object(&[("members", "[InfoAlternative]")])),
    ("InfoAlternative", Object(&[("type", "str")])),
    ("InfoCommand", Object(&[("arg-type", "str"), ("ret-type", "str"), ("allow-oob?", "bool")])),
    ("InfoEvent", Object(&[("arg-type", "str")])),
];

/// The types with the further members of a filter, by target.
const OF_TARGET: &[Member] = &[("vcpu", "Vcpus"), ("vm", "Empty"), ("cryptodev", "Empty")];

/// The builtin types of QAPI that are used here, and their JSON types.
const BUILTINS: [(&str, &str); 5] =
    [("str", "string"), ("int", "int"), ("bool", "boolean"), ("null", "null"), ("any", "value")];

/// Appends the return value of `query-commands` of a server with further commands.
pub(super) fn write_commands(further: &[&str], out: &mut Vec<u8>) {
    let commands = further.iter().chain(COMMANDS);
    let commands = list(commands.map(|name| format!(r#"{{"name": "{name}"}}"#)));
    out.extend_from_slice(commands.as_bytes());
}

/// Appends the return value of `query-qmp-schema` of a server with further commands.
pub(super) fn write_schema(further: &[&str], out: &mut Vec<u8>) {
    let mut types = Types::default();
    let is_root = |info: &Info| matches!(info, Command(..) | Event(_));
    let is_absent = |name: &&str| recorder::COMMANDS.contains(name) && !further.contains(name);
    let roots = SCHEMA.iter().filter(|(name, info)| is_root(info) && !is_absent(name));
    let mut entities: Vec<String> = roots.map(|(name, info)| types.entity(name, info)).collect();
    let mut at = 0;
    while let Some(&name) = types.used.get(at) {
        entities.push(types.definition(name));
        at += 1;
    }
    out.extend_from_slice(list(entities.into_iter()).as_bytes());
}

/// The types that were referred to, in the order of the first reference.
#[derive(Default)]
struct Types {
    used: Vec<&'static str>,
    /// The types that are named by a number, which is their index in this list.
    numbered: Vec<&'static str>,
}

impl Types {
    /// Returns the reference to a type.
    fn reference(&mut self, name: &'static str) -> String {
        if !self.used.contains(&name) {
            self.used.push(name);
        }
        if let Some(element) = element(name) {
            return format!("[{}]", self.reference(element));
        }
        if BUILTINS.iter().any(|(builtin, _)| *builtin == name) {
            return name.to_owned();
        }
        let number = self.numbered.iter().position(|numbered| *numbered == name);
        let number = number.unwrap_or_else(|| {
            self.numbered.push(name);
            self.numbered.len() - 1
        });
        number.to_string()
    }

    fn definition(&mut self, name: &'static str) -> String {
        let reference = self.reference(name);
        if let Some(element) = element(name) {
            let element = self.reference(element);
            let rest = format!(r#""element-type": "{element}", "meta-type": "array""#);
            return format!(r#"{{"name": "{reference}", {rest}}}"#);
        }
        if let Some((_, json)) = BUILTINS.iter().find(|(builtin, _)| *builtin == name) {
            let rest = format!(r#""json-type": "{json}", "meta-type": "builtin""#);
            return format!(r#"{{"name": "{reference}", {rest}}}"#);
        }
        let known = SCHEMA.iter().find(|(known, _)| *known == name);
        let (_, info) = known.expect("every type that the table refers to is in the table");
        self.entity(&reference, info)
    }

    /// Returns one element of the schema, with its keys in QEMU's order.
    fn entity(&mut self, name: &str, info: &Info) -> String {
        let rest = match info {
            Command(arg, ret, features) => {
                let (arg, ret) = (self.reference(arg), self.reference(ret));
                let features = with_features(features);
                format!(
                    r#""ret-type": "{ret}", "meta-type": "command", "arg-type": "{arg}"{features}"#
                )
            }
            Event(data) => {
                format!(r#""meta-type": "event", "arg-type": "{}""#, self.reference(data))
            }
            Object(members) => self.members(members) + r#", "meta-type": "object""#,
            Union(tag, members, variants) => {
                let members = self.members(members);
                let variants = variants.iter().map(|(case, of)| {
                    format!(r#"{{"case": "{case}", "type": "{}"}}"#, self.reference(of))
                });
                let variants = list(variants);
                format!(
                    r#""tag": "{tag}", "variants": {variants}, {members}, "meta-type": "object""#
                )
            }
            Enum(values) => {
                let members = list(values.iter().map(|name| format!(r#"{{"name": "{name}"}}"#)));
                let values = list(values.iter().map(|name| format!(r#""{name}""#)));
                format!(r#""members": {members}, "meta-type": "enum", "values": {values}"#)
            }
            Alternate(types) => {
                let member = |of: &&'static str| format!(r#"{{"type": "{}"}}"#, self.reference(of));
                let members = list(types.iter().map(member));
                format!(r#""members": {members}, "meta-type": "alternate""#)
            }
        };
        format!(r#"{{"name": "{name}", {rest}}}"#)
    }

    fn members(&mut self, members: &'static [Member]) -> String {
        let members = members.iter().map(|(name, of)| {
            let bare = name.trim_end_matches(['?', '!']);
            let default = if name.ends_with('?') { r#""default": null, "# } else { "" };
            let features = with_features(if name.ends_with('!') { &["deprecated"] } else { &[] });
            let of = self.reference(of);
            format!(r#"{{"name": "{bare}", {default}"type": "{of}"{features}}}"#)
        });
        format!(r#""members": {}"#, list(members))
    }
}

/// Returns the type of an array's elements.
fn element(name: &'static str) -> Option<&'static str> {
    name.strip_prefix('[')?.strip_suffix(']')
}

fn with_features(features: &[&str]) -> String {
    if features.is_empty() {
        return String::new();
    }
    format!(r#", "features": {}"#, list(features.iter().map(|name| format!(r#""{name}""#))))
}

fn list(texts: impl Iterator<Item = String>) -> String {
    format!("[{}]", texts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
