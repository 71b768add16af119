//! How much may be under way: LEDBAT (RFC 6817), which keeps the queues on the path below a tenth of a second and gives
//! way to whoever else fills them.
//!
//! Where RFC 6817 is known to fall short, the remedies of LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus) are taken:
//! - slow start ends when a queue begins to build, not when it overflows;
//! - near the target the window shrinks in proportion, so that flows come to equal shares: by the rule of RFC 6817 alone
//!   any division of the path is as good as any other once the queue has the right length;
//! - now and then the window is cut for a round trip, so that queues run empty and the base delay can be seen. Without it,
//!   a flow that comes to a path in use takes the others' queue for the path, and pushes them out.

use std::time::{Duration, Instant};

use super::rtt::RoundTrip;

/// Time that packets may wait in queues, in microseconds (BEP 29, RFC 6817).
pub(super) const TARGET: u32 = 100_000;

/// What a window grows per round trip while queues are empty, in bytes. BEP 29 says some packets; this is what all
/// clients use.
const GAIN: u64 = 3000;

/// From this delay on the window shrinks in proportion to its size, too. Where that and the gain cancel out is below the
/// target, and is the same window for all who share a queue.
const SHRINK: u32 = TARGET / 4 * 3;

/// Packets of the first window (RFC 6928), and of the least (RFC 6817).
const INITIAL_WINDOW: u64 = 10;
const MIN_WINDOW: u64 = 2;

/// Nothing gets larger than this, in bytes.
pub(super) const MAX_WINDOW: u64 = 16 << 20;

/// Round trips, at their present length, from one look at the empty path to the next, within bounds.
const DRAIN_INTERVAL: u32 = 30;
const DRAIN_INTERVAL_MIN: Duration = Duration::from_secs(2);
const DRAIN_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// A congestion window.
#[derive(Debug)]
pub(super) struct Ledbat {
    window: u64,
    /// Below this the window grows by what is acknowledged.
    threshold: u64,
    /// The length of a full packet's payload.
    segment: u64,
    /// What of past changes was less than a byte, times the window.
    remainder: i64,
    drain: Drain,
    /// Window and threshold before the last loss.
    before_loss: Option<(u64, u64)>,
}

/// Looking at the empty path.
#[derive(Clone, Copy, Debug)]
enum Drain {
    /// Not before the first slow start is over.
    Never,
    /// Not before this.
    After(Instant),
    /// Queues run empty until then; after that the window is again what it was.
    Until(Instant, u64),
}

impl Ledbat {
    /// For packets of `segment` bytes of payload.
    pub(super) fn new(segment: u64) -> Self {
        Self {
            window: INITIAL_WINDOW * segment,
            threshold: MAX_WINDOW,
            segment,
            remainder: 0,
            drain: Drain::Never,
            before_loss: None,
        }
    }

    /// Bytes of payload that may be under way.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Packets have another length from now on.
    pub(super) fn set_segment(&mut self, segment: u64) {
        self.segment = segment;
        self.bound();
    }

    /// `acked` bytes have arrived. `queueing` is the time that packets wait, if it is known, in microseconds. `limited`:
    /// more would have been sent had the window been larger.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        acked: u64,
        queueing: Option<u32>,
        limited: bool,
        round_trip: &RoundTrip,
    ) {
        if self.drains(now, queueing, round_trip) || acked == 0 {
            return;
        }
        let delay = queueing.unwrap_or(0);
        if self.in_slow_start() {
            if delay < TARGET / 2 {
                if limited {
                    self.window = (self.window + acked).min(self.threshold);
                    self.bound();
                }
                return;
            }
            self.leave_slow_start(now, round_trip);
        }
        let target = u64::from(TARGET);
        let gain = if limited { GAIN * u64::from(TARGET.saturating_sub(delay)) / target } else { 0 };
        let excess = self.window.saturating_mul(delay.saturating_sub(SHRINK).into()) / target;
        let per_round_trip = gain.cast_signed() - excess.min(self.window / 2).cast_signed();
        let window = self.window.cast_signed();
        self.remainder += per_round_trip * acked.min(self.window).cast_signed();
        self.window = self.window.saturating_add_signed(self.remainder / window);
        self.remainder %= window;
        self.bound();
    }

    /// Whether queues are running empty. Begins and ends that.
    fn drains(&mut self, now: Instant, queueing: Option<u32>, round_trip: &RoundTrip) -> bool {
        let Some(smoothed) = round_trip.smoothed() else { return false };
        match self.drain {
            Drain::Never => false,
            // Without a queue there is nothing to look behind.
            Drain::After(due) if now < due || self.in_slow_start() || queueing.is_none_or(|q| q < TARGET / 4) => false,
            Drain::After(_) => {
                // Half of what the path holds without queues, so that these empty while the line stays busy.
                let queue = Duration::from_micros(queueing.unwrap_or(0).into()).min(smoothed);
                let path = u128::from(self.window) * (smoothed - queue).as_micros() / smoothed.as_micros().max(1);
                self.drain = Drain::Until(now + smoothed + round_trip.least().unwrap_or(smoothed), self.window);
                self.window = u64::try_from(path / 2).unwrap_or(u64::MAX);
                self.bound();
                true
            }
            Drain::Until(end, _) if now < end => true,
            Drain::Until(_, window) => {
                self.window = window;
                self.threshold = window;
                let interval = (smoothed * DRAIN_INTERVAL).clamp(DRAIN_INTERVAL_MIN, DRAIN_INTERVAL_MAX);
                self.drain = Drain::After(now + interval);
                false
            }
        }
    }

    fn leave_slow_start(&mut self, now: Instant, round_trip: &RoundTrip) {
        self.threshold = self.window;
        self.remainder = 0;
        if matches!(self.drain, Drain::Never) {
            // The first look comes early: the base delay is only as old as this connection.
            self.drain = Drain::After(now + round_trip.smoothed().unwrap_or_default() * 2);
        }
    }

    /// Packets were lost that were sent since the last time.
    pub(super) fn on_loss(&mut self, now: Instant, queueing: Option<u32>, round_trip: &RoundTrip) {
        if self.in_slow_start() {
            self.leave_slow_start(now, round_trip);
        }
        self.before_loss = Some((self.window, self.threshold));
        // Half, as RFC 6817 says, if there is a queue that may have overflown. A loss out of the blue is more likely
        // none of our doing: what TCP gives up then (RFC 9438) is enough.
        let keep = |window: u64| if queueing.is_some_and(|q| q < TARGET / 4) { window / 10 * 7 } else { window / 2 };
        if let Drain::Until(end, window) = self.drain {
            self.drain = Drain::Until(end, keep(window));
        } else {
            self.window = keep(self.window);
        }
        self.bound();
        self.threshold = self.window;
    }

    /// The last loss was none: the packets came late, out of order.
    pub(super) fn undo_loss(&mut self) {
        if let Some((window, threshold)) = self.before_loss.take() {
            self.window = self.window.max(window);
            self.threshold = self.threshold.max(threshold);
        }
    }

    /// Nothing came back for a long time.
    pub(super) fn on_timeout(&mut self) {
        let window = if let Drain::Until(_, window) = self.drain { window } else { self.window };
        self.threshold = (window / 2).max(MIN_WINDOW * self.segment);
        self.window = MIN_WINDOW * self.segment;
        self.before_loss = None;
        if let Drain::Until(end, _) = self.drain {
            self.drain = Drain::After(end);
        }
    }

    /// Nothing was sent for a long time: what is known of the path is old.
    pub(super) fn on_idle(&mut self) {
        let initial = INITIAL_WINDOW * self.segment;
        if self.window > initial {
            self.threshold = self.threshold.min(MAX_WINDOW).max(self.window);
            self.window = initial;
        }
    }

    fn bound(&mut self) {
        self.window = self.window.clamp(MIN_WINDOW * self.segment, MAX_WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1400;
    const RTT: Duration = Duration::from_millis(50);

    fn round_trip(now: Instant) -> RoundTrip {
        let mut round_trip = RoundTrip::new(now);
        round_trip.add(now, RTT);
        round_trip
    }

    /// A window's worth of acknowledgements, one packet each.
    fn one_round_trip(ledbat: &mut Ledbat, now: Instant, queueing: u32) {
        for _ in 0..ledbat.window() / SEGMENT {
            ledbat.on_ack(now, SEGMENT, Some(queueing), true, &round_trip(now));
        }
    }

    fn past_slow_start(now: Instant, window: u64) -> Ledbat {
        let mut ledbat = Ledbat::new(SEGMENT);
        ledbat.window = window;
        ledbat.leave_slow_start(now, &round_trip(now));
        ledbat.drain = Drain::After(now + Duration::from_secs(1000));
        ledbat
    }

    #[test]
    fn slow_start_doubles_until_a_queue_shows() {
        let now = Instant::now();
        let mut ledbat = Ledbat::new(SEGMENT);
        one_round_trip(&mut ledbat, now, 0);
        assert_eq!(ledbat.window(), 2 * INITIAL_WINDOW * SEGMENT);
        one_round_trip(&mut ledbat, now, TARGET / 2);
        assert!(!ledbat.in_slow_start() && ledbat.window() < 3 * INITIAL_WINDOW * SEGMENT);
    }

    #[test]
    fn the_window_follows_the_distance_from_the_target() {
        let now = Instant::now();
        // Queueing, and what a round trip adds to a window of 100 packets.
        let table =
            [(0, 3000), (TARGET / 2, 1500), (TARGET, -35_000), (TARGET * 5 / 4, -70_000), (TARGET * 4, -70_000)];
        for (queueing, change) in table {
            let mut ledbat = past_slow_start(now, 100 * SEGMENT);
            one_round_trip(&mut ledbat, now, queueing);
            let changed = ledbat.window().cast_signed() - 100 * SEGMENT.cast_signed();
            let error = (changed - change).abs();
            assert!(error <= change.abs() / 3 && changed.signum() == change.signum(), "{queueing}: {changed}");
        }
        let mut ledbat = past_slow_start(now, 100 * SEGMENT);
        ledbat.on_ack(now, SEGMENT, Some(0), false, &round_trip(now));
        assert_eq!(ledbat.window(), 100 * SEGMENT, "it does not grow unless it is in the way");
        for _ in 0..1000 {
            one_round_trip(&mut ledbat, now, 1_000_000);
        }
        assert_eq!(ledbat.window(), MIN_WINDOW * SEGMENT);
    }

    #[test]
    fn losses_cost_and_false_ones_are_given_back() {
        let now = Instant::now();
        let mut ledbat = past_slow_start(now, 100 * SEGMENT);
        ledbat.on_loss(now, Some(TARGET / 2), &round_trip(now));
        assert_eq!(ledbat.window(), 50 * SEGMENT);
        ledbat.undo_loss();
        assert_eq!(ledbat.window(), 100 * SEGMENT);
        ledbat.undo_loss();
        ledbat.on_loss(now, Some(0), &round_trip(now));
        assert_eq!(ledbat.window(), 70 * SEGMENT);
        ledbat.on_timeout();
        assert_eq!(ledbat.window(), MIN_WINDOW * SEGMENT);
        assert!(ledbat.in_slow_start() && ledbat.threshold == 35 * SEGMENT);
        for _ in 0..10 {
            one_round_trip(&mut ledbat, now, 0);
        }
        assert!(!ledbat.in_slow_start() && ledbat.window() < 60 * SEGMENT);
    }

    #[test]
    fn the_path_is_looked_at_without_its_queue() {
        let now = Instant::now();
        let mut ledbat = past_slow_start(now, 100 * SEGMENT);
        ledbat.drain = Drain::After(now);
        ledbat.on_ack(now, SEGMENT, Some(TARGET / 8), true, &round_trip(now));
        assert!(ledbat.window() >= 100 * SEGMENT, "no queue, no need");
        // Of 50 ms 25 are queue: the path holds half the window, half of that is used.
        ledbat.on_ack(now, SEGMENT, Some(TARGET / 4), true, &round_trip(now));
        assert!((24 * SEGMENT..=26 * SEGMENT).contains(&ledbat.window()), "{}", ledbat.window());
        one_round_trip(&mut ledbat, now + RTT, 0);
        assert!(ledbat.window() <= 26 * SEGMENT);
        one_round_trip(&mut ledbat, now + RTT * 2, 0);
        assert!((100 * SEGMENT..105 * SEGMENT).contains(&ledbat.window()), "{}", ledbat.window());
    }

    #[test]
    fn no_number_overflows() {
        let now = Instant::now();
        let mut ledbat = past_slow_start(now, MAX_WINDOW);
        for queueing in [0, 1, TARGET, u32::MAX] {
            ledbat.on_ack(now, u64::MAX, Some(queueing), true, &round_trip(now));
            ledbat.on_loss(now, Some(queueing), &round_trip(now));
        }
        ledbat.on_idle();
        ledbat.set_segment(1);
        assert!(ledbat.window() >= MIN_WINDOW);
    }
}
