//! The rows of a batch that was read: which objects and ticks they are of.
//!
//! Invariant: rows are accepted only as the product of objects and ticks, object-major, each object
//! with the same ticks and windows.

use vmstrobe_core::{RowState, Window};

use super::{Broken, FileRows, Values};
use crate::heads::{self, Head};
use crate::lists::Lists;

/// The rows of a batch.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) ticks: Vec<u64>,
    pub(super) windows: Vec<Window>,
    pub(super) objects: Vec<ObjectRows>,
    pub(super) states: Lists<RowState>,
    /// For each row whether it has values.
    pub(super) have_values: Vec<bool>,
}

/// The columns that are the same in all rows of an object, as numbers of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ObjectRows {
    pub(super) path: u64,
    pub(super) schema: u64,
    pub(super) vcpu: Option<u64>,
    pub(super) key: u64,
}

/// Reads a column that is no statistic.
fn read(file: &mut impl FileRows, head: Head) -> Result<Values, Broken> {
    let mut values = Values::default();
    file.head(head, &mut values)?;
    if head.is_nullable() || values.all_valid() {
        return Ok(values);
    }
    let is_whole = (0..values.values.len()).all(|row| values.is_valid(row));
    is_whole.then_some(values).ok_or_else(|| format!("column {} has a null", head.name()))
}

impl Rows {
    /// Reads so many rows, at least one.
    pub(super) fn read(file: &mut impl FileRows, rows: usize) -> Result<Self, Broken> {
        let objects = read_objects(file, rows)?;
        let count = rows / objects.len();
        let ticks = each_tick(read(file, Head::Tick)?, count)?;
        let times = each_tick(read(file, Head::Time)?, count)?;
        let widths = each_tick(read(file, Head::WindowNs)?, count)?;
        let offsets = each_tick(read(file, Head::WallOffsetNs)?, count)?;
        let windows = times.iter().zip(&widths).zip(&offsets);
        let windows = windows.map(|((&time, &width), &offset)| heads::window(time, width, offset));
        let windows: Option<Vec<Window>> = windows.collect();
        let windows = windows.ok_or("a window ends before it begins")?;
        let states = read_states(file, rows)?;
        let mut lists = Lists::constant(objects.len());
        let known = vec![true; count];
        for (object, states) in states.chunks_exact(count).enumerate() {
            lists.set(object, states, &known).map_err(|error| error.to_string())?;
        }
        let have_values = states.iter().map(|state| state.has_values()).collect();
        Ok(Self { ticks, windows, objects, states: lists, have_values })
    }
}

/// Reads the objects, each of which has equally many rows.
fn read_objects(file: &mut impl FileRows, rows: usize) -> Result<Vec<ObjectRows>, Broken> {
    let path = read(file, Head::Path)?;
    let schema = read(file, Head::Schema)?;
    let vcpu = read(file, Head::Vcpu)?;
    let key = read(file, Head::Object)?;
    let at = |row| ObjectRows {
        path: path.values[row],
        schema: schema.values[row],
        vcpu: vcpu.get(row),
        key: key.values[row],
    };
    let first = at(0);
    let count = (0..rows).take_while(|&row| at(row) == first).count();
    let is_even =
        rows.is_multiple_of(count) && (0..rows).all(|row| at(row) == at(row / count * count));
    if !is_even {
        return Err("its rows are not all ticks of one object after the other".into());
    }
    Ok((0..rows).step_by(count).map(at).collect())
}

/// Returns the values of a column that is the same for each object.
fn each_tick(column: Values, count: usize) -> Result<Vec<u64>, Broken> {
    let mut values = column.values;
    let (first, rest) = values.split_at(count);
    if rest.chunks_exact(count).any(|chunk| chunk != first) {
        return Err("its objects have not the same ticks and windows".into());
    }
    values.truncate(count);
    Ok(values)
}

fn read_states(file: &mut impl FileRows, rows: usize) -> Result<Vec<RowState>, Broken> {
    let numbers = read(file, Head::State)?;
    let ages = read(file, Head::AgeMs)?;
    let errnos = read(file, Head::Errno)?;
    let states = (0..rows).map(|row| {
        let (age_ms, errno) = (ages.get(row).unwrap_or(0), errnos.get(row).unwrap_or(0));
        let number = numbers.values[row];
        heads::state(number as u8, age_ms as u32, errno as u32 as i32)
            .ok_or_else(|| format!("{number} is no state of a row"))
    });
    states.collect()
}
