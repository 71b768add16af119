//! How long a datagram may be on the way to the other side.
//!
//! Lengths are those of UDP payloads: with the header of uTP, without those of UDP and IP. Nothing is fragmented, so a
//! datagram that is too long vanishes. A length is tried with one packet that is padded to it (its payload fits a shorter
//! one, and is sent again in such a one when the probe is lost), never more often than the path can bear.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Every IPv6 link carries 1,280 bytes, and nearly every IPv4 path: less 40 for IPv6 and 8 for UDP.
pub(super) const BASE: u16 = 1232;

/// What IPv4 promises, 576, less 60 for its longest header and 8 for UDP. Only where [`BASE`] turns out too long.
const LEAST: u16 = 508;

/// Bytes of the header of uTP.
const HEADER: u16 = 20;

/// Ethernet's 1,500, less the headers of IP and UDP. Longer ones are not tried: others may not have room for them.
const MOST_V4: u16 = 1472;
const MOST_V6: u16 = 1452;

/// A search that is so close is over.
const CLOSE_ENOUGH: u16 = 16;

/// A probe may be lost for other reasons.
const TRIES: u8 = 3;

/// When a path that had a limit is tried again.
const RETRY: Duration = Duration::from_secs(600);

/// Between two probes.
const PAUSE: Duration = Duration::from_millis(20);

/// Timeouts in a row after which long packets are suspected of vanishing.
const SUSPICIOUS_TIMEOUTS: u32 = 2;

/// The search for the longest datagram.
#[derive(Debug)]
pub(super) struct Mtu {
    most: u16,
    /// This long they are.
    size: u16,
    /// Longer ones do not come through.
    ceiling: u16,
    tries: u8,
    next: Instant,
    /// A probe is under way.
    probing: bool,
}

impl Mtu {
    pub(super) fn new(now: Instant, remote: IpAddr) -> Self {
        let most = if remote.to_canonical().is_ipv4() { MOST_V4 } else { MOST_V6 };
        Self { most, size: BASE, ceiling: most, tries: 0, next: now, probing: false }
    }

    /// The length of a full datagram.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Bytes of payload in it.
    pub(super) fn segment(&self) -> u16 {
        self.size - HEADER
    }

    /// The length to be tried next, if it is time to.
    pub(super) fn probe(&mut self, now: Instant) -> Option<u16> {
        if self.probing || now < self.next {
            return None;
        }
        if self.ceiling.saturating_sub(self.size) < CLOSE_ENOUGH && self.ceiling < self.most {
            // It was found. The path may change, though.
            self.ceiling = self.most;
            self.next = now + RETRY;
            self.tries = 0;
            return None;
        }
        if self.size >= self.ceiling {
            return None;
        }
        // Most paths carry the most, so this is tried first.
        Some(if self.ceiling == self.most { self.most } else { self.size + (self.ceiling - self.size).div_ceil(2) })
    }

    /// A probe is under way.
    pub(super) fn on_probe_sent(&mut self, now: Instant) {
        self.probing = true;
        self.next = now + PAUSE;
    }

    /// A probe has arrived.
    pub(super) fn on_probe_acked(&mut self, size: u16) {
        self.probing = false;
        self.tries = 0;
        if size > self.size && size <= self.most {
            self.size = size;
            self.ceiling = self.ceiling.max(size);
        }
    }

    /// A probe has not.
    pub(super) fn on_probe_lost(&mut self, size: u16) {
        self.probing = false;
        self.tries += 1;
        if self.tries >= TRIES {
            self.on_too_long(size);
        }
    }

    /// Our own system says that a datagram of this length is too long.
    pub(super) fn on_too_long(&mut self, size: u16) {
        self.probing = false;
        self.tries = 0;
        if size <= self.size {
            self.size = if size > BASE { BASE } else { LEAST };
        }
        self.ceiling = self.ceiling.min(size.saturating_sub(1)).max(self.size);
    }

    /// Nothing has come back, so many times in a row.
    pub(super) fn on_timeout(&mut self, now: Instant, in_a_row: u32) {
        self.probing = false;
        if in_a_row >= SUSPICIOUS_TIMEOUTS && self.size > LEAST {
            self.ceiling = self.size - 1;
            self.size = if self.size > BASE { BASE } else { LEAST };
            self.ceiling = self.ceiling.max(self.size);
            self.tries = 0;
            // The line may only have been down.
            self.next = now + RETRY / 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size that is found on a path that carries `limit`, and how many probes that takes.
    fn search(limit: u16, remote: IpAddr) -> (u16, u32) {
        let mut now = Instant::now();
        let mut mtu = Mtu::new(now, remote);
        let mut probes = 0;
        for _ in 0..1000 {
            now += PAUSE;
            if let Some(size) = mtu.probe(now) {
                probes += 1;
                mtu.on_probe_sent(now);
                assert_eq!(mtu.probe(now + PAUSE), None, "one at a time");
                if size <= limit { mtu.on_probe_acked(size) } else { mtu.on_probe_lost(size) }
            }
        }
        (mtu.size(), probes)
    }

    #[test]
    fn the_limit_of_a_path_is_found() {
        let (v4, v6) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
        assert_eq!(search(9000, v4), (MOST_V4, 1));
        assert_eq!(search(9000, v6), (MOST_V6, 1));
        for limit in [BASE, 1300, 1392, 1464, 1471] {
            let (size, probes) = search(limit, v4);
            assert!(size <= limit && limit - size < CLOSE_ENOUGH, "{limit}: {size}");
            assert!(probes <= 20, "{limit}: {probes}");
        }
    }

    #[test]
    fn a_path_that_swallows_long_packets_is_given_short_ones() {
        let now = Instant::now();
        let mut mtu = Mtu::new(now, [192, 0, 2, 1].into());
        mtu.on_probe_sent(now);
        mtu.on_probe_acked(MOST_V4);
        mtu.on_timeout(now, 1);
        assert_eq!(mtu.size(), MOST_V4, "once may be chance");
        mtu.on_timeout(now, 2);
        assert_eq!((mtu.size(), mtu.probe(now)), (BASE, None));
        mtu.on_timeout(now, 3);
        assert_eq!(mtu.size(), LEAST);
        mtu.on_timeout(now, 4);
        assert_eq!(mtu.size(), LEAST);
        assert!(mtu.probe(now + RETRY).is_some_and(|size| size > LEAST));
    }

    #[test]
    fn what_our_own_system_cannot_send_is_not_sent() {
        let now = Instant::now();
        let mut mtu = Mtu::new(now, [192, 0, 2, 1].into());
        mtu.on_probe_sent(now);
        mtu.on_too_long(MOST_V4);
        assert!(mtu.probe(now + PAUSE).is_some_and(|size| size < MOST_V4));
        mtu.on_too_long(BASE);
        assert_eq!(mtu.size(), LEAST);
        mtu.on_too_long(1);
        assert_eq!(mtu.size(), LEAST);
        mtu.on_probe_acked(u16::MAX);
        assert_eq!(mtu.size(), LEAST);
    }
}
