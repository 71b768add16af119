//! Rate limits that all connections share.
//!
//! Who has to wait takes a place in a queue: without one, all would wake at the same moment, a random one would win, and
//! some would lose for seconds, which looks to their peers like a line that has broken down.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::{BLOCK_LEN, TokenBucket};

/// One direction's limit. Without a limit it costs a load and a branch.
#[derive(Debug)]
pub struct RateLimit {
    bucket: Option<Mutex<Bucket>>,
    rate: Option<u64>,
}

#[derive(Debug)]
struct Bucket {
    tokens: TokenBucket,
    /// Those that wait, in ascending order, who came first in front.
    waiting: VecDeque<Place>,
    next: u64,
}

/// A place in the queue of those that wait for a limit. To be given back by [`RateLimit::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

/// Both directions' limits, shared by all torrents of a session.
#[derive(Debug)]
pub struct RateLimits {
    /// What comes in.
    pub down: RateLimit,
    /// What goes out.
    pub up: RateLimit,
}

impl RateLimits {
    /// Payload bytes per second each way; `None` is no limit.
    pub fn new(now: Instant, down: Option<u64>, up: Option<u64>) -> Self {
        Self { down: RateLimit::new(now, down), up: RateLimit::new(now, up) }
    }
}

impl RateLimit {
    fn new(now: Instant, rate: Option<u64>) -> Self {
        let tokens = |rate| TokenBucket::new(now, Some(rate));
        let bucket = rate.map(|rate| Mutex::new(Bucket { tokens: tokens(rate), waiting: VecDeque::new(), next: 0 }));
        Self { bucket, rate }
    }

    fn with<R>(&self, free: R, f: impl FnOnce(&mut Bucket) -> R) -> R {
        match &self.bucket {
            None => free,
            Some(bucket) => f(&mut bucket.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// The limit in bytes per second.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// `bytes` have gone by. They are owed if they were more than the limit allows.
    pub fn spend(&self, now: Instant, bytes: usize) {
        self.with((), |bucket| bucket.tokens.spend(now, bytes));
    }

    /// How long to wait until the next block may go by; zero if now.
    pub fn wait(&self, now: Instant) -> Duration {
        self.with(Duration::ZERO, |bucket| bucket.tokens.wait(now, BLOCK_LEN as usize))
    }

    /// As [`RateLimit::wait`], behind all that wait already and take `batch` blocks each, or in one's own place among them.
    pub fn wait_in_line(&self, now: Instant, place: Option<Place>, batch: usize) -> Duration {
        self.with(Duration::ZERO, |bucket| {
            let before =
                place.map_or(bucket.waiting.len(), |place| bucket.waiting.partition_point(|other| *other < place));
            let wait = bucket.tokens.wait(now, BLOCK_LEN as usize);
            let theirs = (before * batch) as u64 * u64::from(BLOCK_LEN) * 1_000_000 / self.rate.unwrap_or(1).max(1);
            wait.saturating_add(Duration::from_micros(theirs))
        })
    }

    /// Takes a place at the end of the queue; none where there is no limit.
    pub fn join(&self) -> Option<Place> {
        self.with(None, |bucket| {
            let place = Place(bucket.next);
            bucket.next += 1;
            bucket.waiting.push_back(place);
            Some(place)
        })
    }

    /// Gives a place back.
    pub fn leave(&self, place: Place) {
        self.with((), |bucket| {
            if let Ok(n) = bucket.waiting.binary_search(&place) {
                bucket.waiting.remove(n);
            }
        });
    }

    /// Blocks to move at once, at most `most`: an eighth of a second's worth, or slow links would stutter.
    pub fn batch(&self, most: usize) -> usize {
        match self.rate {
            None => most,
            Some(rate) => usize::try_from(rate / 8 / u64::from(BLOCK_LEN)).unwrap_or(most).clamp(1, most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let now = Instant::now();
        let limit = RateLimit::new(now, Some(u64::from(BLOCK_LEN) * 100));
        limit.spend(now, BLOCK_LEN as usize * 25);
        let wait = |place| limit.wait_in_line(now, place, 10).as_millis();
        let [a, b] = [limit.join(), limit.join()];
        let alone = wait(a);
        assert!((9..=11).contains(&alone), "{alone} ms for one block");
        assert_eq!((wait(b), wait(None)), (alone + 100, alone + 200));
        limit.leave(a.unwrap());
        limit.leave(a.unwrap());
        assert_eq!((wait(b), wait(limit.join())), (alone, alone + 100));
        let free = RateLimit::new(now, None);
        assert_eq!((free.join(), free.wait_in_line(now, None, 10)), (None, Duration::ZERO));
    }
}
