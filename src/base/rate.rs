use std::time::{Duration, Instant};

/// Slots over which a rate is averaged, five seconds in all: long enough to be calm, short enough to follow a change of sender.
const WINDOW: u32 = 20;
/// Length of one slot of the window.
const SLOT: Duration = Duration::from_millis(250);

/// Bytes per second over the last five seconds, and in total.
#[derive(Clone, Debug)]
pub struct RateMeter {
    slots: [u64; WINDOW as usize],
    /// Number of the current slot, counted from `start`.
    current: u64,
    start: Instant,
    total: u64,
}

impl RateMeter {
    /// Nothing counted so far.
    pub fn new(now: Instant) -> Self {
        Self { slots: [0; WINDOW as usize], current: 0, start: now, total: 0 }
    }

    fn advance(&mut self, now: Instant) {
        let slot = slot_number(now.saturating_duration_since(self.start));
        let passed = slot.saturating_sub(self.current);
        for i in 0..passed.min(u64::from(WINDOW)) {
            self.slots[index(self.current + 1 + i)] = 0;
        }
        self.current = self.current.max(slot);
    }

    /// `bytes` went by.
    pub fn add(&mut self, now: Instant, bytes: u64) {
        self.advance(now);
        self.slots[index(self.current)] += bytes;
        self.total += bytes;
    }

    /// Bytes per second; over the time since the start when that is shorter than the window.
    pub fn rate(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let sum: u64 = self.slots.iter().sum();
        // The current slot is only partly over.
        let elapsed = now.saturating_duration_since(self.start);
        let into_slot = elapsed.saturating_sub(SLOT * u32::try_from(self.current).unwrap_or(u32::MAX));
        let window = (SLOT * (WINDOW - 1) + into_slot).min(elapsed).max(SLOT);
        u64::try_from(u128::from(sum) * 1_000_000 / window.as_micros().max(1)).unwrap_or(u64::MAX)
    }

    /// All bytes since the start.
    pub fn total(&self) -> u64 {
        self.total
    }
}

fn slot_number(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos() / SLOT.as_nanos()).unwrap_or(u64::MAX)
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % u64::from(WINDOW)).unwrap_or(0)
}

/// Smoothed round-trip time (RFC 6298, section 2) with the lowest value seen.
#[derive(Clone, Debug, Default)]
pub struct RttMeter {
    smoothed: Option<Duration>,
    variation: Duration,
    lowest: Option<Duration>,
}

impl RttMeter {
    /// One measured round trip.
    pub fn add(&mut self, sample: Duration) {
        self.lowest = Some(self.lowest.map_or(sample, |low| low.min(sample)));
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// The smoothed round trip, once something was measured.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The shortest round trip seen.
    pub fn lowest(&self) -> Option<Duration> {
        self.lowest
    }

    /// Smoothed round trip plus four times its variation: past it, something is wrong.
    pub fn timeout(&self) -> Option<Duration> {
        self.smoothed.map(|s| s + self.variation * 4)
    }
}

/// Lets bytes pass at a rate. Time is passed in; grants may be partial.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// Bytes per second; `None` is no limit.
    rate: Option<u64>,
    /// Bytes that may pass now. Negative after a grant that was taken in advance.
    tokens: f64,
    last: Instant,
}

impl TokenBucket {
    /// How much may pass at once after a quiet time: this share of a second's worth...
    const BURST_SECONDS: f64 = 0.25;
    /// ...but always some blocks, or a low limit could never send one.
    const MIN_BURST: f64 = 32_768.0;

    /// A bucket of `rate` bytes per second, `None` for no limit.
    pub fn new(now: Instant, rate: Option<u64>) -> Self {
        let mut bucket = Self { rate, tokens: 0.0, last: now };
        bucket.tokens = bucket.burst();
        bucket
    }

    /// Changes the rate from `now` on.
    pub fn set_rate(&mut self, now: Instant, rate: Option<u64>) {
        self.refill(now);
        self.rate = rate;
        self.tokens = self.tokens.min(self.burst());
    }

    /// The rate in bytes per second.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate is no ledger")]
    fn per_second(&self) -> f64 {
        self.rate.map_or(f64::INFINITY, |r| r as f64)
    }

    fn burst(&self) -> f64 {
        (self.per_second() * Self::BURST_SECONDS).max(Self::MIN_BURST)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = self.last.max(now);
        if self.rate.is_some() && elapsed > 0.0 {
            self.tokens = (self.tokens + elapsed * self.per_second()).min(self.burst());
        }
    }

    /// How many of `want` bytes may pass now; they are taken.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped to 0..=want"
    )]
    pub fn take(&mut self, now: Instant, want: usize) -> usize {
        if self.rate.is_none() {
            return want;
        }
        self.refill(now);
        let granted = self.tokens.clamp(0.0, want as f64) as usize;
        self.tokens -= granted as f64;
        granted
    }

    /// Takes `bytes` that have already gone by, into debt if need be.
    #[expect(clippy::cast_precision_loss, reason = "a rate is no ledger")]
    pub fn spend(&mut self, now: Instant, bytes: usize) {
        if self.rate.is_some() {
            self.refill(now);
            self.tokens -= bytes as f64;
        }
    }

    /// How long from `now` until `want` bytes (or a full burst, if less) may pass; zero if now.
    #[expect(clippy::cast_precision_loss, reason = "a rate is no ledger")]
    pub fn wait(&mut self, now: Instant, want: usize) -> Duration {
        if self.rate.is_none() {
            return Duration::ZERO;
        }
        self.refill(now);
        let missing = (want as f64).min(self.burst()) - self.tokens;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        let seconds = missing / self.per_second().max(1.0);
        Duration::from_secs_f64(seconds.min(3600.0))
    }
}

/// Lets events pass one by one: so many at once after a quiet time, later one per interval.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval: Duration,
    burst: u32,
    /// When all events so far would have passed, had they come an interval apart.
    paid_until: Option<Instant>,
}

impl Pace {
    /// One per `interval`, `burst` at once (at least 1).
    pub fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst: burst.max(1), paid_until: None }
    }

    /// Whether an event may pass now; it counts if it may.
    pub fn take(&mut self, now: Instant) -> bool {
        let may = self.wait(now).is_zero();
        if may {
            self.paid_until = Some(self.paid_until.map_or(now, |paid| paid.max(now)) + self.interval);
        }
        may
    }

    /// How long from `now` until the next event may pass; zero if now.
    pub fn wait(&self, now: Instant) -> Duration {
        let owed = self.paid_until.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now));
        owed.saturating_sub(self.interval.saturating_mul(self.burst - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn steady_rate_is_measured() {
        let start = Instant::now();
        let mut meter = RateMeter::new(start);
        for i in 0..1_000 {
            meter.add(start + ms(i * 10), 10_000);
        }
        let rate = meter.rate(start + ms(10_000));
        assert!((950_000..=1_050_000).contains(&rate), "{rate}");
        assert_eq!(meter.rate(start + ms(60_000)), 0);
        assert_eq!(meter.total(), 10_000_000);
    }

    #[test]
    fn bucket_holds_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start, Some(1_000_000));
        let mut passed = 0;
        for i in 0..10_000 {
            passed += bucket.take(start + ms(i), 16_384);
        }
        assert!((9_900_000..=10_300_000).contains(&passed), "{passed}");
    }

    #[test]
    fn bucket_wait_is_enough() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start, Some(10_000));
        bucket.spend(start, 50_000);
        let wait = bucket.wait(start, 16_384);
        assert!(bucket.take(start + wait, 16_384) >= 16_383);
        let mut free = TokenBucket::new(start, None);
        assert_eq!((free.take(start, 1 << 30), free.wait(start, 1 << 30)), (1 << 30, Duration::ZERO));
    }

    #[test]
    fn rtt_follows() {
        let mut rtt = RttMeter::default();
        assert_eq!(rtt.smoothed(), None);
        for _ in 0..50 {
            rtt.add(ms(40));
        }
        assert_eq!((rtt.smoothed(), rtt.lowest()), (Some(ms(40)), Some(ms(40))));
        rtt.add(ms(400));
        assert!(rtt.smoothed() > Some(ms(80)) && rtt.timeout() > Some(ms(400)));
    }

    #[test]
    fn paced_events() {
        let t0 = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(10), 3);
        assert_eq!((0..5).filter(|_| pace.take(t0)).count(), 3);
        assert_eq!(pace.wait(t0), Duration::from_secs(10));
        assert!(!pace.take(t0 + Duration::from_secs(9)));
        assert!(pace.take(t0 + Duration::from_secs(10)));
        assert!(!pace.take(t0 + Duration::from_secs(10)));
        let later = t0 + Duration::from_secs(1_000);
        assert_eq!((0..5).filter(|_| pace.take(later)).count(), 3, "quiet times are not saved up beyond the burst");
        let passed = (0..1_000u64).filter(|s| pace.take(later + Duration::from_secs(*s))).count();
        assert_eq!(passed, 99);
    }
}
