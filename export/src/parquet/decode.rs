//! The encodings of levels and values in a page (`Encodings.md` of the format).
//!
//! The decoders of the parquet crate panic on some damaged pages, so these are our own.
//!
//! Invariant: nothing panics, and a decoder gives exactly as many values as it was asked for, or
//! `None`.

/// The values of a packed group.
const GROUP: usize = 8;
/// The most values of a block of deltas. Writers have 128 and 256.
const BLOCK_VALUES_MAX: u64 = 1 << 16;

/// Reads from the front of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(byte)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    /// Takes the bytes behind their number.
    pub(super) fn counted(&mut self) -> Option<&'a [u8]> {
        let count = u32::from_le_bytes(*self.take(4)?.first_chunk()?);
        self.take(usize::try_from(count).ok()?)
    }

    /// Reads a number, seven bits in each byte.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Reads a number whose last bit is its sign.
    pub(super) fn zigzag(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

/// Appends so many values of runs and groups, each of that many bits.
pub(super) fn hybrid(bytes: &[u8], bits: u32, count: usize, into: &mut Vec<u32>) -> Option<()> {
    (bits <= u32::BITS).then_some(())?;
    let mut input = Input { bytes };
    let end = into.len() + count;
    while into.len() < end {
        let rest = end - into.len();
        let head = usize::try_from(input.varint()?).ok()?;
        let length = head >> 1;
        if head & 1 == 0 {
            (length > 0).then_some(())?;
            let mut value = [0; 4];
            let width = bits.div_ceil(8) as usize;
            value[..width].copy_from_slice(input.take(width)?);
            into.extend(std::iter::repeat_n(u32::from_le_bytes(value), length.min(rest)));
        } else {
            (length > 0).then_some(())?;
            let packed = input.take(length.checked_mul(bits as usize)?)?;
            let values = length.checked_mul(GROUP)?.min(rest);
            into.extend(unpacked(packed, bits).take(values).map(|value| value as u32));
            if bits == 0 {
                into.resize(into.len().max(end - rest + values), 0);
            }
        }
    }
    Some(())
}

/// Appends so many values of 64 bits in the encoding DELTA_BINARY_PACKED.
pub(super) fn deltas(bytes: &[u8], count: usize, into: &mut Vec<u64>) -> Option<()> {
    let mut input = Input { bytes };
    let block_values = input.varint()?;
    let miniblocks = input.varint()?;
    let is_even = miniblocks > 0
        && block_values <= BLOCK_VALUES_MAX
        && block_values.is_multiple_of(miniblocks)
        && (block_values / miniblocks).is_multiple_of(GROUP as u64)
        && block_values > 0;
    let total = input.varint()?;
    if !is_even || total != count as u64 {
        return None;
    }
    let of_miniblock = (block_values / miniblocks) as usize;
    let mut value = input.zigzag()? as u64;
    let end = into.len() + count;
    if count > 0 {
        into.push(value);
    }
    while into.len() < end {
        let least = input.zigzag()? as u64;
        let widths = input.take(miniblocks as usize)?;
        for &width in widths {
            let values = of_miniblock.min(end - into.len());
            if values == 0 {
                break;
            }
            let bits = u32::from(width);
            (bits <= u64::BITS).then_some(())?;
            let packed = input.take(of_miniblock / GROUP * bits as usize)?;
            if bits == 0 {
                for _ in 0..values {
                    value = value.wrapping_add(least);
                    into.push(value);
                }
                continue;
            }
            for delta in unpacked(packed, bits).take(values) {
                value = value.wrapping_add(least).wrapping_add(delta);
                into.push(value);
            }
        }
    }
    Some(())
}

/// Returns the values of that many bits, the lowest bit first. There are none of 0 bits.
fn unpacked(bytes: &[u8], bits: u32) -> impl Iterator<Item = u64> + '_ {
    let (mut bytes, mut word, mut filled) = (bytes.iter(), 0_u128, 0);
    std::iter::from_fn(move || {
        if bits == 0 {
            return None;
        }
        while filled < bits {
            word |= u128::from(*bytes.next()?) << filled;
            filled += 8;
        }
        let value = word as u64 & (u64::MAX >> (u64::BITS - bits));
        word >>= bits;
        filled -= bits;
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::super::hybrid as encoder;
    use super::*;
    use fastrand::Rng;

    #[test]
    fn runs_are_read_back() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..2000 {
            let bits = rng.u32(1..21);
            let longest = [2, 30, 3000][rng.usize(..3)];
            let count = rng.usize(..20);
            let runs: Vec<(usize, u32)> =
                (0..count).map(|_| (rng.usize(..longest), rng.u32(..1 << bits))).collect();
            let all = runs.iter().flat_map(|&(length, value)| std::iter::repeat_n(value, length));
            let want: Vec<u32> = all.collect();
            let (mut bytes, mut values) = (Vec::new(), Vec::new());
            encoder::encode(runs.iter().copied(), bits, &mut bytes);
            assert_eq!(hybrid(&bytes, bits, want.len(), &mut values), Some(()));
            assert_eq!(values, want, "{runs:?}");
            // As columns have it that repeat.
            assert_eq!(hybrid(&bytes.repeat(2), bits, 2 * want.len(), &mut values), Some(()));
            assert_eq!(values, want.repeat(3));
            assert_eq!(hybrid(&bytes, bits, want.len() + 1, &mut values), None);
        }
    }

    #[test]
    fn an_example_of_the_format_is_read() {
        // 1, 2, 3, 4, 5 have deltas of 1, and 7, 5, 3, 1, 2, 3, 4, 5 some from -2 to 1.
        let mut values = Vec::new();
        let steady = [0x80, 1, 4, 5, 2, 2, 0, 0, 0, 0];
        assert_eq!(deltas(&steady, 5, &mut values), Some(()));
        assert_eq!(values, [1, 2, 3, 4, 5]);
        values.clear();
        let packed = [0xc0, 0x3f, 0, 0, 0, 0, 0, 0];
        let mixed = [&[0x80, 1, 4, 8, 14, 3, 2, 0, 0, 0][..], &packed].concat();
        assert_eq!(deltas(&mixed, 8, &mut values), Some(()));
        assert_eq!(values, [7, 5, 3, 1, 2, 3, 4, 5]);
        assert_eq!(deltas(&mixed, 9, &mut values), None, "another number of values");
    }

    /// Bytes that no writer makes give a value or nothing, and no panic.
    #[test]
    fn hostile_bytes_are_read_without_a_panic() {
        let mut rng = Rng::with_seed(2);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
            let count = rng.usize(..300);
            let (mut numbers, mut indexes) = (Vec::new(), Vec::new());
            if hybrid(&bytes, rng.u32(..40), count, &mut indexes).is_some() {
                assert_eq!(indexes.len(), count);
            }
            if rng.bool() && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&[0x80, 1, 4, count as u8 & 0x7f]);
            }
            if deltas(&bytes, count, &mut numbers).is_some() {
                assert_eq!(numbers.len(), count);
            }
        }
    }
}
