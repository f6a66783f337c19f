//! In what order QEMU meets the members of a JSON object: that of a `QDict` when it writes one or
//! walks one, that of a GLib `GHashTable` when it looks for members that no argument took.
//!
//! Invariant: both orders depend on nothing but the keys, as sent and as taken, and are those of
//! QEMU 10.0.2 with GLib 2.74. Whatever the keys, the time is bounded.

use std::cmp::Reverse;
use std::mem;

/// Buckets of a `QDict`.
const BUCKETS: u32 = 512;
/// The most members of an object whose left-over ones are looked for in GLib's order. Keys can be
/// made that all begin at one place of its table, so that each is compared with all before it; of
/// more members than this, the first left in the order of the `QDict` is named instead.
const MAX_TABLED_MEMBERS: usize = 1024;
/// The smallest `GHashTable` has 1 << 3 slots.
const MIN_BITS: usize = 3;
/// By what a hash is reduced, for tables of 1 << 0, 1 << 1, ... slots.
const MODULI: [u32; 12] = [1, 2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039];

/// Returns the sort key of an object's member, `index` being its place as sent: by bucket, and
/// within a bucket the later one first.
pub(super) fn rank(key: &str, index: usize) -> (u32, Reverse<usize>) {
    (bucket(key), Reverse(index))
}

/// The places of `keys`, given as sent, in the order of a `QDict`.
pub(super) fn order<'k>(keys: impl Iterator<Item = &'k str>) -> Vec<usize> {
    let mut ranks: Vec<_> = keys.enumerate().map(|(index, key)| rank(key, index)).collect();
    ranks.sort_unstable();
    ranks.into_iter().map(|(_, Reverse(index))| index).collect()
}

/// The place of the member that QEMU finds unexpected, of an object with `keys`, given as sent, of
/// which those at `taken` were taken in that order; None if all were.
pub(super) fn first_left<'k>(
    keys: impl ExactSizeIterator<Item = &'k str> + Clone,
    taken: &[usize],
) -> Option<usize> {
    if keys.len() == taken.len() {
        return None;
    }
    let order = order(keys.clone());
    if order.len() > MAX_TABLED_MEMBERS {
        return order.into_iter().find(|index| !taken.contains(index));
    }
    let mut table = Table::new(keys.map(string_hash).collect());
    order.into_iter().for_each(|index| table.insert(index));
    taken.iter().for_each(|index| table.remove(*index));
    table.first()
}

/// The `QDict` bucket of a key, 0 to 511.
fn bucket(key: &str) -> u32 {
    let (mut sum, mut len, mut shift) = (0_u32, 0_u32, 0);
    for byte in c_bytes(key) {
        sum = sum.wrapping_add(u32::from(byte) << shift);
        len = len.wrapping_add(1);
        shift = (shift + 5) % 24;
    }
    let sum = sum.wrapping_add(len.wrapping_mul(0x238F_13AF));
    sum.wrapping_mul(1_103_515_243).wrapping_add(12345) % BUCKETS
}

/// GLib's hash of a string, over signed bytes; 0 and 1 mean something else in its table.
fn string_hash(key: &str) -> u32 {
    let hash = c_bytes(key).fold(5381_u32, |hash, byte| {
        hash.wrapping_mul(33).wrapping_add_signed(i32::from(byte.cast_signed()))
    });
    if hash < 2 { 2 } else { hash }
}

/// A key's bytes as QEMU has them: no NUL ends a string early, for it is kept in two bytes.
fn c_bytes(key: &str) -> impl Iterator<Item = u8> {
    let bytes = key.bytes().flat_map(|byte| if byte == 0 { [0xC0, 0x80] } else { [byte, 0] });
    bytes.filter(|byte| *byte != 0)
}

/// A `GHashTable` of members, each known by its place. Its keys are never equal.
struct Table {
    /// By the member's place.
    hashes: Vec<u32>,
    slots: Vec<Slot>,
    members: usize,
    /// Slots that are not free.
    occupied: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    /// Its member was removed.
    Grave,
    Member(usize),
}

impl Table {
    fn new(hashes: Vec<u32>) -> Self {
        Self { hashes, slots: vec![Slot::Free; 1 << MIN_BITS], members: 0, occupied: 0 }
    }

    /// Inserts a member; nothing has been removed yet.
    fn insert(&mut self, member: usize) {
        if let Some(at) = self.probe(member, |slot| slot == Slot::Free) {
            self.slots[at] = Slot::Member(member);
        }
        self.members += 1;
        self.occupied += 1;
        self.fit();
    }

    fn remove(&mut self, member: usize) {
        if let Some(at) = self.probe(member, |slot| slot == Slot::Member(member)) {
            self.slots[at] = Slot::Grave;
            self.members -= 1;
            self.fit();
        }
    }

    /// The first member in the order of iteration.
    fn first(&self) -> Option<usize> {
        self.slots.iter().find_map(|slot| match slot {
            Slot::Member(member) => Some(*member),
            _ => None,
        })
    }

    /// The first slot of a member's probe sequence that is as wanted.
    fn probe(&self, member: usize, wanted: impl Fn(Slot) -> bool) -> Option<usize> {
        probe_in(self.slots.len(), self.hashes[member]).find(|at| wanted(self.slots[*at]))
    }

    /// Grows a table that is nearly full of members and graves, shrinks one that is nearly empty.
    fn fit(&mut self) {
        let slots = self.slots.len();
        let is_sparse = slots > 4 * self.members && slots > 1 << MIN_BITS;
        if is_sparse || slots <= self.occupied + self.occupied / 16 {
            self.resize();
        }
    }

    /// Moves the members within the same memory, as GLib does: one put where another stands puts
    /// that out to be placed next. So the order depends on more than the keys and the size.
    fn resize(&mut self) {
        let old = self.slots.len();
        let bits = (usize::BITS - (self.members * 1333 / 1000).leading_zeros()) as usize;
        let new = 1 << bits.max(MIN_BITS);
        self.slots.resize(old.max(new), Slot::Free);
        let mut is_settled = vec![false; self.slots.len()];
        for from in 0..old {
            if is_settled[from] {
                continue;
            }
            let mut slot = mem::replace(&mut self.slots[from], Slot::Free);
            while let Slot::Member(member) = slot {
                let mut places = probe_in(new, self.hashes[member]);
                let Some(at) = places.find(|at| !is_settled[*at]) else { break };
                is_settled[at] = true;
                slot = mem::replace(&mut self.slots[at], slot);
            }
        }
        self.slots.truncate(new);
        self.occupied = self.members;
    }
}

/// The slots that a hash may have in a table of `slots`, best first, each 1, 2, 3, ... further.
fn probe_in(slots: usize, hash: u32) -> impl Iterator<Item = usize> {
    let modulus = MODULI[slots.trailing_zeros() as usize];
    let home = (hash.wrapping_mul(11) % modulus) as usize;
    (0..slots).scan(home, move |at, step| {
        *at = (*at + step) & (slots - 1);
        Some(*at)
    })
}

#[cfg(test)]
mod tests;
