//! The list of the subject's statistics.
//!
//! Invariant: a statistic is listed once, whatever objects have it, in the order of their schemas.
//! The selection stays on its statistic.

use std::sync::Arc;

use vmstrobe_core::Desc;

use super::action::Amounts;
use super::cells::{amount, total};
use super::compared::{Compared, Grown, Words, counts, factor};
use super::curves::{CurveCell, Curves, Width};
use super::frame::StatRow;
use super::matching::Matching;
use super::objects::{ObjectId, Objects, Placed};
use crate::history::{Edges, History};

/// The lists of changes that are read in a frame. Of a VM of many vCPUs, the highest rates are
/// there after some frames.
const LISTS_PER_FRAME: usize = 10_000;

/// The state of the list.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    pub(super) selected: Option<String>,
    /// All statistics as they were shown last.
    names: Vec<String>,
    above: usize,
    highest: Option<Curves>,
}

impl Statistics {
    /// Lists the statistics, and keeps the selection. Returns the number of those that stand still
    /// and are left out.
    pub(super) fn arrange(
        &mut self,
        of: &Compared,
        placed: &[&Placed],
        filter: Option<&Matching>,
        shows_still: bool,
    ) -> usize {
        let mut names: Vec<String> = Vec::new();
        for placed in placed {
            for part in &placed.parts {
                let plan = &of.now.snapshot.layout().groups()[part.group].plan;
                for column in plan.columns() {
                    let name = &plan.schema().descs()[column.desc].name;
                    if names.iter().all(|known| **known != **name) {
                        names.push(name.to_string());
                    }
                }
            }
        }
        if let Some(filter) = filter
            && names.iter().any(|name| filter.matches(name))
        {
            names.retain(|name| filter.matches(name));
        }
        let all = names.len();
        if !shows_still {
            names.retain(|name| moves(of, placed, name));
        }
        let still = all - names.len();
        let is_selected = |name: &String| self.selected.as_ref() == Some(name);
        if !names.iter().any(is_selected) {
            self.selected = names.first().cloned();
        }
        self.names = names;
        still
    }

    /// Moves the selection by so many rows.
    pub(super) fn move_by(&mut self, rows: i32) {
        let Some(last) = self.names.len().checked_sub(1) else { return };
        let selected = self.names.iter().position(|name| self.selected.as_ref() == Some(name));
        let to = (selected.unwrap_or(0) as i64 + i64::from(rows)).clamp(0, last as i64);
        self.selected = Some(self.names[to as usize].clone());
    }

    /// Returns the rows that there is room for. `highest` has the time over which the highest rate
    /// is taken.
    pub(super) fn rows(
        &mut self,
        history: &History,
        objects: &mut Objects,
        of: &Compared,
        placed: &[&Placed],
        charted: &[String],
        (room, highest): (usize, Edges),
    ) -> Vec<StatRow> {
        let selected = self.names.iter().position(|name| self.selected.as_ref() == Some(name));
        let selected = selected.unwrap_or(0);
        let above = self.above.min(selected).max((selected + 1).saturating_sub(room));
        self.above = above.min(self.names.len().saturating_sub(room));
        let shown = self.names.iter().skip(self.above).take(room);
        let shown: Vec<(&String, Desc)> =
            shown.filter_map(|name| Some((name, desc(of, placed, name)?))).collect();
        let mut cells = Vec::new();
        for (series, (name, _)) in shown.iter().enumerate().filter(|(_, (_, d))| counts(d)) {
            let stat: Arc<str> = name.as_str().into();
            let ids = placed.iter().map(|placed| placed.id);
            cells.extend(ids.map(|object| CurveCell { object, stat: Arc::clone(&stat), series }));
        }
        let width = Width::wide(history.period_ns().unwrap_or(0));
        let curves = Curves::kept(&mut self.highest, cells, width);
        let is_complete = curves.update(history, objects, highest, LISTS_PER_FRAME);
        let row = |(series, (name, desc)): (usize, (&String, Desc))| StatRow {
            now: amount(name, Amounts::Rate, of, placed.iter().copied()),
            highest: (is_complete && counts(&desc))
                .then(|| Some(curves.highest(series, highest)? * factor(&desc)))
                .flatten(),
            total: total(name, &of.now, placed.iter().copied()),
            is_charted: charted.contains(name),
            is_selected: self.selected.as_ref() == Some(name),
            desc,
        };
        shown.into_iter().enumerate().map(row).collect()
    }
}

/// Returns the properties of a statistic of some objects.
pub(super) fn desc(of: &Compared, placed: &[&Placed], name: &str) -> Option<Desc> {
    let descs = placed.iter().flat_map(|placed| &placed.parts).filter_map(|part| {
        let plan = &of.now.snapshot.layout().groups()[part.group].plan;
        Some(&plan.schema().descs()[plan.column(name)?.desc])
    });
    descs.into_iter().next().cloned()
}

/// Returns whether a statistic has other values than ten seconds before.
fn moves(of: &Compared, placed: &[&Placed], name: &str) -> bool {
    let Some(before) = &of.ten else { return true };
    let grown = Grown::between(Some(before), &of.now, placed.iter().copied(), name);
    match grown.desc {
        Some(desc) if counts(desc) && grown.known > 0 => grown.words.iter().any(|&word| word > 0),
        Some(_) => placed.iter().any(|placed| {
            let words = |words| match words {
                Words::Read(_, words) => words,
                Words::Absent | Words::Unread => &[],
            };
            let earlier = words(before.words_of(placed.id, name));
            words(of.now.words(placed, name)) != earlier
        }),
        // It could not be read, which should be seen.
        None => true,
    }
}

/// Returns the ids of objects.
pub(super) fn ids(placed: &[&Placed]) -> Vec<ObjectId> {
    placed.iter().map(|placed| placed.id).collect()
}
