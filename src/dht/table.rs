//! The nodes that we know to answer, by their distance (BEP 5, "Routing Table").
//!
//! One bucket for each number of leading bits that an id shares with ours. The first buckets, which hold the far half
//! of the network, its next quarter and so on, are larger than 8: that saves the first hops of every lookup. Only nodes
//! that have answered us get in, one per owner of addresses, so that nobody fills a table from one network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::address::Owner;
use super::id::NodeId;
use super::krpc::Contact;

/// Nodes of a bucket, of an answer, and on which something is stored (BEP 5).
pub const K: usize = 8;
/// Times as many nodes in the first buckets.
const WIDTHS: [usize; 4] = [16, 8, 4, 2];
/// Nodes that wait for a place in a bucket: they have answered, but there was no room.
const MAX_SPARES: usize = K;
/// Without a word for so long, a node is questionable (BEP 5)...
const QUESTIONABLE: Duration = Duration::from_secs(15 * 60);
/// ...and it is asked before that.
const PING_AGE: Duration = Duration::from_secs(10 * 60);
/// Between two pings of one node that does not answer.
const PING_AGAIN: Duration = Duration::from_secs(10);
/// Queries in a row without an answer: bad, and replaced if there is a spare...
const BAD: u8 = 2;
/// ...or dropped if there is none.
const GONE: u8 = 4;
/// A bucket without news for so long is refreshed (BEP 5).
const REFRESH: Duration = Duration::from_secs(15 * 60);

/// A node in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) contact: Contact,
    /// BEP 42: its id belongs to its address.
    bound: bool,
    /// When it last answered us, or asked us something.
    heard: Instant,
    rtt: Duration,
    fails: u8,
    pinged: Option<Instant>,
}

impl Known {
    fn is_good(&self, now: Instant) -> bool {
        self.fails == 0 && now.saturating_duration_since(self.heard) < QUESTIONABLE
    }
}

#[derive(Debug, Default)]
struct Bucket {
    nodes: Vec<Known>,
    spares: Vec<Known>,
    changed: Option<Instant>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Table {
    own: NodeId,
    buckets: Vec<Bucket>,
    owners: BTreeMap<Owner, Contact>,
}

impl Table {
    pub(super) fn new(own: NodeId) -> Self {
        Self { own, buckets: (0..=160).map(|_| Bucket::default()).collect(), owners: BTreeMap::new() }
    }

    pub(super) fn own(&self) -> NodeId {
        self.own
    }

    /// Nodes in the table.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Known> {
        self.buckets.iter().flat_map(|bucket| &bucket.nodes)
    }

    /// The median round trip to nodes that are good.
    pub(super) fn latency(&self, now: Instant) -> Option<Duration> {
        let mut all: Vec<_> = self.nodes().filter(|node| node.is_good(now)).map(|node| node.rtt).collect();
        let middle = all.len() / 2;
        (!all.is_empty()).then(|| *all.select_nth_unstable(middle).1)
    }

    /// Nodes that are neither questionable nor bad.
    pub(super) fn good(&self, now: Instant) -> usize {
        self.nodes().filter(|node| node.is_good(now)).count()
    }

    fn place(&self, id: &NodeId) -> usize {
        self.own.shared_bits(id)
    }

    fn capacity(place: usize) -> usize {
        K * WIDTHS.get(place).copied().unwrap_or(1)
    }

    /// A node has answered a query of ours after `rtt`.
    pub(super) fn answered(&mut self, now: Instant, contact: Contact, rtt: Duration) {
        let place = self.place(&contact.id);
        if contact.id == self.own {
            return;
        }
        let owner = Owner::of(contact.address);
        match self.owners.get(&owner) {
            Some(known) if *known == contact => {
                let bucket = &mut self.buckets[place];
                bucket.changed = Some(now);
                if let Some(node) = bucket.nodes.iter_mut().find(|node| node.contact == contact) {
                    (node.heard, node.fails, node.rtt) = (now, 0, (node.rtt * 3 + rtt) / 4);
                }
                return;
            }
            // The same node under another id: what we knew is wrong.
            Some(known) if known.address == contact.address => self.remove(*known),
            Some(_) => return,
            None => {}
        }
        let bound = contact.id.is_bound_to(contact.address.ip());
        let node = Known { contact, bound, heard: now, rtt, fails: 0, pinged: None };
        let bucket = &mut self.buckets[place];
        bucket.spares.retain(|spare| Owner::of(spare.contact.address) != owner);
        if bucket.nodes.iter().any(|known| known.contact.id == contact.id) {
            // An id that is taken: whoever was first has it.
            return;
        }
        if bucket.nodes.len() >= Self::capacity(place) {
            // A bad node gives way, and one with an id of its own choice to one without.
            let worse = |known: &Known| known.fails >= BAD || (bound && !known.bound);
            match bucket.nodes.iter().filter(|known| worse(known)).max_by_key(|known| (known.fails, !known.bound)) {
                Some(worse) => {
                    let worse = worse.contact;
                    self.remove(worse);
                }
                None => {
                    if bucket.spares.len() >= MAX_SPARES {
                        bucket.spares.remove(0);
                    }
                    bucket.spares.push(node);
                    return;
                }
            }
        }
        self.insert(now, place, node);
    }

    fn insert(&mut self, now: Instant, place: usize, node: Known) {
        self.owners.insert(Owner::of(node.contact.address), node.contact);
        let bucket = &mut self.buckets[place];
        bucket.changed = Some(now);
        bucket.nodes.push(node);
    }

    fn remove(&mut self, contact: Contact) {
        let place = self.place(&contact.id);
        self.owners.remove(&Owner::of(contact.address));
        self.buckets[place].nodes.retain(|node| node.contact != contact);
    }

    /// A node asks us something. True if it is unknown and would be welcome, once it has answered a ping.
    pub(super) fn asked(&mut self, now: Instant, contact: Contact) -> bool {
        let place = self.place(&contact.id);
        let owned = self.owners.get(&Owner::of(contact.address)).copied();
        let bucket = &mut self.buckets[place];
        if owned == Some(contact) {
            // BEP 5: good is also who has answered once and asks now; but not while it does not answer.
            if let Some(node) = bucket.nodes.iter_mut().find(|node| node.contact == contact && node.fails == 0) {
                node.heard = now;
            }
            return false;
        }
        let room = bucket.nodes.len() < Self::capacity(place) || bucket.nodes.iter().any(|node| node.fails >= BAD);
        let welcome = room || bucket.spares.len() < MAX_SPARES;
        welcome && owned.is_none_or(|known| known.address == contact.address) && contact.id != self.own
    }

    /// A node has not answered.
    pub(super) fn failed(&mut self, now: Instant, address: SocketAddr) {
        let owner = Owner::of(address);
        let Some(contact) = self.owners.get(&owner).copied().filter(|known| known.address == address) else { return };
        let place = self.place(&contact.id);
        let bucket = &mut self.buckets[place];
        let Some(node) = bucket.nodes.iter_mut().find(|node| node.contact == contact) else { return };
        node.fails = node.fails.saturating_add(1);
        if node.fails < BAD || (node.fails < GONE && bucket.spares.is_empty()) {
            return;
        }
        self.remove(contact);
        while let Some(spare) = self.buckets[place].spares.pop() {
            if !self.owners.contains_key(&Owner::of(spare.contact.address)) {
                self.insert(now, place, spare);
                break;
            }
        }
    }

    /// The `count` nodes nearest to `target`: good ones, and all that may still be there if these are not enough.
    pub(super) fn closest(&self, now: Instant, target: &NodeId, count: usize) -> Vec<Contact> {
        let mut all: Vec<(bool, [u8; 20], Contact)> = self
            .nodes()
            .map(|node| (!node.is_good(now), node.contact.id.distance(target), node.contact))
            .filter(|(questionable, _, contact)| !questionable || contact.id != *target)
            .collect();
        let key = |entry: &(bool, [u8; 20], Contact)| (entry.0, entry.1);
        if all.len() > count && count > 0 {
            all.select_nth_unstable_by_key(count - 1, key);
            all.truncate(count);
        }
        all.sort_unstable_by_key(key);
        all.into_iter().map(|(_, _, contact)| contact).collect()
    }

    /// As [`Table::closest`], for answers: only nodes that are good.
    pub(super) fn closest_good(&self, now: Instant, target: &NodeId, count: usize) -> Vec<Contact> {
        let mut all: Vec<([u8; 20], Contact)> = self
            .nodes()
            .filter(|node| node.is_good(now))
            .map(|node| (node.contact.id.distance(target), node.contact))
            .collect();
        if all.len() > count && count > 0 {
            all.select_nth_unstable_by_key(count - 1, |entry| entry.0);
            all.truncate(count);
        }
        all.sort_unstable_by_key(|entry| entry.0);
        all.into_iter().map(|(_, contact)| contact).collect()
    }

    /// Up to `count` nodes that have not been heard of for long, or have just failed to answer; they count as pinged.
    pub(super) fn take_quiet(&mut self, now: Instant, count: usize) -> Vec<Contact> {
        let due = |node: &Known| {
            let old = now.saturating_duration_since(node.heard) >= PING_AGE || node.fails > 0;
            old && node
                .pinged
                .is_none_or(|at| now.saturating_duration_since(at) >= PING_AGAIN * (1 << node.fails.min(6)))
        };
        let mut nodes: Vec<_> =
            self.buckets.iter_mut().flat_map(|bucket| &mut bucket.nodes).filter(|node| due(node)).collect();
        nodes.sort_unstable_by_key(|node| node.heard);
        nodes
            .into_iter()
            .take(count)
            .map(|node| {
                node.pinged = Some(now);
                node.contact
            })
            .collect()
    }

    /// A bucket to refresh, as the number of leading bits of our id that its nodes share; it counts as refreshed. Those
    /// behind the last node have nothing to be found.
    pub(super) fn take_stale(&mut self, now: Instant) -> Option<usize> {
        let last = self.buckets.iter().rposition(|bucket| !bucket.nodes.is_empty())?;
        let stale = |bucket: &Bucket| bucket.changed.is_none_or(|at| now.saturating_duration_since(at) >= REFRESH);
        let place = (0..=last).find(|place| stale(&self.buckets[*place]))?;
        self.buckets[place].changed = Some(now);
        Some(place)
    }

    /// All nodes, to be placed anew under another id of ours.
    pub(super) fn drain(&mut self, own: NodeId) -> Vec<(Contact, Instant, Duration)> {
        let all = self.nodes().map(|node| (node.contact, node.heard, node.rtt)).collect();
        *self = Self::new(own);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::random::Random;
    use std::net::Ipv4Addr;

    const RTT: Duration = Duration::from_millis(50);

    fn table() -> (Table, Random, Instant) {
        let mut random = Random::new([5; 32]);
        (Table::new(NodeId::random(&mut random)), random, Instant::now())
    }

    /// A node in its own /24 whose id shares `bits` with ours.
    fn node(table: &Table, random: &mut Random, bits: usize, n: u16) -> Contact {
        let [high, low] = n.to_be_bytes();
        Contact {
            id: table.own().sibling(bits, random),
            address: SocketAddr::from((Ipv4Addr::new(9, high, low, 1), 6881)),
        }
    }

    #[test]
    fn a_full_bucket_keeps_its_good_nodes_and_replaces_bad_ones() {
        let (mut table, mut random, now) = table();
        let nodes: Vec<_> = (0..20).map(|n| node(&table, &mut random, 7, n)).collect();
        nodes.iter().for_each(|node| table.answered(now, *node, RTT));
        assert_eq!(table.len(), K);
        assert!(nodes[..K].iter().all(|node| table.nodes().any(|known| known.contact == *node)));
        table.failed(now, nodes[0].address);
        assert!(table.nodes().any(|known| known.contact == nodes[0]), "once may happen");
        assert!(!table.closest_good(now, &nodes[0].id, 1).contains(&nodes[0]), "but is told nobody");
        table.failed(now, nodes[0].address);
        assert_eq!(table.len(), K);
        assert!(table.nodes().any(|known| known.contact == nodes[19]), "the latest spare took its place");
        for _ in 0..5 * GONE {
            nodes.iter().for_each(|node| table.failed(now, node.address));
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn far_buckets_are_wide() {
        let (mut table, mut random, now) = table();
        for n in 0..1_000 {
            let bits = usize::from(n % 5);
            let node = node(&table, &mut random, bits, n);
            table.answered(now, node, RTT);
        }
        assert_eq!(table.len(), K * (16 + 8 + 4 + 2 + 1));
    }

    /// D-5: many ids in one /24, ids that change, our own id.
    #[test]
    fn dht5_one_node_per_owner_of_addresses() {
        let (mut table, mut random, now) = table();
        for n in 0..1_000_u16 {
            let address = SocketAddr::from((Ipv4Addr::new(9, 9, 9, n.to_be_bytes()[1]), 1 + n));
            table.answered(now, Contact { id: NodeId::random(&mut random), address }, RTT);
        }
        assert_eq!(table.len(), 1);
        let address = "8.8.8.8:1".parse().unwrap();
        for _ in 0..100 {
            table.answered(now, Contact { id: NodeId::random(&mut random), address }, RTT);
        }
        assert_eq!(table.len(), 2, "another id is another node in its place");
        table.answered(now, Contact { id: table.own(), address: "7.7.7.7:1".parse().unwrap() }, RTT);
        let taken = table.nodes().next().unwrap().contact.id;
        table.answered(now, Contact { id: taken, address: "6.6.6.6:1".parse().unwrap() }, RTT);
        assert_eq!(table.len(), 2, "neither our id nor one that is taken");
        (1..=30).for_each(|port| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            table.answered(now, Contact { id: NodeId::random(&mut random), address }, RTT);
        });
        assert_eq!(table.len(), 32, "loopback is exempt");
    }

    #[test]
    fn ids_that_belong_to_their_address_are_preferred() {
        let (mut table, mut random, now) = table();
        let strangers: Vec<_> = (0..8).map(|n| node(&table, &mut random, 6, n)).collect();
        strangers.iter().for_each(|node| table.answered(now, *node, RTT));
        let bound = (0..).map(|n| {
            let address = SocketAddr::from((Ipv4Addr::from_bits(0x0b00_0001 + (n << 8)), 1));
            Contact { id: NodeId::bound_to(address.ip(), &mut random), address }
        });
        let own = table.own();
        bound.filter(|c| own.shared_bits(&c.id) == 6).take(K).for_each(|contact| table.answered(now, contact, RTT));
        assert_eq!((table.len(), table.nodes().filter(|node| node.bound).count()), (K, K));
    }

    #[test]
    fn the_closest_come_in_order() {
        let (mut table, mut random, now) = table();
        for n in 0..300 {
            let bits = usize::from(n % 9);
            let node = node(&table, &mut random, bits, n);
            table.answered(now, node, RTT);
        }
        let target = NodeId::random(&mut random);
        let closest = table.closest_good(now, &target, K);
        let mut all: Vec<_> = table.nodes().map(|node| node.contact).collect();
        all.sort_by_key(|contact| contact.id.distance(&target));
        assert_eq!(closest, all[..K]);
        assert_eq!(table.closest(now, &target, K), closest);
        assert!(table.closest_good(now + QUESTIONABLE, &target, K).is_empty());
        assert_eq!(table.closest(now + QUESTIONABLE, &target, K), closest, "rather old ones than none");
    }

    #[test]
    fn quiet_nodes_are_pinged_and_quiet_buckets_refreshed() {
        let (mut table, mut random, now) = table();
        let nodes: Vec<_> = (0..6).map(|n| node(&table, &mut random, usize::from(n), n)).collect();
        nodes.iter().for_each(|node| table.answered(now, *node, RTT));
        assert!(table.take_quiet(now + PING_AGE / 2, 9).is_empty());
        assert!(!table.asked(now + PING_AGE / 2, nodes[3]), "known");
        let later = now + PING_AGE;
        let due = table.take_quiet(later, 9);
        assert_eq!(due.len(), 5, "who has asked us meanwhile is there");
        assert!(table.take_quiet(later, 9).is_empty(), "once is enough");
        let refreshed: Vec<_> = std::iter::from_fn(|| table.take_stale(now + REFRESH)).collect();
        assert_eq!(refreshed, (0..6).collect::<Vec<_>>());
    }
}
