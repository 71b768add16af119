//! How commands are carried out: a lookup on each family of addresses, then what is to be stored.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::address::{is_usable, is_usable_node};
use super::bloom::Bloom;
use super::command::{Command, Event, OperationId, Scrape, Summary};
use super::id::NodeId;
use super::items::{Item, ItemError, Signed, mutable_target};
use super::krpc::{Claim, Contact, Put, Query, Response, Want};
use super::lookup::{Lookup, Question};
use super::node::Node;
use super::table::K;
use super::transactions::{Late, Reason};

/// Operations under way; the others wait.
const MAX_RUNNING: usize = 32;

/// Peers that one operation tells of.
const MAX_FOUND: usize = 5_000;

/// How long an operation waits for the first nodes.
const WAIT_FOR_NODES: Duration = Duration::from_secs(15);

/// Info-hashes that are taken from one answer.
const MAX_SAMPLES: usize = 100;

/// An operation under way.
#[derive(Debug)]
pub(super) struct Operation {
    command: Command,
    legs: usize,
    /// Sockets whose turn comes later: two of one family do not ask the same nodes at once (BEP 45).
    later: Vec<usize>,
    seen: BTreeSet<SocketAddr>,
    newest: Option<i64>,
    filters: (Bloom, Bloom),
    summary: Summary,
}

/// An operation's search through one socket; upkeep of the table if there is no operation.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) operation: Option<OperationId>,
    via: usize,
    pub(super) lookup: Lookup,
    started: Instant,
    /// Who is asked to store, once the search is over.
    stores: Option<BTreeSet<SocketAddr>>,
}

impl Node {
    /// Begins an operation. What comes of it is told by [`Node::poll_event`]; the last of it is [`Event::Done`].
    pub fn start(&mut self, now: Instant, command: Command) -> OperationId {
        let id = OperationId(self.new_id());
        let operation = Operation {
            command,
            legs: 0,
            later: Vec::new(),
            seen: BTreeSet::new(),
            newest: None,
            filters: (Bloom::new(), Bloom::new()),
            summary: Summary::default(),
        };
        self.operations.insert(id, operation);
        self.waiting.push_back(id);
        self.start_waiting(now);
        id
    }

    /// Ends an operation at once, without a word.
    pub fn cancel(&mut self, now: Instant, id: OperationId) {
        self.operations.remove(&id);
        self.waiting.retain(|waiting| *waiting != id);
        self.legs.retain(|_, leg| leg.operation != Some(id));
        self.start_waiting(now);
    }

    fn start_waiting(&mut self, now: Instant) {
        while self.operations.len() - self.waiting.len() < MAX_RUNNING {
            let Some(id) = self.waiting.pop_front() else { return };
            let Some(operation) = self.operations.get_mut(&id) else { continue };
            let (mut first, mut later) = (Vec::new(), Vec::new());
            for (via, socket) in self.sockets.iter().enumerate() {
                let taken = first.iter().any(|other: &usize| self.sockets[*other].is_v6() == socket.is_v6());
                if taken { &mut later } else { &mut first }.push(via);
            }
            if matches!(operation.command, Command::Announce { .. }) {
                operation.later = later;
            }
            operation.legs = first.len();
            if first.is_empty() {
                self.end_operation(now, id);
            }
            for via in first {
                self.start_leg(now, id, via);
            }
        }
    }

    fn start_leg(&mut self, now: Instant, id: OperationId, via: usize) {
        let Some(operation) = self.operations.get(&id) else { return };
        let lookup = Lookup::new(operation.command.target(), operation.command.question());
        let leg = Leg { operation: Some(id), via, lookup, started: now, stores: None };
        let number = self.new_id();
        self.legs.insert(number, leg);
        self.begin_waiting(now, via);
    }

    /// A lookup for the table's sake, which begins with `contacts` and what the table has.
    pub(super) fn start_upkeep(&mut self, now: Instant, via: usize, target: NodeId, contacts: &[Contact]) {
        let mut lookup = Lookup::new(target, Question::Nodes);
        contacts.iter().for_each(|contact| lookup.add(*contact, 1));
        self.sockets[via].table.closest(now, &target, 2 * K).iter().for_each(|contact| lookup.add(*contact, 1));
        if lookup.is_empty() {
            return;
        }
        let number = self.new_id();
        self.legs.insert(number, Leg { operation: None, via, lookup, started: now, stores: None });
        self.sockets[via].upkeep = Some(number);
        self.pump(now, number);
    }

    /// Lets those begin who waited for nodes, if there are enough now or no more are to be expected soon.
    pub(super) fn begin_waiting(&mut self, now: Instant, via: usize) {
        let Some(socket) = self.sockets.get(via) else { return };
        let settled = socket.upkeep.is_none() && self.transactions.count(Reason::Bootstrap) == 0;
        if socket.table.len() == 0 || !(settled || socket.table.len() >= K) {
            return;
        }
        let waiting: Vec<u64> =
            self.legs.iter().filter(|(_, leg)| leg.via == via && leg.lookup.is_empty()).map(|(id, _)| *id).collect();
        for number in waiting {
            self.begin(now, number);
        }
    }

    fn begin(&mut self, now: Instant, number: u64) {
        let Some(leg) = self.legs.get_mut(&number) else { return };
        let nodes = self.sockets[leg.via].table.closest(now, &leg.lookup.target, 2 * K);
        nodes.iter().for_each(|contact| leg.lookup.add(*contact, 1));
        self.pump(now, number);
    }

    /// When the first of those that wait for nodes has waited long enough.
    pub(super) fn waiting_until(&self) -> Option<Instant> {
        self.legs.values().filter(|leg| leg.lookup.is_empty()).map(|leg| leg.started + WAIT_FOR_NODES).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(late) = self.transactions.poll_late(now) {
            match late {
                Late::Lost(pending) => self.handle_no_answer(now, &pending),
                Late::Slow(pending) => match pending.reason {
                    Reason::Step(number, id) => {
                        if let Some(leg) = self.legs.get_mut(&number) {
                            leg.lookup.slow(&id);
                        }
                    }
                    Reason::Store(number) => self.handle_stored(now, number, pending.to, None, false),
                    Reason::Ping | Reason::Bootstrap => {}
                },
            }
        }
        let over = |leg: &Leg| leg.lookup.is_empty() && leg.started + WAIT_FOR_NODES <= now;
        let over: Vec<u64> = self.legs.iter().filter(|(_, leg)| over(leg)).map(|(number, _)| *number).collect();
        for number in over {
            self.begin(now, number);
            if self.legs.get(&number).is_some_and(|leg| leg.lookup.is_empty()) {
                self.end_leg(now, number);
            }
        }
        if self.next_tick <= now {
            self.tick(now);
        }
        self.starved = false;
        let all: Vec<u64> = self.legs.keys().copied().collect();
        all.into_iter().for_each(|number| self.pump(now, number));
    }

    /// Asks whom a lookup would ask next, and goes on when it is over.
    fn pump(&mut self, now: Instant, number: u64) {
        loop {
            let Some(leg) = self.legs.get_mut(&number) else { return };
            if leg.stores.is_some() || leg.lookup.is_empty() {
                return;
            }
            if leg.lookup.is_done() {
                return self.finish_search(now, number);
            }
            if !self.query_budget.has_some(now) {
                self.starved = true;
                return;
            }
            let (via, room) = (leg.via, self.transactions.has_room());
            let Some(contact) = Some(&mut leg.lookup).filter(|_| room).and_then(Lookup::next) else { return };
            let query = leg.lookup.question.query(leg.lookup.target, Want::default());
            let sent = self.ask(now, via, contact.address, Reason::Step(number, contact.id), &query);
            self.query_budget.spend(sent);
        }
    }

    /// The node that was asked as `asked` has answered as `contact`.
    pub(super) fn handle_step(
        &mut self,
        now: Instant,
        number: u64,
        asked: NodeId,
        contact: Contact,
        response: &Response<'_>,
    ) {
        let Some(leg) = self.legs.get_mut(&number) else { return };
        let via = leg.via;
        if contact.id != asked {
            leg.lookup.renamed(&asked, contact);
            return self.pump(now, number);
        }
        let depth = leg.lookup.answered(&asked, response.token, response.seq);
        let v6 = contact.address.is_ipv6();
        let own = self.sockets[via].table.own();
        let list = if v6 { &response.nodes6 } else { &response.nodes };
        for node in list.iter().flatten() {
            if node.id != own && node.address.is_ipv6() == v6 && is_usable_node(node.address, contact.address.ip()) {
                leg.lookup.add(*node, depth.saturating_add(1));
            }
        }
        if let Some(operation) = leg.operation {
            self.handle_find(now, operation, number, depth, contact, response);
        }
        self.pump(now, number);
    }

    /// What an answer says about what an operation looks for.
    fn handle_find(
        &mut self,
        now: Instant,
        id: OperationId,
        number: u64,
        depth: u8,
        from: Contact,
        response: &Response<'_>,
    ) {
        let Some(operation) = self.operations.get_mut(&id) else { return };
        let event = match &operation.command {
            Command::GetPeers { .. } | Command::Announce { .. } | Command::Scrape { .. } => {
                operation.add_filters(response);
                let peers = operation.new_peers(from.address, &response.values);
                (!peers.is_empty()).then_some(Event::Peers { operation: id, from: from.address, peers })
            }
            Command::Get { target, salt } => read_item(target, salt, response)
                .filter(|item| item.seq().is_none() || item.seq() > operation.newest)
                .map(|item| {
                    operation.newest = item.seq();
                    Event::Item { operation: id, item }
                }),
            Command::Put { .. } => None,
            Command::Sample { .. } => response.samples.map(|samples| Event::Samples {
                operation: id,
                from,
                hashes: samples.chunks_exact(20).take(MAX_SAMPLES).filter_map(NodeId::from_slice).collect(),
                count: response.sample_count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                interval: Duration::from_secs(
                    response.interval.and_then(|n| u64::try_from(n).ok()).unwrap_or(0).min(21_600),
                ),
            }),
        };
        let Some(event) = event else { return };
        operation.summary.hops.get_or_insert(depth);
        // An item that never changes need not be looked for any further.
        let satisfied = matches!(&event, Event::Item { item, .. } if item.signed().is_none());
        let legs = self.legs.values_mut().filter(|leg| leg.operation == Some(id));
        legs.filter(|_| satisfied).for_each(|leg| leg.lookup.satisfied = true);
        self.tell(event);
        if satisfied {
            // The other family's search ends with this one.
            let others = self.legs.iter().filter(|(other, leg)| leg.operation == Some(id) && **other != number);
            let others: Vec<u64> = others.map(|(other, _)| *other).collect();
            others.into_iter().for_each(|other| self.end_leg(now, other));
        }
    }

    /// The node that was asked as `id` will not be of use.
    pub(super) fn handle_step_failed(&mut self, now: Instant, number: u64, id: &NodeId) {
        if let Some(leg) = self.legs.get_mut(&number) {
            leg.lookup.failed(id);
            self.pump(now, number);
        }
    }

    /// The search is over: stores what is to be stored.
    fn finish_search(&mut self, now: Instant, number: u64) {
        let Some(leg) = self.legs.get_mut(&number) else { return };
        let (via, operation) = (leg.via, leg.operation);
        let mut places = leg.lookup.places();
        let mut stores = BTreeSet::new();
        let operation = operation.and_then(|id| self.operations.get_mut(&id));
        let command = operation.as_ref().map(|operation| operation.command.clone());
        if let (Some(operation), Some(Command::Put { cas: Some(cas), .. })) = (operation, &command)
            && let Some(newest) = places.iter().filter_map(|place| place.seq).max().filter(|newest| newest != cas)
        {
            // Nodes that have no version of it would take any.
            operation.summary.refused = Some((ItemError::Swapped.code(), format!("version {newest} is stored")));
            places.clear();
        }
        for place in places {
            let token = &place.token[..];
            let query = match &command {
                Some(Command::Announce { info_hash, port_v4, port_v6, seed }) => {
                    let port = if place.contact.address.is_ipv6() { *port_v6 } else { *port_v4 };
                    Query::Announce { info_hash: *info_hash, port, seed: *seed, token }
                }
                Some(Command::Put { item, cas }) => {
                    let signed = item.signed().map(|s| Claim {
                        key: &s.key,
                        salt: &s.salt,
                        seq: s.seq,
                        signature: &s.signature,
                    });
                    // BEP 44: nothing to compare with where nothing is stored.
                    Query::Put(Put { token, value: item.value(), signed, cas: cas.filter(|_| place.seq.is_some()) })
                }
                _ => break,
            };
            let sent = self.ask(now, via, place.contact.address, Reason::Store(number), &query);
            self.query_budget.spend(sent);
            if sent > 0 {
                stores.insert(place.contact.address);
            }
        }
        match self.legs.get_mut(&number) {
            Some(leg) if !stores.is_empty() => leg.stores = Some(stores),
            _ => self.end_leg(now, number),
        }
    }

    /// The node at `from` has stored what it was asked to, or not.
    pub(super) fn handle_stored(
        &mut self,
        now: Instant,
        number: u64,
        from: SocketAddr,
        refusal: Option<(i64, String)>,
        stored: bool,
    ) {
        let Some(leg) = self.legs.get_mut(&number) else { return };
        let Some(stores) = leg.stores.as_mut().filter(|stores| stores.contains(&from)) else { return };
        stores.remove(&from);
        let over = stores.is_empty();
        if let Some(operation) = leg.operation.and_then(|id| self.operations.get_mut(&id)) {
            operation.summary.stored += usize::from(stored);
            if refusal.is_some() {
                operation.summary.refused = refusal;
            }
        }
        if over {
            self.end_leg(now, number);
        }
    }

    fn end_leg(&mut self, now: Instant, number: u64) {
        let Some(leg) = self.legs.remove(&number) else { return };
        let Some(id) = leg.operation else {
            if let Some(socket) = self.sockets.get_mut(leg.via).filter(|socket| socket.upkeep == Some(number)) {
                socket.upkeep = None;
            }
            return self.begin_waiting(now, leg.via);
        };
        let Some(operation) = self.operations.get_mut(&id) else { return };
        let summary = &mut operation.summary;
        summary.asked += leg.lookup.asked;
        summary.answered += leg.lookup.answered;
        summary.nearest.extend(leg.lookup.nearest());
        let v6 = self.sockets[leg.via].is_v6();
        let next = operation.later.iter().position(|via| self.sockets[*via].is_v6() == v6);
        if let Some(via) = next.map(|next| operation.later.remove(next)) {
            return self.start_leg(now, id, via);
        }
        operation.legs -= 1;
        if operation.legs == 0 {
            self.end_operation(now, id);
        }
    }

    fn end_operation(&mut self, now: Instant, id: OperationId) {
        let Some(operation) = self.operations.remove(&id) else { return };
        let target = operation.command.target();
        let mut summary = operation.summary;
        summary.nearest.sort_by_key(|contact| contact.id.distance(&target));
        if matches!(operation.command, Command::Scrape { .. }) {
            let (seeds, peers) = &operation.filters;
            summary.scrape = Some(Scrape { seeds: seeds.estimate(), peers: peers.estimate() });
        }
        self.tell(Event::Done { operation: id, summary });
        self.start_waiting(now);
    }
}

impl Operation {
    /// Those of `values`, named by the node at `from`, that can be peers and are new.
    fn new_peers(&mut self, from: SocketAddr, values: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut new = Vec::new();
        for peer in values {
            let fits = peer.is_ipv6() == from.is_ipv6() && is_usable(*peer, from.ip());
            if fits && self.seen.len() < MAX_FOUND && self.seen.insert(*peer) {
                new.push(*peer);
            }
        }
        self.summary.peers += new.len();
        new
    }

    /// BEP 33: filters are joined; nodes that know none are counted by the peers that they name.
    fn add_filters(&mut self, response: &Response<'_>) {
        let (seeds, peers) = &mut self.filters;
        match (response.seeds.and_then(Bloom::from_slice), response.leeches.and_then(Bloom::from_slice)) {
            (Some(more_seeds), Some(more_peers)) => {
                seeds.join(&more_seeds);
                peers.join(&more_peers);
            }
            _ => response.values.iter().filter(|peer| !seeds.contains(peer.ip())).for_each(|p| peers.insert(p.ip())),
        }
    }
}

/// The item in an answer, if it is the one that was looked for, and sound.
fn read_item(target: &NodeId, salt: &[u8], response: &Response<'_>) -> Option<Item> {
    let value = response.value?;
    let item = match (response.key, response.seq, response.signature) {
        (Some(key), Some(seq), Some(signature)) => {
            let (key, signature) = (key.try_into().ok()?, signature.try_into().ok()?);
            if mutable_target(&key, salt) != *target {
                return None;
            }
            Item::verify(Signed { key, salt: salt.to_vec(), seq, signature }, value).ok()?
        }
        _ => Item::immutable(value).ok()?,
    };
    (item.target() == *target).then_some(item)
}
