//! Honest writers, which use the crate's own writer. The tests check against them that readers
//! return no torn row, and no words of another object.
//!
//! Invariant: a mode ends only with its process, as the hostile modes do.

use std::io;
use std::thread;
use std::time::Duration;

use vmstrobe::table::{Counter, Group, TableConfig, TableObject, TableSchema, TableWriter};
use vmstrobe_core::Target;

use super::evil::Place;
use super::modes::ready_until_closed;

/// The number of statistics of an object, which have equal values.
pub const COUNTERS: usize = 8;
/// The number of tables of [`tables`].
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
        // The pause varies, and is often about as long as a reading: otherwise readers would find
        // the lock open too seldom, or nothing would change while they read.
        (0..change % 64).for_each(|_: u64| std::hint::spin_loop());
    }
    Ok(())
}

/// Makes objects that come and go in the same few slots. The counters of `/churn/N` are 0 at first
/// and then N; if N is even, all change together.
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
