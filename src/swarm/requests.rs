//! How many blocks to keep asked of one peer, and when to stop believing in it.
//!
//! The window is `rate x (round trip + margin)`, in blocks. The rate is what the peer delivers, measured over stretches of
//! at least a round trip; the round trip is the shortest time from request to block ever seen, because any other contains
//! the queue that we made ourselves. The margin is the largest of
//!
//! * one more round trip, so that the window can outgrow the rate it was measured with;
//! * [`MIN_MARGIN`]: peers with a rate limit send in ticks of 100 to 250 ms, their disks take breaks, and a window
//!   that runs dry between two ticks measures a lower rate, asks for less, and so starves itself;
//! * the longest pause between two blocks in the last seconds, up to [`MAX_MARGIN`]: ticks longer than that.
//!
//! ```text
//!   10 KB/s,  50 ms:   2 ..   4 blocks      10 MB/s, 200 ms: 300 blocks (bandwidth-delay product 122)
//!    1 MB/s,  50 ms:  22 blocks              1 GB/s,   1 ms: 500 blocks (the ceiling; 61)
//! ```
//!
//! Slow start: until the rate has settled, every block that did not wait in a queue at the peer opens the window by one,
//! which doubles it per round trip.
//!
//! Constant time per block, no allocation. Only full stretches count: when the picker had less to ask than the window
//! allows, a low rate says nothing about the peer.

use std::time::{Duration, Instant};

use crate::base::BLOCK_LEN;

/// The most blocks asked of one peer (limits.md, outbound request queue): 8 MiB under way.
pub const MAX_WINDOW: usize = 500;
/// Never fewer, so that the peer has the next request when it has answered one.
pub const MIN_WINDOW: usize = 2;
/// Before anything is known: some seconds' worth of a slow peer, one round trip lost with a fast one.
pub const START_WINDOW: usize = 4;
/// What a peer accepts that announced no `reqq` (BEP 10).
pub const DEFAULT_REQQ: usize = 250;
/// No block for so long while something is asked: snubbed, its blocks are asked elsewhere (limits.md).
pub const SNUB_TIME: Duration = Duration::from_secs(20);
/// No block for so long while something is asked: the connection is of no use (limits.md).
pub const DROP_TIME: Duration = Duration::from_secs(60);
/// Least time, beyond the round trip, that the requests under way last for.
pub const MIN_MARGIN: Duration = Duration::from_millis(300);
/// The most that pauses of the peer widen the margin.
pub const MAX_MARGIN: Duration = Duration::from_secs(2);

/// Shortest stretch over which a rate is measured while it grows: socket reads bring blocks in bursts.
const MIN_STRETCH: Duration = Duration::from_millis(1);
/// The same once the rate has settled.
const CALM_STRETCH: Duration = Duration::from_millis(100);
/// A stretch is over after so long, or two round trips, even if nothing has come that was asked for in it.
const LONG_STRETCH: Duration = Duration::from_millis(500);
/// So many stretches that brought less than a quarter more, and the rate has settled.
const FLAT_STRETCHES: u8 = 3;
/// After so long without a request, what was measured is old: start growing again.
const STALE: Duration = Duration::from_secs(5);
/// Pauses are remembered for one to two of these.
const PAUSE_PERIOD: Duration = Duration::from_secs(2);

/// The requests under way to one peer. See the [module](self).
#[derive(Clone, Debug)]
pub struct RequestWindow {
    outstanding: usize,
    reqq: usize,
    /// Blocks that should be under way.
    window: usize,
    /// Bytes per second; 0 while unknown.
    rate: u64,
    /// Shortest time from request to block.
    round_trip: Option<Duration>,
    /// The rate still rises with the window.
    growing: bool,
    flat: u8,
    stretch: Stretch,
    /// Longest pause in the period before this one, and in this one.
    pauses: [Duration; 2],
    pause_period: Instant,
    /// Last block, or the request that ended a time without requests.
    last: Instant,
    /// Silence under request before `last`; only data clears it, so neither chokes nor withdrawn requests do.
    silent_before: Duration,
}

/// Over what the rate is measured at present.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    start: Instant,
    bytes: u64,
    /// The window was used up at some time.
    full: bool,
}

impl Stretch {
    fn new(now: Instant, full: bool) -> Self {
        Self { start: now, bytes: 0, full }
    }
}

impl RequestWindow {
    /// Nothing asked yet, of a peer that queues up to `reqq` requests ([`DEFAULT_REQQ`] if it did not say).
    pub fn new(now: Instant, reqq: usize) -> Self {
        Self {
            outstanding: 0,
            reqq: reqq.max(1),
            window: START_WINDOW,
            rate: 0,
            round_trip: None,
            growing: true,
            flat: 0,
            stretch: Stretch::new(now, false),
            pauses: [Duration::ZERO; 2],
            pause_period: now,
            last: now,
            silent_before: Duration::ZERO,
        }
    }

    /// The peer announced how many requests it queues (`reqq`, BEP 10).
    pub fn set_reqq(&mut self, reqq: usize) {
        self.reqq = reqq.max(1);
    }

    /// `n` blocks have been asked for.
    pub fn asked(&mut self, now: Instant, n: usize) {
        if n == 0 {
            return;
        }
        if self.outstanding == 0 {
            // The time without requests says nothing about the peer.
            let idle = now.saturating_duration_since(self.last);
            if idle > STALE {
                self.growing = true;
                self.flat = 0;
                self.stretch = Stretch::new(now, false);
            } else {
                self.stretch.start += idle;
            }
            self.last = now;
        }
        self.outstanding = self.outstanding.saturating_add(n);
        self.stretch.full |= self.outstanding >= self.limit();
    }

    /// A block of `bytes` bytes came that was asked for at `asked_at`.
    pub fn answered(&mut self, now: Instant, bytes: u64, asked_at: Instant) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let took = now.saturating_duration_since(asked_at);
        self.round_trip = Some(self.round_trip.map_or(took, |least| least.min(took)));
        self.note_pause(now);
        self.last = now;
        self.silent_before = Duration::ZERO;

        self.stretch.bytes = self.stretch.bytes.saturating_add(bytes);
        let length = now.saturating_duration_since(self.stretch.start);
        let least = if self.growing { MIN_STRETCH } else { CALM_STRETCH };
        // A round trip is over when a block comes that was asked for after the stretch began, or the last one. In a long
        // queue that takes seconds, and a window that is wrong has to be seen to be wrong before.
        let queued = length >= LONG_STRETCH.max(self.round_trip.unwrap_or_default() * 2);
        if (asked_at > self.stretch.start || self.outstanding == 0 || queued) && length >= least {
            self.measure(length);
            self.stretch = Stretch::new(now, self.outstanding >= self.limit());
        }
        self.resize(took);
    }

    /// Bytes of a block under way came in: no block yet, but the peer is alive.
    pub fn heard(&mut self, now: Instant) {
        self.last = self.last.max(now);
        self.silent_before = Duration::ZERO;
    }

    /// `n` requests will not be answered any more: rejected, cancelled, choked, or given to somebody else.
    pub fn release(&mut self, now: Instant, n: usize) {
        self.outstanding = self.outstanding.saturating_sub(n);
        if n > 0 && self.outstanding == 0 {
            self.silent_before = self.silent_before.saturating_add(now.saturating_duration_since(self.last));
            self.last = now;
        }
    }

    /// Blocks under way.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Blocks that should be under way, 1 ..= [`MAX_WINDOW`].
    pub fn window(&self) -> usize {
        self.limit()
    }

    /// Blocks that may be asked for now. A peer that snubs us gets one request at a time, to find out when it is back.
    pub fn room(&self, now: Instant) -> usize {
        let limit = if self.is_snubbed(now) { 1 } else { self.limit() };
        limit.saturating_sub(self.outstanding)
    }

    /// Bytes per second that the peer delivers when asked for enough; `None` before a first measurement.
    pub fn rate(&self) -> Option<u64> {
        (self.rate > 0).then_some(self.rate)
    }

    /// Shortest time from request to block.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Time under request without data since the last data.
    fn silence(&self, now: Instant) -> Duration {
        let running = if self.outstanding > 0 { now.saturating_duration_since(self.last) } else { Duration::ZERO };
        self.silent_before.saturating_add(running)
    }

    /// The peer owes us blocks and has sent nothing for [`SNUB_TIME`]: ask for its blocks elsewhere too. Stays so until data
    /// comes.
    pub fn is_snubbed(&self, now: Instant) -> bool {
        self.silence(now) >= SNUB_TIME
    }

    /// The peer owes us blocks and has sent nothing for [`DROP_TIME`]: close the connection.
    pub fn is_dead(&self, now: Instant) -> bool {
        self.outstanding > 0 && self.silence(now) >= DROP_TIME
    }

    /// When to look again: the peer then becomes snubbed, or dead. `None` when nothing is asked, and when it is dead already.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.outstanding == 0 {
            return None;
        }
        let silence = self.silence(now);
        [SNUB_TIME, DROP_TIME].into_iter().find(|&limit| silence < limit).map(|limit| now + (limit - silence))
    }

    /// How long until all that is under way has come; `None` while nothing is known. Never less than the peer has been
    /// silent already: who paused for five seconds is expected to pause as long again.
    pub fn eta(&self, now: Instant) -> Option<Duration> {
        if self.outstanding == 0 {
            return Some(Duration::ZERO);
        }
        // The round trip contains the time that the first block takes.
        let behind = u64::try_from(self.outstanding - 1).unwrap_or(u64::MAX).saturating_mul(u64::from(BLOCK_LEN));
        let micros = u128::from(behind) * 1_000_000 / u128::from(self.rate()?);
        let queue = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        Some(queue.saturating_add(self.round_trip.unwrap_or_default()).max(self.silence(now)))
    }

    fn limit(&self) -> usize {
        self.window.min(self.reqq).min(MAX_WINDOW)
    }

    fn note_pause(&mut self, now: Instant) {
        if now.saturating_duration_since(self.pause_period) >= PAUSE_PERIOD {
            self.pauses = [self.pauses[1], Duration::ZERO];
            self.pause_period = now;
        }
        self.pauses[1] = self.pauses[1].max(now.saturating_duration_since(self.last));
    }

    /// A stretch of `length` is over: what does it say about the rate?
    fn measure(&mut self, length: Duration) {
        let sample = u128::from(self.stretch.bytes) * 1_000_000_000 / length.as_nanos().max(1);
        let sample = u64::try_from(sample).unwrap_or(u64::MAX).max(1);
        if self.growing {
            if self.stretch.full && length >= CALM_STRETCH && sample < self.rate / 2 {
                // What came before was a burst: a limit that is a token bucket, or what lay in buffers on the way.
                self.growing = false;
                self.rate = sample;
                return;
            }
            if sample > self.rate.saturating_add(self.rate / 4) {
                self.flat = 0;
            } else if self.stretch.full {
                self.flat += 1;
                self.growing = self.flat < FLAT_STRETCHES;
            }
            self.rate = self.rate.max(sample);
        } else if sample > self.rate {
            self.rate += (sample - self.rate) / 2;
        } else if self.stretch.full {
            self.rate -= (self.rate - sample) / 4;
        }
    }

    /// Sets the window after a block that took `took`.
    fn resize(&mut self, took: Duration) {
        let round_trip = self.round_trip.unwrap_or_default().min(MAX_MARGIN);
        let pause = self.pauses[0].max(self.pauses[1]);
        let margin = round_trip.max(MIN_MARGIN).max(pause).min(MAX_MARGIN);
        let bytes = u128::from(self.rate) * (round_trip + margin).as_micros() / 1_000_000;
        let blocks = usize::try_from(bytes.div_ceil(u128::from(BLOCK_LEN))).unwrap_or(MAX_WINDOW);
        // The peer has no queue yet worth speaking of: whatever the rate is, it is not the peer's best.
        let unfilled = self.growing && took <= round_trip + MIN_MARGIN.max(round_trip / 2);
        if unfilled {
            // One block at a time: the first blocks come in a burst, and what they say of the rate is more than there is.
            self.window = (self.window + 1).min(MAX_WINDOW);
        } else if self.rate > 0 {
            let most = if self.growing { self.window } else { MAX_WINDOW };
            self.window = blocks.clamp(MIN_WINDOW, most.max(MIN_WINDOW));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const BLOCK: u64 = 16_384;

    /// A peer that answers in order at `rate` bytes per second over a line of round trip `rtt`, in bursts every `tick`.
    struct Link {
        rtt: Duration,
        rate: u64,
        tick: Duration,
    }

    struct Outcome {
        /// Time until the window first reached the bandwidth-delay product.
        reached: Option<Duration>,
        /// Largest window in the second half.
        most: usize,
        /// Bytes per second in the second half.
        goodput: u64,
    }

    fn run(link: &Link, reqq: usize, length: Duration) -> Outcome {
        let t0 = Instant::now();
        let mut window = RequestWindow::new(t0, reqq);
        let bdp =
            usize::try_from((u128::from(link.rate) * link.rtt.as_micros() / 1_000_000).div_ceil(u128::from(BLOCK)));
        let bdp = bdp.unwrap();
        let mut under_way: VecDeque<(Instant, Instant)> = VecDeque::new(); // Asked at, comes at.
        let mut free_at = t0;
        let mut now = t0;
        let mut out = Outcome { reached: None, most: 0, goodput: 0 };
        let (mut bytes, half) = (0u64, t0 + length / 2);
        while now < t0 + length {
            let room = window.room(now);
            for _ in 0..room {
                free_at = free_at.max(now + link.rtt / 2) + Duration::from_nanos(BLOCK * 1_000_000_000 / link.rate);
                let since = (free_at - t0).as_nanos();
                let sent = since.div_ceil(link.tick.as_nanos().max(1)) * link.tick.as_nanos().max(1);
                let sent = t0 + Duration::from_nanos(u64::try_from(sent).unwrap());
                under_way.push_back((now, sent + link.rtt / 2));
            }
            window.asked(now, room);
            if out.reached.is_none() && window.outstanding() >= bdp.min(reqq) {
                out.reached = Some(now - t0);
            }
            now = under_way.front().unwrap().1;
            while let Some(&(asked_at, at)) = under_way.front()
                && at <= now
            {
                under_way.pop_front();
                window.answered(now, BLOCK, asked_at);
                bytes += if now > half { BLOCK } else { 0 };
            }
            if now > half {
                out.most = out.most.max(window.window());
            }
        }
        assert_eq!(window.outstanding(), under_way.len());
        out.goodput = u64::try_from(u128::from(bytes) * 1000 / (now - half).as_millis()).unwrap();
        out
    }

    #[test]
    fn window_follows_rate_and_round_trip() {
        let ms = Duration::from_millis;
        // Rate, round trip, tick, window within, product reached after at most so many round trips.
        let cases = [
            (1_000_000_000, ms(1), ms(0), 62..=500, 10),
            (10_000_000, ms(200), ms(0), 122..=366, 8),
            (10_000, ms(50), ms(0), 2..=4, 1),
            (1_000_000, ms(50), ms(0), 4..=32, 4),
            (100_000, ms(100), ms(0), 2..=8, 1),
            (50_000_000, ms(1), ms(0), 4..=500, 8),
            (1_000_000, ms(1000), ms(0), 62..=186, 8),
            // A peer whose limiter works in ticks is not starved by a window that runs dry between them.
            (1_000_000, ms(2), ms(100), 8..=40, 1),
            (2_000_000, ms(10), ms(250), 31..=80, 1),
            (1_000_000, ms(20), ms(500), 31..=80, 1),
            (500_000, ms(20), ms(1000), 31..=80, 1),
        ];
        for (rate, rtt, tick, bounds, trips) in cases {
            let out = run(&Link { rtt, rate, tick }, 2000, Duration::from_secs(60).min(rtt * 20_000));
            let what = format!("{rate} B/s, {rtt:?}, tick {tick:?}: {} blocks, {} B/s", out.most, out.goodput);
            assert!(bounds.contains(&out.most), "window: {what}");
            assert!(out.goodput >= rate / 100 * 95, "goodput: {what}");
            assert!(out.reached.is_some_and(|t| t <= rtt * trips), "reached after {:?}: {what}", out.reached);
        }
    }

    #[test]
    fn never_more_than_the_peer_queues() {
        let out = run(&Link { rtt: MS, rate: 1_000_000_000, tick: Duration::ZERO }, 50, MS * 500);
        assert_eq!(out.most, 50);
        let window = RequestWindow::new(Instant::now(), 0);
        assert_eq!(window.window(), 1);
    }

    #[test]
    fn snubbed_after_20_s_dead_after_60_s_alive_with_data() {
        let t0 = Instant::now();
        let at = |s: u64| t0 + Duration::from_secs(s);
        let mut w = RequestWindow::new(t0, 250);
        assert_eq!(w.deadline(t0), None);
        assert!(!w.is_snubbed(at(1000)), "nothing asked");
        w.asked(at(100), 4);
        assert_eq!(w.deadline(at(100)), Some(at(120)));
        assert!(!w.is_snubbed(at(119)) && w.is_snubbed(at(120)));
        assert_eq!(w.deadline(at(120)), Some(at(160)));
        assert!(!w.is_dead(at(159)) && w.is_dead(at(160)));
        assert_eq!(w.deadline(at(160)), None);
        // Blocks given to others: still snubbed, one request to find out.
        w.release(at(121), 4);
        assert!(w.is_snubbed(at(500)) && !w.is_dead(at(500)));
        assert_eq!(w.room(at(500)), 1);
        w.asked(at(500), 1);
        assert_eq!(w.room(at(500)), 0);
        assert_eq!(w.deadline(at(500)), Some(at(539)), "21 s of silence were counted before");
        w.heard(at(501));
        assert!(!w.is_snubbed(at(520)) && w.is_snubbed(at(521)));
        w.answered(at(530), BLOCK, at(500));
        assert!(!w.is_snubbed(at(530)) && w.room(at(530)) > 0);
    }

    #[test]
    fn choking_does_not_hide_silence() {
        let t0 = Instant::now();
        let mut w = RequestWindow::new(t0, 250);
        for round in 0..4u32 {
            let start = t0 + Duration::from_secs(100) * round;
            assert_eq!(w.is_snubbed(start), round >= 3, "round {round}");
            let n = w.room(start);
            w.asked(start, n);
            w.release(start + Duration::from_secs(7), n);
        }
    }

    #[test]
    fn eta_counts_queue_round_trip_and_silence() {
        let t0 = Instant::now();
        let mut w = RequestWindow::new(t0, 250);
        assert_eq!(w.eta(t0), Some(Duration::ZERO));
        w.asked(t0, 1);
        assert_eq!(w.eta(t0), None);
        // One block per 100 ms, asked for one at a time.
        let mut now = t0;
        for _ in 0..20 {
            w.answered(now + MS * 100, BLOCK, now);
            now += MS * 100;
            w.asked(now, 1);
        }
        w.asked(now, 10);
        let eta = w.eta(now).unwrap();
        assert!((MS * 900..=MS * 1300).contains(&eta), "{eta:?}");
        assert_eq!(w.eta(now + MS * 5000), Some(MS * 5000));
    }

    #[test]
    fn a_starved_window_says_nothing_about_the_peer() {
        let t0 = Instant::now();
        let link = Link { rtt: MS * 20, rate: 5_000_000, tick: Duration::ZERO };
        let mut w = RequestWindow::new(t0, 500);
        let mut now = t0;
        // Ramp up, all at once per round trip.
        for _ in 0..20 {
            let n = w.room(now);
            w.asked(now, n);
            let asked_at = now;
            for _ in 0..n {
                now += Duration::from_nanos(BLOCK * 1_000_000_000 / link.rate);
                w.answered(now, BLOCK, asked_at);
            }
            now += link.rtt;
        }
        let before = w.window();
        assert!(before > 20);
        // Now the picker has one block at a time to ask for.
        for _ in 0..200 {
            w.asked(now, 1);
            now += link.rtt;
            w.answered(now, BLOCK, now - link.rtt);
        }
        assert!(w.window() >= before / 2, "{} of {before}", w.window());
    }
}
