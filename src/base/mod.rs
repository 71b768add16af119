//! L0: the words that every layer speaks.
//!
//! For: identities, piece arithmetic, bit sets, rates and buffers, and the guard in front of bencode.
//! Must not know: any layer above, sockets, files, threads, the clock, randomness.
//! Main types: [`Geometry`], [`Block`], [`Bitfield`], [`InfoHash`].
//! BEPs: 3 (pieces and blocks), 20 (peer ids), 52 (v2 hashes and file-aligned pieces).

mod aligned;
pub mod bencode;
mod bitfield;
mod block_pool;
mod geometry;
mod id;
mod printable;
mod rate;
mod slab;

pub use aligned::AlignedBytes;
pub use bitfield::{Bitfield, BitfieldError};
pub use block_pool::{BlockBuf, BlockPool};
pub use geometry::{BLOCK_LEN, Block, Geometry, GeometryError, MAX_PIECE_COUNT, MAX_PIECE_LENGTH, ShortPiece};
pub use id::{InfoHash, InfoHashV1, InfoHashV2, PeerId, PieceIndex};
pub use printable::{Printable, printable};
pub(crate) use printable::{is_bidi_control, is_zero_width};
pub use rate::{Pace, RateMeter, RttMeter, TokenBucket};
pub use slab::{PeerKey, Slab};
