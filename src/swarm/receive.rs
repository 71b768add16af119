//! Messages: what peers have, want and can do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidates::Source;
use super::peer::{MAX_FLIPS, PIECES_PER_FLIP};
use super::{Action, Misbehaved, Swarm};
use crate::base::{Bitfield, PeerKey, PieceIndex};
use crate::wire::{DontHave, EXTENDED_HANDSHAKE_ID, ExtendedHandshake, Extension, Message, UploadOnly, client_name};

/// Pieces a peer may allow or suggest to us that we remember; more would be noise (BEP 6 speaks of ten).
pub(super) const MAX_HINTS: usize = 64;

/// How long nothing is asked of a peer that rejects what it should serve.
const REJECT_PAUSE: Duration = Duration::from_secs(1);

impl Swarm {
    /// A message came. Payload of `piece` messages goes by [`Swarm::receive_into`] and [`Swarm::handle_block`] instead.
    ///
    /// # Errors
    /// The peer broke the protocol; the connection is to be closed.
    pub fn handle_message(&mut self, now: Instant, key: PeerKey, message: &Message<'_>) -> Result<(), Misbehaved> {
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        peer.last_message = now;
        if !self.is_open() && self.on_early(now, key, message)? {
            return Ok(());
        }
        match *message {
            Message::KeepAlive | Message::Unknown(_) => Ok(()),
            Message::Port(port) => {
                self.on_dht_port(key, port);
                Ok(())
            }
            Message::Choke => self.on_choke(now, key),
            Message::Unchoke => self.on_unchoke(now, key),
            Message::Interested => self.on_interest(now, key, true),
            Message::NotInterested => self.on_interest(now, key, false),
            Message::Have(index) => self.on_have(now, key, index),
            Message::Bitfield(bytes) => {
                let have = Bitfield::from_wire(bytes, self.geometry.piece_count()).map_err(|_| Misbehaved::Bitfield)?;
                self.on_told_have(now, key, have)
            }
            Message::HaveAll => {
                self.require_fast(key)?;
                self.on_told_have(now, key, Bitfield::full(self.geometry.piece_count()))
            }
            Message::HaveNone => {
                self.require_fast(key)?;
                self.on_told_have(now, key, Bitfield::new(self.geometry.piece_count()))
            }
            Message::Request { index, begin, len } => self.on_request(now, key, index, begin, len),
            Message::Cancel { index, begin, len } => self.on_cancel(now, key, index, begin, len),
            Message::Reject { index, begin, len } => {
                self.require_fast(key)?;
                self.on_reject(now, key, index, begin, len)
            }
            Message::Suggest(index) => {
                self.require_fast(key)?;
                let piece = self.piece(index)?;
                if let Some(peer) = self.peers.at_mut(key).filter(|peer| peer.suggested.len() >= MAX_HINTS) {
                    peer.suggested.retain(|piece| self.picker.wants(*piece));
                }
                self.remember_hint(key, piece, |peer| &mut peer.suggested);
                Ok(())
            }
            Message::AllowedFast(index) => {
                self.require_fast(key)?;
                let piece = self.piece(index)?;
                // What is known already, or is one too many, opens nothing.
                if self.remember_hint(key, piece, |peer| &mut peer.allowed_in) {
                    self.refill(now, key);
                }
                Ok(())
            }
            Message::HashRequest(request) => {
                self.on_hash_request(key, request);
                Ok(())
            }
            Message::Hashes { request, hashes } => {
                self.on_hashes(now, key, &request, hashes);
                Ok(())
            }
            Message::HashReject(request) => {
                self.on_hash_reject(now, key, &request);
                Ok(())
            }
            Message::Extended { id, payload } => self.on_extended(now, key, id, payload),
        }
    }

    fn piece(&self, index: u32) -> Result<PieceIndex, Misbehaved> {
        self.geometry.piece(index).map_err(|_| Misbehaved::Geometry)
    }

    pub(super) fn require_fast(&self, key: PeerKey) -> Result<(), Misbehaved> {
        match self.peers.at(key) {
            Some(peer) if !peer.fast => Err(Misbehaved::NotFast),
            _ => Ok(()),
        }
    }

    /// Whether it is news that was kept.
    fn remember_hint(
        &mut self,
        key: PeerKey,
        piece: PieceIndex,
        list: impl Fn(&mut super::peer::Peer) -> &mut Vec<PieceIndex>,
    ) -> bool {
        let Some(peer) = self.peers.at_mut(key) else { return false };
        let hints = list(peer);
        let is_news = hints.len() < MAX_HINTS && !hints.contains(&piece);
        if is_news {
            hints.push(piece);
        }
        is_news
    }

    /// The peer's DHT node listens at `port` (BEP 5). Once per connection: nobody is to have us knock at many doors.
    fn on_dht_port(&mut self, key: PeerKey, port: u16) {
        let wanted = self.config.dht_port.is_some() && port != 0;
        let Some(peer) = self.peers.at_mut(key).filter(|peer| wanted && peer.dht) else { return };
        peer.dht = false;
        let node = SocketAddr::new(peer.address.ip(), port);
        self.actions.push_back(Action::DhtNode(node));
    }

    fn on_choke(&mut self, now: Instant, key: PeerKey) -> Result<(), Misbehaved> {
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !peer.flips.allow(now, MAX_FLIPS) {
            return Err(Misbehaved::Flood);
        }
        peer.peer_choking = true;
        self.picker.disown(key);
        // With the fast extension every request is answered, by data or by a reject (BEP 6). Without it they are void.
        if !peer.fast && !peer.asked.is_empty() {
            let void = peer.asked.len();
            peer.asked.clear();
            peer.window.release(now, void);
            self.picker.release_peer(key);
            self.refill_all(now);
        }
        Ok(())
    }

    fn on_unchoke(&mut self, now: Instant, key: PeerKey) -> Result<(), Misbehaved> {
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !peer.flips.allow(now, MAX_FLIPS) {
            return Err(Misbehaved::Flood);
        }
        peer.peer_choking = false;
        self.refill(now, key);
        Ok(())
    }

    fn on_interest(&mut self, now: Instant, key: PeerKey, interested: bool) -> Result<(), Misbehaved> {
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !peer.flips.allow(now, MAX_FLIPS) {
            return Err(Misbehaved::Flood);
        }
        if peer.peer_interested != interested {
            peer.peer_interested = interested;
            self.fill_slots(now);
        }
        Ok(())
    }

    /// `bitfield`, `have all`, `have none`. BEP 3 wants it once and first, but aria2 sends it again in place of many
    /// `have`s: the latest word counts.
    fn on_told_have(&mut self, now: Instant, key: PeerKey, have: Bitfield) -> Result<(), Misbehaved> {
        let count = 1 + self.geometry.piece_count() / PIECES_PER_FLIP;
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !peer.flips.allow_many(now, count, MAX_FLIPS) {
            return Err(Misbehaved::Flood);
        }
        let new = self.picker.add_peer(&have);
        let old = std::mem::replace(&mut peer.counted, new);
        let before = std::mem::replace(&mut peer.have, have);
        self.picker.remove_peer(old, &before);
        if let Some(super_seed) = &mut self.super_seed {
            super_seed.seen_bitfield(now, key, &peer.have);
        }
        if let Some(suggestions) = &mut self.suggestions {
            suggestions.seen_all(&peer.have);
        }
        peer.wanted = self.picker.interesting_count(&peer.have);
        self.update_interest(now, key);
        self.refill(now, key);
        Ok(())
    }

    fn on_have(&mut self, now: Instant, key: PeerKey, index: u32) -> Result<(), Misbehaved> {
        let piece = self.piece(index)?;
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !peer.have.set(piece) {
            return Ok(());
        }
        self.picker.add_have(&mut peer.counted, piece);
        if self.picker.wants(piece) {
            peer.wanted += 1;
            self.update_interest(now, key);
            self.refill(now, key);
        }
        self.reveal_after_have(now, key, piece);
        if let Some(suggestions) = &mut self.suggestions {
            suggestions.seen(piece);
            self.suggest(now, key);
        }
        Ok(())
    }

    /// BEP 54.
    fn on_dont_have(&mut self, now: Instant, key: PeerKey, index: u32) -> Result<(), Misbehaved> {
        let piece = self.piece(index)?;
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !peer.have.has(piece) {
            return Ok(());
        }
        self.picker.remove_have(&mut peer.counted, piece);
        self.picker.disown(key);
        peer.have.clear(piece);
        if self.picker.wants(piece) {
            peer.wanted = peer.wanted.saturating_sub(1);
        }
        let before = peer.asked.len();
        for asked in peer.asked.iter().filter(|a| a.block.piece() == piece) {
            self.picker.release(key, asked.block);
        }
        peer.asked.retain(|a| a.block.piece() != piece);
        peer.window.release(now, before - peer.asked.len());
        // `have`, `dont have`, `have` and so on: each makes us say something, too.
        let was_interested = peer.am_interested;
        self.update_interest(now, key);
        let changed = self.peers.at_mut(key).filter(|peer| peer.am_interested != was_interested);
        if changed.is_some_and(|peer| !peer.flips.allow(now, MAX_FLIPS)) { Err(Misbehaved::Flood) } else { Ok(()) }
    }

    /// Tells the peer whether we are interested, when that has changed.
    pub(super) fn update_interest(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        let interested = peer.wanted > 0 && !(self.stopping || self.paused);
        if peer.am_interested == interested {
            return;
        }
        peer.am_interested = interested;
        if !interested {
            peer.idle_since = now;
        }
        peer.outbox.push(if interested { &Message::Interested } else { &Message::NotInterested });
        Self::wake(&mut self.wakes, key, peer);
    }

    fn on_reject(&mut self, now: Instant, key: PeerKey, index: u32, begin: u32, len: u32) -> Result<(), Misbehaved> {
        let block = self.geometry.range(index, begin, len).map_err(|_| Misbehaved::Geometry)?;
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if peer.take_asked(block).is_none() {
            return Ok(());
        }
        peer.window.release(now, 1);
        // A piece it will not serve out of turn is not asked for again while it chokes us.
        if peer.peer_choking {
            peer.allowed_in.retain(|p| *p != block.piece());
        } else {
            peer.pause_until = Some(now + REJECT_PAUSE);
        }
        self.picker.release(key, block);
        Ok(())
    }

    fn on_extended(&mut self, now: Instant, key: PeerKey, id: u8, payload: &[u8]) -> Result<(), Misbehaved> {
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !peer.extended {
            return Ok(());
        }
        if id == EXTENDED_HANDSHAKE_ID {
            let handshake = ExtendedHandshake::parse(payload).map_err(|_| Misbehaved::Extension)?;
            self.on_extended_handshake(now, key, handshake);
            return Ok(());
        }
        match Extension::from_our_id(id) {
            Some(Extension::UploadOnly) => {
                peer.upload_only = UploadOnly::parse(payload).map_err(|_| Misbehaved::Extension)?.0;
                Ok(())
            }
            Some(Extension::DontHave) => {
                let DontHave(index) = DontHave::parse(payload).map_err(|_| Misbehaved::Extension)?;
                self.on_dont_have(now, key, index)
            }
            Some(Extension::Pex) => self.on_pex(now, key, payload),
            Some(Extension::Metadata) => self.on_metadata(now, key, payload),
            Some(Extension::Holepunch) => {
                self.on_holepunch(now, key, payload);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn on_extended_handshake(&mut self, now: Instant, key: PeerKey, handshake: ExtendedHandshake) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        if let Some(reqq) = handshake.reqq {
            peer.window.set_reqq(reqq as usize);
        }
        if let Some(version) = &handshake.v {
            peer.client = client_name(&peer.id, Some(version));
        }
        if let Some(upload_only) = handshake.upload_only {
            peer.upload_only = upload_only;
        }
        // Where an incoming peer can be reached later. Its own connection comes from another port. Its first word counts:
        // each would be kept as long as the connection lasts.
        if !peer.outgoing
            && peer.listens_at.is_none()
            && let Some(port) = handshake.p
        {
            let address = SocketAddr::new(peer.address.ip(), port);
            peer.listens_at = Some(address);
            self.candidates.add(now, address, Source::Incoming, None);
            self.candidates.connected(address);
            peer.said.merge(handshake);
            self.note_contact(key, address, false);
        } else {
            peer.said.merge(handshake);
        }
        self.meet_source_of_metadata(now, key);
    }
}
