//! The state behind a live table of virtual machines, without a terminal: which moment is shown,
//! what is selected, sorted and filtered, and the numbers of one screen.
//!
//! Invariant: nothing here draws or prints. A front door turns keys into [`Action`]s, and draws the
//! [`Frame`]s that it asks for.

mod action;
mod frame;

pub use self::action::{Action, Amounts, TimeStep};
pub use self::frame::{
    Cell, Chart, ChartColumn, Column, ColumnKind, EventMark, Frame, Header, HeatMap, Histogram,
    Moment, Request, Ring, Row, RowKind, ShownStat, Sort, StatRow, TableState,
};
