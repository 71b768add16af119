//! Rate limits that all connections share.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::{BLOCK_LEN, TokenBucket};

/// One direction's limit. Without a limit it costs a load and a branch.
#[derive(Debug)]
pub struct RateLimit {
    bucket: Option<Mutex<TokenBucket>>,
    rate: Option<u64>,
}

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
        let bucket = rate.map(|rate| Mutex::new(TokenBucket::new(now, Some(rate))));
        Self { bucket, rate }
    }

    fn with<R>(&self, free: R, f: impl FnOnce(&mut TokenBucket) -> R) -> R {
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
        self.with((), |bucket| bucket.spend(now, bytes));
    }

    /// How long to wait until the next block may go by; zero if now.
    pub fn wait(&self, now: Instant) -> Duration {
        self.with(Duration::ZERO, |bucket| bucket.wait(now, BLOCK_LEN as usize))
    }

    /// Blocks to move at once, at most `most`: an eighth of a second's worth, or slow links would stutter.
    pub fn batch(&self, most: usize) -> usize {
        match self.rate {
            None => most,
            Some(rate) => usize::try_from(rate / 8 / u64::from(BLOCK_LEN)).unwrap_or(most).clamp(1, most),
        }
    }
}
