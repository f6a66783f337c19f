//! The conversation of one connection without its socket: bytes in, replies and events out.
//!
//! Invariant: each text gets one reply, in order; a malformed text gets an error. Of a request,
//! only its query and its subscription are kept.

use std::sync::Arc;
use std::time::Instant;

use vmstrobe_core::json;

use super::budget::{LARGE_TEXT_BYTES, Lease, PATIENCE};
use super::cost::json_bytes;
use super::envelope::{self, Request, Unfit};
use super::framer::{Framer, Piece};
use super::members::{Members, bad_enum, bad_type};
use super::parse::parse;
use super::query::Queries;
use super::refusal::Refusal;
use super::room::{RequestRoom, Room};
use super::shared::Shared;
use super::stream::Streams;
use super::value::{Dict, Value};
use super::{hmp, introspect, schemas, version};

/// The result of a command, or the reason why it is refused.
type Answer<T> = std::result::Result<T, Refusal>;

/// The most memory that an id takes. It is written twice, and its text may be longer.
const MAX_ID_BYTES: usize = 128 << 10;
/// The most bytes that a byte of a request has when it is echoed, as in `\u007F`.
const ECHO_BYTES: usize = 6;
/// The most bytes of a reply beside its return value and its id.
const FRAME_BYTES: usize = 128;
/// The end of a line.
const LINE_END: &[u8] = b"\r\n";

/// The server's side of one conversation.
#[derive(Debug)]
pub(super) struct Session {
    framer: Framer,
    long_request: RequestRoom,
    state: State,
}

#[derive(Debug)]
struct State {
    shared: Arc<Shared>,
    mode: Mode,
    queries: Queries,
    streams: Streams,
    room: Room,
}

/// The stage of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The client was greeted and has not negotiated capabilities.
    Negotiation,
    /// Commands are accepted; with `oob`, also `exec-oob`.
    Command { oob: bool },
}

impl Session {
    /// Makes a conversation that has not begun.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (mode, queries, streams) = (Mode::Negotiation, Queries::default(), Streams::default());
        let room = Room::new(&shared.budget.pools().reply_bytes);
        let state = State { shared, mode, queries, streams, room };
        Self { framer: Framer::default(), long_request: RequestRoom::default(), state }
    }

    /// Appends the greeting.
    pub(super) fn greet(&self, out: &mut Vec<u8>) {
        version::write_greeting(out);
        out.extend_from_slice(LINE_END);
    }

    /// Takes bytes that the client has sent.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// Makes room for more bytes. For a long request, it waits until few enough other long requests
    /// are being received. If that takes too long, the request is refused, and its reply is
    /// appended.
    pub(super) fn make_room(&mut self, out: &mut Vec<u8>) {
        let pool = &self.state.shared.budget.pools().long_requests;
        if let Err(refusal) = self.long_request.make(&mut self.framer, pool) {
            write_error(out, &refusal, None);
        }
    }

    /// Returns the room that the connection has taken for its replies.
    pub(super) fn room(&mut self) -> &mut Room {
        &mut self.state.room
    }

    /// Answers one request. Returns false if there is no complete one.
    #[inline]
    pub(super) fn answer_next(&mut self, out: &mut Vec<u8>) -> bool {
        let Self { framer, state, .. } = self;
        if let Some(bytes) = state.answer_again(framer.rest(), out) {
            framer.pass(bytes);
            return true;
        }
        match framer.next_piece() {
            None => return false,
            Some(Piece::Text(text)) => state.answer(text, out),
            Some(Piece::Refused(refusal)) => write_error(out, &refusal, None),
        }
        true
    }

    /// Returns the time of the next events; `None` without subscriptions.
    pub(super) fn next_events(&self) -> Option<Instant> {
        self.state.streams.next_due()
    }

    /// Appends the events that are due.
    pub(super) fn write_events(&mut self, out: &mut Vec<u8>) {
        let count = self.state.streams.write_events(out);
        self.state.shared.counts.events.add(count);
    }
}

impl State {
    /// Answers the next request if it repeats one of the kept queries. Returns its length in bytes.
    #[inline]
    fn answer_again(&mut self, stream: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let Self { shared, queries, room, .. } = self;
        let (query, request) = queries.recall(stream, shared)?;
        reply(out, request.id, |out| {
            room.make(out, query.reply_bytes() + FRAME_BYTES)?;
            query.write(&shared.counts, out)
        });
        Some(request.bytes)
    }

    fn answer(&mut self, text: &[u8], out: &mut Vec<u8>) {
        // The lease is held until the reply is written and all values of the text are dropped. The
        // wait has no limit, because the holder of the lease always makes progress.
        let _alone = (text.len() > LARGE_TEXT_BYTES).then(|| self.alone());
        let oob = self.mode == Mode::Command { oob: true };
        let request = match parse(text) {
            Ok(value) => envelope::request(value, oob),
            Err(refusal) => return write_error(out, &refusal, None),
        };
        let id = request.as_ref().map_or_else(|unfit| &unfit.id, |request| &request.id);
        if id.as_ref().is_some_and(|id| id.bytes() > MAX_ID_BYTES) {
            let text = format!("QMP input member 'id' has more than {MAX_ID_BYTES} bytes");
            return write_error(out, &Refusal::generic(text), None);
        }
        let (id, request) = match request {
            Ok(request) => (request.id.as_ref().map(in_text), Ok(request)),
            Err(Unfit { refusal, id }) => (id.as_ref().map(in_text), Err(refusal)),
        };
        let id = id.as_deref();
        let id_bytes = id.map_or(0, <[u8]>::len);
        // Room for the parts of the text that are echoed: the id, and names in an error.
        if let Err(refusal) = self.room.make(out, ECHO_BYTES * text.len() + FRAME_BYTES) {
            return write_error(out, &refusal, None);
        }
        match request {
            Ok(request) => reply(out, id, |out| self.execute(&request, text, id_bytes, out)),
            Err(refusal) => write_error(out, &refusal, id),
        }
        self.queries.settle();
        self.room.shrink(out.len());
    }

    /// Waits until no other large text is being answered.
    fn alone(&self) -> Lease {
        let pool = &self.shared.budget.pools().large_texts;
        loop {
            if let Some(lease) = pool.wait(1, PATIENCE) {
                return lease;
            }
        }
    }

    /// Appends the return value.
    fn execute(
        &mut self,
        request: &Request<'_>,
        text: &[u8],
        id_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Answer<()> {
        let (shared, arguments) = (&*self.shared, &request.arguments);
        let command: &str = &request.command;
        if self.mode == Mode::Negotiation && command != "qmp_capabilities" {
            let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
            return Err(Refusal::not_found(text));
        }
        let further = shared.further_commands();
        if !introspect::COMMANDS.contains(&command) && !further.contains(&command) {
            return Err(Refusal::not_found(format!("The command {command} has not been found")));
        }
        if request.is_oob {
            return Err(Refusal::generic(format!("The command {command} does not support OOB")));
        }
        match command {
            "query-stats" => {
                let query = self.queries.prepare(request, text, shared)?;
                self.room.make(out, query.reply_bytes() + id_bytes + FRAME_BYTES)?;
                return query.write(&shared.counts, out);
            }
            "query-stats-schemas" => {
                return schemas::write_schemas(arguments, shared, &mut self.room, out);
            }
            "stats-subscribe" => {
                return self.streams.subscribe(shared, arguments, &mut self.room, out);
            }
            "stats-unsubscribe" => self.streams.unsubscribe(arguments)?,
            "human-monitor-command" => {
                let text = human_monitor_command(arguments, shared)?;
                self.room.make(out, json_bytes(&text) + id_bytes + FRAME_BYTES)?;
                json::write(out, &text);
                return Ok(());
            }
            "qmp_capabilities" => self.mode = negotiated(self.mode, arguments)?,
            _ => match &shared.recorder {
                Some(recorder) if further.contains(&command) => {
                    let text = recorder.execute(command, arguments, text.len())?;
                    self.room.make(out, text.len() + id_bytes + FRAME_BYTES)?;
                    out.extend_from_slice(text.as_bytes());
                    return Ok(());
                }
                _ => {
                    Members::of_arguments(arguments).finish()?;
                    return plain(command, further, out);
                }
            },
        }
        out.extend_from_slice(b"{}");
        Ok(())
    }
}

fn in_text(id: &Value<'_>) -> Vec<u8> {
    json::text(id).into_bytes()
}

/// Answers a command that has no arguments.
fn plain(command: &str, further: &[&str], out: &mut Vec<u8>) -> Answer<()> {
    match command {
        "query-version" => version::write_version(out),
        "query-commands" => introspect::write_commands(further, out),
        "query-qmp-schema" => introspect::write_schema(further, out),
        "quit" => {
            let text = "vmstrobe only watches this VM and does not end it; to leave, disconnect";
            return Err(Refusal::generic(text));
        }
        // A command that is listed and missing here would be a bug, which must not end the
        // connection.
        _ => return Err(Refusal::not_found(format!("The command {command} has not been found"))),
    }
    Ok(())
}

fn human_monitor_command(arguments: &Dict<'_>, shared: &Shared) -> Answer<String> {
    let mut members = Members::of_arguments(arguments);
    let line = members.string("command-line")?;
    let cpu = members.optional_int("cpu-index")?;
    members.finish()?;
    hmp::command_line(line, cpu, shared)
}

/// Returns the mode after `qmp_capabilities`.
fn negotiated(mode: Mode, arguments: &Dict<'_>) -> Answer<Mode> {
    let mut members = Members::of_arguments(arguments);
    let mut oob = false;
    for (at, capability) in members.optional_list("enable")?.into_iter().flatten().enumerate() {
        match capability {
            Value::String(name) if name == "oob" => oob = true,
            Value::String(name) => return Err(bad_enum(None, name)),
            _ => return Err(bad_type(&format!("enable[{at}]"), "string")),
        }
    }
    members.finish()?;
    if mode != Mode::Negotiation {
        let text = "Capabilities negotiation is already complete, command ignored";
        return Err(Refusal::not_found(text));
    }
    Ok(Mode::Command { oob })
}

/// Writes a reply with what `write` appends as its return value, or with its error.
#[inline]
fn reply(out: &mut Vec<u8>, id: Option<&[u8]>, write: impl FnOnce(&mut Vec<u8>) -> Answer<()>) {
    let start = out.len();
    out.extend_from_slice(br#"{"return": "#);
    if let Err(refusal) = write(out) {
        out.truncate(start);
        return write_error(out, &refusal, id);
    }
    if let Some(id) = id {
        out.extend_from_slice(br#", "id": "#);
        out.extend_from_slice(id);
    }
    out.push(b'}');
    out.extend_from_slice(LINE_END);
}

fn write_error(out: &mut Vec<u8>, refusal: &Refusal, id: Option<&[u8]>) {
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(br#""id": "#);
        out.extend_from_slice(id);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(br#""error": "#);
    json::write(out, refusal);
    out.push(b'}');
    out.extend_from_slice(LINE_END);
}

#[cfg(test)]
mod tests;
