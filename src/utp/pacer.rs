//! Spreads a window over its round trip, so that what is sent does not arrive as one burst that a short queue drops.

use std::time::{Duration, Instant};

/// What may go at once however slow the path is, in packets.
const BURST_PACKETS: u64 = 4;

/// What may go at once on a fast path, as the time that sending it may take: timers are not exact.
const BURST_TIME: Duration = Duration::from_millis(4);

/// Shorter round trips are not paced: timers are too coarse, and such paths are within one machine or room.
const SHORTEST: Duration = Duration::from_millis(2);

/// An allowance of bytes that grows with time.
#[derive(Debug)]
pub(super) struct Pacer {
    allowance: u64,
    at: Instant,
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Self {
        Self { allowance: u64::MAX, at: now }
    }

    /// Whether `len` bytes may go, or when they may. `window` bytes may be under way, for `round_trip`; twice or five
    /// quarters of that rate is allowed (RFC 9002, section 7.7), so that it is the window that limits.
    pub(super) fn may_send(
        &mut self,
        now: Instant,
        len: u64,
        segment: u64,
        window: u64,
        round_trip: Option<Duration>,
        in_slow_start: bool,
    ) -> Result<(), Instant> {
        let Some(round_trip) = round_trip.filter(|round_trip| *round_trip >= SHORTEST) else {
            self.allowance = u64::MAX;
            return Ok(());
        };
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX).max(1);
        let per_round_trip = if in_slow_start { window * 2 } else { window / 4 * 5 }.max(segment);
        let within = |time: Duration| {
            let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            per_round_trip.saturating_mul(time.min(micros)) / micros
        };
        let burst = within(BURST_TIME).max(BURST_PACKETS * segment);
        self.allowance = self.allowance.saturating_add(within(now.saturating_duration_since(self.at))).min(burst);
        self.at = now;
        if self.allowance >= len {
            return Ok(());
        }
        // Not for each packet: a millisecond's worth at a time.
        let missing = within(Duration::from_millis(1)).clamp(len, burst) - self.allowance;
        Err(now + Duration::from_micros(missing.saturating_mul(micros) / per_round_trip + 1))
    }

    /// `len` bytes have gone.
    pub(super) fn spend(&mut self, len: u64) {
        self.allowance = self.allowance.saturating_sub(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_most_of_its_round_trip() {
        let start = Instant::now();
        let round_trip = Duration::from_millis(50);
        let (segment, window) = (1000, 500_000);
        let mut pacer = Pacer::new(start);
        let (mut now, mut sent, mut waits) = (start, 0, 0);
        while sent < window {
            match pacer.may_send(now, segment, segment, window, Some(round_trip), false) {
                Ok(()) => {
                    pacer.spend(segment);
                    sent += segment;
                }
                Err(until) => {
                    assert!(until > now);
                    now = until;
                    waits += 1;
                }
            }
        }
        let took = now - start;
        assert!(took > round_trip / 2 && took < round_trip, "{took:?}");
        assert!(waits < 60, "{waits}");
        // Not on a short path.
        assert_eq!(pacer.may_send(now, window, segment, window, Some(SHORTEST / 2), false), Ok(()));
    }
}
