//! Nodes, honest and not, joined by links with delay and loss, on one clock.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::dht::krpc::{Body, Contact, Message, Query, Response};
use crate::dht::{Event, Node, NodeConfig, NodeId, SavedState};

/// A datagram under way: when it arrives, its number, the rest.
type Parcel = (std::cmp::Reverse<(Instant, u64)>, SocketAddr, SocketAddr, Vec<u8>);

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) rng: fastrand::Rng,
    pub(super) nodes: Vec<Node>,
    addresses: Vec<Vec<SocketAddr>>,
    by_address: BTreeMap<SocketAddr, (usize, usize)>,
    /// Addresses of liars; see [`World::lie`].
    pub(super) liars: Vec<SocketAddr>,
    /// Addresses where nobody is.
    pub(super) dead: Vec<SocketAddr>,
    parcels: BinaryHeap<Parcel>,
    timers: BTreeSet<(Instant, usize)>,
    due: Vec<Instant>,
    sent: u64,
    /// Calls of `handle_timeout`.
    pub(super) wakes: u64,
    /// One datagram of so many is lost; none if zero.
    pub(super) loss: u32,
    pub(super) events: Vec<(usize, Event)>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            rng: fastrand::Rng::with_seed(seed),
            nodes: Vec::new(),
            addresses: Vec::new(),
            by_address: BTreeMap::new(),
            liars: Vec::new(),
            dead: Vec::new(),
            parcels: BinaryHeap::new(),
            timers: BTreeSet::new(),
            due: Vec::new(),
            sent: 0,
            wakes: 0,
            loss: 0,
            events: Vec::new(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// A public address in a /24 of its own.
    pub(super) fn address(&mut self) -> SocketAddr {
        loop {
            let ip = Ipv4Addr::new(self.rng.u8(12..100), self.rng.u8(..), self.rng.u8(..), self.rng.u8(1..));
            let address = SocketAddr::from((ip, self.rng.u16(1024..)));
            if !self.by_address.keys().any(|other| other.ip() == address.ip()) {
                return address;
            }
        }
    }

    /// The same for IPv6.
    pub(super) fn address_v6(&mut self) -> SocketAddr {
        let ip = Ipv6Addr::new(0x2600, self.rng.u16(..), self.rng.u16(..), self.rng.u16(..), 0, 0, 0, 1);
        (ip, self.rng.u16(1024..)).into()
    }

    pub(super) fn seed(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| self.rng.u8(..))
    }

    pub(super) fn add(&mut self, sockets: &[SocketAddr], saved: &SavedState) -> usize {
        self.add_with(sockets, saved, NodeConfig::default())
    }

    pub(super) fn add_with(&mut self, sockets: &[SocketAddr], saved: &SavedState, config: NodeConfig) -> usize {
        let (number, seed) = (self.nodes.len(), self.seed());
        self.nodes.push(Node::new(self.now, sockets, config, seed, saved));
        self.addresses.push(sockets.to_vec());
        for (via, address) in sockets.iter().enumerate() {
            self.by_address.insert(*address, (number, via));
        }
        self.due.push(self.now);
        self.timers.insert((self.now, number));
        self.settle(number);
        number
    }

    /// Takes what a node has to send and to tell.
    pub(super) fn settle(&mut self, number: usize) {
        while let Some(transmit) = self.nodes[number].poll_transmit() {
            let from = self.addresses[number][transmit.via];
            self.send(from, transmit.to, transmit.bytes);
        }
        while let Some(event) = self.nodes[number].poll_event() {
            self.events.push((number, event));
        }
        let due = self.nodes[number].poll_timeout();
        if due != self.due[number] {
            self.timers.remove(&(self.due[number], number));
            self.due[number] = due;
            self.timers.insert((due, number));
        }
    }

    pub(super) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.loss > 0 && self.rng.u32(..self.loss) == 0 {
            return;
        }
        self.sent += 1;
        let delay = Duration::from_millis(self.rng.u64(10..150));
        self.parcels.push((std::cmp::Reverse((self.now + delay, self.sent)), from, to, bytes));
    }

    /// One step: a datagram arrives, or a timer goes off. False when the next is later than `until`.
    fn step(&mut self, until: Instant) -> bool {
        let arrival = self.parcels.peek().map(|parcel| parcel.0.0.0);
        let timer = self.timers.first().map(|timer| timer.0);
        let next = [arrival, timer].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let Some((_, from, to, bytes)) = self.parcels.pop() else { return false };
            if let Some((number, via)) = self.by_address.get(&to).copied() {
                self.nodes[number].handle_datagram(self.now, via, from, &bytes);
                self.settle(number);
            } else if self.liars.contains(&to) {
                self.lie(to, from, &bytes);
            }
        } else if let Some((_, number)) = self.timers.first().copied() {
            self.wakes += 1;
            self.nodes[number].handle_timeout(self.now);
            self.settle(number);
        }
        true
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Runs until `found` has something in an event of node `number`; events before it are dropped.
    pub(super) fn wait<T>(&mut self, number: usize, mut found: impl FnMut(&Event) -> Option<T>) -> T {
        let until = self.now + Duration::from_secs(120);
        loop {
            let position = self.events.iter().position(|(who, _)| *who == number);
            if let Some((_, event)) = position.map(|position| self.events.remove(position)) {
                if let Some(found) = found(&event) {
                    return found;
                }
            } else if !self.step(until) {
                panic!("nothing in two minutes");
            }
        }
    }

    /// What a liar answers: an id beside whatever is looked for, false nodes that are even nearer (other liars and dead
    /// addresses), invented peers, a token.
    fn lie(&mut self, liar: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let Ok(Message { transaction, body: Body::Query { query, .. }, .. }) = Message::parse(bytes) else { return };
        let mut random = crate::dht::random::Random::new(self.seed());
        let target = match &query {
            Query::FindNode { target, .. } | Query::Get { target, .. } | Query::Sample { target, .. } => *target,
            Query::GetPeers { info_hash, .. } => *info_hash,
            _ => NodeId::random(&mut random),
        };
        let false_node = |i: usize, world: &mut Self, random: &mut crate::dht::random::Random| {
            let list = if i.is_multiple_of(2) { &world.liars } else { &world.dead };
            let address = list.get(world.rng.usize(..list.len().max(1))).copied().unwrap_or(liar);
            Contact { id: target.sibling(140 + i, random), address }
        };
        let nodes: Vec<_> = (0..8).map(|i| false_node(i, self, &mut random)).collect();
        let values = (0..50).map(|_| SocketAddr::from((self.rng.u32(0x0c00_0000..0x6000_0000).to_be_bytes(), 6881)));
        let mut values: Vec<_> = values.collect();
        values.push("127.0.0.1:22".parse().unwrap());
        if !matches!(query, Query::GetPeers { .. }) {
            values.clear();
        }
        let response = Response {
            id: Some(target.sibling(145, &mut random)),
            nodes: Some(nodes),
            values,
            token: Some(b"liar"),
            ..Response::default()
        };
        let bytes = response.encode(transaction, "6.6.6.6:6".parse().unwrap());
        self.send(liar, from, bytes);
    }
}
