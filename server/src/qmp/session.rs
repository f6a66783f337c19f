//! One connection's conversation, without its socket: bytes in, replies and events out.
//!
//! Invariant: each text that arrives gets one reply (a malformed one an error), in order; nothing
//! is remembered of a request but the query that it asked for and the subscription that it made.

use std::sync::Arc;
use std::time::Instant;

use vmstrobe_core::{Error, Order, Registry, Result};

use super::counts::Counters;
use super::envelope::{self, Request, Unfit};
use super::framer::{Framer, Piece};
use super::inventory::Inventory;
use super::members::{Members, bad_enum, bad_type};
use super::query::Queries;
use super::refusal::Refusal;
use super::stream::{StreamSeats, Streams};
use super::value::{self, Dict, Value};
use super::{hmp, introspect, query, version};
use crate::json;

/// What a command gives, or why it is refused.
type Answer<T> = std::result::Result<T, Refusal>;

/// How a line ends.
const LINE_END: &[u8] = b"\r\n";

/// What all connections of a server have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) inventory: Inventory,
    pub(super) order: Order,
    pub(super) counts: Counters,
    pub(super) seats: StreamSeats,
}

impl Shared {
    /// Over what is in the registry, then and later. `complain` is told what cannot be looked at.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn new(
        registry: &Registry,
        order: Order,
        complain: Option<fn(&Error)>,
    ) -> Result<Self> {
        let complain = move |error: &Error| complain.into_iter().for_each(|tell| tell(error));
        let inventory = Inventory::new(registry, order, complain)?;
        let (counts, seats) = (Counters::default(), StreamSeats::new());
        Ok(Self { inventory, order, counts, seats })
    }

    /// The same without a thread, now or later: over what there is now, and nobody subscribes.
    pub(super) fn fixed(registry: &Registry, order: Order) -> Self {
        let (counts, seats) = (Counters::default(), StreamSeats::none());
        Self { inventory: Inventory::fixed(registry, order), order, counts, seats }
    }
}

/// One connection's side of the conversation that is ours.
#[derive(Debug)]
pub(super) struct Session {
    framer: Framer,
    state: State,
}

#[derive(Debug)]
struct State {
    shared: Arc<Shared>,
    mode: Mode,
    queries: Queries,
    streams: Streams,
}

/// Where the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Greeted; capabilities are not agreed upon yet.
    Negotiation,
    /// Commands are taken, out of band too if that was agreed.
    Command { oob: bool },
}

impl Session {
    /// A conversation that has not begun.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (mode, queries, streams) = (Mode::Negotiation, Queries::default(), Streams::default());
        Self { framer: Framer::default(), state: State { shared, mode, queries, streams } }
    }

    /// Appends the greeting.
    pub(super) fn greet(&self, out: &mut Vec<u8>) {
        version::write_greeting(out);
        out.extend_from_slice(LINE_END);
    }

    /// Takes what the client has sent.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// Answers one request; false if there is no whole one.
    #[inline]
    pub(super) fn answer_next(&mut self, out: &mut Vec<u8>) -> bool {
        let Self { framer, state } = self;
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

    /// When there may be events; never without subscriptions.
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
    /// Answers the request that the stream goes on with, if it is for one of the queries that are
    /// ready; how long it is.
    #[inline]
    fn answer_again(&mut self, stream: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let (query, request) = self.queries.recall(stream, &self.shared)?;
        reply(out, request.id, |out| query.write(&self.shared.counts, out));
        Some(request.bytes)
    }

    fn answer(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let oob = self.mode == Mode::Command { oob: true };
        let request = match value::parse(text) {
            Ok(value) => envelope::request(value, oob),
            Err(refusal) => return write_error(out, &refusal, None),
        };
        let in_text = |id: &Value<'_>| json::text(id).into_bytes();
        match request {
            Ok(request) => {
                let id = request.id.as_ref().map(in_text);
                reply(out, id.as_deref(), |out| self.execute(&request, text, out));
            }
            Err(Unfit { refusal, id }) => {
                write_error(out, &refusal, id.as_ref().map(in_text).as_deref());
            }
        }
    }

    /// Appends the return value.
    fn execute(&mut self, request: &Request<'_>, text: &[u8], out: &mut Vec<u8>) -> Answer<()> {
        let (shared, arguments) = (&*self.shared, &request.arguments);
        let command: &str = &request.command;
        if self.mode == Mode::Negotiation && command != "qmp_capabilities" {
            let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
            return Err(Refusal::not_found(text));
        }
        if !introspect::COMMANDS.contains(&command) {
            return Err(Refusal::not_found(format!("The command {command} has not been found")));
        }
        if request.is_oob {
            return Err(Refusal::generic(format!("The command {command} does not support OOB")));
        }
        match command {
            "query-stats" => {
                let query = self.queries.prepare(request, text, shared)?;
                return query.write(&shared.counts, out);
            }
            "query-stats-schemas" => return query::write_schemas(arguments, shared, out),
            "stats-subscribe" => return self.streams.subscribe(shared, arguments, out),
            "stats-unsubscribe" => self.streams.unsubscribe(arguments)?,
            "human-monitor-command" => {
                json::write(out, &human_monitor_command(arguments, shared)?);
                return Ok(());
            }
            "qmp_capabilities" => self.mode = negotiated(self.mode, arguments)?,
            _ => {
                Members::of_arguments(arguments).finish()?;
                return plain(command, out);
            }
        }
        out.extend_from_slice(b"{}");
        Ok(())
    }
}

/// Commands without arguments.
fn plain(command: &str, out: &mut Vec<u8>) -> Answer<()> {
    match command {
        "query-version" => version::write_version(out),
        "query-commands" => introspect::write_commands(out),
        "query-qmp-schema" => introspect::write_schema(out),
        "quit" => {
            let text = "vmstrobe only watches this VM and does not end it; to leave, disconnect";
            return Err(Refusal::generic(text));
        }
        // One that is in the list and not here would be a bug; the client shall not pay for it.
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

/// `qmp_capabilities`: what to do from now on.
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
