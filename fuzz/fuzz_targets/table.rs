//! A table of statistics of any bytes: it is refused, or its readings agree with its bytes.
//!
//! The input is a byte of flags, some changes, and the bytes of the table, in a memfd that is
//! sealed, so that the reader maps it, or not, so that it reads it by system calls. What an object
//! is and what its words are is held against a second reading of the bytes, by the documentation of
//! the format alone; and one way of reading against the other. Changes come between the reader's
//! steps, as they would from a writer that runs on.
//!
//! Nothing changes while a step is under way: that is the tests' own writer, `hostile`.

#![no_main]

// The same second reading as the tests'.
#[allow(dead_code, reason = "the tests also write images by it")]
#[path = "../../tests/src/hostile/layout.rs"]
mod layout;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vmstrobe_core::wire::{MAX_DATA_BYTES, MAX_DESCS};
use vmstrobe_core::{
    ErrorKind, Mask, Object, Provider, ReadPlan, RowState, Rows, Schema, Source, Value,
};
use vmstrobe::table::{MAX_SLOTS, MAX_TABLE_DESCS, Tables};

use layout::{
    BYTE_ORDER, Entry, GENERATION, HEADER_WORDS, HEARTBEAT, HEARTBEAT_PERIOD, MAGIC, SEGMENT_BYTES,
    SLOTS_USED, VERSION, WORD_BYTES, bytes_of, entries,
};

/// The bytes of a change: its step, its word and its value.
const CHANGE_BYTES: usize = 11;
/// The steps of the reader, before each of which the table may change.
const STEPS: u8 = 4;

/// The test case that an input encodes.
struct Case {
    is_sealed: bool,
    changes: Vec<Change>,
    words: Vec<u64>,
}

struct Change {
    step: u8,
    word: usize,
    value: u64,
}

/// An object as a tick read it: its path, the state of its row, and its statistics by name.
type Row = (String, RowState, Vec<(String, Vec<u64>)>);

fuzz_target!(|input: &[u8]| {
    let Some(case) = Case::parse(input) else { return };
    let rows = read(&case, case.is_sealed);
    if case.changes.is_empty() {
        let other = read(&case, !case.is_sealed);
        assert!(are_alike(&rows, &other), "the other way of reading: {rows:?} and {other:?}");
    }
});

/// Returns true if both have the same rows of the same objects. A row may be torn in one of them,
/// because one way of reading may wait for a lock where the lock means nothing; or stale in one of
/// them, because a promised heartbeat may be overdue in one run and not yet in the other.
fn are_alike(rows: &Option<Vec<Row>>, others: &Option<Vec<Row>>) -> bool {
    let (Some(rows), Some(others)) = (rows, others) else { return rows == others };
    let may_differ = |row: &Row| matches!(row.1, RowState::Torn | RowState::Stale);
    let is_alike = |(row, other): (&Row, &Row)| {
        row == other || row.0 == other.0 && (may_differ(row) || may_differ(other))
    };
    rows.len() == others.len() && rows.iter().zip(others).all(is_alike)
}

impl Case {
    fn parse(input: &[u8]) -> Option<Self> {
        let (&flags, mut rest) = input.split_first()?;
        let mut changes = Vec::new();
        for _ in 0..flags >> 2 & 7 {
            let (change, behind) = rest.split_first_chunk::<CHANGE_BYTES>()?;
            changes.push(Change {
                step: change[0] % STEPS,
                word: usize::from(u16::from_ne_bytes([change[1], change[2]])),
                value: u64::from_ne_bytes(*change.last_chunk()?),
            });
            rest = behind;
        }
        let words = rest.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
        let mut words: Vec<u64> = words.collect();
        // Most that is tried would else be refused for these alone; or waited for.
        if flags & 2 != 0 && words.len() >= HEADER_WORDS {
            words[..3].copy_from_slice(&[MAGIC, BYTE_ORDER, VERSION]);
            words[SEGMENT_BYTES] = (words.len() * WORD_BYTES) as u64;
            words[GENERATION] &= !1;
        }
        changes.retain(|change| change.word < words.len());
        // What is sealed cannot change.
        let is_sealed = flags & 1 != 0 && changes.is_empty();
        Some(Self { is_sealed, changes, words })
    }

    /// Makes the changes that come before a step.
    fn change(&self, step: u8, file: &File, words: &mut [u64]) {
        for change in self.changes.iter().filter(|change| change.step == step) {
            words[change.word] = change.value;
            let at = (change.word * WORD_BYTES) as u64;
            file.write_all_at(&change.value.to_ne_bytes(), at).expect("a memfd can be written");
        }
    }
}

/// Makes a memfd of these words.
fn memfd(words: &[u64], is_sealed: bool) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(
        memfd_create("vmstrobe-table:fuzz", flags).expect("there is memory for a table"),
    );
    file.write_all_at(&bytes_of(words), 0).expect("a memfd can be written");
    if is_sealed {
        let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::WRITE;
        fcntl_add_seals(&file, seals).expect("the memfd can be sealed");
    }
    file
}

/// Runs all steps of a reader and returns the rows of its last tick; `None` if it refuses the
/// table.
fn read(case: &Case, is_sealed: bool) -> Option<Vec<Row>> {
    let file = memfd(&case.words, is_sealed);
    let mut words = case.words.clone();
    let tables = Tables::new().expect("a thread can be started");
    case.change(0, &file, &mut words);
    let lent = OwnedFd::from(file.try_clone().expect("there is a free descriptor"));
    if let Err(error) = tables.add_fd(lent) {
        use ErrorKind::{Busy, Io, Malformed, TooLarge, Unsupported};
        let kind = error.kind();
        assert!(matches!(kind, Busy | Io | Malformed | TooLarge | Unsupported), "{error}");
        return None;
    }
    // All that it ever said of itself: a reader learns of a change when the generation moves.
    let header: Vec<u64> = words[..HEADER_WORDS].to_vec();
    let mut said = entries(&words);
    case.change(1, &file, &mut words);
    let objects = look(&tables, &header, &words, &mut said);
    let mut opened = open(&tables, &objects);
    case.change(2, &file, &mut words);
    let promises = header[HEARTBEAT_PERIOD] != 0;
    is_what_it_says(&tick(&mut opened), &said, &words, promises);
    case.change(3, &file, &mut words);
    look(&tables, &header, &words, &mut said);
    let rows = tick(&mut opened);
    is_what_it_says(&rows, &said, &words, promises);
    Some(rows)
}

/// Looks at the tables, and adds the entries of the bytes now, under the header that was read
/// first.
fn look(tables: &Tables, header: &[u64], words: &[u64], said: &mut Vec<Entry>) -> Vec<Object> {
    let mut known = words.to_vec();
    known[..HEADER_WORDS].copy_from_slice(header);
    for at in [GENERATION, SLOTS_USED, HEARTBEAT] {
        known[at] = words[at];
    }
    said.extend(entries(&known));
    let objects = tables.objects().expect("the provider lists its objects");
    assert!(objects.len() <= MAX_SLOTS as usize);
    let mut descs = 0;
    for schema in tables.schemas().expect("the provider lists its schemas") {
        is_sound(&schema);
        descs += schema.descs().len();
    }
    assert!(descs <= MAX_TABLE_DESCS);
    let mut paths: Vec<&str> = objects.iter().map(|object| &*object.path).collect();
    paths.sort_unstable();
    assert!(paths.windows(2).all(|pair| pair[0] != pair[1]) && !paths.contains(&""));
    objects
}

fn is_sound(schema: &Schema) {
    assert!(schema.descs().len() <= MAX_DESCS as usize && schema.data_bytes() <= MAX_DATA_BYTES);
    assert!(!schema.provider().is_empty() && !schema.target().name().is_empty());
    let data_words = schema.data_bytes() / WORD_BYTES;
    assert!(schema.descs().iter().all(|desc| desc.size > 0 && desc.words().end <= data_words));
}

/// An open object.
struct Opened {
    object: Object,
    source: Box<dyn Source>,
}

fn open(tables: &Tables, objects: &[Object]) -> Vec<Opened> {
    let open = |object: &Object| {
        let plan = ReadPlan::new(&object.schema, &Mask::all(&object.schema));
        let sources = tables
            .open(std::slice::from_ref(object), &plan)
            .expect("the provider opens its objects");
        let [source] = <[_; 1]>::try_from(sources)
            .ok()
            .expect("the provider opened one source for one object");
        assert_eq!(source.rows(), 1);
        Opened { object: object.clone(), source }
    };
    objects.iter().map(open).collect()
}

fn tick(opened: &mut [Opened]) -> Vec<Row> {
    let read = |Opened { object, source }: &mut Opened| {
        let schema = &object.schema;
        let plan = ReadPlan::new(schema, &Mask::all(schema));
        let (mut words, mut states) = (vec![0; plan.row_words()], [RowState::Missing]);
        source.read(Rows::new(&mut words, &mut states, plan.row_words()));
        let value = |column: &vmstrobe_core::Column| {
            let desc = &schema.descs()[column.desc];
            let value = Value::new(desc, &words[column.words.clone()]);
            (desc.name.to_string(), value.words().to_vec())
        };
        let is_good = states[0] == RowState::Good;
        let values = plan.columns().iter().filter(|_| is_good).map(value).collect();
        (object.path.to_string(), states[0], values)
    };
    opened.iter_mut().map(read).collect()
}

/// Checks that each good row is of an object of that path and has its words, and that a row is
/// stale only if the table has promised a heartbeat.
fn is_what_it_says(rows: &[Row], said: &[Entry], words: &[u64], promises: bool) {
    for (path, state, values) in rows {
        let is_so = match state {
            RowState::Good => said.iter().any(|entry| has(entry, path, values, words)),
            RowState::Torn | RowState::Gone => true,
            RowState::Stale => promises,
            _ => false,
        };
        assert!(is_so, "{path} is {state:?} with {values:?}; it says {said:?}");
    }
}

fn has(entry: &Entry, path: &str, values: &[(String, Vec<u64>)], words: &[u64]) -> bool {
    // Of two with one path, the later has got a number.
    let rest = path.strip_prefix(&*String::from_utf8_lossy(&entry.path));
    let is_its = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let Some(want) = entry.values(words).filter(|_| is_its) else { return false };
    let want = entry.stats.iter().zip(want);
    entry.is_whole(words) == Some(true)
        && entry.stats.len() == values.len()
        && values.iter().zip(want).all(|((name, words), ((want_name, _), want_words))| {
            *name == String::from_utf8_lossy(want_name) && *words == want_words
        })
}
