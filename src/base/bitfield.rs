use std::fmt;

use super::PieceIndex;

/// Who has which pieces. Words in memory, most significant bit first at the wire's edge (BEP 3).
///
/// The count of set bits is kept, so "how many" and "all?" cost nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitfield {
    /// Piece `i` is bit `63 - i % 64` of word `i / 64`: the order of the wire.
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

/// Why bytes are not a bitfield for so many pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// Not `pieces / 8`, rounded up.
    #[error("bitfield of {actual} bytes, expected {expected}")]
    Length {
        /// Bytes that were sent.
        actual: usize,
        /// Bytes that the number of pieces asks for.
        expected: usize,
    },
    /// A bit behind the last piece is set.
    #[error("bitfield with spare bits set")]
    SpareBits,
}

impl Bitfield {
    /// Nothing of `len` pieces.
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len, ones: 0 }
    }

    /// All of `len` pieces.
    pub fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(64) as usize];
        if let (Some(last), 1..) = (words.last_mut(), len % 64) {
            *last = !(u64::MAX >> (len % 64));
        }
        Self { words, len, ones: len }
    }

    /// What a `bitfield` message says about `len` pieces.
    ///
    /// # Errors
    /// A wrong length, or bits set behind the last piece.
    pub fn from_wire(bytes: &[u8], len: u32) -> Result<Self, BitfieldError> {
        let expected = len.div_ceil(8) as usize;
        if bytes.len() != expected {
            return Err(BitfieldError::Length { actual: bytes.len(), expected });
        }
        let mut words = Vec::with_capacity(len.div_ceil(64) as usize);
        for eight in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            words.push(u64::from_be_bytes(word));
        }
        if let (Some(last), 1..) = (words.last(), len % 64)
            && last & (u64::MAX >> (len % 64)) != 0
        {
            return Err(BitfieldError::SpareBits);
        }
        let ones = words.iter().map(|w| w.count_ones()).sum();
        Ok(Self { words, len, ones })
    }

    /// As a `bitfield` message carries it.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_be_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8) as usize);
        bytes
    }

    /// How many pieces it speaks of.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it speaks of no piece at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pieces are set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether every piece is set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether no piece is set.
    pub fn is_none(&self) -> bool {
        self.ones == 0
    }

    /// Whether `piece` is set.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.bit(piece.0)
    }

    fn bit(&self, i: u32) -> bool {
        self.words.get((i / 64) as usize).is_some_and(|w| w & mask(i) != 0)
    }

    /// Sets `piece`; true if that changed something. A piece of another torrent's size changes nothing.
    pub fn set(&mut self, piece: PieceIndex) -> bool {
        if piece.0 >= self.len || self.has(piece) {
            return false;
        }
        self.words[(piece.0 / 64) as usize] |= mask(piece.0);
        self.ones += 1;
        true
    }

    /// Clears `piece`; true if that changed something.
    pub fn clear(&mut self, piece: PieceIndex) -> bool {
        if !self.has(piece) {
            return false;
        }
        self.words[(piece.0 / 64) as usize] &= !mask(piece.0);
        self.ones -= 1;
        true
    }

    /// The pieces that are set, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        ones(self.words.iter().copied())
    }

    /// The pieces set here and not in `other`, in order. Allocates nothing.
    pub fn and_not<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = PieceIndex> + 'a {
        let theirs = other.words.iter().copied().chain(std::iter::repeat(0));
        ones(self.words.iter().copied().zip(theirs).map(|(a, b)| a & !b))
    }

    /// The pieces set both here and in `other`: from number `start` to the end, then from the beginning up to `start`.
    /// Allocates nothing.
    pub fn and_from<'a>(&'a self, other: &'a Self, start: u32) -> impl Iterator<Item = PieceIndex> + 'a {
        let len = self.words.len().min(other.words.len());
        let (ours, theirs) = (&self.words[..len], &other.words[..len]);
        let first = (start / 64) as usize;
        let (first, below) = if first < len { (first, !(u64::MAX >> (start % 64))) } else { (0, 0) };
        let middle = ours.get(first).map_or(0, |word| word & theirs[first]);
        // The word that holds `start` comes twice: its upper part at first, its lower part at last.
        let mut word = middle & !below;
        let (mut at, mut next, mut stage) = (first, first + 1, 0);
        std::iter::from_fn(move || {
            while word == 0 {
                let (from, to) = match stage {
                    0 => (next, len),
                    1 => (next, first),
                    2 => {
                        (at, word, stage) = (first, middle & below, 3);
                        continue;
                    }
                    _ => return None,
                };
                match first_common(ours.get(from..to)?, theirs.get(from..to)?) {
                    Some(skip) => {
                        at = from + skip;
                        next = at + 1;
                        word = ours[at] & theirs[at];
                    }
                    None => (next, stage) = (0, stage + 1),
                }
            }
            let bit = word.leading_zeros();
            word &= !(1 << (63 - bit));
            Some(PieceIndex(u32::try_from(at).unwrap_or(u32::MAX) * 64 + bit))
        })
    }

    /// The last of the pieces set both here and in `other`.
    pub fn last_and(&self, other: &Self) -> Option<PieceIndex> {
        let words = self.words.len().min(other.words.len());
        let both = self.words[..words].iter().zip(&other.words[..words]).map(|(a, b)| a & b);
        let (at, word) = both.enumerate().rfind(|(_, word)| *word != 0)?;
        Some(PieceIndex(u32::try_from(at).ok()? * 64 + 63 - word.trailing_zeros()))
    }

    /// Whether a piece is set here and not in `other`.
    pub fn has_more_than(&self, other: &Self) -> bool {
        let theirs = other.words.iter().chain(std::iter::repeat(&0));
        self.words.iter().zip(theirs).any(|(a, b)| a & !b != 0)
    }

    /// How many pieces are set in both.
    pub fn count_and(&self, other: &Self) -> u32 {
        self.words.iter().zip(&other.words).map(|(a, b)| (a & b).count_ones()).sum()
    }
}

fn mask(i: u32) -> u64 {
    1 << (63 - i % 64)
}

/// The first place at which two equally long slices share a bit.
fn first_common(a: &[u64], b: &[u64]) -> Option<usize> {
    /// So many words at once take a few wide instructions.
    const STRIDE: usize = 8;
    let strides = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE));
    let empty = strides.take_while(|(a, b)| a.iter().zip(*b).fold(0, |all, (a, b)| all | (a & b)) == 0).count();
    let from = empty * STRIDE;
    a[from..].iter().zip(&b[from..]).position(|(a, b)| a & b != 0).map(|i| from + i)
}

fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = PieceIndex> {
    words.zip((0u32..).step_by(64)).flat_map(|(mut word, base)| {
        std::iter::from_fn(move || {
            (word != 0).then(|| {
                let bit = word.leading_zeros();
                word &= !(1 << (63 - bit));
                PieceIndex(base + bit)
            })
        })
    })
}

impl fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bitfield({}/{})", self.ones, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wire_order_and_spare_bits() {
        let b = Bitfield::from_wire(&[0b1000_0001, 0b1000_0000], 9).unwrap();
        assert_eq!(b.iter().map(PieceIndex::get).collect::<Vec<_>>(), [0, 7, 8]);
        assert_eq!(b.to_wire(), [0b1000_0001, 0b1000_0000]);
        assert_eq!(Bitfield::from_wire(&[0, 0b0100_0000], 9), Err(BitfieldError::SpareBits));
        assert!(matches!(Bitfield::from_wire(&[0], 9), Err(BitfieldError::Length { .. })));
        assert!(matches!(Bitfield::from_wire(&[0; 3], 9), Err(BitfieldError::Length { .. })));
    }

    #[test]
    fn full_of_every_length() {
        for len in 0..200 {
            let full = Bitfield::full(len);
            assert_eq!(Bitfield::from_wire(&full.to_wire(), len).as_ref(), Ok(&full));
            assert_eq!(full.iter().count(), len as usize);
            assert!(full.is_full());
        }
    }

    proptest! {
        /// Against a plain vector of bools.
        #[test]
        fn behaves_like_a_set(len in 1u32..1500, changes in prop::collection::vec((any::<bool>(), 0u32..1500), 0..200)) {
            let mut model = vec![false; len as usize];
            let mut b = Bitfield::new(len);
            for (set, i) in changes {
                let i = i % len;
                let changed = if set { b.set(PieceIndex(i)) } else { b.clear(PieceIndex(i)) };
                prop_assert_eq!(changed, model[i as usize] != set);
                model[i as usize] = set;
            }
            let expected: Vec<u32> = (0..len).filter(|i| model[*i as usize]).collect();
            prop_assert_eq!(b.iter().map(PieceIndex::get).collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(b.count() as usize, expected.len());
            prop_assert_eq!(Bitfield::from_wire(&b.to_wire(), len).unwrap(), b.clone());
            let rest: Vec<_> = Bitfield::full(len).and_not(&b).map(PieceIndex::get).collect();
            prop_assert_eq!(rest.len(), len as usize - expected.len());
            prop_assert_eq!(Bitfield::full(len).has_more_than(&b), !b.is_full());
            let odd: Vec<u32> = expected.iter().copied().filter(|i| i % 2 == 1).collect();
            let mut odds = Bitfield::new(len);
            for i in (1..len).step_by(2) {
                odds.set(PieceIndex(i));
            }
            prop_assert_eq!(b.last_and(&odds).map(PieceIndex::get), odd.last().copied());
            for start in [0, 1, 63, 64, 65, len / 2, len - 1, len, 1000] {
                let split = if start < len.div_ceil(64) * 64 { start } else { 0 };
                let (low, high): (Vec<u32>, Vec<u32>) = odd.iter().partition(|i| **i < split);
                let round: Vec<_> = odds.and_from(&b, start).map(PieceIndex::get).collect();
                prop_assert_eq!(round, [high, low].concat());
            }
        }
    }
}
