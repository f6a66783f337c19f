//! Tables: ticks over many of them, of this process and of another, allocate nothing; and a look at
//! hostile ones holds no more than its limit.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;

use vmstrobe::table::{
    MAX_OWNER_HELD_BYTES, MAX_TABLES_HELD_BYTES, TableConfig, TableSchema, TableWriter, Tables,
};
use vmstrobe_core::wire::MAX_PARSED_BYTES;
use vmstrobe_core::{ErrorKind, Mask, Provider, ReadPlan, RowState, Rows, Target};
use vmstrobe_sampler::Fanout;
use vmstrobe_tests::command::program;
use vmstrobe_tests::hostile::child::Hostile;
use vmstrobe_tests::hostile::evil::Place;
use vmstrobe_tests::hostile::honest::TABLES;
use vmstrobe_tests::hostile::images::named;
use vmstrobe_tests::hostile::layout::{Block, GENERATION, Image, Stat, put};
use vmstrobe_tests::hostile::memory::Mapping;
use vmstrobe_tests::rig::show;

use super::count::held_bytes_max;
use super::ticks::{Followed, by_hand, check};

/// The program that writes hostile tables.
static HOSTILE: LazyLock<String> = LazyLock::new(|| program("hostile"));

/// The number of tables of this process.
const OWN: usize = 32;
const MIB: u64 = 1 << 20;
/// The most that a reader holds for a look at a table, whatever it contains: twice the limit for a
/// foreign table, and the memory for parsing one object.
const HELD_BYTES_MAX: u64 = 2 * MAX_OWNER_HELD_BYTES + MAX_PARSED_BYTES as u64;

#[test]
fn ticks_over_tables_allocate_nothing() {
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let start = |place: &Place| Hostile::start(&HOSTILE, "tables", place, "-");
    let (mapped, _files) = (start(&Place::Sealed), start(&Place::Path(shm.path().to_owned())));
    for fanout in [Fanout::Inline, Fanout::Threads(2)] {
        let tables = Tables::new().unwrap();
        let mut schema = TableSchema::new(Target::from_name("queue"));
        schema.counter("n0");
        let usual = TableConfig::of("own");
        let small = TableConfig { capacity_bytes: 8192, max_objects: 4, ..usual };
        let own: Vec<_> = (0..OWN)
            .map(|number| {
                let table = TableWriter::with(small).unwrap();
                let object = table.add(&format!("/own/{number}"), &schema).unwrap();
                tables.add_own(&table).unwrap();
                (table, object)
            })
            .collect();
        assert_eq!(tables.attach(mapped.pid()).unwrap(), TABLES);
        for number in 0..TABLES {
            tables.open_file(&shm.path().join(number.to_string())).unwrap();
        }
        let objects = tables.objects().unwrap();
        assert_eq!(objects.len(), OWN + 2 * TABLES);
        let paths = objects.iter().map(|object| object.path.to_string()).collect();
        let followed = Followed { stat: "n0", paths, may_be_torn: true };
        check(Arc::new(tables), &["queue", "sampler"], &followed, fanout, by_hand);
        drop(own);
    }
}

/// Makes a table that a reader maps.
fn mapping(image: &Image) -> (Mapping, OwnedFd) {
    let mapping =
        Mapping::sealed("vmstrobe-table:evil", &image.words).expect("there is memory for a table");
    let fd = mapping.file().try_clone().expect("there is a free descriptor").into();
    (mapping, fd)
}

#[test]
fn a_look_holds_no_more_than_its_limit() {
    for (image, kind) in [
        ("crowd", None),
        ("one-path", None),
        ("schemas", None),
        ("vast", Some(ErrorKind::TooLarge)),
        ("vast-latin", Some(ErrorKind::Malformed)),
        ("heavy", None),
        ("one-block", Some(ErrorKind::Malformed)),
        ("one-data", Some(ErrorKind::Malformed)),
        ("million-places", Some(ErrorKind::TooLarge)),
        ("million-used", Some(ErrorKind::Malformed)),
    ] {
        let (_mapping, fd) = mapping(&named(image));
        let tables = Tables::new().unwrap();
        let (outcome, first) = held_bytes_max(|| tables.add_fd(fd));
        assert_eq!(outcome.err().map(|error| error.kind()), kind);
        let (objects, again) = held_bytes_max(|| tables.objects().unwrap());
        show(&format!(
            "a look at '{image}' holds {first} bytes at most; the next one {again} more, for {} \
             objects",
            objects.len()
        ));
        assert!(first + again < HELD_BYTES_MAX, "'{image}': {first} and {again} bytes");
    }
}

/// A tick over pages that nobody has written reads them by system calls, and allocates nothing.
#[test]
fn a_tick_over_holes_allocates_nothing() {
    let (_mapping, fd) = mapping(&named("holes"));
    let tables = Tables::new().unwrap();
    tables.add_fd(fd).unwrap();
    let objects = &tables.objects().unwrap()[..1];
    let plan = ReadPlan::new(&objects[0].schema, &Mask::all(&objects[0].schema));
    let mut sources = tables.open(objects, &plan).unwrap();
    let (mut words, mut states) = (vec![1; plan.row_words()], [RowState::Missing]);
    let rows = Rows::new(&mut words, &mut states, plan.row_words());
    let ((), held) = held_bytes_max(|| sources[0].read(rows));
    assert_eq!((held, states), (0, [RowState::Good]));
    assert!(words.iter().all(|&word| word == 0));
}

/// The tables of one process hold no more than its share; those of all, no more than the budget.
#[test]
fn many_tables_hold_no_more_than_the_limit() {
    let start = || Hostile::start(&HOSTILE, "three", &Place::Sealed, "heavy");
    let hostile = start();
    let tables = Tables::new().unwrap();
    let (count, held) = held_bytes_max(|| tables.attach(hostile.pid()).unwrap());
    show(&format!("of three heavy tables of a process {count} hold {held} bytes at most"));
    assert!(count == 1 && held < HELD_BYTES_MAX, "{count}, {held} bytes");

    let image = named("heavy");
    let tables = Tables::new().unwrap();
    let given: Vec<_> = (0..8).map(|_| mapping(&image)).collect();
    let (errors, held) = held_bytes_max(|| {
        let add = |(_, fd): &(Mapping, OwnedFd)| tables.add_fd(fd.try_clone().unwrap()).err();
        given.iter().filter_map(add).map(|error| error.kind()).collect::<Vec<_>>()
    });
    show(&format!("of eight heavy tables {} are refused; they hold {held} bytes", errors.len()));
    assert!(errors.len() >= 2 && errors.iter().all(|kind| *kind == ErrorKind::TooLarge));
    assert!(held < MAX_TABLES_HELD_BYTES + MAX_PARSED_BYTES as u64, "{held} bytes");
}

/// A directory that changes with each look, full of statistics that have to be left out.
#[test]
fn looks_hold_no_more_than_one_look() {
    const STATS: usize = 3000;
    let name = "x".repeat(47);
    let stats = vec![Stat::counter(&name); STATS];
    let mut image = Image::new("evil", 1 << 20, 4);
    image.add(&Block {
        path: "/evil",
        target: "queue",
        name_bytes: 48,
        shards: 1,
        flags: 0,
        stats: &stats,
    });
    let names = |stat: usize| image.entry(0).block_word * 8 + 24 + 48 + stat * 64 + 16;
    let (first_name, second_name) = (names(0), names(1));
    for stat in 0..STATS {
        // No end.
        put(&mut image.words, first_name + stat * (second_name - first_name) + 47, b"x");
    }
    let (mapping, fd) = mapping(&image);
    let tables = Tables::new().unwrap();
    let mut changed = 0;
    let (outcome, first) = held_bytes_max(|| tables.add_fd(fd));
    outcome.unwrap();
    let mut look = || {
        changed += 1;
        mapping.words()[first_name / 8].store(changed, Relaxed);
        mapping.words()[GENERATION].store(2 * changed, Relaxed);
        assert_eq!(tables.objects().unwrap().len(), 1);
    };
    let ((), many) = held_bytes_max(|| (0..100).for_each(|_| look()));
    show(&format!("the first look holds {first} bytes at most, and a hundred that differ {many}"));
    assert!(first > MIB / 8 && many < 2 * first, "{first} and {many} bytes");
}
