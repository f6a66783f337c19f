//! The columns of a recording: one for each scalar statistic or bucket of a histogram, over all
//! targets and providers.
//!
//! A column has one name, one set of properties and one provider. A statistic that several schemas
//! of a provider have with the same properties is one column. Objects without it have no value
//! there.
//!
//! Invariant: names are unique, and differ from those of the [`HEADS`]; columns are never
//! reordered, so that those of a later layout are added at the end.

use std::sync::Arc;

use vmstrobe_core::{Desc, Group, Layout, Schema};

use crate::error::{Error, Result};
use crate::limits::{MAX_COLUMNS, MAX_SCHEMAS};

mod names;
pub(crate) mod properties;

use self::names::Names;

/// The names of the columns before those of the statistics. Formats have all or some of them.
pub const HEADS: [&str; 15] = [
    "seconds",
    "time",
    "tick",
    "window_ns",
    "wall_offset_ns",
    "vm",
    "vcpu",
    "path",
    "schema",
    "object",
    "state",
    "age_ms",
    "errno",
    "event",
    "text",
];

/// The columns of the statistics of a recording.
///
/// ```
/// use vmstrobe_core::{Desc, Layout, Mask, ReadPlan, Schema, StatType, Target};
/// use vmstrobe_export::Columns;
/// let wait = Desc::counter("wait_hist", 8);
/// let wait = Desc { size: 2, stat_type: StatType::Log2Histogram, ..wait };
/// let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0), wait]);
/// let layout = Layout::new(0, vec![(ReadPlan::new(&schema, &Mask::all(&schema)), vec![])]);
/// let columns = Columns::of(&layout)?;
/// let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
/// assert_eq!(names, ["exits", "wait_hist_0", "wait_hist_1"]);
/// # Ok::<(), vmstrobe_export::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    schemas: Vec<KeptSchema>,
    columns: Vec<Column>,
}

/// One column of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The unique name: that of the statistic, then the number of the bucket. Where several
    /// statistics have one name, it also tells them apart.
    pub name: Box<str>,
    /// The statistic. Its offset has no meaning.
    pub desc: Desc,
    /// The provider of the statistic.
    pub provider: Box<str>,
    /// The number of the bucket, or of the word of a statistic that has several.
    pub bucket: Option<u16>,
    /// The schemas that have the statistic, and its index there.
    pub(crate) places: Vec<Place>,
}

/// The place of a statistic in a schema of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) schema: usize,
    pub(crate) stat: usize,
}

/// A schema with only the statistics that a filter kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptSchema {
    /// The unique name: provider and target, such as `kvm/vcpu`.
    pub name: Box<str>,
    /// The provider, the target, and the kept statistics.
    pub schema: Arc<Schema>,
}

/// The places of columns in the rows of one layout.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// The schema of each group.
    pub(crate) schemas: Vec<usize>,
    /// For each column the groups that have it, and the word in their rows.
    pub(crate) columns: Vec<Vec<(usize, usize)>>,
}

impl Columns {
    /// Returns the columns for the objects of a layout.
    ///
    /// # Errors
    /// `TooLarge` if there are more columns or schemas than a recording can have.
    pub fn of(layout: &Layout) -> Result<Self> {
        Self::default().joined(layout)
    }

    /// Returns these columns, and behind them those that a further layout needs.
    ///
    /// # Errors
    /// `TooLarge` if there are more columns or schemas than a recording can have.
    pub fn joined(&self, layout: &Layout) -> Result<Self> {
        let mut joined = self.clone();
        let mut names = Names::default();
        HEADS.iter().for_each(|name| names.add(name));
        self.columns.iter().for_each(|column| names.add(&column.name));
        for group in layout.groups() {
            if joined.schema_of(group).is_none() {
                joined.add(group, &mut names)?;
            }
        }
        Ok(joined)
    }

    /// Makes columns from schemas and columns that were read.
    pub(crate) fn from_parts(schemas: Vec<KeptSchema>, columns: Vec<Column>) -> Self {
        Self { schemas, columns }
    }

    /// Returns the columns in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Column> {
        self.columns.iter()
    }

    /// Returns the number of columns.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Returns whether there are no columns.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Returns the schemas in their order.
    pub fn schemas(&self) -> &[KeptSchema] {
        &self.schemas
    }

    /// Returns whether every object of a layout has its columns here.
    pub fn fit(&self, layout: &Layout) -> bool {
        layout.groups().iter().all(|group| self.schema_of(group).is_some())
    }

    /// Returns the places of the columns in a layout; `None` if they do not fit it.
    pub(crate) fn place(&self, layout: &Layout) -> Option<Placement> {
        let schemas: Option<Vec<usize>> =
            layout.groups().iter().map(|group| self.schema_of(group)).collect();
        let schemas = schemas?;
        let columns = self.columns.iter().map(|column| {
            let groups = layout.groups().iter().zip(&schemas).enumerate();
            let places = groups.filter_map(|(number, (group, &schema))| {
                let place = column.places.iter().find(|place| place.schema == schema)?;
                let words = group.plan.columns()[place.stat].words.clone();
                Some((number, words.start + usize::from(column.bucket.unwrap_or(0))))
            });
            places.collect()
        });
        Some(Placement { columns: columns.collect(), schemas })
    }

    fn schema_of(&self, group: &Group) -> Option<usize> {
        self.schemas.iter().position(|kept| is_kept(&kept.schema, group))
    }

    fn add(&mut self, group: &Group, names: &mut Names) -> Result<()> {
        let schema = self.schemas.len();
        Error::check("the number of kinds of object", schema + 1, MAX_SCHEMAS)?;
        let (provider, target) = {
            let schema = group.plan.schema();
            (schema.provider(), schema.target())
        };
        let descs = kept(group);
        let before = self.columns.len();
        for (stat, desc) in descs.iter().enumerate() {
            // A column that this schema has already is that of another statistic of the same name.
            let is_same = |column: &&mut Column| {
                let is_taken = column.places.last().is_some_and(|place| place.schema == schema);
                !is_taken && *column.provider == *provider && is_equal(&column.desc, desc)
            };
            let mut shared: Vec<&mut Column> =
                self.columns[..before].iter_mut().filter(is_same).collect();
            shared.truncate(usize::from(desc.size));
            if !shared.is_empty() {
                shared.iter_mut().for_each(|column| column.places.push(Place { schema, stat }));
                continue;
            }
            let columns = self.columns.len() + usize::from(desc.size);
            Error::check("the number of columns", columns, MAX_COLUMNS)?;
            let base = names.take(provider, desc);
            let buckets = (0..desc.size).map(|bucket| is_bucketed(desc).then_some(bucket));
            self.columns.extend(buckets.map(|bucket| Column {
                name: column_name(&base, bucket).into(),
                desc: desc.clone(),
                provider: provider.into(),
                bucket,
                places: vec![Place { schema, stat }],
            }));
        }
        let name = format!("{provider}/{target}");
        let taken = |name: &str| self.schemas.iter().any(|kept| *kept.name == *name);
        let numbered = (2..).map(|number| format!("{name}#{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        let name = names.find(|name| !taken(name)).expect("there are fewer schemas than numbers");
        let schema = with_offsets(provider, target.name(), descs);
        self.schemas.push(KeptSchema { name: name.into(), schema });
        Ok(())
    }
}

/// Returns whether a statistic has a number behind its columns' names.
pub(crate) fn is_bucketed(desc: &Desc) -> bool {
    desc.size > 1 || desc.stat_type.is_histogram()
}

/// Returns the name of a column of a statistic that is called `base`.
pub(crate) fn column_name(base: &str, bucket: Option<u16>) -> String {
    bucket.map_or_else(|| base.to_owned(), |bucket| format!("{base}_{bucket}"))
}

/// Makes a schema of statistics, one after the other.
pub(crate) fn with_offsets(provider: &str, target: &str, mut descs: Vec<Desc>) -> Arc<Schema> {
    let mut offset = 0;
    for desc in &mut descs {
        desc.offset = offset;
        offset += 8 * u32::from(desc.size);
    }
    Schema::new(provider, vmstrobe_core::Target::from_name(target), descs)
}

/// Returns the kept statistics of a group, in schema order.
fn kept(group: &Group) -> Vec<Desc> {
    let descs = group.plan.schema().descs();
    group.plan.columns().iter().map(|column| descs[column.desc].clone()).collect()
}

/// Returns whether a schema is that of the kept statistics of a group.
fn is_kept(schema: &Schema, group: &Group) -> bool {
    let own = group.plan.schema();
    let columns = group.plan.columns();
    schema.provider() == own.provider()
        && schema.target() == own.target()
        && schema.descs().len() == columns.len()
        && columns
            .iter()
            .zip(schema.descs())
            .all(|(column, desc)| is_equal(&own.descs()[column.desc], desc))
}

/// Returns whether two statistics are the same but for their offsets.
pub(crate) fn is_equal(one: &Desc, other: &Desc) -> bool {
    // The names differ most often.
    one.name == other.name && Desc { offset: other.offset, ..one.clone() } == *other
}

#[cfg(test)]
mod tests;
