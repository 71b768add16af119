//! How long our packets wait in queues on their way, by the delays that the other side reports.
//!
//! What is reported is the difference of two clocks that nobody has set: only changes mean something. The least value
//! of some minutes, the *base delay*, is taken for a path with empty queues; what is above it is time spent in queues
//! (RFC 6817, section 2.4.2).

use std::time::{Duration, Instant};

/// Minutes that the base delay is remembered (`BASE_HISTORY` of RFC 6817).
const BASE_HISTORY: usize = 10;

/// What one entry of the history spans.
const STEP: Duration = Duration::from_secs(60);

/// The least of so many samples counts, which takes out what the other side's scheduler adds (`CURRENT_FILTER`).
const FILTER: usize = 4;

/// Corrections for clocks that run apart are at most so large at a time, in microseconds; more is something else.
const MAX_DRIFT: u32 = 10_000;

/// Delays of one direction.
#[derive(Debug)]
pub(super) struct DelayHistory {
    /// The least sample of each minute, the current one first. Raw: microseconds modulo 2^32.
    minutes: [u32; BASE_HISTORY],
    known: bool,
    next_step: Instant,
    /// The last samples, above the base.
    recent: [u32; FILTER],
    at: usize,
}

/// Whether `a` is less than `b`, where both count modulo 2^32.
fn less(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > u32::MAX / 2
}

impl DelayHistory {
    pub(super) fn new(now: Instant) -> Self {
        Self { minutes: [0; BASE_HISTORY], known: false, next_step: now + STEP, recent: [u32::MAX; FILTER], at: 0 }
    }

    /// The base delay, raw, if there was a sample yet.
    fn base(&self) -> Option<u32> {
        let first = self.known.then_some(self.minutes[0])?;
        Some(self.minutes.iter().fold(first, |base, &minute| if less(minute, base) { minute } else { base }))
    }

    /// Takes a sample in. Returns by how much the base delay has sunk.
    pub(super) fn add(&mut self, now: Instant, sample: u32) -> u32 {
        let Some(before) = self.base() else {
            self.minutes = [sample; BASE_HISTORY];
            self.known = true;
            self.next_step = now + STEP;
            self.recent[0] = 0;
            return 0;
        };
        if now >= self.next_step {
            self.next_step = now + STEP;
            self.minutes.rotate_right(1);
            self.minutes[0] = sample;
        } else if less(sample, self.minutes[0]) {
            self.minutes[0] = sample;
        }
        let base = self.base().unwrap_or(before);
        self.at = (self.at + 1) % FILTER;
        self.recent[self.at] = sample.wrapping_sub(base);
        if less(base, before) { before.wrapping_sub(base) } else { 0 }
    }

    /// Raises the base delay, as when the clocks are found to run apart. At most ten milliseconds at a time.
    pub(super) fn shift(&mut self, by: u32) {
        if by <= MAX_DRIFT {
            self.raise(by);
        }
    }

    /// A packet cannot wait for longer than its round trip took: what is above that is a wrong base.
    pub(super) fn cap(&mut self, round_trip: Duration) {
        let most = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
        if let Some(excess) = self.queueing_micros().and_then(|delay| delay.checked_sub(most)) {
            self.raise(excess);
        }
    }

    fn raise(&mut self, by: u32) {
        self.minutes.iter_mut().for_each(|minute| *minute = minute.wrapping_add(by));
        self.recent.iter_mut().filter(|delay| **delay != u32::MAX).for_each(|delay| *delay = delay.saturating_sub(by));
    }

    /// The time that packets wait at present, in microseconds; nothing until there was a sample.
    pub(super) fn queueing_micros(&self) -> Option<u32> {
        self.recent.iter().copied().min().filter(|_| self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u32 = 1000;

    #[test]
    fn what_is_above_the_least_of_minutes_is_queueing() {
        // Clocks that are nowhere near each other, and a counter about to wrap.
        let start = Instant::now();
        let zero = u32::MAX - 5 * MS;
        let mut history = DelayHistory::new(start);
        assert_eq!(history.queueing_micros(), None);
        history.add(start, zero.wrapping_add(20 * MS));
        assert_eq!(history.queueing_micros(), Some(0));
        assert_eq!(history.add(start, zero), 20 * MS);
        for _ in 0..FILTER {
            history.add(start, zero.wrapping_add(30 * MS));
        }
        assert_eq!(history.queueing_micros(), Some(30 * MS));
        // One packet that was lucky is believed.
        history.add(start, zero.wrapping_add(10 * MS));
        assert_eq!(history.queueing_micros(), Some(10 * MS));
    }

    #[test]
    fn the_base_is_forgotten_after_ten_minutes() {
        let start = Instant::now();
        let mut history = DelayHistory::new(start);
        history.add(start, 100);
        let at = |minutes: u32| start + STEP * minutes;
        for minute in 1..10 {
            history.add(at(minute), 50_100);
            assert_eq!(history.base(), Some(100), "{minute}");
        }
        history.add(at(10), 50_100);
        assert_eq!(history.base(), Some(50_100));
    }

    #[test]
    fn clocks_that_run_apart_are_followed() {
        let start = Instant::now();
        let mut history = DelayHistory::new(start);
        history.add(start, 1000);
        history.shift(500);
        assert_eq!(history.base(), Some(1500));
        history.shift(MAX_DRIFT + 1);
        assert_eq!(history.base(), Some(1500));
        for _ in 0..FILTER {
            history.add(start, 901_500);
        }
        history.cap(Duration::from_millis(40));
        assert_eq!(history.queueing_micros(), Some(40_000));
    }
}
