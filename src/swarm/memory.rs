//! How many blocks may be asked for, and what is written early to make room.
//!
//! The buffers of the pool are all the memory that payload takes, and there are only so many. Three rules:
//!
//! 1. *Nothing is asked for that has no buffer*: buffers that are lent and blocks that are on their way are together no
//!    more than the pool's ceiling.
//! 2. *A piece is opened if the pool can hold what all open pieces lack, and it*. So small pieces are verified in memory and
//!    written once. A peer that would be idle for it may open one anyway, if it can have no block of those that are
//!    open: they may be of no use to it, or larger than the pool. That keeps open pieces few.
//! 3. *When buffers are scarce and the open pieces lack more than there are, blocks are spilled*: written unverified, their
//!    buffers used again. A piece of which something was spilled is hashed from the disk once all of it is there,
//!    and is not had before. So whatever is in the pool comes out of it, and nobody waits for ever.
//!
//! What was spilled is not known after a restart, and overwritten when its piece is bad.

use std::cmp::Reverse;
use std::time::Instant;

use super::partial::{PartialPiece, Spill};
use super::{Action, Swarm};
use crate::base::{BLOCK_LEN, BlockBuf, PieceIndex};

/// Blocks written by one disk thread at once, at most: 4 MiB.
const LONGEST_RUN: u32 = 256;

/// Blocks of all open pieces, where more are opened than memory holds: at 48 bytes for each, 12 MiB for 4 GiB of pieces.
const MAX_OPEN_BLOCKS: usize = 1 << 18;

/// Blocks that wait for the disk, beyond which nothing more is asked for, unless two pieces are more: 16 MiB. It is what a
/// disk that stands still for a while costs if the process is killed meanwhile; more of them would not make it faster.
const MAX_AT_DISK: usize = 1 << 10;

/// What a disk thread says about blocks that were spilled.
#[derive(Debug)]
pub enum Spilled {
    /// They are written. These are their digests: [`keyed_digests`](crate::hash::keyed_digests).
    Written(Vec<u64>),
    /// They could not be written.
    DiskFailed,
}

/// Which piece is spilled first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    /// It has to be written and read again in any case. The oldest of these first.
    Spilled(u64),
    /// Nobody is asked for any of it. The oldest first.
    Loose(u64),
    /// The one that is furthest from being whole first.
    Active(Reverse<u32>, u64),
}

impl Swarm {
    /// Buffers that are free, and not meant for what is on its way.
    pub(super) fn spare(&self) -> usize {
        let on_their_way = self.picker.asked_count().saturating_sub(self.receiving);
        self.pool.left().saturating_sub(on_their_way)
    }

    /// How many blocks one peer may be asked for: half of what is left, so that the next one finds something, too. None
    /// while the disk is behind.
    pub(super) fn may_ask(&self) -> usize {
        let behind = self.at_disk > MAX_AT_DISK.max(self.piece_blocks() * 2);
        if behind { 0 } else { self.spare().div_ceil(2) }
    }

    /// How many blocks the pieces may have that are opened. What the open ones still lack will need buffers of its own.
    pub(super) fn may_open(&self) -> usize {
        self.pool.left().saturating_sub(self.picker.open_missing_blocks())
    }

    /// Whether the pool cannot even hold two pieces: then none is waited for to be whole.
    pub(super) fn is_tight(&self) -> bool {
        self.piece_blocks().saturating_mul(2) > self.pool.ceiling()
    }

    pub(super) fn piece_blocks(&self) -> usize {
        self.geometry.piece_length().div_ceil(BLOCK_LEN) as usize
    }

    /// The same as [`Swarm::may_open`] for a peer that would otherwise be idle, if that is more than `may_open`; else 0.
    pub(super) fn may_open_anyway(&mut self, may_open: usize) -> usize {
        let blocks = self.piece_blocks();
        if may_open >= blocks {
            return 0;
        }
        if self.picker.open_blocks() + blocks > MAX_OPEN_BLOCKS {
            self.abandon_one();
        }
        if self.picker.open_count() > 0 && self.picker.open_blocks() + blocks > MAX_OPEN_BLOCKS { 0 } else { blocks }
    }

    /// Drops the open piece that is worth least, among those that nobody works on.
    fn abandon_one(&mut self) {
        let partials = &self.partials;
        let idle = self.picker.open_pieces().filter(|open| {
            let whole = open.free == 0 && open.asked == 0;
            !whole && open.asked == 0 && !partials.get(&open.piece).is_some_and(PartialPiece::is_writing)
        });
        let worst = idle.min_by_key(|open| (self.picker.availability(open.piece) > 0, open.received, open.opened));
        let Some(worst) = worst else { return };
        self.totals.wasted += u64::from(worst.received) * u64::from(BLOCK_LEN);
        self.drop_partial(worst.piece);
    }

    /// Everything of an open piece is missing again.
    pub(super) fn drop_partial(&mut self, piece: PieceIndex) {
        self.picker.abandon(piece);
        for buf in self.partials.remove(&piece).into_iter().flat_map(PartialPiece::into_blocks) {
            self.pool.give(buf);
        }
    }

    /// Spills blocks if buffers are scarce and will not come back by themselves.
    pub(super) fn make_room(&mut self) {
        // What the disk threads have comes back.
        let coming = self.spare() + self.at_disk;
        let ceiling = self.pool.ceiling();
        if coming >= (ceiling / 4).max(1) || self.fetches_nothing() {
            return;
        }
        if !self.is_tight() && self.picker.open_missing_blocks() <= self.pool.left() + self.at_disk {
            return;
        }
        let mut wanted = (ceiling / 2).max(1) - coming;
        let mut victims: Vec<(Victim, PieceIndex)> =
            self.picker.open_pieces().filter_map(|open| Some((self.victim(&open)?, open.piece))).collect();
        victims.sort_unstable();
        for (_, piece) in victims {
            if wanted == 0 {
                return;
            }
            let Some(partial) = self.partials.get(&piece) else { continue };
            let mut runs = partial.runs(LONGEST_RUN);
            // Few long ones cost less than many short ones; among equals the one in front.
            runs.sort_by_key(|run| Reverse(run.len()));
            for mut run in runs {
                if wanted == 0 {
                    return;
                }
                run.end = run.start.saturating_add(u32::try_from(wanted).unwrap_or(u32::MAX)).min(run.end);
                wanted = wanted.saturating_sub(run.len());
                self.spill(piece, &run);
            }
        }
    }

    /// `None` if nothing of it is in memory.
    fn victim(&self, open: &super::picker::OpenStatus) -> Option<Victim> {
        let partial = self.partials.get(&open.piece)?;
        if partial.held() == 0 || partial.has_failed() {
            return None;
        }
        Some(if partial.is_spilled() {
            Victim::Spilled(open.opened)
        } else if open.asked == 0 {
            Victim::Loose(open.opened)
        } else {
            Victim::Active(Reverse(partial.missing()), open.opened)
        })
    }

    fn spill(&mut self, piece: PieceIndex, run: &std::ops::Range<u32>) {
        let Some(partial) = self.partials.get_mut(&piece) else { return };
        let mut blocks = partial.take(run);
        // Padding is zeros for whoever reads the piece from the disk, whatever was sent: so it is no evidence, either.
        let data_len = self.geometry.data_len(piece);
        if let Some(last) = blocks.last_mut() {
            let begin = (run.end - 1) * BLOCK_LEN;
            if let Some(padding) = last.as_mut_slice().get_mut(data_len.saturating_sub(begin) as usize..) {
                padding.fill(0);
            }
        }
        self.at_disk += blocks.len();
        let digest_key = self.blame.digest_key();
        self.actions.push_back(Action::Spill(Spill { piece, begin: run.start * BLOCK_LEN, blocks, digest_key }));
    }

    /// A disk thread has dealt with blocks that were spilled, `blocks` are their buffers, from byte `begin` of `piece` on.
    pub fn handle_spilled(
        &mut self,
        now: Instant,
        piece: PieceIndex,
        begin: u32,
        outcome: &Spilled,
        blocks: Vec<BlockBuf>,
    ) {
        self.at_disk -= blocks.len();
        for buf in blocks {
            self.pool.give(buf);
        }
        if let Some(partial) = self.partials.get_mut(&piece) {
            match outcome {
                Spilled::Written(digests) => partial.written(begin / BLOCK_LEN, digests),
                Spilled::DiskFailed => partial.not_written(),
            }
            self.finish_spilled(piece);
        }
        self.make_room();
        if self.starved {
            self.refill_all(now);
        } else if self.web_seeds.starved {
            self.fetch_more(now);
        }
    }

    /// Goes on with a piece of which something was spilled, if there is something to be done: writes what is left of a
    /// full one, and has it hashed when all is written.
    pub(super) fn finish_spilled(&mut self, piece: PieceIndex) {
        let Some(partial) = self.partials.get(&piece) else { return };
        if partial.has_failed() {
            // Not before the last write has ended, which would spoil what comes in the piece's place.
            if !partial.is_writing() {
                self.drop_partial(piece);
            }
        } else if partial.is_full() && partial.held() > 0 {
            for run in partial.runs(LONGEST_RUN) {
                self.spill(piece, &run);
            }
        } else if partial.is_full() && !partial.is_writing() {
            debug_assert_eq!(partial.piece(), piece);
            if let Some(partial) = self.partials.remove(&piece) {
                self.verifying.insert(piece, partial.into_origins());
                self.actions.push_back(Action::VerifyStored(piece));
            }
        }
    }

    /// Whether the disk threads have anything of this torrent.
    pub fn awaits_disk(&self) -> bool {
        !self.verifying.is_empty() || self.at_disk > 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::super::{NewPeer, SwarmConfig};
    use super::*;
    use crate::base::{Bitfield, Geometry, MAX_PIECE_LENGTH, PeerId};
    use crate::wire::{Message, Reserved};

    /// Peers that let us begin a piece each and go: what they leave behind is bounded, and the next one is asked nevertheless.
    #[test]
    fn pieces_that_nobody_goes_on_with_are_given_up() {
        let geometry = Geometry::new(u64::from(MAX_PIECE_LENGTH) * 12, MAX_PIECE_LENGTH).unwrap();
        let config = SwarmConfig {
            info_hash: [7; 20],
            peer_id: PeerId([1; 20]),
            listen_port: None,
            dht_port: None,
            max_peers: 100,
            block_memory: 1 << 20,
            limit_up: None,
            sequential: false,
            super_seed: false,
            pex: true,
            holepunch: false,
            many_per_address: false,
        };
        let now = Instant::now();
        let mut swarm = Swarm::new(now, geometry.clone(), &Bitfield::new(12), &[], config, 1);
        for (piece, n) in geometry.pieces().zip(2u8..) {
            let address = SocketAddr::from((Ipv4Addr::new(93, 184, n, 1), 6881));
            let new = NewPeer {
                address,
                outgoing: false,
                utp: false,
                id: PeerId([n; 20]),
                reserved: Reserved::NONE,
                v2: false,
            };
            let key = swarm.handle_connected(now, new).unwrap();
            swarm.handle_message(now, key, &Message::Have(piece.get())).unwrap();
            swarm.handle_message(now, key, &Message::Unchoke).unwrap();
            let asked: Vec<_> = swarm.picker.requests_of(key).collect();
            assert!(!asked.is_empty() && asked.iter().all(|block| block.piece() == piece));
            assert!(swarm.picker.open_blocks() <= MAX_OPEN_BLOCKS);
            swarm.handle_message(now, key, &Message::Choke).unwrap();
        }
        let open: Vec<_> = swarm.picker.open_pieces().map(|open| open.piece.get()).collect();
        assert_eq!((open.len(), open.contains(&0), open.contains(&11)), (8, false, true), "{open:?}");
    }
}
