use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Completions, Done, Job, ReadDone, ToVerify, Verdict};
use crate::base::Block;
use crate::hash::{Hashed, PieceBytes, check_pieces, keyed_digests};
use crate::storage::{Storage, StorageError};

/// Runs `job`; a panic in it becomes an error of that job, and the thread goes on.
fn guarded<T>(
    storage: &Storage,
    operation: &'static str,
    job: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| {
        tracing::error!(operation, "a disk job panicked: this is a bug");
        Err(StorageError::internal(&storage.path(), operation))
    })
}

/// Hashes pieces together, writes the good ones, posts the verdicts: those of one torrent in one go.
pub(super) fn verify(pieces: Vec<ToVerify>) {
    // What a panic must not take along are the blocks: they stay out here.
    let hashed = catch_unwind(|| hash(&pieces)).unwrap_or_else(|_| {
        tracing::error!("hashing panicked: this is a bug");
        vec![None; pieces.len()]
    });
    let mut posts: Vec<(Arc<Completions>, Vec<Done>)> = Vec::new();
    for (job, hashed) in pieces.into_iter().zip(hashed) {
        let verdict = match hashed {
            Some(Hashed::Bad) => Verdict::Bad,
            Some(Hashed::Good) => {
                let slices: Vec<&[u8]> = job.blocks.iter().map(|b| b.as_slice()).collect();
                match guarded(&job.storage, "write a piece", || job.storage.write_piece(job.piece, &slices)) {
                    Ok(()) => Verdict::Good,
                    Err(e) => Verdict::DiskFailed(e),
                }
            }
            None => Verdict::DiskFailed(StorageError::internal(&job.storage.path(), "hash a piece")),
        };
        let done = Done::Verified { piece: job.piece, verdict, blocks: job.blocks };
        match posts.iter_mut().find(|(c, _)| Arc::ptr_eq(c, &job.completions)) {
            Some((_, post)) => post.push(done),
            None => posts.push((job.completions, vec![done])),
        }
    }
    for (completions, post) in posts {
        completions.extend(post);
    }
}

fn hash(pieces: &[ToVerify]) -> Vec<Option<Hashed>> {
    let slices: Vec<Vec<&[u8]>> = pieces.iter().map(|p| p.blocks.iter().map(|b| b.as_slice()).collect()).collect();
    let bytes: Vec<_> = pieces
        .iter()
        .zip(&slices)
        .map(|(p, slices)| PieceBytes {
            slices,
            data_len: p.storage.geometry().data_len(p.piece),
            wire_len: p.storage.geometry().piece_len(p.piece),
            expected: p.expected,
        })
        .collect();
    check_pieces(&bytes).into_iter().map(Some).collect()
}

/// Everything but pieces in memory.
pub(super) fn run(job: Job) {
    match job {
        Job::Verify(piece) => verify(vec![piece]),
        Job::VerifyStored { storage, piece, expected, completions } => {
            let verdict = match guarded(&storage, "check a piece", || storage.hash_piece(piece, &expected)) {
                Ok(Hashed::Good) => Verdict::Good,
                Ok(Hashed::Bad) => Verdict::Bad,
                Err(e) => Verdict::DiskFailed(e),
            };
            completions.push(Done::Verified { piece, verdict, blocks: Vec::new() });
        }
        Job::Spill { storage, piece, begin, blocks, digest_key, completions } => {
            let slices: Vec<&[u8]> = blocks.iter().map(|b| b.as_slice()).collect();
            let outcome = guarded(&storage, "write blocks", || {
                storage.write_part(piece, begin, &slices)?;
                Ok(keyed_digests(&digest_key, &slices))
            });
            completions.push(Done::Spilled { piece, begin, outcome, blocks });
        }
        Job::Read { storage, blocks, mut buf, answer } => {
            if !answer.is_closed() {
                let outcome = guarded(&storage, "read blocks", || read(&storage, &blocks, &mut buf));
                let _ = answer.send(ReadDone { buf, outcome });
            }
        }
        Job::ReadAhead { storage, window, reading } => {
            // Those who need the bytes read them again, and are told why they cannot have them.
            if let Err(error) = guarded(&storage, "read a piece", || storage.read_ahead(window)) {
                tracing::debug!(%error, "cannot read ahead");
            }
            drop(reading);
        }
        Job::Sync { storage, completions } => {
            completions.push(Done::Synced(guarded(&storage, "sync", || storage.sync())));
        }
        Job::Call(call) => {
            if catch_unwind(AssertUnwindSafe(call)).is_err() {
                tracing::error!("a call on a disk thread panicked: this is a bug");
            }
        }
    }
}

fn read(storage: &Storage, blocks: &[Block], buf: &mut Vec<u8>) -> Result<(), StorageError> {
    buf.clear();
    buf.resize(blocks.iter().map(|b| b.len() as usize).sum(), 0);
    let mut rest = buf.as_mut_slice();
    let mut blocks = blocks.iter().peekable();
    while let Some(first) = blocks.next() {
        let mut end = first.begin() + first.len();
        while let Some(next) = blocks.next_if(|b| b.piece() == first.piece() && b.begin() == end) {
            end += next.len();
        }
        let (part, behind) = std::mem::take(&mut rest).split_at_mut((end - first.begin()) as usize);
        rest = behind;
        storage.read_piece(first.piece(), first.begin(), part)?;
    }
    Ok(())
}
