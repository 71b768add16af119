//! Which piece a seeder suggests to whom (BEP 6, "suggest piece"), so that its line carries every piece about once.
//!
//! As long as nobody else has a piece, all pieces that only the seeder has are equally rare, and every peer asks for
//! some of them at random, seconds ahead. Peers cannot see what others have asked for: simulated with eight leechers of
//! the seeder's own rate, three pieces in ten left the seeder twice. So each peer that is served is told of pieces that
//! nobody has and nobody else was told of. It is advice: who does not follow it is served all the same, and unlike
//! super-seeding (BEP 16) nothing is hidden from anybody. What a peer asks for of its own accord counts as suggested to
//! it; what is another's gets to it when all else has that it asked for. By then it often has it from that other.

use std::collections::BTreeMap;

use crate::base::{Bitfield, PeerKey, PieceIndex};

/// Pieces suggested to one peer that it has not got, at least and at most (BEP 6 speaks of ten). The one under way and the next
/// are enough: what is suggested to a slow peer all others have to wait for.
const AHEAD: std::ops::RangeInclusive<u64> = 2..=16;

/// Pieces that a peer can have to itself by asking for them: no more than it may fetch in some seconds.
const MAX_OPEN: usize = 128;

/// What nobody has, and who is to fetch it. See the [module](self).
#[derive(Debug)]
pub struct Suggestions {
    /// Pieces that no connected peer had when last heard of, and that nobody was told of or asked for.
    free: Bitfield,
    /// Where the next one is looked for.
    next: u32,
    /// What was suggested to each peer, or it has asked for, and is not there yet.
    open: BTreeMap<PeerKey, Vec<PieceIndex>>,
}

impl Suggestions {
    /// For a torrent of `count` pieces that nobody has yet; they are gone through in order, from number `start` on.
    pub fn new(count: u32, start: u32) -> Self {
        Self { free: Bitfield::full(count), next: start, open: BTreeMap::new() }
    }

    /// A peer has the piece.
    pub fn seen(&mut self, piece: PieceIndex) {
        self.free.clear(piece);
        for open in self.open.values_mut() {
            open.retain(|suggested| *suggested != piece);
        }
    }

    /// `peer` asks for a block of the piece. Whether it can wait, because somebody else has the piece or fetches it.
    pub fn asked(&mut self, peer: PeerKey, piece: PieceIndex) -> bool {
        let open = self.open.entry(peer).or_default();
        if self.free.has(piece) {
            if open.len() < MAX_OPEN {
                self.free.clear(piece);
                open.push(piece);
            }
            return false;
        }
        !open.contains(&piece)
    }

    /// A peer has all of these.
    pub fn seen_all(&mut self, have: &Bitfield) {
        have.iter().for_each(|piece| {
            self.free.clear(piece);
        });
        for open in self.open.values_mut() {
            open.retain(|suggested| !have.has(*suggested));
        }
    }

    /// The next piece to suggest to `peer`, which takes `rate` bytes per second; none if it has enough, or if there is
    /// nothing left that only we have. Call until `None`.
    pub fn next(&mut self, peer: PeerKey, rate: u64, piece_length: u32) -> Option<PieceIndex> {
        let ahead = (rate / u64::from(piece_length.max(1))).clamp(*AHEAD.start(), *AHEAD.end());
        let open = self.open.entry(peer).or_default();
        if open.len() as u64 >= ahead {
            return None;
        }
        let piece = self.free.and_from(&self.free, self.next).next()?;
        self.free.clear(piece);
        self.next = piece.get() + 1;
        open.push(piece);
        Some(piece)
    }

    /// The peer is choked, or gone: what it did not fetch is for others.
    pub fn withdraw(&mut self, peer: PeerKey) {
        for piece in self.open.remove(&peer).into_iter().flatten() {
            self.free.set(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Geometry, Slab};

    #[test]
    fn each_piece_to_one_peer() {
        let geometry = Geometry::new(40 * 16_384, 16_384).unwrap();
        let mut slab = Slab::default();
        let (a, b) = (slab.insert(()), slab.insert(()));
        let mut suggestions = Suggestions::new(40, 38);
        let mut all = |peer, rate| -> Vec<u32> {
            std::iter::from_fn(|| suggestions.next(peer, rate, 16_384)).map(PieceIndex::get).collect()
        };
        assert_eq!(all(a, 0), [38, 39]);
        assert_eq!(all(a, 4 * 16_384), [0, 1]);
        assert_eq!(all(b, 6 * 16_384), [2, 3, 4, 5, 6, 7]);
        assert!(all(a, 4 * 16_384).is_empty());
        // Whoever has it: it is done.
        for n in [39, 4, 20] {
            suggestions.seen(geometry.piece(n).unwrap());
        }
        assert_eq!(suggestions.next(a, 4 * 16_384, 16_384).map(PieceIndex::get), Some(8));
        suggestions.withdraw(b);
        let rest: Vec<_> = std::iter::from_fn(|| suggestions.next(b, u64::MAX, 16_384)).map(PieceIndex::get).collect();
        assert_eq!(rest, [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24, 25]);
        suggestions.withdraw(b);
        suggestions.withdraw(a);
        let mut left: Vec<_> = std::iter::repeat_with(|| {
            suggestions.next(a, 0, 1).inspect(|piece| suggestions.seen(*piece)).map(PieceIndex::get)
        })
        .map_while(|piece| piece)
        .collect();
        left.sort_unstable();
        let expected: Vec<u32> = (0..40).filter(|n| ![39, 4, 20].contains(n)).collect();
        assert_eq!(left, expected, "nothing is lost");
    }

    #[test]
    fn what_is_anothers_can_wait() {
        let geometry = Geometry::new(200 * 16_384, 16_384).unwrap();
        let piece = |n| geometry.piece(n).unwrap();
        let mut slab = Slab::default();
        let (a, b) = (slab.insert(()), slab.insert(()));
        let mut suggestions = Suggestions::new(200, 0);
        let told = suggestions.next(a, 0, 16_384).unwrap();
        assert!(!suggestions.asked(a, told) && suggestions.asked(b, told));
        assert!(!suggestions.asked(b, piece(9)) && !suggestions.asked(b, piece(9)) && suggestions.asked(a, piece(9)));
        suggestions.seen(piece(9));
        assert!(suggestions.asked(a, piece(9)) && suggestions.asked(b, piece(9)), "others have it by now");
        suggestions.withdraw(a);
        assert!(!suggestions.asked(b, told), "nobody fetches it any more");
        // Nobody gets everything for itself.
        assert!((10..200).all(|n| !suggestions.asked(b, piece(n))));
        assert!(!suggestions.asked(a, piece(199)) && suggestions.asked(a, piece(10)));
    }
}
