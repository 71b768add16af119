use std::collections::VecDeque;

use crate::base::{PeerKey, PieceIndex};

/// What each peer was asked for, oldest first.
///
/// Kept beside the blocks' own state because both questions are asked all the time: who has this block, and what does
/// this peer have. Blocks mostly come in the order in which they were asked for, so a removal looks at one entry.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// By the slot of the peer's key.
    peers: Vec<Option<Work>>,
    /// Requests so far.
    count: u64,
}

/// One peer's part.
#[derive(Debug)]
pub(super) struct Work {
    peer: PeerKey,
    pub(super) fast: bool,
    /// The piece that it was asked for last, if it may go on with it.
    pub(super) current: Option<PieceIndex>,
    asked: VecDeque<Asked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) piece: PieceIndex,
    pub(super) number: u32,
    /// Rises from request to request, of whatever peer.
    when: u64,
}

impl Asks {
    /// The key of an older peer whose place `peer` has taken without its being released.
    pub(super) fn squatter(&self, peer: PeerKey) -> Option<PeerKey> {
        let there = self.peers.get(peer.slot())?.as_ref()?.peer;
        (there != peer).then_some(there)
    }

    /// The part of `peer`, begun if need be.
    pub(super) fn work(&mut self, peer: PeerKey) -> &mut Work {
        let slot = peer.slot();
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, || None);
        }
        let new = || Work { peer, fast: false, current: None, asked: VecDeque::new() };
        let work = self.peers[slot].get_or_insert_with(new);
        debug_assert_eq!(work.peer, peer);
        work
    }

    fn find(&self, peer: PeerKey) -> Option<&Work> {
        self.peers.get(peer.slot())?.as_ref().filter(|work| work.peer == peer)
    }

    /// What `peer` was asked for and has not sent, oldest first.
    pub(super) fn of(&self, peer: PeerKey) -> impl ExactSizeIterator<Item = &Asked> + DoubleEndedIterator {
        self.find(peer).map_or(NOTHING.iter(), |work| work.asked.iter())
    }

    pub(super) fn is_fast(&self, peer: PeerKey) -> bool {
        self.find(peer).is_some_and(|work| work.fast)
    }

    pub(super) fn current(&self, peer: PeerKey) -> Option<PieceIndex> {
        self.find(peer)?.current
    }

    pub(super) fn add(&mut self, peer: PeerKey, piece: PieceIndex, number: u32) {
        self.count += 1;
        let when = self.count;
        self.work(peer).asked.push_back(Asked { piece, number, when });
    }

    pub(super) fn remove(&mut self, peer: PeerKey, piece: PieceIndex, number: u32) {
        let Some(Some(work)) = self.peers.get_mut(peer.slot()) else { return };
        if work.peer == peer
            && let Some(at) = work.asked.iter().position(|asked| asked.piece == piece && asked.number == number)
        {
            work.asked.remove(at);
        }
    }

    /// Forgets the peer: what it was asked for.
    pub(super) fn forget(&mut self, peer: PeerKey) -> VecDeque<Asked> {
        match self.peers.get_mut(peer.slot()) {
            Some(place) if place.as_ref().is_some_and(|work| work.peer == peer) => {
                place.take().map(|work| work.asked).unwrap_or_default()
            }
            _ => VecDeque::new(),
        }
    }

    /// Of the peers that have something to send the one that has kept us waiting longest after those before: slow peers
    /// first, and among equals the one whose oldest request is the oldest. `after` is what the call before returned.
    pub(super) fn next_victim(&self, after: Option<Victim>) -> Option<Victim> {
        let victims = self.peers.iter().flatten().filter_map(|work| {
            let head = work.asked.front()?;
            Some(Victim { fast: work.fast, since: head.when, peer: work.peer })
        });
        victims.filter(|victim| after.is_none_or(|after| *victim > after)).min()
    }

    /// Room for so many peers is looked through by [`Asks::next_victim`].
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }
}

/// A peer that others may relieve of some of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Victim {
    pub(super) fast: bool,
    since: u64,
    pub(super) peer: PeerKey,
}

static NOTHING: VecDeque<Asked> = VecDeque::new();
