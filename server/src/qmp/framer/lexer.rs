//! Splits a stream into JSON tokens, as far as is needed to find the end of each text.
//!
//! A byte that no token can have at its position is stray. The brackets that were open are
//! forgotten, and the bytes up to the next of `[]{}:,` or the next control byte are skipped. So a
//! client can return to a known state by sending a control byte such as 0x01, or 0xFF, and gets one
//! error for it.
//!
//! Invariant: a text ends where it ends for QEMU 10.0 (`qobject/json-lexer.c`, `json-streamer.c`).
//! The state takes a few words, whatever is sent.

/// The deepest nesting of lists and objects, as in QEMU.
pub(in crate::qmp) const MAX_NESTING: usize = 1024;

/// The state of the lexer between two bytes of the stream.
#[derive(Debug, Default)]
pub(super) struct Lexer {
    state: State,
    /// The numbers of open `{` and `[`, counted separately as in QEMU.
    braces: usize,
    brackets: usize,
}

/// The reason why the lexer stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// No bytes are left.
    Drained,
    /// The text ends here.
    Balanced,
    /// The last bracket exceeds the nesting limit. The lexer can continue.
    TooDeep,
    /// The last byte is stray.
    Stray(u8),
}

/// The position in a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between tokens.
    #[default]
    Between,
    /// In a string that ends with this quote.
    String(u8),
    /// In a string that ends with this quote, behind a backslash.
    Escape(u8),
    Scalar(Scalar),
    /// Behind a stray byte.
    Recovery,
}

/// The position in a number or a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    Word,
    Minus,
    /// Behind a leading 0, after which neither a digit nor an exponent may follow.
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// The role of a byte after the beginning of a number or a word: part of it, behind it, or stray.
enum Step {
    Part(Scalar),
    Next,
    Stray,
}

impl Lexer {
    /// Returns whether no text has begun.
    pub(super) fn is_between_texts(&self) -> bool {
        matches!(self.state, State::Between | State::Recovery) && !self.is_open()
    }

    /// Returns how many bytes at the begin of `bytes` belong to no text: white space, and bytes
    /// that are skipped after a stray byte.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> usize {
        let mut skipped = 0;
        if self.state == State::Recovery {
            let end = bytes.iter().position(|byte| is_resync(*byte));
            let Some(end) = end else { return bytes.len() };
            self.state = State::Between;
            skipped = end;
        }
        let begin = bytes[skipped..].iter().position(|byte| !is_white(*byte));
        begin.map_or(bytes.len(), |begin| skipped + begin)
    }

    /// Examines `bytes` up to the first reason to stop. Returns the number of examined bytes and
    /// the reason.
    pub(super) fn look(&mut self, bytes: &[u8]) -> (usize, Stop) {
        let mut at = 0;
        while at < bytes.len() {
            let stop = match self.state {
                State::Between => {
                    at += 1;
                    self.begin(bytes[at - 1])
                }
                State::String(quote) => {
                    let run = bytes[at..].iter().position(|byte| ENDS_RUN[usize::from(*byte)]);
                    let Some(run) = run else { return (bytes.len(), Stop::Drained) };
                    at += run + 1;
                    self.in_string(quote, bytes[at - 1])
                }
                State::Escape(quote) => {
                    self.state = State::String(quote);
                    at += 1;
                    is_forbidden(bytes[at - 1]).then_some(Stop::Stray(bytes[at - 1]))
                }
                State::Scalar(scalar) => match scalar.step(bytes[at]) {
                    Step::Next => self.end_token(),
                    Step::Part(scalar) => {
                        self.state = State::Scalar(scalar);
                        at += 1;
                        None
                    }
                    Step::Stray => {
                        at += 1;
                        Some(Stop::Stray(bytes[at - 1]))
                    }
                },
                State::Recovery => {
                    at += self.skip(&bytes[at..]);
                    None
                }
            };
            if let Some(stop) = stop {
                if let Stop::Stray(_) = stop {
                    *self = Self { state: State::Recovery, ..Self::default() };
                }
                return (at, stop);
            }
        }
        (at, Stop::Drained)
    }

    /// Takes a byte between tokens.
    fn begin(&mut self, byte: u8) -> Option<Stop> {
        self.state = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => return None,
            b'"' | b'\'' => State::String(byte),
            b'a'..=b'z' => State::Scalar(Scalar::Word),
            b'-' => State::Scalar(Scalar::Minus),
            b'0' => State::Scalar(Scalar::Zero),
            b'1'..=b'9' => State::Scalar(Scalar::Digits),
            b':' | b',' => return self.end_token(),
            b'{' => return self.open(|lexer| &mut lexer.braces),
            b'[' => return self.open(|lexer| &mut lexer.brackets),
            b'}' => return self.close(|lexer| &mut lexer.braces),
            b']' => return self.close(|lexer| &mut lexer.brackets),
            _ => return Some(Stop::Stray(byte)),
        };
        None
    }

    /// Takes a byte that ends a run of ordinary bytes in a string.
    fn in_string(&mut self, quote: u8, byte: u8) -> Option<Stop> {
        match byte {
            b'\\' => self.state = State::Escape(quote),
            byte if byte == quote => return self.end_token(),
            b'"' | b'\'' => {}
            byte => return Some(Stop::Stray(byte)),
        }
        None
    }

    fn open(&mut self, kind: fn(&mut Self) -> &mut usize) -> Option<Stop> {
        *kind(self) += 1;
        (self.braces + self.brackets == MAX_NESTING + 1).then_some(Stop::TooDeep)
    }

    /// A closing bracket without an opening one of its kind ends the text, whatever else is open.
    fn close(&mut self, kind: fn(&mut Self) -> &mut usize) -> Option<Stop> {
        match kind(self).checked_sub(1) {
            Some(left) => *kind(self) = left,
            None => (self.braces, self.brackets) = (0, 0),
        }
        self.end_token()
    }

    fn end_token(&mut self) -> Option<Stop> {
        self.state = State::Between;
        (!self.is_open()).then_some(Stop::Balanced)
    }

    fn is_open(&self) -> bool {
        self.braces + self.brackets > 0
    }
}

impl Scalar {
    fn step(self, byte: u8) -> Step {
        let part = match (self, byte) {
            (Self::Word, b'a'..=b'z') => Self::Word,
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus | Self::Digits, b'0'..=b'9') => Self::Digits,
            (Self::Zero | Self::Digits, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Digits | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Self::ExponentDigits
            }
            (Self::Zero, b'0'..=b'9') => return Step::Stray,
            (Self::Minus | Self::Point | Self::Exponent | Self::ExponentSign, _) => {
                return Step::Stray;
            }
            _ => return Step::Next,
        };
        Step::Part(part)
    }
}

/// Returns whether the byte is one that no string may contain.
const fn is_forbidden(byte: u8) -> bool {
    matches!(byte, 0x00..=0x1F | 0xFE | 0xFF)
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Returns whether the lexer resumes at this byte after a stray one.
fn is_resync(byte: u8) -> bool {
    matches!(byte, b'[' | b']' | b'{' | b'}' | b':' | b',') || (is_forbidden(byte) && byte != b'\t')
}

/// A table of the bytes that end a run of ordinary bytes in a string.
const ENDS_RUN: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < ends.len() {
        ends[byte] = is_forbidden(byte as u8) || matches!(byte as u8, b'"' | b'\'' | b'\\');
        byte += 1;
    }
    ends
};
