//! JSON as QEMU writes it, and the return values of its statistics commands: [`StatsSchema`] for
//! `query-stats-schemas`, [`Results`] for `query-stats`.
//!
//! A text is one line of ASCII. Its keys have the order in which QEMU writes them, with `, ` and
//! `: ` between them.
//!
//! Invariant: a statistic that QEMU knows is described with the names and the order that QEMU's
//! `query-stats-schemas` uses. A type, unit or base that QAPI has no word for has the name that
//! [`StatType`], [`Unit`] and [`Base`] give it.

use serde::Serialize;

use crate::{Base, Desc, Schema, StatType, Unit};

mod results;
mod writer;

pub use self::results::Results;
pub use self::writer::text;
#[doc(hidden)] // For vmstrobe-server, which writes many values into one buffer.
pub use self::writer::write;

/// QAPI `StatsSchema`: the statistics of one provider and target.
#[derive(Debug, Serialize)]
pub struct StatsSchema<'a> {
    provider: &'a str,
    stats: Vec<StatsSchemaValue<'a>>,
    target: &'a str,
}

/// QAPI `StatsSchemaValue`: the description of one statistic.
#[doc(hidden)] // For vmstrobe-server, whose streams describe statistics outside a `StatsSchema`.
#[derive(Debug, Serialize)]
pub struct StatsSchemaValue<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<StatsBase>,
    #[serde(rename = "bucket-size", skip_serializing_if = "Option::is_none")]
    bucket_size: Option<u32>,
    exponent: i16,
    #[serde(rename = "type")]
    stat_type: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum StatsBase {
    Known(u32),
    Unknown(String),
}

impl<'a> StatsSchema<'a> {
    /// Describes these statistics of a schema, in the given order.
    pub fn new(schema: &'a Schema, descs: impl IntoIterator<Item = &'a Desc>) -> Self {
        let stats = descs.into_iter().map(StatsSchemaValue::new).collect();
        Self { provider: schema.provider(), stats, target: schema.target().name() }
    }
}

impl<'a> StatsSchemaValue<'a> {
    /// Describes one statistic.
    pub fn new(desc: &'a Desc) -> Self {
        let base = match desc.scale.base {
            Base::Unknown(bits) => StatsBase::Unknown(format!("base-{bits}")),
            base => StatsBase::Known(base.value().unwrap_or_default()),
        };
        Self {
            name: &desc.name,
            unit: match desc.unit {
                Unit::Unknown(bits) => Some(format!("unit-{bits}")),
                unit => unit.name().map(str::to_owned),
            },
            base: (desc.scale.exponent != 0).then_some(base),
            bucket_size: (desc.stat_type == StatType::LinearHistogram).then_some(desc.bucket_size),
            exponent: desc.scale.exponent,
            stat_type: desc.stat_type.to_string(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Scale, Target};

    /// Returns one statistic of each type, the last with a type, unit and base that are unknown.
    pub(crate) fn descs() -> Vec<Desc> {
        let ns = |desc| Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
        vec![
            Desc::counter("exits", 0),
            ns(Desc {
                stat_type: StatType::Log2Histogram,
                size: 3,
                ..Desc::counter("wait_hist", 8)
            }),
            Desc {
                stat_type: StatType::Instant,
                unit: Unit::Boolean,
                ..Desc::counter("blocking", 32)
            },
            Desc {
                stat_type: StatType::LinearHistogram,
                bucket_size: 4,
                ..Desc::counter("one", 40)
            },
            Desc {
                stat_type: StatType::Unknown(9),
                unit: Unit::Unknown(7),
                scale: Scale { base: Base::Unknown(3), exponent: 2 },
                ..Desc::counter("newer", 0)
            },
        ]
    }

    #[test]
    fn schemas_are_spelt_as_qemu_does() {
        let schema = Schema::new("kvm", Target::Vcpu, descs());
        let want = concat!(
            r#"{"provider": "kvm", "stats": ["#,
            r#"{"name": "exits", "exponent": 0, "type": "cumulative"}, "#,
            r#"{"name": "wait_hist", "unit": "seconds", "base": 10, "exponent": -9, "#,
            r#""type": "log2-histogram"}, "#,
            r#"{"name": "blocking", "unit": "boolean", "exponent": 0, "type": "instant"}, "#,
            r#"{"name": "one", "bucket-size": 4, "exponent": 0, "type": "linear-histogram"}, "#,
            r#"{"name": "newer", "unit": "unit-7", "base": "base-3", "exponent": 2, "#,
            r#""type": "type-9"}], "target": "vcpu"}"#,
        );
        assert_eq!(text(&StatsSchema::new(&schema, schema.descs())), want);
    }
}
