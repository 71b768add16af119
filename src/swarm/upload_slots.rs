//! How many peers to serve at once.
//!
//! Few slots make the first pieces complete early, and a piece is of use to the swarm only when it is complete: one
//! seeder that serves 50 peers at once sends 50 pieces, each at a fiftieth of the rate, before anybody can pass one on.
//! Too few slots leave the line idle when those served are slow. So there are [`START_SLOTS`], and
//! more are opened only for a reason:
//!
//! * *with an upload limit*: while less than nine tenths of the limit is used although all slots are busy and somebody waits;
//! * *without one*: while every slot gets more than [`RICH_RATE`] (a fast local network: there is enough for everybody, so
//!   nobody is kept waiting: +25 % per step up to [`MAX_SLOTS`], some ten steps); below that, one slot per round for as
//!   long as the last one made the total grow by a twentieth. A slot that did not pay is closed again, and
//!   the next attempt is made after a minute.
//!
//! Slots are closed when each gets less than [`POOR_RATE`], and never below [`MIN_SLOTS`].

use std::time::{Duration, Instant};

/// Slots to begin with.
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
            self.count += self.count / 4;
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
