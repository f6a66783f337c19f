//! Tables from both ends: what a writer does, what a reader then has.

use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::{ErrorKind, Object, Provider, RowState, Source, Target, Value};
use vmstrobe_testing::{open_all, states, tick};

use super::budget::MAX_LOOK_BYTES;
use super::*;

/// A kind of object with a statistic of every type.
struct Kinds {
    schema: TableSchema,
    counter: StatKey<Counter>,
    owned: StatKey<OwnedCounter>,
    sharded: StatKey<ShardedCounter>,
    gauge: StatKey<Gauge>,
    peak: StatKey<Peak>,
    flag: StatKey<Flag>,
    linear: StatKey<LinearHistogram>,
    log2: StatKey<Log2Histogram>,
}

impl Kinds {
    fn new() -> Self {
        let mut schema = TableSchema::new(Target::from_name("queue"));
        Self {
            counter: schema.counter("counter"),
            owned: schema.owned_counter(Stat::bytes("owned")),
            sharded: schema.sharded_counter("sharded"),
            gauge: schema.gauge("gauge"),
            peak: schema.peak("peak"),
            flag: schema.flag("flag"),
            linear: schema.linear_histogram("linear", 3, 10),
            log2: schema.log2_histogram(Stat::ns("log2"), 4),
            schema,
        }
    }
}

fn counter_alone() -> (TableSchema, StatKey<Counter>) {
    let mut schema = TableSchema::new(Target::from_name("queue"));
    let counter = schema.counter("counter");
    (schema, counter)
}

/// A table of this process and a reader of it.
fn pair(provider: &str) -> (TableWriter, Tables) {
    let table = TableWriter::new(provider).unwrap();
    let tables = Tables::new().unwrap();
    tables.add_own(&table).unwrap();
    (table, tables)
}

fn paths(objects: &[Object]) -> Vec<&str> {
    objects.iter().map(|object| &*object.path).collect()
}

/// Returns the words of the statistic of that name in the only row of a source.
fn words_of(source: &mut dyn Source, object: &Object, name: &str) -> Vec<u64> {
    let (states, words) = tick(source, object.schema.data_bytes() / 8);
    assert_eq!(states, [RowState::Good]);
    let desc = &object.schema.descs()[object.schema.find(name).unwrap()];
    Value::new(desc, &words[desc.words()]).words().to_vec()
}

#[test]
fn each_kind_of_statistic_arrives() {
    let (table, tables) = pair("xyz");
    let kinds = Kinds::new();
    let queue = table.add("/xyz/queue[0]", &kinds.schema).unwrap();
    let objects = tables.objects().unwrap();
    assert_eq!(paths(&objects), ["/xyz/queue[0]"]);
    let schema = &objects[0].schema;
    assert_eq!((schema.provider(), schema.target().name()), ("xyz", "queue"));
    let mut sources = open_all(&tables, &objects);
    let mut read = |name| words_of(&mut *sources[0], &objects[0], name);
    assert_eq!(read("counter"), [0]);

    queue.get(kinds.counter).add(5);
    let mut owned = queue.own(kinds.owned).unwrap();
    owned.add(6);
    assert!(queue.own(kinds.owned).is_none());
    let sharded = queue.get(kinds.sharded);
    (0..10).for_each(|_| sharded.clone().add(7));
    let gauge = queue.get(kinds.gauge);
    gauge.set(10);
    gauge.add(3);
    gauge.sub(1);
    let peak = queue.get(kinds.peak);
    [3, 9, 4].into_iter().for_each(|value| peak.note(value));
    queue.get(kinds.flag).set(true);
    let linear = queue.get(kinds.linear);
    [0, 9, 10, 29, 30, u64::MAX].into_iter().for_each(|value| linear.record(value));
    let log2 = queue.get(kinds.log2);
    [0, 1, 2, 3, 4, u64::MAX].into_iter().for_each(|value| log2.record(value));
    for (name, want) in [
        ("counter", &[5][..]),
        ("owned", &[6]),
        ("sharded", &[70]),
        ("gauge", &[12]),
        ("peak", &[9]),
        ("flag", &[1]),
        ("linear", &[2, 1, 3]),
        ("log2", &[1, 1, 2, 2]),
    ] {
        assert_eq!(read(name), want, "{name}");
    }
}

#[test]
fn objects_come_and_go_while_they_are_read() {
    let (table, tables) = pair("xyz");
    let (schema, counter) = counter_alone();
    let first = table.add("/a", &schema).unwrap();
    let second = table.add("/b", &schema).unwrap();
    second.get(counter).add(2);
    let before = tables.objects().unwrap();
    let mut sources = open_all(&tables, &before);
    assert_eq!(states(&mut *sources[0], &before[0]), [RowState::Good; 2]);

    let late = first.get(counter);
    drop(first);
    assert_eq!(states(&mut *sources[0], &before[0]), [RowState::Gone, RowState::Good]);
    // Its memory is not another's as long as a handle could write to it.
    let third = table.add("/c", &schema).unwrap();
    late.add(77);
    let mut now = tables.objects().unwrap();
    assert_eq!(paths(&now), ["/c", "/b"]);
    assert_eq!(now[1], before[1]);
    assert!(before.iter().all(|object| object.key != now[0].key));
    assert_eq!(words_of(&mut *open_all(&tables, &now[..1])[0], &now[0], "counter"), [0]);

    // Now it is: still gone for whoever reads the object that was there.
    drop((late, third));
    let fourth = table.add("/a", &schema).unwrap();
    let fifth = table.add("/e", &schema).unwrap();
    fourth.get(counter).add(4);
    assert_eq!(states(&mut *sources[0], &before[0]), [RowState::Gone, RowState::Good]);
    now = tables.objects().unwrap();
    assert_eq!(now.len(), 3);
    assert!(before.iter().all(|old| *old == before[1] || now.iter().all(|new| new != old)));
    drop((fourth, fifth, second));
    assert_eq!(states(&mut *sources[0], &before[0]), [RowState::Gone; 2]);
    assert!(tables.objects().unwrap().is_empty());
}

#[test]
fn a_table_that_is_used_for_long_does_not_grow() {
    let config = TableConfig { capacity_bytes: 8192, max_objects: 2, ..TableConfig::of("xyz") };
    let table = TableWriter::with(config).unwrap();
    let (schema, counter) = counter_alone();
    for n in 0..1000 {
        let object = table.add("/a", &schema).unwrap();
        object.get(counter).add(n);
    }
    let full = (0..3).map(|n| table.add(&format!("/{n}"), &schema)).collect::<Vec<_>>();
    assert_eq!(full[2].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(full[1].is_ok());
}

#[test]
fn a_writer_that_breaks_its_promise_is_marked_until_it_keeps_it() {
    let promised = Duration::from_millis(20);
    let config = TableConfig { heartbeat: Some(promised), ..TableConfig::of("xyz") };
    let table = TableWriter::with(config).unwrap();
    let tables = Tables::new().unwrap();
    tables.add_own(&table).unwrap();
    let (schema, _) = counter_alone();
    let _object = table.add("/a", &schema).unwrap();
    let objects = tables.objects().unwrap();
    let mut sources = open_all(&tables, &objects);
    let mut now = || {
        let listed = tables.objects().unwrap().len();
        (listed, states(&mut *sources[0], &objects[0])[0])
    };
    assert_eq!(now(), (1, RowState::Good));
    std::thread::sleep(2 * promised);
    assert_eq!(now(), (1, RowState::Stale));
    table.beat();
    assert_eq!(now(), (1, RowState::Good));
}

/// The lock is held for as long as a process keeps a look waiting.
#[test]
fn the_end_of_a_process_is_said_while_a_look_goes_on() {
    let tables = Arc::new(Tables::new().unwrap());
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = child.id();
    assert_eq!(tables.attach(pid).unwrap(), 0, "it has no table yet");
    assert!(tables.ended().is_empty());
    let look = tables.state();
    child.kill().unwrap();
    child.wait().unwrap();
    let (answer, answered) = std::sync::mpsc::channel();
    let asked = Arc::clone(&tables);
    std::thread::spawn(move || answer.send(asked.ended()));
    let ended = answered.recv_timeout(Duration::from_secs(10));
    drop(look);
    assert_eq!(ended, Ok(vec![pid]));
    assert!(tables.objects().unwrap().is_empty());
    assert_eq!(tables.ended(), [pid], "it is known after the look that has left it out");
}

#[test]
fn a_group_is_read_whole_or_not() {
    let (table, tables) = pair("xyz");
    let mut schema = TableSchema::new(Target::from_name("queue"));
    let keys: Vec<_> = (0..4).map(|n| schema.counter(format!("n{n}").as_str())).collect();
    assert!(table.add("/ungrouped", &schema).unwrap().group().is_none());
    schema.group();
    let object = table.add("/a", &schema).unwrap();
    let handles: Vec<_> = keys.iter().map(|&key| object.get(key)).collect();
    let mut group = object.group().unwrap();
    assert!(object.group().is_none());
    let objects = tables.objects().unwrap();
    let mut sources = open_all(&tables, &objects);
    group.change(|| {
        handles.iter().for_each(|handle| handle.add(1));
        // In the midst of it nobody gets anything.
        assert_eq!(states(&mut *sources[0], &objects[0]), [RowState::Torn]);
    });
    assert_eq!(tick(&mut *sources[0], 4), (vec![RowState::Good], vec![1; 4]));
}

#[test]
fn tables_of_one_path_are_told_apart_and_share_their_schema() {
    let (schema, counter) = counter_alone();
    let writers: Vec<_> = (0..3).map(|_| TableWriter::new("xyz").unwrap()).collect();
    let tables = Tables::new().unwrap();
    let objects: Vec<_> = writers.iter().map(|table| table.add("/a", &schema).unwrap()).collect();
    writers.iter().for_each(|table| tables.add_own(table).unwrap());
    objects.iter().zip(1..).for_each(|(object, n)| object.get(counter).add(n));
    let listed = tables.objects().unwrap();
    assert_eq!(paths(&listed), ["/a", "/a.2", "/a.3"]);
    assert!(listed.iter().all(|object| Arc::ptr_eq(&object.schema, &listed[0].schema)));
    let mut sources = open_all(&tables, &listed);
    assert_eq!(tick(&mut *sources[0], 1), (vec![RowState::Good; 3], vec![1, 2, 3]));
    assert_eq!(tables.schemas().unwrap().len(), 1);
}

/// A row over pages that nobody has written is read by system calls, until they have been.
#[test]
fn pages_that_are_written_later_are_loaded_from_then_on() {
    let table = TableWriter::with(TableConfig::of("xyz")).unwrap();
    let mut schema = TableSchema::new(Target::from_name("queue"));
    let wide = schema.linear_histogram("wide", 2000, 1);
    let object = table.add("/a", &schema).unwrap();
    let tables = Tables::new().unwrap();
    tables.add_fd(table.descriptor().unwrap()).unwrap();
    let objects = tables.objects().unwrap();
    let mut sources = open_all(&tables, &objects);
    let mut want = vec![0; 2000];
    assert_eq!(words_of(&mut *sources[0], &objects[0], "wide"), want);
    // Each in a page of its own, so that in the end all have been written; and once more.
    for bucket in [1999, 0, 1200, 700, 700] {
        object.get(wide).record(bucket as u64);
        want[bucket] += 1;
        assert_eq!(words_of(&mut *sources[0], &objects[0], "wide"), want);
    }
    drop(object);
    assert_eq!(states(&mut *sources[0], &objects[0]), [RowState::Gone]);
}

/// If an owner's directories change too much, their objects are kept, and they are looked at later.
#[test]
fn a_directory_that_changes_too_much_is_looked_at_later() {
    let (table, budget) = (TableWriter::new("xyz").unwrap(), budget::Budget::default());
    let (schema, _) = counter_alone();
    let _first = table.add("/a", &schema).unwrap();
    let (share, mut shared) = (budget.share(), held::Shared::default());
    let own = || held::Origin { title: "a table of pid 7".to_owned(), giver: held::Giver::Own };
    let memory = look::Memory::Mapped(Arc::clone(table.map()));
    let mut held = held::Table::new(1, memory, own(), &share).unwrap();
    let mut look = |held: &mut held::Table| {
        shared.taken.clear();
        held.look(&mut shared).map(|()| held.objects.len())
    };
    assert_eq!(look(&mut held).unwrap(), 1);
    share.worked(2 * MAX_LOOK_BYTES);
    let _second = table.add("/b", &schema).unwrap();
    assert_eq!(look(&mut held).unwrap(), 1);
    // One of which nothing is known yet has nothing to keep.
    let memory = look::Memory::Mapped(Arc::clone(table.map()));
    let mut fresh = held::Table::new(2, memory, own(), &share).unwrap();
    let error = look(&mut fresh).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().starts_with("a table of pid 7 cannot be read: "), "{error}");
    // Another owner's are looked at all the same.
    let memory = look::Memory::Mapped(Arc::clone(table.map()));
    let mut other = held::Table::new(3, memory, own(), &budget.share()).unwrap();
    assert_eq!(look(&mut other).unwrap(), 2);
}

#[test]
fn a_refused_table_is_refused_until_it_changes() {
    use refused::{MAX_REFUSED, REFUSED_FOR, Refusals, Refused};
    let table = TableWriter::new("xyz").unwrap();
    let fd = table.descriptor().unwrap();
    let (schema, _) = counter_alone();
    let (error, now) = (format::malformed("test"), std::time::Instant::now());
    let mut files = Refusals::default();
    files.add_file((0, 1), Refused::new(&error, 0, now));
    let again = files.check((0, 1), &fd, now).unwrap_err();
    assert_eq!((again.kind(), again.to_string()), (error.kind(), error.to_string()));
    assert!(files.check((0, 2), &fd, now).is_ok());
    let _object = table.add("/a", &schema).unwrap();
    assert!(files.check((0, 1), &fd, now).is_ok());
    // Others may have made room for it.
    files.add_file((0, 1), Refused::new(&error, 2, now));
    assert!(files.check((0, 1), &fd, now + REFUSED_FOR / 2).is_err());
    assert!(files.check((0, 1), &fd, now + REFUSED_FOR).is_ok());
    for file in 0..MAX_REFUSED as u64 + 1 {
        files.add_file((0, file), Refused::new(&error, 2, now));
    }
    // One of those that were there first is not remembered any more.
    assert!(files.check((0, 0), &fd, now).is_ok());
}

#[test]
fn what_makes_no_table_is_refused() {
    let long = "x".repeat(MAX_TABLE_NAME_BYTES + 1);
    let usual = TableConfig::of("xyz");
    for (config, want) in [
        (TableConfig { provider: &long, ..usual }, ErrorKind::TooLarge),
        (TableConfig { provider: "", ..usual }, ErrorKind::TooLarge),
        (TableConfig { provider: "a\0b", ..usual }, ErrorKind::Malformed),
        (TableConfig { max_objects: MAX_SLOTS as usize + 1, ..usual }, ErrorKind::TooLarge),
        (TableConfig { capacity_bytes: 1 << 40, ..usual }, ErrorKind::TooLarge),
        (TableConfig { capacity_bytes: 4096, ..usual }, ErrorKind::TooLarge),
    ] {
        assert_eq!(TableWriter::with(config).unwrap_err().kind(), want, "{config:?}");
    }
    let table = TableWriter::new(&long[1..]).unwrap();
    let (schema, _) = counter_alone();
    for (path, want) in [("", ErrorKind::Malformed), ("a\0b", ErrorKind::Malformed)] {
        assert_eq!(table.add(path, &schema).unwrap_err().kind(), want);
    }
    assert_eq!(table.add(&"p".repeat(256), &schema).unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(table.add(&"p".repeat(255), &schema).is_ok());
}
