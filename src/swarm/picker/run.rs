use super::open::Shelf;
use super::pick::{Ask, Turn};
use super::{CLASSES, Picker};
use crate::base::{BLOCK_LEN, Block, PeerKey, PieceIndex};

/// Blocks that a web seed takes over from others at once when nothing else is left: each may be a request of its own.
const TAKEN_OVER: usize = 64;

/// What a lane of a web seed is to be asked for: see [`Picker::pick_run`].
#[derive(Clone, Copy, Debug)]
pub struct RunAsk<'a> {
    /// As for a peer.
    pub ask: Ask<'a>,
    /// The other lanes of the web seed: it goes on with their pieces as with its own.
    pub kin: &'a [PeerKey],
    /// Where to begin, if nobody was asked for that piece yet: behind what it was asked for last.
    pub from: Option<PieceIndex>,
}

impl RunAsk<'_> {
    fn is_own(&self, owner: PeerKey) -> bool {
        owner == self.ask.peer || self.kin.contains(&owner)
    }
}

impl Picker {
    /// As [`Picker::pick`], for a server that best sends many blocks in a row: a piece that it has begun or that nobody
    /// goes on with, and then pieces side by side in a gap, a row of pieces that nobody was asked for. Peers choose by
    /// rarity, all over the torrent: in gaps the two meet least. What peers are busy with it takes last.
    ///
    /// All is of one class of priority. There may be less than could be asked for, but not nothing.
    pub fn pick_run(&mut self, run: &RunAsk<'_>, out: &mut Vec<Block>) {
        let mut turn = self.begin(&run.ask, out);
        turn.kin = run.kin;
        let count = turn.left;
        if count == 0 {
            return;
        }
        if !self.is_idle(&run.ask) {
            let found = (0..CLASSES).any(|class| self.pick_run_of(class, run, &mut turn));
            if !found && !turn.cramped {
                self.pick_shelves(&mut turn, |open, _, _| open.is_exclusive());
            }
            if turn.left == count {
                self.note_idle(&turn);
            }
        }
        if turn.left == count {
            turn.left = count.min(TAKEN_OVER);
            self.pick_again(&mut turn);
        }
    }

    /// True if something was found.
    fn pick_run_of(&mut self, class: usize, run: &RunAsk<'_>, turn: &mut Turn<'_, '_>) -> bool {
        let count = turn.left;
        if self.table.ready(class) > 0 {
            self.pick_shelves(turn, |open, shelf, _| {
                let free = match shelf {
                    Shelf::Loose => true,
                    Shelf::Shared => false,
                    Shelf::Owned => open.owner().is_some_and(|owner| run.is_own(owner)),
                };
                free && open.class() == Some(class)
            });
        }
        if turn.left > 0 && turn.may_open > 0 && self.order.count(class) > 0 {
            self.fill_gap(class, run, turn);
        }
        if turn.left == count && self.table.ready(class) > 0 {
            self.pick_shelves(turn, |open, _, _| open.class() == Some(class) && !open.is_exclusive());
        }
        turn.left < count
    }

    /// Opens missing pieces side by side.
    fn fill_gap(&mut self, class: usize, run: &RunAsk<'_>, turn: &mut Turn<'_, '_>) {
        let have = run.ask.have;
        let missing = |picker: &Self, piece: &PieceIndex| picker.order.contains(class, *piece) && have.has(*piece);
        let behind = turn.out.last().and_then(|last| self.geometry.piece(last.piece().get() + 1).ok());
        let hints = [behind, run.from].into_iter().flatten().filter(|_| !self.sequential);
        let hint = hints.into_iter().find(|piece| missing(self, piece));
        let blocks = self.geometry.piece_length().div_ceil(BLOCK_LEN).max(1) as usize;
        let enough = u32::try_from(turn.left.div_ceil(blocks)).unwrap_or(u32::MAX);
        let (from, enough) = if self.sequential { (0, 1) } else { (run.from.map_or(0, PieceIndex::get), enough) };
        let mut next = hint.or_else(|| self.order.gap(class, have, from, enough));
        while let Some(piece) = next.filter(|piece| turn.left > 0 && !turn.cramped && missing(self, piece)) {
            self.open(piece, class, turn);
            next = self.geometry.piece(piece.get() + 1).ok();
        }
    }
}
