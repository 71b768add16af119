//! What the node does of itself as time passes: finding its neighbours, asking quiet nodes, refreshing, forgetting.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::address::{canonical, is_usable_node};
use super::command::Event;
use super::external::Votes;
use super::id::NodeId;
use super::krpc::{Contact, Query, Response};
use super::node::{Endpoint, Node};
use super::table::{K, Table};
use super::transactions::Reason;

/// How often the table is looked at.
const TICK: Duration = Duration::from_secs(5);
/// How often what is stored for others is looked at.
const EXPIRY: Duration = Duration::from_secs(60);
/// Quiet nodes that are pinged each time; new ones that wait to be.
const PINGS: usize = 4;
const NEW_PINGS: usize = 8;
/// Nodes with which one can begin that are asked at once.
const MAX_BOOTSTRAP: usize = 64;
/// Between two calls for help while there are few nodes: this, doubling...
const FIRST_BOOTSTRAP_WAIT: Duration = Duration::from_secs(5);
/// ...up to this.
const MAX_BOOTSTRAP_WAIT: Duration = Duration::from_secs(600);
/// Saved nodes get so much time before others are asked for help.
const SAVED_NODES_TIME: Duration = Duration::from_secs(3);

impl Endpoint {
    /// A socket's node, with nothing in its table; those of `saved` wait to be asked.
    pub(super) fn new(now: Instant, local: SocketAddr, id: NodeId, saved: &[Contact]) -> Self {
        let of_family = saved.iter().filter(|node| node.address.is_ipv6() == local.is_ipv6());
        let unverified: VecDeque<_> = of_family.map(|node| canonical(node.address)).collect();
        let next_bootstrap = if unverified.is_empty() { now } else { now + SAVED_NODES_TIME };
        Self {
            local,
            table: Table::new(id),
            votes: Votes::default(),
            external: None,
            heard: None,
            upkeep: None,
            unverified,
            next_bootstrap,
            bootstrap_wait: FIRST_BOOTSTRAP_WAIT,
        }
    }
}

impl Node {
    /// Begins with the nodes of an earlier run.
    pub(super) fn begin_with(&mut self, now: Instant, saved: &[Contact]) {
        for via in 0..self.sockets.len() {
            let v6 = self.sockets[via].is_v6();
            let nodes: Vec<_> = saved.iter().filter(|node| node.address.is_ipv6() == v6).copied().collect();
            let own = self.sockets[via].table.own();
            if !nodes.is_empty() {
                self.start_upkeep(now, via, own, &nodes);
            }
        }
    }

    /// Asks nodes of which only the address is known for others. `routers` are well-known ones that many begin with:
    /// they are spared everything else. Families of addresses that have enough nodes do not ask.
    pub fn bootstrap(&mut self, now: Instant, addresses: &[SocketAddr], routers: bool) {
        for address in addresses.iter().take(MAX_BOOTSTRAP) {
            let address = canonical(*address);
            match routers {
                true => self.routers.insert(address),
                false => self.routers.remove(&address),
            };
            for via in 0..self.sockets.len() {
                let socket = &self.sockets[via];
                let fits = socket.is_v6() == address.is_ipv6() && address.port() != 0;
                if !fits || socket.table.good(now) >= K || self.transactions.is_asking(via, address) {
                    continue;
                }
                let query = Query::FindNode { target: socket.table.own(), want: self.want_all() };
                let sent = self.ask(now, via, address, Reason::Bootstrap, &query);
                self.query_budget.spend(sent);
            }
        }
    }

    /// A node that we began with has answered.
    pub(super) fn bootstrapped(&mut self, now: Instant, via: usize, from: Contact, response: &Response<'_>) {
        let v6 = self.sockets[via].is_v6();
        let own = self.sockets[via].table.own();
        let list = if v6 { &response.nodes6 } else { &response.nodes };
        let fits = |node: &&Contact| {
            node.id != own && node.address.is_ipv6() == v6 && is_usable_node(node.address, from.address.ip())
        };
        let nodes: Vec<Contact> = list.iter().flatten().filter(fits).copied().collect();
        let upkeep = self.sockets[via].upkeep.and_then(|number| self.legs.get_mut(&number));
        match upkeep.filter(|leg| leg.lookup.target == own) {
            Some(leg) => nodes.iter().for_each(|node| leg.lookup.add(*node, 2)),
            None => self.start_upkeep(now, via, own, &nodes),
        }
    }

    /// Looks for the nodes nearest to our own id.
    pub(super) fn find_neighbours(&mut self, now: Instant, via: usize) {
        let own = self.sockets[via].table.own();
        self.start_upkeep(now, via, own, &[]);
    }

    /// What is to be done now and then.
    pub(super) fn tick(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        if self.next_expiry <= now {
            self.next_expiry = now + EXPIRY;
            self.peers.expire(now);
            self.items.expire(now);
        }
        let mut lonely = false;
        for via in 0..self.sockets.len() {
            self.ping_some(now, via);
            lonely |= self.look_around(now, via);
        }
        if lonely {
            self.tell(Event::WantBootstrap);
        }
    }

    fn ping_some(&mut self, now: Instant, via: usize) {
        let socket = &mut self.sockets[via];
        let quiet = socket.table.take_quiet(now, PINGS).into_iter().map(|node| node.address);
        let known = |address: &SocketAddr| socket.table.nodes().any(|node| node.contact.address == *address);
        let new = (0..NEW_PINGS).map_while(|_| socket.unverified.pop_front()).filter(|address| !known(address));
        let due: Vec<SocketAddr> = new.chain(quiet).collect();
        for address in due {
            if !self.transactions.is_asking(via, address) {
                let sent = self.ask(now, via, address, Reason::Ping, &Query::Ping);
                self.query_budget.spend(sent);
            }
        }
    }

    /// Refreshes a bucket, or looks for neighbours. True if there are too few nodes, and it is time to ask for help.
    fn look_around(&mut self, now: Instant, via: usize) -> bool {
        let socket = &mut self.sockets[via];
        let lonely = socket.table.good(now) < K;
        let due = lonely && socket.next_bootstrap <= now;
        if due {
            socket.next_bootstrap = now + socket.bootstrap_wait;
            socket.bootstrap_wait = (socket.bootstrap_wait * 2).min(MAX_BOOTSTRAP_WAIT);
        } else if !lonely {
            (socket.next_bootstrap, socket.bootstrap_wait) = (now, FIRST_BOOTSTRAP_WAIT);
        }
        if socket.upkeep.is_some() {
            return due;
        }
        if due {
            self.find_neighbours(now, via);
        } else if let Some(place) = socket.table.take_stale(now) {
            let target = socket.table.own().sibling(place, &mut self.random);
            self.start_upkeep(now, via, target, &[]);
        }
        due
    }
}
