//! Their requests, and who is choked.

use std::time::{Duration, Instant};

use super::allowed_fast::{ALLOWED_FAST, allowed_fast_set};
use super::choker::{Mode, Row};
use super::peer::MAX_CANCELS;
use super::{CloseReason, Misbehaved, Swarm};
use crate::base::{Block, PeerKey, PieceIndex};
use crate::wire::{MAX_REQUEST_QUEUE, Message};

/// Requests that were on their way when our `choke` went out are no offence for so long.
const CHOKE_GRACE: Duration = Duration::from_secs(2);

/// Requests that a peer may make in vain, over the connection's life (`limits.md`).
const MAX_INVALID_REQUESTS: u32 = 300;

/// How often a peer may fetch what it may have while choked (`limits.md`).
const ALLOWED_FAST_REPEATS: u32 = 3;

impl Swarm {
    pub(super) fn on_request(
        &mut self,
        now: Instant,
        key: PeerKey,
        index: u32,
        begin: u32,
        len: u32,
    ) -> Result<(), Misbehaved> {
        let block = self.geometry.range(index, begin, len).map_err(|_| Misbehaved::Geometry)?;
        let hidden = self.super_seed.as_ref().is_some_and(|s| !s.is_revealed(key, block.piece()));
        let have = self.picker.have().has(block.piece()) && !hidden;
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        peer.last_request = now;
        if peer.outbox.piece_count() >= MAX_REQUEST_QUEUE as usize {
            // Beyond what we said we take. As much again is no oversight any more.
            peer.beyond_queue += 1;
            if peer.beyond_queue > MAX_REQUEST_QUEUE {
                return Err(Misbehaved::TooManyRequests);
            }
            if peer.fast {
                peer.outbox.push(&Message::Reject { index, begin, len });
            }
            return Ok(());
        }
        peer.beyond_queue = 0;
        let allowed = !peer.am_choking || {
            let out_of_turn = peer.allowed_out.contains(&block.piece()) && peer.allowed_out_blocks > 0;
            peer.allowed_out_blocks -= u32::from(out_of_turn);
            out_of_turn
        };
        if have && allowed {
            match self.suggestions.as_mut().is_some_and(|suggestions| suggestions.asked(key, block.piece())) {
                true => peer.outbox.push_piece_later(block),
                false => peer.outbox.push_piece(block),
            }
            return Ok(());
        }
        let excused = have && now.saturating_duration_since(peer.choke_changed) < CHOKE_GRACE;
        self.refuse(key, &Message::Reject { index, begin, len }, excused)
    }

    /// Says no to a request, which is counted against the peer unless it is excused.
    pub(super) fn refuse(&mut self, key: PeerKey, reject: &Message<'_>, excused: bool) -> Result<(), Misbehaved> {
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !excused {
            peer.invalid_requests += 1;
            if peer.invalid_requests > MAX_INVALID_REQUESTS {
                return Err(Misbehaved::InvalidRequests);
            }
        }
        if peer.fast {
            peer.outbox.push(reject);
        }
        Ok(())
    }

    pub(super) fn on_cancel(
        &mut self,
        now: Instant,
        key: PeerKey,
        index: u32,
        begin: u32,
        len: u32,
    ) -> Result<(), Misbehaved> {
        let block = self.geometry.range(index, begin, len).map_err(|_| Misbehaved::Geometry)?;
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !peer.cancels.allow(now, MAX_CANCELS) {
            return Err(Misbehaved::Flood);
        }
        if peer.outbox.cancel_piece(block) && peer.fast {
            peer.outbox.push(&Message::Reject { index, begin, len });
        }
        Ok(())
    }

    /// Payload of blocks from the outbox went to the peer's socket.
    pub fn handle_sent(&mut self, now: Instant, key: PeerKey, payload: u64) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        peer.last_sent = now;
        peer.up.add(now, payload);
        self.totals.up.add(now, payload);
    }

    /// Blocks that were taken out of the peer's outbox and did not begin to leave, in their order: they wait there again,
    /// but for those that the peer may no longer have, because it was choked meanwhile. The caller looks into the outbox
    /// again by itself.
    pub fn handle_unsent(&mut self, key: PeerKey, blocks: &[Block]) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        if !peer.am_choking {
            return peer.outbox.put_back(blocks);
        }
        let (kept, dropped): (Vec<Block>, Vec<Block>) =
            blocks.iter().partition(|block| peer.allowed_out.contains(&block.piece()));
        peer.outbox.put_back(&kept);
        if peer.fast {
            for block in dropped {
                peer.outbox.push(&Message::reject(block));
            }
        }
    }

    /// A block that a peer asked for could not be read: it is told so, and gets nothing else of the piece.
    pub fn handle_read_failed(&mut self, key: PeerKey, block: Block) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        if peer.fast {
            peer.outbox.push(&Message::reject(block));
            Self::wake(&mut self.wakes, key, peer);
        } else {
            // Without a way to say no, silence would make it wait.
            self.close(key, CloseReason::Useless);
        }
    }

    fn rows(&mut self, now: Instant) -> Vec<Row> {
        let pieces = u64::from(self.geometry.piece_count());
        self.peers
            .iter_mut()
            .map(|(key, peer)| Row {
                key,
                interested: peer.peer_interested && !peer.upload_only,
                unchoked: !peer.am_choking,
                unchoked_for: now.saturating_duration_since(peer.choke_changed),
                choked_for: now.saturating_duration_since(peer.choke_changed),
                down_rate: peer.down.rate(now),
                up_rate: peer.up.rate(now),
                sent_since_unchoke: peer.up.total() - peer.sent_at_unchoke,
                connected_for: now.saturating_duration_since(peer.connected),
                snubbed: peer.snubbed,
                upload_only: peer.upload_only,
                pieces: u16::try_from(u64::from(peer.have.count()) * 1000 / pieces).unwrap_or(1000),
            })
            .collect()
    }

    fn mode(&self) -> Mode {
        if self.picker.is_complete() { Mode::Seeding } else { Mode::Leeching }
    }

    /// A whole round: ranks everybody anew.
    pub(super) fn choke_round(&mut self, now: Instant) {
        if !self.is_open() {
            return;
        }
        let rows = self.rows(now);
        let slots = self.update_slots(now, &rows);
        let unchoked = self.choker.round(self.mode(), slots, &rows).to_vec();
        for key in self.peers.keys() {
            self.set_choking(now, key, unchoked.binary_search(&key).is_err());
        }
    }

    /// Fills slots that have become free, without taking one from anybody.
    pub(super) fn fill_slots(&mut self, now: Instant) {
        if !self.is_open() {
            return;
        }
        let rows = self.rows(now);
        let slots = self.update_slots(now, &rows);
        for key in self.choker.fill(self.mode(), slots, &rows).to_vec() {
            self.set_choking(now, key, false);
        }
    }

    fn update_slots(&mut self, now: Instant, rows: &[Row]) -> usize {
        let busy = rows.iter().filter(|r| r.interested && r.unchoked).count();
        let waiting = rows.iter().filter(|r| r.interested && !r.unchoked).count();
        let rate = self.totals.up.rate(now);
        self.slots.update(now, self.config.limit_up, rate, busy, waiting)
    }

    fn set_choking(&mut self, now: Instant, key: PeerKey, choke: bool) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        if peer.am_choking == choke {
            return;
        }
        peer.am_choking = choke;
        peer.choke_changed = now;
        if choke {
            if let Some(suggestions) = &mut self.suggestions {
                suggestions.withdraw(key);
            }
            peer.outbox.push(&Message::Choke);
            // What it may have out of turn stays in the queue.
            let allowed = std::mem::take(&mut peer.allowed_out);
            let (kept, dropped): (Vec<Block>, Vec<Block>) =
                peer.outbox.clear_pieces().partition(|block| allowed.contains(&block.piece()));
            peer.allowed_out = allowed;
            for block in kept {
                peer.outbox.push_piece(block);
            }
            if peer.fast {
                for block in dropped {
                    peer.outbox.push(&Message::reject(block));
                }
            }
        } else {
            peer.sent_at_unchoke = peer.up.total();
            // Before it asks for anything.
            self.suggest(now, key);
            let Some(peer) = self.peers.at_mut(key) else { return };
            peer.outbox.push(&Message::Unchoke);
        }
        let Some(peer) = self.peers.at_mut(key) else { return };
        Self::wake(&mut self.wakes, key, peer);
    }

    /// Lets a newcomer fetch a few pieces while it is choked, so that it has something to give soon (BEP 6).
    ///
    /// Not as a seed: there is nothing to be had in return, and where a hundred newcomers come at once, a lone seeder's
    /// line would be split between all of them, so that for a long time nobody has a whole piece to pass on.
    pub(super) fn greet_allowed_fast(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        if !peer.fast || self.picker.is_complete() || self.picker.have().is_none() {
            return;
        }
        let set = allowed_fast_set(peer.address.ip(), &self.config.info_hash, &self.geometry, ALLOWED_FAST);
        let mut blocks = 0;
        for piece in set {
            if self.picker.have().has(piece) {
                peer.allowed_out.push(piece);
                peer.outbox.push(&Message::AllowedFast(piece.get()));
                blocks += self.geometry.block_count(piece);
            }
        }
        peer.allowed_out_blocks = blocks.saturating_mul(ALLOWED_FAST_REPEATS);
    }

    /// BEP 6: tells a peer that is served of pieces that nobody else has or was told of.
    pub(super) fn suggest(&mut self, now: Instant, key: PeerKey) {
        let Some(suggestions) = &mut self.suggestions else { return };
        let Some(peer) = self.peers.at_mut(key).filter(|peer| peer.fast && !peer.am_choking) else { return };
        let rate = peer.up.rate(now);
        while let Some(piece) = suggestions.next(key, rate, self.geometry.piece_length()) {
            peer.outbox.push(&Message::Suggest(piece.get()));
            Self::wake(&mut self.wakes, key, peer);
        }
    }

    /// BEP 16: shows a peer the next pieces it may fetch.
    pub(super) fn reveal(&mut self, now: Instant, key: PeerKey) {
        let Some(super_seed) = &mut self.super_seed else { return };
        let Some(peer) = self.peers.at_mut(key) else { return };
        while let Some(piece) = super_seed.reveal(now, key) {
            peer.outbox.push(&Message::Have(piece.get()));
            Self::wake(&mut self.wakes, key, peer);
        }
    }

    pub(super) fn reveal_after_have(&mut self, now: Instant, by: PeerKey, piece: PieceIndex) {
        let Some(super_seed) = &mut self.super_seed else { return };
        for key in super_seed.seen_have(now, piece, by) {
            self.reveal(now, key);
        }
        self.end_super_seeding();
    }

    /// Pieces that nobody passed on in time are not waited for; once the swarm has them all, nothing is hidden any more.
    pub(super) fn look_after_super_seeding(&mut self, now: Instant) {
        if self.super_seed.as_ref().and_then(super::super_seed::SuperSeed::deadline).is_some_and(|at| now >= at) {
            for key in self.peers.keys() {
                self.reveal(now, key);
            }
        }
    }

    fn end_super_seeding(&mut self) {
        let Some(super_seed) = self.super_seed.take_if(|s| s.is_finished()) else { return };
        for (key, peer) in self.peers.iter_mut() {
            for piece in super_seed.hidden_from(key) {
                peer.outbox.push(&Message::Have(piece.get()));
            }
            Self::wake(&mut self.wakes, key, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Bitfield, Geometry, PeerId};
    use crate::swarm::{NewPeer, SwarmConfig};
    use crate::wire::Reserved;

    /// A seed, and a peer that has asked for the blocks of the first piece.
    fn asked(reserved: Reserved) -> (Swarm, PeerKey, Instant, Vec<Block>) {
        let now = Instant::now();
        let geometry = Geometry::new(1 << 20, 1 << 16).unwrap();
        let config = SwarmConfig {
            info_hash: [1; 20],
            peer_id: PeerId([2; 20]),
            listen_port: None,
            dht_port: None,
            max_peers: 10,
            block_memory: 1 << 20,
            limit_up: None,
            sequential: false,
            super_seed: false,
            pex: true,
            holepunch: false,
            many_per_address: true,
        };
        let have = Bitfield::full(geometry.piece_count());
        let mut swarm = Swarm::new(now, geometry.clone(), &have, &[], config, 3);
        let new = NewPeer {
            address: ([192, 0, 2, 1], 6881).into(),
            outgoing: false,
            utp: false,
            id: PeerId([4; 20]),
            reserved,
            v2: false,
        };
        let key = swarm.handle_connected(now, new).unwrap();
        swarm.handle_message(now, key, &Message::Interested).unwrap();
        let blocks: Vec<Block> = geometry.blocks(geometry.piece(0).unwrap()).collect();
        for block in &blocks {
            let (index, begin, len) = (block.piece().get(), block.begin(), block.len());
            swarm.handle_message(now, key, &Message::Request { index, begin, len }).unwrap();
        }
        swarm.outbox(key).unwrap().take_control(&mut Vec::new());
        (swarm, key, now, blocks)
    }

    fn control(swarm: &mut Swarm, key: PeerKey) -> Vec<u8> {
        let mut control = Vec::new();
        swarm.outbox(key).unwrap().take_control(&mut control);
        control
    }

    #[test]
    fn what_is_not_sent_waits_again() {
        let (mut swarm, key, _, blocks) = asked(Reserved::NONE.with_fast());
        let outbox = swarm.outbox(key).unwrap();
        let taken: Vec<Block> = std::iter::from_fn(|| outbox.next_piece()).take(3).collect();
        swarm.handle_unsent(key, &taken[1..]);
        assert_eq!(swarm.outbox(key).unwrap().pieces().collect::<Vec<_>>(), blocks[1..]);
        assert!(control(&mut swarm, key).is_empty());
    }

    #[test]
    fn not_if_the_peer_was_choked_meanwhile() {
        for fast in [true, false] {
            let reserved = if fast { Reserved::NONE.with_fast() } else { Reserved::NONE };
            let (mut swarm, key, now, blocks) = asked(reserved);
            let outbox = swarm.outbox(key).unwrap();
            let taken: Vec<Block> = std::iter::from_fn(|| outbox.next_piece()).take(2).collect();
            swarm.set_choking(now, key, true);
            control(&mut swarm, key);
            // The second piece is allowed to it all the same.
            let kept = swarm.geometry.block(swarm.geometry.piece(1).unwrap(), 0).unwrap();
            swarm.peers.at_mut(key).unwrap().allowed_out.push(kept.piece());
            swarm.handle_unsent(key, &[taken[0], kept, taken[1]]);
            assert_eq!(swarm.outbox(key).unwrap().pieces().collect::<Vec<_>>(), [kept]);
            let mut rejects = Vec::new();
            for block in &blocks[..if fast { 2 } else { 0 }] {
                Message::reject(*block).encode_into(&mut rejects);
            }
            assert_eq!(control(&mut swarm, key), rejects);
        }
    }
}
