//! What a disk that fails means for the exchange: nothing is fetched that cannot be kept, and what it lost is missing.

use std::time::Instant;

use super::partial::Origins;
use super::{CloseReason, Swarm};
use crate::base::PieceIndex;
use crate::wire::{DontHave, Extension, Message, UploadOnly};

impl Swarm {
    /// The disk takes nothing more: all requests are withdrawn and none are made until [`Swarm::go_on_fetching`]. Peers
    /// are served as before, and blocks that came keep their places.
    pub fn pause_fetching(&mut self, now: Instant) {
        if self.paused {
            return;
        }
        self.paused = true;
        for key in self.peers.keys() {
            let Some(peer) = self.peers.at_mut(key) else { continue };
            let asked = std::mem::take(&mut peer.asked);
            peer.window.release(now, asked.len());
            for asked in &asked {
                peer.outbox.push(&Message::cancel(asked.block));
            }
            if !asked.is_empty() {
                Self::wake(&mut self.wakes, key, peer);
            }
            self.picker.release_peer(key);
            self.update_interest(now, key);
        }
        self.close_fetches(CloseReason::NotNeeded);
    }

    /// The disk works again.
    pub fn go_on_fetching(&mut self, now: Instant) {
        if !std::mem::take(&mut self.paused) {
            return;
        }
        for key in self.peers.keys() {
            self.update_interest(now, key);
        }
        self.refill_all(now);
        self.fetch_more(now);
    }

    /// Pieces that were had are not on the disk, or may not be: they are missing, and peers are told so as far as they
    /// listen (BEP 54).
    pub fn handle_lost(&mut self, now: Instant, pieces: &[PieceIndex]) {
        let lost: Vec<PieceIndex> = pieces.iter().copied().filter(|piece| self.picker.lost(*piece)).collect();
        if lost.is_empty() {
            return;
        }
        let was_complete = std::mem::replace(&mut self.completed, self.picker.is_complete());
        (self.super_seed, self.suggestions) = (None, None);
        for key in self.peers.keys() {
            let Some(peer) = self.peers.at_mut(key) else { continue };
            peer.wanted = self.picker.interesting_count(&peer.have);
            for piece in &lost {
                if let Some(id) = peer.said.m.id(Extension::DontHave) {
                    let payload = DontHave(piece.get()).encode();
                    peer.outbox.push(&Message::Extended { id: id.get(), payload: &payload });
                }
                let refused = peer.outbox.take_pieces_of(*piece);
                if peer.fast {
                    refused.iter().for_each(|block| peer.outbox.push(&Message::reject(*block)));
                }
            }
            if was_complete
                && !self.completed
                && let Some(id) = peer.said.m.id(Extension::UploadOnly)
            {
                peer.outbox.push(&Message::Extended { id: id.get(), payload: &UploadOnly(false).encode() });
            }
            Self::wake(&mut self.wakes, key, peer);
            self.update_interest(now, key);
        }
        self.refill_all(now);
        self.fetch_more(now);
    }

    /// Pieces that were missing turned out to be on the disk.
    pub fn handle_found(&mut self, now: Instant, pieces: &[PieceIndex]) {
        for piece in pieces {
            if self.partials.contains_key(piece) {
                self.drop_partial(*piece);
            }
            self.on_good(now, *piece, &Origins::default(), &[]);
        }
    }

    /// Nothing more is asked for: the torrent stops, or its disk takes nothing.
    pub(super) fn fetches_nothing(&self) -> bool {
        self.stopping || self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Bitfield, Geometry, PeerId, PeerKey};
    use crate::swarm::{Action, NewPeer, SwarmConfig};
    use crate::wire::{Decoder, Item, Reserved};

    struct Rig {
        swarm: Swarm,
        peer: PeerKey,
        now: Instant,
        decoder: Decoder,
    }

    impl Rig {
        /// Of four pieces of one block each, and a peer that has them all and does not choke us.
        fn new(have: &Bitfield) -> Self {
            let now = Instant::now();
            let geometry = Geometry::new(4 << 14, 1 << 14).unwrap();
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
                pex: false,
                holepunch: false,
                many_per_address: false,
            };
            let mut swarm = Swarm::new(now, geometry, have, &[], config, 1);
            let reserved = Reserved::NONE.with_fast().with_extended();
            let address = ([10, 0, 0, 1], 1).into();
            let new = NewPeer { address, outgoing: true, id: PeerId([3; 20]), reserved, v2: false, utp: false };
            let peer = swarm.handle_connected(now, new).unwrap();
            let mut decoder = Decoder::new(None);
            decoder.set_piece_count(4);
            Self { swarm, peer, now, decoder }
        }

        fn says(&mut self, message: &Message<'_>) {
            self.swarm.handle_message(self.now, self.peer, message).unwrap();
            self.swarm.handle_turn(self.now, self.peer);
        }

        fn told(&mut self) -> Vec<String> {
            let mut bytes = Vec::new();
            self.swarm.outbox(self.peer).unwrap().take_control(&mut bytes);
            let mut rest = bytes.as_slice();
            let mut said = Vec::new();
            while !rest.is_empty() {
                let taken = self.decoder.feed(rest);
                rest = &rest[taken..];
                while let Some(item) = self.decoder.next().unwrap() {
                    if let Item::Message(message) = item {
                        said.push(format!("{message:?}"));
                    }
                }
            }
            said
        }

        fn count(&mut self, what: &str) -> usize {
            self.told().iter().filter(|message| message.starts_with(what)).count()
        }
    }

    #[test]
    fn nothing_is_asked_for_while_the_disk_fails() {
        let mut rig = Rig::new(&Bitfield::new(4));
        rig.says(&Message::HaveAll);
        rig.says(&Message::Unchoke);
        assert_eq!(rig.count("Request"), 4);
        let now = rig.now;
        rig.swarm.pause_fetching(now);
        let told = rig.told();
        assert_eq!(told.iter().filter(|message| message.starts_with("Cancel")).count(), 4, "{told:?}");
        assert!(told.iter().any(|message| message.starts_with("NotInterested")), "{told:?}");
        rig.swarm.handle_timeout(now + std::time::Duration::from_secs(1));
        rig.says(&Message::Choke);
        rig.says(&Message::Unchoke);
        assert_eq!(rig.count("Request"), 0);
        rig.swarm.go_on_fetching(now);
        let told = rig.told();
        assert_eq!(told.iter().filter(|message| message.starts_with("Request")).count(), 4, "{told:?}");
        assert!(told.iter().any(|message| message.starts_with("Interested")), "{told:?}");
    }

    #[test]
    fn what_is_lost_is_refused_and_fetched_again() {
        let mut rig = Rig::new(&Bitfield::full(4));
        rig.says(&Message::HaveNone);
        rig.says(&Message::Interested);
        rig.swarm.handle_timeout(rig.now + std::time::Duration::from_secs(1));
        let pieces: Vec<PieceIndex> = rig.swarm.geometry().pieces().collect();
        for piece in &pieces {
            rig.says(&Message::Request { index: piece.get(), begin: 0, len: 1 << 14 });
        }
        assert_eq!(rig.swarm.outbox(rig.peer).unwrap().piece_count(), 4);
        rig.told();
        rig.swarm.handle_lost(rig.now, &pieces[..2]);
        rig.swarm.handle_lost(rig.now, &pieces[..2]);
        assert_eq!((rig.count("Reject"), rig.swarm.outbox(rig.peer).unwrap().piece_count()), (2, 2));
        assert!(!rig.swarm.is_complete() && rig.swarm.have().count() == 2);
        rig.says(&Message::Request { index: 0, begin: 0, len: 1 << 14 });
        assert_eq!(rig.count("Reject"), 1);
        rig.says(&Message::Have(0));
        assert_eq!(rig.count("Interested"), 1);
        while rig.swarm.poll_action().is_some() {}
        rig.swarm.handle_found(rig.now, &pieces[..2]);
        assert!(rig.swarm.is_complete());
        let actions: Vec<Action> = std::iter::from_fn(|| rig.swarm.poll_action()).collect();
        assert!(actions.iter().any(|action| matches!(action, Action::Complete)), "{actions:?}");
        assert_eq!(rig.count("Have"), 1, "the peer has one of them itself");
    }

    #[test]
    fn seeds_hear_of_our_pieces_with_what_is_said_next() {
        let mut rig = Rig::new(&Bitfield::new(4));
        rig.says(&Message::HaveAll);
        let pieces: Vec<PieceIndex> = rig.swarm.geometry().pieces().collect();
        let wakes = |swarm: &mut Swarm| std::iter::from_fn(|| swarm.poll_wake()).count();
        let _ = (wakes(&mut rig.swarm), rig.told());
        rig.swarm.handle_found(rig.now, &pieces[..3]);
        assert_eq!((wakes(&mut rig.swarm), rig.count("Have")), (0, 3), "not worth a call of its own");
        rig.swarm.handle_found(rig.now, &pieces[3..]);
        assert_eq!((wakes(&mut rig.swarm), rig.count("Have")), (1, 1), "that was the last");
    }
}
