//! `query-stats` and `query-stats-schemas`: from arguments to the text of the return value.
//!
//! A query is compiled and opened once; the connection keeps it, and the same request finds it
//! again as long as the objects are the same: by its bytes, or by its arguments.
//!
//! Invariant: every value was read after the request arrived. What a connection keeps is bounded
//! ([`MAX_KEPT_QUERIES`], [`MAX_KEPT_BYTES`]), and so is a reply ([`MAX_REPLY_BYTES`]).

use std::error::Error as _;
use std::sync::Arc;

use vmstrobe_core::Order;
use vmstrobe_core::{Error, Filter, ObjectView, RowState, Schema, Target, WORD_BYTES};
use vmstrobe_sampler::{Census, Probe};

use super::counts::Counters;
use super::envelope::Request;
use super::filter;
use super::members::Members;
use super::pattern::{Pattern, Recognised};
use super::refusal::Refusal;
use super::session::Shared;
use super::value::Dict;
use crate::json::{self, StatsSchema};
use crate::results::Results;

/// The most queries that a connection keeps ready.
pub(super) const MAX_KEPT_QUERIES: usize = 16;
/// The most bytes that the values of those take, and the arguments of one.
pub(super) const MAX_KEPT_BYTES: usize = 1 << 20;
/// The most bytes of a reply.
pub(super) const MAX_REPLY_BYTES: usize = 64 << 20;

/// The queries of one connection, those used last behind.
#[derive(Debug, Default)]
pub(super) struct Queries {
    kept: Vec<Query>,
    generation: u64,
}

/// `query-stats` with some arguments, opened.
#[derive(Debug)]
pub(super) struct Query {
    arguments: Dict<'static>,
    /// The request by which it was asked for last.
    pattern: Option<Pattern>,
    parts: Vec<Part>,
    bytes: usize,
}

/// What one entry of `providers` wants.
#[derive(Debug)]
struct Part {
    probe: Probe,
    results: Results,
}

impl Queries {
    /// The query that those bytes begin with the request for, if it is one of those that are kept.
    #[inline]
    pub(super) fn recall<'t>(
        &mut self,
        bytes: &'t [u8],
        shared: &Shared,
    ) -> Option<(&mut Query, Recognised<'t>)> {
        self.renew(shared);
        let mut kept = self.kept.iter().enumerate().rev();
        let (at, found) =
            kept.find_map(|(at, query)| Some((at, query.pattern.as_ref()?.find(bytes)?)))?;
        Some((self.use_again(at), found))
    }

    /// The query with the arguments of that request.
    ///
    /// # Errors
    /// What is wrong with the arguments, or why nothing can be opened.
    pub(super) fn prepare(
        &mut self,
        request: &Request<'_>,
        text: &[u8],
        shared: &Shared,
    ) -> Result<&mut Query, Refusal> {
        self.renew(shared);
        let (arguments, pattern) = (&request.arguments, Pattern::new(text, request.id.is_some()));
        if let Some(at) = self.kept.iter().rposition(|query| query.arguments == *arguments) {
            let query = self.use_again(at);
            query.pattern = pattern;
            return Ok(query);
        }
        let query = Query::new(arguments, shared)?;
        self.kept.push(Query { pattern, bytes: query.bytes + 2 * text.len(), ..query });
        self.tidy();
        Ok(self.kept.last_mut().expect("one was pushed, and the last is never tidied away"))
    }

    /// How many are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Objects have come or gone: what was opened before is of no use.
    fn renew(&mut self, shared: &Shared) {
        let generation = shared.inventory.generation();
        if generation != self.generation {
            self.kept.clear();
            self.generation = generation;
        }
    }

    fn use_again(&mut self, at: usize) -> &mut Query {
        self.kept[at..].rotate_left(1);
        self.kept.last_mut().expect("there is one at `at`")
    }

    /// Forgets what was used least lately, as far as it is too much.
    fn tidy(&mut self) {
        let mut bytes: usize = self.kept.iter().map(|query| query.bytes).sum();
        let mut over = 0;
        for query in &self.kept[..self.kept.len().saturating_sub(1)] {
            if self.kept.len() - over <= MAX_KEPT_QUERIES && bytes <= MAX_KEPT_BYTES {
                break;
            }
            (bytes, over) = (bytes - query.bytes, over + 1);
        }
        self.kept.drain(..over);
    }
}

impl Query {
    fn new(arguments: &Dict<'_>, shared: &Shared) -> Result<Self, Refusal> {
        let census = shared.inventory.census();
        let mut members = Members::of_arguments(arguments);
        let filter = filter::stats_filter(&mut members, &census)?;
        members.finish()?;
        let open = |filter: Filter| {
            let probe = census.probe(&filter).map_err(|error| in_words(&error))?;
            let results = Results::new(probe.layout(), shared.order);
            Ok(Part { probe, results })
        };
        let parts = filter::parts(filter, shared.order).into_iter().map(open);
        let mut parts = parts.collect::<Result<Vec<Part>, Refusal>>()?;
        if shared.order == Order::Qemu {
            parts.reverse();
        }
        let words: usize = parts.iter().map(|part| part.probe.layout().words()).sum();
        let arguments = arguments.clone().into_owned();
        Ok(Self { arguments, pattern: None, parts, bytes: words * WORD_BYTES })
    }

    /// Reads, and appends the list of results. What could not be read is counted.
    ///
    /// # Errors
    /// If what is there could not be read, none of it; or if it is too much.
    #[inline]
    pub(super) fn write(&mut self, counts: &Counters, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let (start, mut is_empty, mut unread) = (out.len(), true, None);
        out.push(b'[');
        for Part { probe, results } in &mut self.parts {
            let snapshot = probe.read().map_err(|error| in_words(&error))?;
            for (view, text) in results.of(snapshot) {
                match view.state() {
                    RowState::Good => {}
                    RowState::Gone => continue,
                    state => {
                        counts.unread_rows.add(1);
                        unread = Some(not_read(&view, state));
                        continue;
                    }
                }
                if !std::mem::take(&mut is_empty) {
                    out.extend_from_slice(b", ");
                }
                results.write(out, view, text);
                if out.len() - start > MAX_REPLY_BYTES {
                    let text = format!("the reply would have more than {MAX_REPLY_BYTES} bytes");
                    return Err(Refusal::generic(text));
                }
            }
        }
        out.push(b']');
        match unread {
            Some(why) if is_empty => Err(Refusal::generic(why)),
            _ => Ok(()),
        }
    }
}

/// Why an object that is there has no values of now.
fn not_read(view: &ObjectView<'_>, state: RowState) -> String {
    let path = &view.object().path;
    match state {
        RowState::Io(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            format!("{path} could not be read: {error}")
        }
        RowState::Torn => format!("{path} changed all the while it was read: ask again"),
        _ => format!("{path} has fallen silent: nobody knows its values of now"),
    }
}

/// Appends the return value of `query-stats-schemas`.
///
/// # Errors
/// What is wrong with the arguments.
pub(super) fn write_schemas(
    arguments: &Dict<'_>,
    shared: &Shared,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let census = shared.inventory.census();
    let mut members = Members::of_arguments(arguments);
    let provider = members.optional_string("provider")?;
    let provider = provider.map(|name| filter::provider(name, &census)).transpose()?;
    members.finish()?;
    let wanted = |schema: &&Arc<Schema>| provider.is_none_or(|name| name == schema.provider());
    let mut schemas: Vec<&Schema> =
        distinct(&census).into_iter().filter(wanted).map(|s| &**s).collect();
    let schema = |schema| match shared.order {
        Order::Schema => StatsSchema::new(schema, schema.descs()),
        Order::Qemu => {
            let known = schema.descs().iter().rev().filter(|desc| desc.has_qapi_schema());
            StatsSchema::new(schema, known)
        }
    };
    if shared.order == Order::Qemu {
        schemas.sort_by_key(|schema| rank(schema));
        schemas.reverse();
    }
    json::write(out, &schemas.into_iter().map(schema).collect::<Vec<_>>());
    Ok(())
}

/// A provider may stand in the registry more than once, with the same schemas.
fn distinct(census: &Census) -> Vec<&Arc<Schema>> {
    let mut schemas: Vec<&Arc<Schema>> = Vec::new();
    for schema in census.schemas() {
        if !schemas.contains(&schema) {
            schemas.push(schema);
        }
    }
    schemas
}

/// The order in which QEMU's providers register, and in which they give their targets.
fn rank(schema: &Schema) -> (bool, Target) {
    (schema.provider() != filter::NAMELESS, schema.target().clone())
}

/// For a client, what kept us from reading.
pub(super) fn in_words(error: &Error) -> Refusal {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Refusal::generic(text)
}
