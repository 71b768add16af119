//! L3: the disk threads: jobs in, results out.
//!
//! For: hashing and writing pieces, reading blocks, syncing, away from the network threads.
//! Must not know: peers, picking, torrents' state.
//! Main types: [`DiskPool`], [`Job`], [`Done`], [`Completions`], [`ReadAheads`].
//!
//! ```text
//! torrent task ── push ──►  queue  ── quick jobs ──► disk threads   verify + write (several at once), read
//!                             └────── long jobs ───► two more       sync, check, open
//! torrent task ◄── drain ── Completions ◄── verdicts, syncs
//! connection   ◄── oneshot ─────────────◄── reads
//! connections  ◄── Ahead ───────────────◄── windows read ahead, each for all who wait for it
//! ```
//!
//! Long jobs have threads of their own, so that a check of one torrent or a slow sync does not hold up the pieces of
//! all others.

mod ahead;
mod done;
mod job;
mod pool;
mod work;

pub use ahead::{Ahead, ReadAheads, Reading};
pub use done::{Completions, Done, Verdict};
pub use job::{Job, ReadDone, ToVerify};
pub use pool::DiskPool;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test's numbers are small")]
mod tests;
