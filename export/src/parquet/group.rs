//! A row group of rows, written one column at a time.
//!
//! Invariant: every column has a value or a null for each row, in the order of the layout.

use std::io::{self, Write};

use parquet::errors::Result;
use parquet::schema::types::TypePtr;
use vmstrobe_core::{RowState, Window};

use super::chunks::ChunkWriter;
use super::dictionary::{Run, Texts};
use super::file::RowGroup;
use super::pending::{Pending, Place, push_run};
use crate::heads::{ARROW_HEADS, Dictionary, Head, Type, state_number, window_columns};
use crate::laid::Laid;

/// A column with fewer runs than its rows divided by this is written from its runs. At about that
/// many both ways take as much time and as many bytes.
const ROWS_PER_RUN: usize = 64;

/// Writes row groups, with buffers that it keeps.
#[derive(Debug)]
pub(super) struct GroupWriter {
    chunks: ChunkWriter,
    runs: Vec<Run>,
}

impl GroupWriter {
    /// Makes one for files of these columns.
    pub(super) fn new(schema: TypePtr) -> io::Result<Self> {
        Ok(Self { chunks: ChunkWriter::new(schema)?, runs: Vec::new() })
    }

    /// Writes the batches that wait.
    pub(super) fn write<W: Write + Send>(
        &mut self,
        group: &mut RowGroup<'_, W>,
        pending: &Pending,
        laid: &Laid,
        schemas: Texts<'_>,
    ) -> Result<()> {
        for (index, (head, _, type_)) in ARROW_HEADS.into_iter().enumerate() {
            self.write_head(group, index, pending, laid, (head, type_), schemas)?;
        }
        let is_good = pending.is_good();
        for (number, places) in laid.placement.columns.iter().enumerate() {
            let index = ARROW_HEADS.len() + number;
            let changes: usize = each_object(laid, places)
                .filter_map(|(_, place)| place)
                .map(|place| pending.changes(place))
                .sum();
            if changes > pending.rows() / ROWS_PER_RUN {
                self.write_values(group, pending, laid, places, is_good)?;
                continue;
            }
            self.runs.clear();
            for (_, place) in each_object(laid, places) {
                match place {
                    Some(place) => pending.runs(place, &mut self.runs),
                    None => push_run(&mut self.runs, pending.ticks(), None),
                }
            }
            self.chunks.runs(group, index, Type::U64, &self.runs, &[])?;
        }
        Ok(())
    }

    fn write_head<W: Write + Send>(
        &mut self,
        group: &mut RowGroup<'_, W>,
        index: usize,
        pending: &Pending,
        laid: &Laid,
        (head, type_): (Head, Type),
        schemas: Texts<'_>,
    ) -> Result<()> {
        if let Some(of_tick) = each_tick(head) {
            let values: Vec<u64> = pending.times().map(of_tick).collect();
            let objects = laid.layout.rows();
            return match head {
                // They count up, so that their differences take no bits. All are distinct.
                Head::Tick => self.chunks.repeated_deltas(group, &values, objects),
                _ => self.chunks.repeated(group, index, type_, &values, objects),
            };
        }
        self.runs.clear();
        if let Some(constants) = laid.constants(head) {
            for constant in constants {
                push_run(&mut self.runs, pending.ticks(), *constant);
            }
        } else {
            for row in 0..laid.layout.rows() {
                pending.states(row, |state| of_state(head, state), &mut self.runs);
            }
        }
        let texts: Vec<&str> = match type_ {
            Type::Text(Dictionary::Vm) => laid.vms.iter().map(|text| &**text).collect(),
            Type::Text(Dictionary::Path) => laid.paths.iter().map(|text| &**text).collect(),
            _ => schemas.to_vec(),
        };
        self.chunks.runs(group, index, type_, &self.runs, &texts)
    }

    /// Writes a statistic that moves.
    fn write_values<W: Write + Send>(
        &mut self,
        group: &mut RowGroup<'_, W>,
        pending: &Pending,
        laid: &Laid,
        places: &[(usize, usize)],
        is_good: bool,
    ) -> Result<()> {
        let ticks = pending.ticks();
        let has_all = is_good && each_object(laid, places).all(|(_, place)| place.is_some());
        self.chunks.values(group, pending.rows(), !has_all, |values, levels| {
            for (row, place) in each_object(laid, places) {
                let range = row * ticks..(row + 1) * ticks;
                let levels = &mut levels[range.clone()];
                match place {
                    Some(place) => {
                        pending.fill(place, &mut values[range], (!is_good).then_some(levels));
                    }
                    None => levels.fill(0),
                }
            }
        })
    }
}

/// Returns the value that a column has in all rows of a tick, if it is such a column.
fn each_tick(head: Head) -> Option<fn((u64, Window)) -> u64> {
    Some(match head {
        Head::Tick => |(tick, _)| tick,
        Head::Time => |(_, window)| window_columns(window).0,
        Head::WindowNs => |(_, window)| window_columns(window).1,
        Head::WallOffsetNs => |(_, window)| window_columns(window).2,
        _ => return None,
    })
}

/// Returns the value of a column in a row of that state.
fn of_state(head: Head, state: RowState) -> Option<u64> {
    match (head, state) {
        (Head::State, state) => Some(state_number(state).into()),
        (Head::AgeMs, RowState::Aged(age_ms)) => Some(age_ms.into()),
        (Head::Errno, RowState::Io(errno)) => Some(u64::from(errno as u32)),
        _ => None,
    }
}

/// Returns the rows of a layout in order, each with the place of a column's word in it.
fn each_object(
    laid: &Laid,
    places: &[(usize, usize)],
) -> impl Iterator<Item = (usize, Option<Place>)> {
    let groups = laid.layout.groups().iter().enumerate();
    groups.flat_map(|(number, group)| {
        let word = places.iter().find(|(group, _)| *group == number).map(|(_, word)| *word);
        (0..group.objects.len())
            .map(move |object| (group.first_row + object, word.map(|word| (number, object, word))))
    })
}
