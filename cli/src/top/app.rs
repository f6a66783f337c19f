//! The state of the screen beside the view, and the effect of each key.
//!
//! Invariant: nothing here draws or reads keys; so that what a key does can be tested without a
//! terminal. A key never fails: what could not be done is a message.

use std::time::{Duration, Instant};

use ratatui_core::layout::Rect;
use ratatui_crossterm::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind};
use vmstrobe::view::{Action, Frame, Moment, Request, RowKind, TimeStep, View};

use super::chooser::Chooser;
use super::feed::Feed;
use super::job;
use super::keep::{self, Dumper};
use super::key_line::KeyLine;
use super::keys::{Command, Replies, command};
use super::layout::{Layout, Wants};
use super::look::{Facts, Look};
use super::overlay::{Overlay, has_room_for_all, lines_of_help};
use super::prompt::{Asks, Prompt, Typed};
use super::screen::Scene;
use super::table::{NAME_MAX, NAME_MIN, SIGNS};
use crate::args::parse_rate;
use crate::text::hertz;
use crate::width::{shorten, width};

/// The time for which a message is shown.
const MESSAGE_TIME: Duration = Duration::from_secs(3);
/// The most columns of the table that a user may have chosen.
const COLUMNS_MAX: usize = 64;
/// The times that a layout is made again because its frame calls for another.
const LAYOUTS_MAX: usize = 3;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct App {
    pub(super) view: View,
    pub(super) feed: Feed,
    pub(super) look: Look,
    pub(super) facts: Facts,
    /// The members, by process id and name.
    pub(super) members: Vec<(u32, String)>,
    pub(super) dumper: Dumper,
    pub(super) wants: Wants,
    name_columns: u16,
    mode: Mode,
    message: Option<(String, Instant)>,
    replies: Replies,
    /// The rows of the table, by which PgUp and PgDn move.
    page_rows: usize,
    screen: Rect,
    /// The frame that was drawn last, and its layout.
    drawn: Option<(Frame, Layout)>,
    pub(super) is_over: bool,
    /// True if all of the screen must be drawn again.
    pub(super) must_redraw: bool,
}

/// The receiver of the keys.
#[derive(Debug)]
enum Mode {
    Screen,
    Help(usize),
    Columns(Chooser),
    Prompt(Prompt),
}

impl App {
    pub(super) fn new(view: View, feed: Feed, look: Look, facts: Facts) -> Self {
        Self {
            view,
            feed,
            look,
            facts,
            members: Vec::new(),
            dumper: Dumper::default(),
            wants: Wants::default(),
            name_columns: NAME_MIN,
            mode: Mode::Screen,
            message: None,
            replies: Replies::default(),
            page_rows: 1,
            screen: Rect::default(),
            drawn: None,
            is_over: false,
            must_redraw: false,
        }
    }

    /// Takes an event of the terminal.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Key(key) if !self.replies.contains(*key) => self.key(*key),
            Event::Paste(text) => {
                if let Mode::Prompt(prompt) = &mut self.mode {
                    prompt.paste(text);
                    self.filter_as_typed();
                }
            }
            _ => {}
        }
    }

    fn key(&mut self, key: KeyEvent) {
        match &mut self.mode {
            Mode::Screen => {
                if let Some(command) = command(key) {
                    self.run(command);
                }
            }
            Mode::Help(first) => {
                let last = lines_of_help().saturating_sub(usize::from(self.screen.height) - 2);
                let is_whole = has_room_for_all(self.screen);
                match key.code {
                    _ if key.kind == KeyEventKind::Release => {}
                    KeyCode::Down if !is_whole => *first = (*first + 1).min(last),
                    KeyCode::Up if !is_whole => *first = first.saturating_sub(1),
                    _ => self.mode = Mode::Screen,
                }
            }
            Mode::Columns(chooser) => match chooser.key(key) {
                Typed::Edited => {}
                Typed::Accepted => {
                    let columns = chooser.shown();
                    self.mode = Mode::Screen;
                    self.view.act(Action::Columns(columns));
                }
                Typed::Cancelled => self.mode = Mode::Screen,
            },
            Mode::Prompt(prompt) => match prompt.key(key) {
                Typed::Edited => self.filter_as_typed(),
                Typed::Accepted => self.accept(),
                Typed::Cancelled => self.cancel(),
            },
        }
    }

    fn run(&mut self, command: Command) {
        match command {
            Command::Act(action) => self.act(action),
            Command::Page(pages) => {
                let rows = i32::try_from(self.page_rows).unwrap_or(i32::MAX);
                self.view.act(Action::Move(pages.saturating_mul(rows)));
            }
            Command::Filter => self.ask_for_filter(|before| Asks::Filter { before }),
            Command::ClearFilter => self.view.act(Action::Filter(None)),
            Command::FilterByProcess => self.ask(Asks::Process),
            Command::FilterByVm => self.ask_for_filter(|before| Asks::Vm { before }),
            Command::Mark => {
                let moment = self.drawn.as_ref().map(|(frame, _)| keep::moment_of(frame));
                let (at_ns, wall_ns) = moment.unwrap_or_default();
                self.ask(Asks::Mark { at_ns, wall_ns });
            }
            Command::Dump => {
                let said = self.dumper.start(&mut self.view);
                said.into_iter().for_each(|text| self.say(text));
            }
            Command::Rate => self.ask(Asks::Rate),
            Command::ChooseColumns => {
                let request = Request { table_columns: COLUMNS_MAX, ..Request::default() };
                let frame = self.view.frame(&request);
                let shown = frame.columns.into_iter().map(|column| column.kind).collect();
                self.mode = Mode::Columns(Chooser::new(shown, &self.feed.descs()));
            }
            Command::ToggleHistogram => {
                let is_shown = self.drawn.as_ref().is_some_and(|(_, at)| !at.histogram.is_empty());
                self.wants.histogram = Some(!is_shown);
            }
            Command::ToggleHeatMap => {
                let is_shown = self.drawn.as_ref().is_some_and(|(_, at)| !at.heat_map.is_empty());
                self.wants.heat_map = Some(!is_shown);
            }
            Command::Help => self.mode = Mode::Help(0),
            Command::Redraw => self.must_redraw = true,
            Command::Suspend => job::ask_to_stop(),
            Command::Quit => self.is_over = true,
        }
    }

    /// Changes the view, and notes whether it is paused rather than sent back.
    fn act(&mut self, action: Action) {
        match action {
            Action::Pause => self.facts.is_paused = !self.is_back(),
            Action::Time(_) => self.facts.is_paused = false,
            Action::Dismiss if !self.has_ended_vm() => {
                self.say("no virtual machine has ended".to_owned());
            }
            Action::SetBaseline => self.say("d shows the changes from now on".to_owned()),
            _ => {}
        }
        let is_event_step =
            matches!(action, Action::Time(TimeStep::NextEvent | TimeStep::PreviousEvent));
        if is_event_step
            && self.drawn.as_ref().is_some_and(|(frame, _)| frame.ring.events.is_empty())
        {
            self.say("there are no marks or triggers; m marks a moment".to_owned());
        }
        self.view.act(action);
    }

    fn is_back(&self) -> bool {
        let moment = self.drawn.as_ref().map(|(frame, _)| frame.moment);
        matches!(moment, Some(Moment::Back { is_playing: false, .. }))
    }

    fn has_ended_vm(&self) -> bool {
        self.drawn.as_ref().is_some_and(|(frame, _)| frame.header.vms_ended > 0)
    }

    /// Asks for a filter. The one that acts may be younger than the last screen.
    fn ask_for_filter(&mut self, asks: impl FnOnce(Option<String>) -> Asks) {
        let before = self.view.frame(&Request::default()).filter;
        self.ask(asks(before));
    }

    fn ask(&mut self, asks: Asks) {
        self.mode = Mode::Prompt(Prompt::new(asks));
    }

    /// Has a filter act while it is typed.
    fn filter_as_typed(&mut self) {
        let Mode::Prompt(prompt) = &self.mode else { return };
        if matches!(prompt.asks, Asks::Filter { .. } | Asks::Vm { .. }) {
            let text = Some(prompt.text.clone()).filter(|text| !text.is_empty());
            self.view.act(Action::Filter(text));
        }
    }

    /// Takes the line that was typed.
    fn accept(&mut self) {
        let Mode::Prompt(mut prompt) = std::mem::replace(&mut self.mode, Mode::Screen) else {
            return;
        };
        let done = match &prompt.asks {
            Asks::Filter { .. } | Asks::Vm { .. } => Ok(None),
            Asks::Process => self.filter_by_process(&prompt.text).map(|()| None),
            Asks::Mark { at_ns, wall_ns } => {
                Ok(Some(keep::mark(&mut self.view, (*at_ns, *wall_ns), &prompt.text)))
            }
            Asks::Rate => self.change_rate(&prompt.text).map(Some),
        };
        match done {
            Ok(said) => said.into_iter().for_each(|text| self.say(text)),
            Err(error) => {
                prompt.error = Some(error);
                self.mode = Mode::Prompt(prompt);
            }
        }
    }

    fn cancel(&mut self) {
        let Mode::Prompt(prompt) = std::mem::replace(&mut self.mode, Mode::Screen) else { return };
        if let Asks::Filter { before } | Asks::Vm { before } = prompt.asks {
            self.view.act(Action::Filter(before));
        }
    }

    /// Shows the virtual machine of a process alone.
    fn filter_by_process(&mut self, text: &str) -> Result<(), String> {
        let pid: u32 = text.trim().parse().map_err(|_| "it is not a process id".to_owned())?;
        let member = self.members.iter().find(|(of, _)| *of == pid);
        let (_, name) = member.ok_or_else(|| format!("process {pid} is not read"))?;
        self.view.act(Action::Filter(Some(exactly(name))));
        Ok(())
    }

    fn change_rate(&mut self, text: &str) -> Result<String, String> {
        let rate_hz = parse_rate(text)?;
        self.feed.set_rate(rate_hz)?;
        Ok(format!("sampling at {} from now on", hertz(rate_hz)))
    }

    /// Shows what has happened since the last call.
    pub(super) fn tell(&mut self) {
        let news = self.feed.news().into_iter().chain(self.dumper.poll());
        news.collect::<Vec<_>>().into_iter().for_each(|text| self.say(text));
    }

    /// Shows a message for some seconds.
    pub(super) fn say(&mut self, text: String) {
        self.message = Some((text, Instant::now()));
    }

    /// Prepares the next screen of that size. Returns false if it is too small.
    pub(super) fn prepare(&mut self, screen: Rect) -> bool {
        self.screen = screen;
        for _ in 0..LAYOUTS_MAX {
            let Some(layout) = Layout::of(screen, self.wants) else {
                self.drawn = None;
                return false;
            };
            let request = layout.request(self.look.marker, self.name_columns);
            let frame = self.view.frame(&request);
            let wants = self.wants.of(&frame);
            let name_columns = self.name_columns.max(name_columns(&frame));
            let is_settled = (wants, name_columns) == (self.wants, self.name_columns);
            (self.wants, self.name_columns) = (wants, name_columns);
            self.page_rows = request.table_rows.max(2) - 1;
            self.drawn = Some((frame, layout));
            if is_settled {
                break;
            }
        }
        true
    }

    /// Returns the screen that was prepared.
    pub(super) fn scene(&self) -> Option<Scene<'_>> {
        let (frame, layout) = self.drawn.as_ref()?;
        let message = self.message.as_ref().filter(|(_, since)| since.elapsed() < MESSAGE_TIME);
        let key_line = match (&self.mode, message) {
            (Mode::Prompt(prompt), _) => Some(KeyLine::Prompt(prompt)),
            (_, Some((text, _))) => Some(KeyLine::Message(text)),
            _ => None,
        };
        let overlay = match &self.mode {
            Mode::Help(first) => Some(Overlay::Help(*first)),
            Mode::Columns(chooser) => Some(Overlay::Columns(chooser)),
            _ => None,
        };
        let (look, facts, name_columns) = (&self.look, &self.facts, self.name_columns);
        Some(Scene { frame, layout, look, facts, name_columns, key_line, overlay })
    }
}

/// Returns a filter for a name and no other: a regular expression if the name can stand in one.
fn exactly(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_. ".contains(c);
    if name.chars().all(is_plain) {
        format!("/^{}$/", name.replace('.', "\\."))
    } else {
        name.to_owned()
    }
}

/// Returns the columns that the names of a frame take.
fn name_columns(frame: &Frame) -> u16 {
    let of = |row: &vmstrobe::view::Row| match row.kind {
        RowKind::Vm { .. } | RowKind::Object => width(&shorten(&row.name, usize::from(NAME_MAX))),
    };
    let longest = frame.rows.iter().map(of).max().unwrap_or(0);
    let columns = u16::try_from(longest).unwrap_or(NAME_MAX) + SIGNS + 1;
    columns.clamp(NAME_MIN, NAME_MAX)
}

#[cfg(test)]
mod tests {
    use ratatui_crossterm::crossterm::event::KeyModifiers;
    use vmstrobe::view::ViewOptions;
    use vmstrobe::{Attachment, Registry};

    use super::super::theme::{Colours, Theme};
    use super::*;
    use crate::args::Marker;

    /// Returns a screen of the sampler's own statistics, which need no virtual machine.
    fn app() -> App {
        let attachment = Attachment::of(Registry::default()).with_own_statistics();
        let session = attachment.sample("sampler: *", 100.0).expect("there are threads");
        let mut view = View::new(ViewOptions::default());
        view.take(session.first()).expect("it is small");
        let theme = Theme::of(Colours::None);
        let look = Look { theme, marker: Marker::Braille, is_ascii: false };
        let mut app = App::new(view, Feed::Session(Box::new(session)), look, Facts::default());
        app.members = vec![(4711, "web.1".to_owned()), (4712, "a/b".to_owned())];
        assert!(app.prepare(Rect::new(0, 0, 80, 24)));
        app
    }

    fn press(app: &mut App, keys: &str) {
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                c => KeyCode::Char(c),
            };
            app.event(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        }
        app.prepare(Rect::new(0, 0, 80, 24));
    }

    fn filter(app: &mut App) -> Option<String> {
        app.view.frame(&Request::default()).filter
    }

    fn message(app: &App) -> &str {
        app.message.as_ref().map_or("", |(text, _)| text)
    }

    fn error(app: &App) -> Option<&str> {
        match &app.mode {
            Mode::Prompt(prompt) => prompt.error.as_deref(),
            _ => None,
        }
    }

    #[test]
    fn a_filter_acts_while_it_is_typed_and_is_undone() {
        let mut app = app();
        press(&mut app, "/no\n/where");
        assert_eq!(filter(&mut app).as_deref(), Some("where"));
        press(&mut app, "\x1b");
        assert_eq!(filter(&mut app).as_deref(), Some("no"));
        app.event(&Event::Paste("pasted text is no keys".to_owned()));
        assert!(!app.is_over);
        press(&mut app, "c");
        assert_eq!(filter(&mut app), None);
    }

    #[test]
    fn a_process_is_one_that_is_read() {
        let mut app = app();
        press(&mut app, "pq\n");
        assert_eq!(error(&app), Some("it is not a process id"));
        press(&mut app, "\x1bp7\n");
        assert_eq!(error(&app), Some("process 7 is not read"));
        press(&mut app, "\x1bp4711\n");
        assert_eq!((filter(&mut app).as_deref(), error(&app)), (Some("/^web\\.1$/"), None));
        press(&mut app, "p4712\n");
        assert_eq!(filter(&mut app).as_deref(), Some("a/b"));
    }

    #[test]
    fn what_cannot_be_done_is_a_message() {
        let mut app = app();
        press(&mut app, "n");
        assert_eq!(message(&app), "there are no marks or triggers; m marks a moment");
        press(&mut app, "s0\n");
        assert!(error(&app).is_some_and(|error| error.contains("cannot be sampled")));
        press(&mut app, "\x1bs50\n");
        assert_eq!(message(&app), "sampling at 50 Hz from now on");
        press(&mut app, "mx\n");
        assert!(message(&app).starts_with("marked "), "{}", message(&app));
        app.event(&Event::Key(KeyEvent::new(KeyCode::Delete, KeyModifiers::NONE)));
        assert_eq!(message(&app), "no virtual machine has ended");
        press(&mut app, "??q");
        assert!(app.is_over);
    }

    #[test]
    fn a_screen_that_is_too_small_has_no_scene() {
        let mut app = app();
        assert!(app.scene().is_some());
        assert!(!app.prepare(Rect::new(0, 0, 59, 24)) && app.scene().is_none());
        press(&mut app, "hthtxx");
        assert!(app.scene().is_some());
    }
}
