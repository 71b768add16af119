//! What the torrent is: pieces of the info dictionary (BEP 9) and hashes of pieces (BEP 52), asked of peers and given to
//! them.

use std::sync::Arc;
use std::time::Instant;

use super::hash_picker::HashPicker;
use super::hash_trees::HashTrees;
use super::metadata::Fetched;
use super::peer::Peer;
use super::{Action, CloseReason, Misbehaved, Stage, Swarm};
use crate::base::PeerKey;
use crate::metainfo::Metainfo;
use crate::wire::{Extension, HashRequest, METADATA_PIECE_LEN, Message, MetadataMessage};

/// Pieces of the info dictionary that may wait for one peer; more are rejected (`limits.md`).
const MAX_METADATA_QUEUE: usize = 64;

/// How often a peer may get the info dictionary over one connection; more is rejected (`limits.md`).
const MAX_METADATA_TIMES: u32 = 2;

/// Control bytes that wait for a peer, up to which a piece of the info dictionary is added.
const METADATA_AHEAD: usize = 64 << 10;

/// Control bytes that wait for a peer, up to which it gets hashes. It has asked for too much at once then.
const HASHES_AHEAD: usize = 256 << 10;

/// Hashes that a peer may get over one connection, for each piece of the torrent...
const HASHES_PER_PIECE: u64 = 8;

/// ...and besides.
const MORE_HASHES: u64 = 4_096;

impl Swarm {
    /// Takes what is known of the torrent from now on: peers are told of it if they ask, and piece layers that it lacks are
    /// asked of them.
    pub fn set_metainfo(&mut self, now: Instant, metainfo: Arc<Metainfo>) {
        let news = self.metainfo.is_none();
        if metainfo.info.is_private() {
            self.become_private();
        }
        self.hashes = HashPicker::new(&metainfo.info);
        self.trees = HashTrees::default();
        self.metainfo = Some(metainfo);
        if !self.is_open() {
            self.stage = Stage::Described;
        }
        for key in self.peers.keys() {
            if news {
                self.introduce_ourselves(key);
                if let Some(peer) = self.peers.at_mut(key) {
                    Self::wake(&mut self.wakes, key, peer);
                }
            }
            self.meet_source_of_hashes(now, key);
        }
    }

    /// From now on peers come from trackers only (BEP 27).
    fn become_private(&mut self) {
        self.withdrawn |= self.config.pex || self.config.holepunch;
        (self.config.pex, self.config.holepunch) = (false, false);
        self.config.dht_port = None;
        let strangers = self.candidates.forget_strangers();
        let theirs = |peer: &Peer| {
            strangers.contains(&peer.address) || peer.listens_at.is_some_and(|address| strangers.contains(&address))
        };
        let keys: Vec<PeerKey> = self.peers.iter().filter(|(_, peer)| theirs(peer)).map(|(key, _)| key).collect();
        for key in keys {
            self.close(key, CloseReason::Private);
        }
    }

    /// How many bytes may be taken to fetch the info dictionary.
    pub fn set_metadata_allowance(&mut self, now: Instant, bytes: u64) {
        if let Stage::Metadata(fetch) = &mut self.stage {
            fetch.set_allowance(now, bytes);
            self.ask_for_metadata(now);
        }
    }

    /// Bytes of the info dictionary, if we have it to give.
    pub(super) fn metadata_size(&self) -> Option<u32> {
        let metainfo = self.metainfo.as_ref().filter(|metainfo| !metainfo.info.is_private())?;
        u32::try_from(metainfo.info.raw().len()).ok()
    }

    /// Whether we take messages about the info dictionary. Of a private torrent nobody else is to have it.
    pub(super) fn exchanges_metadata(&self) -> bool {
        matches!(self.stage, Stage::Metadata(_)) || self.metadata_size().is_some()
    }

    /// A peer has introduced itself: it may have the info dictionary.
    pub(super) fn meet_source_of_metadata(&mut self, now: Instant, key: PeerKey) {
        let (Stage::Metadata(fetch), Some(peer)) = (&mut self.stage, self.peers.at(key)) else { return };
        if let (Some(_), Some(size)) = (peer.said.m.id(Extension::Metadata), peer.said.metadata_size) {
            fetch.handle_size(now, key, size);
            self.ask_for_metadata(now);
        }
    }

    /// A peer may have hashes that we lack.
    pub(super) fn meet_source_of_hashes(&mut self, now: Instant, key: PeerKey) {
        let (Some(hashes), Some(peer)) = (&mut self.hashes, self.peers.at(key)) else { return };
        if peer.v2 {
            hashes.handle_peer(key);
            self.ask_for_hashes(now);
        }
    }

    /// A peer is gone; it is not among the others any more.
    pub(super) fn lose_source(&mut self, now: Instant, key: PeerKey) {
        if let Stage::Metadata(fetch) = &mut self.stage {
            fetch.handle_closed(now, key);
            self.ask_for_metadata(now);
        }
        if let Some(hashes) = &mut self.hashes {
            hashes.handle_closed(key);
            self.ask_for_hashes(now);
        }
    }

    /// Time has passed.
    pub(super) fn look_after_description(&mut self, now: Instant) {
        if let Stage::Metadata(fetch) = &mut self.stage {
            fetch.handle_timeout(now);
            self.ask_for_metadata(now);
        }
        if let Some(hashes) = &mut self.hashes {
            hashes.handle_timeout(now);
            self.ask_for_hashes(now);
        }
    }

    /// A `ut_metadata` message.
    pub(super) fn on_metadata(&mut self, now: Instant, key: PeerKey, payload: &[u8]) -> Result<(), Misbehaved> {
        let message = MetadataMessage::parse(payload).map_err(|_| Misbehaved::Extension)?;
        match (message, &mut self.stage) {
            (MetadataMessage::Request { piece }, _) => self.on_metadata_request(key, piece),
            (MetadataMessage::Data { piece, total_size, payload }, Stage::Metadata(fetch)) => {
                match fetch.handle_data(now, key, piece, total_size, payload) {
                    Fetched::More => self.ask_for_metadata(now),
                    Fetched::Whole(bytes) => {
                        self.stage = Stage::Described;
                        self.actions.push_back(Action::Metadata(bytes));
                    }
                    Fetched::Contradiction => {
                        self.stage = Stage::Described;
                        self.actions.push_back(Action::NoSuchMetadata);
                    }
                }
            }
            (MetadataMessage::Reject { piece }, Stage::Metadata(fetch)) => {
                fetch.handle_reject(now, key, piece);
                self.ask_for_metadata(now);
            }
            // Asked for before somebody else sent the rest.
            (MetadataMessage::Data { .. } | MetadataMessage::Reject { .. } | MetadataMessage::Unknown, _) => {}
        }
        Ok(())
    }

    fn ask_for_metadata(&mut self, now: Instant) {
        let Stage::Metadata(fetch) = &mut self.stage else { return };
        let mut liars = Vec::new();
        while let Some(liar) = fetch.poll_convicted() {
            liars.extend(self.peers.at(liar).map(|peer| self.candidates.identity(peer.address)));
        }
        for (key, piece) in fetch.requests(now) {
            let Some(peer) = self.peers.at_mut(key) else { continue };
            let Some(id) = peer.said.m.id(Extension::Metadata) else { continue };
            let mut payload = Vec::new();
            MetadataMessage::Request { piece }.encode_into(&mut payload);
            peer.outbox.push(&Message::Extended { id: id.get(), payload: &payload });
            Self::wake(&mut self.wakes, key, peer);
        }
        let wanted = fetch.wanted_memory();
        if wanted != self.memory_wanted {
            self.memory_wanted = wanted;
            self.actions.push_back(Action::MetadataMemory(wanted));
        }
        liars.into_iter().for_each(|liar| self.ban(liar));
    }

    fn on_metadata_request(&mut self, key: PeerKey, piece: u32) {
        let pieces = self.metadata_size().map_or(0, |size| size.div_ceil(METADATA_PIECE_LEN));
        let Some(peer) = self.peers.at_mut(key) else { return };
        let given =
            usize::try_from(peer.metadata_given).unwrap_or(usize::MAX).saturating_add(peer.metadata_asked.len());
        let enough = given >= (pieces * MAX_METADATA_TIMES) as usize || peer.metadata_asked.len() >= MAX_METADATA_QUEUE;
        if piece < pieces && !enough {
            peer.metadata_asked.push_back(piece);
            Self::wake(&mut self.wakes, key, peer);
        } else if let Some(id) = peer.said.m.id(Extension::Metadata) {
            let mut payload = Vec::new();
            MetadataMessage::Reject { piece }.encode_into(&mut payload);
            peer.outbox.push(&Message::Extended { id: id.get(), payload: &payload });
            Self::wake(&mut self.wakes, key, peer);
        }
    }

    /// Moves pieces of the info dictionary that a peer has asked for to its outbox, as long as little waits there.
    pub(super) fn give_metadata(&mut self, key: PeerKey) {
        let size = self.metadata_size();
        let (Some(metainfo), Some(peer)) = (&self.metainfo, self.peers.at_mut(key)) else { return };
        // Without the id under which it takes them there is nothing to be said.
        let Some(id) = peer.said.m.id(Extension::Metadata) else { return peer.metadata_asked.clear() };
        while peer.outbox.control_len() < METADATA_AHEAD
            && let Some(piece) = peer.metadata_asked.pop_front()
        {
            let mut pieces = metainfo.info.raw().chunks(METADATA_PIECE_LEN as usize);
            let Some(bytes) = pieces.nth(piece as usize) else { continue };
            let mut payload = Vec::with_capacity(bytes.len() + 64);
            MetadataMessage::Data { piece, total_size: size, payload: bytes }.encode_into(&mut payload);
            peer.outbox.push(&Message::Extended { id: id.get(), payload: &payload });
            peer.metadata_given += 1;
        }
    }

    pub(super) fn on_hash_request(&mut self, key: PeerKey, request: HashRequest) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        let most = u64::from(self.geometry.piece_count()) * HASHES_PER_PIECE + MORE_HASHES;
        let may_have = peer.outbox.control_len() < HASHES_AHEAD && peer.hashes_given < most;
        let metainfo = self.metainfo.as_ref().filter(|_| may_have);
        match metainfo.and_then(|metainfo| self.trees.answer(&metainfo.info, &request)) {
            Some(hashes) => {
                peer.hashes_given += u64::from(request.length);
                peer.outbox.push(&Message::Hashes { request, hashes: &hashes });
            }
            None => peer.outbox.push(&Message::HashReject(request)),
        }
    }

    pub(super) fn on_hashes(&mut self, now: Instant, key: PeerKey, request: &HashRequest, bytes: &[u8]) {
        let Some(hashes) = &mut self.hashes else { return };
        if hashes.handle_hashes(key, request, bytes) {
            if let Some(hashes) = self.hashes.take() {
                self.actions.push_back(Action::PieceLayers(hashes.into_layers()));
            }
        } else {
            self.ask_for_hashes(now);
        }
    }

    pub(super) fn on_hash_reject(&mut self, now: Instant, key: PeerKey, request: &HashRequest) {
        if let Some(hashes) = &mut self.hashes {
            hashes.handle_reject(now, key, request);
            self.ask_for_hashes(now);
        }
    }

    fn ask_for_hashes(&mut self, now: Instant) {
        let Some(hashes) = &mut self.hashes else { return };
        let mut liars = Vec::new();
        while let Some(liar) = hashes.poll_convicted() {
            liars.extend(self.peers.at(liar).map(|peer| self.candidates.identity(peer.address)));
        }
        for (key, request) in hashes.requests(now) {
            let Some(peer) = self.peers.at_mut(key) else { continue };
            peer.outbox.push(&Message::HashRequest(request));
            Self::wake(&mut self.wakes, key, peer);
        }
        liars.into_iter().for_each(|liar| self.ban(liar));
    }
}

#[cfg(test)]
#[path = "describe_tests.rs"]
mod tests;
