//! What comes in: whether it is read at all, and what answers to our queries teach.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::address::{canonical, is_usable_node};
use super::command::Event;
use super::id::NodeId;
use super::krpc::{Body, Contact, Message, Response, Unreadable, encode_error};
use super::node::{MAX_DATAGRAM, Node};
use super::table::K;
use super::transactions::{Pending, Reason};

impl Node {
    /// A datagram came from `from` through socket `via`.
    pub fn handle_datagram(&mut self, now: Instant, via: usize, from: SocketAddr, bytes: &[u8]) {
        let from = canonical(from);
        self.counts.received += 1;
        if via >= self.sockets.len()
            || from.port() == 0
            || bytes.len() > MAX_DATAGRAM
            || self.guard.is_blocked(now, from)
        {
            self.counts.dropped += 1;
            return;
        }
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(unreadable) => {
                if self.admits(now, from)
                    && let Unreadable::Query(transaction, code, why) = unreadable
                {
                    self.refuse(now, via, from, transaction, code, why);
                }
                return;
            }
        };
        match message.body {
            Body::Query { id, ref query } => {
                if self.admits(now, from) {
                    self.handle_query(now, via, from, &message, id, query, bytes.len());
                }
            }
            Body::Response(ref response) => {
                let Some((pending, rtt)) = self.transactions.close(now, via, from, message.transaction) else {
                    self.admits(now, from);
                    return;
                };
                if let Some(seen_as) = message.seen_as {
                    self.handle_vote(now, via, from, seen_as);
                }
                self.handle_answer(now, &pending, response, rtt);
            }
            Body::Error { code, ref text } => {
                let Some((pending, _)) = self.transactions.close(now, via, from, message.transaction) else {
                    self.admits(now, from);
                    return;
                };
                if let Some(seen_as) = message.seen_as {
                    self.handle_vote(now, via, from, seen_as);
                }
                self.handle_error(now, &pending, code, text);
            }
        }
    }

    /// Counts an unasked message.
    fn admits(&mut self, now: Instant, from: SocketAddr) -> bool {
        let admitted = self.guard.admits(now, from);
        self.counts.dropped += u64::from(!admitted);
        admitted
    }

    /// Answers with an error, if there is budget left for it.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        via: usize,
        to: SocketAddr,
        transaction: &[u8],
        code: i64,
        why: &str,
    ) {
        if self.config.read_only || !self.answer_budget.has_some(now) {
            self.counts.dropped += 1;
            return;
        }
        let bytes = encode_error(transaction, to, code, why);
        let sent = self.transmit(via, to, bytes);
        self.answer_budget.spend(sent);
    }

    fn handle_answer(&mut self, now: Instant, pending: &Pending, response: &Response<'_>, rtt: Duration) {
        let Some(id) = response.id else { return };
        let (via, from) = (pending.via, pending.to);
        let Some(socket) = self.sockets.get_mut(via) else { return };
        socket.heard = Some(now);
        let contact = Contact { id, address: from };
        if id == socket.table.own() {
            // We have found ourselves.
            self.handle_no_answer(now, pending);
            return;
        }
        if !self.routers.contains(&from) {
            socket.table.answered(now, contact, rtt);
        }
        self.share_nodes(via, from, response);
        match pending.reason {
            Reason::Ping => {}
            Reason::Bootstrap => self.bootstrapped(now, via, contact, response),
            Reason::Step(leg, asked) => self.handle_step(now, leg, asked, contact, response),
            Reason::Store(leg) => self.handle_stored(now, leg, from, None, true),
        }
        self.begin_waiting(now, via);
    }

    /// Nodes of the other family, which we asked for or not, help where that family has few.
    fn share_nodes(&mut self, via: usize, from: SocketAddr, response: &Response<'_>) {
        let v6 = self.sockets[via].is_v6();
        let Some(other) = self.sockets.iter().position(|socket| socket.is_v6() != v6) else { return };
        let list = if v6 { &response.nodes } else { &response.nodes6 };
        if self.sockets[other].table.len() >= K {
            return;
        }
        for node in list.iter().flatten().filter(|node| node.address.is_ipv6() != v6) {
            if is_usable_node(node.address, from.ip()) {
                self.verify_later(other, node.address);
            }
        }
    }

    pub(super) fn handle_error(&mut self, now: Instant, pending: &Pending, code: i64, text: &str) {
        if let Some(socket) = self.sockets.get_mut(pending.via) {
            socket.heard = Some(now);
        }
        match pending.reason {
            Reason::Ping | Reason::Bootstrap => {}
            Reason::Step(leg, id) => self.handle_step_failed(now, leg, &id),
            Reason::Store(leg) => self.handle_stored(now, leg, pending.to, Some((code, text.to_owned())), false),
        }
    }

    /// A query was in vain.
    pub(super) fn handle_no_answer(&mut self, now: Instant, pending: &Pending) {
        if let Some(socket) = self.sockets.get_mut(pending.via) {
            // As long as nobody at all answers, it is our line that is down, and the nodes are not to blame.
            if socket.heard.is_some_and(|heard| heard >= pending.sent) {
                socket.table.failed(now, pending.to);
            }
        }
        match pending.reason {
            Reason::Ping | Reason::Bootstrap => {}
            Reason::Step(leg, id) => self.handle_step_failed(now, leg, &id),
            Reason::Store(leg) => self.handle_stored(now, leg, pending.to, None, false),
        }
    }

    /// Somebody sees us at an address. If most do, the id is made to fit it (BEP 42).
    fn handle_vote(&mut self, now: Instant, via: usize, by: SocketAddr, seen_as: SocketAddr) {
        let Some(socket) = self.sockets.get_mut(via) else { return };
        socket.votes.add(by, seen_as);
        let winner = socket.votes.winner();
        if let Some(ip) = winner.filter(|_| winner != socket.external) {
            self.be_at(now, via, ip);
        }
    }

    /// Our address, as a router says. It holds until most nodes see another.
    pub fn handle_external(&mut self, now: Instant, ip: IpAddr) {
        if let Some(via) = self.sockets.iter().position(|socket| socket.is_v6() == ip.is_ipv6())
            && self
                .sockets
                .get(via)
                .is_some_and(|socket| socket.votes.winner().is_none() && socket.external != Some(ip))
        {
            self.be_at(now, via, ip);
        }
    }

    /// The id is made to fit our address.
    fn be_at(&mut self, now: Instant, via: usize, ip: IpAddr) {
        let Some(socket) = self.sockets.get_mut(via) else { return };
        socket.external = Some(ip);
        if !socket.table.own().is_bound_to(ip) {
            let id = NodeId::bound_to(ip, &mut self.random);
            for (contact, heard, rtt) in socket.table.drain(id) {
                socket.table.answered(heard, contact, rtt);
            }
            self.find_neighbours(now, via);
        }
        self.tell(Event::External { via, ip });
    }
}
