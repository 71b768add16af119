//! When a socket is looked at again. Packets that trickle in one after the other cost much less by the dozen: each look
//! wakes this task, then those who read what came, then this task for what they answer. So where packets come steadily, but
//! not so fast that they would pile up, the socket is left alone for a moment after each look, as network cards do.

use std::time::{Duration, Instant};

/// How long it is left alone. Far below what packets take on their way wherever lines are slow enough for this.
pub(super) const PAUSE: Duration = Duration::from_millis(1);

/// What a pause takes at most: timers are coarse.
const LONGEST: u32 = 2;

/// Packets and bytes are counted over so many milliseconds.
const SPAN: u32 = 10;

/// Fewer packets in that time are no stream.
const STREAM: usize = 20;

/// What may come in a pause, in bytes. A socket holds little more than 200,000 bytes unless the administrator allows more,
/// and counts each packet of 1,500 for more than 2,000.
const PILE: usize = 64 << 10;

/// Counts what goes over a socket.
#[derive(Debug)]
pub(super) struct Moderation {
    since: Instant,
    packets: usize,
    bytes: usize,
    pauses: bool,
}

impl Moderation {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, packets: 0, bytes: 0, pauses: false }
    }

    /// Packets with so many bytes in all have come or gone.
    pub(super) fn count(&mut self, packets: usize, bytes: usize) {
        self.packets += packets;
        self.bytes += bytes;
    }

    /// Whether to pause before the next look.
    pub(super) fn pauses(&mut self, now: Instant) -> bool {
        let millis = usize::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(usize::MAX);
        let (span, longest) = (SPAN as usize, LONGEST as usize);
        if millis >= span {
            let per_span = |count: usize| count.saturating_mul(span) / millis;
            self.pauses = per_span(self.packets) >= STREAM && per_span(self.bytes) <= PILE * span / longest;
            *self = Self { pauses: self.pauses, ..Self::new(now) };
        } else if self.bytes > PILE * span / longest {
            self.pauses = false;
        }
        self.pauses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether there are pauses after 50 ms of so many packets a millisecond.
    fn after(packets: usize, len: usize) -> bool {
        let start = Instant::now();
        let mut moderation = Moderation::new(start);
        let mut pauses = false;
        for milli in 1..=50 {
            moderation.count(packets, packets * len);
            pauses = moderation.pauses(start + Duration::from_millis(milli));
        }
        pauses
    }

    #[test]
    fn streams_are_taken_by_the_dozen_but_never_pile_up() {
        assert!(!after(0, 0));
        assert!(!after(1, 1500), "12 Mbit/s");
        assert!(after(2, 1500) && after(20, 1500), "24 to 240 Mbit/s");
        assert!(!after(22, 1500), "more than a socket may hold");
        assert!(after(8, 20), "acknowledgements alone");
        let start = Instant::now();
        let mut moderation = Moderation::new(start);
        moderation.count(100, 10_000);
        assert!(moderation.pauses(start + Duration::from_millis(10)));
        moderation.count(300, 400_000);
        assert!(!moderation.pauses(start + Duration::from_millis(11)), "a burst ends it at once");
        let mut moderation = Moderation::new(start);
        moderation.count(1, 1500);
        assert!(!moderation.pauses(start + Duration::from_secs(1)), "the first packet after silence");
    }
}
