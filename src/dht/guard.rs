//! What strangers may cost us: messages per address, bytes per second.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::address::Owner;

/// More unasked messages than this from one owner of addresses...
const MAX_MESSAGES: u32 = 50;
/// ...in this time...
const WINDOW: Duration = Duration::from_secs(10);
/// ...and nothing of his is read for so long.
const BLOCK: Duration = Duration::from_secs(300);
/// Owners that are watched at once.
const MAX_WATCHED: usize = 1_024;

#[derive(Clone, Copy, Debug)]
struct Watched {
    since: Instant,
    messages: u32,
    blocked: Option<Instant>,
}

impl Watched {
    fn is_over(&self, now: Instant) -> bool {
        match self.blocked {
            Some(until) => until <= now,
            None => now.saturating_duration_since(self.since) >= WINDOW,
        }
    }
}

/// Counts messages by who sends them. Loopback is exempt: there everybody has one address.
#[derive(Debug, Default)]
pub(super) struct Guard {
    watched: BTreeMap<Owner, Watched>,
}

impl Guard {
    /// Whether nothing from `from` is to be read now.
    pub(super) fn is_blocked(&self, now: Instant, from: SocketAddr) -> bool {
        let watched = self.watched.get(&Owner::of(from));
        watched.and_then(|watched| watched.blocked).is_some_and(|until| now < until)
    }

    /// Something came that was no answer to us. False from the message on that is one too many.
    pub(super) fn admits(&mut self, now: Instant, from: SocketAddr) -> bool {
        if from.ip().is_loopback() {
            return true;
        }
        let owner = Owner::of(from);
        if self.watched.len() >= MAX_WATCHED && !self.watched.contains_key(&owner) {
            self.watched.retain(|_, watched| !watched.is_over(now));
            // A flood from everywhere: who is blocked stays so, the count of somebody else is forgotten.
            if self.watched.len() >= MAX_WATCHED {
                let oldest = self.watched.iter().min_by_key(|(_, w)| (w.blocked.is_some(), w.since));
                if let Some(oldest) = oldest.map(|(owner, _)| *owner) {
                    self.watched.remove(&oldest);
                }
            }
        }
        let watched = self.watched.entry(owner).or_insert(Watched { since: now, messages: 0, blocked: None });
        if watched.is_over(now) {
            *watched = Watched { since: now, messages: 0, blocked: None };
        }
        watched.messages = watched.messages.saturating_add(1);
        if watched.messages > MAX_MESSAGES && watched.blocked.is_none() {
            watched.blocked = Some(now + BLOCK);
        }
        watched.blocked.is_none()
    }
}

/// Bytes that may be sent: a rate, and what has been saved up of it, at most [`Budget::BURST`] seconds' worth.
#[derive(Debug)]
pub(super) struct Budget {
    rate: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    const BURST: f64 = 3.0;

    pub(super) fn new(now: Instant, bytes_per_second: u32) -> Self {
        let rate = f64::from(bytes_per_second);
        Self { rate, left: rate * Self::BURST, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.rate).min(self.rate * Self::BURST);
        self.at = self.at.max(now);
    }

    /// Whether something may be sent. One datagram more than is left may be, or none would be with little.
    pub(super) fn has_some(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left > 0.0
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.left -= f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// When something may be sent again.
    pub(super) fn ready_at(&self) -> Instant {
        let missing = (1.0 - self.left).max(0.0);
        self.at + Duration::from_secs_f64((missing / self.rate).clamp(0.001, 60.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_flood_is_blocked_for_five_minutes() {
        let (now, mut guard) = (Instant::now(), Guard::default());
        let flooder: SocketAddr = "9.9.9.9:1".parse().unwrap();
        let passed = (0..10_000).filter(|_| guard.admits(now, flooder)).count();
        assert_eq!(passed, 50);
        let seconds = |n| now + Duration::from_secs(n);
        assert!(guard.is_blocked(seconds(299), flooder) && !guard.is_blocked(seconds(300), flooder));
        assert!(guard.admits(seconds(300), flooder));
        let steady = (0..600).filter(|i| guard.admits(seconds(300 + i / 4), "8.8.8.8:1".parse().unwrap())).count();
        assert_eq!(steady, 600, "four a second are welcome");
    }

    #[test]
    fn the_table_is_bounded_and_who_is_blocked_stays_so() {
        let (now, mut guard) = (Instant::now(), Guard::default());
        let flooder: SocketAddr = "9.9.9.9:1".parse().unwrap();
        for _ in 0..60 {
            guard.admits(now, flooder);
        }
        for i in 0..5_000_u32 {
            guard.admits(now, (Ipv4Addr::from_bits(0x0900_0000 + (i << 8)), 1).into());
        }
        assert!(guard.watched.len() <= MAX_WATCHED && guard.is_blocked(now, flooder));
    }

    #[test]
    fn a_budget_is_kept() {
        let now = Instant::now();
        let mut budget = Budget::new(now, 8_000);
        let mut sent = 0;
        for ms in 0..60_000 {
            if budget.has_some(now + Duration::from_millis(ms)) {
                budget.spend(300);
                sent += 300;
            }
        }
        assert!((480_000..=8_000 * 63 + 300).contains(&sent), "{sent}");
        assert!(budget.has_some(budget.ready_at()));
    }
}
