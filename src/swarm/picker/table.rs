use rustc_hash::FxHashMap;

use super::CLASSES;
use super::open::{OpenPiece, Place, Shelf};
use crate::base::{PeerKey, PieceIndex};

/// All open pieces, those with free blocks on shelves.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Option<OpenPiece>>,
    vacant: Vec<u32>,
    by_piece: FxHashMap<PieceIndex, u32>,
    shelves: [Vec<u32>; 3],
    /// How many pieces of each class stand on shelves.
    ready: [u32; CLASSES],
    /// Blocks that are on their way, in all pieces.
    asked: usize,
    /// Blocks that have not come, in all pieces.
    missing: usize,
    /// Pieces opened so far.
    opened: u64,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.by_piece.len()
    }

    /// How many pieces of `class` have free blocks.
    pub(super) fn ready(&self, class: usize) -> u32 {
        self.ready[class]
    }

    /// Blocks that are on their way.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// Blocks that have not come.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// Pieces opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    pub(super) fn slot(&self, piece: PieceIndex) -> Option<u32> {
        self.by_piece.get(&piece).copied()
    }

    pub(super) fn at(&self, slot: u32) -> Option<&OpenPiece> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn find(&self, piece: PieceIndex) -> Option<&OpenPiece> {
        self.at(self.slot(piece)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &OpenPiece> {
        self.slots.iter().flatten()
    }

    pub(super) fn shelf(&self, shelf: Shelf) -> impl Iterator<Item = (u32, &OpenPiece)> {
        self.shelves[shelf as usize].iter().filter_map(|slot| Some((*slot, self.at(*slot)?)))
    }

    /// Opens `piece`, of which nobody was asked for anything.
    pub(super) fn open(&mut self, piece: PieceIndex, class: usize, blocks: u32, exclusive: bool) -> u32 {
        self.opened += 1;
        let open = OpenPiece::new(piece, class, blocks, exclusive, self.opened);
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.missing += open.missing() as usize;
        self.slots[slot as usize] = Some(open);
        self.by_piece.insert(piece, slot);
        self.update(slot, |_| ());
        slot
    }

    /// Takes `piece` out.
    pub(super) fn close(&mut self, piece: PieceIndex) -> Option<OpenPiece> {
        let slot = self.by_piece.remove(&piece)?;
        self.unshelve(slot);
        let open = self.slots.get_mut(slot as usize)?.take()?;
        self.asked -= open.asked() as usize;
        self.missing -= open.missing() as usize;
        self.vacant.push(slot);
        Some(open)
    }

    /// Changes an open piece and puts it where it then belongs.
    pub(super) fn update<R: Default>(&mut self, slot: u32, change: impl FnOnce(&mut OpenPiece) -> R) -> R {
        let Some(Some(open)) = self.slots.get_mut(slot as usize) else { return R::default() };
        let (asked, missing) = (open.asked() as usize, open.missing() as usize);
        let result = change(open);
        self.missing = self.missing + open.missing() as usize - missing;
        self.asked = self.asked + open.asked() as usize - asked;
        let belongs = open.shelf();
        if belongs != open.shelved().map(|place| (place.shelf, place.class)) {
            self.unshelve(slot);
            if let Some((shelf, class)) = belongs {
                self.shelve(slot, shelf, class);
            }
        }
        result
    }

    fn shelve(&mut self, slot: u32, shelf: Shelf, class: usize) {
        let Some(Some(open)) = self.slots.get_mut(slot as usize) else { return };
        let row = &mut self.shelves[shelf as usize];
        open.set_shelved(Some(Place { shelf, class, position: u32::try_from(row.len()).unwrap_or(u32::MAX) }));
        row.push(slot);
        self.ready[class] += 1;
    }

    fn unshelve(&mut self, slot: u32) {
        let Some(Some(open)) = self.slots.get_mut(slot as usize) else { return };
        let Some(place) = open.shelved() else { return };
        open.set_shelved(None);
        self.ready[place.class] -= 1;
        let row = &mut self.shelves[place.shelf as usize];
        row.swap_remove(place.position as usize);
        if let Some(moved) = row.get(place.position as usize).copied()
            && let Some(Some(moved)) = self.slots.get_mut(moved as usize)
            && let Some(there) = moved.shelved()
        {
            moved.set_shelved(Some(Place { position: place.position, ..there }));
        }
    }

    /// `peer` is gone, or serves us no more: what it had for itself is for all.
    pub(super) fn disown(&mut self, piece: PieceIndex, peer: PeerKey) {
        if let Some(slot) = self.slot(piece) {
            self.update(slot, |open| {
                if open.owner() == Some(peer) {
                    open.set_owner(None);
                }
            });
        }
    }

    /// Panics unless everything stands where it belongs.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.slots.iter().flatten().count(), self.by_piece.len());
        let mut ready = [0; CLASSES];
        for (slot, open) in self.slots.iter().enumerate() {
            let Some(open) = open else { continue };
            open.check();
            assert_eq!(self.slot(open.piece()), u32::try_from(slot).ok());
            assert_eq!(open.shelf(), open.shelved().map(|place| (place.shelf, place.class)));
            if let Some(place) = open.shelved() {
                assert_eq!(self.shelves[place.shelf as usize][place.position as usize] as usize, slot);
                ready[place.class] += 1;
            }
        }
        assert_eq!(self.ready, ready);
        assert_eq!(self.shelves.iter().map(|shelf| shelf.len()).sum::<usize>(), ready.iter().sum::<u32>() as usize);
        assert_eq!(self.missing, self.iter().map(|open| open.missing() as usize).sum::<usize>());
        assert_eq!(self.asked, self.iter().map(|open| open.asked() as usize).sum::<usize>());
    }
}
