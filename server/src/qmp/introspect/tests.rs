//! The schema is complete, and the parts that QEMU has too are described as a real QEMU describes
//! them.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value as Json, json};

use super::*;
use crate::qmp::hmp::tests::Qemu;

/// The keys whose values are types, in elements of a schema and in their members.
const REFERENCES: [&str; 4] = ["arg-type", "ret-type", "element-type", "type"];

/// Commands of every server that QEMU does not have.
const OURS: [&str; 2] = ["stats-subscribe", "stats-unsubscribe"];

/// The list of commands, or the schema, of a server with further commands.
type Write = fn(&[&str], &mut Vec<u8>);

fn written(write: Write, further: &[&str]) -> (String, Vec<Json>) {
    let mut out = Vec::new();
    write(further, &mut out);
    let text = String::from_utf8(out).unwrap();
    let list = serde_json::from_str(&text).unwrap();
    (text, list)
}

fn names<'a>(list: &'a [Json], meta_type: &str) -> Vec<&'a str> {
    let of_type = list.iter().filter(|entity| entity["meta-type"] == meta_type);
    of_type.map(|entity| entity["name"].as_str().unwrap()).collect()
}

/// A schema by the names of its elements.
struct Named<'a>(HashMap<&'a str, &'a Json>);

impl<'a> Named<'a> {
    fn new(schema: &'a [Json]) -> Self {
        let named: HashMap<&str, &Json> =
            schema.iter().map(|entity| (entity["name"].as_str().unwrap(), entity)).collect();
        assert_eq!(named.len(), schema.len(), "a name is there twice");
        Self(named)
    }

    /// Returns an element with every reference replaced by its target, without the names of types.
    fn resolved(&self, name: &str) -> Json {
        let mut entity = self.0[name].as_object().unwrap().clone();
        if entity["meta-type"] != "command" && entity["meta-type"] != "builtin" {
            entity.remove("name");
        }
        self.expand(&Json::Object(entity))
    }

    fn expand(&self, value: &Json) -> Json {
        match value {
            Json::Object(members) => {
                let member = |(key, value): (&String, &Json)| {
                    let is_reference = REFERENCES.contains(&key.as_str());
                    let expanded = match value {
                        Json::String(name) if is_reference => self.resolved(name),
                        value => self.expand(value),
                    };
                    (key.clone(), expanded)
                };
                Json::Object(members.iter().map(member).collect::<Map<_, _>>())
            }
            Json::Array(elements) => elements.iter().map(|value| self.expand(value)).collect(),
            value => value.clone(),
        }
    }
}

#[test]
fn the_schema_is_whole() {
    for further in [&[], recorder::COMMANDS] {
        let (_, schema) = written(write_schema, further);
        let (_, commands) = written(write_commands, further);
        let listed: Vec<&str> = commands.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(listed, [further, COMMANDS].concat());
        let mut described = names(&schema, "command");
        described.reverse();
        assert_eq!(described, listed);
    }
    let (_, schema) = written(write_schema, recorder::COMMANDS);
    assert_eq!(names(&schema, "event"), ["STATS_SAMPLES", "STATS_OBJECTS"]);
    let named = Named::new(&schema);
    for name in ["command", "event"].iter().flat_map(|meta_type| names(&schema, meta_type)) {
        assert!(named.resolved(name).is_object());
    }
    // Everything in the table is needed: it is among the elements, which have as many named types.
    let is_type = |name: &&str| name.parse::<usize>().is_ok();
    let types = named.0.keys().filter(|name| is_type(name)).count();
    let roots = COMMANDS.len() + recorder::COMMANDS.len() + 2;
    assert_eq!(types + roots, SCHEMA.len());
}

#[test]
fn it_is_spelt_as_qemu_does() {
    let (text, _) = written(write_commands, &[]);
    assert!(text.starts_with(r#"[{"name": "stats-unsubscribe"}, {"name": "#), "{text}");
    let (text, _) = written(write_schema, &[]);
    for part in [
        r#"[{"name": "qmp_capabilities", "ret-type": "1", "meta-type": "command", "#,
        r#""meta-type": "command", "arg-type": "0"}, {"name": "query-version", "#,
        r#""arg-type": "5", "features": ["savevm-monitor-nodes"]}, "#,
        r#"{"name": "STATS_OBJECTS", "meta-type": "event", "arg-type": ""#,
        r#"{"name": "1", "members": [], "meta-type": "object"}, "#,
        r#""members": [{"name": "oob"}], "meta-type": "enum", "values": ["oob"]}"#,
        r#"{"name": "str", "json-type": "string", "meta-type": "builtin"}"#,
        r#", "element-type": "3", "meta-type": "array"}"#,
        r#""tag": "target", "variants": [{"case": "vcpu", "type": ""#,
        r#"{"name": "qom-path", "default": null, "type": "str"}"#,
        r#""type": "[str]", "features": ["deprecated"]}"#,
        r#""members": [{"type": "int"}, {"type": "bool"}, {"type": "[int]"}], "meta-type": "alte"#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn what_we_share_is_as_a_real_qemu_has_it() {
    let Some(mut qemu) = Qemu::start() else { return };
    let theirs = qemu.ask("query-qmp-schema", &json!({}));
    let theirs = theirs["return"].as_array().unwrap();
    let (_, ours) = written(write_schema, &[]);
    let (ours, theirs) = (Named::new(&ours), Named::new(theirs));
    let shared: Vec<&str> = COMMANDS.iter().copied().filter(|name| !OURS.contains(name)).collect();
    for &name in &shared {
        assert_eq!(ours.resolved(name), theirs.resolved(name), "{name}");
    }
    let commands = qemu.ask("query-commands", &json!({}));
    let commands = commands["return"].as_array().unwrap();
    let commands = commands.iter().map(|command| command["name"].as_str().unwrap());
    let wanted: BTreeSet<&str> = shared.iter().copied().collect();
    let in_order: Vec<&str> = commands.filter(|name| wanted.contains(name)).collect();
    assert_eq!(in_order, shared);
}
