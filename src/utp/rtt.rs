//! How long packets take there and back, and when to give one up for lost (RFC 6298).

use std::time::{Duration, Instant};

/// Before anything was measured (BEP 29).
const INITIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// BEP 29, and RFC 6298 says why so long: acknowledgements are delayed, too.
const MIN_TIMEOUT: Duration = Duration::from_millis(500);

/// However often it was doubled.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the least round trip is remembered.
const MIN_HISTORY: Duration = Duration::from_secs(60);

/// Round trips of one path.
#[derive(Debug)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    least: Duration,
    least_at: Instant,
}

impl RoundTrip {
    pub(super) fn new(now: Instant) -> Self {
        Self { smoothed: None, variation: Duration::ZERO, least: Duration::MAX, least_at: now }
    }

    /// A packet that was sent once was acknowledged after `sample`.
    pub(super) fn add(&mut self, now: Instant, sample: Duration) {
        if sample <= self.least || now.saturating_duration_since(self.least_at) > MIN_HISTORY {
            self.least = sample;
            self.least_at = now;
        }
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            return;
        };
        self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
    }

    /// The average, if there is one.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The least of late, if there is one.
    pub(super) fn least(&self) -> Option<Duration> {
        self.smoothed.map(|_| self.least)
    }

    /// After how long without an answer everything is taken for lost, where it was doubled `backoff` times.
    pub(super) fn timeout(&self, backoff: u32) -> Duration {
        let once = self
            .smoothed
            .map_or(INITIAL_TIMEOUT, |smoothed| (smoothed + self.variation * 4).clamp(MIN_TIMEOUT, MAX_TIMEOUT));
        once.saturating_mul(1 << backoff.min(16)).min(MAX_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_follow_the_round_trip() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let mut rtt = RoundTrip::new(now);
        assert_eq!((rtt.timeout(0), rtt.timeout(2)), (INITIAL_TIMEOUT, INITIAL_TIMEOUT * 4));
        rtt.add(now, ms(400));
        assert_eq!((rtt.smoothed(), rtt.timeout(0)), (Some(ms(400)), ms(1200)));
        for _ in 0..100 {
            rtt.add(now, ms(20));
        }
        assert!(rtt.smoothed().unwrap() < ms(21) && rtt.least() == Some(ms(20)));
        assert_eq!(rtt.timeout(0), MIN_TIMEOUT);
        assert_eq!(rtt.timeout(60), MAX_TIMEOUT);
        rtt.add(now + MIN_HISTORY * 2, ms(30));
        assert_eq!(rtt.least(), Some(ms(30)));
    }
}
