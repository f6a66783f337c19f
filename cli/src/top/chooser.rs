//! The choice of the table's columns.
//!
//! Invariant: at least one column is shown. The columns that were shown stand first, in their
//! order.

use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyEventKind};
use vmstrobe::view::ColumnKind;
use vmstrobe::{Desc, StatType, Unit};

use super::prompt::Typed;

/// The most columns that are offered: whoever has more statistics filters them by --names.
const ENTRIES_MAX: usize = 1000;

/// The choice while it is made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chooser {
    pub(super) entries: Vec<Entry>,
    /// The entry that keys act on.
    pub(super) at: usize,
}

/// A column that can be shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) kind: ColumnKind,
    pub(super) label: String,
    pub(super) is_shown: bool,
}

impl Chooser {
    /// Offers the columns that are shown, and all others of these statistics.
    pub(super) fn new(shown: Vec<ColumnKind>, descs: &[Desc]) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for (kind, is_shown) in
            shown.into_iter().map(|kind| (kind, true)).chain(kinds(descs).map(|kind| (kind, false)))
        {
            let is_new = entries.iter().all(|entry| entry.kind != kind);
            if is_new && entries.len() < ENTRIES_MAX {
                entries.push(Entry { label: label(&kind), kind, is_shown });
            }
        }
        Self { entries, at: 0 }
    }

    /// Takes a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Typed {
        if key.kind == KeyEventKind::Release {
            return Typed::Edited;
        }
        let last = self.entries.len().saturating_sub(1);
        match key.code {
            KeyCode::Up => self.at = self.at.saturating_sub(1),
            KeyCode::Down => self.at = (self.at + 1).min(last),
            KeyCode::PageUp => self.at = self.at.saturating_sub(10),
            KeyCode::PageDown => self.at = (self.at + 10).min(last),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = last,
            KeyCode::Left => self.shift(self.at.saturating_sub(1)),
            KeyCode::Right => self.shift((self.at + 1).min(last)),
            KeyCode::Char(' ') => {
                if let Some(entry) = self.entries.get_mut(self.at) {
                    entry.is_shown = !entry.is_shown;
                }
            }
            KeyCode::Enter if self.shown().is_empty() => {}
            KeyCode::Enter => return Typed::Accepted,
            KeyCode::Esc | KeyCode::Char('q' | 'f') => return Typed::Cancelled,
            _ => {}
        }
        Typed::Edited
    }

    /// Moves the entry to another place.
    fn shift(&mut self, to: usize) {
        if self.at < self.entries.len() && to < self.entries.len() {
            self.entries.swap(self.at, to);
            self.at = to;
        }
    }

    /// Returns the chosen columns.
    pub(super) fn shown(&self) -> Vec<ColumnKind> {
        let shown = self.entries.iter().filter(|entry| entry.is_shown);
        shown.map(|entry| entry.kind.clone()).collect()
    }
}

/// Returns the columns that there can be of these statistics.
fn kinds(descs: &[Desc]) -> impl Iterator<Item = ColumnKind> {
    descs.iter().flat_map(|desc| {
        let name = || desc.name.to_string();
        let amount = || ColumnKind::Amount(name());
        match desc.stat_type {
            StatType::Cumulative if desc.unit == Unit::Seconds => {
                vec![amount(), ColumnKind::Share(name()), ColumnKind::Total(name())]
            }
            StatType::Cumulative => vec![amount(), ColumnKind::Total(name())],
            kind if kind.is_histogram() => {
                [50, 99].map(|percent| ColumnKind::Quantile(name(), percent)).to_vec()
            }
            _ => vec![ColumnKind::Total(name())],
        }
    })
}

/// Returns the text of a column in the list.
fn label(kind: &ColumnKind) -> String {
    match kind {
        ColumnKind::Amount(name) => name.clone(),
        ColumnKind::Share(name) => format!("{name}, share of time"),
        ColumnKind::Total(name) => format!("{name}, total"),
        ColumnKind::Quantile(name, percent) => format!("{name}, p{percent}"),
    }
}

#[cfg(test)]
mod tests {
    use ratatui_crossterm::crossterm::event::KeyModifiers;

    use super::*;

    fn amount(name: &str) -> ColumnKind {
        ColumnKind::Amount(name.to_owned())
    }

    fn chooser() -> Chooser {
        Chooser::new(vec![amount("b"), amount("a"), amount("c")], &[])
    }

    fn press(chooser: &mut Chooser, code: KeyCode) -> Typed {
        chooser.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn columns_are_chosen_and_moved() {
        let mut chooser = chooser();
        press(&mut chooser, KeyCode::Right);
        assert_eq!(chooser.shown(), ["a", "b", "c"].map(amount));
        press(&mut chooser, KeyCode::Char(' '));
        assert_eq!(chooser.shown(), ["a", "c"].map(amount));
        press(&mut chooser, KeyCode::End);
        press(&mut chooser, KeyCode::Down);
        press(&mut chooser, KeyCode::Left);
        assert_eq!(chooser.shown(), ["a", "c"].map(amount));
        assert_eq!(press(&mut chooser, KeyCode::Enter), Typed::Accepted);
        assert_eq!(press(&mut chooser, KeyCode::Esc), Typed::Cancelled);
    }

    #[test]
    fn one_column_at_least_is_shown() {
        let mut chooser = chooser();
        for _ in 0..3 {
            press(&mut chooser, KeyCode::Char(' '));
            press(&mut chooser, KeyCode::Down);
        }
        assert_eq!(
            (chooser.shown().len(), press(&mut chooser, KeyCode::Enter)),
            (0, Typed::Edited)
        );
    }
}
