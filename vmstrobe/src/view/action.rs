//! The actions that change what a [`View`](super::View) shows, whatever key stands for them.

use super::frame::ColumnKind;

/// A change of what is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Goes back or forward in time. Sampling goes on meanwhile.
    Time(TimeStep),
    /// Freezes the view at this moment, or lets it go on; see [`TimeStep::Newest`] for live.
    Pause,
    /// Shows a shorter or longer time in charts: a factor of 2 each.
    ZoomIn,
    /// The opposite of [`Action::ZoomIn`].
    ZoomOut,
    /// Moves the selection by so many rows of the pane that has the focus.
    Move(i32),
    /// Moves the focus to the next pane.
    NextPane,
    /// Opens the selected vCPU, or folds or unfolds the selected VM.
    Open,
    /// Closes the opened vCPU. Without one, clears the filter.
    Close,
    /// Sorts by the column of this place; again: the other way round.
    Sort(usize),
    /// Shows each vCPU, or each VM as the sum of its vCPUs.
    ToggleSummed,
    /// Shows rates, then changes since the baseline, then totals.
    NextAmounts,
    /// Counts changes from this moment on.
    SetBaseline,
    /// Hides or shows statistics and vCPUs that stand still.
    ToggleStill,
    /// Writes numbers with prefixes, or exactly.
    ToggleExact,
    /// Shows only the VMs and vCPUs, statistics and processes of which the name matches: a part of
    /// a name, a glob, or `/regex/`. `None` shows all.
    Filter(Option<String>),
    /// Shows these columns of the table, in this order.
    Columns(Vec<ColumnKind>),
    /// Takes an ended VM out of the table.
    Dismiss,
}

/// A step in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeStep {
    /// By so many ns; back if negative.
    By(i64),
    /// By so many samples; back if negative.
    Samples(i32),
    /// To the oldest sample that is held.
    Oldest,
    /// To the newest sample, and on with it: live.
    Newest,
    /// To the next mark or trigger.
    NextEvent,
    /// To the mark or trigger before.
    PreviousEvent,
}

/// The numbers that the table shows of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Amounts {
    /// The change in a second, over the last second.
    #[default]
    Rate,
    /// The change since the baseline.
    Delta,
    /// The value itself.
    Total,
}
