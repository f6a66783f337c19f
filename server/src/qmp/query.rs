//! The command `query-stats`.
//!
//! A query is compiled and opened once, and the connection keeps it. As long as the objects are the
//! same, a repeated request is recognised by its bytes or its arguments and uses it again. All
//! entries of `providers` are read at once, by sources that read what any entry wants.
//!
//! Invariant: every value was read after the request arrived. What a connection keeps is bounded
//! ([`MAX_KEPT_QUERIES`], [`MAX_KEPT_BYTES`], [`MAX_KEPT_SOURCES`]), and so are a query and a
//! reply ([`Cost`]).

use vmstrobe_core::json::Results;
use vmstrobe_core::{Filter, ObjectView, Order, RowState};
use vmstrobe_sampler::{Catalog, OnDemandReader};

use super::budget::{Lease, PATIENCE, Pools, has_spare_descriptors};
use super::cost::Cost;
use super::counts::Counters;
use super::envelope::Request;
use super::filter;
use super::members::Members;
use super::pattern::{Pattern, Recognised};
use super::refusal::Refusal;
use super::shared::Shared;
use super::value::Dict;

/// The most queries that a connection keeps ready.
pub(super) const MAX_KEPT_QUERIES: usize = 16;
/// The most bytes of memory that kept queries take.
pub(super) const MAX_KEPT_BYTES: usize = 4 << 20;
/// The most bytes of a request whose query is kept.
pub(super) const MAX_KEPT_REQUEST_BYTES: usize = 64 << 10;
/// The most sources that kept queries have open.
pub(super) const MAX_KEPT_SOURCES: usize = 64;

/// The queries of one connection. The last one was used last.
#[derive(Debug, Default)]
pub(super) struct Queries {
    kept: Vec<Query>,
    generation: u64,
}

/// An opened `query-stats` with its arguments.
#[derive(Debug)]
pub(super) struct Query {
    arguments: Dict<'static>,
    /// The bytes of the last request for it.
    pattern: Option<Pattern>,
    results: Results,
    opened: Opened,
    /// Whether the query is kept after its answer. It is not if its request is long or the budget
    /// is scarce.
    is_kept: bool,
}

/// An opened filter, with its cost and the leases that it has from the budget.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) reader: OnDemandReader,
    pub(super) cost: Cost,
    // Fields are dropped in this order, so leases are returned after the sources are closed.
    bytes: Lease,
    sources: Lease,
}

impl Queries {
    /// Returns the kept query whose request `bytes` begin with, if there is one.
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

    /// Returns the query with the arguments of a request, and opens it if it is not kept.
    ///
    /// # Errors
    /// GenericError if an argument is wrong, the query exceeds a limit, or it cannot be opened.
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
        let catalog = shared.inventory.catalog();
        let mut members = Members::of_arguments(arguments);
        let mut filter = filter::stats_filter(&mut members, &catalog)?;
        members.finish()?;
        if shared.order == Order::Qemu {
            filter::as_in_qemu(&mut filter);
        }
        let parts = filter::parts(&filter);
        let mut cost = Cost::of(&filter, &parts, &catalog);
        cost.bytes += arguments.bytes() + pattern.as_ref().map_or(0, Pattern::bytes);
        self.make_room(cost);
        let opened = Opened::new(&filter, cost, &catalog, shared.budget.pools())?;
        let results = Results::of_filters(opened.reader.layout(), shared.order, &parts);
        let is_short = text.len() <= MAX_KEPT_REQUEST_BYTES;
        let is_kept = is_short && !is_scarce(shared.budget.pools());
        // A query that is not kept is never looked for.
        let arguments = if is_kept { arguments.clone().into_owned() } else { Dict::default() };
        self.kept.push(Query { arguments, pattern, results, opened, is_kept });
        Ok(self.kept.last_mut().expect("a query was pushed on the line above"))
    }

    /// Closes the query that was answered last, unless it is kept.
    pub(super) fn settle(&mut self) {
        self.kept.pop_if(|query| !query.is_kept);
    }

    /// Returns the number of kept queries.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Drops all queries if the catalog has changed, because their objects may be outdated.
    fn renew(&mut self, shared: &Shared) {
        let generation = shared.inventory.generation();
        if generation != self.generation {
            self.kept.clear();
            self.generation = generation;
        }
    }

    fn use_again(&mut self, at: usize) -> &mut Query {
        self.kept[at..].rotate_left(1);
        self.kept.last_mut().expect("`at` is the index of a kept query")
    }

    /// Drops the least recently used queries until one more is within the limits.
    fn make_room(&mut self, more: Cost) {
        let (mut bytes, mut sources) = (more.bytes, more.sources);
        let mut kept = 0;
        for Query { opened, .. } in self.kept.iter().rev().take(MAX_KEPT_QUERIES - 1) {
            bytes += opened.bytes.units();
            sources += opened.sources.units();
            if bytes > MAX_KEPT_BYTES || sources > MAX_KEPT_SOURCES {
                break;
            }
            kept += 1;
        }
        self.kept.drain(..self.kept.len() - kept);
        // The memory follows the number of kept queries.
        self.kept.shrink_to(MAX_KEPT_QUERIES);
    }
}

/// Returns whether queries should not stay open, because other clients could not open theirs: much
/// of the budget is taken, or the process has few descriptors left.
fn is_scarce(pools: &Pools) -> bool {
    pools.sources.is_scarce() || pools.query_bytes.is_scarce() || !has_spare_descriptors()
}

impl Opened {
    /// Opens the objects of a catalog that a filter wants, at a known cost.
    ///
    /// # Errors
    /// GenericError if the cost exceeds the limit of a query or the units that are left, or the
    /// sources cannot be opened.
    pub(super) fn new(
        filter: &Filter,
        cost: Cost,
        catalog: &Catalog,
        pools: &Pools,
    ) -> Result<Self, Refusal> {
        cost.check()?;
        let bytes = pools.query_bytes.wait(cost.bytes, PATIENCE).ok_or_else(|| {
            let max = pools.query_bytes.max();
            taken(&format!("queries may take {max} bytes in all"))
        })?;
        let sources = pools.sources.wait(cost.sources, PATIENCE).ok_or_else(|| {
            let (max, more) = (pools.sources.max(), cost.sources);
            taken(&format!("queries may have {max} sources open in all, and this one needs {more}"))
        })?;
        let reader = catalog.reader(filter).map_err(Refusal::from)?;
        Ok(Self { reader, cost, bytes, sources })
    }
}

fn taken(limit: &str) -> Refusal {
    Refusal::generic(format!("{limit}, and other clients hold too many: ask again, or for less"))
}

impl Query {
    /// Returns the most bytes that [`Query::write`] appends.
    pub(super) fn reply_bytes(&self) -> usize {
        self.opened.cost.reply_bytes
    }

    /// Reads, and appends the list of results. Objects that could not be read are counted.
    ///
    /// # Errors
    /// GenericError if there are objects and none of them could be read.
    #[inline]
    pub(super) fn write(&mut self, counts: &Counters, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let (mut is_empty, mut unread) = (true, None);
        let snapshot = self.opened.reader.read().map_err(Refusal::from)?;
        self.results.write(out, snapshot, |view| match view.state() {
            RowState::Good => {
                is_empty = false;
                true
            }
            RowState::Gone => false,
            state => {
                counts.unread_rows.add(1);
                unread = Some(not_read(&view, state));
                false
            }
        });
        match unread {
            Some(why) if is_empty => Err(Refusal::generic(why)),
            _ => Ok(()),
        }
    }
}

/// Returns the reason why an existing object has no values.
fn not_read(view: &ObjectView<'_>, state: RowState) -> String {
    let path = &view.object().path;
    match state {
        RowState::Io(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            format!("{path} could not be read: {error}")
        }
        RowState::Torn => format!("{path} kept changing while it was read: ask again"),
        _ => format!("{path}: its source has stopped answering"),
    }
}
