//! The columns before those of the statistics, and their types.
//!
//! Invariant: the numbers of row states never change their meaning, because files have them.

use vmstrobe_core::{RowState, Window};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    U8,
    U32,
    I32,
    U64,
    I64,
    /// A point in time, in ns since 1970.
    Time,
    /// The index of a text in a dictionary.
    Text(Dictionary),
}

/// A dictionary of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dictionary {
    Vm,
    Path,
    Schema,
}

/// The dictionaries, each at its number.
pub(crate) const DICTIONARIES: [Dictionary; 3] =
    [Dictionary::Vm, Dictionary::Path, Dictionary::Schema];

/// A column that is no statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Time,
    Tick,
    WindowNs,
    WallOffsetNs,
    Vm,
    Vcpu,
    Path,
    Schema,
    Object,
    State,
    AgeMs,
    Errno,
}

/// The columns that are no statistics, in the order of `.arrows` and `.parquet` files.
pub(crate) const ARROW_HEADS: [(Head, &str, Type); 12] = [
    (Head::Time, "time", Type::Time),
    (Head::Tick, "tick", Type::U64),
    (Head::WindowNs, "window_ns", Type::U64),
    (Head::WallOffsetNs, "wall_offset_ns", Type::I64),
    (Head::Vm, "vm", Type::Text(Dictionary::Vm)),
    (Head::Vcpu, "vcpu", Type::U32),
    (Head::Path, "path", Type::Text(Dictionary::Path)),
    (Head::Schema, "schema", Type::Text(Dictionary::Schema)),
    (Head::Object, "object", Type::U64),
    (Head::State, "state", Type::U8),
    (Head::AgeMs, "age_ms", Type::U32),
    (Head::Errno, "errno", Type::I32),
];

impl Type {
    /// Returns the size of one value.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U32 | Self::I32 | Self::Text(_) => 4,
            Self::U64 | Self::I64 | Self::Time => 8,
        }
    }
}

impl Dictionary {
    /// Returns the number by which messages name the dictionary.
    pub(crate) fn id(self) -> i64 {
        match self {
            Self::Vm => 0,
            Self::Path => 1,
            Self::Schema => 2,
        }
    }
}

impl Head {
    /// Returns the name of the column.
    pub(crate) fn name(self) -> &'static str {
        let head = ARROW_HEADS.iter().find(|(head, _, _)| *head == self);
        head.map_or("", |(_, name, _)| name)
    }

    /// Returns whether the column may have nulls.
    pub(crate) fn is_nullable(self) -> bool {
        matches!(self, Self::Vm | Self::Vcpu | Self::AgeMs | Self::Errno)
    }
}

/// Returns the number of a row state in the column `state`.
pub(crate) fn state_number(state: RowState) -> u8 {
    match state {
        RowState::Good => 0,
        RowState::Aged(_) => 1,
        RowState::Stale => 3,
        RowState::Torn => 4,
        RowState::Gone => 5,
        RowState::Io(_) => 6,
        // Also one that this version does not know: it has no values.
        _ => 2,
    }
}

/// Returns the row state of these columns; `None` if the number is unknown.
pub(crate) fn state(number: u8, age_ms: u32, errno: i32) -> Option<RowState> {
    Some(match number {
        0 => RowState::Good,
        1 => RowState::Aged(age_ms),
        2 => RowState::Missing,
        3 => RowState::Stale,
        4 => RowState::Torn,
        5 => RowState::Gone,
        6 => RowState::Io(errno),
        _ => return None,
    })
}

/// Returns the columns of a window: `time`, `window_ns` and `wall_offset_ns`.
pub(crate) fn window_columns(window: Window) -> (u64, u64, u64) {
    let width = window.end_ns.saturating_sub(window.begin_ns);
    let time = (window.begin_ns + width / 2).wrapping_add_signed(window.wall_offset_ns);
    (time, width, window.wall_offset_ns as u64)
}

/// Returns the window of these columns; `None` if it would begin before the clock's zero or end
/// after its last number, as no window does that was written.
pub(crate) fn window(time: u64, width: u64, wall_offset: u64) -> Option<Window> {
    let wall_offset_ns = wall_offset as i64;
    let middle = time.wrapping_sub(wall_offset);
    let begin_ns = middle.checked_sub(width / 2)?;
    Some(Window { begin_ns, end_ns: begin_ns.checked_add(width)?, wall_offset_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_the_way_there_and_back() {
        let states = [
            RowState::Good,
            RowState::Aged(7),
            RowState::Missing,
            RowState::Stale,
            RowState::Torn,
            RowState::Gone,
            RowState::Io(7),
        ];
        for (number, state_) in states.into_iter().enumerate() {
            assert_eq!(usize::from(state_number(state_)), number);
            assert_eq!(state(number as u8, 7, 7), Some(state_));
        }
        assert_eq!(state(7, 0, 0), None);
    }

    #[test]
    fn windows_survive_the_way_there_and_back() {
        let cases = [(0, 0, 0), (100, 101, -50), (100, 103, i64::MIN), (5, u64::MAX / 2, i64::MAX)];
        for (begin_ns, end_ns, wall_offset_ns) in cases {
            let before = Window { begin_ns, end_ns, wall_offset_ns };
            let (time, width, offset) = window_columns(before);
            assert_eq!(window(time, width, offset), Some(before));
        }
        assert_eq!(window(5, 12, 0), None);
        assert_eq!(window(u64::MAX, 2, 0), None);
    }
}
