//! Which block to ask for next, for one torrent.
//!
//! For: availability and priority of every piece, the pieces under way and who was asked for which of their blocks.
//! Must not know: payload, buffers, connections, time; what a peer deserves (choker) or can take (request window).
//! Main types: [`Picker`], [`Ask`].
//! BEPs: 3 (rarest first, strict priority, endgame), 6 (suggested and allowed-fast pieces), 19 (gaps), 54 (donthave).
//!
//! A piece goes from *missing* to *open* with the first request for one of its blocks, is *full* when all of them came,
//! and *had* once it was verified. Missing pieces stand in an order by priority and rarity (`order.rs`), open ones on
//! shelves by who may take blocks from them (`table.rs`); how a request chooses among both is in `pick.rs`, for web
//! seeds in `run.rs`, and what happens when nothing is left to ask for in `endgame.rs`.

mod asks;
mod availability;
mod endgame;
mod open;
mod order;
mod pick;
mod run;
mod table;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use fastrand::Rng;
use rustc_hash::FxHashSet;

pub use availability::Counted;
pub use pick::Ask;
pub use run::RunAsk;

use self::asks::Asks;
use self::availability::{Availability, Shift};
use self::endgame::Endgame;
use self::open::BlockState;
use self::order::Order;
use self::pick::Near;
use self::table::Table;
use crate::base::{BLOCK_LEN, Bitfield, Block, Geometry, PeerKey, PieceIndex};

/// How much a piece is wanted. Higher ones are asked for first, however common they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Not at all: of a file that was not selected.
    Skip,
    /// After all others.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// Classes of wanted pieces, in the order in which they are asked for.
const CLASSES: usize = 3;

impl Priority {
    fn class(self) -> Option<usize> {
        match self {
            Self::Skip => None,
            Self::Low => Some(2),
            Self::Normal => Some(1),
            Self::High => Some(0),
        }
    }
}

/// How far a piece has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceState {
    /// Nobody was asked for any of it.
    Missing,
    /// Some of its blocks were asked for or came.
    Open,
    /// All its blocks came; it waits for its verdict.
    Full,
    /// Verified.
    Had,
}

/// What [`Picker::receive`] says about a block that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It was asked from this peer and is the first of its kind: to be kept.
    New {
        /// It was the last that its piece lacked: the piece is to be verified.
        piece_full: bool,
        /// Peers that were asked for it too: to be told by `cancel`.
        also_asked: Vec<PeerKey>,
    },
    /// It came before, from this or another peer, or its piece is had: to be dropped.
    Duplicate,
    /// This peer was not asked for it: to be dropped.
    Unwanted,
}

/// A piece under way, for those who look on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenStatus {
    /// Which piece.
    pub piece: PieceIndex,
    /// Blocks that nobody in time is asked for.
    pub free: u32,
    /// Blocks that are on their way.
    pub asked: u32,
    /// Blocks that came.
    pub received: u32,
    /// Rises in the order in which pieces were opened.
    pub opened: u64,
}

/// Which block to ask for next, for one torrent. See the module's description.
///
/// Whatever the calls and their order, no block is asked for that is had, received or of a skipped piece, and no block
/// twice from the same peer while it may still come.
#[derive(Debug)]
pub struct Picker {
    geometry: Geometry,
    have: Bitfield,
    /// Wanted and not had.
    lacking: Bitfield,
    priorities: Vec<Priority>,
    availability: Availability,
    /// Missing pieces that are wanted.
    order: Order,
    table: Table,
    asks: Asks,
    /// Pieces that failed once: next time from one peer, if possible, so that it is known whom to blame.
    suspects: FxHashSet<PieceIndex>,
    endgame: Endgame,
    sequential: bool,
    /// Rises when there may be something to ask a peer for that was not there before, new pieces of the peer apart.
    arrivals: u64,
    rng: Rng,
    /// Room that is kept from pick to pick.
    found: Vec<PieceIndex>,
    found_blocks: Vec<(PieceIndex, u32)>,
    near: Vec<Reverse<Near>>,
}

impl Picker {
    /// For a torrent of which we have `have`; everything else is wanted with [`Priority::Normal`].
    ///
    /// The same `seed` and the same calls lead to the same picks.
    pub fn new(geometry: Geometry, have: &Bitfield, seed: u64) -> Self {
        let pieces = geometry.piece_count();
        let all = Bitfield::full(pieces);
        let (mut had, mut lacking, mut order) = (Bitfield::new(pieces), Bitfield::new(pieces), Order::new(pieces));
        for piece in all.iter() {
            if have.has(piece) {
                had.set(piece);
            } else {
                lacking.set(piece);
                if let Some(class) = Priority::default().class() {
                    order.insert(class, piece, 0);
                }
            }
        }
        Self {
            endgame: Endgame::new(&geometry),
            geometry,
            have: had,
            lacking,
            priorities: vec![Priority::default(); pieces as usize],
            availability: Availability::new(pieces as usize),
            order,
            table: Table::default(),
            asks: Asks::default(),
            suspects: FxHashSet::default(),
            sequential: false,
            arrivals: 0,
            rng: Rng::with_seed(seed),
            found: Vec::new(),
            found_blocks: Vec::new(),
            near: Vec::new(),
        }
    }

    // What is wanted.

    /// Changes how much a piece is wanted.
    ///
    /// Blocks of a skipped piece that were asked for may still come, and are taken; no more are asked for. To be rid of
    /// what came already, see [`Picker::abandon`].
    pub fn set_priority(&mut self, piece: PieceIndex, priority: Priority) {
        let Some(place) = self.priorities.get_mut(piece.idx()) else { return };
        let before = std::mem::replace(place, priority);
        if before == priority || self.have.has(piece) {
            return;
        }
        self.arrivals += 1;
        if priority == Priority::Skip {
            self.lacking.clear(piece);
        } else {
            self.lacking.set(piece);
        }
        if let Some(slot) = self.table.slot(piece) {
            self.table.update(slot, |open| open.set_class(priority.class()));
            return;
        }
        let availability = self.availability.of(piece);
        if let Some(class) = before.class() {
            self.order.remove(class, piece, availability);
        }
        if let Some(class) = priority.class() {
            self.order.insert(class, piece, availability);
        }
    }

    /// The same for all pieces, in their order; those behind the end of the list stay as they are.
    pub fn set_priorities(&mut self, priorities: &[Priority]) {
        for (piece, priority) in self.geometry.pieces().zip(priorities) {
            self.set_priority(piece, *priority);
        }
    }

    /// How much a piece is wanted.
    pub fn priority(&self, piece: PieceIndex) -> Priority {
        self.priorities.get(piece.idx()).copied().unwrap_or(Priority::Skip)
    }

    /// Whether pieces are asked for from the first to the last, instead of the rarest first.
    pub fn set_sequential(&mut self, sequential: bool) {
        self.sequential = sequential;
    }

    // Who has what.

    /// Counts a peer. What it gets back belongs to `have`: both change together, by [`Picker::add_have`] and
    /// [`Picker::remove_have`], and go together into [`Picker::remove_peer`]. A seed costs O(1).
    pub fn add_peer(&mut self, have: &Bitfield) -> Counted {
        let (counted, shift) = self.availability.add_peer(have);
        self.follow(have, &shift, true);
        counted
    }

    /// Subtracts a peer that has gone. `have` is its bitfield as it is now.
    pub fn remove_peer(&mut self, counted: Counted, have: &Bitfield) {
        let shift = self.availability.remove_peer(&counted, have);
        self.follow(have, &shift, false);
    }

    /// A peer that was counted has one piece more: to be called when [`Bitfield::set`] on its bitfield was true.
    pub fn add_have(&mut self, counted: &mut Counted, piece: PieceIndex) {
        if self.availability.add_have(counted, piece) {
            self.moved(piece, true);
        }
    }

    /// A peer that was counted has one piece less (BEP 54): to be called when [`Bitfield::clear`] was true.
    pub fn remove_have(&mut self, counted: &mut Counted, piece: PieceIndex) {
        // It may yet get another one, and then have as many as before.
        self.arrivals += 1;
        match self.availability.remove_have(counted, piece) {
            Shift::None => {}
            Shift::Few => self.moved(piece, false),
            Shift::Many => self.order.spoil(),
        }
    }

    /// How many connected peers have `piece`.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        u32::from(self.availability.of(piece)) + self.availability.seeds()
    }

    fn follow(&mut self, have: &Bitfield, shift: &Shift, more: bool) {
        match shift {
            Shift::None => {}
            Shift::Many => self.order.spoil(),
            Shift::Few => have.iter().for_each(|piece| self.moved(piece, more)),
        }
    }

    /// One peer more or less has `piece`, and is counted already.
    fn moved(&mut self, piece: PieceIndex, more: bool) {
        let now = self.availability.of(piece);
        let before = if more { now.saturating_sub(1) } else { now.saturating_add(1) };
        if let Some(class) = self.priority(piece).class() {
            self.order.shift(class, piece, before, now);
        }
    }

    // How far we are.

    /// The pieces that are verified.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Whether all wanted pieces are had.
    pub fn is_complete(&self) -> bool {
        self.lacking.is_none()
    }

    /// Whether all pieces are had.
    pub fn is_seed(&self) -> bool {
        self.have.is_full()
    }

    /// How many pieces are wanted and not had.
    pub fn missing_wanted(&self) -> u32 {
        self.lacking.count()
    }

    /// Whether `piece` is wanted and not had.
    pub fn wants(&self, piece: PieceIndex) -> bool {
        self.lacking.has(piece)
    }

    /// Whether a peer with `theirs` has a piece that is wanted and not had.
    pub fn is_interesting(&self, theirs: &Bitfield) -> bool {
        self.witness(theirs).is_some()
    }

    /// A piece that makes a peer interesting. As long as [`Picker::wants`] it, the peer stays interesting: so the answer
    /// need not be searched again, through the whole bitfield, with each piece that we get.
    pub fn witness(&self, theirs: &Bitfield) -> Option<PieceIndex> {
        // The last, because in sequential mode it stays wanted longest.
        self.lacking.last_and(theirs)
    }

    /// How many of a peer's pieces are wanted and not had. O(pieces).
    pub fn interesting_count(&self, theirs: &Bitfield) -> u32 {
        self.lacking.count_and(theirs)
    }

    /// How far `piece` has come.
    pub fn state(&self, piece: PieceIndex) -> PieceState {
        match self.table.find(piece) {
            Some(open) if open.is_full() => PieceState::Full,
            Some(_) => PieceState::Open,
            None if self.have.has(piece) => PieceState::Had,
            None => PieceState::Missing,
        }
    }

    /// The pieces under way, full ones included, in no order.
    pub fn open_pieces(&self) -> impl Iterator<Item = OpenStatus> {
        self.table.iter().map(|open| OpenStatus {
            piece: open.piece(),
            free: open.free(),
            asked: open.asked(),
            received: open.received(),
            opened: open.opened(),
        })
    }

    /// How many pieces are under way, full ones included.
    pub fn open_count(&self) -> usize {
        self.table.len()
    }

    /// Blocks of all open pieces, whether they came or not: each costs some memory beside its payload.
    pub fn open_blocks(&self) -> usize {
        self.table.iter().map(|open| open.blocks().len()).sum()
    }

    /// Whether `piece` is under way again because it was bad, and is to come from one peer.
    pub fn is_exclusive(&self, piece: PieceIndex) -> bool {
        self.table.find(piece).is_some_and(|open| open.is_exclusive())
    }

    /// Blocks that have not come, of all open pieces: each will need a buffer.
    pub fn open_missing_blocks(&self) -> usize {
        self.table.missing()
    }

    /// Blocks that are on their way; those that only late peers were asked for are not counted.
    pub fn asked_count(&self) -> usize {
        self.table.asked()
    }

    /// Duplicate requests of endgame so far.
    pub fn duplicates(&self) -> u32 {
        self.endgame.duplicates()
    }

    // Who was asked for what.

    /// Whether `peer` was asked for `block`, and it is still to come.
    pub fn is_requested_by(&self, peer: PeerKey, block: Block) -> bool {
        self.block(block).is_some_and(|state| state.is_asked_from(peer))
    }

    /// Who was asked for block `number` of `piece`, and it is still to come; late peers included.
    pub fn requested_from(&self, piece: PieceIndex, number: u32) -> impl Iterator<Item = PeerKey> {
        let block = self.table.find(piece).and_then(|open| open.block(number));
        block.map_or(&[][..], BlockState::askers).iter().map(|asker| asker.peer)
    }

    /// What `peer` was asked for and has not sent, oldest first.
    pub fn requests_of(&self, peer: PeerKey) -> impl Iterator<Item = Block> {
        self.asks.of(peer).filter_map(|asked| self.geometry.block(asked.piece, asked.number).ok())
    }

    /// How many requests those are.
    pub fn asked_of(&self, peer: PeerKey) -> usize {
        self.asks.of(peer).len()
    }

    /// Who sent block `number` of a piece that is open or full.
    pub fn received_from(&self, piece: PieceIndex, number: u32) -> Option<PeerKey> {
        match self.table.find(piece)?.block(number)? {
            BlockState::Received(peer) => Some(*peer),
            _ => None,
        }
    }

    /// All who sent blocks of a piece that is open or full, each once. Blame begins here: to be asked before
    /// [`Picker::failed`].
    pub fn senders(&self, piece: PieceIndex) -> Vec<PeerKey> {
        let blocks = self.table.find(piece).map_or(&[][..], |open| open.blocks());
        let senders = blocks.iter().filter_map(|block| match block {
            BlockState::Received(peer) => Some(*peer),
            _ => None,
        });
        let mut senders: Vec<_> = senders.collect();
        senders.sort_unstable();
        senders.dedup();
        senders
    }

    fn block(&self, block: Block) -> Option<&BlockState> {
        // A range that begins or ends elsewhere is not what was asked for.
        let whole = block.begin().is_multiple_of(BLOCK_LEN)
            && (block.len() == BLOCK_LEN || block.begin() + block.len() == self.geometry.piece_len(block.piece()));
        if whole { self.table.find(block.piece())?.block(block.number()) } else { None }
    }

    // What became of requests.

    /// A block came from `peer`.
    pub fn receive(&mut self, peer: PeerKey, block: Block) -> Received {
        let (piece, number) = (block.piece(), block.number());
        match self.block(block) {
            _ if self.have.has(piece) => return Received::Duplicate,
            None => return Received::Unwanted,
            Some(BlockState::Received(_)) => return Received::Duplicate,
            Some(state) if !state.is_asked_from(peer) => return Received::Unwanted,
            Some(_) => {}
        }
        let Some(slot) = self.table.slot(piece) else { return Received::Unwanted };
        let also_asked = self.table.update(slot, |open| open.receive(number, peer));
        for asker in also_asked.iter().chain([&peer]) {
            self.asks.remove(*asker, piece, number);
        }
        let piece_full = self.table.at(slot).is_some_and(|open| open.is_full());
        Received::New { piece_full, also_asked }
    }

    /// `peer` will not send `block`: rejected, or cancelled by us. True if it was asked for it.
    pub fn release(&mut self, peer: PeerKey, block: Block) -> bool {
        if !self.is_requested_by(peer, block) {
            return false;
        }
        self.unask(peer, block.piece(), block.number());
        self.asks.remove(peer, block.piece(), block.number());
        if self.is_exclusive(block.piece()) {
            self.table.disown(block.piece(), peer);
        }
        true
    }

    /// `peer` serves us no more for now: pieces that were to come from it alone are for all.
    pub fn disown(&mut self, peer: PeerKey) {
        let owned = |open: &&open::OpenPiece| open.is_exclusive() && open.owner() == Some(peer);
        let owned: Vec<_> = self.table.iter().filter(owned).map(|open| open.piece()).collect();
        self.arrivals += u64::from(!owned.is_empty());
        owned.into_iter().for_each(|piece| self.table.disown(piece, peer));
    }

    /// `peer` will send nothing of what it was asked for: it closed, or choked us without the fast extension. Returns how
    /// many requests that were.
    pub fn release_peer(&mut self, peer: PeerKey) -> usize {
        self.disown(peer);
        let asked = self.asks.forget(peer);
        for asked in &asked {
            self.unask(peer, asked.piece, asked.number);
            self.table.disown(asked.piece, peer);
        }
        asked.len()
    }

    /// What `peer` was asked for should have come by now, it is snubbing us: others may be asked as if nobody were, but what
    /// does come from it is taken. Returns how many requests were not late before.
    pub fn lapse_peer(&mut self, peer: PeerKey) -> usize {
        self.arrivals += 1;
        self.disown(peer);
        let asked: Vec<_> = self.asks.of(peer).copied().collect();
        let mut lapsed = 0;
        for asked in asked {
            if let Some(slot) = self.table.slot(asked.piece) {
                lapsed += usize::from(self.table.update(slot, |open| open.lapse(asked.number, peer)));
            }
            self.table.disown(asked.piece, peer);
        }
        lapsed
    }

    fn unask(&mut self, peer: PeerKey, piece: PieceIndex, number: u32) {
        self.arrivals += 1;
        let Some(slot) = self.table.slot(piece) else { return };
        self.table.update(slot, |open| open.unask(number, peer));
        let askers = self.table.at(slot).and_then(|open| open.block(number)).map_or(&[][..], BlockState::askers);
        if let [only] = askers {
            self.asks.set_shared(only.peer, piece, number, false);
        }
    }

    // What became of pieces.

    /// `piece` is good and had, from whatever state. True if that is new.
    pub fn verified(&mut self, piece: PieceIndex) -> bool {
        if piece.idx() >= self.priorities.len() || self.have.has(piece) {
            return false;
        }
        self.close(piece);
        if let Some(class) = self.priority(piece).class() {
            self.order.remove(class, piece, self.availability.of(piece));
        }
        self.have.set(piece);
        self.lacking.clear(piece);
        self.suspects.remove(&piece);
        true
    }

    /// `piece` did not match its hash: all its blocks are missing again, and will if possible come from a single peer.
    /// True if it was under way.
    pub fn failed(&mut self, piece: PieceIndex) -> bool {
        let was_open = self.abandon(piece);
        if was_open {
            self.suspects.insert(piece);
        }
        was_open
    }

    /// What came of `piece` was dropped, through no fault of those who sent it (no room, the disk failed): all its blocks
    /// are missing again. True if it was under way.
    pub fn abandon(&mut self, piece: PieceIndex) -> bool {
        let was_open = self.close(piece);
        if was_open {
            self.file(piece);
        }
        was_open
    }

    /// The disk lost a piece that was had. True if it was.
    pub fn lost(&mut self, piece: PieceIndex) -> bool {
        let was_had = self.have.clear(piece);
        if was_had {
            if self.priority(piece) != Priority::Skip {
                self.lacking.set(piece);
            }
            self.file(piece);
        }
        was_had
    }

    /// Takes an open piece from the table, and what was asked of it from the peers.
    fn close(&mut self, piece: PieceIndex) -> bool {
        let Some(open) = self.table.close(piece) else { return false };
        for (number, block) in (0u32..).zip(open.blocks()) {
            for asker in block.askers() {
                self.asks.remove(asker.peer, piece, number);
            }
        }
        true
    }

    /// Puts a piece that is missing now where it may be found.
    fn file(&mut self, piece: PieceIndex) {
        self.arrivals += 1;
        if let Some(class) = self.priority(piece).class() {
            self.order.insert(class, piece, self.availability.of(piece));
        }
    }
}
