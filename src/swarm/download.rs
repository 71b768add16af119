//! Asking for blocks, taking them, verdicts about pieces.

use std::time::Instant;

use super::bans::Identity;
use super::blame::{Guilty, Sender};
use super::partial::{Origins, PartialPiece};
use super::peer::{Asked, Peer};
use super::picker::{Ask, Received};
use super::{Action, CloseReason, Misbehaved, Swarm};
use crate::base::{Block, BlockBuf, PeerKey, PieceIndex};
use crate::wire::{Extension, Message, PieceHeader, UploadOnly};

/// A peer that can send a whole piece in so many seconds gets pieces of its own; slower ones share.
const OWN_PIECE_SECONDS: u64 = 10;

/// The longest piece, in bytes, that a peer of unknown speed gets for its own.
const LENT_TO_STRANGERS: u64 = 1 << 20;

/// Bytes of what a seed may hear later that may wait.
const HELD_BACK: usize = 1 << 10;

/// What to do with the body of a `piece` message whose header has come.
#[derive(Debug)]
pub enum Receive {
    /// Read it into this buffer and hand it to [`Swarm::handle_block`].
    Into(Block, BlockBuf),
    /// Nobody asked for it, or it is here already: read past it.
    Discard,
}

/// What a disk thread found about a full piece.
#[derive(Debug)]
pub enum Verdict {
    /// It hashes, and is written.
    Good,
    /// It does not hash. Nothing was written.
    Bad,
    /// It hashes, but could not be written.
    DiskFailed,
}

impl Swarm {
    /// The header of a `piece` message came: says where its body goes.
    ///
    /// # Errors
    /// The header names no block of the torrent.
    pub fn receive_into(&mut self, now: Instant, key: PeerKey, header: PieceHeader) -> Result<Receive, Misbehaved> {
        if !self.is_open() {
            self.totals.wasted += u64::from(header.len);
            return Ok(Receive::Discard);
        }
        let block =
            self.geometry.whole_block(header.index, header.begin, header.len).map_err(|_| Misbehaved::Geometry)?;
        let Some(peer) = self.peers.at_mut(key) else { return Ok(Receive::Discard) };
        peer.last_message = now;
        if !peer.asked.iter().any(|a| a.block == block) {
            self.totals.wasted += u64::from(block.len());
            return Ok(Receive::Discard);
        }
        match self.pool.take(block.len()) {
            Some(buf) => {
                peer.receiving = Some(block);
                self.receiving += 1;
                Ok(Receive::Into(block, buf))
            }
            None => {
                // What is asked for is within the pool's ceiling, so this comes late, or was asked for twice in endgame.
                self.totals.wasted += u64::from(block.len());
                if peer.take_asked(block).is_some() {
                    peer.window.release(now, 1);
                    self.picker.release(key, block);
                }
                Ok(Receive::Discard)
            }
        }
    }

    /// The body of a `piece` message is in, in the buffer that [`Swarm::receive_into`] gave for it.
    pub fn handle_block(&mut self, now: Instant, key: PeerKey, block: Block, data: BlockBuf) {
        let Some(peer) = self.peers.at_mut(key) else {
            // `handle_closed` has already written the buffer off.
            drop(data);
            return;
        };
        let sender = Sender { identity: self.candidates.identity(peer.address), key };
        self.receiving -= usize::from(peer.receiving.take().is_some());
        peer.last_message = now;
        let len = u64::from(block.len());
        peer.down.add(now, len);
        self.totals.down.add(now, len);
        // Cancelled while it was on its way: it still counts for the peer's rate, and may still be of use.
        if let Some(asked) = peer.take_asked(block) {
            peer.window.answered(now, len, asked.at);
        }
        if peer.snubbed {
            peer.snubbed = false;
            peer.pause_until = None;
        }
        self.take_block(now, sender, block, data);
    }

    /// A block that came is put where it belongs, if it is of use.
    pub(super) fn take_block(&mut self, now: Instant, sender: Sender, block: Block, data: BlockBuf) {
        match self.picker.receive(sender.key, block) {
            Received::New { piece_full, also_asked } => {
                let blocks = self.geometry.block_count(block.piece());
                let partial =
                    self.partials.entry(block.piece()).or_insert_with(|| PartialPiece::new(block.piece(), blocks));
                if let Err(twice) = partial.insert(block, sender, data) {
                    debug_assert!(false, "the picker took a block for new that is here");
                    self.pool.give(twice);
                }
                for other in also_asked {
                    self.cancel(now, other, block);
                }
                if piece_full {
                    self.on_full(block.piece());
                }
            }
            Received::Duplicate | Received::Unwanted => {
                self.totals.wasted += u64::from(block.len());
                self.pool.give(data);
            }
        }
    }

    /// A buffer that [`Swarm::receive_into`] gave was not used: nothing will come of it.
    pub fn handle_unused(&mut self, key: PeerKey, buf: BlockBuf) {
        if let Some(peer) = self.peers.at_mut(key) {
            self.receiving -= usize::from(peer.receiving.take().is_some());
            self.pool.give(buf);
        }
    }

    /// Ends one turn of a connection: asks for more if there is room. Once per turn, not per block.
    pub fn handle_turn(&mut self, now: Instant, key: PeerKey) {
        self.make_room();
        self.refill(now, key);
    }

    /// Somebody else sent what `key` was asked, too.
    fn cancel(&mut self, now: Instant, key: PeerKey, block: Block) {
        let Some(peer) = self.peers.at_mut(key) else { return self.fetch_needs_less(key) };
        if peer.take_asked(block).is_some() {
            peer.window.release(now, 1);
        }
        peer.outbox.push(&Message::cancel(block));
        Self::wake(&mut self.wakes, key, peer);
    }

    /// The last block of a piece came.
    fn on_full(&mut self, piece: PieceIndex) {
        if self.partials.get(&piece).is_some_and(PartialPiece::is_spilled) {
            return self.finish_spilled(piece);
        }
        let Some(partial) = self.partials.remove(&piece) else { return };
        debug_assert!(partial.is_full());
        let (full, origins) = partial.into_full();
        self.at_disk += full.blocks.len();
        self.verifying.insert(piece, origins);
        self.actions.push_back(Action::Verify(full));
    }

    /// A disk thread has dealt with a piece; `blocks` are its buffers, with their contents if it was bad. None if it was
    /// hashed from the disk.
    pub fn handle_verdict(&mut self, now: Instant, piece: PieceIndex, verdict: &Verdict, blocks: Vec<BlockBuf>) {
        let origins = self.verifying.remove(&piece).unwrap_or_default();
        self.at_disk -= blocks.len();
        match verdict {
            Verdict::Good => self.on_good(now, piece, &origins, &blocks),
            Verdict::Bad => self.on_bad(piece, &origins, &blocks),
            Verdict::DiskFailed => {
                self.picker.abandon(piece);
            }
        }
        for buf in blocks {
            self.pool.give(buf);
        }
        self.make_room();
        // Buffers are free again for those who had to wait for them; a bad piece is to be had again by anybody.
        if self.starved || matches!(verdict, Verdict::Bad) {
            self.refill_all(now);
        } else if self.web_seeds.starved {
            self.fetch_more(now);
        }
    }

    /// The digests of a piece's blocks, by number.
    fn digests(&self, origins: &Origins, blocks: &[BlockBuf]) -> Vec<u64> {
        match &origins.digests {
            Some(digests) => digests.clone(),
            None => self.blame.digests(blocks.iter().map(BlockBuf::as_slice)),
        }
    }

    pub(super) fn on_good(&mut self, now: Instant, piece: PieceIndex, origins: &Origins, blocks: &[BlockBuf]) {
        if !self.picker.verified(piece) {
            return;
        }
        if self.blame.remembers(piece) {
            let guilty = self.blame.verified(piece, &self.digests(origins, blocks));
            self.punish(&guilty);
        }
        self.blame.passed(origins.senders.iter().map(|s| s.identity));
        self.actions.push_back(Action::Have(piece));
        let mut no_longer_interested = Vec::new();
        for (key, peer) in self.peers.iter_mut() {
            let has = peer.have.has(piece);
            if has {
                peer.wanted = peer.wanted.saturating_sub(1);
                if peer.wanted == 0 {
                    no_longer_interested.push(key);
                }
                if !peer.have.is_full() {
                    continue;
                }
            }
            // A seed knows by this whom to serve, and with what. That can wait for what is to be said next.
            peer.outbox.push(&Message::Have(piece.get()));
            if !has || peer.outbox.control_len() >= HELD_BACK {
                Self::wake(&mut self.wakes, key, peer);
            }
        }
        for key in no_longer_interested {
            self.update_interest(now, key);
        }
        if self.picker.is_complete() && !self.completed {
            self.on_complete();
        }
    }

    fn on_complete(&mut self) {
        self.completed = true;
        self.actions.push_back(Action::Complete);
        for (key, peer) in self.peers.iter_mut() {
            if let Some(id) = peer.said.m.id(Extension::UploadOnly) {
                peer.outbox.push(&Message::Extended { id: id.get(), payload: &UploadOnly(true).encode() });
            }
            if peer.outbox.control_len() > 0 {
                Self::wake(&mut self.wakes, key, peer);
            }
        }
    }

    fn on_bad(&mut self, piece: PieceIndex, origins: &Origins, blocks: &[BlockBuf]) {
        self.totals.wasted += u64::from(self.geometry.data_len(piece));
        self.totals.failed_pieces += 1;
        self.picker.failed(piece);
        let evidence = origins.with_digests(&self.digests(origins, blocks));
        let guilty = self.blame.failed(piece, &evidence);
        self.punish(&guilty);
    }

    /// Bans those found guilty, and closes every connection they have.
    fn punish(&mut self, guilty: &[Guilty]) {
        for Guilty { sender, .. } in guilty {
            self.ban(sender.identity);
        }
    }

    /// Bans whoever this is, and closes every connection they have.
    pub(super) fn ban(&mut self, who: Identity) {
        self.totals.banned += 1;
        self.candidates.ban(who);
        if let Identity::WebSeed(number) = who {
            return self.ban_web_seed(number);
        }
        let theirs = |(_, peer): &(PeerKey, &Peer)| self.candidates.identity(peer.address) == who;
        let keys: Vec<PeerKey> = self.peers.iter().filter(theirs).map(|(key, _)| key).collect();
        for key in keys {
            self.close(key, CloseReason::BadData);
        }
    }

    /// Asks `key` for as many blocks as its window and the memory have room for.
    pub(super) fn refill(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.at(key) else { return };
        if peer.wanted == 0
            || peer.snubbed
            || self.fetches_nothing()
            || peer.pause_until.is_some_and(|until| now < until)
        {
            return;
        }
        if peer.peer_choking && peer.allowed_in.is_empty() {
            return;
        }
        let room = peer.window.room(now);
        if room == 0 {
            return;
        }
        let (idle, half_idle) = (peer.asked.is_empty(), peer.asked.len() * 2 < peer.window.window());
        let count = room.min(self.may_ask());
        self.starved |= count < room;
        if count == 0 {
            return;
        }
        self.picked.clear();
        let may_open = self.may_open();
        self.pick(key, count, may_open);
        if self.picked.is_empty() && (idle || half_idle && self.is_tight()) {
            // Rather than leave it idle, open a piece that there is no room for: what comes of it will be spilled.
            let may_open = self.may_open_anyway(may_open);
            if may_open > 0 {
                self.pick(key, count, may_open);
            }
        }
        self.starved |= self.picked.len() < room && may_open < room;
        if self.picked.is_empty() {
            return;
        }
        let Some(peer) = self.peers.at_mut(key) else { return };
        for block in &self.picked {
            peer.asked.push_back(Asked { block: *block, at: now });
            peer.outbox.push(&Message::request(*block));
        }
        peer.window.asked(now, self.picked.len());
        Self::wake(&mut self.wakes, key, peer);
    }

    /// Chooses up to `count` blocks for `key`, into `picked`.
    fn pick(&mut self, key: PeerKey, count: usize, may_open: usize) {
        let Some(peer) = self.peers.at(key) else { return };
        let piece_length = u64::from(self.geometry.piece_length());
        let rate = peer.window.rate();
        // Of a peer that has not shown what it can do yet, the best is assumed, within reason.
        let fast = match rate {
            Some(rate) => rate.saturating_mul(OWN_PIECE_SECONDS) >= piece_length,
            None => piece_length <= LENT_TO_STRANGERS,
        };
        let ask = Ask {
            peer: key,
            have: &peer.have,
            allowed: peer.peer_choking.then_some(peer.allowed_in.as_slice()),
            suggested: &peer.suggested,
            count,
            may_open,
            fast,
            rate: rate.unwrap_or(0),
        };
        self.picker.pick(&ask, &mut self.picked);
    }

    /// Asks everybody who has room: something has become free that others may take.
    pub(super) fn refill_all(&mut self, now: Instant) {
        if self.picker.is_complete() {
            return;
        }
        let mut keys = self.peers.keys();
        if self.starved && !keys.is_empty() {
            // When there is not enough for all, it is not always the same that come first.
            self.first_refilled = (self.first_refilled + 1) % keys.len();
            keys.rotate_left(self.first_refilled);
        }
        self.starved = false;
        for key in keys {
            self.refill(now, key);
        }
        self.fetch_more(now);
    }
}
