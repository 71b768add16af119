use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Completions;
use super::ahead::Reading;
use crate::base::{Block, BlockBuf, PieceIndex};
use crate::hash::Expected;
use crate::storage::{Storage, StorageError, Window};

/// Something for the disk threads to do.
#[non_exhaustive]
pub enum Job {
    /// Hash a piece; write it if it is good. Answered by [`Done::Verified`](super::Done).
    Verify(ToVerify),
    /// Hash a piece that was spilled in parts, from the disk. Answered by [`Done::Verified`](super::Done) without blocks.
    VerifyStored {
        /// Of which torrent.
        storage: Arc<Storage>,
        /// Which piece.
        piece: PieceIndex,
        /// What it must hash to.
        expected: Expected,
        /// Where the verdict goes.
        completions: Arc<Completions>,
    },
    /// Write blocks of a piece that is not whole yet, to make room for others. Answered by
    /// [`Done::Spilled`](super::Done).
    Spill {
        /// Of which torrent.
        storage: Arc<Storage>,
        /// Which piece.
        piece: PieceIndex,
        /// Byte of the piece at which the first block begins; the others follow without a gap.
        begin: u32,
        /// The blocks.
        blocks: Vec<BlockBuf>,
        /// For the [`keyed_digests`](crate::hash::keyed_digests) of the blocks that come back in their stead.
        digest_key: [u8; 16],
        /// Where the answer goes.
        completions: Arc<Completions>,
    },
    /// Read blocks of one torrent, one behind the other.
    Read {
        /// Of which torrent.
        storage: Arc<Storage>,
        /// Which blocks. Those that lie side by side are read at once.
        blocks: Vec<Block>,
        /// Memory to use: its contents are replaced.
        buf: Vec<u8>,
        /// Where the answer goes. Nothing is read if nobody waits any more.
        answer: oneshot::Sender<ReadDone>,
    },
    /// Bring a piece, or a part of it, into the page cache. Made by [`ReadAheads::want`](super::ReadAheads::want).
    ReadAhead {
        /// Of which torrent.
        storage: Arc<Storage>,
        /// What.
        window: Window,
        /// Tells those who wait that it has ended.
        reading: Reading,
    },
    /// Make all that was written until now outlive a loss of power. Answered by [`Done::Synced`](super::Done).
    Sync {
        /// Of which torrent.
        storage: Arc<Storage>,
        /// Where the answer goes.
        completions: Arc<Completions>,
    },
    /// Anything else that may wait for the disk: opening, checking. It answers by itself, and must look at a flag of its
    /// own if it is to be stopped.
    Call(Box<dyn FnOnce() + Send>),
}

/// A piece in memory, to be hashed and written.
#[derive(Debug)]
pub struct ToVerify {
    /// Of which torrent.
    pub storage: Arc<Storage>,
    /// Which piece.
    pub piece: PieceIndex,
    /// Its bytes in order: whole blocks up to the end of its data.
    pub blocks: Vec<BlockBuf>,
    /// What it must hash to.
    pub expected: Expected,
    /// Where the verdict goes.
    pub completions: Arc<Completions>,
}

impl ToVerify {
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(BlockBuf::len).sum()
    }
}

/// The answer to [`Job::Read`].
#[derive(Debug)]
pub struct ReadDone {
    /// The bytes of all blocks, if `outcome` is good; else undefined.
    pub buf: Vec<u8>,
    /// How it went.
    pub outcome: Result<(), StorageError>,
}

impl Job {
    /// Whether it may take so long that quick jobs must not wait for it.
    pub(super) fn is_long(&self) -> bool {
        matches!(self, Self::Sync { .. } | Self::Call(_))
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verify(job) => write!(f, "Verify({})", job.piece),
            Self::VerifyStored { piece, .. } => write!(f, "VerifyStored({piece})"),
            Self::Spill { piece, begin, .. } => write!(f, "Spill({piece}, {begin})"),
            Self::Read { blocks, .. } => write!(f, "Read({} blocks)", blocks.len()),
            Self::ReadAhead { window, .. } => write!(f, "ReadAhead({window:?})"),
            Self::Sync { .. } => f.write_str("Sync"),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}
