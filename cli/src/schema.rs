//! `vmstrobe schema`: the statistics that exist, with types and units.
//!
//! Invariant: statistics are in the provider's order. Those of an unknown type, unit or base are
//! included.

use std::sync::Arc;
use std::time::Duration;

use vmstrobe::json::{self, StatsSchema};
use vmstrobe::{Desc, Moment, Names, Schema, StatType};

use crate::args::{SchemaArgs, VcpuArgs};
use crate::attach;
use crate::error::Result;
use crate::messages::of_notices;
use crate::out::{Out, say_each};
use crate::table::{Align, Table};
use crate::terminal;
use crate::text::{amount, counted};

/// Prints the schemas of the selected statistics.
///
/// # Errors
/// If there is no schema, or the output cannot be written.
pub(crate) fn run(args: &SchemaArgs, out: &mut Out) -> Result<u8> {
    let recording = (args.replay.file.as_deref(), Moment::After(Duration::ZERO));
    let (providers, method) = (args.select.providers(), &args.method);
    let attachment = attach::open_for_reading(&args.source, recording, providers, method)?;
    let names = args.select.of.names.as_ref();
    let mut schemas = attachment.select_schemas(&args.select.selection(&VcpuArgs::default()))?;
    say_each(of_notices(attachment.notices()));
    schemas.retain(|schema| selected(schema, names).next().is_some());
    if args.json {
        out.lines([for_programs(&schemas, names)])?;
    } else {
        out.lines(for_people(&schemas, names, terminal::width_of(out)))?;
    }
    Ok(0)
}

/// Returns the JSON text that QEMU's `query-stats-schemas` returns.
fn for_programs(schemas: &[Arc<Schema>], names: Option<&Names>) -> String {
    let schemas = schemas.iter().map(|schema| StatsSchema::new(schema, selected(schema, names)));
    json::text(&schemas.collect::<Vec<_>>())
}

/// Returns a table for each schema, separated by empty lines, for a terminal of this width.
fn for_people(schemas: &[Arc<Schema>], names: Option<&Names>, width: usize) -> Vec<String> {
    let tables: Vec<_> = schemas.iter().map(|schema| lines(schema, names, width)).collect();
    tables.join(&String::new())
}

/// Returns the statistics of a schema that these names select, in its order.
fn selected<'a>(schema: &'a Schema, names: Option<&'a Names>) -> impl Iterator<Item = &'a Desc> {
    schema.descs().iter().filter(move |desc| names.is_none_or(|names| names.wants(&desc.name)))
}

fn lines(schema: &Schema, names: Option<&Names>, width: usize) -> Vec<String> {
    let mut table = Table::new()
        .column("  NAME", Align::Left)
        .column("TYPE", Align::Left)
        .column("UNIT", Align::Left)
        .column("BUCKETS", Align::Left);
    for desc in selected(schema, names) {
        table.row([
            format!("  {}", desc.name),
            desc.stat_type.to_string(),
            desc.scale.text(desc.unit),
            buckets(desc),
        ]);
    }
    let count = counted(selected(schema, names).count(), "statistic");
    let title = format!("{} {}: {count}", schema.provider(), schema.target());
    std::iter::once(title).chain(table.lines_fitting(width)).collect()
}

/// Describes the words of a statistic that has more than one.
fn buckets(desc: &Desc) -> String {
    match desc.stat_type {
        StatType::Log2Histogram => format!("{}, each twice the one before", desc.size),
        StatType::LinearHistogram => {
            format!("{}, {} each", desc.size, amount(desc, desc.bucket_size.into()))
        }
        _ if desc.size > 1 => format!("{} words", desc.size),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstrobe::{Scale, Target, Unit};

    #[test]
    fn a_schema_is_a_table() {
        let ns = Desc { unit: Unit::Seconds, scale: Scale::NANO, ..Desc::counter("wait_hist", 8) };
        let descs = vec![
            Desc::counter("exits", 0),
            Desc { stat_type: StatType::Log2Histogram, size: 32, ..ns.clone() },
            Desc {
                stat_type: StatType::LinearHistogram,
                size: 4,
                bucket_size: 1000,
                name: "linear".into(),
                ..ns
            },
            Desc { stat_type: StatType::Unknown(9), size: 2, ..Desc::counter("newer", 0) },
        ];
        let schema = Schema::new("kvm", Target::Vcpu, descs);
        let want = [
            "kvm vcpu: 4 statistics",
            "  NAME       TYPE              UNIT  BUCKETS",
            "  exits      cumulative",
            "  wait_hist  log2-histogram    ns    32, each twice the one before",
            "  linear     linear-histogram  ns    4, 1.00 µs each",
            "  newer      type-9                  2 words",
        ];
        assert_eq!(lines(&schema, None, 80), want);
        let names = Names::parse("-*_hist,-linear,-newer").expect("the list is well formed");
        assert_eq!(lines(&schema, Some(&names), 80).len(), 3);
        let two = [Arc::clone(&schema), schema];
        assert_eq!(for_people(&two, Some(&names), 80).len(), 3 + 1 + 3);
        let want = r#"{"name": "exits", "exponent": 0, "type": "cumulative"}"#;
        assert!(for_programs(&two, Some(&names)).contains(&format!(r#""stats": [{want}]"#)));
    }
}
