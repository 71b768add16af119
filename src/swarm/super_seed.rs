//! Seeding a torrent that nobody else has yet: every piece sent about once (BEP 16).
//!
//! A super seed claims to have nothing and reveals pieces by `have`, one or two per peer. The next one follows when
//! somebody *else* announces a revealed piece, which shows that the peer passes on what it gets. When every piece has
//! been seen at a peer, the work is done: the rest is revealed to all, and normal seeding goes on.
//!
//! ```text
//! reveal(peer) -> piece     peer: have(piece)      another peer: have(piece)
//!      pending  ---------------->  got  ----------------------->  passed on: room for the next
//!                                   \--- PATIENCE over, or nobody else is there --^
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::{Bitfield, Geometry, PeerKey, PieceIndex};

/// Pieces that a peer may have revealed and not passed on. Two, so that it can ask for the second while the
/// last blocks of the first are still under way.
pub const REVEALED_AT_ONCE: usize = 2;
/// When a peer has had a piece for so long, it gets the next one although nobody else announced it: those that it
/// knows may be slow or have it from us, and our line should not idle.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Which piece to reveal to whom. See the [module](self).
#[derive(Debug)]
pub struct SuperSeed {
    /// The pieces in the order of their first revealing: shuffled.
    order: Vec<PieceIndex>,
    /// Everything in `order` before this was revealed at least once.
    fresh: usize,
    /// Pieces that came back because the peer they were revealed to left too early.
    returned: Vec<PieceIndex>,
    /// Connected peers known to have the piece, by piece.
    copies: Vec<u32>,
    /// Connected peers to which the piece is revealed and who have not got it, by piece.
    pending: Vec<u32>,
    /// Pieces ever seen at a peer.
    seen: Bitfield,
    peers: BTreeMap<PeerKey, Peer>,
}

#[derive(Debug)]
struct Peer {
    has: Bitfield,
    /// Every piece revealed to it.
    revealed: Bitfield,
    /// Those not passed on yet, with the time at which the peer got them.
    open: Vec<(PieceIndex, Option<Instant>)>,
}

impl SuperSeed {
    /// Nothing revealed. `seed` shuffles the pieces, so that the first ones are no matter of convention.
    pub fn new(geometry: &Geometry, seed: u64) -> Self {
        let mut order: Vec<_> = geometry.pieces().collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut order);
        let count = geometry.piece_count() as usize;
        Self {
            order,
            fresh: 0,
            returned: Vec::new(),
            copies: vec![0; count],
            pending: vec![0; count],
            seen: Bitfield::new(geometry.piece_count()),
            peers: BTreeMap::new(),
        }
    }

    /// A peer connected, which has nothing as far as we know. Tell it nothing but `have_none` (or no bitfield).
    pub fn connected(&mut self, peer: PeerKey) {
        let none = Bitfield::new(self.seen.len());
        self.peers.insert(peer, Peer { has: none.clone(), revealed: none, open: Vec::new() });
    }

    /// The peer said what it has, all at once.
    pub fn seen_bitfield(&mut self, now: Instant, peer: PeerKey, has: &Bitfield) {
        for piece in has.iter() {
            self.note(now, piece, peer);
        }
    }

    /// Peer `by` announced `piece`. Returns the peers that may have become ready for another [`SuperSeed::reveal`].
    pub fn seen_have(&mut self, now: Instant, piece: PieceIndex, by: PeerKey) -> Vec<PeerKey> {
        self.note(now, piece, by);
        let mut ready = Vec::new();
        for (&key, peer) in &mut self.peers {
            if key == by {
                ready.push(key);
            } else if let Some(i) = peer.open.iter().position(|open| open.0 == piece) {
                // Passed on: another has it. (That it came from this peer and no third one nobody can tell.)
                if peer.open.swap_remove(i).1.is_none() {
                    bump(&mut self.pending, piece, -1);
                }
                ready.push(key);
            }
        }
        ready
    }

    fn note(&mut self, now: Instant, piece: PieceIndex, by: PeerKey) {
        let Some(peer) = self.peers.get_mut(&by) else { return };
        if !peer.has.set(piece) {
            return;
        }
        self.seen.set(piece);
        bump(&mut self.copies, piece, 1);
        for open in peer.open.iter_mut().filter(|open| open.0 == piece && open.1.is_none()) {
            open.1 = Some(now);
            bump(&mut self.pending, piece, -1);
        }
    }

    /// The peer left. What it has got of us and passed on to nobody may have to be sent again.
    pub fn disconnected(&mut self, peer: PeerKey) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        for piece in gone.has.iter() {
            bump(&mut self.copies, piece, -1);
            if self.copies_of(piece) == 0 {
                self.seen.clear(piece);
            }
        }
        for (piece, got) in gone.open {
            if got.is_none() {
                bump(&mut self.pending, piece, -1);
            }
            if self.copies_of(piece) == 0 {
                self.returned.push(piece);
            }
        }
    }

    /// The next piece to announce to `peer` by `have`, if it is its turn. Call until `None`.
    pub fn reveal(&mut self, now: Instant, peer: PeerKey) -> Option<PieceIndex> {
        let alone = self.peers.len() < 2;
        let entry = self.peers.get_mut(&peer)?;
        entry.open.retain(|open| match open.1 {
            Some(got) => !alone && now.saturating_duration_since(got) < PATIENCE,
            None => true,
        });
        if entry.open.len() >= REVEALED_AT_ONCE {
            return None;
        }
        let piece = self.choose(peer)?;
        let entry = self.peers.get_mut(&peer)?;
        entry.revealed.set(piece);
        entry.open.push((piece, None));
        bump(&mut self.pending, piece, 1);
        Some(piece)
    }

    /// Pieces never sent come first, then the rarest; those on their way to somebody count as there.
    fn choose(&mut self, peer: PeerKey) -> Option<PieceIndex> {
        let entry = self.peers.get(&peer)?;
        let wanted = |piece: PieceIndex| !entry.has.has(piece) && !entry.revealed.has(piece);
        let untouched = |piece: PieceIndex| at(&self.copies, piece) == 0 && at(&self.pending, piece) == 0;

        self.returned.retain(|&piece| untouched(piece));
        if let Some(i) = self.returned.iter().position(|&piece| wanted(piece)) {
            return Some(self.returned.swap_remove(i));
        }
        while let Some(&piece) = self.order.get(self.fresh) {
            if untouched(piece) {
                // Untouched, so this peer does not have it; it may have been revealed to it before it came back as returned.
                if !wanted(piece) {
                    break;
                }
                self.fresh += 1;
                return Some(piece);
            }
            self.fresh += 1;
        }
        let rarity = |piece: &PieceIndex| at(&self.copies, *piece).saturating_add(at(&self.pending, *piece));
        self.order.iter().copied().filter(|&piece| wanted(piece)).min_by_key(rarity)
    }

    /// Whether `peer` may download `piece`: it was told that we have it.
    pub fn is_revealed(&self, peer: PeerKey, piece: PieceIndex) -> bool {
        self.peers.get(&peer).is_some_and(|p| p.revealed.has(piece))
    }

    /// The pieces that `peer` has not been told of, for the `have`s that end super seeding.
    pub fn hidden_from(&self, peer: PeerKey) -> impl Iterator<Item = PieceIndex> + '_ {
        let peer = self.peers.get(&peer);
        self.order.iter().copied().filter(move |&p| peer.is_some_and(|peer| !peer.revealed.has(p) && !peer.has.has(p)))
    }

    /// When [`SuperSeed::reveal`] should be tried again for somebody whose piece nobody passed on.
    pub fn deadline(&self) -> Option<Instant> {
        self.peers.values().flat_map(|p| &p.open).filter_map(|open| open.1).min().map(|got| got + PATIENCE)
    }

    /// Every piece has been seen at some peer that is still there: seed normally from now on.
    pub fn is_finished(&self) -> bool {
        self.seen.is_full()
    }

    fn copies_of(&self, piece: PieceIndex) -> u32 {
        at(&self.copies, piece)
    }
}

fn at(table: &[u32], piece: PieceIndex) -> u32 {
    table.get(piece.idx()).copied().unwrap_or(0)
}

fn bump(table: &mut [u32], piece: PieceIndex, by: i32) {
    if let Some(n) = table.get_mut(piece.idx()) {
        *n = n.saturating_add_signed(by);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::base::Slab;

    fn geometry(pieces: u32) -> Geometry {
        Geometry::new(u64::from(pieces) * 16_384, 16_384).unwrap()
    }

    fn peers(n: usize) -> Vec<PeerKey> {
        let mut slab = Slab::default();
        (0..n).map(|_| slab.insert(())).collect()
    }

    fn all(seed: &mut SuperSeed, now: Instant, peer: PeerKey) -> Vec<PieceIndex> {
        std::iter::from_fn(|| seed.reveal(now, peer)).take(100).collect()
    }

    #[test]
    fn two_at_a_time_and_the_next_when_somebody_else_has_it() {
        let (now, keys) = (Instant::now(), peers(3));
        let mut s = SuperSeed::new(&geometry(20), 1);
        keys.iter().for_each(|&k| s.connected(k));
        let first: Vec<Vec<PieceIndex>> = keys.iter().map(|&k| all(&mut s, now, k)).collect();
        let mut flat: Vec<_> = first.concat();
        assert_eq!(flat.len(), 3 * REVEALED_AT_ONCE);
        flat.sort_unstable();
        flat.dedup();
        assert_eq!(flat.len(), 6, "every piece to one peer");
        let (piece, other) = (first[0][0], first[1][0]);
        assert!(s.is_revealed(keys[0], piece) && !s.is_revealed(keys[1], piece));
        // It got the piece, but passed it to nobody.
        assert_eq!(s.seen_have(now, piece, keys[0]), [keys[0]]);
        assert_eq!(s.reveal(now, keys[0]), None);
        // Another piece at another peer is no sign of it.
        s.seen_have(now, other, keys[2]);
        assert_eq!(s.reveal(now, keys[0]), None);
        // Now somebody else has it.
        assert_eq!(s.seen_have(now, piece, keys[1]), [keys[0], keys[1]]);
        assert_eq!(all(&mut s, now, keys[0]).len(), 1);
    }

    #[test]
    fn patience_ends_and_a_lonely_peer_need_not_wait() {
        let (now, keys) = (Instant::now(), peers(2));
        let mut s = SuperSeed::new(&geometry(20), 1);
        keys.iter().for_each(|&k| s.connected(k));
        let first = all(&mut s, now, keys[0]);
        assert_eq!(s.deadline(), None);
        s.seen_have(now, first[0], keys[0]);
        assert_eq!(s.deadline(), Some(now + PATIENCE));
        assert_eq!(s.reveal(now + PATIENCE / 2, keys[0]), None);
        assert!(s.reveal(now + PATIENCE, keys[0]).is_some());
        s.disconnected(keys[1]);
        s.seen_have(now + PATIENCE, first[1], keys[0]);
        assert!(s.reveal(now + PATIENCE, keys[0]).is_some());
    }

    #[test]
    fn pieces_of_those_who_leave_come_back() {
        let (now, keys) = (Instant::now(), peers(2));
        let mut s = SuperSeed::new(&geometry(2), 1);
        keys.iter().for_each(|&k| s.connected(k));
        let lost = all(&mut s, now, keys[0]);
        assert_eq!(lost.len(), 2);
        s.seen_have(now, lost[0], keys[0]);
        s.disconnected(keys[0]);
        let mut again = all(&mut s, now, keys[1]);
        again.sort_unstable();
        let mut lost = lost;
        lost.sort_unstable();
        assert_eq!(again, lost);
        assert!(!s.is_finished());
        s.seen_bitfield(now, keys[1], &Bitfield::full(2));
        assert!(s.is_finished());
        assert_eq!(s.hidden_from(keys[1]).count(), 0);
        // Unknown peers change nothing.
        s.seen_have(now, again[0], keys[0]);
        assert_eq!(s.reveal(now, keys[0]), None);
    }

    /// Equal peers that pass pieces on: every piece leaves the seed about once.
    #[test]
    fn every_piece_is_sent_about_once() {
        let (mut now, keys) = (Instant::now(), peers(10));
        let (pieces, geometry) = (200, geometry(200));
        let mut s = SuperSeed::new(&geometry, 7);
        keys.iter().for_each(|&k| s.connected(k));
        let mut has: Vec<Bitfield> = keys.iter().map(|_| Bitfield::new(pieces)).collect();
        let mut dice = fastrand::Rng::with_seed(3);
        let mut sent = 0u32;
        let mut wanted: Vec<VecDeque<PieceIndex>> = keys.iter().map(|_| VecDeque::new()).collect();
        for _ in 0..5_000 {
            now += Duration::from_millis(100);
            for (i, &key) in keys.iter().enumerate() {
                wanted[i].extend(std::iter::from_fn(|| s.reveal(now, key)));
                // The seed serves each peer a piece per tick, and so does a random neighbour.
                let from_seed = wanted[i].pop_front().filter(|&p| !has[i].has(p));
                sent += u32::from(from_seed.is_some());
                let from = dice.usize(..keys.len());
                let traded = has[from].and_not(&has[i]).next();
                for piece in from_seed.into_iter().chain(traded) {
                    has[i].set(piece);
                    s.seen_have(now, piece, key);
                }
            }
            if s.is_finished() {
                break;
            }
        }
        assert!(s.is_finished());
        assert!(sent <= pieces + pieces / 10, "{sent} pieces sent of {pieces}");
    }
}
