//! The text of QEMU's `info stats`, from a snapshot.
//!
//! The line format is QEMU's (7.1 to 10.2, `stats/stats-hmp-cmds.c`), with our differences: schema
//! order, buckets ascending, numbers unsigned, unknown types shown, control characters in names not
//! passed on. Lines end with `\n`; a monitor turns that into `\r\n`.
//!
//! Invariant: only values of this snapshot are printed. A row that could not be read says so.

use std::fmt;

use crate::snapshot::{ObjectView, RowState, Snapshot, Value};

/// The text of a snapshot's objects. Printed by `Display`.
#[derive(Clone, Copy, Debug)]
pub struct InfoStats<'a> {
    /// What to print.
    pub snapshot: &'a Snapshot,
    /// The `provider:` line above each object: QEMU prints it when no provider was asked for.
    pub with_provider: bool,
    /// A line with the path above each object, which QEMU does not have and people with more than
    /// one vCPU need.
    pub with_path: bool,
}

impl fmt::Display for InfoStats<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for view in self.snapshot.objects() {
            if view.state().has_values() && view.stats().next().is_none() {
                continue;
            }
            if self.with_path {
                writeln!(f, "{}", printable(&view.object().path))?;
            }
            if self.with_provider {
                writeln!(f, "provider: {}", view.object().schema.provider())?;
            }
            object(f, view)?;
        }
        Ok(())
    }
}

fn object(f: &mut fmt::Formatter<'_>, view: ObjectView<'_>) -> fmt::Result {
    match view.state() {
        RowState::Good | RowState::Aged(_) => view.stats().try_for_each(|value| line(f, value)),
        RowState::Stale => writeln!(f, "    (has fallen silent)"),
        RowState::Missing => writeln!(f, "    (was not read)"),
        RowState::Torn => writeln!(f, "    (changed while it was read)"),
        RowState::Gone => writeln!(f, "    (is gone)"),
        RowState::Io(errno) => writeln!(f, "    (could not be read: errno {errno})"),
    }
}

/// A name as it may be printed: whoever wrote it, it is one line and moves no cursor.
///
/// ```
/// assert_eq!(vmstrobe_core::hmp::printable("exits\n\x1b[2J"), "exits\u{fffd}\u{fffd}[2J");
/// ```
pub fn printable(name: &str) -> String {
    name.replace(char::is_control, "\u{fffd}")
}

fn line(f: &mut fmt::Formatter<'_>, value: Value<'_>) -> fmt::Result {
    let desc = value.desc();
    write!(f, "    {} ({}", printable(&desc.name), desc.stat_type)?;
    let unit = value.unit_text();
    if !unit.is_empty() {
        write!(f, ", {unit}")?;
    }
    if desc.bucket_size != 0 {
        write!(f, ", bucket size={}", desc.bucket_size)?;
    }
    f.write_str("): ")?;
    match (value.boolean(), value.number()) {
        (Some(truth), _) => f.write_str(if truth { "yes" } else { "no" })?,
        (None, Some(number)) => write!(f, "{number}")?,
        (None, None) => {
            for (i, word) in value.words().iter().enumerate() {
                write!(f, "[{}]={word} ", i + 1)?;
            }
        }
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Mask;
    use crate::plan::ReadPlan;
    use crate::schema::{Desc, Object, Schema, Target};
    use crate::snapshot::Layout;
    use crate::stat::{Base, Scale, StatType, Unit};
    use std::sync::Arc;

    fn text(descs: Vec<Desc>, words: &[u64], state: RowState) -> String {
        let schema = Schema::new("kvm", Target::Vcpu, descs);
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let object = Object { path: "/vm/a/vcpu[0]".into(), index: Some(0), schema, key: 1 };
        let mut snapshot = Snapshot::new(&Layout::new(0, vec![(Arc::clone(&plan), vec![object])]));
        let (row, states) = snapshot.begin(1);
        plan.keep(words, row);
        states[0] = state;
        InfoStats { snapshot: &snapshot, with_provider: true, with_path: false }.to_string()
    }

    /// QEMU's own lines (query-stats.md §3.1), buckets ascending and numbers unsigned.
    #[test]
    fn lines_are_qemus() {
        let ns = |desc| Desc { unit: Unit::Seconds, scale: Scale::NANO, ..desc };
        let boolean = |stat_type, desc| Desc { unit: Unit::Boolean, stat_type, ..desc };
        let thousand = Scale { base: Base::Ten, exponent: 3 };
        let linear = StatType::LinearHistogram;
        let descs = vec![
            ns(Desc::counter("halt_wait_ns", 0)),
            boolean(StatType::Instant, Desc::counter("guest_mode", 8)),
            Desc { stat_type: StatType::Peak, ..Desc::counter("max_mmu_rmap_size", 16) },
            Desc {
                stat_type: linear,
                size: 3,
                bucket_size: 1000,
                ..ns(Desc::counter("lin_sec", 24))
            },
            boolean(StatType::Log2Histogram, Desc::counter("log_bool", 24)),
            Desc { stat_type: linear, bucket_size: 4, ..Desc::counter("lin_size1", 24) },
            Desc { scale: thousand, ..boolean(StatType::Instant, Desc::counter("bool_exp", 24)) },
            Desc::counter("u64max", 48),
            Desc { stat_type: StatType::Unknown(9), ..Desc::counter("newer", 0) },
        ];
        let words = [59910818, 0, 0, 10, 20, 30, u64::MAX];
        let want = "\
provider: kvm
    halt_wait_ns (cumulative, ns): 59910818
    guest_mode (instant, boolean): no
    max_mmu_rmap_size (peak): 0
    lin_sec (linear-histogram, ns, bucket size=1000): [1]=10 [2]=20 [3]=30\u{20}
    log_bool (log2-histogram, boolean): yes
    lin_size1 (linear-histogram, bucket size=4): 10
    bool_exp (instant, * 10^3 boolean): yes
    u64max (cumulative): 18446744073709551615
    newer (type-9): 59910818
";
        assert_eq!(text(descs, &words, RowState::Good), want);
    }

    #[test]
    fn a_row_that_could_not_be_read_says_so() {
        let one = || vec![Desc::counter("exits", 0)];
        assert_eq!(text(one(), &[7], RowState::Gone), "provider: kvm\n    (is gone)\n");
        let text = text(one(), &[7], RowState::Io(5));
        assert!(!text.contains('7') && text.contains("errno 5"), "{text}");
    }
}
