//! So many per second of what costs something.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Lets so many pass per second, after a few at once; the others wait.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    burst: u32,
    /// When the next may pass, less the burst.
    next: Mutex<Instant>,
}

impl Pace {
    /// `per_second`, at least 1, after `burst` at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), burst, next: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn.
    pub async fn turn(&self) {
        let turn = self.reserve(None);
        sleep_until(turn.unwrap_or_else(Instant::now)).await;
    }

    /// Waits for a turn, unless it would be longer than `most`: then false, at once.
    pub async fn turn_within(&self, most: Duration) -> bool {
        match self.reserve(Some(most)) {
            Some(turn) => sleep_until(turn).await,
            None => return false,
        }
        true
    }

    fn reserve(&self, most: Option<Duration>) -> Option<Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earliest = now.checked_sub(self.interval * self.burst).unwrap_or(now);
        let turn = (*next).max(earliest) + self.interval;
        if most.is_some_and(|most| turn > now + most) {
            return None;
        }
        *next = turn;
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_at_once_and_then_one_by_one() {
        let pace = Pace::new(10, 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for n in 0..25_u32 {
            pace.turn().await;
            let due = Duration::from_millis(100) * n.saturating_sub(4);
            assert!(start.elapsed() >= due && start.elapsed() < due + Duration::from_millis(10), "{n}");
        }
        let second = Duration::from_secs(1);
        let waiting = std::iter::from_fn(|| pace.reserve(Some(second))).take(100).count();
        assert_eq!(waiting, 10, "those who would wait longer are not let in");
        assert!(!pace.turn_within(second).await);
        tokio::time::advance(second).await;
        assert!(pace.turn_within(second).await);
    }
}
