//! Trouble with the disk: a state of the torrent, and not its end.
//!
//! ```text
//! a write, read or sync fails ─► fetching pauses, what may be lost is missing, peers are served what is there
//!        ▲                                                    │ after a pause
//!        └── it fails again: a longer pause ◄── Storage::mend ┴──► fetching goes on
//! ```
//!
//! It is told once when it begins, and once when it is over: when a piece was written, not when it only seems that one
//! could be.

use std::future::pending;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::opening;
use super::shared::expected;
use super::task::Task;
use super::{Event, Failure};
use crate::base::{Bitfield, PieceIndex};
use crate::storage::{ErrorKind, Mended, StorageError};
use crate::swarm::Swarm;

/// The longest pause between two tries (`limits.md`).
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A full disk is looked at each time after so many of the shortest pauses: whether there is space costs little to know.
const FULL: u32 = 4;

/// What fails again before so many pauses have passed goes on where it was.
const RELAPSE: u32 = 4;

/// What the user need not do.
const ADVICE: &str = "; tried again until it works";

/// What is wrong with the disk, and what is done about it.
#[derive(Debug)]
pub(super) struct Trouble {
    kind: ErrorKind,
    /// Pieces that may not be on the disk. They are missing until that is known.
    doubt: Bitfield,
    pause: Duration,
    next: Instant,
    mending: Option<Mending>,
}

type Mending = oneshot::Receiver<Result<Mended, StorageError>>;

/// Trouble that seems to be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    over: Instant,
    /// The last pause that it took.
    pause: Duration,
    /// That it is over is not told yet.
    untold: bool,
}

/// Waits for the end of a try to go on, for ever if there is none.
pub(super) async fn mended(trouble: &mut Option<Trouble>) -> Result<Mended, StorageError> {
    match trouble.as_mut().and_then(|trouble| trouble.mending.as_mut()) {
        // Without an answer the disk threads have stopped, and so does the torrent.
        Some(mending) => match mending.await {
            Ok(outcome) => outcome,
            Err(_) => pending().await,
        },
        None => pending().await,
    }
}

/// The pause before the next try, after one of `before`. The first is `shortest`.
fn next_pause(kind: ErrorKind, shortest: Duration, before: Option<Duration>) -> Duration {
    match (kind, before) {
        (ErrorKind::Full, _) => shortest * FULL,
        (_, None) => shortest,
        (_, Some(before)) => before.saturating_mul(2).clamp(shortest, LONGEST_PAUSE.max(shortest)),
    }
}

impl Task {
    /// The disk has failed; `doubt` are pieces that may not be there because of it.
    pub(super) fn on_disk_error(&mut self, error: StorageError, doubt: &[PieceIndex]) {
        let Some(storage) = self.shared.storage().cloned() else { return };
        self.lose(doubt);
        let now = Instant::now();
        let (kind, shortest) = (error.kind(), self.spec.disk_retry);
        let trouble = self.trouble.get_or_insert_with(|| {
            let past = self.past_trouble.take();
            let relapse = past.filter(|past| past.untold || now.duration_since(past.over) < past.pause * RELAPSE);
            // There was space, and yet it failed: a quota, say. To try that again costs what is fetched for it.
            let pause = match relapse {
                Some(past) => next_pause(ErrorKind::Io, shortest, Some(past.pause)),
                None => next_pause(kind, shortest, None),
            };
            self.shared.turn(Swarm::pause_fetching);
            let failure = Failure::from_disk(error, ADVICE);
            self.inner.set_trouble(Some(failure.message.clone()));
            if !past.is_some_and(|past| past.untold) {
                self.inner.tell(Event::DiskError(failure));
            }
            let doubt = Bitfield::new(storage.geometry().piece_count());
            Trouble { kind, doubt, pause, next: now + pause, mending: None }
        });
        doubt.iter().for_each(|piece| {
            trouble.doubt.set(*piece);
        });
    }

    /// Tries to go on if it is time.
    pub(super) fn try_to_mend(&mut self, now: Instant) {
        let Some(trouble) = self.trouble.as_mut().filter(|trouble| trouble.mending.is_none() && trouble.next <= now)
        else {
            return;
        };
        let (Some(storage), Some(metainfo)) = (self.shared.storage().cloned(), self.shared.metainfo().cloned()) else {
            return;
        };
        let have = self.shared.turn_quietly(|swarm| swarm.have().clone());
        let doubt = trouble.doubt.clone();
        trouble.mending =
            Some(self.shared.disk.call(move || storage.mend(&|piece| expected(&metainfo.info, piece), &have, &doubt)));
    }

    /// A try has ended.
    pub(super) fn on_mended(&mut self, outcome: Result<Mended, StorageError>) {
        let Some(mut trouble) = self.trouble.take() else { return };
        trouble.mending = None;
        let now = Instant::now();
        match outcome {
            Ok(Mended { good, lost }) => {
                self.lose(&lost);
                self.shared.turn(|swarm, now| swarm.handle_found(now, &good));
                if self.is_read_only() && !lost.is_empty() {
                    // They cannot be fetched: they may only come back.
                    lost.iter().for_each(|piece| {
                        trouble.doubt.set(*piece);
                    });
                    good.iter().for_each(|piece| {
                        trouble.doubt.clear(*piece);
                    });
                    return self.wait_longer(trouble, now);
                }
                self.past_trouble = Some(Past { over: now, pause: trouble.pause, untold: true });
                self.inner.set_trouble(None);
                self.shared.turn(Swarm::go_on_fetching);
                if self.shared.turn_quietly(|swarm| swarm.is_complete()) {
                    self.on_written();
                }
            }
            Err(error) => {
                trouble.kind = error.kind();
                self.inner.set_trouble(Some(Failure::from_disk(error, ADVICE).message));
                self.wait_longer(trouble, now);
            }
        }
    }

    /// The disk has taken something, or there is nothing more that it has to take.
    pub(super) fn on_written(&mut self) {
        if let Some(past) = self.past_trouble.as_mut().filter(|past| past.untold && self.trouble.is_none()) {
            past.untold = false;
            self.inner.tell(Event::DiskMended);
        }
    }

    fn wait_longer(&mut self, mut trouble: Trouble, now: Instant) {
        trouble.pause = next_pause(trouble.kind, self.spec.disk_retry, Some(trouble.pause));
        trouble.next = now + trouble.pause;
        self.trouble = Some(trouble);
    }

    fn is_read_only(&self) -> bool {
        self.shared.storage().is_some_and(|storage| storage.is_read_only())
    }

    /// Pieces that were had are missing.
    fn lose(&mut self, pieces: &[PieceIndex]) {
        let Some(storage) = self.shared.storage().cloned() else { return };
        let had = self.shared.turn(|swarm, now| {
            let had: Vec<PieceIndex> = pieces.iter().copied().filter(|piece| swarm.have().has(*piece)).collect();
            swarm.handle_lost(now, &had);
            had
        });
        if had.is_empty() {
            return;
        }
        let bytes = opening::bytes_of(&storage, had.iter().copied());
        self.inner.have_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let geometry = storage.geometry();
        for piece in had {
            if let Some(ledger) = &mut self.ledger {
                ledger.lost(piece);
            }
            let (position, len) = (geometry.position(piece), u64::from(geometry.piece_len(piece)));
            for file in storage.file_map().files(position, len).filter(|file| storage.is_wanted(*file)) {
                if let Some(missing) = self.missing.get_mut(file as usize) {
                    *missing += 1;
                }
            }
        }
        if !self.shared.turn_quietly(|swarm| swarm.is_complete()) {
            self.completed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_unless_the_disk_is_full() {
        let shortest = Duration::from_secs(5);
        let pauses =
            std::iter::successors(Some(shortest), |pause| Some(next_pause(ErrorKind::Io, shortest, Some(*pause))));
        let pauses: Vec<u64> = pauses.map(|pause| pause.as_secs()).take(9).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(next_pause(ErrorKind::Missing, shortest, None), shortest);
        assert_eq!(next_pause(ErrorKind::Full, shortest, Some(LONGEST_PAUSE)), shortest * 4);
    }
}
