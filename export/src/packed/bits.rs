//! Numbers in few bits: numbers of seven bits a byte, and blocks of numbers of one width.
//!
//! A block has up to [`BLOCK`] differences of 64 bits. It begins with the smallest of them and the
//! number of bits that the others need above it, so that one jump costs only its own block.
//!
//! Invariant: what is written is read back equal, whatever the numbers are. Only bytes that were
//! written here are read; behind them are [`PADDING`] zeros.

/// The most numbers of a block.
pub(super) const BLOCK: usize = 64;
/// The zeros behind the last byte, so that a number is read by one load.
pub(super) const PADDING: usize = 16;

/// Appends a number in as many groups of seven bits as it needs.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a number that may be negative: small ones of either sign are short.
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Returns the number at a place, which moves behind it.
pub(super) fn take(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

/// Returns the number at a place that [`put_signed`] wrote.
pub(super) fn take_signed(bytes: &[u8], at: &mut usize) -> i64 {
    let number = take(bytes, at);
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Appends a block of at most [`BLOCK`] differences, at least one.
pub(super) fn put_block(out: &mut Vec<u8>, differences: &[i64]) {
    let least = differences.iter().copied().min().unwrap_or_default();
    let above = |difference: i64| difference.wrapping_sub(least) as u64;
    let most = differences.iter().map(|&difference| above(difference)).max().unwrap_or_default();
    let width = u64::BITS - most.leading_zeros();
    put_signed(out, least);
    out.push(width as u8);
    let (mut pending, mut bits) = (0_u128, 0);
    for &difference in differences {
        pending |= u128::from(above(difference)) << bits;
        bits += width;
        while bits >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(pending as u8);
    }
}

/// A block that is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Block {
    least: i64,
    width: u32,
    start: usize,
}

impl Block {
    /// Reads the head of a block of so many differences. The place moves behind the block.
    pub(super) fn take(bytes: &[u8], at: &mut usize, differences: usize) -> Self {
        let least = take_signed(bytes, at);
        let width = u32::from(bytes[*at]);
        let start = *at + 1;
        *at = start + (width as usize * differences).div_ceil(8);
        Self { least, width, start }
    }

    /// Returns a difference of the block.
    #[inline]
    pub(super) fn get(self, bytes: &[u8], index: usize) -> i64 {
        if self.width == 0 {
            return self.least;
        }
        let bit = index * self.width as usize;
        let at = self.start + bit / 8;
        let load = bytes[at..at + PADDING].try_into().expect("the slice has that length");
        let above = (u128::from_le_bytes(load) >> (bit % 8)) as u64;
        let mask = u64::MAX >> (u64::BITS - self.width);
        self.least.wrapping_add((above & mask) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: [i64; 9] = [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN, 1 << 40];

    #[test]
    fn numbers_survive_the_way_there_and_back() {
        let mut bytes = Vec::new();
        for number in NUMBERS {
            put_signed(&mut bytes, number);
            put(&mut bytes, number as u64);
        }
        let mut at = 0;
        for number in NUMBERS {
            assert_eq!(take_signed(&bytes, &mut at), number);
            assert_eq!(take(&bytes, &mut at), number as u64);
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn blocks_survive_the_way_there_and_back() {
        let even: Vec<i64> = vec![256; BLOCK];
        let growing: Vec<i64> = (0..50).map(|n| 1_000_000 + n * n).collect();
        for differences in [&NUMBERS[..], &even, &growing, &[-5], &[i64::MIN, i64::MAX]] {
            let mut bytes = vec![9];
            put_block(&mut bytes, differences);
            let end = bytes.len();
            bytes.resize(end + PADDING, 0);
            let mut at = 1;
            let block = Block::take(&bytes, &mut at, differences.len());
            assert_eq!(at, end);
            let got: Vec<i64> = (0..differences.len()).map(|n| block.get(&bytes, n)).collect();
            assert_eq!(got, differences);
        }
        let mut bytes = Vec::new();
        put_block(&mut bytes, &even);
        assert_eq!(bytes.len(), 3, "numbers that are equal take no bits");
    }
}
