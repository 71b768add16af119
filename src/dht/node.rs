//! The node: its sockets, what it sends, what it tells.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::address::canonical;
use super::command::{Event, OperationId};
use super::external::Votes;
use super::guard::{Budget, Guard};
use super::id::NodeId;
use super::items::ItemStore;
use super::krpc::{Contact, Query, Want};
use super::operations::{Leg, Operation};
use super::peers::PeerStore;
use super::random::Random;
use super::state::SavedState;
use super::table::Table;
use super::token::Tokens;
use super::transactions::{Reason, Transactions};

/// Bytes of a datagram that are looked at: the largest answers of others have some 1,500.
pub const MAX_DATAGRAM: usize = 2_048;

/// Bytes per second that others can make us send: answers, errors, pings of those who ask (limits.md).
const ANSWER_RATE: u32 = 8_000;

/// Bytes per second for what we want ourselves: a lookup sends 5 to 10 kB.
const QUERY_RATE: u32 = 16_000;

/// Datagrams and events that wait to be taken; the driver takes them after every call.
const MAX_WAITING: usize = 4_096;

/// Nodes that wait to be pinged: saved ones, those of peers, those of the other family.
const MAX_UNVERIFIED: usize = 512;

/// Pings of unknown nodes under way.
const MAX_PINGS: usize = 32;

/// How a node behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// BEP 43: asks, but answers nobody and asks not to be remembered. For programs that run for seconds.
    pub read_only: bool,
}

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The number of the socket.
    pub via: usize,
    /// Where to.
    pub to: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// One of our sockets, as others see it: a node.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) local: SocketAddr,
    pub(super) table: Table,
    pub(super) votes: Votes,
    pub(super) external: Option<IpAddr>,
    /// When anybody last answered: if nobody does, it is not the nodes that are bad.
    pub(super) heard: Option<Instant>,
    /// The lookup of our own id, or of a bucket to be refreshed.
    pub(super) upkeep: Option<u64>,
    pub(super) unverified: VecDeque<SocketAddr>,
    pub(super) next_bootstrap: Instant,
    pub(super) bootstrap_wait: Duration,
}

impl Endpoint {
    pub(super) fn is_v6(&self) -> bool {
        self.local.is_ipv6()
    }
}

/// A node of the DHT. See the [module](super).
///
/// After every call that takes `now`, what [`Node::poll_transmit`] and [`Node::poll_event`] have is to be taken, and
/// [`Node::handle_timeout`] to be called at [`Node::poll_timeout`].
#[derive(Debug)]
pub struct Node {
    pub(super) config: NodeConfig,
    pub(super) random: Random,
    pub(super) sockets: Vec<Endpoint>,
    pub(super) transactions: Transactions,
    pub(super) guard: Guard,
    pub(super) answer_budget: Budget,
    pub(super) query_budget: Budget,
    pub(super) tokens: Tokens,
    pub(super) peers: PeerStore,
    pub(super) items: ItemStore,
    /// Well-known nodes that others begin with too: asked for nodes, never kept as one.
    pub(super) routers: BTreeSet<SocketAddr>,
    pub(super) legs: BTreeMap<u64, Leg>,
    pub(super) operations: BTreeMap<OperationId, Operation>,
    /// Operations that wait for others to end.
    pub(super) waiting: VecDeque<OperationId>,
    pub(super) next_id: u64,
    /// Some leg could not ask because the budget was used up.
    pub(super) starved: bool,
    pub(super) next_tick: Instant,
    pub(super) next_expiry: Instant,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    pub(super) counts: Counts,
}

/// Datagrams since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) dropped: u64,
}

/// What a node is like at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// One entry per socket.
    pub sockets: Vec<SocketStats>,
    /// Torrents and peers that others have announced here.
    pub stored: (usize, usize),
    /// Items that others have put here.
    pub items: usize,
    /// Datagrams that came and went since the start.
    pub received: u64,
    /// See `received`.
    pub sent: u64,
    /// Bytes sent since the start.
    pub sent_bytes: u64,
    /// Datagrams that were not answered because of who sent them, or because too many came.
    pub dropped: u64,
    /// Operations under way.
    pub operations: usize,
}

/// What one socket's node is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketStats {
    /// Where it is bound.
    pub local: SocketAddr,
    /// Its id.
    pub id: NodeId,
    /// Its address as others see it, once enough agree.
    pub external: Option<IpAddr>,
    /// Nodes in its table.
    pub nodes: usize,
    /// Those of them that have been heard of not long ago.
    pub good: usize,
    /// The median round trip to these.
    pub latency: Option<Duration>,
}

impl Node {
    /// A node with the sockets bound to `sockets`, which are known by their number from now on. `seed` is entropy of the
    /// operating system. With no saved state it begins with a random id and no nodes.
    pub fn new(now: Instant, sockets: &[SocketAddr], config: NodeConfig, seed: [u8; 32], saved: &SavedState) -> Self {
        let mut random = Random::new(seed);
        let (mut ids_v4, mut ids_v6) = (saved.ids_v4.iter(), saved.ids_v6.iter());
        let sockets = sockets.iter().map(|local| {
            let ids = if local.is_ipv6() { &mut ids_v6 } else { &mut ids_v4 };
            let id = ids.next().copied().unwrap_or_else(|| NodeId::random(&mut random));
            Endpoint::new(now, *local, id, &saved.nodes)
        });
        let sockets = sockets.collect();
        let tokens = Tokens::new(now, &mut random);
        let mut node = Self {
            config,
            random,
            sockets,
            transactions: Transactions::default(),
            guard: Guard::default(),
            answer_budget: Budget::new(now, ANSWER_RATE),
            query_budget: Budget::new(now, QUERY_RATE),
            tokens,
            peers: PeerStore::default(),
            items: ItemStore::default(),
            routers: BTreeSet::new(),
            legs: BTreeMap::new(),
            operations: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_id: 0,
            starved: false,
            next_tick: now,
            next_expiry: now,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            counts: Counts::default(),
        };
        node.begin_with(now, &saved.nodes);
        node
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What is to be told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Node::handle_timeout`] is to be called, at the latest.
    pub fn poll_timeout(&mut self) -> Instant {
        let late = self.transactions.poll_timeout();
        let fed = self.starved.then(|| self.query_budget.ready_at());
        [late, fed, self.waiting_until()].into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    /// What is to be kept for the next run.
    pub fn save(&self, now: Instant) -> SavedState {
        let ids = |v6| self.sockets.iter().filter(move |s| s.is_v6() == v6).map(|s| s.table.own()).collect();
        let mut nodes: Vec<Contact> = Vec::new();
        for socket in &self.sockets {
            // The nearest first: they are the hardest to find again.
            nodes.extend(socket.table.closest(now, &socket.table.own(), super::state::MAX_STATE_NODES));
        }
        SavedState { ids_v4: ids(false), ids_v6: ids(true), nodes }
    }

    /// Nodes in the tables of all sockets.
    pub fn node_count(&self) -> usize {
        self.sockets.iter().map(|socket| socket.table.len()).sum()
    }

    /// What the node is like now.
    pub fn stats(&self, now: Instant) -> Stats {
        let socket = |socket: &Endpoint| SocketStats {
            local: socket.local,
            id: socket.table.own(),
            external: socket.external,
            nodes: socket.table.len(),
            good: socket.table.good(now),
            latency: socket.table.latency(now),
        };
        Stats {
            sockets: self.sockets.iter().map(socket).collect(),
            stored: self.peers.len(),
            items: self.items.len(),
            received: self.counts.received,
            sent: self.counts.sent,
            sent_bytes: self.counts.sent_bytes,
            dropped: self.counts.dropped,
            operations: self.operations.len(),
        }
    }

    /// A node somebody told us of, by a `port` message (BEP 5): it is asked whether it is there, and kept if it answers.
    pub fn add_node(&mut self, now: Instant, address: SocketAddr) {
        let address = canonical(address);
        if let Some(via) = self.socket_for(address) {
            self.verify(now, via, address);
        }
    }

    /// The first socket of the family of `address`.
    pub(super) fn socket_for(&self, address: SocketAddr) -> Option<usize> {
        self.sockets.iter().position(|socket| socket.is_v6() == address.is_ipv6())
    }

    /// Pings a node that may be worth a place in the table, or has it wait.
    pub(super) fn verify(&mut self, now: Instant, via: usize, address: SocketAddr) {
        let may_ping = self.transactions.count(Reason::Ping) < MAX_PINGS && self.answer_budget.has_some(now);
        if may_ping && !self.transactions.is_asking(via, address) {
            let bytes = self.ask(now, via, address, Reason::Ping, &Query::Ping);
            self.answer_budget.spend(bytes);
        } else if !may_ping {
            self.verify_later(via, address);
        }
    }

    pub(super) fn verify_later(&mut self, via: usize, address: SocketAddr) {
        let Some(socket) = self.sockets.get_mut(via) else { return };
        if socket.unverified.len() < MAX_UNVERIFIED && !socket.unverified.contains(&address) {
            socket.unverified.push_back(address);
        }
    }

    /// Sends a query. Returns its bytes: whose budget they belong to the caller knows.
    pub(super) fn ask(&mut self, now: Instant, via: usize, to: SocketAddr, reason: Reason, query: &Query<'_>) -> usize {
        let Some(socket) = self.sockets.get(via).filter(|_| self.transactions.has_room()) else { return 0 };
        let id = socket.table.own();
        let transaction = self.transactions.open(now, via, to, reason, &mut self.random);
        let bytes = query.encode(&transaction, id, self.config.read_only);
        self.transmit(via, to, bytes)
    }

    pub(super) fn transmit(&mut self, via: usize, to: SocketAddr, bytes: Vec<u8>) -> usize {
        let len = bytes.len();
        if self.transmits.len() < MAX_WAITING {
            self.counts.sent += 1;
            self.counts.sent_bytes += len as u64;
            self.transmits.push_back(Transmit { via, to, bytes });
        }
        len
    }

    pub(super) fn tell(&mut self, event: Event) {
        // The end of an operation is always told, or somebody would wait for it for ever.
        if self.events.len() < MAX_WAITING || matches!(event, Event::Done { .. }) {
            self.events.push_back(event);
        }
    }

    /// What to ask for while there are few nodes of one family: both, if there are sockets for both (BEP 32).
    pub(super) fn want_all(&self) -> Want {
        let has = |v6| self.sockets.iter().any(|socket| socket.is_v6() == v6);
        if has(false) && has(true) { Want { v4: true, v6: true } } else { Want::default() }
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
