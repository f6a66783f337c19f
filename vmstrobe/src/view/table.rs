//! The rows of the table: sorted, filtered, folded, and those that there is room for.
//!
//! Invariant: the selection stays on its object whatever the order is; sorting is stable, so that
//! rows of equal values keep their places. Cells are computed for the rows that are shown, and the
//! one to sort by for all.

use std::collections::HashSet;

use super::action::Amounts;
use super::cells::cell;
use super::columns::title;
use super::compared::{Compared, Words};
use super::frame::{Cell, Column, ColumnKind, Row, RowKind, Sort};
use super::matching::Matching;
use super::objects::{LayoutMap, ObjectId, Objects, OwnerId, Placed, PlacedOwner};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RowId {
    Owner(OwnerId),
    Object(ObjectId),
}

/// Whether statistics and vCPUs that stand still are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Still {
    /// Only vCPUs.
    #[default]
    Objects,
    /// Both.
    Shown,
    /// Neither.
    Hidden,
}

/// The state of the table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The columns that were chosen; `None` for the default ones.
    pub(super) columns: Option<Vec<ColumnKind>>,
    pub(super) sort: Option<(ColumnKind, Sort)>,
    pub(super) is_summed: bool,
    pub(super) amounts: Amounts,
    pub(super) filter: Option<Matching>,
    pub(super) still: Still,
    pub(super) folded: HashSet<OwnerId>,
    pub(super) selected: Option<RowId>,
    /// All rows as they were shown last, and the columns.
    pub(super) rows: Vec<RowId>,
    pub(super) shown: Vec<ColumnKind>,
    /// The number of rows above the first that is shown.
    pub(super) above: usize,
}

impl Table {
    /// Returns the column and the direction by which the table is sorted: the chosen ones if the
    /// column is shown, or else the first column.
    pub(super) fn sorted_by(&self) -> Option<(ColumnKind, Sort)> {
        let chosen = self.sort.clone().filter(|(kind, _)| self.shown.contains(kind));
        chosen.or_else(|| Some((self.shown.first()?.clone(), Sort::Descending)))
    }

    /// Returns the columns with their titles.
    pub(super) fn headings(&self, of: &Compared) -> Vec<Column> {
        let sort = self.sorted_by();
        let heading = |kind: &ColumnKind| {
            let placed = of.now.map.placed.iter();
            let mut descs = placed.filter_map(|placed| match of.now.words(placed, kind.stat()) {
                Words::Read(desc, _) => Some(desc),
                _ => None,
            });
            Column {
                title: title(kind, descs.next(), self.amounts),
                sort: sort.as_ref().filter(|(by, _)| by == kind).map(|(_, sort)| *sort),
                kind: kind.clone(),
            }
        };
        self.shown.iter().map(heading).collect()
    }

    /// Returns the range of rows that there is room for, so that the selected one is among them.
    pub(super) fn scroll(&mut self, room: usize) -> std::ops::Range<usize> {
        let selected = self.selected_index().unwrap_or(0);
        let last = self.rows.len().saturating_sub(room);
        let above = self.above.min(selected).max((selected + 1).saturating_sub(room));
        self.above = above.min(last);
        self.above..(self.above + room).min(self.rows.len())
    }

    /// Returns the index of the selected row among all.
    pub(super) fn selected_index(&self) -> Option<usize> {
        let selected = self.selected?;
        self.rows.iter().position(|row| *row == selected)
    }

    /// Moves the selection by so many rows.
    pub(super) fn move_by(&mut self, rows: i32) {
        let Some(last) = self.rows.len().checked_sub(1) else { return };
        let from = self.selected_index().unwrap_or(0) as i64;
        let to = (from + i64::from(rows)).clamp(0, last as i64) as usize;
        self.selected = Some(self.rows[to]);
    }

    /// Returns a row without its sparkline.
    pub(super) fn row(&self, objects: &Objects, of: &Compared, id: RowId) -> Option<Row> {
        let map = &of.now.map;
        match id {
            RowId::Object(id) => {
                let placed = map.find(id)?;
                let name = objects.get(id)?.name.to_string();
                let cells = self.cells(of, std::iter::once(placed));
                let state = of.now.state(placed);
                let (kind, spark) = (RowKind::Object, Vec::new());
                Some(Row { kind, name, cells, spark, spark_max: 0.0, state })
            }
            RowId::Owner(id) => {
                let owner = objects.owner(id)?;
                let ended = owner.ended.as_ref().filter(|it| of.now.at_ns() >= it.at_ns);
                let place = map.owner(id).filter(|_| ended.is_none());
                let cells = match place {
                    Some(place) => self.cells(of, summed(map, place)),
                    None => vec![Cell::Unread; self.shown.len()],
                };
                let vcpus = place.map(|place| place.objects.len());
                let kind = RowKind::Vm {
                    is_folded: self.is_summed || self.folded.contains(&id) || place.is_none(),
                    vcpus: vcpus.or(ended.map(|ended| ended.vcpus)).unwrap_or(0),
                    ended_wall_ns: ended.map(|ended| ended.wall_ns),
                };
                let (name, spark) = (owner.label.to_string(), Vec::new());
                Some(Row { kind, name, cells, spark, spark_max: 0.0, state: None })
            }
        }
    }

    /// Returns the cells of some objects together.
    pub(super) fn cells<'p>(
        &self,
        of: &Compared,
        objects: impl Iterator<Item = &'p Placed> + Clone,
    ) -> Vec<Cell> {
        let columns = self.shown.iter();
        columns.map(|kind| cell(kind, self.amounts, of, objects.clone())).collect()
    }

    /// Selects the first object if nothing is selected, or if what was selected has left.
    pub(super) fn keep_selection(&mut self, objects: &Objects) {
        if self.selected_index().is_some() {
            return;
        }
        let owner = match self.selected {
            Some(RowId::Object(id)) => objects.get(id).map(|known| RowId::Owner(known.owner)),
            _ => None,
        };
        let is_object = |row: &&RowId| matches!(row, RowId::Object(_));
        let first = self.rows.iter().find(is_object).or(self.rows.first()).copied();
        self.selected = owner.filter(|owner| self.rows.contains(owner)).or(first);
    }
}

/// Returns the objects of which a VM's cells are the sums: its vCPUs, and its own object.
pub(super) fn summed<'a>(
    map: &'a LayoutMap,
    owner: &'a PlacedOwner,
) -> impl Iterator<Item = &'a Placed> + Clone {
    let own = owner.own.into_iter();
    own.chain(owner.objects.clone()).map(|at| &map.placed[at])
}
