//! The command `query-stats-schemas`.
//!
//! Invariant: the order is that of the providers, or the one in which QEMU's providers register.
//! The reply is bounded ([`MAX_REPLY_BYTES`]); a longer one is refused before it is written.

use std::sync::Arc;

use vmstrobe_core::json::{self, StatsSchema};
use vmstrobe_core::{Desc, Order, Schema, Target};
use vmstrobe_sampler::Catalog;

use super::cost::{MAX_REPLY_BYTES, json_bytes};
use super::filter;
use super::members::Members;
use super::refusal::Refusal;
use super::room::Room;
use super::shared::Shared;
use super::value::Dict;

/// The most bytes around a name, or of the description of a statistic besides its name.
const DESC_BYTES: usize = 192;

/// Appends the return value of `query-stats-schemas`.
///
/// # Errors
/// GenericError if an argument is wrong, or the reply exceeds a limit.
pub(super) fn write_schemas(
    arguments: &Dict<'_>,
    shared: &Shared,
    room: &mut Room,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let catalog = shared.inventory.catalog();
    let mut members = Members::of_arguments(arguments);
    let provider = members.optional_string("provider")?;
    let provider = provider.map(|name| filter::provider(name, &catalog)).transpose()?;
    members.finish()?;
    let wanted = |schema: &&Arc<Schema>| provider.is_none_or(|name| name == schema.provider());
    let mut schemas: Vec<&Schema> =
        distinct(&catalog).into_iter().filter(wanted).map(|s| &**s).collect();
    let bytes = schemas.iter().map(|schema| bytes_max(schema)).fold(0, usize::saturating_add);
    if bytes > MAX_REPLY_BYTES {
        let text = format!("the reply would have more than {MAX_REPLY_BYTES} bytes: ask for less");
        return Err(Refusal::generic(text));
    }
    room.make(out, bytes)?;
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

/// Returns the most bytes that the text of a schema can have.
fn bytes_max(schema: &Schema) -> usize {
    let desc = |desc: &Desc| json_bytes(&desc.name) + DESC_BYTES;
    let descs: usize = schema.descs().iter().map(desc).sum();
    descs + json_bytes(schema.provider()) + json_bytes(schema.target().name()) + DESC_BYTES
}

/// Returns each schema once. Several providers of a registry may have the same schemas.
fn distinct(catalog: &Catalog) -> Vec<&Arc<Schema>> {
    let mut schemas: Vec<&Arc<Schema>> = Vec::new();
    for schema in catalog.schemas() {
        if !schemas.contains(&schema) {
            schemas.push(schema);
        }
    }
    schemas
}

/// Returns the sort key for the order in which QEMU's providers register and give their targets.
fn rank(schema: &Schema) -> (bool, Target) {
    (schema.provider() != filter::NAMELESS, schema.target().clone())
}
