use super::Picker;
use super::open::Shelf;
use super::pick::Turn;
use crate::base::{BLOCK_LEN, Geometry, PeerKey, PieceIndex};

/// Of the torrent's blocks so many may be asked for twice, over its life: one of fifty ...
const DUPLICATES_OF: u64 = 50;
/// ... but in a small torrent at least these.
const DUPLICATES_MIN: u64 = 16;

/// Peers that may be asked for the same block at the same time ...
const ASKERS: usize = 2;
/// ... and for one of the last blocks ...
const ASKERS_LAST: usize = 4;
/// ... which are the last because no more are on their way.
const LAST: usize = 16;

/// Blocks looked at, at most, in search of work for one peer that is idle.
const LOOK: usize = 512;
/// Peers that are looked through in about the time that a block takes.
const PEERS_PER_LOOK: usize = 8;

/// The end of a torrent, when everything was asked for and fast peers would wait for slow ones.
///
/// A peer that would be idle then takes over blocks of others: of slow peers first, and among these of the one that
/// has not answered for the longest time. Of the blocks that it was asked for the last one is taken: it is the one that it
/// would come to last, and can be cancelled before it is sent.
#[derive(Debug)]
pub(super) struct Endgame {
    duplicates: u32,
    limit: u32,
}

impl Endgame {
    pub(super) fn new(geometry: &Geometry) -> Self {
        // At most the number of blocks: short pieces may make it a few more.
        let blocks = (geometry.fetch_len() / u64::from(BLOCK_LEN)).max(u64::from(geometry.piece_count()));
        let limit = (blocks / DUPLICATES_OF).max(DUPLICATES_MIN);
        Self { duplicates: 0, limit: u32::try_from(limit).unwrap_or(u32::MAX) }
    }

    pub(super) fn duplicates(&self) -> u32 {
        self.duplicates
    }
}

impl Picker {
    /// Asks for blocks that others were asked for already, if nothing else is left.
    pub(super) fn pick_again(&mut self, turn: &mut Turn<'_, '_>) {
        if self.endgame.duplicates >= self.endgame.limit || self.table.asked() == 0 || self.is_something_free() {
            return;
        }
        let last = self.table.asked() <= LAST;
        let ask = turn.ask;
        let mut looks = LOOK;
        let mut victim = None;
        loop {
            let Some(left) = looks.checked_sub(1 + self.asks.peers() / PEERS_PER_LOOK) else { return };
            looks = left;
            victim = self.asks.next_victim(victim, last);
            let Some(victim) = victim else { return };
            if victim.fast && !ask.fast {
                // Fast ones will have answered before a slow one does.
                return;
            }
            if victim.peer == ask.peer || turn.kin.contains(&victim.peer) {
                continue;
            }
            // Of a fast one's work half, as it does the other half meanwhile.
            let unshared = self.asks.unshared(victim.peer);
            let mut share = if victim.fast && !last { unshared.div_ceil(2) } else { usize::MAX };
            self.found_blocks.clear();
            for asked in self.asks.of(victim.peer).rev().filter(|asked| last || !asked.shared) {
                if self.found_blocks.len() >= turn.left.min(share) || looks == 0 {
                    break;
                }
                looks -= 1;
                if self.may_ask_too(asked.piece, asked.number, last, turn) {
                    self.found_blocks.push((asked.piece, asked.number));
                } else {
                    share = share.saturating_sub(1);
                }
            }
            for at in 0..self.found_blocks.len() {
                if self.endgame.duplicates < self.endgame.limit {
                    let (piece, number) = self.found_blocks[at];
                    self.ask_too(victim.peer, piece, number, turn);
                }
            }
            if turn.left == 0 || self.endgame.duplicates >= self.endgame.limit {
                return;
            }
        }
    }

    fn may_ask_too(&self, piece: PieceIndex, number: u32, last: bool, turn: &Turn<'_, '_>) -> bool {
        let Some(open) = self.table.find(piece) else { return false };
        let Some(block) = open.block(number) else { return false };
        let in_time = block.askers().iter().filter(|asker| !asker.late).count();
        open.class().is_some()
            && turn.may_have(piece)
            && self.may_join(open, turn.ask)
            && !block.is_asked_from(turn.ask.peer)
            && !turn.kin.iter().any(|kin| block.is_asked_from(*kin))
            && (1..if last { ASKERS_LAST } else { ASKERS }).contains(&in_time)
            && (turn.ask.fast || block.askers().iter().all(|asker| !self.asks.is_fast(asker.peer)))
    }

    fn ask_too(&mut self, victim: PeerKey, piece: PieceIndex, number: u32, turn: &mut Turn<'_, '_>) {
        let peer = turn.ask.peer;
        let (Some(slot), Ok(block)) = (self.table.slot(piece), self.geometry.block(piece, number)) else { return };
        self.table.update(slot, |open| open.ask_too(number, peer));
        self.asks.add(peer, piece, number);
        self.asks.set_shared(peer, piece, number, true);
        self.asks.set_shared(victim, piece, number, true);
        self.endgame.duplicates += 1;
        turn.give(block);
    }

    /// Whether some wanted block is neither here nor asked for, and a connected peer has it.
    fn is_something_free(&mut self) -> bool {
        self.order.settle(self.availability.each());
        self.order.any_reachable(self.availability.seeds())
            || Shelf::ALL
                .iter()
                .any(|shelf| self.table.shelf(*shelf).any(|(_, open)| self.availability(open.piece()) > 0))
    }
}
