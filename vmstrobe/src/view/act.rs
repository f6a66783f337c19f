//! The effect of each action on what is shown.
//!
//! Invariant: an action that has nothing to act on changes nothing.

use super::View;
use super::action::{Action, Amounts, TimeStep};
use super::columns::MAX_COLUMNS;
use super::frame::{ColumnKind, Sort};
use super::matching::Matching;
use super::table::{RowId, Still};
use crate::history::MAX_EVENTS;

/// The panes that can have the focus, beside 0 for the table.
const STATISTICS: usize = 1;
const EVENTS: usize = 2;
/// The most bytes of a filter.
const MAX_FILTER_BYTES: usize = 1024;

impl View {
    /// Changes what is shown.
    pub fn act(&mut self, action: Action) {
        self.history.close();
        match action {
            Action::Time(step) => self.position.step(step, &self.history),
            Action::Pause => self.position.pause(&self.history),
            Action::ZoomIn => self.zoom(true),
            Action::ZoomOut => self.zoom(false),
            Action::Move(rows) => self.move_by(rows),
            Action::NextPane => self.next_pane(),
            Action::Open => self.open(),
            Action::Close => self.close(),
            Action::Sort(column) => self.sort(column),
            Action::ToggleSummed => self.table.is_summed = !self.table.is_summed,
            Action::NextAmounts => {
                self.table.amounts = match self.table.amounts {
                    Amounts::Rate => Amounts::Delta,
                    Amounts::Delta => Amounts::Total,
                    Amounts::Total => Amounts::Rate,
                };
            }
            Action::SetBaseline => {
                let shown = self.position.shown(&self.history);
                self.baseline = shown.map(|shown| self.history.sample(shown.place));
            }
            Action::ToggleStill => {
                self.table.still = match self.table.still {
                    Still::Shown => Still::Hidden,
                    Still::Objects | Still::Hidden => Still::Shown,
                };
            }
            Action::ToggleExact => self.is_exact = !self.is_exact,
            Action::Filter(text) => {
                let text = text.filter(|text| text.len() <= MAX_FILTER_BYTES);
                self.table.filter = text.as_deref().and_then(Matching::new);
            }
            Action::Columns(columns) => {
                let columns: Vec<ColumnKind> = columns.into_iter().take(MAX_COLUMNS).collect();
                self.table.columns = (!columns.is_empty()).then_some(columns);
            }
            Action::Dismiss => self.dismiss(),
        }
    }

    /// Moves the selection of the pane that has the focus. With an opened vCPU there is no table.
    fn move_by(&mut self, rows: i32) {
        match self.focus {
            EVENTS => {
                let next = if rows > 0 { TimeStep::NextEvent } else { TimeStep::PreviousEvent };
                for _ in 0..rows.unsigned_abs().min(MAX_EVENTS as u32) {
                    self.position.step(next, &self.history);
                }
            }
            STATISTICS => self.statistics.move_by(rows),
            _ if self.opened.is_some() => self.statistics.move_by(rows),
            _ => self.table.move_by(rows),
        }
    }

    /// Moves the focus to the next pane that there was room for.
    fn next_pane(&mut self) {
        let has_room = [true, self.request.statistics > 0, self.request.events > 0];
        let next = (1..=has_room.len()).map(|step| (self.focus + step) % has_room.len());
        self.focus = { next }.find(|&pane| has_room[pane]).unwrap_or(0);
    }

    fn open(&mut self) {
        if self.focus == STATISTICS || self.opened.is_some() {
            return self.toggle_chart();
        }
        match self.table.selected {
            Some(RowId::Owner(id)) => {
                let was_folded = self.table.folded.remove(&id);
                self.table.folded.extend((!was_folded).then_some(id));
            }
            Some(RowId::Object(id)) => self.opened = Some(id),
            None => {}
        }
    }

    fn close(&mut self) {
        if self.opened.take().is_none() {
            self.table.filter = None;
        }
    }

    fn sort(&mut self, column: usize) {
        let Some(kind) = self.table.shown.get(column) else { return };
        let sort = match self.table.sorted_by() {
            Some((by, Sort::Descending)) if by == *kind => Sort::Ascending,
            _ => Sort::Descending,
        };
        self.table.sort = Some((kind.clone(), sort));
    }

    /// Takes the selected VM out of the table if it has ended, or else the first that has.
    fn dismiss(&mut self) {
        let is_ended = |row: &RowId| match row {
            RowId::Owner(id) => self.objects.ended().any(|(ended, ..)| ended == *id),
            RowId::Object(_) => false,
        };
        let selected = self.table.selected.filter(is_ended);
        let first = || self.table.rows.iter().copied().find(is_ended);
        if let Some(RowId::Owner(id)) = selected.or_else(first) {
            self.objects.dismiss(id);
        }
    }
}
