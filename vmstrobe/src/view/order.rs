//! The order of the table's rows: those that the filter matches, sorted within each VM.
//!
//! Invariant: sorting is stable, and begins from the order of names; so that rows of equal values
//! keep their places. A filter that matches no row and some statistic is meant for statistics.

use std::iter;

use super::cells::{cell, key};
use super::columns::Defaults;
use super::compared::Compared;
use super::frame::{ColumnKind, Sort, TableState};
use super::matching::Matching;
use super::objects::{Objects, OwnerId, Placed, PlacedOwner};
use super::table::{RowId, Still, Table, summed};

/// An owner that is shown, with the value by which it is sorted.
struct Sorted<'a> {
    id: OwnerId,
    key: f64,
    label: &'a str,
    /// The objects of it that are shown, each with its value.
    objects: Vec<(f64, usize)>,
}

/// The owners that are shown, and how many there were at each step.
#[derive(Default)]
struct Chosen<'a> {
    owners: Vec<Sorted<'a>>,
    found: usize,
    matching: usize,
}

impl Table {
    /// Sorts and filters all rows, and keeps the selection.
    pub(super) fn arrange(
        &mut self,
        objects: &Objects,
        of: &Compared,
        defaults: &Defaults,
        room: usize,
    ) -> TableState {
        self.shown = match &self.columns {
            Some(columns) => columns.iter().take(room).cloned().collect(),
            None => defaults.shown(room),
        };
        let sort = self.sorted_by();
        let mut chosen = self.choose(objects, of, sort.as_ref(), self.filter.as_ref());
        let is_for_statistics =
            |filter: &&Matching| chosen.matching == 0 && matches_stat(of, filter);
        if self.filter.as_ref().filter(is_for_statistics).is_some() {
            chosen = self.choose(objects, of, sort.as_ref(), None);
        }
        let placed = &of.now.map.placed;
        self.rows.clear();
        for owner in &chosen.owners {
            self.rows.push(RowId::Owner(owner.id));
            if !self.is_summed && !self.folded.contains(&owner.id) {
                self.rows.extend(owner.objects.iter().map(|&(_, at)| RowId::Object(placed[at].id)));
            }
        }
        let state = match (chosen.found, chosen.matching) {
            (0, _) => TableState::Empty,
            (_, 0) => TableState::NothingMatches,
            _ if self.rows.is_empty() => TableState::AllStill,
            _ => TableState::Filled,
        };
        self.keep_selection(objects);
        state
    }

    /// Chooses and sorts the owners that are shown: those of the sample, and behind them VMs that
    /// had ended by then.
    fn choose<'a>(
        &self,
        objects: &'a Objects,
        of: &Compared,
        sort: Option<&(ColumnKind, Sort)>,
        filter: Option<&Matching>,
    ) -> Chosen<'a> {
        let mut chosen = Chosen::default();
        for owner in &of.now.map.owners {
            let Some(known) = objects.owner(owner.id) else { continue };
            if known.ended.as_ref().is_some_and(|ended| of.now.at_ns() >= ended.at_ns) {
                continue;
            }
            chosen.found += 1;
            let rows = self.rows_of(objects, of, sort, filter, owner, &mut chosen.matching);
            let Some(rows) = rows else { continue };
            let key = self.key(sort, of, summed(&of.now.map, owner));
            let label = &known.label;
            chosen.owners.push(Sorted { id: owner.id, key, label, objects: rows });
        }
        chosen.owners.sort_by(|a, b| a.label.cmp(b.label));
        sort_by(&mut chosen.owners, sort, |owner| owner.key);
        for (id, owner, _) in objects.ended().filter(|(.., it)| of.now.at_ns() >= it.at_ns) {
            chosen.found += 1;
            if filter.is_none_or(|filter| filter.matches(&owner.label)) {
                chosen.matching += 1;
                let (label, objects) = (&*owner.label, Vec::new());
                chosen.owners.push(Sorted { id, key: 0.0, label, objects });
            }
        }
        chosen
    }

    /// Returns the objects of an owner that are shown; `None` if it is not shown itself.
    fn rows_of(
        &self,
        objects: &Objects,
        of: &Compared,
        sort: Option<&(ColumnKind, Sort)>,
        filter: Option<&Matching>,
        owner: &PlacedOwner,
        matching: &mut usize,
    ) -> Option<Vec<(f64, usize)>> {
        let placed = &of.now.map.placed;
        let label = &objects.owner(owner.id)?.label;
        let wants_label = filter.is_none_or(|filter| filter.matches(label));
        let wants = |at: &usize| wants_label || matches(objects, filter, &placed[*at]);
        let mut rows: Vec<usize> = owner.objects.clone().filter(wants).collect();
        // A VM of which only the VM itself is sampled has no rows.
        let is_alone = owner.objects.is_empty() && wants_label;
        if rows.is_empty() && !is_alone {
            return None;
        }
        *matching += 1;
        if self.still == Still::Hidden {
            let before = of.ten.as_ref();
            let moves = |at: usize| before.is_none_or(|it| of.now.has_moved(&placed[at], it));
            rows.retain(|&at| moves(at));
            if rows.is_empty() && !(is_alone && owner.own.is_some_and(moves)) {
                return None;
            }
        }
        let key = |at: usize| self.key(sort, of, iter::once(&placed[at]));
        let mut rows: Vec<(f64, usize)> = rows.into_iter().map(|at| (key(at), at)).collect();
        sort_by(&mut rows, sort, |row| row.0);
        Some(rows)
    }

    fn key<'p>(
        &self,
        sort: Option<&(ColumnKind, Sort)>,
        of: &Compared,
        objects: impl Iterator<Item = &'p Placed> + Clone,
    ) -> f64 {
        sort.map_or(0.0, |(kind, _)| key(&cell(kind, self.amounts, of, objects)))
    }
}

/// Returns whether a filter matches an object: its path, or its name.
fn matches(objects: &Objects, filter: Option<&Matching>, placed: &Placed) -> bool {
    let (Some(filter), Some(known)) = (filter, objects.get(placed.id)) else { return false };
    filter.matches(&known.path) || filter.matches(&format!("vCPU {}", known.name))
}

/// Returns whether a filter matches the name of any statistic.
fn matches_stat(of: &Compared, filter: &Matching) -> bool {
    let plans = of.now.snapshot.layout().groups().iter().map(|group| &group.plan);
    plans.into_iter().any(|plan| {
        let descs = plan.schema().descs();
        plan.columns().iter().any(|column| filter.matches(&descs[column.desc].name))
    })
}

/// Sorts by a number; rows of equal numbers keep their places.
fn sort_by<T>(rows: &mut [T], sort: Option<&(ColumnKind, Sort)>, key: impl Fn(&T) -> f64) {
    match sort.map(|(_, sort)| sort) {
        None => {}
        Some(Sort::Descending) => rows.sort_by(|a, b| key(b).total_cmp(&key(a))),
        Some(Sort::Ascending) => rows.sort_by(|a, b| {
            // What has no value stands behind all others either way.
            let of = |row| match key(row) {
                f64::NEG_INFINITY => f64::INFINITY,
                key => key,
            };
            of(a).total_cmp(&of(b))
        }),
    }
}
