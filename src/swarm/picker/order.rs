use fastrand::Rng;

use super::CLASSES;
use crate::base::{Bitfield, PieceIndex};

/// Candidates looked at, at most, before the search by rarity gives up on a peer that has little of what is rare ...
const SCAN: usize = 64;
/// ... and this many more for each piece that is searched for.
const SCAN_PER_PIECE: usize = 8;
/// Random tries in a bucket before it is gone through, for each piece that is searched for, and as many as it has at most.
const THROWS: usize = 4;

/// Pieces of the peer that are compared when the search by rarity gave up: the rarest of these is good enough ...
const SAMPLE: usize = 24;
/// ... and this many more for each piece that is searched for.
const SAMPLE_PER_PIECE: usize = 4;

/// Pieces looked at in search of a long gap, at most.
const SCAN_GAPS: usize = 1 << 16;

/// A bucket keeps up to four times the room it uses, and this many places.
const SPARE: usize = 64;

/// The pieces that nobody was asked for yet, by class of priority, and within a class by how many peers have them.
///
/// ```text
/// class   Normal
/// buckets [0: ][1: 17 4][2: 9 230 8 61 ...][3: ...]    number of peers -> pieces, in no order
/// place   [.. 4: 1 .. 8: 2 .. 9: 0 ..]                 piece -> position in its bucket
/// ```
///
/// One peer more or less moves a piece between neighbours in constant time. A change of many pieces at once only marks
/// the buckets as stale: they are filled anew before they are next looked at. The luck among equals is in where a search
/// enters a bucket.
#[derive(Debug)]
pub(super) struct Order {
    classes: [Class; CLASSES],
    place: Vec<u32>,
    stale: bool,
}

#[derive(Debug)]
struct Class {
    members: Bitfield,
    buckets: Vec<Vec<PieceIndex>>,
    /// Buckets below this are empty.
    rarest: usize,
    /// Pieces below this are no members.
    first: u32,
}

/// How a search by rarity ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// As many as were asked for.
    Enough,
    /// The peer has no more of this class.
    Everything,
    /// It has little of what is rare: not worth looking further.
    GaveUp,
}

/// For whom pieces are searched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) have: &'a Bitfield,
    /// Preferred among equals.
    pub(super) suggested: &'a [PieceIndex],
    /// How many pieces.
    pub(super) count: usize,
}

impl Order {
    pub(super) fn new(pieces: u32) -> Self {
        let class = || Class { members: Bitfield::new(pieces), buckets: Vec::new(), rarest: 0, first: pieces };
        Self { classes: std::array::from_fn(|_| class()), place: vec![0; pieces as usize], stale: true }
    }

    /// How many pieces of `class` nobody was asked for.
    pub(super) fn count(&self, class: usize) -> u32 {
        self.classes[class].members.count()
    }

    pub(super) fn contains(&self, class: usize, piece: PieceIndex) -> bool {
        self.classes[class].members.has(piece)
    }

    /// Whether there is a piece, in any class, that a connected peer has.
    pub(super) fn any_reachable(&self, seeds: u32) -> bool {
        debug_assert!(!self.stale);
        self.classes.iter().any(|class| {
            let unreachable = if seeds > 0 { 0 } else { class.buckets.first().map_or(0, Vec::len) };
            class.members.count() as usize > unreachable
        })
    }

    pub(super) fn insert(&mut self, class: usize, piece: PieceIndex, availability: u16) {
        let class = &mut self.classes[class];
        if class.members.set(piece) {
            class.first = class.first.min(piece.get());
            if !self.stale {
                class.push(&mut self.place, piece, availability.into());
            }
        }
    }

    pub(super) fn remove(&mut self, class: usize, piece: PieceIndex, availability: u16) {
        let class = &mut self.classes[class];
        if class.members.clear(piece) && !self.stale {
            class.take(&mut self.place, piece, availability.into());
        }
    }

    /// One peer more or less has `piece`.
    pub(super) fn shift(&mut self, class: usize, piece: PieceIndex, from: u16, to: u16) {
        let class = &mut self.classes[class];
        if !self.stale && class.members.has(piece) {
            class.take(&mut self.place, piece, from.into());
            class.push(&mut self.place, piece, to.into());
        }
    }

    /// So much has changed that the buckets have to be filled anew.
    pub(super) fn spoil(&mut self) {
        self.stale = true;
    }

    /// Fills the buckets anew if that is needed.
    pub(super) fn settle(&mut self, availability: &[u16]) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        for class in &mut self.classes {
            let Class { members, buckets, rarest, .. } = class;
            buckets.iter_mut().for_each(Vec::clear);
            *rarest = buckets.len();
            for piece in members.iter() {
                let level = usize::from(availability.get(piece.idx()).copied().unwrap_or(0));
                file(buckets, &mut self.place, piece, level);
                *rarest = level.min(*rarest);
            }
            buckets.iter_mut().for_each(trim);
        }
    }

    /// Adds to `found` the rarest pieces of `class` that the peer has.
    ///
    /// A peer that does not have everything should have nothing of what nobody was counted for: that comes last.
    pub(super) fn rarest(
        &mut self,
        class: usize,
        target: Target<'_>,
        availability: &[u16],
        rng: &mut Rng,
        found: &mut Vec<PieceIndex>,
    ) -> Scan {
        debug_assert!(!self.stale);
        let class = &mut self.classes[class];
        while class.buckets.get(class.rarest).is_some_and(Vec::is_empty) {
            class.rarest += 1;
        }
        let from = if target.have.is_full() { class.rarest } else { class.rarest.max(1) };
        let levels = (from..class.buckets.len()).chain(class.rarest..from);
        let mut budget = SCAN + target.count * SCAN_PER_PIECE;
        for level in levels {
            let Some(left) = budget.checked_sub(1) else { return Scan::GaveUp };
            budget = left;
            let bucket = match class.buckets.get(level) {
                Some(bucket) if !bucket.is_empty() => bucket,
                _ => continue,
            };
            for &piece in target.suggested {
                let equal = availability.get(piece.idx()).is_some_and(|n| usize::from(*n) == level);
                if equal && class.members.has(piece) && target.have.has(piece) && !found.contains(&piece) {
                    found.push(piece);
                    if found.len() == target.count {
                        return Scan::Enough;
                    }
                }
            }
            // A few throws of the dice first: whoever goes on from a random place to the next that will do takes those
            // behind a gap more often than others, and so do all the others.
            for _ in 0..(THROWS * target.count).min(bucket.len()) {
                let piece = bucket[rng.usize(..bucket.len())];
                if target.have.has(piece) && !found.contains(&piece) {
                    found.push(piece);
                    if found.len() == target.count {
                        return Scan::Enough;
                    }
                }
            }
            let (last, first) = bucket.split_at(rng.usize(..bucket.len()));
            for &piece in first.iter().chain(last) {
                let Some(left) = budget.checked_sub(1) else { return Scan::GaveUp };
                budget = left;
                if target.have.has(piece) && !found.contains(&piece) {
                    found.push(piece);
                    if found.len() == target.count {
                        return Scan::Enough;
                    }
                }
            }
        }
        Scan::Everything
    }

    /// Adds to `found` the rarest of some pieces of `class` that the peer has, or any of them if `availability` is
    /// `None`. Finds something if there is something: it goes through the peer's own pieces.
    pub(super) fn sample(
        &self,
        class: usize,
        target: Target<'_>,
        availability: Option<&[u16]>,
        rng: &mut Rng,
        found: &mut Vec<PieceIndex>,
    ) {
        let Class { members, .. } = &self.classes[class];
        let start = rng.u32(..members.len().max(1));
        let theirs = members.and_from(target.have, start);
        let Some(availability) = availability else {
            found.extend(theirs.take(target.count));
            return;
        };
        let key = |piece: PieceIndex| {
            let level = availability.get(piece.idx()).copied().unwrap_or(0);
            (level, !target.suggested.contains(&piece))
        };
        let suggested = target.suggested.iter().copied();
        let suggested = suggested.filter(|piece| members.has(*piece) && target.have.has(*piece));
        let from = found.len();
        found.extend(suggested);
        found.extend(theirs.take(SAMPLE + target.count * SAMPLE_PER_PIECE));
        if let Some(sample) = found.get_mut(from..) {
            // Among equals in the order of the search, which began at a random piece.
            sample.sort_unstable_by_key(|piece| (key(*piece), piece.get().wrapping_sub(start)));
        }
        // A suggested piece may have come twice.
        found.dedup();
        found.truncate(from + target.count);
    }

    /// Adds to `found` the first pieces of `class`, from number `from` on, that the peer has.
    pub(super) fn lowest(&mut self, class: usize, target: Target<'_>, from: u32, found: &mut Vec<PieceIndex>) {
        let Class { members, first, .. } = &mut self.classes[class];
        *first = members.and_from(members, *first).next().map_or(members.len(), PieceIndex::get);
        let from = from.max(*first);
        if from < members.len() {
            let theirs = members.and_from(target.have, from).take_while(|piece| piece.get() >= from);
            found.extend(theirs.take(target.count));
        }
    }

    /// Where the longest gap of `class` begins that `have` can fill: pieces side by side that nobody was asked for. Looks
    /// from number `from` on; the first gap of `enough` pieces is long enough.
    pub(super) fn gap(&self, class: usize, have: &Bitfield, from: u32, enough: u32) -> Option<PieceIndex> {
        let members = &self.classes[class].members;
        // The first piece of a gap, and how many it has.
        let mut best: Option<(PieceIndex, u32)> = None;
        let mut gap = None;
        for piece in members.and_from(have, from).take(SCAN_GAPS) {
            let (first, len) = match gap {
                Some((first, len)) if PieceIndex::get(first) + len == piece.get() => (first, len + 1),
                _ => (piece, 1),
            };
            if best.is_none_or(|(_, longest)| len > longest) {
                best = Some((first, len));
            }
            if len >= enough {
                break;
            }
            gap = Some((first, len));
        }
        best.map(|(first, _)| first)
    }

    /// Panics unless the buckets hold exactly the members, each where it belongs.
    #[cfg(test)]
    pub(super) fn check(&self, availability: &[u16]) {
        for class in &self.classes {
            assert!(class.members.iter().all(|piece| piece.get() >= class.first));
            if self.stale {
                continue;
            }
            assert_eq!(class.buckets.iter().map(Vec::len).sum::<usize>(), class.members.count() as usize);
            for (level, bucket) in class.buckets.iter().enumerate() {
                assert!(bucket.is_empty() || level >= class.rarest);
                for (at, piece) in bucket.iter().enumerate() {
                    assert!(class.members.has(*piece));
                    assert_eq!(usize::from(availability[piece.idx()]), level);
                    assert_eq!(self.place[piece.idx()] as usize, at);
                }
            }
        }
    }
}

impl Class {
    fn push(&mut self, place: &mut [u32], piece: PieceIndex, level: usize) {
        file(&mut self.buckets, place, piece, level);
        self.rarest = self.rarest.min(level);
    }

    fn take(&mut self, place: &mut [u32], piece: PieceIndex, level: usize) {
        let at = place[piece.idx()] as usize;
        let bucket = &mut self.buckets[level];
        debug_assert_eq!(bucket.get(at), Some(&piece));
        bucket.swap_remove(at);
        if let Some(moved) = bucket.get(at) {
            place[moved.idx()] = number(at);
        }
        trim(bucket);
    }
}

fn file(buckets: &mut Vec<Vec<PieceIndex>>, place: &mut [u32], piece: PieceIndex, level: usize) {
    if buckets.len() <= level {
        buckets.resize_with(level + 1, Vec::new);
    }
    let bucket = &mut buckets[level];
    place[piece.idx()] = number(bucket.len());
    bucket.push(piece);
}

/// Pieces wander through the buckets as the swarm grows: a bucket that keeps the room of its best days would cost as
/// much memory as all pieces, and there are as many buckets as peers.
fn trim(bucket: &mut Vec<PieceIndex>) {
    if bucket.capacity() > SPARE && bucket.capacity() / 4 > bucket.len() {
        bucket.shrink_to(bucket.len() * 2);
    }
}

fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
