//! L0: SHA-1 and SHA-256 of pieces and leaves.
//!
//! For: hashing messages that lie scattered over blocks, one or many at once, and saying whether a piece is right.
//! Must not know: any layer above, files, threads.
//! Main types: [`Expected`], [`PieceBytes`], [`PiecesHasher`], [`Tier`]; functions [`sha1_many`], [`sha256_many`].
//! BEPs: 3 (SHA-1 of pieces), 52 (SHA-256 of 16 KiB leaves and the tree above them).

mod lanes;
mod merkle;
mod piece;

pub use lanes::Tier;
pub use merkle::{LEAF_LEN, ZERO_HASH, merkle_climb, merkle_pad, merkle_parent, merkle_root};
pub use piece::{Expected, Hashed, MerkleRoot, PieceBytes, PieceHash, PiecesHasher, check_pieces, leaf_hashes};

use sha1::{Digest, Sha1};
use sha2::Sha256;

/// A message that lies scattered over several slices.
pub type Slices<'a> = &'a [&'a [u8]];

/// How many messages [`sha1_many`] and [`sha256_many`] can make use of at once; more are taken in turns.
pub fn lanes() -> usize {
    Tier::in_use().lanes()
}

/// The name of the way that many messages are hashed: for the log and benches.
pub fn tier() -> &'static str {
    Tier::in_use().name()
}

/// Has many messages hashed in the way called `name` (`scalar`, `ni4`, `avx512`), as far as the processor can, instead of
/// the best: for benches, and to rule a way out when something is wrong. Only before anything is hashed; returns whether
/// that is the way from now on.
pub fn force_tier(name: &str) -> bool {
    Tier::force(name)
}

/// SHA-1 of one message.
pub fn sha1(message: Slices<'_>) -> [u8; 20] {
    let mut hasher = Sha1::new();
    message.iter().for_each(|slice| hasher.update(slice));
    hasher.finalize().into()
}

/// SHA-256 of one message.
pub fn sha256(message: Slices<'_>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    message.iter().for_each(|slice| hasher.update(slice));
    hasher.finalize().into()
}

/// SHA-1 of many messages, in their order. Those of equal length are hashed together where the processor can.
pub fn sha1_many(messages: &[Slices<'_>]) -> Vec<[u8; 20]> {
    Tier::in_use().sha1_many(messages)
}

/// The first eight bytes of SHA-1 over `key` and each block, in their order: fingerprints that nobody can aim at who does
/// not know the key.
pub fn keyed_digests(key: &[u8; 16], blocks: &[&[u8]]) -> Vec<u64> {
    let messages: Vec<[&[u8]; 2]> = blocks.iter().map(|block| [key.as_slice(), *block]).collect();
    let messages: Vec<Slices<'_>> = messages.iter().map(<[_; 2]>::as_slice).collect();
    let first = |hash: [u8; 20]| hash.iter().take(8).fold(0, |digest, byte| digest << 8 | u64::from(*byte));
    sha1_many(&messages).into_iter().map(first).collect()
}

/// SHA-256 of many messages, in their order. Those of equal length are hashed together where the processor can.
pub fn sha256_many(messages: &[Slices<'_>]) -> Vec<[u8; 32]> {
    Tier::in_use().sha256_many(messages)
}
