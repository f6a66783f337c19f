//! The lists of changes of many cells, packed.
//!
//! Of a cell that moves there are the difference of its first value from the base, the number of
//! its changes, the ticks of these (all, a bitmap, or the steps from one to the next, whichever is
//! shortest), and their differences in blocks. A cell that does not move is in the base alone,
//! which neighbours share.
//!
//! Invariant: cells that move are sorted, and the bytes of each can be read without the others.

use std::ops::Range;
use std::sync::Arc;

use super::bits::{BLOCK, Block, PADDING, put, put_block, put_signed, take, take_signed};
use crate::lists::{Changes, Lists};

/// The bytes that a cell takes that stands still and differs from the base: its place, and about
/// four for the difference.
const STRAY_BYTES: usize = size_of::<Moved>() + 4;

/// The ways in which the ticks of changes are written.
const BITMAP: u8 = 0;
const STEPS: u8 = 1;

/// The lists of changes of many cells.
#[derive(Clone, Debug)]
pub(super) struct PackedLists {
    ticks: usize,
    /// The value of each cell that is not among those that moved.
    base: Arc<[u64]>,
    /// True if the base was made for these lists, and is counted with them.
    has_own_base: bool,
    /// The bytes that strays have taken since then. Once they are as many as a base has, it is made
    /// anew.
    stray_bytes: usize,
    moved: Box<[Moved]>,
    bytes: Box<[u8]>,
}

/// A cell that moves, or that differs from the base.
#[derive(Clone, Copy, Debug)]
struct Moved {
    cell: u32,
    /// The place of its bytes.
    start: u32,
}

/// The ticks of a cell's changes, one after the other.
enum Ticks {
    All,
    Bitmap { start: usize },
    Steps { at: usize },
}

impl PackedLists {
    /// Packs lists, whose values are numbers by `word`.
    pub(super) fn new<T: Copy>(
        lists: &Lists<T>,
        word: impl Fn(T) -> u64 + Copy,
        ticks: usize,
        before: Option<&Self>,
    ) -> Self {
        let firsts = lists.first();
        let known = before.filter(|before| before.base.len() == firsts.len());
        let known = known.and_then(|before| {
            let is_stray = |(cell, (&first, &of_base)): (usize, (&T, &u64))| {
                word(first) != of_base && lists.of(cell).is_constant()
            };
            let cells = firsts.iter().zip(&*before.base).enumerate();
            let strays = cells.filter(|&cell| is_stray(cell)).count();
            let stray_bytes = before.stray_bytes + strays * STRAY_BYTES;
            let is_worth_it = stray_bytes <= firsts.len() * size_of::<u64>();
            is_worth_it.then(|| (Arc::clone(&before.base), stray_bytes))
        });
        let has_own_base = known.is_none();
        let own = || (firsts.iter().map(|&first| word(first)).collect(), 0);
        let (base, stray_bytes): (Arc<[u64]>, usize) = known.unwrap_or_else(own);
        let (mut moved, mut bytes, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        for (cell, &of_base) in base.iter().enumerate() {
            let changes = lists.of(cell);
            let first = word(changes.first);
            if first == of_base && changes.is_constant() {
                continue;
            }
            moved.push(Moved { cell: cell as u32, start: bytes.len() as u32 });
            put_signed(&mut bytes, first.wrapping_sub(of_base) as i64);
            pack(&mut bytes, changes, word, ticks, &mut scratch);
        }
        bytes.resize(bytes.len() + PADDING, 0);
        Self { ticks, base, has_own_base, stray_bytes, moved: moved.into(), bytes: bytes.into() }
    }

    /// Returns the memory that the lists take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let base = if self.has_own_base { self.base.len() * size_of::<u64>() } else { 0 };
        base + self.moved.len() * size_of::<Moved>() + self.bytes.len()
    }

    /// Returns the value of each cell that does not move.
    pub(super) fn base(&self) -> &[u64] {
        &self.base
    }

    /// Returns the value of a cell that is the same at all ticks.
    pub(super) fn constant(&self, cell: usize) -> Option<u64> {
        let Some(moved) = self.find(cell) else { return Some(self.base[cell]) };
        let mut at = moved.start as usize;
        let first = self.first(cell, &mut at);
        (take(&self.bytes, &mut at) == 0).then_some(first)
    }

    /// Gives the ranges of ticks with one value each of a cell.
    pub(super) fn runs(&self, cell: usize, mut give: impl FnMut(Range<usize>, u64)) {
        match self.find(cell) {
            Some(moved) => self.runs_of(moved, |range, value| {
                give(range, value);
                true
            }),
            None => give(0..self.ticks, self.base[cell]),
        }
    }

    /// Returns the value of a cell at a tick.
    pub(super) fn at(&self, cell: usize, tick: usize) -> u64 {
        self.find(cell).map_or_else(|| self.base[cell], |moved| self.moved_to(moved, tick))
    }

    /// Gives the value of every cell at a tick.
    pub(super) fn all_at(&self, tick: usize, mut give: impl FnMut(usize, u64)) {
        self.base.iter().enumerate().for_each(|(cell, &value)| give(cell, value));
        self.moved_at(tick, give);
    }

    /// Gives the value at a tick of every cell that is not as the base says.
    pub(super) fn moved_at(&self, tick: usize, mut give: impl FnMut(usize, u64)) {
        for &moved in &self.moved {
            give(moved.cell as usize, self.moved_to(moved, tick));
        }
    }

    /// Returns the lists that were packed, of the values that `value` makes of numbers.
    pub(super) fn unpack<T: Copy + Default + PartialEq>(
        &self,
        value: impl Fn(u64) -> T,
    ) -> Lists<T> {
        let mut lists = Lists::of_constants(self.base.iter().map(|&word| value(word)).collect());
        let (mut values, all) = (vec![T::default(); self.ticks], vec![true; self.ticks]);
        for &moved in &self.moved {
            self.runs_of(moved, |range, word| {
                values[range].fill(value(word));
                true
            });
            let set = lists.set(moved.cell as usize, &values, &all);
            set.expect("a batch within the limits was packed");
        }
        lists
    }

    fn find(&self, cell: usize) -> Option<Moved> {
        let at = self.moved.binary_search_by_key(&(cell as u32), |moved| moved.cell).ok()?;
        Some(self.moved[at])
    }

    /// Returns the first value of a cell whose bytes begin there.
    fn first(&self, cell: usize, at: &mut usize) -> u64 {
        self.base[cell].wrapping_add(take_signed(&self.bytes, at) as u64)
    }

    fn moved_to(&self, moved: Moved, tick: usize) -> u64 {
        let mut last = 0;
        self.runs_of(moved, |range, value| {
            last = value;
            range.end <= tick
        });
        last
    }

    /// Gives the ranges of ticks with one value each, until `give` returns false.
    fn runs_of(&self, moved: Moved, mut give: impl FnMut(Range<usize>, u64) -> bool) {
        let (bytes, mut at) = (&*self.bytes, moved.start as usize);
        let mut value = self.first(moved.cell as usize, &mut at);
        let changes = take(bytes, &mut at) as usize;
        let mut ticks = Ticks::take(bytes, &mut at, changes, self.ticks);
        let (mut from, mut block) = (0, Block::default());
        for change in 0..changes {
            if change % BLOCK == 0 {
                block = Block::take(bytes, &mut at, BLOCK.min(changes - change));
            }
            let tick = ticks.next(bytes, from);
            if !give(from..tick, value) {
                return;
            }
            value = value.wrapping_add(block.get(bytes, change % BLOCK) as u64);
            from = tick;
        }
        give(from..self.ticks, value);
    }
}

impl Ticks {
    /// Reads the head of the ticks of changes. The place moves behind them.
    fn take(bytes: &[u8], at: &mut usize, changes: usize, ticks: usize) -> Self {
        if changes == 0 || changes + 1 == ticks {
            return Self::All;
        }
        let way = bytes[*at];
        *at += 1;
        let length = match way {
            BITMAP => ticks.div_ceil(8),
            _ => take(bytes, at) as usize,
        };
        let start = *at;
        *at += length;
        if way == BITMAP { Self::Bitmap { start } } else { Self::Steps { at: start } }
    }

    /// Returns the next tick behind that one.
    #[inline]
    fn next(&mut self, bytes: &[u8], behind: usize) -> usize {
        match self {
            Self::All => behind + 1,
            Self::Steps { at } => behind + take(bytes, at) as usize,
            Self::Bitmap { start } => {
                let from = behind + 1;
                let mut byte = *start + from / 8;
                let mut bits = bytes[byte] >> (from % 8) << (from % 8);
                while bits == 0 {
                    byte += 1;
                    bits = bytes[byte];
                }
                (byte - *start) * 8 + bits.trailing_zeros() as usize
            }
        }
    }
}

/// Appends the changes of a cell.
fn pack<T: Copy>(
    out: &mut Vec<u8>,
    changes: Changes<'_, T>,
    word: impl Fn(T) -> u64,
    ticks: usize,
    differences: &mut Vec<i64>,
) {
    let count = changes.at.len();
    put(out, count as u64);
    if count == 0 {
        return;
    }
    if count + 1 != ticks {
        put_ticks(out, changes.at, ticks);
    }
    let mut last = word(changes.first);
    differences.clear();
    differences.extend(changes.values.iter().map(|&value| {
        let value = word(value);
        value.wrapping_sub(std::mem::replace(&mut last, value)) as i64
    }));
    differences.chunks(BLOCK).for_each(|block| put_block(out, block));
}

/// Appends the ticks of changes, in the shorter way.
fn put_ticks(out: &mut Vec<u8>, at: &[u32], ticks: usize) {
    let (start, bitmap) = (out.len(), ticks.div_ceil(8));
    let mut steps = Vec::new();
    let mut last = 0;
    for &tick in at {
        put(&mut steps, u64::from(tick - last));
        last = tick;
        if steps.len() >= bitmap {
            break;
        }
    }
    if steps.len() < bitmap {
        out.push(STEPS);
        put(out, steps.len() as u64);
        out.extend(steps);
        return;
    }
    out.push(BITMAP);
    out.resize(start + 1 + bitmap, 0);
    at.iter().for_each(|&tick| out[start + 1 + tick as usize / 8] |= 1 << (tick % 8));
}
