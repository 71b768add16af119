use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::{LEAF_LEN, Slices, ZERO_HASH, merkle_root, sha1_many, sha256_many};

/// What the bytes of a piece must hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// SHA-1 over the piece, padding included (BEP 3).
    V1([u8; 20]),
    /// The root of the tree over its leaves (BEP 52).
    V2(MerkleRoot),
    /// Both: a hybrid torrent's piece is good only if both say so (BEP 52, "upgrade path").
    Hybrid([u8; 20], MerkleRoot),
}

/// The root of the tree over the leaves of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MerkleRoot {
    /// SHA-256.
    pub root: [u8; 32],
    /// Leaves that the tree is padded to: those of a full piece, or, in a file no longer than a piece, the next power
    /// of two of the file's own.
    pub width: u32,
}

impl Expected {
    /// The SHA-1, if the torrent has one.
    pub fn v1(&self) -> Option<[u8; 20]> {
        match *self {
            Self::V1(hash) | Self::Hybrid(hash, _) => Some(hash),
            Self::V2(_) => None,
        }
    }

    /// The merkle root, if the torrent has one.
    pub fn v2(&self) -> Option<MerkleRoot> {
        match *self {
            Self::V2(tree) | Self::Hybrid(_, tree) => Some(tree),
            Self::V1(_) => None,
        }
    }
}

/// The outcome of comparing a piece to what it must hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashed {
    /// As it must be.
    Good,
    /// Something else.
    Bad,
}

impl Hashed {
    fn of(equal: bool) -> Self {
        if equal { Self::Good } else { Self::Bad }
    }
}

/// One piece in memory.
#[derive(Clone, Copy, Debug)]
pub struct PieceBytes<'a> {
    /// Its bytes in order. They may end before `wire_len`: what lacks is zeros.
    pub slices: Slices<'a>,
    /// Leading bytes that are data: a v2 tree is over these.
    pub data_len: u32,
    /// All bytes, padding included: a v1 hash is over these.
    pub wire_len: u32,
    /// What it must hash to.
    pub expected: Expected,
}

static ZEROS: [u8; LEAF_LEN] = [0; LEAF_LEN];

/// The slices of the first `len` bytes, with zeros behind where they are too few.
fn fitted<'a>(slices: Slices<'a>, len: u32) -> Vec<&'a [u8]> {
    let mut left = len as usize;
    let mut fitted = Vec::with_capacity(slices.len() + 1);
    for slice in slices {
        let part = &slice[..slice.len().min(left)];
        left -= part.len();
        if !part.is_empty() {
            fitted.push(part);
        }
    }
    while left > 0 {
        let part = &ZEROS[..left.min(ZEROS.len())];
        left -= part.len();
        fitted.push(part);
    }
    fitted
}

/// The slices of each leaf of `slices`, which are `fitted` to the data's length.
fn leaves<'a>(slices: &[&'a [u8]]) -> Vec<Vec<&'a [u8]>> {
    let mut leaves: Vec<Vec<&[u8]>> = Vec::with_capacity(slices.len());
    let mut room = 0;
    for mut rest in slices.iter().copied() {
        while !rest.is_empty() {
            if room == 0 {
                leaves.push(Vec::with_capacity(1));
                room = LEAF_LEN;
            }
            let (part, behind) = rest.split_at(rest.len().min(room));
            room -= part.len();
            rest = behind;
            if let Some(leaf) = leaves.last_mut() {
                leaf.push(part);
            }
        }
    }
    leaves
}

/// SHA-256 of every 16 KiB of the message; the last leaf may be shorter, and is hashed as it is (BEP 52).
pub fn leaf_hashes(message: Slices<'_>) -> Vec<[u8; 32]> {
    let leaves = leaves(message);
    let leaves: Vec<Slices<'_>> = leaves.iter().map(Vec::as_slice).collect();
    sha256_many(&leaves)
}

/// Hashes several pieces together and compares each with what it must be, in their order.
pub fn check_pieces(pieces: &[PieceBytes<'_>]) -> Vec<Hashed> {
    let mut good = vec![true; pieces.len()];

    let v1: Vec<_> = pieces.iter().enumerate().filter_map(|(n, p)| Some((n, p, p.expected.v1()?))).collect();
    let messages: Vec<_> = v1.iter().map(|(_, p, _)| fitted(p.slices, p.wire_len)).collect();
    let messages: Vec<Slices<'_>> = messages.iter().map(Vec::as_slice).collect();
    for ((n, _, expected), hash) in v1.iter().zip(sha1_many(&messages)) {
        good[*n] &= hash == *expected;
    }

    for (n, piece) in pieces.iter().enumerate() {
        // A piece has enough leaves to fill every lane by itself. One whose v1 hash is wrong needs no second opinion.
        if let Some(tree) = piece.expected.v2()
            && good[n]
        {
            let leaves = leaf_hashes(&fitted(piece.slices, piece.data_len));
            good[n] = merkle_root(leaves, tree.width, ZERO_HASH) == tree.root;
        }
    }
    good.into_iter().map(Hashed::of).collect()
}

/// Hashes one piece whose bytes come in order, a part at a time: for pieces too long to hold.
pub struct PieceHasher {
    v1: Option<Sha1>,
    v2: Option<Leaves>,
    data_left: u32,
    wire_left: u32,
}

#[derive(Default)]
struct Leaves {
    done: Vec<[u8; 32]>,
    open: Sha256,
    filled: usize,
}

impl Leaves {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(LEAF_LEN - self.filled));
            self.open.update(part);
            self.filled += part.len();
            if self.filled == LEAF_LEN {
                self.close();
            }
            bytes = rest;
        }
    }

    fn close(&mut self) {
        if self.filled > 0 {
            self.done.push(self.open.finalize_reset().into());
            self.filled = 0;
        }
    }
}

impl PieceHasher {
    /// For a piece of `data_len` bytes of data within `wire_len` bytes, to be hashed as v1, v2 or both.
    pub fn new(data_len: u32, wire_len: u32, v1: bool, v2: bool) -> Self {
        let v1 = v1.then(Sha1::new);
        let v2 = v2.then(Leaves::default);
        Self { v1, v2, data_left: data_len, wire_left: wire_len }
    }

    /// The next bytes. What goes beyond the piece is left out.
    pub fn update(&mut self, bytes: &[u8]) {
        let wire = &bytes[..bytes.len().min(self.wire_left as usize)];
        let data = &bytes[..bytes.len().min(self.data_left as usize)];
        if let Some(v1) = &mut self.v1 {
            v1.update(wire);
        }
        if let Some(v2) = &mut self.v2 {
            v2.update(data);
        }
        // Both are below the 32-bit count they are taken from.
        self.wire_left -= u32::try_from(wire.len()).unwrap_or(self.wire_left);
        self.data_left -= u32::try_from(data.len()).unwrap_or(self.data_left);
    }

    /// The SHA-1 and the leaf hashes, as asked for. Bytes that never came count as zeros.
    pub fn finish(mut self) -> (Option<[u8; 20]>, Option<Vec<[u8; 32]>>) {
        while self.wire_left > 0 || self.data_left > 0 {
            self.update(&ZEROS);
        }
        let v2 = self.v2.map(|mut leaves| {
            leaves.close();
            leaves.done
        });
        (self.v1.map(|v1| v1.finalize().into()), v2)
    }

    /// As [`PieceHasher::finish`], compared with what the piece must be.
    pub fn check(self, expected: &Expected) -> Hashed {
        let (v1, v2) = self.finish();
        let root = expected.v2().zip(v2).map(|(tree, leaves)| (tree.root, merkle_root(leaves, tree.width, ZERO_HASH)));
        Hashed::of(v1 == expected.v1() && root.map(|r| r.0 == r.1) == expected.v2().map(|_| true))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{sha1, sha256};
    use super::*;

    /// The tree by its definition.
    fn root(data: &[u8], width: u32) -> MerkleRoot {
        let leaves = data.chunks(LEAF_LEN).map(|leaf| sha256(&[leaf])).collect();
        MerkleRoot { root: merkle_root(leaves, width, ZERO_HASH), width }
    }

    fn check_one(bytes: &[u8], split: usize, data_len: u32, wire_len: u32, expected: Expected) -> Hashed {
        let slices: Vec<&[u8]> = bytes.chunks(split).collect();
        let piece = PieceBytes { slices: &slices, data_len, wire_len, expected };
        let together = check_pieces(&[piece, piece, piece, piece, piece])[4];
        let mut hasher = PieceHasher::new(data_len, wire_len, expected.v1().is_some(), expected.v2().is_some());
        slices.iter().for_each(|s| hasher.update(s));
        assert_eq!(together, hasher.check(&expected));
        together
    }

    #[test]
    fn full_short_and_padded_pieces() {
        let data: Vec<u8> = (0..70_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let mut padded = data.clone();
        padded.resize(131_072, 0);
        let v1 = sha1(&[&padded]);
        let tree = root(&data, 8);
        for split in [16_384, 5_000, 70_000] {
            for expected in [Expected::V1(v1), Expected::V2(tree), Expected::Hybrid(v1, tree)] {
                // All bytes, the data only, and whole blocks as they come from peers.
                for sent in [131_072, 70_000, 81_920] {
                    let sent = &padded[..sent];
                    assert_eq!(check_one(sent, split, 70_000, 131_072, expected), Hashed::Good, "{expected:?}");
                    let mut wrong = sent.to_vec();
                    wrong[69_999] ^= 1;
                    assert_eq!(check_one(&wrong, split, 70_000, 131_072, expected), Hashed::Bad);
                }
            }
            let other = MerkleRoot { width: 16, ..tree };
            assert_eq!(check_one(&data, split, 70_000, 131_072, Expected::V2(other)), Hashed::Bad);
            assert_eq!(check_one(&data, split, 70_000, 131_072, Expected::Hybrid([0; 20], tree)), Hashed::Bad);
            assert_eq!(check_one(&data, split, 70_000, 131_072, Expected::Hybrid(v1, other)), Hashed::Bad);
        }
    }
}
