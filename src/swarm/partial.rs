use std::ops::Range;

use super::blame::Sender;
use crate::base::{Block, BlockBuf, PieceIndex};

/// The payload of a piece under way: which blocks are here, which are on disk already, and who sent each.
#[derive(Debug)]
pub(super) struct PartialPiece {
    piece: PieceIndex,
    slots: Box<[Slot]>,
    /// Who sent blocks of it, each connection once; most blocks come from the last that is named.
    senders: Vec<Sender>,
    missing: u32,
    /// Blocks in memory; all of them lie within `span`.
    held: u32,
    span: Range<u32>,
    /// Runs of blocks that are being written.
    writing: u32,
    /// Some of it is, or will be, on disk only.
    spilled: bool,
    /// A write failed: it is to be dropped.
    failed: bool,
}

/// One block.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Missing,
    Held(u32, BlockBuf),
    Writing(u32),
    /// With the digest of what was sent.
    OnDisk(u32, u64),
}

/// All blocks of a piece, not yet verified. Padding is not part of it: see
/// [`Geometry::data_len`](crate::base::Geometry::data_len).
#[derive(Debug)]
pub struct FullPiece {
    /// Which piece.
    pub piece: PieceIndex,
    /// Its blocks in order.
    pub blocks: Vec<BlockBuf>,
}

/// Blocks of a piece that is not whole, to be written without being verified, so that their memory can be used again.
#[derive(Debug)]
pub struct Spill {
    /// Which piece.
    pub piece: PieceIndex,
    /// Byte of the piece at which the first block begins; the others follow without a gap.
    pub begin: u32,
    /// The blocks.
    pub blocks: Vec<BlockBuf>,
    /// For [`keyed_digests`](crate::hash::keyed_digests) of the blocks: if the piece turns out bad, they tell who sent what.
    pub digest_key: [u8; 16],
}

/// Who sent the blocks of a full piece.
#[derive(Debug, Default)]
pub(super) struct Origins {
    pub(super) senders: Vec<Sender>,
    /// For each block its place in `senders`.
    by: Vec<u32>,
    /// For each block of a piece that was spilled the digest of what was sent.
    pub(super) digests: Option<Vec<u64>>,
}

impl Origins {
    /// Each block's sender, with its digest.
    pub(super) fn with_digests(&self, digests: &[u64]) -> Vec<(Sender, u64)> {
        let senders = self.by.iter().filter_map(|by| self.senders.get(*by as usize));
        senders.copied().zip(digests.iter().copied()).collect()
    }
}

impl PartialPiece {
    pub(super) fn new(piece: PieceIndex, block_count: u32) -> Self {
        let slots = std::iter::repeat_with(Slot::default).take(block_count as usize).collect();
        let (senders, missing, held, span) = (Vec::new(), block_count, 0, 0..0);
        Self { piece, slots, senders, missing, held, span, writing: 0, spilled: false, failed: false }
    }

    pub(super) fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// Puts a block in its place; gives it back if the place is taken.
    pub(super) fn insert(&mut self, block: Block, from: Sender, data: BlockBuf) -> Result<(), BlockBuf> {
        debug_assert_eq!(block.piece(), self.piece);
        let number = block.number();
        let Some(slot @ Slot::Missing) = self.slots.get_mut(number as usize) else { return Err(data) };
        // The last is nearly always the one.
        let known = self.senders.iter().rposition(|sender| *sender == from);
        let by = known.unwrap_or_else(|| {
            self.senders.push(from);
            self.senders.len() - 1
        });
        *slot = Slot::Held(u32::try_from(by).unwrap_or(u32::MAX), data);
        self.missing -= 1;
        self.held += 1;
        self.span = if self.held == 1 {
            number..number + 1
        } else {
            self.span.start.min(number)..self.span.end.max(number + 1)
        };
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.missing == 0
    }

    /// Blocks in memory.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// Blocks that have not come.
    pub(super) fn missing(&self) -> u32 {
        self.missing
    }

    /// Whether some of it is on disk, or on its way there.
    pub(super) fn is_spilled(&self) -> bool {
        self.spilled
    }

    /// Whether blocks of it are being written.
    pub(super) fn is_writing(&self) -> bool {
        self.writing > 0
    }

    /// Whether some of it could not be written.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// The runs of neighbours in memory, each cut into parts of at most `longest` blocks.
    pub(super) fn runs(&self, longest: u32) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        let slots = self.slots.get(self.span.start as usize..self.span.end as usize).unwrap_or_default();
        for (number, _) in self.span.clone().zip(slots).filter(|(_, slot)| matches!(slot, Slot::Held(..))) {
            match runs.last_mut() {
                Some(run) if run.end == number && number - run.start < longest => run.end += 1,
                _ => runs.push(number..number + 1),
            }
        }
        runs
    }

    /// Takes a run of blocks out that are in memory, to be written.
    pub(super) fn take(&mut self, run: &Range<u32>) -> Vec<BlockBuf> {
        let mut blocks = Vec::with_capacity(run.len());
        for slot in self.slots.get_mut(run.start as usize..run.end as usize).unwrap_or_default() {
            if let Slot::Held(by, _) = *slot
                && let Slot::Held(_, buf) = std::mem::replace(slot, Slot::Writing(by))
            {
                blocks.push(buf);
            }
        }
        debug_assert_eq!(blocks.len(), run.len(), "a run with gaps");
        self.held -= u32::try_from(blocks.len()).unwrap_or(self.held);
        // What is left may lie in less than this, but not in more.
        if self.span.start >= run.start {
            self.span.start = run.end.min(self.span.end);
        }
        if self.span.end <= run.end {
            self.span.end = run.start.max(self.span.start);
        }
        self.writing += 1;
        self.spilled = true;
        blocks
    }

    /// A run of blocks that was taken out from block `number` on has been written; `digests` are what was sent.
    pub(super) fn written(&mut self, number: u32, digests: &[u64]) {
        self.writing = self.writing.saturating_sub(1);
        for (slot, digest) in self.slots.iter_mut().skip(number as usize).zip(digests) {
            if let Slot::Writing(by) = *slot {
                *slot = Slot::OnDisk(by, *digest);
            }
        }
    }

    /// A run of blocks that was taken out could not be written.
    pub(super) fn not_written(&mut self) {
        self.writing = self.writing.saturating_sub(1);
        self.failed = true;
    }

    /// The data in order, and who sent it. Only for a full piece that is all in memory: missing blocks leave no gap.
    pub(super) fn into_full(self) -> (FullPiece, Origins) {
        debug_assert!(self.is_full() && !self.spilled);
        let mut blocks = Vec::with_capacity(self.slots.len());
        let mut by = Vec::with_capacity(self.slots.len());
        for slot in self.slots {
            if let Slot::Held(sender, buf) = slot {
                by.push(sender);
                blocks.push(buf);
            }
        }
        (FullPiece { piece: self.piece, blocks }, Origins { senders: self.senders, by, digests: None })
    }

    /// Who sent what. Only for a full piece that is all on disk.
    pub(super) fn into_origins(self) -> Origins {
        debug_assert!(self.is_full() && self.held == 0 && self.writing == 0);
        let on_disk = |slot: &Slot| if let Slot::OnDisk(by, digest) = slot { Some((*by, *digest)) } else { None };
        let (by, digests) = self.slots.iter().filter_map(on_disk).unzip();
        Origins { senders: self.senders, by, digests: Some(digests) }
    }

    /// Gives up the piece: the blocks that are in memory.
    pub(super) fn into_blocks(self) -> impl Iterator<Item = BlockBuf> {
        self.slots.into_iter().filter_map(|slot| if let Slot::Held(_, buf) = slot { Some(buf) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::bans::Identity;
    use super::*;
    use crate::base::{BlockPool, Geometry, Slab};

    /// There is one for each block of each open piece: hundreds of thousands.
    #[test]
    fn a_slot_is_small() {
        assert_eq!(size_of::<Slot>(), 32);
    }

    #[test]
    fn runs_leave_and_their_digests_come_back() {
        let geometry = Geometry::new(20 * 16_384, 20 * 16_384).unwrap();
        let piece = geometry.piece(0).unwrap();
        let mut pool = BlockPool::new(1 << 30);
        let mut slab = Slab::default();
        let senders = [0, 1].map(|n| Sender { identity: Identity::WebSeed(n), key: slab.insert(()) });
        let mut partial = PartialPiece::new(piece, 20);
        let mut put = |partial: &mut PartialPiece, number: u32| {
            let block = geometry.block(piece, number).unwrap();
            partial.insert(block, senders[number as usize % 2], pool.take(16_384).unwrap())
        };
        for number in [3, 4, 5, 9, 6, 12] {
            put(&mut partial, number).unwrap();
        }
        assert!(put(&mut partial, 9).is_err());
        assert_eq!(partial.runs(100), [3..7, 9..10, 12..13]);
        assert_eq!(partial.runs(3), [3..6, 6..7, 9..10, 12..13]);
        assert_eq!((partial.take(&(3..7)).len(), partial.held(), partial.missing()), (4, 2, 14));
        assert_eq!(partial.take(&(12..13)).len(), 1);
        assert_eq!((partial.runs(100).len(), partial.runs(100)[0].start), (1, 9));
        assert!(put(&mut partial, 4).is_err(), "on its way to the disk");
        for number in (0..20).filter(|number| ![3, 4, 5, 6, 9, 12].contains(number)) {
            put(&mut partial, number).unwrap();
        }
        assert!(partial.is_full() && partial.is_writing());
        assert_eq!(partial.runs(100), [0..3, 7..12, 13..20]);
        let mut first = partial.runs(100).into_iter().map(|run| run.start).collect::<Vec<_>>();
        for run in partial.runs(100) {
            partial.take(&run);
        }
        assert_eq!((partial.held(), partial.runs(100).len()), (0, 0));
        first.extend([3, 12]);
        first.sort_unstable();
        for (at, start) in first.iter().enumerate() {
            let end = first.get(at + 1).copied().unwrap_or(20);
            let digests: Vec<u64> = (*start..end).map(u64::from).collect();
            partial.written(*start, &digests);
        }
        assert!(!partial.is_writing());
        let origins = partial.into_origins();
        let digests = origins.digests.clone().unwrap();
        assert_eq!(digests, (0..20).collect::<Vec<_>>());
        // The sender that came first is named first.
        assert_eq!(origins.senders, [senders[1], senders[0]]);
        assert_eq!(origins.with_digests(&digests)[7], (senders[1], 7));
    }
}
