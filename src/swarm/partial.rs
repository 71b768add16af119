use super::blame::Sender;
use crate::base::{Block, BlockBuf, PieceIndex};

/// The payload of a piece under way: which blocks are here, and who sent each.
#[derive(Debug)]
pub(super) struct PartialPiece {
    piece: PieceIndex,
    blocks: Vec<Option<(Sender, BlockBuf)>>,
    missing: usize,
}

/// All blocks of a piece, not yet verified. Padding is not part of it: see
/// [`Geometry::data_len`](crate::base::Geometry::data_len).
#[derive(Debug)]
pub struct FullPiece {
    /// Which piece.
    pub piece: PieceIndex,
    /// Its blocks in order.
    pub blocks: Vec<BlockBuf>,
}

impl PartialPiece {
    pub(super) fn new(piece: PieceIndex, block_count: u32) -> Self {
        let block_count = block_count as usize;
        Self { piece, blocks: (0..block_count).map(|_| None).collect(), missing: block_count }
    }

    /// Puts a block in its place; gives it back if the place is taken.
    pub(super) fn insert(&mut self, block: Block, from: Sender, data: BlockBuf) -> Result<(), BlockBuf> {
        debug_assert_eq!(block.piece(), self.piece);
        match self.blocks.get_mut(block.number() as usize) {
            Some(place @ None) => {
                *place = Some((from, data));
                self.missing -= 1;
                Ok(())
            }
            _ => Err(data),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.missing == 0
    }

    /// The data in order, and the senders in the same order. Only for a full piece: missing blocks leave no gap.
    pub(super) fn into_full(self) -> (FullPiece, Vec<Sender>) {
        debug_assert!(self.is_full());
        let (senders, blocks) = self.blocks.into_iter().flatten().unzip();
        (FullPiece { piece: self.piece, blocks }, senders)
    }
}
