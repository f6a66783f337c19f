//! A filter compiled for one schema: one bit for each descriptor.
//!
//! Invariant: a mask is as long as the schema it was made for, and bits past its end are zero.

use crate::schema::Schema;

const WORD_BITS: usize = u64::BITS as usize;

/// The wanted statistics of a schema: one bit per descriptor, in schema order.
///
/// ```
/// use vmstrobe_core::Mask;
/// let mut mask = Mask::none(47);
/// mask.set(3);
/// mask.set(40);
/// assert_eq!(mask.iter().collect::<Vec<_>>(), [3, 40]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mask {
    bits: Box<[u64]>,
    len: usize,
}

impl Mask {
    /// Makes a mask for `len` descriptors, without any of them.
    pub fn none(len: usize) -> Self {
        Self { bits: vec![0; len.div_ceil(WORD_BITS)].into(), len }
    }

    /// Makes a mask of every statistic of the schema.
    pub fn all(schema: &Schema) -> Self {
        let mut mask = Self::none(schema.descs().len());
        (0..mask.len).for_each(|i| mask.set(i));
        mask
    }

    /// Returns the number of descriptors that the mask was made for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no statistic is wanted.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|&word| word == 0)
    }

    /// Returns the number of wanted statistics.
    pub fn count(&self) -> usize {
        self.bits.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Returns whether descriptor `index` is wanted; false past the end.
    pub fn contains(&self, index: usize) -> bool {
        self.bits.get(index / WORD_BITS).is_some_and(|word| word >> (index % WORD_BITS) & 1 == 1)
    }

    /// Adds descriptor `index`; does nothing past the end.
    pub fn set(&mut self, index: usize) {
        if index < self.len {
            self.bits[index / WORD_BITS] |= 1 << (index % WORD_BITS);
        }
    }

    /// Returns the indexes of the wanted descriptors, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.bits.iter().enumerate().flat_map(|(at, &word)| {
            std::iter::successors((word != 0).then_some(word), |rest| {
                let rest = rest & (rest - 1);
                (rest != 0).then_some(rest)
            })
            .map(move |rest| at * WORD_BITS + rest.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_found_again_across_words() {
        for len in [1, 63, 64, 65, 128, 200] {
            let mut mask = Mask::none(len);
            let wanted: Vec<usize> = (0..len).filter(|i| i % 7 == 0 || i % 64 == 63).collect();
            wanted.iter().for_each(|&i| mask.set(i));
            assert_eq!(mask.iter().collect::<Vec<_>>(), wanted);
            assert_eq!(mask.count(), wanted.len());
            assert!(wanted.iter().all(|&i| mask.contains(i)));
        }
    }

    #[test]
    fn past_the_end_there_is_nothing() {
        let mut mask = Mask::none(3);
        mask.set(3);
        mask.set(1 << 40);
        assert!(mask.is_empty());
        assert!(!mask.contains(64));
        assert_eq!(Mask::none(0).iter().count(), 0);
    }
}
