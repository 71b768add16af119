//! A torrent of which only the info-hash is known, and what peers say meanwhile.
//!
//! Connections are as they are later: the same peers, outboxes and candidates. What a peer says about pieces cannot be
//! understood before it is known how many there are; it is kept as it came, within bounds, and listened to when the swarm
//! [opens](Swarm::open). Until then nobody is unchoked, and nothing is asked for but what the torrent is.

use std::time::Instant;

use super::metadata::MetadataFetch;
use super::peer::MAX_FLIPS;
use super::picker::Picker;
use super::receive::MAX_HINTS;
use super::suggest::Suggestions;
use super::super_seed::SuperSeed;
use super::{CloseReason, Misbehaved, Priority, Stage, Swarm, SwarmConfig, choker};
use crate::base::{Bitfield, Geometry, InfoHash, PeerKey};
use crate::wire::Message;

/// `have` messages of one peer that are kept; what it has besides is not known then.
const MAX_EARLY_HAVES: usize = 16 << 10;

/// What a peer said about pieces. The numbers are raw.
#[derive(Debug, Default)]
pub(super) struct Early {
    told: Option<Told>,
    haves: Vec<u32>,
    allowed: Vec<u32>,
    suggested: Vec<u32>,
}

#[derive(Debug)]
enum Told {
    /// As long as the decoder lets them be: [`MAX_BITFIELD_LEN`](crate::wire::MAX_BITFIELD_LEN).
    Bitfield(Box<[u8]>),
    All,
    None,
}

impl Early {
    /// The same in messages, in an order in which a peer may say them.
    fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let told = self.told.iter().map(|told| match told {
            Told::Bitfield(bytes) => Message::Bitfield(bytes),
            Told::All => Message::HaveAll,
            Told::None => Message::HaveNone,
        });
        told.chain(self.haves.iter().map(|index| Message::Have(*index)))
            .chain(self.allowed.iter().map(|index| Message::AllowedFast(*index)))
            .chain(self.suggested.iter().map(|index| Message::Suggest(*index)))
    }
}

fn keep(list: &mut Vec<u32>, index: u32, most: usize) {
    if list.len() < most {
        list.push(index);
    }
}

impl Swarm {
    /// A swarm of a torrent of which only `wanted` is known. The info dictionary comes by
    /// [`Action::Metadata`](super::Action::Metadata); then follow [`Swarm::set_metainfo`] and [`Swarm::open`].
    pub fn unknown(now: Instant, wanted: InfoHash, config: SwarmConfig, seed: u64) -> Self {
        let mut swarm = Self::new(now, Geometry::unknown(), &Bitfield::new(0), &[], config, seed);
        swarm.stage = Stage::Metadata(MetadataFetch::new(wanted));
        swarm.completed = false;
        (swarm.super_seed, swarm.suggestions) = (None, None);
        swarm
    }

    /// Whether pieces can be exchanged.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// The files of a torrent that was [unknown](Swarm::unknown) are open: pieces can be exchanged from now on.
    ///
    /// `have` and `priorities` are as in [`Swarm::new`]. Without a metainfo, and a second time, nothing happens.
    pub fn open(&mut self, now: Instant, have: &Bitfield, priorities: &[Priority]) {
        let Some(metainfo) = self.metainfo.clone().filter(|_| !self.is_open()) else { return };
        let mut rng = fastrand::Rng::with_seed(self.seed);
        self.geometry = metainfo.info.geometry().clone();
        self.picker = Picker::new(self.geometry.clone(), have, rng.u64(..));
        self.picker.set_sequential(self.config.sequential);
        self.picker.set_priorities(priorities);
        self.choker = choker::Choker::new(self.geometry.piece_length(), rng.u64(..));
        self.completed = self.picker.is_complete();
        self.super_seed =
            (self.config.super_seed && have.is_full()).then(|| SuperSeed::new(&self.geometry, rng.u64(..)));
        let count = self.geometry.piece_count();
        self.suggestions =
            (have.is_full() && self.super_seed.is_none()).then(|| Suggestions::new(count, rng.u32(..count.max(1))));
        self.stage = Stage::Open;
        for key in self.peers.keys() {
            self.begin_with(now, key);
        }
        self.fill_slots(now);
    }

    /// Does with an early peer what is done with a new one, and listens to what it said.
    fn begin_with(&mut self, now: Instant, key: PeerKey) {
        let none = Bitfield::new(self.geometry.piece_count());
        let counted = self.picker.add_peer(&none);
        let Some(peer) = self.peers.at_mut(key) else { return };
        peer.counted = counted;
        peer.have = none;
        let early = std::mem::take(&mut peer.early);
        Self::wake(&mut self.wakes, key, peer);
        self.say_what_we_have(key);
        if self.completed {
            self.introduce_ourselves(key);
        }
        self.greet_allowed_fast(key);
        self.begin_super_seeding(now, key);
        for message in early.messages() {
            if let Err(what) = self.handle_message(now, key, &message) {
                return self.close(key, CloseReason::Misbehaved(what));
            }
        }
    }

    /// A message came before pieces can be exchanged. True if it was dealt with here; all others mean the same at any time.
    pub(super) fn on_early(&mut self, now: Instant, key: PeerKey, message: &Message<'_>) -> Result<bool, Misbehaved> {
        let fast_only = matches!(
            message,
            Message::HaveAll
                | Message::HaveNone
                | Message::Suggest(_)
                | Message::AllowedFast(_)
                | Message::Reject { .. }
        );
        if fast_only {
            self.require_fast(key)?;
        }
        let Some(peer) = self.peers.at_mut(key) else { return Ok(true) };
        let told = match *message {
            Message::Bitfield(bytes) => Told::Bitfield(bytes.into()),
            Message::HaveAll => Told::All,
            Message::HaveNone => Told::None,
            Message::Have(index) => {
                keep(&mut peer.early.haves, index, MAX_EARLY_HAVES);
                return Ok(true);
            }
            Message::AllowedFast(index) => {
                keep(&mut peer.early.allowed, index, MAX_HINTS);
                return Ok(true);
            }
            Message::Suggest(index) => {
                keep(&mut peer.early.suggested, index, MAX_HINTS);
                return Ok(true);
            }
            // There is nothing to be had yet.
            Message::Request { index, begin, len } => {
                return self.refuse(key, &Message::Reject { index, begin, len }, false).map(|()| true);
            }
            Message::Cancel { .. } | Message::Reject { .. } => return Ok(true),
            _ => return Ok(false),
        };
        if !peer.flips.allow(now, MAX_FLIPS) {
            return Err(Misbehaved::Flood);
        }
        peer.early.told = Some(told);
        peer.early.haves.clear();
        Ok(true)
    }
}
