//! How many peers to serve at once.
//!
//! Few slots make the first pieces complete early, and a piece is of use to the swarm only when it is complete: one
//! seeder that serves 50 peers at once sends 50 pieces, each at a fiftieth of the rate, before anybody can pass one on.
//! Too few slots leave the line idle when those served are slow. So there are [`START_SLOTS`], and
//! more are opened only for a reason:
//!
//! * *with an upload limit*: while less than nine tenths of the limit is used although all slots are busy and somebody waits;
//! * *without one*: while every slot gets more than [`RICH_RATE`] (a fast local network: there is enough for everybody, so
//!   nobody is kept waiting: +25 % every two seconds up to [`MAX_SLOTS`]); below that, one slot per round for as
//!   long as the last one made the total grow by a twentieth. A slot that did not pay is closed again, and
//!   the next attempt is made after a minute.
//!
//! Slots are closed when each gets less than [`POOR_RATE`], and never below [`MIN_SLOTS`].

use std::time::{Duration, Instant};

/// Slots to begin with, as in Transmission and libtorrent. Simulated with a lone seeder, all of one rate (`tests/sim`), against
/// five: eight peers are done after 1.01 instead of 1.08 times size / rate, because everybody passes on as much as
/// everybody else; a hundred after 1.17 instead of 1.32; and 25, where pieces take seconds, after 1.31 either way.
pub const START_SLOTS: usize = 8;
/// Never fewer: tit for tat needs somebody to compare with (BEP 3 speaks of four).
pub const MIN_SLOTS: usize = 4;
/// Never more per torrent.
pub const MAX_SLOTS: usize = 50;
/// Bytes per second and slot above which another slot harms nobody.
pub const RICH_RATE: u64 = 1 << 20;
/// Bytes per second and slot below which fewer slots are better: a block would take four seconds.
pub const POOR_RATE: u64 = 4096;

/// Time between steps that are clearly right.
const QUICK_STEP: Duration = Duration::from_secs(2);
/// Time between steps whose effect has to be measured: two windows of a [`RateMeter`](crate::base::RateMeter).
const PROBE_STEP: Duration = Duration::from_secs(10);
/// Time until a slot is tried again that did not pay the last time.
const RETRY: Duration = Duration::from_secs(60);

/// The number of upload slots of one torrent. See the [module](self).
#[derive(Debug, Clone)]
pub struct UploadSlots {
    count: usize,
    /// When the next step may be taken.
    next: Instant,
    /// The rate before the slot under trial was opened.
    before_probe: Option<u64>,
}

impl UploadSlots {
    /// [`START_SLOTS`] slots.
    pub fn new(now: Instant) -> Self {
        Self { count: START_SLOTS, next: now + QUICK_STEP, before_probe: None }
    }

    /// Slots at present.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Looks whether the number should change; may be called as often as one likes, best once a second.
    ///
    /// `limit` and `rate` are bytes per second, of our whole upload if the limit is shared with other torrents; `busy` is
    /// the number of unchoked interested peers, `waiting` that of interested peers that are choked. Returns the number of slots.
    pub fn update(&mut self, now: Instant, limit: Option<u64>, rate: u64, busy: usize, waiting: usize) -> usize {
        if now < self.next {
            return self.count;
        }
        let per_slot = rate / u64::try_from(self.count).unwrap_or(1).max(1);
        let full = busy >= self.count;
        self.next = now + QUICK_STEP;
        if let Some(limit) = limit {
            self.before_probe = None;
            let saturated = rate >= limit - limit / 10;
            if full && !saturated && waiting > 0 {
                // Gently: at the start of a swarm the line idles because there is nothing to send yet, and every slot
                // opened for that makes the seeder repeat itself more.
                self.count += self.count / 4;
            } else if full && saturated && per_slot < POOR_RATE {
                self.count -= 1;
                self.next = now + PROBE_STEP;
            }
        } else if !full || waiting == 0 {
            // Nothing can be learned and nothing gained.
            self.before_probe = None;
        } else if per_slot >= RICH_RATE {
            self.before_probe = None;
            self.count += self.count.div_ceil(4);
        } else {
            self.probe(now, rate, per_slot);
        }
        self.count = self.count.clamp(MIN_SLOTS, MAX_SLOTS);
        self.count
    }

    fn probe(&mut self, now: Instant, rate: u64, per_slot: u64) {
        self.next = now + PROBE_STEP;
        let paid = self.before_probe.take().is_none_or(|before| rate > before.saturating_add(before / 20));
        if per_slot < POOR_RATE {
            self.count -= 1;
        } else if paid {
            self.before_probe = Some(rate);
            self.count += 1;
        } else {
            self.count -= 1;
            self.next = now + RETRY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots after `seconds`, when the rate with `n` slots is `rate(n)` and 100 peers want something.
    fn settle(limit: Option<u64>, seconds: u64, rate: impl Fn(u64) -> u64) -> usize {
        let t0 = Instant::now();
        let mut slots = UploadSlots::new(t0);
        for second in 0..seconds {
            let count = slots.count();
            let now = t0 + Duration::from_secs(second);
            slots.update(now, limit, rate(u64::try_from(count).unwrap()), count, 100 - count);
        }
        slots.count()
    }

    #[test]
    fn table() {
        const MB: u64 = 1 << 20;
        // A fast local network: everybody is served, soon.
        assert_eq!(settle(None, 22, |_| 1000 * MB), MAX_SLOTS);
        // No limit, a line of 10 MB/s: as many as get a megabyte each, and one on trial.
        assert!((8..=13).contains(&settle(None, 600, |_| 10 * MB)));
        // No limit, 100 KB/s in all however many are served: no reason for more.
        assert!((START_SLOTS..=START_SLOTS + 1).contains(&settle(None, 600, |_| 100_000)));
        // No limit, slow peers of 10 KB/s each: the rate rises with every slot.
        assert!(settle(None, 600, |n| n * 10_000) >= 20);
        // A line so slow that a block takes for ever.
        assert_eq!(settle(None, 600, |_| 10_000), MIN_SLOTS);
        // Limits that are used up by few, or by many, or cannot be divided.
        assert_eq!(settle(Some(10 * MB), 600, |_| 10 * MB), START_SLOTS);
        assert_eq!(settle(Some(10 * MB), 60, |n| (n * 100_000).min(10 * MB)), MAX_SLOTS);
        assert!((18..=24).contains(&settle(Some(2_000_000), 60, |n| (n * 100_000).min(2_000_000))));
        assert_eq!(settle(Some(20_000), 600, |_| 20_000), MIN_SLOTS);
    }

    #[test]
    fn nothing_changes_while_slots_are_free_or_nobody_waits() {
        let t0 = Instant::now();
        let mut slots = UploadSlots::new(t0);
        for (second, (busy, waiting)) in (0..100).zip([(3, 5), (5, 0)].into_iter().cycle()) {
            assert_eq!(slots.update(t0 + Duration::from_secs(second), None, 1 << 40, busy, waiting), START_SLOTS);
        }
    }
}
