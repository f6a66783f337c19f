//! Any bytes that a client may send to the QMP server: each reply is a line of JSON with a result
//! or an error, a later request is answered, and the sizes of the received pieces make no
//! difference.
//!
//! The first byte of the input says in which order lists are and how long the pieces are into which
//! all bytes are cut. The rest is what the client sends behind its negotiation. The tests check
//! that the answers are QEMU's.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use vmstrobe_core::{
    Desc, Object, Order, Provider, ReadPlan, Registry, Result, RowState, Rows, Schema, Source,
    StatType, Target,
};
use vmstrobe_server::qmp::answers;

const NEGOTIATION: &[u8] = br#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#;
/// The bytes after the input: a control character resynchronises, and one good request follows.
const PROBE: &[u8] = b"\x01{\"execute\": \"query-stats\", \"id\": \"probe\", \
    \"arguments\": {\"target\": \"vcpu\", \"vcpus\": []}}\n";

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let registry = Registry::default();
    registry.add(Arc::new(Two::new()));
    registry
});

fuzz_target!(|data: &[u8]| {
    let Some((&how, sent)) = data.split_first() else { return };
    let order = if how & 1 == 0 { Order::Schema } else { Order::Qemu };
    let all = [NEGOTIATION, sent, PROBE].concat();
    let whole = answers(&REGISTRY, order, [&*all]);
    let pieces = all.chunks(usize::from(how >> 1) + 1);
    let cut = answers(&REGISTRY, order, pieces);
    assert!(whole == cut, "how it was cut makes a difference");
    let text = str::from_utf8(&whole).expect("the text is ASCII");
    let mut lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines.pop(), Some(""), "the last line ends too");
    assert!(lines[0].starts_with(r#"{"QMP": "#));
    for line in &lines[1..] {
        assert!(line.is_ascii());
        let reply: Value = serde_json::from_str(line).expect("each line is JSON");
        let is_one = reply.get("return").is_some() != reply.get("error").is_some();
        assert!(is_one, "a result or an error: {line}");
    }
    // Unless what was sent is an open text of its own that swallows it, which no control character
    // is part of.
    assert_eq!(lines.last(), Some(&r#"{"return": [], "id": "probe"}"#), "it still answers");
});

/// A provider of two vCPUs with a number and a histogram, and a crypto device.
#[derive(Debug)]
struct Two {
    schemas: [Arc<Schema>; 2],
}

struct Ones(usize);

impl Two {
    fn new() -> Self {
        let hist = Desc { stat_type: StatType::Log2Histogram, size: 4, ..Desc::counter("hist", 8) };
        let vcpu = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0), hist]);
        let ops = vec![Desc::counter("sym-encrypt-ops", 0)];
        Self { schemas: [vcpu, Schema::new("cryptodev", Target::Cryptodev, ops)] }
    }
}

impl Source for Ones {
    fn rows(&self) -> usize {
        self.0
    }

    fn read(&mut self, rows: Rows<'_>) {
        rows.fill(|_, row| {
            row.fill(1);
            RowState::Good
        });
    }
}

impl Provider for Two {
    fn name(&self) -> &str {
        "two"
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(self.schemas.to_vec())
    }

    fn objects(&self) -> Result<Vec<Object>> {
        let object = |path: &str, index, schema: usize, key| {
            let schema = Arc::clone(&self.schemas[schema]);
            Object { path: path.into(), index, schema, key }
        };
        let vcpu = |at| object(&format!("/vcpu[{at}]"), Some(at), 0, at.into());
        Ok(vec![vcpu(0), vcpu(1), object("/objects/c", None, 1, 2)])
    }

    fn open(&self, objects: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        Ok(vec![Box::new(Ones(objects.len()))])
    }
}
