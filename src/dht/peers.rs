//! The peers that others have announced here (BEP 5, 33), and samples of their torrents (BEP 51).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::bloom::Bloom;
use super::id::NodeId;
use super::random::Random;

/// Torrents that are kept for others.
pub const MAX_TORRENTS: usize = 2_000;
/// Peers of one torrent.
pub const MAX_PEERS: usize = 500;
/// How long a peer is kept that does not announce again: clients do so every 15 to 30 minutes.
const PEER_LIFETIME: Duration = Duration::from_secs(45 * 60);
/// Info-hashes in one sample.
pub(super) const SAMPLE_LEN: usize = 20;
/// How long a sample out of many stays the same (BEP 51 allows six hours)...
const SAMPLE_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// ...and what is said when all fit into it.
const SMALL_INTERVAL: Duration = Duration::from_secs(60);

/// One peer of a torrent, by address; several ports of one address only on loopback (BEP 33: unique addresses).
type PeerName = (IpAddr, u16);

#[derive(Clone, Copy, Debug)]
struct Announced {
    port: u16,
    seed: bool,
    at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct PeerStore {
    torrents: BTreeMap<NodeId, BTreeMap<PeerName, Announced>>,
    sample: Vec<NodeId>,
    sampled: Option<Instant>,
}

/// A sample, when to ask for the next, how many there are.
pub(super) struct Sample {
    pub(super) hashes: Vec<u8>,
    pub(super) interval: Duration,
    pub(super) count: usize,
}

impl PeerStore {
    /// Notes a peer down. When there are too many torrents the one with the fewest peers gives way, and the oldest peer
    /// where there are too many peers.
    pub(super) fn announce(&mut self, now: Instant, info_hash: NodeId, peer: SocketAddr, seed: bool) {
        if self.torrents.len() >= MAX_TORRENTS && !self.torrents.contains_key(&info_hash) {
            let least = self.torrents.iter().min_by_key(|(_, peers)| peers.len()).map(|(hash, _)| *hash);
            if let Some(least) = least {
                self.torrents.remove(&least);
            }
        }
        let peers = self.torrents.entry(info_hash).or_default();
        let name = (peer.ip(), if peer.ip().is_loopback() { peer.port() } else { 0 });
        if peers.len() >= MAX_PEERS && !peers.contains_key(&name) {
            let oldest = peers.iter().min_by_key(|(_, peer)| peer.at).map(|(name, _)| *name);
            if let Some(oldest) = oldest {
                peers.remove(&oldest);
            }
        }
        peers.insert(name, Announced { port: peer.port(), seed, at: now });
    }

    /// At most `count` peers of one family in random order; with `no_seed`, seeds only if there are no others.
    pub(super) fn get(
        &self,
        info_hash: &NodeId,
        v6: bool,
        no_seed: bool,
        count: usize,
        random: &mut Random,
    ) -> Vec<SocketAddr> {
        let Some(peers) = self.torrents.get(info_hash) else { return Vec::new() };
        let of_family = || peers.iter().filter(|((ip, _), _)| ip.is_ipv6() == v6);
        let mut found: Vec<_> = of_family().filter(|(_, peer)| !(no_seed && peer.seed)).collect();
        if found.is_empty() {
            found = of_family().collect();
        }
        random.pick(&mut found, count);
        found.into_iter().take(count).map(|((ip, _), peer)| SocketAddr::new(*ip, peer.port)).collect()
    }

    /// Filters of the seeds and of the others (BEP 33); none if nobody has announced the torrent.
    pub(super) fn scrape(&self, info_hash: &NodeId) -> Option<(Bloom, Bloom)> {
        let peers = self.torrents.get(info_hash)?;
        let (mut seeds, mut others) = (Bloom::new(), Bloom::new());
        for ((ip, _), peer) in peers {
            if peer.seed { &mut seeds } else { &mut others }.insert(*ip);
        }
        Some((seeds, others))
    }

    /// Some of the torrents (BEP 51): the same for a while, so that nobody gains by asking often.
    pub(super) fn sample(&mut self, now: Instant, random: &mut Random) -> Sample {
        let count = self.torrents.len();
        let interval = if count <= SAMPLE_LEN { SMALL_INTERVAL } else { SAMPLE_INTERVAL };
        let fresh = self.sampled.is_some_and(|at| now.saturating_duration_since(at) < SAMPLE_INTERVAL);
        if count <= SAMPLE_LEN || !fresh {
            let mut all: Vec<NodeId> = self.torrents.keys().copied().collect();
            random.pick(&mut all, SAMPLE_LEN);
            all.truncate(SAMPLE_LEN);
            self.sample = all;
            self.sampled = (count > SAMPLE_LEN).then_some(now);
        }
        Sample { hashes: self.sample.iter().flat_map(|hash| hash.0).collect(), interval, count }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        for peers in self.torrents.values_mut() {
            peers.retain(|_, peer| now.saturating_duration_since(peer.at) < PEER_LIFETIME);
        }
        self.torrents.retain(|_, peers| !peers.is_empty());
    }

    /// Torrents, and peers of all of them.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.torrents.len(), self.torrents.values().map(BTreeMap::len).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn peer(n: u16) -> SocketAddr {
        let [high, low] = n.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(9, 9, high, low), 1_000 + n % 1000))
    }

    #[test]
    fn everything_is_bounded_and_grows_old() {
        let (now, mut store, mut random) = (Instant::now(), PeerStore::default(), Random::new([1; 32]));
        let hash = |n: u16| NodeId(std::array::from_fn(|i| n.to_be_bytes()[i % 2]));
        (0..800).for_each(|n| store.announce(now + Duration::from_millis(n.into()), hash(7), peer(n), n % 2 == 0));
        assert_eq!(store.len(), (1, MAX_PEERS));
        let some = store.get(&hash(7), false, true, 100, &mut random);
        assert!(some.len() == 100 && some.iter().all(|p| p.port() % 2 == 1), "no seeds: {some:?}");
        assert!(!some.contains(&peer(1)), "the oldest are gone");
        assert!(store.get(&hash(7), true, false, 100, &mut random).is_empty(), "no IPv6");
        let (seeds, others) = store.scrape(&hash(7)).unwrap();
        assert!((seeds.estimate() - 250.0).abs() < 20.0 && (others.estimate() - 250.0).abs() < 20.0);
        (0..4_000).for_each(|n| store.announce(now, hash(n), peer(n), false));
        assert_eq!(store.len().0, MAX_TORRENTS);
        assert!(store.scrape(&hash(7)).is_some(), "the popular one stays");
        store.expire(now + PEER_LIFETIME + Duration::from_secs(1));
        assert_eq!(store.len(), (0, 0));
    }

    #[test]
    fn one_port_per_address_but_on_loopback() {
        let (now, mut store) = (Instant::now(), PeerStore::default());
        let at = |text: &str| text.parse().unwrap();
        for address in ["9.9.9.9:1", "9.9.9.9:2", "127.0.0.1:1", "127.0.0.1:2", "[2600::1]:1"] {
            store.announce(now, NodeId([1; 20]), at(address), false);
        }
        let mut found = store.get(&NodeId([1; 20]), false, false, 9, &mut Random::new([1; 32]));
        found.sort();
        assert_eq!(found, [at("9.9.9.9:2"), at("127.0.0.1:1"), at("127.0.0.1:2")]);
    }

    #[test]
    fn samples_stay_the_same_for_a_while() {
        let (now, mut store, mut random) = (Instant::now(), PeerStore::default(), Random::new([1; 32]));
        (0..9).for_each(|n| store.announce(now, NodeId([n; 20]), peer(1), false));
        let sample = store.sample(now, &mut random);
        assert_eq!((sample.hashes.len(), sample.count, sample.interval), (180, 9, SMALL_INTERVAL));
        (0..90).for_each(|n| store.announce(now, NodeId([n; 20]), peer(1), false));
        let first = store.sample(now, &mut random);
        assert_eq!((first.hashes.len(), first.count, first.interval), (400, 90, SAMPLE_INTERVAL));
        assert_eq!(store.sample(now + SAMPLE_INTERVAL / 2, &mut random).hashes, first.hashes);
        assert_ne!(store.sample(now + SAMPLE_INTERVAL, &mut random).hashes, first.hashes);
    }
}
