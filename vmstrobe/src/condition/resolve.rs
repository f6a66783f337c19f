//! Comparisons against the statistics that there are: names, types, units.
//!
//! Invariant: a term that leaves here can be computed from every object that has its statistic: all
//! their descriptors agree in type, unit, scale and size.

use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::{Desc, Schema, StatType, Unit};

use super::Fault;
use super::quantity::Dimension;
use super::syntax::{Among, Comparison, Expr, Kind, Operator};
use crate::unknown_name::UnknownName;

/// The end of the names of histograms that stand beside a sum: `halt_wait` is `halt_wait_hist`.
const HISTOGRAM_SUFFIX: &str = "_hist";

/// A comparison that can be computed.
#[derive(Clone, Debug)]
pub(super) struct Term {
    /// Its place in the condition's text.
    pub(super) place: Range<usize>,
    pub(super) among: Among,
    pub(super) kind: Kind,
    /// The statistic, as the first schema that has it describes it.
    pub(super) desc: Desc,
    /// The unit of a stored number, in the unit of the bound.
    pub(super) factor: f64,
    pub(super) stretch_ns: u64,
    pub(super) operator: Operator,
    pub(super) bound: f64,
}

/// Resolves each comparison of a condition.
///
/// # Errors
/// The first fault.
pub(super) fn resolve(expr: &Expr, schemas: &[Arc<Schema>]) -> Result<Expr<Term>, Fault> {
    let all = |parts: &[Expr]| -> Result<Vec<Expr<Term>>, Fault> {
        parts.iter().map(|part| resolve(part, schemas)).collect()
    };
    Ok(match expr {
        Expr::One(comparison) => Expr::One(term(comparison, schemas)?),
        Expr::And(parts) => Expr::And(all(parts)?),
        Expr::Or(parts) => Expr::Or(all(parts)?),
    })
}

fn term(comparison: &Comparison, schemas: &[Arc<Schema>]) -> Result<Term, Fault> {
    let fault = |text: String| Fault::new(comparison.place.start, text);
    let (name, kind) = split(&comparison.metric);
    let desc = find(name, kind, schemas).map_err(fault)?;
    let kind = checked_kind(&desc, kind).map_err(fault)?;
    check_unit(&desc, kind, comparison).map_err(fault)?;
    let is_counted = matches!(kind, Kind::Rate | Kind::Delta) && desc.stat_type.is_histogram();
    let factor = if is_counted { Some(1.0) } else { desc.scale.factor() };
    let factor = factor.ok_or_else(|| {
        fault(format!("'{}' has a scale of a newer kernel: it cannot be compared", desc.name))
    })?;
    Ok(Term {
        place: comparison.place.clone(),
        among: comparison.among,
        kind,
        factor,
        stretch_ns: comparison.stretch_ns(),
        operator: comparison.operator,
        bound: comparison.bound.value,
        desc,
    })
}

/// Splits `exits.rate` into the statistic and the kind. A name may have dots itself.
fn split(metric: &str) -> (&str, Option<Kind>) {
    let kinds = metric.match_indices('.').find_map(|(at, _)| {
        let kind = Kind::from_name(&metric[at + 1..])?;
        Some((&metric[..at], Some(kind)))
    });
    kinds.unwrap_or((metric, None))
}

/// Finds the statistic in every schema that has it.
fn find(name: &str, kind: Option<Kind>, schemas: &[Arc<Schema>]) -> Result<Desc, String> {
    let wants_histogram = matches!(kind, Some(Kind::Quantile(_) | Kind::Max));
    let long = format!("{name}{HISTOGRAM_SUFFIX}");
    let of = |name: &str| {
        let descs = schemas.iter().flat_map(|schema| schema.descs());
        descs.filter(|desc| &*desc.name == name).cloned().collect::<Vec<Desc>>()
    };
    let mut found = of(name);
    if found.is_empty() && wants_histogram {
        found = of(&long);
    }
    let Some(first) = found.first().cloned() else {
        let known = schemas.iter().flat_map(|schema| schema.descs()).map(|desc| &*desc.name);
        return Err(UnknownName::new(name, &known.collect::<Vec<_>>()).to_string());
    };
    let form = |desc: &Desc| (desc.stat_type, desc.unit, desc.scale, desc.size, desc.bucket_size);
    match found.iter().all(|desc| form(desc) == form(&first)) {
        true => Ok(first),
        false => Err(format!("'{name}' is not the same statistic in all objects: select a target")),
    }
}

/// Returns the kind, or the usual one of the statistic's type, if the type has it.
fn checked_kind(desc: &Desc, kind: Option<Kind>) -> Result<Kind, String> {
    let name = &desc.name;
    let is_counter = desc.stat_type == StatType::Cumulative && !desc.is_boolean();
    if desc.stat_type.is_histogram() && !desc.is_boolean() {
        return match kind {
            Some(Kind::Value) | None => Err(format!(
                "'{name}' is a histogram: write {name}.p99, {name}.max, {name}.rate or {name}.delta"
            )),
            Some(kind) => Ok(kind),
        };
    }
    match kind {
        None if is_counter => Ok(Kind::Rate),
        None | Some(Kind::Value) => Ok(Kind::Value),
        Some(kind @ (Kind::Rate | Kind::Delta)) if is_counter => Ok(kind),
        Some(Kind::Rate | Kind::Delta) => Err(format!(
            "'{name}' does not count ({}): it has no rate, write {name}.value",
            desc.stat_type
        )),
        Some(Kind::Quantile(_) | Kind::Max) => {
            let other = if is_counter { "rate" } else { "value" };
            Err(format!("'{name}' is not a histogram: write {name}.{other}"))
        }
    }
}

/// Checks that the bound has a unit of the left side.
fn check_unit(desc: &Desc, kind: Kind, comparison: &Comparison) -> Result<(), String> {
    let bound = comparison.bound;
    let is_counted = matches!(kind, Kind::Rate | Kind::Delta) && desc.stat_type.is_histogram();
    // Seconds per second have no unit.
    let is_share = kind == Kind::Rate && desc.unit == Unit::Seconds;
    let dimension = match is_counted || is_share {
        true => Dimension::Plain,
        false => Dimension::of(desc.unit),
    };
    let metric = &comparison.metric;
    if bound.is_per_second && kind != Kind::Rate {
        return Err(format!("'{metric}' is not a rate: its bound is not per second"));
    }
    // Nothing that is, is less than 0: 0 needs no unit.
    if bound.dimension == dimension || (bound.value == 0.0 && bound.dimension == Dimension::Plain) {
        return Ok(());
    }
    let per_second = if kind == Kind::Rate { "/s" } else { "" };
    let what = match dimension {
        Dimension::Plain if is_share => "a share of time",
        Dimension::Plain => "a plain number",
        Dimension::Seconds => "a time",
        Dimension::Bytes => "an amount of bytes",
    };
    let example = if is_share { "25%" } else { dimension.example() };
    let per_second = if is_share { "" } else { per_second };
    Err(format!("'{metric}' is {what}: compare it with {example}{per_second}, for example"))
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{Base, Scale, Target};

    use super::*;

    fn schemas() -> Vec<Arc<Schema>> {
        let ns = Scale { base: Base::Ten, exponent: -9 };
        let seconds = |desc: Desc| Desc { unit: Unit::Seconds, scale: ns, ..desc };
        let typed = |stat_type, desc: Desc| Desc { stat_type, ..desc };
        let wait = Desc { size: 32, ..Desc::counter("halt_wait_hist", 24) };
        vec![
            Schema::new(
                "kvm",
                Target::Vcpu,
                vec![
                    Desc::counter("exits", 0),
                    seconds(Desc::counter("halt_wait_ns", 8)),
                    typed(StatType::Instant, Desc::counter("level", 16)),
                    seconds(typed(StatType::Log2Histogram, wait)),
                ],
            ),
            Schema::new("kvm", Target::Vm, vec![Desc { size: 2, ..Desc::counter("level", 0) }]),
        ]
    }

    fn check(text: &str, schemas: &[Arc<Schema>]) -> Result<Term, String> {
        let Ok(Expr::One(comparison)) = super::super::syntax::parse(text) else {
            panic!("{text} is one comparison");
        };
        term(&comparison, schemas).map_err(|fault| fault.text)
    }

    #[test]
    fn what_fits_is_resolved() {
        let vcpu = &schemas()[..1];
        for (text, kind, name, bound) in [
            ("exits > 50k", Kind::Rate, "exits", 50e3),
            ("exits.rate > 50k/s", Kind::Rate, "exits", 50e3),
            ("exits.delta > 3", Kind::Delta, "exits", 3.0),
            ("exits.value > 3", Kind::Value, "exits", 3.0),
            ("level > 3", Kind::Value, "level", 3.0),
            ("halt_wait_ns.rate > 25%", Kind::Rate, "halt_wait_ns", 0.25),
            ("halt_wait_ns.delta > 5ms", Kind::Delta, "halt_wait_ns", 5e-3),
            ("halt_wait.p50 > 2ms", Kind::Quantile(0.5), "halt_wait_hist", 2e-3),
            ("halt_wait_hist.max >= 2ms", Kind::Max, "halt_wait_hist", 2e-3),
            ("halt_wait_hist.rate > 10", Kind::Rate, "halt_wait_hist", 10.0),
            ("halt_wait_ns.delta > 0", Kind::Delta, "halt_wait_ns", 0.0),
        ] {
            let term = check(text, vcpu).expect(text);
            assert_eq!((term.kind, &*term.desc.name, term.bound), (kind, name, bound), "{text}");
            let is_time = matches!(kind, Kind::Quantile(_) | Kind::Max) || name == "halt_wait_ns";
            assert_eq!(term.factor, if is_time { 1e-9 } else { 1.0 }, "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let vcpu = &schemas()[..1];
        for (text, want) in [
            ("exit.rate > 5", "no statistic named 'exit': did you mean 'exits'"),
            ("halt_wait.rate > 5", "no statistic named 'halt_wait': did you mean"),
            ("exits.p99 > 5", "'exits' is not a histogram: write exits.rate"),
            ("level.rate > 5", "'level' does not count (instant): it has no rate"),
            ("halt_wait_hist > 5", "'halt_wait_hist' is a histogram: write halt_wait_hist.p99"),
            ("exits.rate > 5ms", "'exits.rate' is a plain number: compare it with 50k/s"),
            (
                "halt_wait_ns.rate > 5ms",
                "'halt_wait_ns.rate' is a share of time: compare it with 25%",
            ),
            ("halt_wait.p99 > 5", "'halt_wait.p99' is a time: compare it with 2ms"),
            ("exits.delta > 5/s", "'exits.delta' is not a rate"),
        ] {
            let fault = check(text, vcpu).expect_err(text);
            assert!(fault.starts_with(want), "{text}: {fault}");
        }
        let fault = check("level > 5", &schemas()).expect_err("it has two forms");
        assert!(fault.contains("not the same statistic in all objects"), "{fault}");
    }
}
