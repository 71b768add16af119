use std::io::IoSliceMut;
use std::ops::{Deref, DerefMut};

use super::Message;
use super::frame::{self, DecodeError, Intake};
use super::lookahead::{Guess, Lookahead, MAX_PLACES};
use crate::base::{Block, BlockBuf};

/// Bytes of the receive buffer. Large enough that a fast peer is read a few blocks at a time, small enough for the
/// cache and for hundreds of peers.
const BUFFER: usize = 64 << 10;

/// Bytes of a `piece` frame in front of its body.
pub(super) const PIECE_HEADER_LEN: usize = 13;

/// Turns the bytes of one connection into messages, without I/O of its own.
///
/// One turn of a connection: read into [`buffers`](Self::buffers), say how much came with [`advance`](Self::advance),
/// then take [`next`](Self::next) until it has no more. The body of a `piece` never passes through here if that can be
/// helped: when its header is complete, `next` yields [`Item::PieceHeader`], the caller hands over the place where the
/// body belongs ([`receive`](Self::receive), or [`discard`](Self::discard)), and from then on `buffers` offers that place
/// first:
///
/// ```text
///  receive buffer   |....consumed....|piece header|begin of the body|          a read brought this much
///                                                  \     copied     \          the only copy
///  block                                           |#################|........................|
///                                                                    |<------- buffers[0] ---->|
///  receive buffer   |<------------------------- buffers[1] --------------------------->|
/// ```
///
/// Even that copy, and most reads, are spared where the blocks to come are known, which they are: peers answer in the order
/// in which they were asked. The caller says what it expects ([`expect`](Self::expect)), and one read is laid out for
/// several blocks; `lookahead.rs` has the rest of the idea:
///
/// ```text
///  buffers:   |rest of this block|  |header|block|  |header|block|  |header|block|
/// ```
///
/// Invariants:
/// 1. `start <= end <= bytes.len()`; what was received and not consumed is `bytes[start..end]`, or lies in the places
///    ahead: one of the two is always empty.
/// 2. While a body is not complete both are empty.
/// 3. `bytes` is longer than 64 KiB only while a frame under way, admitted by its prefix and id, is longer;
///    it grows with what has been received, to at most twice that, not with what was promised.
///
/// Once `next` has returned an error it returns the same error for ever, and `buffers` offers nothing.
#[derive(Debug)]
pub struct Decoder {
    /// The receive buffer. Its length is what may be filled; what lies beyond `end` is stale.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The whole length of the frame at `start`, if it is known and some of it is missing; else 0.
    wanted: usize,
    state: State,
    ahead: Lookahead,
    /// Pieces of the torrent, once known: from then on a bitfield has one length only.
    piece_count: Option<u32>,
}

#[derive(Debug)]
enum State {
    /// A length prefix comes next.
    Frame,
    /// A piece header was yielded, and nobody has said yet where the body goes. If it was expected, so much of the body
    /// is in a buffer already.
    Asked(PieceHeader, Option<(BlockBuf, usize)>),
    /// A body is on its way to `buf`.
    Body { header: PieceHeader, buf: BlockBuf, filled: usize },
    /// So many bytes are passed over.
    Skip(usize),
    /// The peer does not speak the protocol.
    Failed(DecodeError),
}

/// What a connection brought.
#[derive(Debug)]
pub enum Item<'a> {
    /// A whole message, borrowed from the receive buffer.
    Message(Message<'a>),
    /// A block begins: answer with [`Decoder::receive`] or [`Decoder::discard`].
    PieceHeader(PieceHeader),
    /// The block of the last header is complete, in the buffer that was handed over.
    Body(BlockBuf),
}

/// The front of a `piece` message (BEP 3). Integers are raw; `len` is at most [`BLOCK_LEN`](crate::base::BLOCK_LEN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceHeader {
    /// Piece.
    pub index: u32,
    /// First byte within the piece.
    pub begin: u32,
    /// Bytes that follow. May be 0.
    pub len: u32,
}

impl Decoder {
    /// A decoder for what follows the handshake. Pass the number of pieces if it is known.
    pub fn new(piece_count: Option<u32>) -> Self {
        Self {
            bytes: vec![0; BUFFER],
            start: 0,
            end: 0,
            wanted: 0,
            state: State::Frame,
            ahead: Lookahead::default(),
            piece_count,
        }
    }

    /// The metadata has come: from now on a bitfield has exactly the length for so many pieces.
    pub fn set_piece_count(&mut self, piece_count: u32) {
        self.piece_count = Some(piece_count);
    }

    /// Where the next bytes go, in this order: the rest of the block under way, if one is; then the places of the blocks
    /// that are [expected](Self::expect), or else the free tail of the receive buffer. The same places are returned until
    /// [`Decoder::advance`], so bytes may be decrypted in place after they were read. There are none if `next` has
    /// failed, or if a full buffer was not drained.
    pub fn buffers(&mut self) -> Places<'_> {
        self.make_room();
        let mut places = Places::new();
        if let State::Failed(_) = self.state {
            return places;
        }
        let ahead = self.reads_ahead();
        if let State::Body { buf, filled, .. } = &mut self.state {
            places.push(IoSliceMut::new(buf.as_mut_slice().get_mut(*filled..).unwrap_or_default()));
        }
        if ahead {
            self.ahead.offer(|place| places.push(place));
        } else {
            places.push(IoSliceMut::new(self.bytes.get_mut(self.end..).unwrap_or_default()));
        }
        places
    }

    /// `n` bytes were written to what [`Decoder::buffers`] offered, without a gap.
    pub fn advance(&mut self, n: usize) {
        self.ahead.learn(n);
        let mut left = n;
        if let State::Body { buf, filled, .. } = &mut self.state {
            let body = left.min(buf.len().saturating_sub(*filled));
            *filled += body;
            left -= body;
        }
        if self.reads_ahead() {
            left = self.ahead.advance(left);
            debug_assert_eq!(left, 0, "more bytes than were offered");
            return;
        }
        let tail = left.min(self.bytes.len() - self.end);
        debug_assert_eq!(left, tail, "more bytes than were offered");
        self.end += tail;
    }

    /// Whether the next read goes to the places of the blocks expected.
    fn reads_ahead(&self) -> bool {
        self.end == 0 && !self.ahead.is_empty() && !matches!(self.state, State::Skip(_))
    }

    /// How many blocks are worth being [expected](Self::expect): about as many as reads have brought lately, none on a slow
    /// connection.
    pub fn reach(&self) -> usize {
        self.ahead.reach()
    }

    /// Forgets what was expected, to expect something else; the buffers can be had by [`take_spare`](Self::take_spare).
    /// Returns the block that has begun to come all the same, and stays expected.
    pub fn reset_expected(&mut self) -> Option<PieceHeader> {
        self.ahead.reset();
        self.ahead.begun()
    }

    /// The next block to come, behind those expected already, will probably be this one, and should be read to `buf`, whose
    /// length must be the block's. Being wrong costs a copy, no more.
    pub fn expect(&mut self, header: PieceHeader, buf: BlockBuf) {
        if buf.len() == header.len as usize {
            self.ahead.expect(header, buf);
        } else {
            debug_assert!(false, "a buffer of another length");
            self.ahead.put_spare(buf);
        }
    }

    /// A buffer that was handed over and is not in use.
    pub fn take_spare(&mut self) -> Option<BlockBuf> {
        self.ahead.take_spare()
    }

    /// Copies as much of `bytes` as the buffers take, as a read would have, and returns how much that is: all, if it is
    /// no more than the buffers offer. Between two calls take [`Decoder::next`] until it has no more.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut fed = 0;
        for place in self.buffers().iter_mut() {
            let n = place.len().min(bytes.len() - fed);
            place[..n].copy_from_slice(&bytes[fed..fed + n]);
            fed += n;
        }
        self.advance(fed);
        fed
    }

    /// The next thing that came, or `None` when more must be read. A piece header that was not answered counts as
    /// discarded.
    ///
    /// # Errors
    /// A length that its message cannot have, seen as soon as the prefix and the id are there.
    #[expect(clippy::should_implement_trait, reason = "items borrow from the decoder, which no Iterator can say")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, DecodeError> {
        if !matches!(self.state, State::Frame) && !self.finish_frame()? {
            return Ok(None);
        }
        if let State::Body { .. } = self.state {
            return Ok(self.take_buf().map(Item::Body));
        }
        if self.ahead.filled() > 0 {
            match self.ahead.guess() {
                Guess::Open => return Ok(None),
                Guess::Right(header, buf, filled) => {
                    self.state = State::Asked(header, Some((buf, filled)));
                    return Ok(Some(Item::PieceHeader(header)));
                }
                Guess::Wrong => self.flatten(),
            }
        }
        self.next_frame()
    }

    /// Something else came than was expected: it becomes what is in the receive buffer.
    #[cold]
    fn flatten(&mut self) {
        let filled = self.ahead.filled();
        if self.bytes.len() < filled {
            self.bytes.reserve_exact(filled - self.bytes.len());
            self.bytes.resize(filled, 0);
        }
        (self.start, self.end) = (0, filled);
        self.ahead.flatten(&mut self.bytes[..filled]);
    }

    /// Whether a new frame can begin, or a body is complete.
    fn finish_frame(&mut self) -> Result<bool, DecodeError> {
        if let State::Asked(..) = self.state {
            self.discard();
        }
        match &mut self.state {
            State::Frame => Ok(true),
            State::Body { buf, filled, .. } => Ok(*filled == buf.len()),
            State::Skip(left) => {
                let dropped = (*left).min(self.end - self.start);
                self.start += dropped;
                *left -= dropped;
                let done = *left == 0;
                if done {
                    self.state = State::Frame;
                }
                Ok(done)
            }
            State::Asked(..) => Ok(false),
            State::Failed(error) => Err(*error),
        }
    }

    /// What the frame at `start` is, as far as it is there.
    #[inline]
    fn next_frame(&mut self) -> Result<Option<Item<'_>>, DecodeError> {
        self.wanted = 0;
        let held = &self.bytes[self.start..self.end];
        let Some((prefix, rest)) = held.split_first_chunk() else { return Ok(None) };
        let len = u32::from_be_bytes(*prefix);
        if len == 0 {
            self.start += 4;
            return Ok(Some(Item::Message(Message::KeepAlive)));
        }
        let Some(&id) = rest.first() else {
            return match frame::check_prefix(len) {
                Ok(()) => Ok(None),
                Err(error) => fail(&mut self.state, error),
            };
        };
        match frame::check_prefix(len).and_then(|()| frame::admit(id, len, self.piece_count)) {
            Ok(Intake::Whole) => {
                let Some(payload) = rest.get(1..len as usize) else {
                    self.wanted = 4 + len as usize;
                    return Ok(None);
                };
                match Message::parse(id, payload) {
                    Ok(message) => {
                        self.start += 4 + len as usize;
                        Ok(Some(Item::Message(message)))
                    }
                    Err(error) => fail(&mut self.state, error),
                }
            }
            Ok(Intake::Piece) => {
                let Some(header) = PieceHeader::parse(len, &rest[1..]) else { return Ok(None) };
                self.start += PIECE_HEADER_LEN;
                self.state = State::Asked(header, None);
                Ok(Some(Item::PieceHeader(header)))
            }
            Ok(Intake::Skip) => {
                self.start += 5;
                self.state = State::Skip(len as usize - 1);
                Ok(Some(Item::Message(Message::Unknown(id))))
            }
            Err(error) => fail(&mut self.state, error),
        }
    }

    /// The body of the header that was just yielded goes to `buf`, whose length is the body's. What had been read of it
    /// is copied now, the rest is offered to the reader.
    ///
    /// # Errors
    /// The buffer comes back if no header waits for an answer or the length differs; a body that waits is discarded.
    pub fn receive(&mut self, mut buf: BlockBuf) -> Result<(), BlockBuf> {
        let State::Asked(header, begun) = &mut self.state else { return Err(buf) };
        let header = *header;
        if buf.len() != header.len as usize {
            self.discard();
            return Err(buf);
        }
        let filled = match begun.take() {
            // The body is where it was read to, and the new buffer takes the place of that one.
            Some((begun, filled)) => {
                self.ahead.put_spare(std::mem::replace(&mut buf, begun));
                filled
            }
            None => {
                let filled = buf.len().min(self.end - self.start);
                buf.as_mut_slice()[..filled].copy_from_slice(&self.bytes[self.start..self.start + filled]);
                self.start += filled;
                filled
            }
        };
        self.state = State::Body { header, buf, filled };
        Ok(())
    }

    /// The body of the header that was just yielded is wanted by nobody: it will be passed over.
    pub fn discard(&mut self) {
        let State::Asked(header, begun) = &mut self.state else { return };
        let mut left = header.len as usize;
        if let Some((buf, filled)) = begun.take() {
            left -= filled;
            self.ahead.put_spare(buf);
        }
        self.state = State::Skip(left);
    }

    /// The block under way and how many bytes of it are there, while [`Item::Body`] has not been yielded.
    pub fn receiving(&self) -> Option<(PieceHeader, usize)> {
        match &self.state {
            State::Body { header, filled, .. } => Some((*header, *filled)),
            _ => None,
        }
    }

    /// Takes the buffer of the block under way back; what is still to come of the body will be passed over.
    pub fn take_buf(&mut self) -> Option<BlockBuf> {
        match std::mem::replace(&mut self.state, State::Frame) {
            State::Body { buf, filled, .. } => {
                if filled < buf.len() {
                    self.state = State::Skip(buf.len() - filled);
                }
                Some(buf)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Bytes of memory that the receive buffer takes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes the tail long enough for a good read, and the buffer long enough for the frame under way.
    fn make_room(&mut self) {
        let held = self.end - self.start;
        if held == 0 {
            (self.start, self.end) = (0, 0);
        } else if self.start >= held || (self.start > 0 && self.bytes.len() - self.end < BUFFER / 4) {
            // A drained decoder holds part of one frame only, so these are few bytes, and each frame is moved once.
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, held);
        }
        if self.wanted > self.bytes.len() && self.end == self.bytes.len() {
            let len = self.wanted.min(self.bytes.len() * 2);
            self.bytes.reserve_exact(len - self.bytes.len());
            self.bytes.resize(len, 0);
        } else if self.bytes.len() > BUFFER && self.wanted <= BUFFER && self.end <= BUFFER {
            self.bytes.truncate(BUFFER);
            self.bytes.shrink_to_fit();
        }
    }
}

/// Where one read goes: see [`Decoder::buffers`].
#[derive(Debug)]
pub struct Places<'a> {
    slices: [IoSliceMut<'a>; MAX_PLACES],
    count: usize,
}

impl<'a> Places<'a> {
    fn new() -> Self {
        Self { slices: std::array::from_fn(|_| IoSliceMut::new(&mut [])), count: 0 }
    }

    fn push(&mut self, place: IoSliceMut<'a>) {
        debug_assert!(self.count < MAX_PLACES);
        if let Some(slot) = self.slices.get_mut(self.count) {
            *slot = place;
            self.count += 1;
        }
    }
}

impl<'a> Deref for Places<'a> {
    type Target = [IoSliceMut<'a>];

    fn deref(&self) -> &Self::Target {
        &self.slices[..self.count]
    }
}

impl DerefMut for Places<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.slices[..self.count]
    }
}

#[cold]
fn fail<T>(state: &mut State, error: DecodeError) -> Result<T, DecodeError> {
    *state = State::Failed(error);
    Err(error)
}

impl From<Block> for PieceHeader {
    fn from(block: Block) -> Self {
        Self { index: block.piece().get(), begin: block.begin(), len: block.len() }
    }
}

impl PieceHeader {
    /// From what follows the id, if enough is there.
    fn parse(len: u32, rest: &[u8]) -> Option<Self> {
        let (index, rest) = rest.split_first_chunk()?;
        let begin = rest.first_chunk()?;
        let len = len.checked_sub(9)?;
        Some(Self { index: u32::from_be_bytes(*index), begin: u32::from_be_bytes(*begin), len })
    }
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
