//! A line that the user types: a filter, the text of a mark, a sampling rate.
//!
//! Invariant: the text has no control characters, and at most [`TEXT_MAX`] characters.

use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// The most characters that can be typed.
const TEXT_MAX: usize = 200;

/// A line that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prompt {
    pub(super) asks: Asks,
    pub(super) text: String,
    /// The reason why the text cannot be accepted, until it is changed.
    pub(super) error: Option<String>,
}

/// The purpose of a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asks {
    /// A filter, which acts while it is typed. The one before it comes back on Esc.
    Filter { before: Option<String> },
    /// A process id.
    Process,
    /// The name of a virtual machine, likewise.
    Vm { before: Option<String> },
    /// The text of a mark at that time, in ns of `CLOCK_MONOTONIC` and in ns since 1970.
    Mark { at_ns: u64, wall_ns: u64 },
    /// A rate of sampling.
    Rate,
}

/// The result of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// The text may have changed.
    Edited,
    /// The text is to be taken.
    Accepted,
    /// Nothing is to be done.
    Cancelled,
}

impl Prompt {
    pub(super) fn new(asks: Asks) -> Self {
        Self { asks, text: String::new(), error: None }
    }

    /// Takes a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Typed {
        if key.kind == KeyEventKind::Release {
            return Typed::Edited;
        }
        let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Typed::Accepted,
            KeyCode::Esc => return Typed::Cancelled,
            KeyCode::Char('c' | 'g') if has_control => return Typed::Cancelled,
            KeyCode::Char('u') if has_control => self.text.clear(),
            KeyCode::Char('w') if has_control => {
                let rest = self.text.trim_end().trim_end_matches(|c: char| !c.is_whitespace());
                self.text.truncate(rest.len());
            }
            KeyCode::Char('h') if has_control => drop(self.text.pop()),
            KeyCode::Backspace => drop(self.text.pop()),
            KeyCode::Char(c) if !has_control => self.push(c),
            _ => return Typed::Edited,
        }
        self.error = None;
        Typed::Edited
    }

    /// Takes a text that was pasted.
    pub(super) fn paste(&mut self, text: &str) {
        text.chars().for_each(|c| self.push(c));
        self.error = None;
    }

    fn push(&mut self, c: char) {
        let is_text = vmstrobe::text::printable(c.encode_utf8(&mut [0; 4])) == c.to_string();
        if is_text && self.text.chars().count() < TEXT_MAX {
            self.text.push(c);
        }
    }

    /// Returns the question before the text.
    pub(super) fn question(&self) -> &'static str {
        match self.asks {
            Asks::Filter { .. } => "filter",
            Asks::Process => "process id",
            Asks::Vm { .. } => "virtual machine",
            Asks::Mark { .. } => "mark",
            Asks::Rate => "samples a second",
        }
    }

    /// Returns the hint behind the text.
    pub(super) fn hint(&self) -> &'static str {
        match self.asks {
            Asks::Filter { .. } => "part of a name, glob* or /regex/; Enter keeps, Esc undoes",
            Asks::Process => "Enter shows its VM alone, Esc undoes",
            Asks::Vm { .. } => "Enter keeps, Esc undoes",
            Asks::Mark { .. } => "a text or none; Enter marks, Esc undoes",
            Asks::Rate => "1000, 1k, 10kHz; Enter samples so, Esc undoes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Prompt {
        let mut prompt = Prompt::new(Asks::Filter { before: None });
        for c in text.chars() {
            let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE);
            assert_eq!(prompt.key(key), Typed::Edited);
        }
        prompt
    }

    #[test]
    fn a_line_can_be_edited() {
        let mut prompt = typed("halt in");
        prompt.error = Some("no".to_owned());
        prompt.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
        assert_eq!((&*prompt.text, &prompt.error), ("halt i", &None));
        prompt.key(KeyEvent::new(KeyCode::Char('w'), KeyModifiers::CONTROL));
        assert_eq!(prompt.text, "halt ");
        prompt.key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        assert_eq!(prompt.text, "");
        prompt.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
        for (code, want) in [(KeyCode::Enter, Typed::Accepted), (KeyCode::Esc, Typed::Cancelled)] {
            assert_eq!(prompt.key(KeyEvent::new(code, KeyModifiers::NONE)), want);
        }
    }

    #[test]
    fn a_line_is_short_and_printable() {
        assert_eq!(typed(&"x".repeat(1000)).text.len(), TEXT_MAX);
        let mut prompt = typed("a\u{202e}b");
        prompt.paste("c\r\n\x1b[2Jd");
        assert_eq!(prompt.text, "abc[2Jd");
    }

    #[test]
    fn each_question_has_a_hint() {
        for asks in [
            Asks::Filter { before: None },
            Asks::Process,
            Asks::Vm { before: None },
            Asks::Mark { at_ns: 0, wall_ns: 0 },
            Asks::Rate,
        ] {
            let prompt = Prompt::new(asks);
            assert!(!prompt.question().is_empty() && prompt.hint().contains("Esc undoes"));
        }
    }
}
