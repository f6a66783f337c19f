//! The keys of the screen, and the commands that they stand for.
//!
//! Invariant: each key of the help has a command here, and each command has its key in the help.

use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use vmstrobe::view::{Action, TimeStep};

/// The time of an arrow key, and with Shift, in ns.
const STEP_NS: i64 = 100_000_000;
const LARGE_STEP_NS: i64 = 1_000_000_000;

/// A command of the user.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    /// A change of what is shown.
    Act(Action),
    /// Moves the selection by so many screens.
    Page(i32),
    /// Asks for a filter.
    Filter,
    ClearFilter,
    /// Asks for a process, of which alone the virtual machine is shown.
    FilterByProcess,
    /// Asks for a virtual machine.
    FilterByVm,
    /// Asks for the text of a mark.
    Mark,
    /// Writes the last samples to a file.
    Dump,
    /// Asks for another sampling rate.
    Rate,
    ChooseColumns,
    ToggleHistogram,
    ToggleHeatMap,
    Help,
    /// Draws the whole screen again.
    Redraw,
    /// Stops this process, as Ctrl-Z does to others.
    Suspend,
    Quit,
}

/// Returns the command of a key.
pub(super) fn command(key: KeyEvent) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return with_control(key.code);
    }
    let time = |step| Some(Command::Act(Action::Time(step)));
    let step = if key.modifiers.contains(KeyModifiers::SHIFT) { LARGE_STEP_NS } else { STEP_NS };
    match key.code {
        KeyCode::Left => time(TimeStep::By(-step)),
        KeyCode::Right => time(TimeStep::By(step)),
        KeyCode::Char(',') => time(TimeStep::Samples(-1)),
        KeyCode::Char('.') => time(TimeStep::Samples(1)),
        KeyCode::Home => time(TimeStep::Oldest),
        KeyCode::End => time(TimeStep::Newest),
        KeyCode::Char('n') => time(TimeStep::NextEvent),
        KeyCode::Char('N') => time(TimeStep::PreviousEvent),
        KeyCode::Up => Some(Command::Act(Action::Move(-1))),
        KeyCode::Down => Some(Command::Act(Action::Move(1))),
        KeyCode::PageUp => Some(Command::Page(-1)),
        KeyCode::PageDown => Some(Command::Page(1)),
        KeyCode::Tab => Some(Command::Act(Action::NextPane)),
        KeyCode::Enter => Some(Command::Act(Action::Open)),
        KeyCode::Esc => Some(Command::Act(Action::Close)),
        KeyCode::Delete => Some(Command::Act(Action::Dismiss)),
        KeyCode::Char(c) => of_character(c),
        _ => None,
    }
}

fn of_character(c: char) -> Option<Command> {
    Some(match c {
        ' ' => Command::Act(Action::Pause),
        '+' | '=' => Command::Act(Action::ZoomIn),
        '-' => Command::Act(Action::ZoomOut),
        '1'..='9' => Command::Act(Action::Sort(c as usize - '1' as usize)),
        'x' => Command::Act(Action::ToggleSummed),
        'd' => Command::Act(Action::NextAmounts),
        'r' => Command::Act(Action::SetBaseline),
        'z' => Command::Act(Action::ToggleStill),
        'u' => Command::Act(Action::ToggleExact),
        '/' => Command::Filter,
        'c' => Command::ClearFilter,
        'p' => Command::FilterByProcess,
        'g' => Command::FilterByVm,
        'm' => Command::Mark,
        'D' => Command::Dump,
        's' => Command::Rate,
        'f' => Command::ChooseColumns,
        'h' => Command::ToggleHistogram,
        't' => Command::ToggleHeatMap,
        '?' => Command::Help,
        'q' => Command::Quit,
        _ => return None,
    })
}

fn with_control(code: KeyCode) -> Option<Command> {
    match code {
        // The terminal sends no signal for these while keys are read one by one.
        KeyCode::Char('c') => Some(Command::Quit),
        KeyCode::Char('z') => Some(Command::Suspend),
        KeyCode::Char('l') => Some(Command::Redraw),
        _ => None,
    }
}

/// A filter of keys that leaves out what a terminal answers late to a question about its colours:
/// an operating system command, from ESC ] to BEL or ESC \.
#[derive(Debug, Default)]
pub(super) struct Replies {
    is_inside: bool,
    left: usize,
}

/// The most characters of a reply. A user who types ESC ] gets the keyboard back behind them.
const REPLY_MAX: usize = 64;

impl Replies {
    /// Returns true if the key is a part of a reply.
    pub(super) fn contains(&mut self, key: KeyEvent) -> bool {
        let is_alt = key.modifiers.contains(KeyModifiers::ALT);
        if !self.is_inside {
            self.is_inside = is_alt && key.code == KeyCode::Char(']');
            self.left = REPLY_MAX;
            return self.is_inside;
        }
        let is_bell =
            key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('g');
        let is_end = is_bell || is_alt && key.code == KeyCode::Char('\\');
        self.left -= 1;
        self.is_inside = !is_end && self.left > 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    fn plain(code: KeyCode) -> Option<Command> {
        command(key(code, KeyModifiers::NONE))
    }

    #[test]
    fn arrows_go_through_time_and_shift_makes_them_larger() {
        let by = |ns| Some(Command::Act(Action::Time(TimeStep::By(ns))));
        assert_eq!(plain(KeyCode::Left), by(-STEP_NS));
        assert_eq!(plain(KeyCode::Right), by(STEP_NS));
        assert_eq!(command(key(KeyCode::Left, KeyModifiers::SHIFT)), by(-LARGE_STEP_NS));
    }

    #[test]
    fn digits_sort_by_the_column_of_their_place() {
        for (c, place) in [('1', 0), ('9', 8)] {
            assert_eq!(plain(KeyCode::Char(c)), Some(Command::Act(Action::Sort(place))));
        }
        assert_eq!(plain(KeyCode::Char('0')), None);
    }

    #[test]
    fn keys_with_control_are_others() {
        let control = |c| command(key(KeyCode::Char(c), KeyModifiers::CONTROL));
        assert_eq!(control('c'), Some(Command::Quit));
        assert_eq!(control('z'), Some(Command::Suspend));
        assert_eq!(control('r'), None);
        assert_eq!(plain(KeyCode::Char('c')), Some(Command::ClearFilter));
        let released =
            KeyEvent { kind: KeyEventKind::Release, ..key(KeyCode::Char('q'), KeyModifiers::NONE) };
        assert_eq!(command(released), None);
    }

    #[test]
    fn a_late_reply_of_the_terminal_is_no_keys() {
        let typed = |c| key(KeyCode::Char(c), KeyModifiers::NONE);
        let mut reply = vec![key(KeyCode::Char(']'), KeyModifiers::ALT)];
        reply.extend("11;rgb:1010/1313/1616".chars().map(typed));
        for end in [
            key(KeyCode::Char('\\'), KeyModifiers::ALT),
            key(KeyCode::Char('g'), KeyModifiers::CONTROL),
        ] {
            let mut replies = Replies::default();
            assert!(!replies.contains(typed('1')));
            assert!(reply.iter().chain([&end]).all(|key| replies.contains(*key)));
            assert!(!replies.contains(typed('1')));
        }
        // Whatever never ends is no reply.
        let mut replies = Replies::default();
        assert!(replies.contains(reply[0]));
        assert_eq!((0..1000).filter(|_| replies.contains(typed('q'))).count(), REPLY_MAX);
    }
}
