use std::collections::VecDeque;

use super::{Message, frame::id};
use crate::base::{Block, PieceIndex};

/// How many control bytes may wait for one peer, in bytes. A peer that lets more pile up asks and does not read: what we
/// answer to honest peers is a few hundred bytes, and once in a connection a bitfield of at most 256 KiB.
pub const CONTROL_CEILING: usize = 1 << 20;

/// Memory that is kept for control bytes while few wait, in bytes.
const KEPT: usize = 64 << 10;

/// Bytes of a `piece` frame in front of the payload.
const PIECE_HEADER_LEN: usize = 13;

/// What waits to be sent to one peer: control bytes, which always go first, and blocks to upload, which are only names
/// until the socket can take them.
///
/// Nothing here refuses: whoever fills it looks at [`Outbox::piece_count`] and [`Outbox::is_overfull`].
#[derive(Debug, Default)]
pub struct Outbox {
    /// Encoded messages.
    control: Vec<u8>,
    /// What the peer asked for and will get, oldest first.
    pieces: VecDeque<Block>,
    /// The same, when all of those are on their way.
    later: VecDeque<Block>,
    /// Bytes that `pieces` and `later` will be on the wire.
    piece_bytes: u64,
}

impl Outbox {
    /// Nothing to send.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message.
    pub fn push(&mut self, message: &Message<'_>) {
        message.encode_into(&mut self.control);
    }

    /// Appends a block to upload.
    pub fn push_piece(&mut self, block: Block) {
        self.pieces.push_back(block);
        self.piece_bytes += frame_len(block);
    }

    /// Appends a block to upload once nothing else waits: what is pushed by [`Outbox::push_piece`] goes before it.
    pub fn push_piece_later(&mut self, block: Block) {
        self.later.push_back(block);
        self.piece_bytes += frame_len(block);
    }

    /// Takes the first such block back, if it has not been taken out yet.
    pub fn cancel_piece(&mut self, block: Block) -> bool {
        let take = |blocks: &mut VecDeque<Block>| {
            let at = blocks.iter().position(|waiting| *waiting == block)?;
            blocks.remove(at)
        };
        let found = take(&mut self.pieces).or_else(|| take(&mut self.later)).is_some();
        if found {
            self.piece_bytes = self.piece_bytes.saturating_sub(frame_len(block));
        }
        found
    }

    /// Takes all blocks of a piece back.
    pub fn take_pieces_of(&mut self, piece: PieceIndex) -> Vec<Block> {
        let mut taken = Vec::new();
        for blocks in [&mut self.pieces, &mut self.later] {
            taken.extend(blocks.iter().filter(|block| block.piece() == piece).copied());
            blocks.retain(|block| block.piece() != piece);
        }
        let bytes: u64 = taken.iter().copied().map(frame_len).sum();
        self.piece_bytes = self.piece_bytes.saturating_sub(bytes);
        taken
    }

    /// Takes all blocks back, in the order in which they would have gone: the peer was choked.
    pub fn clear_pieces(&mut self) -> impl Iterator<Item = Block> + '_ {
        self.piece_bytes = 0;
        self.pieces.drain(..).chain(self.later.drain(..))
    }

    /// Appends the control bytes to `into` and forgets them. If `into` is empty the two only change places, so the memory
    /// goes back and forth between here and the one who writes to the socket.
    pub fn take_control(&mut self, into: &mut Vec<u8>) {
        if into.is_empty() {
            std::mem::swap(&mut self.control, into);
        } else {
            into.append(&mut self.control);
        }
        // A bitfield or a flood passed through: do not keep its memory for the life of the connection.
        if self.control.capacity() > KEPT {
            self.control.shrink_to(KEPT);
        }
    }

    /// Takes the next block out.
    pub fn next_piece(&mut self) -> Option<Block> {
        let block = self.pieces.pop_front().or_else(|| self.later.pop_front())?;
        self.piece_bytes = self.piece_bytes.saturating_sub(frame_len(block));
        Some(block)
    }

    /// Puts blocks back that were taken out and not sent, before all others; `blocks` in the order in which they came.
    pub fn put_back(&mut self, blocks: &[Block]) {
        for block in blocks.iter().rev() {
            self.pieces.push_front(*block);
            self.piece_bytes += frame_len(*block);
        }
    }

    /// The last block.
    pub fn last_piece(&self) -> Option<Block> {
        self.later.back().or(self.pieces.back()).copied()
    }

    /// The next block.
    pub fn peek(&self) -> Option<Block> {
        self.pieces().next()
    }

    /// All blocks that wait, in the order in which they go.
    pub fn pieces(&self) -> impl Iterator<Item = Block> + '_ {
        self.pieces.iter().chain(&self.later).copied()
    }

    /// How many blocks wait.
    pub fn piece_count(&self) -> usize {
        self.pieces.len() + self.later.len()
    }

    /// How many control bytes wait.
    pub fn control_len(&self) -> usize {
        self.control.len()
    }

    /// How many bytes wait: control, and blocks with their headers.
    pub fn queued_bytes(&self) -> u64 {
        self.control.len() as u64 + self.piece_bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.piece_count() == 0
    }

    /// Whether more control bytes wait than [`CONTROL_CEILING`]: the peer does not read, and should be closed.
    pub fn is_overfull(&self) -> bool {
        self.control.len() > CONTROL_CEILING
    }
}

fn frame_len(block: Block) -> u64 {
    PIECE_HEADER_LEN as u64 + u64::from(block.len())
}

/// What goes in front of the payload of `block`: prefix, id, piece and begin (BEP 3).
pub fn piece_header(block: Block) -> [u8; PIECE_HEADER_LEN] {
    let mut header = [0; PIECE_HEADER_LEN];
    header[..4].copy_from_slice(&(9 + block.len()).to_be_bytes());
    header[4] = id::PIECE;
    header[5..9].copy_from_slice(&block.piece().get().to_be_bytes());
    header[9..].copy_from_slice(&block.begin().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Geometry;

    fn blocks() -> Vec<Block> {
        let geometry = Geometry::new(100_000, 1 << 15).unwrap();
        geometry.pieces().flat_map(|p| geometry.blocks(p).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn pieces_come_and_go() {
        let blocks = blocks();
        let mut outbox = Outbox::new();
        blocks.iter().for_each(|b| outbox.push_piece(*b));
        assert_eq!(outbox.queued_bytes(), 100_000 + 13 * blocks.len() as u64);
        assert_eq!(outbox.peek(), Some(blocks[0]));
        assert!(outbox.cancel_piece(blocks[1]));
        assert!(!outbox.cancel_piece(blocks[1]));
        assert_eq!(outbox.next_piece(), Some(blocks[0]));
        assert_eq!(outbox.next_piece(), Some(blocks[2]));
        outbox.put_back(&[blocks[0], blocks[2]]);
        assert_eq!((outbox.peek(), outbox.last_piece()), (Some(blocks[0]), blocks.last().copied()));
        assert_eq!((outbox.next_piece(), outbox.next_piece()), (Some(blocks[0]), Some(blocks[2])));
        assert_eq!(outbox.piece_count(), blocks.len() - 3);
        assert_eq!(outbox.clear_pieces().collect::<Vec<_>>(), blocks[3..]);
        assert!(outbox.is_empty());
        assert_eq!((outbox.queued_bytes(), outbox.next_piece()), (0, None));
    }

    #[test]
    fn some_can_wait() {
        let blocks = blocks();
        let mut outbox = Outbox::new();
        outbox.push_piece_later(blocks[0]);
        outbox.push_piece_later(blocks[1]);
        outbox.push_piece(blocks[2]);
        assert_eq!(outbox.pieces().collect::<Vec<_>>(), [blocks[2], blocks[0], blocks[1]]);
        assert_eq!((outbox.peek(), outbox.last_piece()), (Some(blocks[2]), Some(blocks[1])));
        assert!(outbox.cancel_piece(blocks[1]) && !outbox.cancel_piece(blocks[1]));
        assert_eq!((outbox.next_piece(), outbox.next_piece()), (Some(blocks[2]), Some(blocks[0])));
        assert!(outbox.is_empty() && outbox.queued_bytes() == 0);
        outbox.push_piece_later(blocks[0]);
        outbox.push_piece(blocks[2]);
        assert_eq!(outbox.clear_pieces().collect::<Vec<_>>(), [blocks[2], blocks[0]]);
        assert!(outbox.is_empty() && outbox.queued_bytes() == 0);
    }

    #[test]
    fn control_changes_places() {
        let mut outbox = Outbox::new();
        outbox.push(&Message::Unchoke);
        let mut sending = Vec::with_capacity(100);
        let memory = sending.as_ptr();
        outbox.take_control(&mut sending);
        assert_eq!((sending.as_slice(), outbox.control.as_ptr()), (b"\0\0\0\x01\x01".as_slice(), memory));
        outbox.push(&Message::Have(3));
        outbox.take_control(&mut sending);
        assert_eq!(sending, b"\0\0\0\x01\x01\0\0\0\x05\x04\0\0\0\x03");
        assert!(outbox.is_empty());
    }

    #[test]
    fn flood_is_seen_and_its_memory_freed() {
        let mut outbox = Outbox::new();
        while !outbox.is_overfull() {
            outbox.push(&Message::Reject { index: 1, begin: 2, len: 3 });
        }
        assert!(outbox.control_len() <= CONTROL_CEILING + 17);
        let mut sending = Vec::new();
        outbox.take_control(&mut sending);
        sending.clear();
        outbox.take_control(&mut sending);
        assert!(outbox.control.capacity() <= KEPT && !outbox.is_overfull());
    }

    #[test]
    fn header_bytes() {
        let last = *blocks().last().unwrap();
        assert_eq!(piece_header(last), [0, 0, 0x06, 0xa9, 7, 0, 0, 0, 3, 0, 0, 0, 0]);
    }
}
