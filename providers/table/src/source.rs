//! The tick over tables: the rows of its objects, one after the other.
//!
//! Invariant: a row is read the careful way ([`Row`]) unless all rows are known to be in memory and
//! nothing of the provider has gone; only then by [`Quick`].

use std::sync::Arc;

use vmstrobe_core::{ReadPlan, RowState, Rows, Source, WORD_BYTES};
use vmstrobe_host::GoneEpoch;

use super::quick::Quick;
use super::row::Row;

/// Reads objects of tables, one after the other.
pub(crate) struct TableSource {
    plan: Arc<ReadPlan>,
    quick: Option<Quick>,
    /// `None` where the object had gone before it was opened.
    rows: Box<[Option<Row>]>,
    /// A span that is read by system calls, and the sum of its shards.
    spans: Box<[[u64; 2]]>,
    /// Whether all rows can be loaded.
    is_present: bool,
    gone_epoch: GoneEpoch,
    opened_at: u64,
}

impl TableSource {
    /// A source of these rows. `opened_at` is the value of `gone_epoch` before anyone was asked
    /// whether an object is there.
    pub(crate) fn new(
        plan: &Arc<ReadPlan>,
        rows: Box<[Option<Row>]>,
        gone_epoch: &GoneEpoch,
        opened_at: u64,
    ) -> Self {
        let mut source = Self {
            quick: Quick::new(&rows, plan),
            plan: Arc::clone(plan),
            rows,
            spans: vec![[0; 2]; plan.span_bytes().len() / WORD_BYTES].into(),
            is_present: false,
            gone_epoch: gone_epoch.clone(),
            opened_at,
        };
        source.warm_up();
        source
    }

    /// Reads once for nothing, so that no tick is the first to touch a page.
    fn warm_up(&mut self) {
        let mut words = vec![0; self.plan.row_words()];
        for row in self.rows.iter().flatten() {
            row.read(&self.plan, &mut words, &mut self.spans);
        }
        self.is_present = self.rows.iter().flatten().all(|row| row.is_present());
    }
}

impl Source for TableSource {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let Self { plan, quick, rows: ours, spans, is_present, gone_epoch, opened_at } = self;
        let is_quick = *is_present && gone_epoch.count() == *opened_at;
        if let Some(quick) = quick.as_ref().filter(|_| is_quick) {
            return quick.read(plan, rows);
        }
        rows.fill(|index, words| {
            let Some(row) = &ours[index] else { return RowState::Gone };
            // Whether its writer is there is asked first: what it left behind can still be read.
            row.mark().unwrap_or_else(|| row.read(plan, words, spans))
        });
        if !*is_present {
            *is_present = ours.iter().flatten().all(|row| row.is_present());
        }
    }
}
