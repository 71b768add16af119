//! The arithmetic of the hash trees of version 2 (BEP 52): binary, SHA-256, one tree for each file.
//!
//! ```text
//!                     pieces root                      the file's
//!              .-----------'-----------.
//!          piece root              piece root          the piece layer: one hash covers one piece
//!         .----'----.             .----'----.
//!       leaf      leaf          leaf      zeros        leaves: one hash covers 16 KiB of data
//! ```
//!
//! Leaves behind the end of the file are 32 zero bytes; a tree is as wide as the next power of two.

use crate::base::BLOCK_LEN;
pub use crate::hash::{ZERO_HASH as ZERO_LEAF, merkle_pad as padding, merkle_parent as parent};
use crate::hash::{merkle_climb, merkle_root, sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The hash of one block of a file, at most 16 KiB.
pub fn leaf(block: &[u8]) -> Hash {
    sha256(&[block])
}

/// The root over `hashes`, which stand `level` layers above the leaves, filled up with padding to `width` (at least to
/// the next power of two of their number). Without hashes: the padding itself.
pub fn root(hashes: &[Hash], width: u32, level: u32) -> Hash {
    merkle_root(hashes.to_vec(), width, padding(level))
}

/// The root of a piece from the hashes of its blocks; `width` as [`PieceHash`](super::PieceHash) gives it.
pub fn piece_root(leaves: &[Hash], width: u32) -> Hash {
    root(leaves, width, 0)
}

/// The `pieces root` of a file of more than one piece, from the roots of its pieces.
pub fn file_root(layer: &[Hash], piece_length: u32) -> Hash {
    root(layer, 1, piece_level(piece_length))
}

/// How many layers the piece layer is above the leaves, for a v2 piece length (a power of two of at least 16 KiB).
pub fn piece_level(piece_length: u32) -> u32 {
    (piece_length / BLOCK_LEN).max(1).ilog2()
}

/// How many leaves the tree of one piece has: a full piece's for a file of more than one piece; for a smaller file the
/// next power of two of its blocks.
pub fn piece_width(file_length: u64, piece_length: u32) -> u32 {
    let blocks = file_length.min(u64::from(piece_length)).div_ceil(u64::from(BLOCK_LEN));
    u32::try_from(blocks.max(1).next_power_of_two()).unwrap_or(u32::MAX)
}

/// The hashes that, with the root of `count` hashes from `index` on, lead up to the root of the file: one from each
/// layer, lowest first (BEP 52, "hash request"). `layer` stands `level` above the leaves.
///
/// `count` is a power of two and `index` a multiple of it; ranges that are not, or lie outside, give `None`.
pub fn uncles(layer: &[Hash], level: u32, index: usize, count: usize) -> Option<Vec<Hash>> {
    let width = layer.len().next_power_of_two();
    if !count.is_power_of_two() || !index.is_multiple_of(count) || index >= layer.len() || count > width {
        return None;
    }
    let mut hashes = layer.to_vec();
    let mut padding = padding(level);
    let (mut width, mut at) = (width, index);
    let mut covered = count;
    let mut uncles = Vec::new();
    while width > 1 {
        if covered == 1 {
            uncles.push(hashes.get(at ^ 1).copied().unwrap_or(padding));
        }
        merkle_climb(&mut hashes, &mut padding);
        width /= 2;
        at /= 2;
        covered = (covered / 2).max(1);
    }
    Some(uncles)
}

/// The root of the file that `hashes`, from `index` on, and their `uncles` lead to: equal to `pieces root` if what a
/// peer sent is true. `hashes` are a power of two, and `index` is a multiple of their number, else `None`.
pub fn root_from_proof(hashes: &[Hash], index: usize, uncles: &[Hash]) -> Option<Hash> {
    let count = hashes.len();
    if !count.is_power_of_two() || !index.is_multiple_of(count) {
        return None;
    }
    let mut at = index / count;
    let mut hash = root(hashes, 1, 0);
    for uncle in uncles {
        hash = if at.is_multiple_of(2) { parent(&hash, uncle) } else { parent(uncle, &hash) };
        at /= 2;
    }
    // A place beyond the tree that the uncles span.
    (at == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hashes(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf(&i.to_be_bytes())).collect()
    }

    #[test]
    fn by_hand() {
        let [a, b, c] = [leaf(b"a"), leaf(b"b"), leaf(b"c")];
        assert_eq!(root(&[a], 1, 0), a);
        assert_eq!(root(&[a, b], 1, 0), parent(&a, &b));
        assert_eq!(root(&[a, b, c], 1, 0), parent(&parent(&a, &b), &parent(&c, &ZERO_LEAF)));
        assert_eq!(root(&[a], 4, 0), parent(&parent(&a, &ZERO_LEAF), &padding(1)));
        assert_eq!(root(&[], 8, 0), padding(3));
        assert_eq!(padding(1), parent(&ZERO_LEAF, &ZERO_LEAF));
    }

    #[test]
    fn widths() {
        let (kib16, mib) = (16_384, 1 << 20);
        for (length, piece, width) in
            [(1, mib, 1), (16_384, mib, 1), (16_385, mib, 2), (50_000, mib, 4), (1 << 20, mib, 64), (1 << 30, mib, 64)]
        {
            assert_eq!(piece_width(length, piece), width, "{length}");
        }
        assert_eq!((piece_width(100_000, kib16), piece_level(kib16), piece_level(mib)), (1, 0, 6));
    }

    proptest! {
        /// Hashing pieces and then the piece layer is the same as hashing all leaves at once.
        #[test]
        fn layers_agree(leaves in 1usize..200, level in 0u32..5) {
            let leaves = hashes(leaves);
            let width = 1u32 << level;
            prop_assume!(leaves.len() > width as usize);
            let layer: Vec<Hash> = leaves.chunks(width as usize).map(|p| piece_root(p, width)).collect();
            prop_assert_eq!(file_root(&layer, BLOCK_LEN << level), root(&leaves, 1, 0));
        }

        /// A proof leads to the root, and one with a changed hash does not.
        #[test]
        fn proofs(len in 1usize..70, level in 0u32..3, log in 0u32..7, nth in 0usize..70) {
            let layer = hashes(len);
            let count = 1usize << log;
            let index = nth * count;
            let Some(uncles) = uncles(&layer, level, index, count) else { return Ok(()) };
            let mut range: Vec<Hash> = layer[index..].iter().take(count).copied().collect();
            range.resize(count, padding(level));
            let top = root(&layer, 1, level);
            prop_assert_eq!(root_from_proof(&range, index, &uncles), Some(top));
            range[0][0] ^= 1;
            prop_assert_ne!(root_from_proof(&range, index, &uncles), Some(top));
        }
    }
}
