//! The text of QEMU's `info stats`, from a snapshot.
//!
//! The line format is QEMU's (7.1 to 10.2, `stats/stats-hmp-cmds.c`), with differences: schema
//! order, ascending buckets, unsigned numbers, and unknown types are shown. [`Order::Qemu`] has
//! none of these differences. In both orders, names are made [`printable`]; the names of the kernel
//! and of QEMU already are. Lines end with `\n`; a monitor turns that into `\r\n`.
//!
//! Invariant: only values of this snapshot are printed. A row that could not be read says so.

use std::fmt;

use crate::snapshot::{ObjectView, RowState, Snapshot, Value};
use crate::stat::StatType;
use crate::text::printable;

/// The order of lists in replies. [`Order::Qemu`] also has the other habits of QEMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Statistics in the provider's order, vCPUs by index, ascending buckets.
    #[default]
    Schema,
    /// The bytes of QEMU 7.1 to 10.2: all lists reversed, numbers of `info stats` signed, and
    /// statistics left out that QAPI has no word for.
    Qemu,
}

/// The text of a snapshot's objects, which `Display` writes.
#[derive(Clone, Copy, Debug)]
pub struct InfoStats<'a> {
    /// The snapshot to print.
    pub snapshot: &'a Snapshot,
    /// Whether to write a `provider:` line above each object. QEMU does if the user names no
    /// provider.
    pub with_provider: bool,
    /// Whether to write a line with the path above each object, to tell vCPUs apart. QEMU has no
    /// such line, so [`Order::Qemu`] leaves it out.
    pub with_path: bool,
    /// The order of the statistics.
    pub order: Order,
}

impl fmt::Display for InfoStats<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut objects = self.snapshot.objects();
        match self.order {
            Order::Schema => objects.try_for_each(|view| self.object(f, view)),
            Order::Qemu => objects.rev().try_for_each(|view| self.object(f, view)),
        }
    }
}

impl InfoStats<'_> {
    fn object(&self, f: &mut fmt::Formatter<'_>, view: ObjectView<'_>) -> fmt::Result {
        if view.state().has_values() && !view.stats().any(|value| self.has(&value)) {
            return Ok(());
        }
        if self.with_path && self.order == Order::Schema {
            writeln!(f, "{}", printable(&view.object().path))?;
        }
        if self.with_provider {
            writeln!(f, "provider: {}", printable(view.object().schema.provider()))?;
        }
        match view.state() {
            RowState::Good | RowState::Aged(_) => self.stats(f, view),
            RowState::Stale => writeln!(f, "    (its source has stopped answering)"),
            RowState::Missing => writeln!(f, "    (was not read)"),
            RowState::Torn => writeln!(f, "    (changed while it was read)"),
            RowState::Gone => writeln!(f, "    (is gone)"),
            RowState::Io(errno) => writeln!(f, "    (could not be read: errno {errno})"),
        }
    }

    fn stats(&self, f: &mut fmt::Formatter<'_>, view: ObjectView<'_>) -> fmt::Result {
        let mut stats = view.stats().filter(|value| self.has(value));
        match self.order {
            Order::Schema => stats.try_for_each(|value| self.line(f, value)),
            Order::Qemu => stats.rev().try_for_each(|value| self.line(f, value)),
        }
    }

    /// Returns whether this order writes a line for a statistic.
    fn has(&self, value: &Value<'_>) -> bool {
        self.order == Order::Schema || value.desc().has_qapi_value()
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, value: Value<'_>) -> fmt::Result {
        let desc = value.desc();
        let width = match self.order {
            Order::Schema => (desc.bucket_size != 0).then(|| i64::from(desc.bucket_size)),
            Order::Qemu => {
                let has_width = desc.stat_type == StatType::LinearHistogram;
                has_width.then(|| i64::from(desc.bucket_size.cast_signed()))
            }
        };
        write!(f, "    {} ({}", printable(&desc.name), desc.stat_type)?;
        let unit = value.unit_text();
        if !unit.is_empty() {
            write!(f, ", {unit}")?;
        }
        if let Some(width) = width {
            write!(f, ", bucket size={width}")?;
        }
        f.write_str("): ")?;
        match (value.boolean(), value.number()) {
            (Some(truth), _) => f.write_str(if truth { "yes" } else { "no" })?,
            (None, Some(number)) => self.number(f, number)?,
            (None, None) => self.buckets(f, value.words())?,
        }
        writeln!(f)
    }

    fn buckets(&self, f: &mut fmt::Formatter<'_>, words: &[u64]) -> fmt::Result {
        for at in 0..words.len() {
            write!(f, "[{}]=", at + 1)?;
            let from_start = match self.order {
                Order::Schema => at,
                Order::Qemu => words.len() - 1 - at,
            };
            self.number(f, words[from_start])?;
            f.write_str(" ")?;
        }
        Ok(())
    }

    fn number(&self, f: &mut fmt::Formatter<'_>, word: u64) -> fmt::Result {
        match self.order {
            Order::Schema => write!(f, "{word}"),
            Order::Qemu => write!(f, "{}", word.cast_signed()),
        }
    }
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
        text_in(Order::Schema, descs, &[words], state)
    }

    /// Makes a snapshot with one object for each row.
    fn text_in(order: Order, descs: Vec<Desc>, rows: &[&[u64]], state: RowState) -> String {
        let schema = Schema::new("kvm", Target::Vcpu, descs);
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let object = |index| {
            let path = format!("/vm/a/vcpu[{index}]").into();
            Object { path, index: Some(index), schema: Arc::clone(&schema), key: index.into() }
        };
        let objects = (0..).zip(rows).map(|(index, _)| object(index)).collect();
        let mut snapshot = Snapshot::new(&Layout::new(0, vec![(Arc::clone(&plan), objects)]));
        let (kept, states) = snapshot.begin(1);
        states.fill(state);
        for (row, kept) in rows.iter().zip(kept.chunks_mut(plan.row_words())) {
            plan.keep(row, kept);
        }
        let with_path = order == Order::Qemu;
        InfoStats { snapshot: &snapshot, with_provider: true, with_path, order }.to_string()
    }

    /// The expected lines are QEMU's, with ascending buckets and unsigned numbers.
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

    /// In QEMU's order the text equals QEMU's: statistics that QEMU drops are left out, and no path
    /// is printed.
    #[test]
    fn in_qemus_order_all_is_reversed_and_signed() {
        let linear = |bucket_size, desc| {
            let (size, stat_type) = (3, StatType::LinearHistogram);
            Desc { stat_type, size, bucket_size, ..desc }
        };
        let base = |exponent| Scale { base: Base::Unknown(2), exponent };
        let descs = vec![
            Desc { stat_type: StatType::Unknown(9), ..Desc::counter("newer_type", 0) },
            Desc { unit: Unit::Unknown(7), ..Desc::counter("newer_unit", 0) },
            Desc { scale: base(0), ..Desc::counter("newer_base", 0) },
            linear(u32::MAX, Desc::counter("lin_big_bucket", 8)),
            linear(0, Desc::counter("lin_no_bucket", 8)),
            Desc { bucket_size: 5, ..Desc::counter("no_lin", 0) },
            Desc::counter("tab\there", 0),
        ];
        let want = "\
provider: kvm
    tab\u{fffd}here (cumulative): 7
    no_lin (cumulative): 7
    lin_no_bucket (linear-histogram, bucket size=0): [1]=3 [2]=2 [3]=1\u{20}
    lin_big_bucket (linear-histogram, bucket size=-1): [1]=3 [2]=2 [3]=1\u{20}
provider: kvm
    tab\u{fffd}here (cumulative): -1
    no_lin (cumulative): -1
    lin_no_bucket (linear-histogram, bucket size=0): [1]=0 [2]=0 [3]=-2\u{20}
    lin_big_bucket (linear-histogram, bucket size=-1): [1]=0 [2]=0 [3]=-2\u{20}
";
        let rows: [&[u64]; 2] = [&[u64::MAX, u64::MAX - 1, 0, 0], &[7, 1, 2, 3]];
        assert_eq!(text_in(Order::Qemu, descs.clone(), &rows, RowState::Good), want);
        let unknown = descs.into_iter().take(3).collect();
        assert_eq!(text_in(Order::Qemu, unknown, &rows, RowState::Good), "");
    }

    #[test]
    fn a_row_that_could_not_be_read_says_so() {
        let one = || vec![Desc::counter("exits", 0)];
        assert_eq!(text(one(), &[7], RowState::Gone), "provider: kvm\n    (is gone)\n");
        let text = text(one(), &[7], RowState::Io(5));
        assert!(!text.contains('7') && text.contains("errno 5"), "{text}");
    }
}
