use super::open::Shelf;
use super::order::{Scan, Search};
use super::{CLASSES, Picker};
use crate::base::{Bitfield, Block, PeerKey, PieceIndex};

/// Suggested and allowed pieces that are considered: a stranger may name any number, ten of each are usual (BEP 6).
const HINTS: usize = 64;

/// Until we have so many pieces any will do, and quickly: one that everybody wants is had at once from nobody.
const FIRST_PIECES: u32 = 4;

/// Who is to be asked, and for how much.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The peer.
    pub peer: PeerKey,
    /// What it has. It must have been counted ([`Picker::add_peer`]), or have everything.
    pub have: &'a Bitfield,
    /// While it chokes us: the pieces that we may ask for nevertheless (BEP 6). `None` when it does not choke us.
    pub allowed: Option<&'a [PieceIndex]>,
    /// Pieces that it would like to send, preferred among equals (BEP 6).
    pub suggested: &'a [PieceIndex],
    /// How many blocks at most.
    pub count: usize,
    /// How many of them may belong to pieces that nobody was asked for before: what the memory for blocks allows.
    pub may_open: usize,
    /// A fast peer gets pieces of its own, slow ones share: so that a piece does not wait for its slowest block. Fast is
    /// who can send a piece in some ten seconds, or is not much slower than the others.
    pub fast: bool,
}

/// One call of [`Picker::pick`].
#[derive(Debug)]
pub(super) struct Turn<'a, 'o> {
    pub(super) ask: &'a Ask<'a>,
    /// Blocks that are still to be found.
    pub(super) left: usize,
    may_open: usize,
    allowed: Option<&'a [PieceIndex]>,
    out: &'o mut Vec<Block>,
}

/// How near an open piece is to a peer; what is nearer is asked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Near {
    class: usize,
    step: u8,
    /// Its number in sequential mode, else when it was opened.
    tie: u64,
    slot: u32,
}

/// The peer has it for itself, or has taken it over.
const OWN: u8 = 0;
/// Nobody is asked for any of it.
const LOOSE: u8 = 1;
/// Slow peers share it, this one among them.
const ALIKE: u8 = 2;
/// Not open yet: where the pieces in order come in.
const NEW: u8 = 3;
/// Slow peers share it, and this one is fast.
const SLOWER: u8 = 4;
/// A fast peer has it for itself.
const FOREIGN: u8 = 5;

impl Turn<'_, '_> {
    pub(super) fn give(&mut self, block: Block) {
        self.out.push(block);
        self.left -= 1;
    }

    /// Whether the peer has the piece, and would send it.
    pub(super) fn may_have(&self, piece: PieceIndex) -> bool {
        self.ask.have.has(piece) && self.allowed.is_none_or(|allowed| allowed.contains(&piece))
    }
}

impl Picker {
    /// Chooses blocks for a peer, marks them as requested from it, and adds them to `out`.
    ///
    /// Higher priority comes first; within it pieces that are under way, as far as peers of this speed share them, then
    /// new ones, the rarest first, then what others have for themselves. In sequential mode the order is that of the
    /// pieces, whoever else is asked for them.
    pub fn pick(&mut self, ask: &Ask<'_>, out: &mut Vec<Block>) {
        if let Some(gone) = self.asks.squatter(ask.peer) {
            debug_assert!(false, "{gone:?} was never released");
            self.release_peer(gone);
        }
        self.asks.work(ask.peer).fast = ask.fast;
        let allowed = ask.allowed.map(|allowed| allowed.get(..HINTS).unwrap_or(allowed));
        let mut turn = Turn { ask, left: ask.count, may_open: ask.may_open, allowed, out };
        if turn.left == 0 {
            return;
        }
        if let Some(allowed) = allowed {
            self.pick_allowed(&mut turn, allowed);
        } else if self.sequential {
            self.pick_in_sequence(&mut turn);
        } else {
            self.pick_current(&mut turn);
            if turn.left > 0 {
                self.pick_nearest(&mut turn);
            }
        }
        if turn.left > 0 {
            self.pick_again(&mut turn);
        }
    }

    /// More of the piece that the peer was asked for last, which is nearly always what is wanted.
    fn pick_current(&mut self, turn: &mut Turn<'_, '_>) {
        let Some(piece) = self.asks.current(turn.ask.peer) else { return };
        let Some(slot) = self.table.slot(piece) else { return };
        let Some(open) = self.table.at(slot) else { return };
        let Some((shelf, class)) = open.shelf() else { return };
        let higher = (0..class).any(|class| self.order.count(class) + self.table.ready(class) > 0);
        let own = match shelf {
            Shelf::Loose => true,
            Shelf::Shared => !turn.ask.fast,
            Shelf::Owned => open.owner() == Some(turn.ask.peer),
        };
        if own && !higher && turn.ask.have.has(piece) {
            self.take(slot, turn.left, turn);
        }
    }

    fn pick_nearest(&mut self, turn: &mut Turn<'_, '_>) {
        let mut near = std::mem::take(&mut self.near);
        near.clear();
        let have = turn.ask.have;
        for shelf in Shelf::ALL {
            for (slot, open) in self.table.shelf(shelf).filter(|(_, open)| have.has(open.piece())) {
                let Some(class) = open.class() else { continue };
                let (class, step) = match shelf {
                    Shelf::Loose => (class, LOOSE),
                    Shelf::Owned if open.owner() == Some(turn.ask.peer) => (class, OWN),
                    // Not before nothing else is left.
                    _ if open.is_exclusive() => (CLASSES, FOREIGN),
                    Shelf::Shared if turn.ask.fast => (class, SLOWER),
                    Shelf::Shared => (class, ALIKE),
                    Shelf::Owned => (class, FOREIGN),
                };
                near.push(Near { class, step, tie: open.opened(), slot });
            }
        }
        near.sort_unstable();
        let mut next = near.iter().peekable();
        for class in 0..=CLASSES {
            while turn.left > 0
                && let Some(open) = next.next_if(|open| open.class == class && open.step < NEW)
            {
                self.take(open.slot, turn.left, turn);
            }
            if turn.left > 0 && class < CLASSES {
                self.open_rarest(class, turn);
            }
            while turn.left > 0
                && let Some(open) = next.next_if(|open| open.class == class)
            {
                self.take(open.slot, turn.left, turn);
            }
        }
        self.near = near;
    }

    /// Opens pieces of `class`, the rarest first.
    fn open_rarest(&mut self, class: usize, turn: &mut Turn<'_, '_>) {
        let mut found = std::mem::take(&mut self.found);
        let any = self.have.count() < FIRST_PIECES;
        let mut sample = any;
        while turn.left > 0 && turn.may_open > 0 && self.order.count(class) > 0 {
            found.clear();
            let search = self.search(turn);
            let last = if sample {
                let availability = (!any).then(|| self.availability.each());
                self.order.sample(class, search, availability, &mut self.rng, &mut found);
                found.is_empty()
            } else {
                let availability = self.availability.each();
                self.order.settle(availability);
                let scan = self.order.rarest(class, search, availability, &mut self.rng, &mut found);
                sample = scan == Scan::GaveUp;
                scan == Scan::Everything
            };
            for piece in found.drain(..) {
                self.open(piece, class, turn);
            }
            if last {
                break;
            }
        }
        self.found = found;
    }

    fn search<'a>(&self, turn: &Turn<'a, '_>) -> Search<'a> {
        let blocks = self.geometry.piece_length().div_ceil(crate::base::BLOCK_LEN).max(1);
        let count = turn.left.min(turn.may_open).div_ceil(blocks as usize);
        let suggested = turn.ask.suggested;
        Search { have: turn.ask.have, suggested: suggested.get(..HINTS).unwrap_or(suggested), count }
    }

    /// The lowest pieces first, open or not.
    fn pick_in_sequence(&mut self, turn: &mut Turn<'_, '_>) {
        let mut near = std::mem::take(&mut self.near);
        let mut found = std::mem::take(&mut self.found);
        near.clear();
        for shelf in Shelf::ALL {
            for (slot, open) in self.table.shelf(shelf).filter(|(_, open)| turn.ask.have.has(open.piece())) {
                if let Some(class) = open.class() {
                    near.push(Near { class, step: 0, tie: open.piece().get().into(), slot });
                }
            }
        }
        near.sort_unstable();
        let mut next = near.iter().peekable();
        for class in 0..CLASSES {
            let mut from = 0;
            while turn.left > 0 {
                found.clear();
                if turn.may_open > 0 {
                    let search = self.search(turn);
                    self.order.lowest(class, search, from, &mut found);
                }
                let exhausted = found.is_empty();
                for piece in found.drain(..) {
                    let lower = |open: &&Near| open.class == class && open.tie < piece.get().into();
                    while turn.left > 0
                        && let Some(open) = next.next_if(lower)
                    {
                        self.take(open.slot, turn.left, turn);
                    }
                    self.open(piece, class, turn);
                    from = piece.get() + 1;
                }
                if exhausted {
                    break;
                }
            }
            while turn.left > 0
                && let Some(open) = next.next_if(|open| open.class == class)
            {
                self.take(open.slot, turn.left, turn);
            }
        }
        (self.near, self.found) = (near, found);
    }

    /// Only what a peer sends although it chokes us.
    fn pick_allowed(&mut self, turn: &mut Turn<'_, '_>, allowed: &[PieceIndex]) {
        let mut pieces: Vec<(usize, bool, u16, PieceIndex)> = Vec::new();
        for &piece in allowed.iter().filter(|piece| turn.ask.have.has(**piece)) {
            let Some(class) = self.priority(piece).class() else { continue };
            let is_new = self.order.contains(class, piece);
            if is_new || self.table.slot(piece).is_some() {
                pieces.push((class, is_new, self.availability.of(piece), piece));
            }
        }
        pieces.sort_unstable();
        for (class, _, _, piece) in pieces {
            match self.table.slot(piece) {
                _ if turn.left == 0 => break,
                Some(slot) => self.take(slot, turn.left, turn),
                None => self.open(piece, class, turn),
            }
        }
    }

    /// Opens a missing piece for the peer.
    fn open(&mut self, piece: PieceIndex, class: usize, turn: &mut Turn<'_, '_>) {
        let limit = turn.left.min(turn.may_open);
        if limit == 0 || !self.order.contains(class, piece) {
            return;
        }
        self.order.remove(class, piece, self.availability.of(piece));
        let exclusive = self.suspects.contains(&piece);
        let slot = self.table.open(piece, class, self.geometry.block_count(piece), exclusive);
        let before = turn.left;
        self.take(slot, limit, turn);
        turn.may_open -= before - turn.left;
    }

    /// Asks for free blocks of an open piece.
    fn take(&mut self, slot: u32, limit: usize, turn: &mut Turn<'_, '_>) {
        let Turn { ask, .. } = *turn;
        let Some(piece) = self.table.at(slot).map(|open| open.piece()) else { return };
        let (geometry, asks) = (&self.geometry, &mut self.asks);
        let own = self.table.update(slot, |open| {
            if open.asked() == 0 {
                open.set_owner((ask.fast || open.is_exclusive()).then_some(ask.peer));
            }
            for _ in 0..limit.min(turn.left) {
                let Some(number) = open.ask_next(ask.peer) else { break };
                asks.add(ask.peer, piece, number);
                if let Ok(block) = geometry.block(piece, number) {
                    turn.give(block);
                }
            }
            open.owner() == Some(ask.peer) || (open.owner().is_none() && !ask.fast)
        });
        if own {
            asks.work(ask.peer).current = Some(piece);
        }
    }
}
