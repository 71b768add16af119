//! What a length prefix may say: judged as soon as prefix and id are there, before a byte of payload is kept.

use super::hashes::{MAX_HASHES, MAX_PROOF_LAYERS, REQUEST_LEN};
use crate::base::{BLOCK_LEN, MAX_PIECE_COUNT};

/// The longest `bitfield` while the number of pieces is unknown, in bytes: a bit for each of [`MAX_PIECE_COUNT`].
pub const MAX_BITFIELD_LEN: u32 = MAX_PIECE_COUNT / 8;

/// The longest payload of an `extended` message that is stored, in bytes, its id included. PEX and handshakes of
/// honest clients stay far below.
pub const MAX_EXTENDED_LEN: u32 = 64 << 10;

/// The longest payload of a message that we do not understand, in bytes. It is skipped, never stored; beyond this it
/// is no extension of the protocol but noise.
pub const MAX_SKIPPED_LEN: u32 = 128 << 10;

/// The largest length prefix that any message may have: a bitfield and its id.
const MAX_PREFIX: u32 = MAX_BITFIELD_LEN + 1;

/// Ids of messages (BEP 3, 6, 10, 52).
pub(super) mod id {
    pub(in crate::wire) const CHOKE: u8 = 0;
    pub(in crate::wire) const UNCHOKE: u8 = 1;
    pub(in crate::wire) const INTERESTED: u8 = 2;
    pub(in crate::wire) const NOT_INTERESTED: u8 = 3;
    pub(in crate::wire) const HAVE: u8 = 4;
    pub(in crate::wire) const BITFIELD: u8 = 5;
    pub(in crate::wire) const REQUEST: u8 = 6;
    pub(in crate::wire) const PIECE: u8 = 7;
    pub(in crate::wire) const CANCEL: u8 = 8;
    pub(in crate::wire) const PORT: u8 = 9;
    pub(in crate::wire) const SUGGEST: u8 = 13;
    pub(in crate::wire) const HAVE_ALL: u8 = 14;
    pub(in crate::wire) const HAVE_NONE: u8 = 15;
    pub(in crate::wire) const REJECT: u8 = 16;
    pub(in crate::wire) const ALLOWED_FAST: u8 = 17;
    pub(in crate::wire) const EXTENDED: u8 = 20;
    pub(in crate::wire) const HASH_REQUEST: u8 = 21;
    pub(in crate::wire) const HASHES: u8 = 22;
    pub(in crate::wire) const HASH_REJECT: u8 = 23;
}

/// Why a peer's bytes are not messages. Always the remote's fault; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The prefix is beyond what any message may have.
    #[error("a message of {0} bytes")]
    Prefix(u32),
    /// The message cannot have this length.
    #[error("message {id} of {len} bytes")]
    Length {
        /// Which message.
        id: u8,
        /// Its length prefix: payload and id, in bytes.
        len: u32,
    },
}

/// How a frame is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Collected in the receive buffer, then parsed.
    Whole,
    /// A `piece`: its body goes straight to a block.
    Piece,
    /// Passed over.
    Skip,
}

/// Whether a prefix can be right at all, when the id is not there yet.
pub(super) fn check_prefix(len: u32) -> Result<(), DecodeError> {
    if len > MAX_PREFIX { Err(DecodeError::Prefix(len)) } else { Ok(()) }
}

/// Whether message `id` may have `len` bytes (id included, so at least 1), and how it is to be taken in.
/// `piece_count` is the torrent's, once known.
#[inline]
pub(super) fn admit(id: u8, len: u32, piece_count: Option<u32>) -> Result<Intake, DecodeError> {
    let payload = len.saturating_sub(1);
    let (fits, intake) = match id {
        id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED | id::HAVE_ALL | id::HAVE_NONE => {
            (payload == 0, Intake::Whole)
        }
        id::HAVE | id::SUGGEST | id::ALLOWED_FAST => (payload == 4, Intake::Whole),
        id::REQUEST | id::CANCEL | id::REJECT => (payload == 12, Intake::Whole),
        id::PORT => (payload == 2, Intake::Whole),
        id::PIECE => ((8..=8 + BLOCK_LEN).contains(&payload), Intake::Piece),
        id::BITFIELD => match piece_count {
            Some(count) => (payload == count.div_ceil(8), Intake::Whole),
            None => (payload <= MAX_BITFIELD_LEN, Intake::Whole),
        },
        id::EXTENDED if payload <= MAX_EXTENDED_LEN => (payload >= 1, Intake::Whole),
        id::HASH_REQUEST | id::HASH_REJECT => (payload == REQUEST_LEN, Intake::Whole),
        id::HASHES => {
            let hashes = payload.checked_sub(REQUEST_LEN);
            let bound = (MAX_HASHES + MAX_PROOF_LAYERS) * 32;
            (hashes.is_some_and(|h| h % 32 == 0 && h <= bound), Intake::Whole)
        }
        _ => (payload <= MAX_SKIPPED_LEN, Intake::Skip),
    };
    if fits { Ok(intake) } else { Err(DecodeError::Length { id, len }) }
}
