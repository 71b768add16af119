//! Which pieces may be claimed.

use crate::base::{Bitfield, PieceIndex};

/// The pieces that outlive a loss of power. Written is not enough: what the system has not synced may vanish, in any
/// order, and after a sync that failed the system may have dropped it and say that all is well the next time.
///
/// ```text
/// begin(have) ──► the files are synced ──► done     what was had at `begin` lasts, and may be claimed
///                                     └──► failed   what does not last yet is to be hashed again, from the disk
/// ```
///
/// Only what [`Ledger::lasting`] says is written into resume data.
#[derive(Clone, Debug)]
pub struct Ledger {
    lasting: Bitfield,
    syncing: Option<Bitfield>,
}

impl Ledger {
    /// Of a torrent of which `lasting` is known to be on the disk: what resume data claimed, say, that held.
    pub fn new(lasting: Bitfield) -> Self {
        Self { lasting, syncing: None }
    }

    /// The pieces that may be claimed.
    pub fn lasting(&self) -> &Bitfield {
        &self.lasting
    }

    /// A sync of all files begins. `have` are the pieces that are verified and whose write has returned.
    pub fn begin(&mut self, have: &Bitfield) {
        self.syncing = Some(have.clone());
    }

    /// The sync that began last went well.
    pub fn done(&mut self) {
        for piece in self.syncing.take().iter().flat_map(Bitfield::iter) {
            self.lasting.set(piece);
        }
    }

    /// It did not. Returns the pieces of `have` that are unknown now.
    pub fn failed(&mut self, have: &Bitfield) -> Vec<PieceIndex> {
        self.syncing = None;
        have.and_not(&self.lasting).collect()
    }

    /// A piece is not there any more.
    pub fn lost(&mut self, piece: PieceIndex) {
        self.lasting.clear(piece);
        if let Some(syncing) = &mut self.syncing {
            syncing.clear(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Geometry;

    #[test]
    fn only_what_was_synced() {
        let geometry = Geometry::new(4 << 14, 1 << 14).unwrap();
        let piece = |n| geometry.piece(n).unwrap();
        let mut have = Bitfield::new(4);
        have.set(piece(0));
        let mut ledger = Ledger::new(have.clone());
        have.set(piece(1));
        ledger.begin(&have);
        // Comes while the sync is under way, which may not have seen it.
        have.set(piece(2));
        assert_eq!(ledger.lasting().iter().collect::<Vec<_>>(), [piece(0)]);
        ledger.done();
        assert_eq!(ledger.lasting().iter().collect::<Vec<_>>(), [piece(0), piece(1)]);
        ledger.begin(&have);
        ledger.lost(piece(1));
        have.clear(piece(1));
        have.set(piece(3));
        assert_eq!(ledger.failed(&have), [piece(2), piece(3)]);
        ledger.done();
        assert_eq!(ledger.lasting().iter().collect::<Vec<_>>(), [piece(0)]);
    }
}
