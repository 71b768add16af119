//! Which pieces the wanted files need, and which files a piece makes whole.

use std::ops::Range;

use crate::base::{Bitfield, Geometry, PieceIndex};
use crate::swarm::Priority;

/// One file's place in the torrent.
#[derive(Clone, Debug)]
struct Extent {
    /// Its number in the torrent.
    file: usize,
    wanted: bool,
    /// The pieces that hold a byte of it.
    pieces: Range<u32>,
}

/// The files of a torrent that hold bytes, in order of position.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    extents: Vec<Extent>,
    wanted_bytes: u64,
}

impl Selection {
    /// `files`: position, length and whether it is wanted, of each file in the torrent's order. Pad files are not wanted.
    pub(super) fn new(geometry: &Geometry, files: impl Iterator<Item = (u64, u64, bool)>) -> Self {
        let piece_length = u64::from(geometry.piece_length());
        let piece = |position: u64| u32::try_from(position / piece_length).unwrap_or(u32::MAX);
        let mut extents = Vec::new();
        let mut wanted_bytes = 0;
        for (file, (offset, length, wanted)) in files.enumerate() {
            if length > 0 {
                wanted_bytes += if wanted { length } else { 0 };
                extents.push(Extent { file, wanted, pieces: piece(offset)..piece(offset + length - 1) + 1 });
            }
        }
        Self { extents, wanted_bytes }
    }

    /// Bytes of the wanted files.
    pub(super) fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes
    }

    /// One entry per piece: pieces of no wanted file are skipped.
    pub(super) fn priorities(&self, geometry: &Geometry) -> Vec<Priority> {
        let mut priorities = vec![Priority::Skip; geometry.piece_count() as usize];
        for extent in self.extents.iter().filter(|e| e.wanted) {
            for piece in extent.pieces.clone() {
                if let Some(priority) = priorities.get_mut(piece as usize) {
                    *priority = Priority::Normal;
                }
            }
        }
        priorities
    }

    /// Whether `piece` holds a byte of a wanted file.
    pub(super) fn wants(&self, piece: PieceIndex) -> bool {
        self.files_in(piece).any(|e| e.wanted)
    }

    /// The wanted files that `piece`, now verified, made whole.
    pub(super) fn completed_by<'a>(&'a self, piece: PieceIndex, have: &'a Bitfield) -> impl Iterator<Item = usize> + 'a {
        let whole = |extent: &&Extent| {
            extent.wanted && extent.pieces.len() <= have.count() as usize && have.has_range(extent.pieces.clone())
        };
        self.files_in(piece).filter(whole).map(|e| e.file)
    }

    fn files_in(&self, piece: PieceIndex) -> impl Iterator<Item = &Extent> {
        let first = self.extents.partition_point(|e| e.pieces.end <= piece.get());
        self.extents[first..].iter().take_while(move |e| e.pieces.start <= piece.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_files() {
        // Pieces of 10: file 0 in 0..=1, file 1 in 1..=1, file 2 empty, file 3 in 2..=4.
        let g = Geometry::new(50, 10).unwrap();
        let files = [(0, 15, true), (15, 5, false), (20, 0, true), (20, 30, false)];
        let s = Selection::new(&g, files.into_iter());
        assert_eq!(s.wanted_bytes(), 15);
        let wanted: Vec<bool> = s.priorities(&g).iter().map(|p| *p != Priority::Skip).collect();
        assert_eq!(wanted, [true, true, false, false, false]);
        assert!(s.wants(g.piece(1).unwrap()) && !s.wants(g.piece(2).unwrap()));
        let mut have = Bitfield::new(5);
        have.set(g.piece(0).unwrap());
        assert_eq!(s.completed_by(g.piece(0).unwrap(), &have).count(), 0);
        have.set(g.piece(1).unwrap());
        assert_eq!(s.completed_by(g.piece(1).unwrap(), &have).collect::<Vec<_>>(), [0]);
    }
}
