//! The table as plain text, again and again: `top -b`.
//!
//! Invariant: no escape sequence is printed, and no line depends on a terminal.

use std::thread::sleep;
use std::time::Instant;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use vmstrobe::view::Request;

use super::app::App;
use super::ascii::to_ascii;
use super::table;
use super::title;
use crate::args::BatchArgs;
use crate::error::Result;
use crate::out::{Out, say_each};
use crate::signals::StopFlag;

/// The width of the text. The sparklines end there.
const COLUMNS: u16 = 100;
/// The most rows of one table.
const ROWS_MAX: usize = 20_000;
/// The columns of names, which are not known beforehand.
const NAME_COLUMNS: u16 = 18;

/// Prints tables until all are printed, a signal comes, the reader has gone, or sampling has ended.
/// Returns the exit status: 1 if sampling has ended before.
///
/// # Errors
/// If samples cannot be taken, or the text cannot be written.
pub(super) fn run(app: &mut App, args: BatchArgs, stop: &StopFlag, out: &mut Out) -> Result<u8> {
    let (mut printed, mut due) = (0, Instant::now() + args.interval);
    while args.iterations.is_none_or(|most| printed < most) {
        while Instant::now() < due {
            if stop.is_set() || out.is_closed() {
                return Ok(0);
            }
            app.feed.take(&mut app.view)?;
            let left = due.saturating_duration_since(Instant::now());
            sleep(left.min(app.feed.look_period()));
        }
        due += args.interval;
        say_each(app.feed.news());
        app.feed.take(&mut app.view)?;
        let has_ended = write_table(app, printed > 0, out)?;
        printed += 1;
        if has_ended {
            let is_early = args.iterations.is_none_or(|most| printed < most);
            // A recording has an end of its own.
            return Ok(u8::from(is_early && app.facts.recording.is_none()));
        }
    }
    Ok(0)
}

/// Prints one table, and returns whether no later samples come.
fn write_table(app: &mut App, is_later: bool, out: &mut Out) -> Result<bool> {
    let (columns, spark_cells) = table::request(COLUMNS, NAME_COLUMNS);
    let request =
        Request { table_rows: ROWS_MAX, table_columns: columns, spark_cells, ..Request::default() };
    let mut frame = app.view.frame(&request);
    // Nobody selects a row here.
    frame.selected = None;
    let rows = u16::try_from(frame.rows.len().max(1)).unwrap_or(u16::MAX - 2);
    let mut buffer = Buffer::empty(Rect::new(0, 0, COLUMNS, rows + 2));
    let head = Rect { height: 1, ..buffer.area };
    title::draw(&mut buffer, head, &frame, &app.look, &app.facts);
    let below = Rect { y: 1, height: rows + 1, ..buffer.area };
    table::draw(&mut buffer, below, &frame, &app.look, NAME_COLUMNS);
    if app.look.is_ascii {
        to_ascii(&mut buffer);
    }
    let blank = is_later.then(String::new);
    out.lines(blank.into_iter().chain(lines(&buffer)))?;
    out.flush()?;
    // A recording is read long before it is played.
    let is_played = app.facts.recording.is_none() || frame.ring.at_ns >= frame.ring.end_ns;
    Ok(frame.header.has_ended && is_played)
}

/// Returns the lines of a screen, without the blanks at their ends.
pub(super) fn lines(buffer: &Buffer) -> Vec<String> {
    let columns = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui_core::buffer::Cell]| {
        let text: String = cells.iter().map(|cell| cell.symbol()).collect();
        text.trim_end().to_owned()
    };
    buffer.content.chunks(columns).map(line).collect()
}
