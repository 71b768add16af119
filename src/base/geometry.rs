use std::sync::Arc;

use super::PieceIndex;

/// The unit of request and transfer, in bytes (BEP 3: "2^14").
pub const BLOCK_LEN: u32 = 1 << 14;

/// The most pieces a torrent may have (`limits.md`: what libtorrent accepts).
pub const MAX_PIECE_COUNT: u32 = 1 << 21;

/// The longest piece, in bytes: 512 MiB less one block, so that block counts fit everywhere.
pub const MAX_PIECE_LENGTH: u32 = (512 << 20) - BLOCK_LEN;

/// How a torrent's bytes divide into pieces, and pieces into blocks: the only way from the integers of strangers to
/// positions. Cheap to clone.
///
/// Piece `p` begins at position `p * piece_length` of the torrent. A piece may be shorter on the wire than
/// `piece_length`: the last of a v1 torrent, and the last of each file of a v2-only torrent (BEP 52). Its *data* may be
/// shorter still: the tail of a piece that lies in a pad file (BEP 47) is zeros, which nobody needs to send.
///
/// ```text
///             |<------------ piece_length ------------>|
/// v1, last    |######data######|                           wire_len = data_len
/// hybrid      |######data######|000000 padding 00000000|   wire_len = piece_length, data_len to the file's end
/// v2-only     |######data######|                           wire_len = data_len, the next file begins a new piece
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    piece_length: u32,
    piece_count: u32,
    /// Sorted by piece; every piece that is not listed is full.
    short: Arc<[ShortPiece]>,
}

/// A piece that is not full: see [`Geometry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortPiece {
    /// Which piece.
    pub piece: u32,
    /// Bytes that peers may ask for.
    pub wire_len: u32,
    /// Leading bytes that are not padding, 1 ..= `wire_len`.
    pub data_len: u32,
}

/// A part of one piece, at most [`BLOCK_LEN`] bytes, inside the torrent by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    piece: PieceIndex,
    begin: u32,
    len: u32,
}

/// Why numbers do not describe a torrent, or a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Zero, or above [`MAX_PIECE_LENGTH`].
    #[error("piece length {0} is not between 1 and {MAX_PIECE_LENGTH}")]
    PieceLength(u64),
    /// No piece, or more than [`MAX_PIECE_COUNT`].
    #[error("{0} pieces; a torrent has between 1 and {MAX_PIECE_COUNT}")]
    PieceCount(u64),
    /// The list of short pieces is not sorted, or names lengths or pieces that cannot be.
    #[error("piece {0} has an impossible length")]
    ShortPiece(u32),
    /// A piece index beyond the last piece.
    #[error("piece {0} is beyond the end of the torrent")]
    NoSuchPiece(u32),
    /// A range that is empty, longer than a block, or leaves its piece.
    #[error("range {begin}+{len} does not lie in piece {piece}")]
    BadRange {
        /// The piece asked for.
        piece: u32,
        /// First byte within the piece.
        begin: u32,
        /// Bytes.
        len: u32,
    },
}

impl Geometry {
    /// Pieces of `piece_length` bytes that cover `total` bytes without gaps (v1 without padding).
    ///
    /// # Errors
    /// [`GeometryError::PieceLength`] and [`GeometryError::PieceCount`] outside the limits; `total` 0 has no piece.
    pub fn new(total: u64, piece_length: u32) -> Result<Self, GeometryError> {
        check_piece_length(piece_length)?;
        let count = total.div_ceil(u64::from(piece_length));
        let piece_count = check_piece_count(count)?;
        // What the last piece lacks is less than a piece.
        let lacking = u64::from(piece_count) * u64::from(piece_length) - total;
        let tail = piece_length - u32::try_from(lacking).unwrap_or(0);
        let short = if lacking == 0 {
            vec![]
        } else {
            vec![ShortPiece { piece: piece_count - 1, wire_len: tail, data_len: tail }]
        };
        Ok(Self { piece_length, piece_count, short: short.into() })
    }

    /// Pieces of which some, named in ascending order, are short (v2, hybrid, or v1 with pad files).
    ///
    /// # Errors
    /// As [`Geometry::new`], and [`GeometryError::ShortPiece`] for an entry that is out of order or range.
    pub fn with_short_pieces(
        piece_length: u32,
        piece_count: u32,
        short: Vec<ShortPiece>,
    ) -> Result<Self, GeometryError> {
        check_piece_length(piece_length)?;
        check_piece_count(u64::from(piece_count))?;
        let mut next = 0;
        for s in &short {
            let lengths_fit = 1 <= s.data_len && s.data_len <= s.wire_len && s.wire_len <= piece_length;
            if s.piece < next || s.piece >= piece_count || !lengths_fit {
                return Err(GeometryError::ShortPiece(s.piece));
            }
            next = s.piece + 1;
        }
        Ok(Self { piece_length, piece_count, short: short.into() })
    }

    /// Of a torrent whose metadata is not there yet: no piece, so that nothing names one.
    pub fn unknown() -> Self {
        Self { piece_length: BLOCK_LEN, piece_count: 0, short: [].into() }
    }

    /// Bytes of a full piece.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// How many pieces; 0 only for [`Geometry::unknown`].
    pub fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// All pieces in order.
    pub fn pieces(&self) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        (0..self.piece_count).map(PieceIndex)
    }

    /// The piece a stranger named.
    ///
    /// # Errors
    /// [`GeometryError::NoSuchPiece`].
    pub fn piece(&self, index: u32) -> Result<PieceIndex, GeometryError> {
        if index < self.piece_count { Ok(PieceIndex(index)) } else { Err(GeometryError::NoSuchPiece(index)) }
    }

    fn short(&self, piece: PieceIndex) -> Option<&ShortPiece> {
        self.short.binary_search_by_key(&piece.0, |s| s.piece).ok().map(|i| &self.short[i])
    }

    /// Bytes of `piece` on the wire.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        self.short(piece).map_or(self.piece_length, |s| s.wire_len)
    }

    /// Leading bytes of `piece` that are not padding; what follows, up to [`Geometry::piece_len`], is zeros.
    pub fn data_len(&self, piece: PieceIndex) -> u32 {
        self.short(piece).map_or(self.piece_length, |s| s.data_len)
    }

    /// Blocks of `piece` that have to be fetched: those that are not padding from end to end.
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.data_len(piece).div_ceil(BLOCK_LEN)
    }

    /// Where `piece` begins in the torrent, in bytes.
    pub fn position(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_length)
    }

    /// Bytes that have to be fetched for the whole torrent, padding inside blocks included.
    pub fn fetch_len(&self) -> u64 {
        let full = u64::from(self.piece_count) * u64::from(self.piece_length);
        let missing: u64 = self
            .short
            .iter()
            .map(|s| {
                let fetched = s.wire_len.min(s.data_len.div_ceil(BLOCK_LEN).saturating_mul(BLOCK_LEN));
                u64::from(self.piece_length - fetched)
            })
            .sum();
        full - missing
    }

    /// Block number `n` of `piece`.
    ///
    /// # Errors
    /// [`GeometryError::BadRange`] when the piece has fewer blocks on the wire.
    pub fn block(&self, piece: PieceIndex, n: u32) -> Result<Block, GeometryError> {
        let begin = n.saturating_mul(BLOCK_LEN);
        let left = self.piece_len(piece).saturating_sub(begin);
        self.range(piece.0, begin, left.min(BLOCK_LEN))
    }

    /// All blocks of `piece` that have to be fetched.
    pub fn blocks(&self, piece: PieceIndex) -> impl Iterator<Item = Block> + use<> {
        let wire_len = self.piece_len(piece);
        (0..self.block_count(piece)).map(move |n| {
            let begin = n * BLOCK_LEN;
            Block { piece, begin, len: (wire_len - begin).min(BLOCK_LEN) }
        })
    }

    /// Any range of at most [`BLOCK_LEN`] bytes inside one piece, as a `request` may name it.
    ///
    /// # Errors
    /// [`GeometryError::NoSuchPiece`], [`GeometryError::BadRange`].
    pub fn range(&self, piece: u32, begin: u32, len: u32) -> Result<Block, GeometryError> {
        let index = self.piece(piece)?;
        let end = begin.checked_add(len);
        if len == 0 || len > BLOCK_LEN || end.is_none_or(|end| end > self.piece_len(index)) {
            return Err(GeometryError::BadRange { piece, begin, len });
        }
        Ok(Block { piece: index, begin, len })
    }

    /// Exactly one of [`Geometry::block`]'s blocks, as a `piece` message that answers us must name it.
    ///
    /// # Errors
    /// As [`Geometry::range`], and [`GeometryError::BadRange`] for a range that is no whole block.
    pub fn whole_block(&self, piece: u32, begin: u32, len: u32) -> Result<Block, GeometryError> {
        let block = self.range(piece, begin, len)?;
        let ends_piece = begin + len == self.piece_len(block.piece);
        if begin.is_multiple_of(BLOCK_LEN) && (len == BLOCK_LEN || ends_piece) {
            Ok(block)
        } else {
            Err(GeometryError::BadRange { piece, begin, len })
        }
    }
}

fn check_piece_length(piece_length: u32) -> Result<(), GeometryError> {
    if piece_length == 0 || piece_length > MAX_PIECE_LENGTH {
        return Err(GeometryError::PieceLength(u64::from(piece_length)));
    }
    Ok(())
}

fn check_piece_count(count: u64) -> Result<u32, GeometryError> {
    match u32::try_from(count) {
        Ok(n) if (1..=MAX_PIECE_COUNT).contains(&n) => Ok(n),
        _ => Err(GeometryError::PieceCount(count)),
    }
}

impl Block {
    /// The piece it is part of.
    pub fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// First byte within the piece.
    pub fn begin(&self) -> u32 {
        self.begin
    }

    /// Bytes, 1 ..= [`BLOCK_LEN`].
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Never: a block has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The number of this block within its piece.
    pub fn number(&self) -> u32 {
        self.begin / BLOCK_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn last_piece_is_short() {
        let g = Geometry::new(100_000, 32_768).unwrap();
        assert_eq!(g.piece_count(), 4);
        let last = g.piece(3).unwrap();
        assert_eq!((g.piece_len(last), g.block_count(last)), (1_696, 1));
        assert_eq!(g.fetch_len(), 100_000);
        assert!(g.piece(4).is_err());
    }

    #[test]
    fn padding_is_not_fetched() {
        let short = vec![ShortPiece { piece: 1, wire_len: 65_536, data_len: 20_000 }];
        let g = Geometry::with_short_pieces(65_536, 3, short).unwrap();
        let padded = g.piece(1).unwrap();
        assert_eq!((g.piece_len(padded), g.block_count(padded)), (65_536, 2));
        assert_eq!(g.fetch_len(), 2 * 65_536 + 32_768);
        assert!(g.range(1, 49_152, 16_384).is_ok(), "others may still ask for padding");
    }

    #[test]
    fn limits() {
        assert_eq!(Geometry::new(1, 0), Err(GeometryError::PieceLength(0)));
        assert!(Geometry::new(1, MAX_PIECE_LENGTH + 1).is_err());
        assert_eq!(Geometry::new(0, 1), Err(GeometryError::PieceCount(0)));
        assert!(Geometry::new(u64::MAX, 1).is_err());
        assert!(Geometry::new(u64::from(MAX_PIECE_COUNT) + 1, 1).is_err());
        assert!(Geometry::new(u64::from(MAX_PIECE_COUNT), 1).is_ok());
    }

    #[test]
    fn wire_corners_are_refused() {
        let g = Geometry::new(100_000, 32_768).unwrap();
        for corner in [0, 1, 16_383, 16_384, 16_385, 32_768, 1 << 31, u32::MAX - 1, u32::MAX] {
            assert!(g.range(corner.max(4), 0, 1).is_err());
            assert!(g.range(0, corner.max(32_768), 1).is_err());
            assert!(g.range(0, corner, u32::MAX).is_err());
        }
        assert!(g.range(0, 0, 0).is_err());
        assert!(g.whole_block(0, 1, 16_383).is_err());
        assert!(g.whole_block(0, 16_384, 16_384).is_ok());
        assert!(g.whole_block(3, 0, 1_696).is_ok());
        assert!(g.whole_block(3, 0, 1_695).is_err());
    }

    proptest! {
        /// Blocks tile a piece, pieces tile the torrent.
        #[test]
        fn blocks_tile(total in 1u64..3_000_000, piece_length in 1u32..100_000) {
            let Ok(g) = Geometry::new(total, piece_length) else { return Ok(()) };
            let mut position = 0;
            for piece in g.pieces() {
                prop_assert_eq!(g.position(piece), position);
                for block in g.blocks(piece) {
                    prop_assert_eq!(u64::from(block.begin()) + g.position(piece), position);
                    prop_assert_eq!(g.whole_block(piece.get(), block.begin(), block.len()), Ok(block));
                    position += u64::from(block.len());
                }
            }
            prop_assert_eq!(position, total);
            prop_assert_eq!(g.fetch_len(), total);
        }
    }
}
