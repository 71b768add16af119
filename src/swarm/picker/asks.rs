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
    /// Bytes per second, 0 while that is not known.
    pub(super) rate: u64,
    /// The piece that it was asked for last, if it may go on with it.
    pub(super) current: Option<PieceIndex>,
    /// When nothing was left to ask it for, and how many pieces it had then: see `Picker::is_idle`.
    pub(super) idle: Option<(u64, u32)>,
    /// So many searches by rarity are left out, because the last one gave up on this peer.
    pub(super) sparse: u8,
    asked: VecDeque<Asked>,
    /// How many of them are `shared`.
    shared: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) piece: PieceIndex,
    pub(super) number: u32,
    /// Rises from request to request, of whatever peer.
    when: u64,
    /// In endgame another peer was asked for it too.
    pub(super) shared: bool,
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
        let new = || {
            let (fast, rate, current, idle, sparse, asked, shared) = (false, 0, None, None, 0, VecDeque::new(), 0);
            Work { peer, fast, rate, current, idle, sparse, asked, shared }
        };
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

    pub(super) fn rate(&self, peer: PeerKey) -> u64 {
        self.find(peer).map_or(0, |work| work.rate)
    }

    pub(super) fn current(&self, peer: PeerKey) -> Option<PieceIndex> {
        self.find(peer)?.current
    }

    pub(super) fn add(&mut self, peer: PeerKey, piece: PieceIndex, number: u32) {
        self.count += 1;
        let when = self.count;
        self.work(peer).asked.push_back(Asked { piece, number, when, shared: false });
    }

    /// Whether what `peer` was asked for is asked from another, too.
    pub(super) fn set_shared(&mut self, peer: PeerKey, piece: PieceIndex, number: u32, shared: bool) {
        let Some(Some(work)) = self.peers.get_mut(peer.slot()) else { return };
        // The latest is the likeliest.
        if let Some(asked) = work.asked.iter_mut().rfind(|asked| asked.piece == piece && asked.number == number)
            && std::mem::replace(&mut asked.shared, shared) != shared
        {
            if shared {
                work.shared += 1;
            } else {
                work.shared -= 1;
            }
        }
    }

    /// How many of the requests of `peer` are not shared.
    pub(super) fn unshared(&self, peer: PeerKey) -> usize {
        self.find(peer).map_or(0, |work| work.asked.len() - work.shared)
    }

    pub(super) fn remove(&mut self, peer: PeerKey, piece: PieceIndex, number: u32) {
        let Some(Some(work)) = self.peers.get_mut(peer.slot()) else { return };
        if work.peer == peer
            && let Some(at) = work.asked.iter().position(|asked| asked.piece == piece && asked.number == number)
        {
            let shared = work.asked.remove(at).is_some_and(|asked| asked.shared);
            work.shared -= usize::from(shared);
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

    /// Of the peers that have something to send the one that comes next after `after`: slow peers first, and among equals
    /// the one whose oldest request is the oldest. If `shared`, also those whose requests are all shared.
    pub(super) fn next_victim(&self, after: Option<Victim>, shared: bool) -> Option<Victim> {
        let victims = self.peers.iter().flatten().filter_map(|work| {
            let head = work.asked.front().filter(|_| shared || work.shared < work.asked.len())?;
            Some(Victim { fast: work.fast, since: head.when, peer: work.peer })
        });
        victims.filter(|victim| after.is_none_or(|after| *victim > after)).min()
    }

    /// Panics unless the counts are right.
    #[cfg(test)]
    pub(super) fn check(&self) {
        for work in self.peers.iter().flatten() {
            assert_eq!(work.shared, work.asked.iter().filter(|asked| asked.shared).count());
        }
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
