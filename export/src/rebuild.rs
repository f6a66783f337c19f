//! Batches made again of columns that were read, whatever format they were read from.
//!
//! Invariant: a batch is given only if all of it was understood: its rows are objects times ticks,
//! and every value of a row that was read is there.

use std::sync::Arc;

use vmstrobe_core::{Layout, Mask, Object, ReadPlan};

use crate::batch::{Batch, cell};
use crate::columns::{Columns, Placement};
use crate::heads::{Dictionary, Head};
use crate::limits::MAX_TICK_WORDS;
use crate::lists::Lists;

mod rows;

use self::rows::{ObjectRows, Rows};

/// The most bytes of a column that are kept to recognise it: those of a constant one are few.
const CONSTANT_BYTES_MAX: usize = 1024;

/// The rule that a part of a file breaks.
pub(crate) type Broken = String;

/// The values of a column, and whether each is valid.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) values: Vec<u64>,
    /// One bit for each value; empty if all are valid.
    pub(crate) valid: Vec<u8>,
}

impl Values {
    /// Returns whether a value is not null.
    pub(crate) fn is_valid(&self, row: usize) -> bool {
        self.valid.is_empty() || self.valid[row / 8] >> (row % 8) & 1 == 1
    }

    /// Returns whether no value is null.
    pub(crate) fn all_valid(&self) -> bool {
        self.valid.is_empty()
    }

    /// Returns a value; `None` if it is null.
    pub(crate) fn get(&self, row: usize) -> Option<u64> {
        self.is_valid(row).then(|| self.values[row])
    }
}

/// The columns of some rows of a file.
pub(crate) trait FileRows {
    /// Reads a column that is no statistic. A text is its number in its dictionary.
    fn head(&mut self, head: Head, into: &mut Values) -> Result<(), Broken>;

    /// Reads the column of the statistic of that number.
    fn statistic(&mut self, number: usize, into: &mut Values) -> Result<(), Broken>;

    /// Returns the bytes of that column as they stand in the file, if they are the same whenever
    /// the values are. Equal bytes of equally many rows are equal values.
    fn statistic_bytes(&self, _number: usize) -> Option<[&[u8]; 2]> {
        None
    }

    /// Returns a text of a dictionary, once the column with its number was read.
    fn text(&self, of: Dictionary, number: u64) -> Option<&str>;
}

/// Makes batches again, and a layout again only if the objects differ.
#[derive(Debug)]
pub(crate) struct Rebuilder {
    pub(crate) columns: Columns,
    plans: Vec<Arc<ReadPlan>>,
    known: Option<Known>,
    layouts: u64,
    values: Values,
    /// For each column, its bytes in the last batch, if its values were constant there.
    constants: Vec<Option<Constant>>,
}

/// A column in which each object has one value at all ticks of a batch.
#[derive(Debug)]
struct Constant {
    rows: usize,
    bytes: Box<[u8]>,
    /// The value of each object that has it, in the order of its places.
    values: Box<[u64]>,
}

/// The layout of the last batch, and the objects that it was made of.
#[derive(Debug)]
struct Known {
    objects: Vec<ObjectRows>,
    layout: Arc<Layout>,
    placement: Placement,
}

impl Rebuilder {
    /// Makes one for a file of these columns.
    pub(crate) fn new(columns: Columns) -> Self {
        let plans = columns.schemas().iter().map(|kept| &kept.schema);
        let plans = plans.map(|schema| ReadPlan::new(schema, &Mask::all(schema))).collect();
        let constants = columns.iter().map(|_| None).collect();
        Self { columns, plans, known: None, layouts: 0, values: Values::default(), constants }
    }

    /// Forgets the last layout: the numbers of texts have another meaning now.
    pub(crate) fn forget(&mut self) {
        self.known = None;
    }

    /// Makes the batch of some rows, at least one.
    pub(crate) fn batch(&mut self, file: &mut impl FileRows, rows: usize) -> Result<Batch, Broken> {
        let rows = Rows::read(file, rows)?;
        let known = self.known.take().filter(|known| known.objects == rows.objects);
        let known = match known {
            Some(known) => known,
            None => {
                // What they were constant for are other objects.
                self.constants.fill_with(|| None);
                self.layout(file, &rows.objects)?
            }
        };
        let words = self.words(file, &rows, &known);
        let layout = Arc::clone(&known.layout);
        self.known = Some(known);
        let (ticks, windows) = (rows.ticks.into(), rows.windows.into());
        Ok(Batch::new(layout, ticks, windows, rows.states, words?))
    }

    /// Lays out the objects of a batch.
    fn layout(&mut self, file: &impl FileRows, objects: &[ObjectRows]) -> Result<Known, Broken> {
        let mut parts: Vec<(usize, Vec<Object>)> = Vec::new();
        let mut words = 0_usize;
        for object in objects {
            let path = file.text(Dictionary::Path, object.path);
            let path = path.ok_or("a path is not in the dictionary")?;
            let name = file.text(Dictionary::Schema, object.schema);
            let name = name.ok_or("a schema is not in the dictionary")?;
            let mut schemas = self.columns.schemas().iter();
            let number = schemas.position(|kept| *kept.name == *name);
            let number = number.ok_or_else(|| format!("there is no schema {name}"))?;
            words += self.plans[number].row_words();
            if words > MAX_TICK_WORDS {
                return Err(format!("its objects have more than {MAX_TICK_WORDS} words"));
            }
            if parts.last().is_none_or(|(last, _)| *last != number) {
                parts.push((number, Vec::new()));
            }
            let (_, of_part) = parts.last_mut().expect("a part was pushed if there was none");
            of_part.push(Object {
                path: path.into(),
                index: object.vcpu.map(|number| number as u32),
                schema: Arc::clone(self.plans[number].schema()),
                key: object.key,
            });
        }
        let parts =
            parts.into_iter().map(|(number, objects)| (Arc::clone(&self.plans[number]), objects));
        self.layouts += 1;
        let layout = Layout::new(self.layouts, parts.collect());
        let placement = self.columns.place(&layout).ok_or("its schemas are not of this file")?;
        Ok(Known { objects: objects.to_vec(), layout, placement })
    }

    /// Reads the statistics.
    fn words(
        &mut self,
        file: &mut impl FileRows,
        rows: &Rows,
        known: &Known,
    ) -> Result<Lists<u64>, Broken> {
        let mut words = Lists::constant(known.layout.words());
        // Of a row without values, the file has none, and the list goes on with the last ones.
        let is_whole = rows.have_values.iter().all(|&has| has);
        for (number, places) in known.placement.columns.iter().enumerate() {
            if places.is_empty() {
                continue;
            }
            let cells = || cells(&known.layout, places);
            let constant = self.constants[number].take().filter(|known| {
                let bytes = file.statistic_bytes(number);
                is_whole && bytes.is_some_and(|bytes| known.is_of(rows.have_values.len(), bytes))
            });
            if let Some(constant) = constant {
                let values = constant.values.iter().copied();
                cells().zip(values).for_each(|((_, cell), value)| words.set_constant(cell, value));
                self.constants[number] = Some(constant);
                continue;
            }
            file.statistic(number, &mut self.values)?;
            for (row, cell) in cells() {
                self.set(&mut words, rows, number, (row, cell))?;
            }
            let is_constant = is_whole && cells().all(|(_, cell)| words.of(cell).is_constant());
            let bytes = file.statistic_bytes(number).filter(|_| is_constant);
            self.constants[number] = bytes.and_then(|bytes| {
                let values = cells().map(|(_, cell)| words.of(cell).first).collect();
                Constant::new(rows.have_values.len(), bytes, values)
            });
        }
        Ok(words)
    }

    /// Takes the values of an object's rows from the column of that number, which was read.
    fn set(
        &self,
        words: &mut Lists<u64>,
        rows: &Rows,
        number: usize,
        (row, cell): (usize, usize),
    ) -> Result<(), Broken> {
        let (values, ticks) = (&self.values, rows.ticks.len());
        let start = row * ticks;
        let have_values = &rows.have_values[start..start + ticks];
        let lacks = |(tick, &has): (usize, &bool)| has && !values.is_valid(start + tick);
        if !values.all_valid() && have_values.iter().enumerate().any(lacks) {
            let name = self.columns.iter().nth(number).map(|column| &*column.name);
            let name = name.unwrap_or_default();
            return Err(format!("column {name} has a null in a row that was read"));
        }
        words
            .set(cell, &values.values[start..start + ticks], have_values)
            .map_err(|error| error.to_string())
    }
}

impl Constant {
    fn new(rows: usize, bytes: [&[u8]; 2], values: Box<[u64]>) -> Option<Self> {
        let is_short = bytes[0].len() + bytes[1].len() <= CONSTANT_BYTES_MAX;
        // The bitmap is empty or as long as the rows want it, so that the halves cannot move.
        is_short.then(|| Self { rows, bytes: bytes.concat().into(), values })
    }

    /// Returns whether it is a column of so many rows with these bytes.
    fn is_of(&self, rows: usize, [bitmap, values]: [&[u8]; 2]) -> bool {
        let own = self.bytes.split_at_checked(bitmap.len());
        self.rows == rows && own == Some((bitmap, values))
    }
}

/// Returns for each object that has a column its row and its cell.
fn cells(layout: &Layout, places: &[(usize, usize)]) -> impl Iterator<Item = (usize, usize)> {
    places.iter().flat_map(move |&(number, word)| {
        let group = &layout.groups()[number];
        let place = move |object| (group.first_row + object, cell(layout, number, object, word));
        (0..group.objects.len()).map(place)
    })
}
