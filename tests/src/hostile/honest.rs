//! Writers that keep the rules, by the crate's own means: what readers are held against when they
//! are asked whether anything was torn, or took another's words for an object's.
//!
//! Invariant: as for hostile modes: a mode ends only with its process.

use std::io;
use std::thread;
use std::time::Duration;

use vmstrobe_core::Target;
use vmstrobe_providers::{Counter, Group, TableConfig, TableObject, TableSchema, TableWriter};

use super::evil::Place;
use super::modes::ready_until_closed;

/// Statistics of an object, which mean to have equal values.
pub const COUNTERS: usize = 8;
/// Tables of [`tables`].
pub const TABLES: usize = 64;

/// An object with some counters.
struct Queue {
    _object: TableObject,
    counters: Vec<Counter>,
    /// The lock of the words that change together, if they do.
    group: Option<Group>,
}

impl Queue {
    fn new(table: &TableWriter, path: &str, is_grouped: bool) -> io::Result<Self> {
        let mut schema = TableSchema::new(Target::from_name("queue"));
        let keys: Vec<_> =
            (0..COUNTERS).map(|stat| schema.counter(format!("n{stat}").as_str())).collect();
        if is_grouped {
            schema.group();
        }
        let object = table.add(path, &schema).map_err(io::Error::other)?;
        let counters = keys.into_iter().map(|key| object.get(key)).collect();
        let group = object.group();
        Ok(Self { _object: object, counters, group })
    }

    fn add(&mut self, count: u64) {
        let Self { counters, group, .. } = self;
        let add = || counters.iter().for_each(|counter| counter.add(count));
        match group {
            Some(group) => group.change(add),
            None => add(),
        }
    }
}

/// Adds to the counters of one object, which change together, as fast as it can.
///
/// # Errors
///
/// If the table cannot be made.
pub fn groups(place: &Place) -> io::Result<()> {
    let table = writer(place, "groups")?;
    let mut queue = Queue::new(&table, "/groups", true)?;
    ready_until_closed()?;
    for change in 0.. {
        queue.add(1);
        // Never the same, and often about as long as it takes to read it: else readers would find
        // it open too seldom, or nothing would change under them.
        (0..change % 64).for_each(|_: u64| std::hint::spin_loop());
    }
    Ok(())
}

/// Objects that come and go in the same few places. Counters of the one called `/churn/N` are 0 at
/// first, and then N for all their life; if N is even, all at once.
///
/// # Errors
///
/// If the table cannot be made.
pub fn churn(place: &Place) -> io::Result<()> {
    let table = writer(place, "churn")?;
    let queue =
        |number: u64| Queue::new(&table, &format!("/churn/{number}"), number.is_multiple_of(2));
    let mut held = vec![queue(1)?, queue(2)?, queue(3)?];
    ready_until_closed()?;
    for number in 4.. {
        held.remove(0);
        let mut newest = queue(number)?;
        newest.add(number);
        held.push(newest);
        thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

/// Makes a number of tables, each with one object, all of equal statistics.
///
/// # Errors
///
/// If they cannot be made.
pub fn tables(place: &Place) -> io::Result<()> {
    let mut held = Vec::new();
    for number in 0..TABLES {
        let place = match place {
            Place::Path(path) => &Place::Path(path.join(number.to_string())),
            memfd => memfd,
        };
        let table = writer(place, "tables")?;
        let queue = Queue::new(&table, &format!("/tables/{number}"), true)?;
        held.push((table, queue));
    }
    ready_until_closed()?;
    loop {
        held.iter_mut().for_each(|(_, queue)| queue.add(1));
        thread::sleep(Duration::from_micros(200));
    }
}

fn writer(place: &Place, provider: &str) -> io::Result<TableWriter> {
    let small = TableConfig { capacity_bytes: 8192, max_objects: 4, ..TableConfig::of(provider) };
    let table = match place {
        Place::Path(path) => TableWriter::at(path, small),
        _ => TableWriter::with(small),
    };
    table.map_err(io::Error::other)
}
