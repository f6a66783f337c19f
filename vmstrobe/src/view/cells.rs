//! The cells of the table, of an object or summed over those of a VM.
//!
//! Invariant: a cell without a known value is not 0. Sorted by, it stands behind all others.

use vmstrobe_core::{Desc, quantile};

use super::action::Amounts;
use super::compared::{
    Compared, Grown, Sample, Words, counts, factor, has_times, is_time, unit_factor,
};
use super::frame::{Cell, ColumnKind};
use super::objects::Placed;

/// The statistic that is true while a vCPU is halted, and the one that counts its halts.
const BLOCKING: &str = "blocking";
const HALTS: [&str; 2] = ["halt_exits", "wfi_exit_stat"];

/// Returns the cell of a column for these objects together.
pub(super) fn cell<'p>(
    kind: &ColumnKind,
    amounts: Amounts,
    of: &Compared,
    objects: impl Iterator<Item = &'p Placed> + Clone,
) -> Cell {
    match kind {
        ColumnKind::Amount(name) => amount(name, amounts, of, objects),
        ColumnKind::Total(name) => total(name, &of.now, objects),
        ColumnKind::Share(name) => share(name, of, objects),
        ColumnKind::Quantile(name, percent) => {
            let grown = Grown::between(of.ten.as_ref(), &of.now, objects, name);
            quantile_cell(&grown, *percent)
        }
    }
}

/// Returns the number of a cell by which it is sorted; the lowest where it has none.
pub(super) fn key(cell: &Cell) -> f64 {
    match *cell {
        Cell::Absent | Cell::Unread => f64::NEG_INFINITY,
        Cell::Number(number) | Cell::Nanoseconds(number) | Cell::Percent(number) => number,
        Cell::AtMost(bound) | Cell::AtMostNanoseconds(bound) => {
            bound.map_or(f64::INFINITY, |bound| bound as f64)
        }
    }
}

/// Returns the rate, the change or the value of a statistic. What does not count has its value.
pub(super) fn amount<'p>(
    name: &str,
    amounts: Amounts,
    of: &Compared,
    objects: impl Iterator<Item = &'p Placed> + Clone,
) -> Cell {
    let before = match amounts {
        Amounts::Rate => of.second.as_ref(),
        Amounts::Delta => of.baseline.as_ref(),
        Amounts::Total => return total(name, &of.now, objects),
    };
    let grown = Grown::between(before, &of.now, objects.clone(), name);
    match grown.desc {
        Some(desc) if !counts(desc) => total(name, &of.now, objects),
        None if grown.objects == 0 => Cell::Absent,
        Some(desc) => match grown.total() {
            Some(total) if amounts == Amounts::Rate => number(desc, total as f64 / grown.seconds),
            Some(total) => number(desc, total as f64),
            None => Cell::Unread,
        },
        None => Cell::Unread,
    }
}

/// Returns the value of a statistic: the sum of objects, or of buckets. Ids have no sum.
pub(super) fn total<'p>(
    name: &str,
    now: &Sample,
    objects: impl Iterator<Item = &'p Placed>,
) -> Cell {
    let (mut found, mut known, mut sum, mut of) = (0, 0, 0.0, None);
    for placed in objects {
        match now.words(placed, name) {
            Words::Absent => continue,
            Words::Unread => {}
            Words::Read(desc, words) => {
                known += 1;
                sum += words.iter().map(|&word| word as f64).sum::<f64>();
                of = Some(desc);
            }
        }
        found += 1;
    }
    match of {
        Some(desc) if desc.is_id() && known > 1 => Cell::Absent,
        Some(desc) => number(desc, sum),
        None if found == 0 => Cell::Absent,
        None => Cell::Unread,
    }
}

/// Returns the share of time, over the objects' mean.
fn share<'p>(name: &str, of: &Compared, objects: impl Iterator<Item = &'p Placed> + Clone) -> Cell {
    let (mut found, mut known, mut sum) = (0, 0, 0.0);
    for placed in objects {
        let one = || std::iter::once(placed);
        let grown = Grown::between(of.ten.as_ref(), &of.now, one(), name);
        found += grown.objects;
        let (Some(desc), Some(total)) = (grown.desc, grown.total()) else { continue };
        known += 1;
        let share = total as f64 * factor(desc) * 1e-9 / grown.seconds;
        sum += if total == 0 && is_halted(of, placed) { 1.0 } else { share.min(1.0) };
    }
    match (found, known) {
        (0, _) => Cell::Absent,
        (_, 0) => Cell::Unread,
        _ => Cell::Percent(100.0 * sum / f64::from(known)),
    }
}

/// Returns true if a vCPU has been in one halt for all the time. A wait is counted when it ends, so
/// that the count of waiting shows nothing of it.
fn is_halted(of: &Compared, placed: &Placed) -> bool {
    let blocks = |sample: &Sample| match sample.words_of(placed.id, BLOCKING) {
        Words::Read(_, words) => words.first().is_some_and(|&word| word != 0),
        Words::Absent | Words::Unread => false,
    };
    let has_halted = HALTS.iter().any(|name| {
        let one = std::iter::once(placed);
        Grown::between(of.ten.as_ref(), &of.now, one, name).total().is_some_and(|n| n > 0)
    });
    !has_halted && blocks(&of.now) && of.ten.as_ref().is_some_and(blocks)
}

/// Returns the quantile of what was counted; absent if nothing was.
fn quantile_cell(grown: &Grown<'_>, percent: u8) -> Cell {
    let Some(desc) = grown.desc else {
        return if grown.objects == 0 { Cell::Absent } else { Cell::Unread };
    };
    if grown.known == 0 {
        return Cell::Unread;
    }
    match quantile(desc, &grown.words, f64::from(percent) / 100.0) {
        Some(found) => bound(desc, found.bucket.end),
        None => Cell::Absent,
    }
}

/// Returns the cell of an upper bound.
fn bound(desc: &Desc, end: Option<u64>) -> Cell {
    let end = end.map(|end| scaled(desc, end));
    if has_times(desc) { Cell::AtMostNanoseconds(end) } else { Cell::AtMost(end) }
}

/// Returns a bound of a bucket in ns, or in the plain unit.
pub(super) fn scaled(desc: &Desc, bound: u64) -> u64 {
    // A bound is a whole number of stored units; beyond u64 the cast saturates.
    (bound as f64 * unit_factor(desc)).round() as u64
}

/// Returns the cell of a number in stored units, or of a rate.
pub(super) fn number(desc: &Desc, stored: f64) -> Cell {
    let number = stored * factor(desc);
    if is_time(desc) { Cell::Nanoseconds(number) } else { Cell::Number(number) }
}
