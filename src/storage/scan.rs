use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

use crate::base::AlignedBytes;
use crate::hash::{self, PieceHash, PiecesHasher};

/// Bytes that one thread takes on at a time, where pieces are not so long that this is less than all lanes need.
const GROUP_BYTES: u32 = 4 << 20;

/// Bytes read at a time to wait for a disk.
const READ_STEP: u32 = 1 << 17;

/// How far a long job is, and the way to stop it. Shared with whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes done, or found to need no doing.
    pub bytes: AtomicU64,
    /// Set to stop soon.
    pub cancel: AtomicBool,
}

/// How many of `pieces` pieces of `piece_length` bytes one of `threads` threads takes on at a time.
fn group_len(pieces: u32, piece_length: u32, threads: usize) -> u32 {
    let lanes = u32::try_from(hash::lanes()).unwrap_or(1);
    let share = pieces.div_ceil(u32::try_from(threads).unwrap_or(u32::MAX).max(1));
    (GROUP_BYTES / piece_length.max(1)).max(lanes).min(share).max(1)
}

/// How many pieces of `piece_length` bytes are hashed side by side.
pub(super) fn side_by_side(piece_length: u32) -> usize {
    let short = PiecesHasher::step(1) / piece_length.max(1);
    hash::lanes().max(short as usize)
}

/// What of a piece is to be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) v1: bool,
    pub(super) v2: bool,
}

/// Hashes pieces of `wire_len` bytes each, of which so many are data, side by side. `read` fills a buffer with the bytes of
/// piece number n in the list from an offset on; `buf` is memory to do that in.
pub(super) fn hash_pieces<E>(
    data_lens: Vec<u32>,
    wire_len: u32,
    kinds: Kinds,
    buf: &mut AlignedBytes,
    mut read: impl FnMut(usize, u32, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<PieceHash>, E> {
    let count = data_lens.len();
    let step = PiecesHasher::step(count).min(wire_len);
    let mut hasher = PiecesHasher::new(data_lens, wire_len, kinds.v1, kinds.v2);
    buf.ensure(count * step as usize);
    let mut begin = 0;
    while begin < wire_len {
        let len = step.min(wire_len - begin);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(count);
        for (n, part) in buf.as_mut_slice().chunks_mut(step as usize).take(count).enumerate() {
            let part = &mut part[..len as usize];
            read(n, begin, part)?;
            parts.push(part);
        }
        hasher.update(&parts);
        begin += len;
    }
    Ok(hasher.finish())
}

/// Waits until a range is in memory, reading it in order if it is not: what is hashed side by side is read here and
/// there, which disks do not like. `read` reads so many bytes from an offset within the range on.
pub(super) fn read_in_order<E>(len: u32, mut read: impl FnMut(u32, &mut [u8]) -> Result<(), E>) -> Result<(), E> {
    let mut scratch = AlignedBytes::new(READ_STEP.min(len) as usize);
    let mut done = 0;
    while done < len {
        let step = READ_STEP.min(len - done);
        read(done, &mut scratch.as_mut_slice()[..step as usize])?;
        done += step;
    }
    Ok(())
}

/// Runs `work` over groups of pieces on `threads` threads (one per core if none is said) until all are done or
/// `cancel` is set. Each thread has a buffer of its own. Whether all were done.
pub(super) fn on_all_cores(
    pieces: u32,
    piece_length: u32,
    threads: Option<usize>,
    cancel: &AtomicBool,
    work: impl Fn(Range<u32>, &mut AlignedBytes) + Sync,
) -> bool {
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let group = group_len(pieces, piece_length, threads);
    let threads = threads.clamp(1, pieces.div_ceil(group).max(1) as usize);
    let next = AtomicU32::new(0);
    let run = || {
        let mut buf = AlignedBytes::default();
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
