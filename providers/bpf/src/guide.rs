//! Objects that no descriptor of statistics leads to, compared before anyone relies on them.
//!
//! There is nothing to compare them with by pread. But the program that reads everything was proven
//! on this kernel: what the source's own program reads must lie between two readings of that one.
//!
//! Invariant: runs when a source is opened, never on the tick.

use std::sync::Arc;

use vmstrobe_core::{Mask, ReadPlan, Result, StatType, WORD_BYTES};

use super::bulk::BulkReader;
use super::frame::{LOCK_WORDS, Shape};
use super::health::{Fault, Outside};
use super::kernel::Kernel;
use super::slots::{KvmFile, Subject};

/// Reads everything of the same objects.
pub(super) struct Guide {
    bulk: BulkReader,
    rows: usize,
}

impl Guide {
    /// # Errors
    /// As [`Kernel::bulk`].
    pub(super) fn new(
        kernel: &Kernel,
        subject: Subject,
        files: &[Option<KvmFile<'_>>],
    ) -> Result<Self> {
        let schema = kernel.schema(subject);
        let plan = ReadPlan::new(schema, &Mask::all(schema));
        let rows = files.len();
        Ok(Self { rows, bulk: kernel.bulk(subject, &plan, files)? })
    }

    /// Runs the source's program between two readings.
    ///
    /// # Errors
    /// The first word that only grows and does not lie between.
    pub(super) fn compare(
        &mut self,
        bulk: &mut BulkReader,
        plan: &Arc<ReadPlan>,
    ) -> std::result::Result<(), Fault> {
        self.bulk.run().map_err(Fault::Unread)?;
        let before: Vec<Vec<u64>> = (0..self.rows).map(|row| self.bulk.copy_of(row)).collect();
        bulk.run().map_err(Fault::Unread)?;
        self.bulk.run().map_err(Fault::Unread)?;
        for (row, before) in before.iter().enumerate() {
            let rows = [before, &bulk.copy_of(row), &self.bulk.copy_of(row)];
            // One whose VMM has just ended has no data, and says so.
            if rows.iter().all(|row| row[0] == 0) {
                between(plan, row, rows.map(|row| &row[LOCK_WORDS..]), bulk.shape())?;
            }
        }
        Ok(())
    }
}

fn between(
    plan: &ReadPlan,
    row: usize,
    [before, seen, after]: [&[u64]; 3],
    shape: Shape,
) -> std::result::Result<(), Fault> {
    let first = plan.span_bytes().start / WORD_BYTES;
    let kept: Vec<usize> = plan.kept().collect();
    let grows = |desc: usize| {
        let of = plan.schema().descs()[desc].stat_type;
        matches!(of, StatType::Cumulative | StatType::Peak) || of.is_histogram()
    };
    for (column, of) in plan.columns().iter().enumerate().filter(|(_, of)| grows(of.desc)) {
        for at in of.words.clone() {
            // The guide keeps all words, so that each is where the block has it.
            let word = kept[at];
            let value = seen[if shape == Shape::Row { at } else { word - first }];
            let (before, after) = (before[word], after[word]);
            // The other way round if somebody has set it to 0 meanwhile, as debugfs allows.
            if before <= after && !(before..=after).contains(&value) {
                let values = [before, value, after];
                return Err(Fault::Outside(Outside { row, column, values }));
            }
        }
    }
    Ok(())
}
