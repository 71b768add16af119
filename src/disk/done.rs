use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::base::{BlockBuf, PieceIndex};
use crate::storage::StorageError;

/// What came of a piece.
#[derive(Debug)]
pub enum Verdict {
    /// Its hash is right, and it is written (not yet synced).
    Good,
    /// Its hash is wrong; nothing was written.
    Bad,
    /// The disk failed. Of its hash nothing is said.
    DiskFailed(StorageError),
}

/// A job that is done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Done {
    /// A piece was hashed, and written if it is good.
    Verified {
        /// Which.
        piece: PieceIndex,
        /// What came of it.
        verdict: Verdict,
        /// Its blocks, as they were handed in, to be used again.
        blocks: Vec<BlockBuf>,
    },
    /// Blocks of an unfinished piece were written to make room, or not.
    Spilled {
        /// Which.
        piece: PieceIndex,
        /// Byte of the piece at which they begin.
        begin: u32,
        /// What came of it: when they are written, their digests.
        outcome: Result<Vec<u64>, StorageError>,
        /// The blocks, to be used again.
        blocks: Vec<BlockBuf>,
    },
    /// A sync ended.
    Synced(Result<(), StorageError>),
}

/// What the disk threads have done for one torrent, until its task takes it.
#[derive(Debug, Default)]
pub struct Completions {
    done: Mutex<Vec<Done>>,
    notify: Notify,
}

impl Completions {
    /// An empty one, to be shared with every job.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds something done, and wakes the task that waits.
    pub fn push(&self, done: Done) {
        self.extend([done]);
    }

    pub(super) fn extend(&self, done: impl IntoIterator<Item = Done>) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).extend(done);
        self.notify.notify_one();
    }

    /// Moves all that is done to the end of `into`.
    pub fn drain(&self, into: &mut Vec<Done>) {
        into.append(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until something may be there to [`drain`](Self::drain); for one task. Cancelling it loses nothing.
    pub async fn ready(&self) {
        self.notify.notified().await;
    }
}
