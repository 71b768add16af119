use crate::base::{PeerKey, PieceIndex};

/// A piece of which at least one block was asked for, block by block.
#[derive(Debug)]
pub(super) struct OpenPiece {
    piece: PieceIndex,
    /// Class of priority; `None` when the piece is not wanted any more.
    class: Option<usize>,
    blocks: Vec<BlockState>,
    /// Blocks that may be asked for: see [`BlockState::is_free`].
    free: u32,
    received: u32,
    /// No block below this is free.
    first_free: u32,
    /// The fast peer that has this piece for itself, as long as blocks are on their way.
    owner: Option<PeerKey>,
    /// The piece failed before: as far as possible all of it from one peer.
    exclusive: bool,
    /// Rises from piece to piece.
    opened: u64,
    /// Where it stands on its shelf.
    shelved: Option<Place>,
}

/// Where an open piece stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) shelf: Shelf,
    pub(super) class: usize,
    pub(super) position: u32,
}

/// One block of an open piece.
#[derive(Debug, Default)]
pub(super) enum BlockState {
    /// Nobody is asked.
    #[default]
    Free,
    /// One peer is asked: nearly always.
    Asked(Asker),
    /// Several are asked, or one is and another is late. Boxed, because it is rare and there are many blocks.
    Shared(Box<Askers>),
    /// It came from this peer.
    Received(PeerKey),
}

/// A peer that a block was asked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) peer: PeerKey,
    /// It took too long: others may be asked as if it were not, but what it sends is still taken.
    pub(super) late: bool,
}

#[derive(Debug)]
pub(super) struct Askers(Vec<Asker>);

/// Open pieces with free blocks, by who may have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shelf {
    /// Nobody is asked for any block of it.
    Loose,
    /// Slow peers share it.
    Shared,
    /// A peer has it for itself.
    Owned,
}

impl Shelf {
    pub(super) const ALL: [Self; 3] = [Self::Loose, Self::Shared, Self::Owned];
}

impl BlockState {
    pub(super) fn askers(&self) -> &[Asker] {
        match self {
            Self::Free | Self::Received(_) => &[],
            Self::Asked(asker) => std::slice::from_ref(asker),
            Self::Shared(askers) => &askers.0,
        }
    }

    /// Whether it is still to come, and no peer that is in time is asked for it.
    pub(super) fn is_free(&self) -> bool {
        match self {
            Self::Free => true,
            Self::Received(_) => false,
            _ => self.askers().iter().all(|asker| asker.late),
        }
    }

    pub(super) fn is_asked_from(&self, peer: PeerKey) -> bool {
        self.askers().iter().any(|asker| asker.peer == peer)
    }

    fn add(&mut self, peer: PeerKey) {
        let asker = Asker { peer, late: false };
        match self {
            Self::Shared(askers) => askers.0.push(asker),
            Self::Asked(first) => *self = Self::Shared(Box::new(Askers(vec![*first, asker]))),
            Self::Free | Self::Received(_) => *self = Self::Asked(asker),
        }
    }

    /// True if `peer` was asked.
    fn remove(&mut self, peer: PeerKey) -> bool {
        if !self.is_asked_from(peer) {
            return false;
        }
        if let Self::Shared(askers) = self {
            askers.0.retain(|asker| asker.peer != peer);
            if let [only] = askers.0[..] {
                *self = Self::Asked(only);
            }
        } else {
            *self = Self::Free;
        }
        true
    }

    /// True if `peer` was asked, and not late before.
    fn lapse(&mut self, peer: PeerKey) -> bool {
        let askers = match self {
            Self::Free | Self::Received(_) => &mut [],
            Self::Asked(asker) => std::slice::from_mut(asker),
            Self::Shared(askers) => &mut askers.0[..],
        };
        match askers.iter_mut().find(|asker| asker.peer == peer) {
            Some(asker) => !std::mem::replace(&mut asker.late, true),
            None => false,
        }
    }
}

impl OpenPiece {
    pub(super) fn new(piece: PieceIndex, class: usize, blocks: u32, exclusive: bool, opened: u64) -> Self {
        let states = std::iter::repeat_with(BlockState::default).take(blocks as usize).collect();
        let class = Some(class);
        let (received, first_free, owner, shelved) = (0, 0, None, None);
        Self { piece, class, blocks: states, free: blocks, received, first_free, owner, exclusive, opened, shelved }
    }

    pub(super) fn piece(&self) -> PieceIndex {
        self.piece
    }

    pub(super) fn class(&self) -> Option<usize> {
        self.class
    }

    pub(super) fn set_class(&mut self, class: Option<usize>) {
        self.class = class;
    }

    pub(super) fn blocks(&self) -> &[BlockState] {
        &self.blocks
    }

    pub(super) fn block(&self, number: u32) -> Option<&BlockState> {
        self.blocks.get(number as usize)
    }

    /// Blocks that may be asked for.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    pub(super) fn received(&self) -> u32 {
        self.received
    }

    /// Blocks that are on their way.
    pub(super) fn asked(&self) -> u32 {
        self.len().saturating_sub(self.free).saturating_sub(self.received)
    }

    /// Blocks that have not come.
    pub(super) fn missing(&self) -> u32 {
        self.len() - self.received
    }

    pub(super) fn is_full(&self) -> bool {
        self.received == self.len()
    }

    pub(super) fn owner(&self) -> Option<PeerKey> {
        self.owner
    }

    pub(super) fn set_owner(&mut self, owner: Option<PeerKey>) {
        self.owner = owner;
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    pub(super) fn shelved(&self) -> Option<Place> {
        self.shelved
    }

    pub(super) fn set_shelved(&mut self, shelved: Option<Place>) {
        self.shelved = shelved;
    }

    /// The shelf where it belongs, and its class.
    pub(super) fn shelf(&self) -> Option<(Shelf, usize)> {
        let class = self.class?;
        let shelf = match (self.free, self.asked(), self.owner) {
            (0, _, _) => return None,
            (_, 0, _) => Shelf::Loose,
            (_, _, Some(_)) => Shelf::Owned,
            (_, _, None) => Shelf::Shared,
        };
        Some((shelf, class))
    }

    /// Asks `peer` for the next free block that it is not late with, and says which.
    pub(super) fn ask_next(&mut self, peer: PeerKey) -> Option<u32> {
        while self.block(self.first_free).is_some_and(|block| !block.is_free()) {
            self.first_free += 1;
        }
        let numbers = self.first_free..self.len();
        let rest = self.blocks.get_mut(self.first_free as usize..)?;
        let (number, block) = numbers.zip(rest).find(|(_, block)| block.is_free() && !block.is_asked_from(peer))?;
        block.add(peer);
        self.free -= 1;
        Some(number)
    }

    /// Asks `peer` for a block that others were asked for before.
    pub(super) fn ask_too(&mut self, number: u32, peer: PeerKey) {
        if let Some(block) = self.blocks.get_mut(number as usize)
            && !block.askers().is_empty()
            && !block.is_free()
            && !block.is_asked_from(peer)
        {
            block.add(peer);
        }
    }

    /// `peer` will not send this block. True if it was asked for it.
    pub(super) fn unask(&mut self, number: u32, peer: PeerKey) -> bool {
        self.change(number, |block| block.remove(peer))
    }

    /// `peer` takes too long with this block. True if it was asked for it.
    pub(super) fn lapse(&mut self, number: u32, peer: PeerKey) -> bool {
        self.change(number, |block| block.lapse(peer))
    }

    fn change(&mut self, number: u32, change: impl FnOnce(&mut BlockState) -> bool) -> bool {
        let Some(block) = self.blocks.get_mut(number as usize) else { return false };
        let was_free = block.is_free();
        let changed = change(block);
        if !was_free && block.is_free() {
            self.free += 1;
            self.first_free = self.first_free.min(number);
        }
        changed
    }

    /// The block came from `peer`, which was asked for it: who else was asked.
    pub(super) fn receive(&mut self, number: u32, peer: PeerKey) -> Vec<PeerKey> {
        let Some(block) = self.blocks.get_mut(number as usize) else { return Vec::new() };
        if block.is_free() {
            self.free -= 1;
        }
        self.received += 1;
        let before = std::mem::replace(block, BlockState::Received(peer));
        before.askers().iter().map(|asker| asker.peer).filter(|other| *other != peer).collect()
    }

    fn len(&self) -> u32 {
        u32::try_from(self.blocks.len()).unwrap_or(u32::MAX)
    }

    /// Panics unless the counts are those of the blocks.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let count = |f: fn(&BlockState) -> bool| self.blocks.iter().filter(|block| f(block)).count();
        assert_eq!(self.free as usize, count(BlockState::is_free));
        assert_eq!(self.received as usize, count(|block| matches!(block, BlockState::Received(_))));
        assert!(self.blocks.iter().take(self.first_free as usize).all(|block| !block.is_free()));
        for block in &self.blocks {
            let askers = block.askers();
            assert!(askers.iter().enumerate().all(|(i, a)| askers[..i].iter().all(|b| a.peer != b.peer)));
            assert!(!matches!(block, BlockState::Shared(_)) || askers.len() >= 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one for each block of each open piece: hundreds of thousands.
    #[test]
    fn a_block_takes_sixteen_bytes() {
        assert_eq!(size_of::<BlockState>(), 16);
    }
}
