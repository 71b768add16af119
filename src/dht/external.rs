//! Our own address, as the nodes that answer us see it (BEP 42, "Bootstrapping").

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::address::{Owner, is_local};

/// Votes that count, the latest ones, each of another owner of addresses.
const MAX_VOTES: usize = 24;
/// Votes for one address before it is believed.
const MIN_VOTES: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Votes {
    votes: VecDeque<(Owner, IpAddr)>,
}

impl Votes {
    /// The node at `by` sees us at `seen_as`.
    pub(super) fn add(&mut self, by: SocketAddr, seen_as: SocketAddr) {
        let ip = seen_as.ip().to_canonical();
        if ip.is_ipv6() != by.is_ipv6()
            || ip.is_unspecified()
            || ip.is_multicast()
            || (is_local(ip) && !is_local(by.ip()))
        {
            return;
        }
        let owner = Owner::of(by);
        self.votes.retain(|(voter, _)| *voter != owner);
        self.votes.push_back((owner, ip));
        if self.votes.len() > MAX_VOTES {
            self.votes.pop_front();
        }
    }

    /// The address that most agree on.
    pub(super) fn winner(&self) -> Option<IpAddr> {
        let count = |ip: IpAddr| self.votes.iter().filter(|(_, vote)| *vote == ip).count();
        let (_, most) = self.votes.iter().max_by_key(|(_, ip)| count(*ip))?;
        let votes = count(*most);
        (votes >= MIN_VOTES && votes * 2 > self.votes.len()).then_some(*most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn many_must_agree_and_nobody_votes_twice() {
        let by = |n: u8| SocketAddr::from((Ipv4Addr::new(9, n, 1, 1), 1));
        let (ours, wrong): (SocketAddr, SocketAddr) = ("5.5.5.5:1".parse().unwrap(), "6.6.6.6:1".parse().unwrap());
        let mut votes = Votes::default();
        (0..100).for_each(|_| votes.add(by(1), wrong));
        assert_eq!(votes.winner(), None);
        (0..7).for_each(|n| votes.add(by(10 + n), ours));
        assert_eq!(votes.winner(), None);
        votes.add(by(20), ours);
        assert_eq!(votes.winner(), Some(ours.ip()));
        (30..42).for_each(|n| votes.add(by(n), wrong));
        assert_eq!(votes.winner(), Some(wrong.ip()), "addresses change");
        (0..20).for_each(|n| votes.add(by(n), "127.0.0.1:1".parse().unwrap()));
        assert_ne!(votes.winner(), Some(Ipv4Addr::LOCALHOST.into()));
    }
}
