//! Whole screens: as text beside the tests, and their styles where these mean something.

use std::path::PathBuf;

use ratatui_core::buffer::{Buffer, Cell as ScreenCell};
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier};
use vmstrobe::RowState;
use vmstrobe::view::{Cell, Frame, RowKind, TableState};

use super::super::key_line::KeyLine;
use super::super::layout::Wants;
use super::super::paint::tests::lines;
use super::super::table::NAME_MIN;
use super::super::testing::{drawn, facts, frame, look};
use super::super::theme::Colours;
use super::*;
use crate::args::Marker;

const LIST: Wants = Wants {
    rows_total: 11,
    is_opened: false,
    is_back: false,
    focus: 0,
    histogram: None,
    heat_map: None,
};
const OPENED: Wants = Wants { is_opened: true, ..LIST };
const BACK: Wants = Wants { is_back: true, rows_total: 5, ..LIST };

fn unchanged(_: &mut Frame) {}

/// Compares a screen with the one that is kept beside the tests. `VMSTROBE_BLESS=1` replaces it.
fn check(name: &str, buffer: &Buffer) {
    let mut text = String::new();
    for line in lines(buffer) {
        text += line.trim_end();
        text.push('\n');
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/top/screen").join(name);
    if std::env::var_os("VMSTROBE_BLESS").is_some() {
        std::fs::write(&path, text).expect("the tree can be written to");
        return;
    }
    let kept = std::fs::read_to_string(&path).expect("the screen is kept beside the tests");
    assert!(kept == text, "{name} has changed:\n{text}\nit was:\n{kept}");
}

#[test]
fn screens_look_as_those_that_are_kept() {
    let sixteen = look(Colours::Sixteen);
    check("list-80x24.txt", &drawn((80, 24), &sixteen, LIST, unchanged));
    check("list-60x12.txt", &drawn((60, 12), &sixteen, LIST, unchanged));
    check("list-200x60.txt", &drawn((200, 60), &sixteen, LIST, unchanged));
    check("opened-80x24.txt", &drawn((80, 24), &sixteen, OPENED, unchanged));
    check("opened-200x60.txt", &drawn((200, 60), &sixteen, OPENED, unchanged));
    check("back-80x24.txt", &drawn((80, 24), &sixteen, BACK, unchanged));
    let map = Wants { histogram: Some(true), heat_map: Some(true), ..LIST };
    check("map-100x40.txt", &drawn((100, 40), &sixteen, map, unchanged));
    let ascii = Look { is_ascii: true, marker: Marker::Ascii, ..sixteen };
    check("ascii-80x24.txt", &drawn((80, 24), &ascii, BACK, unchanged));
}

/// Returns the first cell of the text in a line that contains it.
fn cell<'a>(buffer: &'a Buffer, text: &str) -> &'a ScreenCell {
    let lines = lines(buffer);
    let found = lines.iter().enumerate().find_map(|(y, line)| Some((y, line.find(text)?)));
    let (y, at) = found.unwrap_or_else(|| panic!("no {text} in {lines:#?}"));
    let x = lines[y][..at].chars().count();
    buffer.cell((x as u16, y as u16)).expect("the text is on the screen")
}

#[test]
fn colours_have_their_places() {
    let buffer = drawn((200, 60), &look(Colours::Sixteen), LIST, unchanged);
    assert_eq!(cell(&buffer, "T run_delay").fg, Color::Red);
    assert_eq!(cell(&buffer, "spin 2 ms").fg, Color::Magenta);
    assert_eq!(cell(&buffer, "▅").fg, Color::LightBlue);
    assert!(cell(&buffer, "99 lost").modifier.contains(Modifier::DIM));
    assert!(cell(&buffer, "demo2").modifier.contains(Modifier::BOLD));
    // Values have no colour, so that they can be read with any palette.
    assert_eq!((cell(&buffer, "12.7 k").fg, cell(&buffer, "871").fg), (Color::Reset, Color::Reset));
    assert!(cell(&buffer, "2.29 k").modifier.contains(Modifier::REVERSED), "the selected row");
    // A title has none of the style of the rule that it stands on.
    assert_eq!(cell(&buffer, "demo › vCPU 2").modifier, Modifier::BOLD);
    let buffer = drawn((80, 24), &look(Colours::Dark), LIST, unchanged);
    assert_eq!(cell(&buffer, "demo › vCPU 2").fg, Color::Reset);
    assert_eq!(cell(&buffer, "●").fg, Color::Rgb(0x4f, 0xcf, 0xa6));
    assert_eq!(cell(&buffer, "2.29 k").bg, Color::Rgb(0x23, 0x30, 0x3c));
}

#[test]
fn without_colours_there_are_none() {
    let look = look(Colours::None);
    for wants in [LIST, OPENED, BACK] {
        for size in [(80, 24), (200, 60)] {
            let buffer = drawn(size, &look, wants, unchanged);
            let is_plain = |cell: &ScreenCell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset);
            assert!(buffer.content.iter().all(is_plain), "{size:?} {wants:?}");
        }
    }
}

#[test]
fn the_past_is_known_by_its_first_line() {
    for colours in [Colours::None, Colours::Sixteen, Colours::Light, Colours::Dark] {
        let buffer = drawn((80, 24), &look(colours), BACK, unchanged);
        let first = &buffer.content[..80];
        let is_marked = |cell: &ScreenCell| {
            cell.modifier.contains(Modifier::REVERSED) || cell.bg != Color::Reset
        };
        assert!(first.iter().all(is_marked), "{colours:?}");
        assert!(lines(&buffer)[0].contains("BACK IN TIME  23:32:02.100   10.9 s ago"));
    }
}

#[test]
fn no_size_panics() {
    let markers = [Marker::Braille, Marker::Octant, Marker::Block, Marker::Ascii];
    let mut marker = markers.into_iter().cycle();
    let widths = (60..=100).chain((101..=200).step_by(7));
    for (width, height) in widths.flat_map(|width| (12..=60).map(move |height| (width, height))) {
        // A part of the sizes for each state, all of them for some state.
        let index = usize::from(width) * 7 + usize::from(height);
        let mut wants = [LIST, OPENED, BACK][index % 3];
        wants.focus = index / 3 % 3;
        wants.histogram = [None, Some(true), Some(false)][index / 9 % 3];
        wants.heat_map = [None, Some(true), Some(false)][index / 27 % 3];
        let look = Look {
            marker: marker.next().expect("it has no end"),
            is_ascii: index % 2 == 0,
            ..look(Colours::Dark)
        };
        let buffer = drawn((width, height), &look, wants, unchanged);
        if look.is_ascii && look.marker == Marker::Ascii {
            assert!(lines(&buffer).iter().all(|line| line.is_ascii()), "{width}x{height}");
        }
        assert!(lines(&buffer)[usize::from(height) - 1].contains("? help"), "{width}x{height}");
    }
}

#[test]
fn a_small_screen_says_what_it_needs() {
    for (width, height) in [(52, 10), (1, 1), (0, 0)] {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        draw_too_small(&mut buffer);
        if width == 52 {
            assert_eq!(lines(&buffer)[0].trim(), "vmstrobe top needs 60x12, this is 52x10");
        }
    }
}

#[test]
fn a_table_without_rows_says_why() {
    let filter = Some("halt_x".to_owned());
    for (state, want) in [
        (TableState::Empty, "No virtual machine can be read. vmstrobe list -v says why."),
        (TableState::NothingMatches, "Nothing matches \"halt_x\". Esc clears the filter."),
        (TableState::AllStill, "All of it stands still. z shows it."),
    ] {
        let buffer = drawn((80, 24), &look(Colours::None), LIST, |frame| {
            (frame.rows, frame.selected, frame.table_state) = (Vec::new(), None, state);
            frame.filter = filter.clone();
        });
        assert!(lines(&buffer)[2].contains(want), "{:?}", lines(&buffer)[2]);
    }
}

#[test]
fn what_cannot_be_read_is_no_zero() {
    let buffer = drawn((80, 24), &look(Colours::None), LIST, |frame| {
        let row = &mut frame.rows[2];
        row.cells.fill(Cell::Unread);
        row.cells[1] = Cell::Absent;
        row.spark.fill(None);
        row.state = Some(RowState::Io(1));
    });
    let line = lines(&buffer).remove(4);
    assert!(line.contains("cannot be read: Ope…"), "{line}");
    assert_eq!(line.matches('–').count(), 4, "{line}");
    assert!(!line[10..].contains(|c: char| c.is_ascii_digit()), "{line}");
}

#[test]
fn names_of_others_are_text() {
    let hostile = "a\x1b[2J\n\u{202e}日本\u{301}x".repeat(40);
    for wants in [LIST, OPENED, BACK] {
        for size in [(60, 12), (80, 24), (200, 60)] {
            let buffer = drawn(size, &look(Colours::Sixteen), wants, |frame| {
                for row in &mut frame.rows {
                    row.name.clone_from(&hostile);
                }
                frame.subject = Some((hostile.clone(), hostile.clone()));
                frame.filter = Some(hostile.clone());
                frame.columns.iter_mut().for_each(|column| column.title.clone_from(&hostile));
                frame.charts.iter_mut().for_each(|chart| chart.shown.title.clone_from(&hostile));
                let events = frame.charts.iter_mut().flat_map(|chart| &mut chart.events);
                events.for_each(|event| event.text.clone_from(&hostile));
                frame.ring.events.iter_mut().for_each(|event| event.text.clone_from(&hostile));
                frame.events.iter_mut().for_each(|event| event.text.clone_from(&hostile));
                for row in &mut frame.statistics {
                    row.desc.name = hostile.as_str().into();
                }
            });
            for cell in &buffer.content {
                let symbol = cell.symbol();
                assert_eq!(vmstrobe::text::printable(symbol), symbol, "{size:?}");
            }
        }
    }
}

#[test]
fn overlays_and_messages_leave_no_size_out() {
    let look = look(Colours::Sixteen);
    let chooser = super::super::chooser::Chooser::new(Vec::new(), &[]);
    for (width, height) in [(60, 12), (78, 23), (80, 24), (200, 60)] {
        for overlay in [Overlay::Help(0), Overlay::Help(99), Overlay::Columns(&chooser)] {
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
            let layout = Layout::of(buffer.area, LIST).expect("it is large enough");
            let frame = frame(&layout.request(look.marker, NAME_MIN), false);
            let (facts, name_columns) = (facts(), NAME_MIN);
            let key_line = Some(KeyLine::Message("marked 23:32:13.405"));
            let scene = Scene {
                frame: &frame,
                layout: &layout,
                look: &look,
                facts: &facts,
                name_columns,
                key_line,
                overlay: Some(overlay),
            };
            draw(&mut buffer, &scene);
            if let (Some(Overlay::Help(0)), (80, 24)) = (&scene.overlay, (width, height)) {
                check("help-80x24.txt", &buffer);
            }
        }
    }
}

#[test]
fn every_row_of_the_table_has_its_kind() {
    let buffer = drawn((200, 60), &look(Colours::None), LIST, |frame| {
        let is_vm = |row: &vmstrobe::view::Row| matches!(row.kind, RowKind::Vm { .. });
        assert_eq!(frame.rows.iter().filter(|row| is_vm(row)).count(), 3);
    });
    let lines = lines(&buffer);
    assert!(lines[2].starts_with("  ▾ demo ") && lines[3].starts_with("      1 "), "{lines:#?}");
    assert!(lines[5].starts_with("▸     2 "), "{lines:#?}");
    assert!(lines[12].contains("▸ demo3") && lines[12].contains("; Del dismisses"), "{lines:#?}");
}
