use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::open::{OpenPiece, Shelf};
use super::order::{Scan, Target};
use super::{CLASSES, Picker};
use crate::base::{Bitfield, Block, PeerKey, PieceIndex};

/// Suggested and allowed pieces that are considered: a stranger may name any number, ten of each are usual (BEP 6).
const HINTS: usize = 64;

/// Until we have so many pieces any will do, and quickly: one that everybody wants is had at once from nobody.
const FIRST_PIECES: u32 = 4;

/// So many times as fast as the owner of a piece that failed before a peer must be to take it over.
const MUCH_FASTER: u64 = 4;

/// When the search by rarity gave up on a peer, so many searches go through the peer's own pieces at once.
const SPARSE: u8 = 32;

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
    /// How many blocks the pieces may have, all together, that are opened for it: what the memory for blocks allows.
    /// A piece that has more is not opened.
    pub may_open: usize,
    /// A fast peer gets pieces of its own, slow ones share: so that a piece does not wait for its slowest block. Fast is
    /// who can send a piece in some ten seconds, or is not much slower than the others.
    pub fast: bool,
    /// Bytes per second that it sends, 0 while that is not known.
    pub rate: u64,
}

/// One call of [`Picker::pick`].
#[derive(Debug)]
pub(super) struct Turn<'a, 'o> {
    pub(super) ask: &'a Ask<'a>,
    /// Blocks that are still to be found.
    pub(super) left: usize,
    pub(super) may_open: usize,
    /// A piece was not opened because it is too large for `may_open`.
    pub(super) cramped: bool,
    /// Pieces opened before it: what it opens itself it may not go on with, or the room would not suffice.
    opened: u64,
    allowed: Option<&'a [PieceIndex]>,
    /// Others that stand for the same source: nothing is asked of both.
    pub(super) kin: &'a [PeerKey],
    pub(super) out: &'o mut Vec<Block>,
}

/// How near an open piece is to a peer; the least is asked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Near {
    /// Another has it for itself.
    foreign: bool,
    shelf: Shelf,
    /// The lowest in sequential mode, else the oldest.
    tie: u64,
    slot: u32,
}

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
        let mut turn = self.begin(ask, out);
        if turn.left == 0 {
            return;
        }
        if let Some(allowed) = turn.allowed {
            self.pick_allowed(&mut turn, allowed);
        } else if !self.is_idle(ask) {
            if self.sequential {
                self.pick_in_sequence(&mut turn);
            } else {
                self.pick_current(&mut turn);
                self.pick_nearest(&mut turn);
            }
            if turn.left > 0 {
                self.note_idle(&turn);
            }
        }
        if turn.left > 0 {
            self.pick_again(&mut turn);
        }
    }

    pub(super) fn begin<'a, 'o>(&mut self, ask: &'a Ask<'a>, out: &'o mut Vec<Block>) -> Turn<'a, 'o> {
        if let Some(gone) = self.asks.squatter(ask.peer) {
            debug_assert!(false, "{gone:?} was never released");
            self.release_peer(gone);
        }
        let work = self.asks.work(ask.peer);
        (work.fast, work.rate) = (ask.fast, ask.rate);
        let allowed = ask.allowed.map(|allowed| allowed.get(..HINTS).unwrap_or(allowed));
        let opened = self.table.opened();
        let cramped = ask.may_open == 0 && (0..CLASSES).any(|class| self.order.count(class) > 0);
        Turn { ask, left: ask.count, may_open: ask.may_open, cramped, opened, allowed, kin: &[], out }
    }

    /// Remembers that there is nothing left to ask a peer for, if that is not for want of room.
    pub(super) fn note_idle(&mut self, turn: &Turn<'_, '_>) {
        if turn.may_open > 0 && !turn.cramped {
            let idle = Some((self.arrivals, turn.ask.have.count()));
            self.asks.work(turn.ask.peer).idle = idle;
        }
    }

    /// Whether nothing has changed for a peer since nothing was left to ask it for. Otherwise, towards the end, each of
    /// hundreds of peers would look through all its pieces in vain, with each block that comes.
    pub(super) fn is_idle(&mut self, ask: &Ask<'_>) -> bool {
        let now = (self.arrivals, ask.have.count());
        self.asks.work(ask.peer).idle == Some(now)
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
            self.take(slot, turn);
        }
    }

    /// Within each class what is under way and shared with the like of this peer, unless something rarer is new; then what
    /// is new, then what others have for themselves. Rarity comes first because the line of a lone seeder is the bottleneck
    /// of its swarm: there, finishing a piece that others have by now would cost a piece that nobody has. The last is looked for only when the rest did not suffice: there may be as many as fast peers.
    fn pick_nearest(&mut self, turn: &mut Turn<'_, '_>) {
        let slow = !turn.ask.fast;
        for class in 0..CLASSES {
            if turn.left > 0 && self.table.ready(class) > 0 {
                let rarest = self.rarest_new(class, turn);
                self.pick_shelves(turn, |open, shelf, availability| {
                    let alike = shelf == Shelf::Loose || (slow && shelf == Shelf::Shared && !open.is_exclusive());
                    alike && open.class() == Some(class) && rarest.is_none_or(|rarest| availability <= rarest)
                });
            }
            if turn.left > 0 {
                self.open_rarest(class, turn);
            }
            if turn.left > 0 && self.table.ready(class) > 0 {
                let peer = turn.ask.peer;
                self.pick_shelves(turn, |open, _, _| {
                    open.class() == Some(class) && (!open.is_exclusive() || open.owner() == Some(peer))
                });
            }
            if turn.left == 0 {
                return;
            }
        }
        // What should come from a single peer: better from another one than not at all.
        if !turn.cramped {
            self.pick_shelves(turn, |open, _, _| open.is_exclusive());
        }
    }

    /// How rare the rarest piece is that could be opened, if one may be.
    fn rarest_new(&mut self, class: usize, turn: &Turn<'_, '_>) -> Option<u16> {
        if turn.may_open == 0 || self.have.count() < FIRST_PIECES || self.order.count(class) == 0 {
            return None;
        }
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        self.search(class, turn, &mut found);
        let rarest = found.first().map(|piece| self.availability.of(*piece));
        self.found = found;
        rarest
    }

    /// Free blocks of open pieces that the peer has and that are `eligible`: by shelf and by how many peers have them.
    pub(super) fn pick_shelves(&mut self, turn: &mut Turn<'_, '_>, eligible: impl Fn(&OpenPiece, Shelf, u16) -> bool) {
        let mut near = std::mem::take(&mut self.near);
        for shelf in Shelf::ALL {
            for (slot, open) in self.table.shelf(shelf) {
                let rarity = self.availability.of(open.piece());
                if open.opened() <= turn.opened
                    && eligible(open, shelf, rarity)
                    && turn.ask.have.has(open.piece())
                    && self.may_join(open, turn.ask)
                {
                    let foreign = open.owner() != Some(turn.ask.peer);
                    near.push(Reverse(if self.sequential {
                        Near { foreign: false, shelf: Shelf::Loose, tie: open.piece().get().into(), slot }
                    } else {
                        Near { foreign, shelf, tie: open.opened(), slot }
                    }));
                }
            }
        }
        let mut nearest = BinaryHeap::from(near);
        while turn.left > 0
            && let Some(Reverse(open)) = nearest.pop()
        {
            self.take(open.slot, turn);
        }
        self.near = nearest.into_vec();
        self.near.clear();
    }

    /// Whether a peer may be asked for blocks of an open piece as far as others are concerned: one that failed before is
    /// left to its owner, or nobody would ever know who spoils it. Unless the owner is so slow that all would wait for it.
    pub(super) fn may_join(&self, open: &OpenPiece, ask: &Ask<'_>) -> bool {
        match open.owner() {
            Some(owner) if open.is_exclusive() && owner != ask.peer => match (self.asks.rate(owner), ask.rate) {
                (0, rate) => rate == 0,
                (theirs, rate) => theirs.saturating_mul(MUCH_FASTER) <= rate,
            },
            _ => true,
        }
    }

    /// Opens pieces of `class`, the rarest first.
    fn open_rarest(&mut self, class: usize, turn: &mut Turn<'_, '_>) {
        let mut found = std::mem::take(&mut self.found);
        while turn.left > 0 && turn.may_open > 0 && self.order.count(class) > 0 {
            found.clear();
            let scan = self.search(class, turn, &mut found);
            for piece in found.drain(..) {
                self.open(piece, class, turn);
            }
            // What did not fit would be found again and again.
            if scan == Scan::Everything || turn.cramped {
                break;
            }
        }
        self.found = found;
    }

    /// Missing pieces of `class`: the rarest, unless it is too early for that, or the peer has little of what is rare.
    fn search(&mut self, class: usize, turn: &Turn<'_, '_>, found: &mut Vec<PieceIndex>) -> Scan {
        let target = self.target(turn);
        let availability = self.availability.each();
        let (order, rng) = (&mut self.order, &mut self.rng);
        let work = self.asks.work(turn.ask.peer);
        let any = self.have.count() < FIRST_PIECES;
        if !any && work.sparse == 0 {
            order.settle(availability);
            let scan = order.rarest(class, target, availability, rng, found);
            if scan == Scan::GaveUp {
                work.sparse = SPARSE;
            }
            return scan;
        }
        work.sparse = work.sparse.saturating_sub(1);
        order.sample(class, target, (!any).then_some(availability), rng, found);
        if found.is_empty() { Scan::Everything } else { Scan::Enough }
    }

    fn target<'a>(&self, turn: &Turn<'a, '_>) -> Target<'a> {
        let blocks = self.geometry.piece_length().div_ceil(crate::base::BLOCK_LEN).max(1);
        let count = turn.left.min(turn.may_open).div_ceil(blocks as usize);
        let suggested = turn.ask.suggested;
        Target { have: turn.ask.have, suggested: suggested.get(..HINTS).unwrap_or(suggested), count }
    }

    /// The lowest pieces first, open or not.
    fn pick_in_sequence(&mut self, turn: &mut Turn<'_, '_>) {
        let mut found = std::mem::take(&mut self.found);
        for class in 0..CLASSES {
            let mut from = 0;
            while turn.left > 0 && turn.may_open > 0 {
                found.clear();
                let target = self.target(turn);
                self.order.lowest(class, target, from, &mut found);
                if found.is_empty() {
                    break;
                }
                for piece in found.drain(..) {
                    self.pick_below(class, Some(piece), turn);
                    self.open(piece, class, turn);
                    from = piece.get() + 1;
                }
                if turn.cramped {
                    break;
                }
            }
            self.pick_below(class, None, turn);
        }
        self.found = found;
    }

    /// Free blocks of the open pieces of `class` below `limit`.
    fn pick_below(&mut self, class: usize, limit: Option<PieceIndex>, turn: &mut Turn<'_, '_>) {
        if turn.left > 0 && self.table.ready(class) > 0 {
            self.pick_shelves(turn, |open, _, _| {
                open.class() == Some(class) && limit.is_none_or(|limit| open.piece() < limit)
            });
        }
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
                Some(slot) => self.take(slot, turn),
                None => self.open(piece, class, turn),
            }
        }
    }

    /// Opens a missing piece for the peer, if there is room for all of it.
    pub(super) fn open(&mut self, piece: PieceIndex, class: usize, turn: &mut Turn<'_, '_>) {
        if turn.left == 0 || !self.order.contains(class, piece) {
            return;
        }
        let blocks = self.geometry.block_count(piece);
        if blocks as usize > turn.may_open {
            turn.cramped = true;
            return;
        }
        turn.may_open -= blocks as usize;
        self.order.remove(class, piece, self.availability.of(piece));
        let exclusive = self.suspects.contains(&piece);
        let slot = self.table.open(piece, class, blocks, exclusive);
        self.take(slot, turn);
    }

    /// Asks for free blocks of an open piece.
    fn take(&mut self, slot: u32, turn: &mut Turn<'_, '_>) {
        let Turn { ask, .. } = *turn;
        let Some(piece) = self.table.at(slot).map(|open| open.piece()) else { return };
        let (geometry, asks) = (&self.geometry, &mut self.asks);
        let own = self.table.update(slot, |open| {
            let is_new = open.asked() == 0 || open.is_exclusive();
            let before = turn.left;
            while turn.left > 0 {
                let Some(number) = open.ask_next(ask.peer) else { break };
                asks.add(ask.peer, piece, number);
                if let Ok(block) = geometry.block(piece, number) {
                    turn.give(block);
                }
            }
            // Whoever is late with all that is left of it does not get it for itself: others would wait for it in vain.
            if is_new && turn.left < before {
                open.set_owner((ask.fast || open.is_exclusive()).then_some(ask.peer));
            }
            open.owner() == Some(ask.peer) || (open.owner().is_none() && !ask.fast)
        });
        if own {
            asks.work(ask.peer).current = Some(piece);
        }
    }
}
