//! Who is who, and who is not welcome any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The most bans remembered; the oldest is forgotten first. Past this, an attacker has more addresses than we have memory.
pub const MAX_BANS: usize = 10_000;

/// Whom to hold responsible: the unit of blame, of bans and of "one connection each".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// Everybody at this address. The normal case: ports are free, addresses are not.
    ///
    /// IPv6 addresses count whole, not by /64: the neighbours in a local network share one, and are innocent.
    Ip(IpAddr),
    /// One port of an address that many honest peers share: loopback, or any if sharing is allowed.
    Addr(SocketAddr),
    /// A web seed, by its number.
    WebSeed(u32),
}

impl Identity {
    /// The identity of a peer. `shared_ips`: many peers per address are expected (tests, a known NAT).
    pub fn of(addr: SocketAddr, shared_ips: bool) -> Self {
        let ip = addr.ip().to_canonical();
        if shared_ips || ip.is_loopback() { Self::Addr(SocketAddr::new(ip, addr.port())) } else { Self::Ip(ip) }
    }
}

/// A bounded set of identities that may not connect.
#[derive(Debug, Default)]
pub struct Bans {
    /// With the number of the ban, which tells the age.
    banned: BTreeMap<Identity, u64>,
    by_age: BTreeSet<(u64, Identity)>,
    count: u64,
}

impl Bans {
    /// Bans `who`; a ban that exists becomes the newest.
    pub fn ban(&mut self, who: Identity) {
        if let Some(age) = self.banned.insert(who, self.count) {
            self.by_age.remove(&(age, who));
        }
        self.by_age.insert((self.count, who));
        self.count += 1;
        while self.banned.len() > MAX_BANS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.banned.remove(&oldest);
        }
    }

    /// Lifts a ban.
    pub fn lift(&mut self, who: Identity) {
        if let Some(age) = self.banned.remove(&who) {
            self.by_age.remove(&(age, who));
        }
    }

    /// Whether the peer at `addr` is banned, its whole address or this one port.
    pub fn is_banned(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        !self.banned.is_empty()
            && (self.banned.contains_key(&Identity::Ip(ip))
                || self.banned.contains_key(&Identity::Addr(SocketAddr::new(ip, addr.port()))))
    }

    /// Whether exactly this identity is banned.
    pub fn contains(&self, who: Identity) -> bool {
        self.banned.contains_key(&who)
    }

    /// How many bans.
    pub fn len(&self) -> usize {
        self.banned.len()
    }

    /// Whether nobody is banned.
    pub fn is_empty(&self) -> bool {
        self.banned.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_banned_by_port_and_others_by_address() {
        let mut bans = Bans::default();
        let addr = |s: &str| s.parse::<SocketAddr>().unwrap();
        for (banned, other, also) in [
            ("127.0.0.1:5000", "127.0.0.1:5001", false),
            ("[::1]:5000", "[::1]:5001", false),
            ("9.9.9.9:5000", "9.9.9.9:5001", true),
            ("[::ffff:8.8.8.8]:5000", "8.8.8.8:1", true),
        ] {
            bans.ban(Identity::of(addr(banned), false));
            assert!(bans.is_banned(addr(banned)), "{banned}");
            assert_eq!(bans.is_banned(addr(other)), also, "{other}");
        }
        bans.ban(Identity::of(addr("7.7.7.7:1"), true));
        assert!(!bans.is_banned(addr("7.7.7.7:2")));
        bans.lift(Identity::of(addr("9.9.9.9:1"), false));
        assert!(!bans.is_banned(addr("9.9.9.9:5000")));
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut bans = Bans::default();
        let who = |n: usize| Identity::WebSeed(u32::try_from(n).unwrap());
        for n in 0..MAX_BANS {
            bans.ban(who(n));
        }
        bans.ban(who(0)); // Renewed.
        bans.ban(who(MAX_BANS));
        assert_eq!(bans.len(), MAX_BANS);
        assert!(bans.contains(who(0)) && !bans.contains(who(1)) && bans.contains(who(2)));
    }
}
