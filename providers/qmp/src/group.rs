//! The statistics of one provider's target, as QEMU's schema and its answers tell them.
//!
//! QMP does not say how many buckets a histogram has. So a schema begins with one word a statistic,
//! and grows to the longest list that an answer had. Nor has every object all statistics of its
//! schema: one that lacks some has a schema of its own, shared by all alike.
//!
//! Invariant: offsets are contiguous in schema order, sizes never shrink. A value has as many words
//! as its descriptor says: buckets ascending, zeros behind those that QEMU did not give.

use std::collections::HashMap;
use std::sync::Arc;

use vmstrobe_core::wire::{MAX_DATA_BYTES, MAX_DESCS, MAX_NAME_BYTES};
use vmstrobe_core::{Desc, Error, ErrorKind, Result, Schema, Target, WORD_BYTES};

use super::message::{StatValue, StatsResult, StatsSchema, StatsSchemaValue};

/// The most bytes of values and of schemas that one QEMU's objects may take. 4096 vCPUs of Linux
/// 6.18 take 5 MB.
pub(super) const MAX_HELD_BYTES: usize = 64 << 20;
/// The bytes that are counted for a descriptor of a schema, with its name.
const DESC_BYTES: usize = 128;

/// The bytes that are left of [`MAX_HELD_BYTES`].
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new(spent: usize) -> Self {
        Self(MAX_HELD_BYTES.saturating_sub(spent))
    }

    /// # Errors
    /// `TooLarge` if there is not as much left.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<()> {
        let text = || format!("QEMU's statistics take more than {MAX_HELD_BYTES} bytes");
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| too_large(text()))?;
        Ok(())
    }
}

/// The statistics of one object: places in the schema, ascending, with QEMU's values.
pub(super) type Placed<'a> = Vec<(usize, &'a StatValue)>;

/// A provider's target.
#[derive(Debug)]
pub(super) struct Group {
    /// The schema with all that an object can have.
    schema: Arc<Schema>,
    /// The places of the statistics of a name in it: several, if QEMU has two of one name.
    places: HashMap<Box<str>, Vec<usize>>,
    /// Schemas of objects that lack some, by what they have.
    parts: HashMap<Box<[usize]>, Arc<Schema>>,
}

impl Group {
    /// As QEMU's schema says; sizes as far as they are `known` from before.
    ///
    /// # Errors
    /// `TooLarge` if there are more than [`MAX_DESCS`] statistics, or a name does not fit
    /// [`MAX_NAME_BYTES`].
    pub(super) fn new(schema: &StatsSchema, known: Option<&Self>) -> Result<Self> {
        if schema.stats.len() > MAX_DESCS as usize {
            let count = schema.stats.len();
            let text = format!("QEMU's schema has {count} statistics; the limit is {MAX_DESCS}");
            return Err(too_large(text));
        }
        let names = schema.stats.iter().map(|stat| &stat.name);
        names.chain([&schema.provider, &schema.target]).try_for_each(|name| fits(name))?;
        let descs: Vec<Desc> =
            schema.stats.iter().rev().filter_map(StatsSchemaValue::desc).collect();
        let mut places: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (at, desc) in descs.iter().enumerate() {
            places.entry(desc.name.clone()).or_default().push(at);
        }
        let sizes = descs.iter().enumerate().map(|(at, desc)| {
            let nth = places[&desc.name].iter().position(|&place| place == at)?;
            let known = known?;
            known.places.get(&desc.name)?.get(nth).map(|&at| known.schema.descs()[at].size)
        });
        let sizes: Vec<u16> = sizes.map(|size| size.unwrap_or(1)).collect();
        let target = Target::from_name(&schema.target);
        let schema = laid_out(&schema.provider, target, descs.iter(), sizes)?;
        Ok(Self { schema, places, parts: HashMap::new() })
    }

    pub(super) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Finds the places of an object's statistics in the schema. A statistic that is not in the
    /// schema is left out, and so is one that cannot be read. Of several of one name, the n-th has
    /// the n-th place of that name.
    pub(super) fn place<'a>(&self, result: &'a StatsResult<'_>) -> Placed<'a> {
        let mut placed = Placed::with_capacity(result.stats.len().min(self.schema.descs().len()));
        let mut taken = vec![0; self.schema.descs().len()];
        for stat in result.stats.iter().rev() {
            let Some(places) = self.places.get(&*stat.name) else { continue };
            let taken = &mut taken[places[0]];
            let place = places.get(*taken);
            *taken += 1;
            placed.extend(place.filter(|_| stat.value.size() > 0).map(|&at| (at, &stat.value)));
        }
        placed.sort_unstable_by_key(|&(at, _)| at);
        placed
    }

    /// Makes room for the longest lists of these objects. True if that took a new schema.
    ///
    /// # Errors
    /// `TooLarge` if it would have more than [`MAX_DATA_BYTES`].
    pub(super) fn learn(&mut self, objects: &[Placed<'_>]) -> Result<bool> {
        let descs = self.schema.descs();
        let mut sizes: Vec<u16> = descs.iter().map(|desc| desc.size).collect();
        for &(at, value) in objects.iter().flatten() {
            // No longer than `MAX_BUCKETS`.
            sizes[at] = sizes[at].max(value.size() as u16);
        }
        if descs.iter().map(|desc| desc.size).eq(sizes.iter().copied()) {
            return Ok(false);
        }
        let target = self.schema.target().clone();
        self.schema = laid_out(self.schema.provider(), target, descs.iter(), sizes)?;
        self.parts.clear();
        Ok(true)
    }

    /// The schema of an object that has these statistics: equal ones are one.
    ///
    /// # Errors
    /// `TooLarge` if there are more of them than the budget allows.
    pub(super) fn schema_of(
        &mut self,
        placed: &Placed<'_>,
        budget: &mut Budget,
    ) -> Result<Arc<Schema>> {
        if placed.len() == self.schema.descs().len() {
            return Ok(Arc::clone(&self.schema));
        }
        let part: Box<[usize]> = placed.iter().map(|&(at, _)| at).collect();
        if let Some(schema) = self.parts.get(&part) {
            return Ok(Arc::clone(schema));
        }
        budget.spend(part.len() * DESC_BYTES)?;
        let descs = part.iter().map(|&at| &self.schema.descs()[at]);
        let sizes = descs.clone().map(|desc| desc.size).collect();
        let target = self.schema.target().clone();
        let schema = laid_out(self.schema.provider(), target, descs, sizes)?;
        self.parts.insert(part, Arc::clone(&schema));
        Ok(schema)
    }

    /// The values in the layout of that schema.
    pub(super) fn words(&self, placed: &Placed<'_>) -> Vec<u64> {
        let mut words = Vec::new();
        for &(at, value) in placed {
            let end = words.len() + usize::from(self.schema.descs()[at].size);
            match value {
                StatValue::Number(number) => words.push(*number),
                StatValue::List(buckets) => words.extend(buckets.iter().rev()),
                StatValue::Unreadable => {}
            }
            words.resize(end, 0);
        }
        words
    }

    /// Forgets schemas that no object has any more.
    pub(super) fn tidy(&mut self) {
        self.parts.retain(|_, schema| Arc::strong_count(schema) > 1);
    }

    /// Returns the bytes that the schemas of its parts take of the budget.
    pub(super) fn spent(&self) -> usize {
        self.parts.keys().map(|part| part.len() * DESC_BYTES).sum()
    }
}

/// # Errors
/// `TooLarge` if the data would have more than [`MAX_DATA_BYTES`].
fn laid_out<'a>(
    provider: &str,
    target: Target,
    descs: impl Iterator<Item = &'a Desc>,
    sizes: Vec<u16>,
) -> Result<Arc<Schema>> {
    let bytes = sizes.iter().map(|&size| usize::from(size) * WORD_BYTES).sum::<usize>();
    if bytes > MAX_DATA_BYTES {
        let text =
            format!("an object of {bytes} bytes of statistics; the limit is {MAX_DATA_BYTES}");
        return Err(too_large(text));
    }
    let mut offset = 0;
    let descs = descs.zip(sizes).map(|(desc, size)| {
        let desc = Desc { size, offset, ..desc.clone() };
        offset += u32::from(size) * WORD_BYTES as u32;
        desc
    });
    Ok(Schema::new(provider, target, descs.collect()))
}

fn fits(name: &str) -> Result<()> {
    if name.len() < MAX_NAME_BYTES as usize {
        return Ok(());
    }
    let (bytes, max) = (name.len(), MAX_NAME_BYTES - 1);
    Err(too_large(format!("QEMU gives a name of {bytes} bytes; the limit is {max}")))
}

pub(super) fn too_large(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::TooLarge, text)
}
