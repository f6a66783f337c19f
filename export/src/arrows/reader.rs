//! The reader of `.arrows`: one message after the other, from any [`Read`].
//!
//! Invariant: memory is asked for only as bytes arrive, up to the limits, and the item before a
//! fault is always given.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::decoder::Decoder;
use super::message::{END, Header, MARKER, Message};
use crate::batch::Batch;
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::exporter::Event;
use crate::limits::{MAX_BODY_BYTES, MAX_HEADER_BYTES};
use crate::metadata::Metadata;

/// The bytes before the header of a message.
const PREFIX_BYTES: usize = 8;

/// A part of a recording.
#[derive(Clone, Debug)]
pub enum Item {
    /// A batch.
    Batch(Batch),
    /// An event. It stands before the batch with which it was written.
    Event(Event),
}

/// The end of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The writer finished the recording.
    Finished,
    /// The recording ends behind a whole message, without the mark of its end: it is still being
    /// written, or its writer was killed.
    Unfinished,
    /// The last message is cut, or zeros stand in its place. Everything before it was read.
    Torn {
        /// The end of the last whole message. A file that is cut here is good.
        whole_bytes: u64,
        /// The bytes behind it, which were not used.
        cut_bytes: u64,
    },
    /// Bytes follow the mark of the end. They were not used, and no other reader will use them.
    Trailing {
        /// The end of the recording.
        whole_bytes: u64,
        /// The bytes behind it.
        cut_bytes: u64,
    },
    /// A message is damaged; [`ArrowsReader::next_item`] has given the error.
    Damaged {
        /// The end of the last good message.
        whole_bytes: u64,
    },
}

/// Reads an Arrow stream that [`ArrowsWriter`](crate::ArrowsWriter) wrote, also while it is
/// written.
///
/// ```no_run
/// use std::io::BufReader;
/// use vmstrobe_export::{ArrowsReader, Item};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = std::fs::File::open("run.arrows")?;
/// let mut reader = ArrowsReader::new(BufReader::new(file))?;
/// while let Some(item) = reader.next_item()? {
///     match item {
///         Item::Batch(batch) => println!("{} ticks", batch.ticks().len()),
///         Item::Event(event) => println!("{}: {}", event.kind.name(), event.text),
///     }
/// }
/// println!("{:?}", reader.end());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ArrowsReader<R> {
    source: Source<R>,
    decoder: Decoder,
    items: VecDeque<Item>,
    whole_bytes: u64,
    end: Option<End>,
    header: Vec<u8>,
    body: Vec<u8>,
}

/// Bytes that are counted.
#[derive(Debug)]
struct Source<R> {
    inner: R,
    offset: u64,
}

/// The content of a message, or the end of the stream.
enum Next {
    Message,
    Ended(End),
}

impl<R: Read> Source<R> {
    /// Reads that many bytes, or all that are left. Memory grows with what arrives.
    fn read(&mut self, bytes: usize, into: &mut Vec<u8>) -> Result<bool> {
        into.clear();
        let got = self.inner.by_ref().take(bytes as u64).read_to_end(into);
        self.offset += into.len() as u64;
        match got {
            Ok(got) => Ok(got == bytes),
            Err(source) => Err(Error::Read { offset: self.offset, source }),
        }
    }

    /// Counts the bytes that are left.
    fn skip(&mut self) -> Result<u64> {
        let skipped = io::copy(&mut self.inner, &mut io::sink());
        let skipped = skipped.map_err(|source| Error::Read { offset: self.offset, source })?;
        self.offset += skipped;
        Ok(skipped)
    }
}

impl<R: Read> ArrowsReader<R> {
    /// Reads the schema of a recording.
    ///
    /// # Errors
    /// [`Error::NotARecording`] if the bytes are something else or end within the schema,
    /// [`Error::TooLarge`] if it exceeds a limit, [`Error::Read`] if reading fails.
    pub fn new(inner: R) -> Result<Self> {
        let mut source = Source { inner, offset: 0 };
        let (mut header, mut body) = (Vec::new(), Vec::new());
        let cut = || Error::not_a_recording("it ends within its schema");
        let is_arrow = source.read(PREFIX_BYTES, &mut header)? && header.starts_with(&MARKER);
        if !is_arrow {
            return Err(Error::not_a_recording("it does not begin as an Arrow stream"));
        }
        let bytes = header_bytes(&header)?;
        if !source.read(bytes, &mut header)? {
            return Err(cut());
        }
        let message = Message::parse(&header).map_err(Error::not_a_recording)?;
        let Header::Schema(schema) = message.header else {
            return Err(Error::not_a_recording("its first message is no schema"));
        };
        let decoder = Decoder::new(schema, header.len())?;
        let bytes = body_bytes(message.body_bytes, 0)?;
        if !source.read(bytes, &mut body)? {
            return Err(cut());
        }
        let whole_bytes = source.offset;
        Ok(Self { source, decoder, items: VecDeque::new(), whole_bytes, end: None, header, body })
    }

    /// Returns the circumstances of the recording.
    pub fn metadata(&self) -> &Metadata {
        &self.decoder.metadata
    }

    /// Returns the columns of the recording.
    pub fn columns(&self) -> &Columns {
        self.decoder.columns()
    }

    /// Returns the end of the recording, once it was reached.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Returns the end of the last message that was read and found good.
    pub fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    /// Returns the next item; `None` at the end, which [`ArrowsReader::end`] describes. A torn tail
    /// is an end and no error.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::TooLarge`] for a message that is not as the format says,
    /// [`Error::Read`] if reading fails. There are no items behind it.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            match self.next_message() {
                Ok(Next::Message) => self.whole_bytes = self.source.offset,
                Ok(Next::Ended(end)) => self.end = Some(end),
                Err(error) => {
                    self.end = Some(End::Damaged { whole_bytes: self.whole_bytes });
                    return Err(error);
                }
            }
        }
    }

    fn next_message(&mut self) -> Result<Next> {
        let start = self.source.offset;
        let is_whole = self.source.read(PREFIX_BYTES, &mut self.header)?;
        if self.header.is_empty() {
            return Ok(Next::Ended(End::Unfinished));
        }
        if !is_whole {
            return self.torn();
        }
        if self.header == END {
            let whole_bytes = self.source.offset;
            self.whole_bytes = whole_bytes;
            return Ok(Next::Ended(match self.source.skip()? {
                0 => End::Finished,
                cut_bytes => End::Trailing { whole_bytes, cut_bytes },
            }));
        }
        if !self.header.starts_with(&MARKER) {
            // A crashed host leaves zeros where a file grew and its bytes did not reach the disk.
            let is_zero = self.header.iter().all(|&byte| byte == 0);
            return if is_zero {
                self.torn()
            } else {
                Err(Error::damaged(start, "it does not begin as a message"))
            };
        }
        let bytes = header_bytes(&self.header)?;
        if !self.source.read(bytes, &mut self.header)? {
            return self.torn();
        }
        let message = Message::parse(&self.header);
        let message = message.map_err(|reason| Error::damaged(start, reason))?;
        let bytes = body_bytes(message.body_bytes, start)?;
        if !self.source.read(bytes, &mut self.body)? {
            return self.torn();
        }
        let decoded = self.decoder.message(message, &self.body, start)?;
        self.items.extend(decoded.events.into_iter().map(Item::Event));
        self.items.extend(decoded.batch.map(Item::Batch));
        Ok(Next::Message)
    }

    fn torn(&mut self) -> Result<Next> {
        self.source.skip()?;
        let whole_bytes = self.whole_bytes;
        let cut_bytes = self.source.offset - whole_bytes;
        Ok(Next::Ended(End::Torn { whole_bytes, cut_bytes }))
    }
}

/// Returns the length of a header.
fn header_bytes(prefix: &[u8]) -> Result<usize> {
    let length = prefix.last_chunk().expect("a prefix was read whole");
    let bytes = u32::from_le_bytes(*length) as usize;
    Error::check("the number of bytes of a header", bytes, MAX_HEADER_BYTES)?;
    Ok(bytes)
}

/// Returns the length of the body of the message at that offset.
fn body_bytes(bytes: i64, offset: u64) -> Result<usize> {
    let negative = |_| Error::damaged(offset, "the length of its body is negative");
    let bytes = usize::try_from(bytes).map_err(negative)?;
    Error::check("the number of bytes of a body", bytes, MAX_BODY_BYTES)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
