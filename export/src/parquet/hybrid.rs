//! Parquet's hybrid of runs and packed groups, in which levels and indexes of dictionaries are
//! written (`Encodings.md` of the format, "RLE").
//!
//! A run is its length and one value. A group is eight values of a fixed number of bits.
//!
//! Invariant: what is written ends at a whole byte and pads no group, so that it can be repeated.

/// The values of a group.
pub(super) const GROUP: usize = 8;

/// Returns the bits of an index into a dictionary of that many values. At least 1, because not
/// every reader takes 0.
pub(super) fn index_bits(count: usize) -> u32 {
    count.saturating_sub(1).max(1).ilog2() + 1
}

/// Appends runs, each a length and a value of that many bits.
pub(super) fn encode(runs: impl IntoIterator<Item = (usize, u32)>, bits: u32, out: &mut Vec<u8>) {
    let mut encoder = Encoder { bits, out, literals: Vec::new(), last: (0, 0) };
    for (length, value) in runs {
        encoder.push(length, value);
    }
    encoder.finish();
}

struct Encoder<'a> {
    bits: u32,
    out: &'a mut Vec<u8>,
    /// Values that are not written yet.
    literals: Vec<u32>,
    /// The run that may still grow.
    last: (usize, u32),
}

impl Encoder<'_> {
    fn push(&mut self, length: usize, value: u32) {
        if self.last.1 != value {
            self.end_run();
        }
        self.last = (self.last.0 + length, value);
    }

    /// Writes the last run, as a run or as part of groups.
    fn end_run(&mut self) {
        let (length, value) = std::mem::take(&mut self.last);
        let to_whole = self.literals.len().next_multiple_of(GROUP) - self.literals.len();
        if length < GROUP + to_whole {
            self.literals.extend(std::iter::repeat_n(value, length));
            return;
        }
        self.literals.extend(std::iter::repeat_n(value, to_whole));
        self.write_groups();
        self.write_run(length - to_whole, value);
    }

    fn finish(mut self) {
        self.end_run();
        let rest = self.literals.split_off(self.literals.len() / GROUP * GROUP);
        self.write_groups();
        for same in rest.chunk_by(|one, other| one == other) {
            self.write_run(same.len(), same[0]);
        }
    }

    fn write_run(&mut self, length: usize, value: u32) {
        write_varint(length << 1, self.out);
        self.out.extend(&value.to_le_bytes()[..self.bits.div_ceil(8) as usize]);
    }

    /// Writes the literals, which are whole groups.
    fn write_groups(&mut self) {
        if self.literals.is_empty() {
            return;
        }
        begin_groups(self.literals.len(), self.out);
        pack(&self.literals, self.bits, self.out);
        self.literals.clear();
    }
}

/// Appends what stands before so many values of whole groups, which [`pack`] appends.
pub(super) fn begin_groups(values: usize, out: &mut Vec<u8>) {
    write_varint((values / GROUP) << 1 | 1, out);
}

/// Appends values of whole groups.
pub(super) fn pack(values: &[u32], bits: u32, out: &mut Vec<u8>) {
    let (mut word, mut filled) = (0_u64, 0);
    for &value in values {
        word |= u64::from(value) << filled;
        filled += bits;
        while filled >= 8 {
            out.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
}

/// Appends a number, seven bits in each byte.
fn write_varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(runs: &[(usize, u32)], bits: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(runs.iter().copied(), bits, &mut bytes);
        bytes
    }

    #[test]
    fn runs_and_groups_are_as_the_format_says() {
        assert_eq!(encoded(&[(100, 4)], 3), [200, 1, 4]);
        let counted: Vec<(usize, u32)> = (0..8).map(|value| (1, value)).collect();
        assert_eq!(encoded(&counted, 3), [3, 0b1000_1000, 0b1100_0110, 0b1111_1010]);
        // A rest of no whole group becomes runs, and equal neighbours one.
        assert_eq!(encoded(&[(2, 9), (1, 300), (1, 300)], 9), [4, 9, 0, 4, 44, 1]);
        assert_eq!(encoded(&[(3, 1), (20, 0)], 1), [3, 0b111, 30, 0]);
        assert!(encoded(&[], 1).is_empty());
    }

    #[test]
    fn an_index_has_a_bit_at_least() {
        let bits = [0, 1, 2, 3, 4, 5, 256, 257].map(index_bits);
        assert_eq!(bits, [1, 1, 1, 2, 2, 3, 8, 9]);
    }
}
