use super::lanes::{BLOCK, Sha1Lanes, Tier};
use super::{LEAF_LEN, Slices, ZERO_HASH, merkle_root, sha1_many, sha256_many};

/// What is read and hashed at a time, of all pieces together: half of the smallest second-level cache of a core that is
/// in use, less what else is in it.
const IN_CACHE: usize = 256 << 10;

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

/// Hashes pieces of equal length side by side, some bytes of each at a time: for pieces that are read from disk, whose
/// bytes are hashed in lanes while they are still in the processor's cache, however long the pieces are.
pub struct PiecesHasher {
    v1: Option<Sha1Lanes>,
    /// Leaf hashes of each piece.
    v2: Option<Vec<Vec<[u8; 32]>>>,
    /// Bytes of data in each.
    data_lens: Vec<u32>,
    /// All bytes of each, padding included.
    wire_len: u32,
    done: u32,
    /// What came behind the last whole block of SHA-1, of each.
    tails: Vec<([u8; BLOCK], usize)>,
}

/// The hashes of one piece, as far as they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceHash {
    /// SHA-1.
    pub v1: Option<[u8; 20]>,
    /// SHA-256 of each leaf.
    pub v2: Option<Vec<[u8; 32]>>,
}

impl PieceHash {
    /// Whether that is what the piece must be.
    pub fn check(self, expected: &Expected) -> Hashed {
        let root =
            expected.v2().zip(self.v2).map(|(tree, leaves)| tree.root == merkle_root(leaves, tree.width, ZERO_HASH));
        Hashed::of(self.v1 == expected.v1() && root == expected.v2().map(|_| true))
    }
}

impl PiecesHasher {
    /// Bytes of each of `pieces` pieces that are best given at a time, so that those of all of them stay in the cache.
    pub fn step(pieces: usize) -> u32 {
        let leaves = IN_CACHE / LEAF_LEN / pieces.max(1);
        // A few leaves.
        u32::try_from(leaves.max(1) * LEAF_LEN).unwrap_or(u32::MAX)
    }

    /// For pieces with so many bytes of data each, which are within `wire_len`, to be hashed as v1, v2 or both.
    pub fn new(data_lens: Vec<u32>, wire_len: u32, v1: bool, v2: bool) -> Self {
        let count = data_lens.len();
        Self {
            v1: v1.then(|| Sha1Lanes::new(Tier::in_use(), count)),
            v2: v2.then(|| vec![Vec::new(); count]),
            data_lens,
            wire_len,
            done: 0,
            tails: vec![([0; BLOCK], 0); count],
        }
    }

    /// The next bytes of each piece: equally many, and whole leaves but at the end.
    pub fn update(&mut self, parts: &[&[u8]]) {
        let len = parts.first().map_or(0, |part| part.len());
        debug_assert!(parts.len() == self.data_lens.len() && parts.iter().all(|part| part.len() == len));
        debug_assert!((self.done as usize).is_multiple_of(LEAF_LEN), "nothing comes behind the end");
        if let Some(v1) = &mut self.v1 {
            let whole = len - len % BLOCK;
            v1.update(&parts.iter().map(|part| &part[..whole]).collect::<Vec<_>>());
            for ((tail, filled), part) in self.tails.iter_mut().zip(parts) {
                *filled = len - whole;
                tail[..*filled].copy_from_slice(&part[whole..]);
            }
        }
        if let Some(v2) = &mut self.v2 {
            // The leaves of all pieces at once, so that short pieces fill the lanes, too.
            let data = |n: usize| &parts[n][..(self.data_lens[n].saturating_sub(self.done) as usize).min(len)];
            let leaves: Vec<(usize, [&[u8]; 1])> =
                (0..parts.len()).flat_map(|n| data(n).chunks(LEAF_LEN).map(move |leaf| (n, [leaf]))).collect();
            let messages: Vec<Slices<'_>> = leaves.iter().map(|(_, leaf)| leaf.as_slice()).collect();
            for ((n, _), hash) in leaves.iter().zip(sha256_many(&messages)) {
                v2[*n].push(hash);
            }
        }
        self.done = self.done.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// The hashes, in the order of the pieces. Bytes that never came count as zeros.
    pub fn finish(mut self) -> Vec<PieceHash> {
        while self.done < self.wire_len {
            let zeros = &ZEROS[..ZEROS.len().min((self.wire_len - self.done) as usize)];
            self.update(&vec![zeros; self.data_lens.len()]);
        }
        let tails: Vec<&[u8]> = self.tails.iter().map(|(tail, filled)| &tail[..*filled]).collect();
        let v1 = self.v1.map(|v1| v1.finish(&tails));
        let hash = |n: usize| PieceHash {
            v1: v1.as_ref().map(|v1| v1[n]),
            v2: self.v2.as_mut().map(|v2| std::mem::take(&mut v2[n])),
        };
        (0..self.data_lens.len()).map(hash).collect()
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
        // The same some leaves at a time, beside another piece.
        let mut whole = bytes.to_vec();
        whole.resize(bytes.len().next_multiple_of(LEAF_LEN), 0);
        let other = vec![7; whole.len()];
        for step in [LEAF_LEN, 3 * LEAF_LEN] {
            let (v1, v2) = (expected.v1().is_some(), expected.v2().is_some());
            let mut hasher = PiecesHasher::new(vec![data_len, data_len, 5], wire_len, v1, v2);
            whole.chunks(step).zip(other.chunks(step)).for_each(|(part, other)| hasher.update(&[other, part, other]));
            let hashes = hasher.finish();
            assert_eq!(together, hashes[1].clone().check(&expected));
            assert_eq!(hashes[2].clone().check(&expected), Hashed::Bad);
        }
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
