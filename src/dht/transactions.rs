//! The queries that wait for an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::id::NodeId;
use super::random::Random;
use crate::base::RttMeter;

/// Queries under way at once.
const MAX_PENDING: usize = 1_024;
/// How long an answer is waited for at all.
const TIMEOUT: Duration = Duration::from_secs(8);
/// When an answer is late: what round trips were measured, within these; the first of them when nothing is known.
const FIRST_SLOW: Duration = Duration::from_millis(1_000);
const MIN_SLOW: Duration = Duration::from_millis(200);
const MAX_SLOW: Duration = Duration::from_millis(1_500);

/// Why something was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Is it there? For the table.
    Ping,
    /// A node of which we know only the address: who are your neighbours?
    Bootstrap,
    /// A step of a lookup, of the node with that id.
    Step(u64, NodeId),
    /// A store at the end of a lookup.
    Store(u64),
}

/// A query that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) via: usize,
    pub(super) to: SocketAddr,
    pub(super) sent: Instant,
    pub(super) reason: Reason,
    slow: bool,
}

/// What time has brought.
#[derive(Clone, Copy, Debug)]
pub(super) enum Late {
    /// The answer takes longer than usual.
    Slow(Pending),
    /// There will be none.
    Lost(Pending),
}

#[derive(Debug, Default)]
pub(super) struct Transactions {
    pending: BTreeMap<[u8; 4], Pending>,
    timers: BTreeSet<(Instant, [u8; 4])>,
    rtt: RttMeter,
}

impl Transactions {
    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING
    }

    /// How many wait for `reason` alone.
    pub(super) fn count(&self, reason: Reason) -> usize {
        self.pending.values().filter(|pending| pending.reason == reason).count()
    }

    /// Whether an answer of `to` to socket `via` is waited for.
    pub(super) fn is_asking(&self, via: usize, to: SocketAddr) -> bool {
        self.pending.values().any(|pending| pending.to == to && pending.via == via)
    }

    fn slow_after(&self) -> Duration {
        self.rtt.timeout().map_or(FIRST_SLOW, |timeout| timeout.clamp(MIN_SLOW, MAX_SLOW))
    }

    /// Opens a transaction; its id cannot be guessed.
    pub(super) fn open(
        &mut self,
        now: Instant,
        via: usize,
        to: SocketAddr,
        reason: Reason,
        random: &mut Random,
    ) -> [u8; 4] {
        let mut id = random.u32().to_be_bytes();
        while self.pending.contains_key(&id) {
            id = random.u32().to_be_bytes();
        }
        self.pending.insert(id, Pending { via, to, sent: now, reason, slow: false });
        self.timers.insert((now + self.slow_after(), id));
        id
    }

    /// The query that an answer belongs to: only with its id, from where it was sent to.
    pub(super) fn close(
        &mut self,
        now: Instant,
        via: usize,
        from: SocketAddr,
        id: &[u8],
    ) -> Option<(Pending, Duration)> {
        let id: [u8; 4] = id.try_into().ok()?;
        let pending = *self.pending.get(&id).filter(|pending| pending.to == from && pending.via == via)?;
        self.pending.remove(&id);
        let rtt = now.saturating_duration_since(pending.sent);
        self.rtt.add(rtt);
        Some((pending, rtt))
    }

    /// The next query whose time has come.
    pub(super) fn poll_late(&mut self, now: Instant) -> Option<Late> {
        loop {
            let (at, id) = *self.timers.first().filter(|(at, _)| *at <= now)?;
            self.timers.remove(&(at, id));
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            if at < pending.sent {
                continue;
            }
            if pending.slow || at >= pending.sent + TIMEOUT {
                let lost = *pending;
                self.pending.remove(&id);
                return Some(Late::Lost(lost));
            }
            pending.slow = true;
            let slow = *pending;
            self.timers.insert((pending.sent + TIMEOUT, id));
            return Some(Late::Slow(slow));
        }
    }

    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        while let Some((at, id)) = self.timers.first().copied() {
            if self.pending.contains_key(&id) {
                return Some(at);
            }
            self.timers.remove(&(at, id));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D-7: unknown, twice, late, from elsewhere, through another socket.
    #[test]
    fn dht7_answers_count_once_from_where_they_were_asked() {
        let (now, mut random, mut table) = (Instant::now(), Random::new([1; 32]), Transactions::default());
        let (a, b): (SocketAddr, SocketAddr) = ("9.9.9.9:1".parse().unwrap(), "9.9.9.9:2".parse().unwrap());
        let id = table.open(now, 0, a, Reason::Ping, &mut random);
        assert!(table.close(now, 0, b, &id).is_none(), "another port");
        assert!(table.close(now, 1, a, &id).is_none(), "another socket");
        assert!(table.close(now, 0, a, &id[..2]).is_none() && table.close(now, 0, a, &[id, id].concat()).is_none());
        assert!(table.close(now, 0, a, &id).is_some());
        assert!(table.close(now, 0, a, &id).is_none(), "twice");
        let id = table.open(now, 0, a, Reason::Ping, &mut random);
        let late = now + TIMEOUT;
        assert!(matches!(table.poll_late(late), Some(Late::Slow(_))));
        assert!(matches!(table.poll_late(late), Some(Late::Lost(_))));
        assert!(table.poll_late(late).is_none() && table.close(late, 0, a, &id).is_none(), "late");
        assert!(table.poll_timeout().is_none());
    }

    #[test]
    fn what_is_slow_follows_what_is_measured() {
        let (now, mut random, mut table) = (Instant::now(), Random::new([1; 32]), Transactions::default());
        let to = "9.9.9.9:1".parse().unwrap();
        assert_eq!(table.slow_after(), FIRST_SLOW);
        for _ in 0..50 {
            let id = table.open(now, 0, to, Reason::Ping, &mut random);
            table.close(now + Duration::from_millis(10), 0, to, &id);
        }
        assert_eq!(table.slow_after(), MIN_SLOW);
        table.open(now, 0, to, Reason::Ping, &mut random);
        assert_eq!(table.poll_timeout(), Some(now + MIN_SLOW));
    }
}
