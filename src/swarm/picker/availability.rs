use crate::base::{Bitfield, PieceIndex};

/// How many of the connected peers have each piece.
///
/// A peer that has everything is one number, not a million increments: it raises all pieces alike and so does not change
/// their order.
#[derive(Debug)]
pub(super) struct Availability {
    /// Peers counted piece by piece. No piece exceeds `partial`, so a piece never overflows.
    each: Vec<u16>,
    /// How many peers are counted piece by piece.
    partial: u16,
    /// Peers that had everything when they were counted.
    seeds: u32,
}

/// How one peer was counted: kept beside its bitfield, given back when it goes.
///
/// A peer may be counted as a seed and then lose a piece (BEP 54), or be counted piece by piece and become a seed: its
/// bitfield alone does not tell what has to be subtracted, this does. Neither `Clone` nor `Copy`, so that nobody is
/// subtracted twice.
#[derive(Debug)]
#[must_use = "without it the peer cannot be subtracted when it goes"]
pub struct Counted {
    how: How,
    /// Pieces that were added so far, to notice a bitfield that is not the one that was counted.
    pieces: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum How {
    AsSeed,
    ByPiece,
    /// One peer too many, or a bitfield of another torrent.
    Not,
}

/// What a change means for the order of the pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shift {
    /// Nothing moved relative to the others.
    None,
    /// Many pieces changed.
    Many,
    /// The pieces of this bitfield changed by one.
    Few,
}

/// Above this share of the torrent's pieces, sorting them all anew is cheaper than moving each.
const FEW: u32 = 32;

impl Availability {
    pub(super) fn new(pieces: usize) -> Self {
        Self { each: vec![0; pieces], partial: 0, seeds: 0 }
    }

    /// Peers that were counted piece by piece and have `piece`.
    pub(super) fn of(&self, piece: PieceIndex) -> u16 {
        self.each.get(piece.idx()).copied().unwrap_or(0)
    }

    pub(super) fn each(&self) -> &[u16] {
        &self.each
    }

    pub(super) fn seeds(&self) -> u32 {
        self.seeds
    }

    pub(super) fn add_peer(&mut self, have: &Bitfield) -> (Counted, Shift) {
        let pieces = have.count();
        let how = match self.partial.checked_add(1) {
            _ if have.len() as usize != self.each.len() => How::Not,
            _ if have.is_full() => {
                self.seeds += 1;
                How::AsSeed
            }
            Some(partial) => {
                self.partial = partial;
                How::ByPiece
            }
            None => How::Not,
        };
        if how != How::ByPiece {
            return (Counted { how, pieces }, Shift::None);
        }
        for piece in have.iter() {
            self.add(piece);
        }
        (Counted { how, pieces }, self.shift(pieces))
    }

    pub(super) fn remove_peer(&mut self, counted: &Counted, have: &Bitfield) -> Shift {
        match counted.how {
            How::Not => Shift::None,
            How::AsSeed => {
                self.seeds = self.seeds.saturating_sub(1);
                Shift::None
            }
            How::ByPiece => {
                debug_assert_eq!(counted.pieces, have.count(), "not the bitfield that was counted");
                self.partial = self.partial.saturating_sub(1);
                for piece in have.iter() {
                    self.subtract(piece);
                }
                self.shift(have.count())
            }
        }
    }

    /// True if the piece has moved.
    pub(super) fn add_have(&mut self, counted: &mut Counted, piece: PieceIndex) -> bool {
        if counted.how != How::ByPiece {
            return false;
        }
        debug_assert!((counted.pieces as usize) < self.each.len(), "more haves than pieces");
        counted.pieces += 1;
        self.add(piece);
        true
    }

    pub(super) fn remove_have(&mut self, counted: &mut Counted, piece: PieceIndex) -> Shift {
        match counted.how {
            How::Not => Shift::None,
            How::ByPiece => {
                counted.pieces = counted.pieces.saturating_sub(1);
                self.subtract(piece);
                Shift::Few
            }
            How::AsSeed => {
                // A seed no longer: from now on it is counted piece by piece.
                let Some(partial) = self.partial.checked_add(1) else { return Shift::None };
                self.partial = partial;
                self.seeds = self.seeds.saturating_sub(1);
                self.each.iter_mut().for_each(|n| *n = n.saturating_add(1));
                self.subtract(piece);
                *counted = Counted { how: How::ByPiece, pieces: counted.pieces.saturating_sub(1) };
                Shift::Many
            }
        }
    }

    fn add(&mut self, piece: PieceIndex) {
        if let Some(n) = self.each.get_mut(piece.idx()) {
            debug_assert!(*n < self.partial, "a piece counted twice for one peer");
            *n = n.saturating_add(1);
        }
    }

    fn subtract(&mut self, piece: PieceIndex) {
        if let Some(n) = self.each.get_mut(piece.idx()) {
            debug_assert!(*n > 0, "a piece that was never counted");
            *n = n.saturating_sub(1);
        }
    }

    fn shift(&self, changed: u32) -> Shift {
        match changed {
            0 => Shift::None,
            _ if changed as usize > self.each.len() / FEW as usize => Shift::Many,
            _ => Shift::Few,
        }
    }
}
