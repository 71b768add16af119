use std::collections::VecDeque;
use std::io::IoSliceMut;

use super::decoder::{PIECE_HEADER_LEN, PieceHeader};
use super::frame::id;
use crate::base::{BLOCK_LEN, BlockBuf};

/// Blocks that one read may be laid out for. As many as fit into what the decoder may hold if the guess was wrong.
pub(super) const MAX_AHEAD: usize = 15;

/// Places that one read can have at most: the rest of a body, a header and a body for each block ahead, and the tail.
pub(super) const MAX_PLACES: usize = 2 * MAX_AHEAD + 2;

/// Bytes of a `piece` frame with a whole block.
const FRAME_LEN: usize = PIECE_HEADER_LEN + BLOCK_LEN as usize;

/// Where the blocks after the present one go if they come in the order in which they were asked for, which they nearly
/// always do: `header, body, header, body...`, each in a place of its own, filled by one read.
///
/// The headers that came are compared with those expected. As long as they are the same a body is where it belongs, and
/// was never copied. At the first that differs all that follows is one stream of bytes again
/// ([`Lookahead::flatten`]), copied once, and nothing is lost but that.
#[derive(Debug, Default)]
pub(super) struct Lookahead {
    places: VecDeque<Place>,
    /// Bytes that came, from the header of the first place on.
    filled: usize,
    spare: Vec<BlockBuf>,
    /// How many blocks the last reads brought, more or less.
    reach: usize,
}

#[derive(Debug)]
struct Place {
    header: PieceHeader,
    /// What came for a header.
    front: [u8; PIECE_HEADER_LEN],
    buf: BlockBuf,
}

/// What the first place holds.
#[derive(Debug)]
pub(super) enum Guess {
    /// Nothing yet, or a header that may still become the one expected.
    Open,
    /// The header expected, and so many bytes of its body.
    Right(PieceHeader, BlockBuf, usize),
    /// Something else.
    Wrong,
}

impl Place {
    fn len(&self) -> usize {
        PIECE_HEADER_LEN + self.buf.len()
    }

    fn expected(&self) -> [u8; PIECE_HEADER_LEN] {
        let mut front = [0; PIECE_HEADER_LEN];
        front[..4].copy_from_slice(&(9 + self.header.len).to_be_bytes());
        front[4] = id::PIECE;
        front[5..9].copy_from_slice(&self.header.index.to_be_bytes());
        front[9..].copy_from_slice(&self.header.begin.to_be_bytes());
        front
    }
}

impl Lookahead {
    /// Adds the parts of the places that nothing came for yet, in order.
    pub(super) fn offer<'a>(&'a mut self, mut push: impl FnMut(IoSliceMut<'a>)) {
        let mut filled = self.filled;
        for place in &mut self.places {
            for part in [place.front.as_mut_slice(), place.buf.as_mut_slice()] {
                let skipped = filled.min(part.len());
                filled -= skipped;
                let free = &mut part[skipped..];
                if !free.is_empty() {
                    push(IoSliceMut::new(free));
                }
            }
        }
    }

    /// `n` bytes came to what was offered; returns how many of them were beyond it.
    pub(super) fn advance(&mut self, n: usize) -> usize {
        let room: usize = self.places.iter().map(Place::len).sum::<usize>() - self.filled;
        let taken = n.min(room);
        self.filled += taken;
        n - taken
    }

    /// A read brought `n` bytes in all: the next is laid out for a little more.
    pub(super) fn learn(&mut self, n: usize) {
        self.reach = (2 * (n / FRAME_LEN)).max(self.reach - self.reach.div_ceil(4)).min(MAX_AHEAD);
    }

    /// How many blocks should be expected.
    pub(super) fn reach(&self) -> usize {
        self.reach
    }

    /// Whether there is no place to read to.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes that came and were not looked at.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// What came to the first place. If it is right, the place is gone from here.
    #[inline]
    pub(super) fn guess(&mut self) -> Guess {
        let Some(first) = self.places.front() else { return Guess::Open };
        let seen = self.filled.min(PIECE_HEADER_LEN);
        if first.front[..seen] != first.expected()[..seen] {
            return Guess::Wrong;
        }
        if seen < PIECE_HEADER_LEN {
            return Guess::Open;
        }
        let Some(Place { header, buf, .. }) = self.places.pop_front() else { return Guess::Open };
        let body = (self.filled - PIECE_HEADER_LEN).min(buf.len());
        self.filled -= PIECE_HEADER_LEN + body;
        Guess::Right(header, buf, body)
    }

    /// Copies all that came to `into`, which is long enough, in the order in which it came, and expects nothing more.
    pub(super) fn flatten(&mut self, into: &mut [u8]) {
        let mut rest = into;
        for place in self.places.drain(..) {
            for part in [place.front.as_slice(), place.buf.as_slice()] {
                let n = self.filled.min(part.len());
                self.filled -= n;
                let (to, behind) = rest.split_at_mut(n);
                to.copy_from_slice(&part[..n]);
                rest = behind;
            }
            self.spare.push(place.buf);
        }
        // Peers that mix their answers with much else are not worth laying out for.
        self.reach /= 2;
    }

    /// Expects nothing but what has begun to come.
    pub(super) fn reset(&mut self) {
        let begun = usize::from(self.filled > 0);
        while self.places.len() > begun
            && let Some(place) = self.places.pop_back()
        {
            self.spare.push(place.buf);
        }
    }

    /// Expects this block behind the others, to be read to `buf`, whose length is the block's.
    pub(super) fn expect(&mut self, header: PieceHeader, buf: BlockBuf) {
        debug_assert_eq!(buf.len(), header.len as usize);
        self.places.push_back(Place { header, front: [0; PIECE_HEADER_LEN], buf });
    }

    /// The header of the first place, if it has begun to come.
    pub(super) fn begun(&self) -> Option<PieceHeader> {
        self.places.front().filter(|_| self.filled > 0).map(|place| place.header)
    }

    /// A buffer that nothing came to.
    pub(super) fn take_spare(&mut self) -> Option<BlockBuf> {
        self.spare.pop()
    }

    /// Keeps a buffer for a block to come.
    pub(super) fn put_spare(&mut self, buf: BlockBuf) {
        self.spare.push(buf);
    }
}
