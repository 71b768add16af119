use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

use crate::hash;

/// Bytes that one thread reads and hashes at a time: long sequential reads, and enough pieces to fill the lanes.
const GROUP_BYTES: u32 = 4 << 20;

/// The most bytes that one thread holds; longer pieces are hashed as they are read. Tests make do with small pieces.
const MAX_GROUP_BYTES: u32 = if cfg!(test) { 1 << 20 } else { 16 << 20 };

/// Bytes read at a time of pieces too long to be held.
pub(super) const STREAM_STEP: usize = 1 << 20;

/// How far a long job is, and the way to stop it. Shared with whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes done, or found to need no doing.
    pub bytes: AtomicU64,
    /// Set to stop soon.
    pub cancel: AtomicBool,
}

/// How many pieces of `piece_length` bytes are taken at a time; 1 where one is too long to be held.
fn group_len(piece_length: u32) -> u32 {
    let lanes = u32::try_from(hash::lanes()).unwrap_or(1);
    let most = (MAX_GROUP_BYTES / piece_length.max(1)).max(1);
    (GROUP_BYTES / piece_length.max(1)).max(lanes).min(most)
}

/// Whether one piece may be held in memory as a whole.
pub(super) fn fits(piece_length: u32) -> bool {
    piece_length <= MAX_GROUP_BYTES
}

/// Runs `work` over groups of pieces on `threads` threads (one per core if none is said) until all are done or
/// `cancel` is set. Each thread has a buffer of its own. Whether all were done.
pub(super) fn on_all_cores(
    pieces: u32,
    piece_length: u32,
    threads: Option<usize>,
    cancel: &AtomicBool,
    work: impl Fn(Range<u32>, &mut Vec<u8>) + Sync,
) -> bool {
    let group = group_len(piece_length);
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let threads = threads.clamp(1, pieces.div_ceil(group).max(1) as usize);
    let next = AtomicU32::new(0);
    let run = || {
        let mut buf = Vec::new();
        while !cancel.load(Ordering::Relaxed) {
            // At most 2^21 pieces, and each thread goes beyond the last once.
            let first = next.fetch_add(group, Ordering::Relaxed);
            if first >= pieces {
                break;
            }
            work(first..(first + group).min(pieces), &mut buf);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread, this one does it all.
            if thread::Builder::new().name("gannet-hash".into()).spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    !cancel.load(Ordering::Relaxed)
}
