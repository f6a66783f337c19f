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
        Self { columns, plans, known: None, layouts: 0, values: Values::default() }
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
            None => self.layout(file, &rows.objects)?,
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
        let ticks = rows.ticks.len();
        let mut words = Lists::constant(known.layout.words());
        for (number, places) in known.placement.columns.iter().enumerate() {
            if places.is_empty() {
                continue;
            }
            let values = &mut self.values;
            file.statistic(number, values)?;
            for &(group_number, word) in places {
                let group = &known.layout.groups()[group_number];
                for object in 0..group.objects.len() {
                    let start = (group.first_row + object) * ticks;
                    let have_values = &rows.have_values[start..start + ticks];
                    let lacks =
                        |(tick, &has): (usize, &bool)| has && !values.is_valid(start + tick);
                    if !values.all_valid() && have_values.iter().enumerate().any(lacks) {
                        let name = self.columns.iter().nth(number).map(|column| &*column.name);
                        let name = name.unwrap_or_default();
                        return Err(format!("column {name} has a null in a row that was read"));
                    }
                    let cell = cell(&known.layout, group_number, object, word);
                    words
                        .set(cell, &values.values[start..start + ticks], |t| have_values[t])
                        .map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(words)
    }
}
