//! The background of the terminal: whether it is light or dark, as the terminal tells it.
//!
//! The question is OSC 11, and behind it one that every terminal answers (its attributes), so that
//! a terminal without an answer to the first is not waited for.
//!
//! Invariant: the answers are taken from the terminal, at most for [`WAIT_MAX`]; one that comes
//! later is left out by [`Replies`](super::keys::Replies). Nothing is asked unless the terminal
//! has all colours.

use std::env;
use std::fs::File;
use std::io::{IsTerminal, Write, stdin};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::theme::Colours;

/// The time for which an answer is waited for.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// The colour of the background, then the attributes of the terminal.
const QUESTION: &[u8] = b"\x1b]11;?\x1b\\\x1b[c";
/// The most bytes of the answers.
const ANSWER_MAX: usize = 512;

/// Returns the colours to draw with: none if the user wants none, all if the terminal has them and
/// tells its background, else 16. The terminal must give keys one by one.
pub(super) fn colours(has_colours: bool, screen: &mut impl Write) -> Colours {
    let has_all = env::var("COLORTERM").is_ok_and(|name| name == "truecolor" || name == "24bit");
    match () {
        () if !has_colours => Colours::None,
        () if !has_all => Colours::Sixteen,
        () => ask(screen).unwrap_or(Colours::Sixteen),
    }
}

fn ask(screen: &mut impl Write) -> Option<Colours> {
    screen.write_all(QUESTION).and_then(|()| screen.flush()).ok()?;
    if stdin().is_terminal() {
        return background_in(&answer(stdin().as_fd()));
    }
    let terminal = File::open("/dev/tty").ok()?;
    background_in(&answer(terminal.as_fd()))
}

/// Reads the answers, up to the end of the second.
fn answer(terminal: BorrowedFd<'_>) -> Vec<u8> {
    let (mut answer, began) = (Vec::new(), Instant::now());
    while answer.len() < ANSWER_MAX && !has_attributes(&answer) {
        let left = WAIT_MAX.saturating_sub(began.elapsed());
        let left = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
        let mut waits = [PollFd::from_borrowed_fd(terminal, PollFlags::IN)];
        if !matches!(poll(&mut waits, Some(&left)), Ok(1..)) {
            break;
        }
        let mut bytes = [0; 64];
        match rustix::io::read(terminal, &mut bytes) {
            Ok(count @ 1..) => answer.extend_from_slice(&bytes[..count]),
            _ => break,
        }
    }
    answer
}

/// Returns true if the answer has the attributes of a terminal: `ESC [ ? … c`.
fn has_attributes(answer: &[u8]) -> bool {
    let begin = answer.windows(3).position(|bytes| bytes == b"\x1b[?");
    begin.is_some_and(|begin| answer[begin..].contains(&b'c'))
}

/// Returns the background of an answer such as `ESC ] 11 ; rgb:1010/1313/1616 BEL`.
fn background_in(answer: &[u8]) -> Option<Colours> {
    let answer = String::from_utf8_lossy(answer);
    let (_, rest) = answer.split_once("]11;")?;
    let (_, channels) = rest.split_once("rgb:").or_else(|| rest.split_once("rgba:"))?;
    let end = channels.find(|c: char| !c.is_ascii_hexdigit() && c != '/');
    let channels = channels[..end.unwrap_or(channels.len())].split('/');
    let shares: Option<Vec<f64>> = channels.take(3).map(share).collect();
    let [red, green, blue] = shares?[..] else { return None };
    let brightness = 0.299 * red + 0.587 * green + 0.114 * blue;
    Some(if brightness > 0.5 { Colours::Light } else { Colours::Dark })
}

/// Returns the share of a channel of one to four hexadecimal digits.
fn share(digits: &str) -> Option<f64> {
    if !(1..=4).contains(&digits.len()) {
        return None;
    }
    let value = u32::from_str_radix(digits, 16).ok()?;
    Some(f64::from(value) / f64::from(16_u32.pow(digits.len() as u32) - 1))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_answer_is_light_or_dark() {
        for (answer, want) in [
            ("\x1b]11;rgb:1010/1313/1616\x07", Some(Colours::Dark)),
            ("\x1b]11;rgb:ffff/ffff/ffff\x1b\\\x1b[?62c", Some(Colours::Light)),
            ("\x1b]11;rgb:ff/fd/e7\x07", Some(Colours::Light)),
            ("\x1b]11;rgba:0000/2b2b/3636/ffff\x07", Some(Colours::Dark)),
            ("\x1b[?62;22c", None),
            ("\x1b]11;rgb:/1/2\x07", None),
            ("\x1b]11;rgb:11/22\x07", None),
            ("\x1b]11;rgb:12345/1/2\x07", None),
            ("\x1b]11;?\x07", None),
            ("", None),
        ] {
            assert_eq!(background_in(answer.as_bytes()), want, "{answer:?}");
        }
        assert_eq!(background_in(b"\xff]11;rgb:\xff\xff"), None);
    }

    #[test]
    fn the_answer_ends_with_the_attributes() {
        let (ours, mut terminal) = UnixStream::pair().expect("a socket can be made");
        terminal.write_all(b"\x1b]11;rgb:0/0/0\x07\x1b[?62c").expect("there is room");
        assert_eq!(background_in(&answer(ours.as_fd())), Some(Colours::Dark));
        // One that never answers is waited for no longer than that.
        assert_eq!(answer(ours.as_fd()), b"");
        drop(terminal);
        assert_eq!(answer(ours.as_fd()), b"");
    }

    #[test]
    fn nothing_is_asked_of_a_terminal_without_colours() {
        let mut sent = Vec::new();
        assert_eq!(colours(false, &mut sent), Colours::None);
        assert_eq!(sent, b"");
    }
}
