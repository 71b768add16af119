//! Answers to the queries of others.

use std::net::SocketAddr;
use std::time::Instant;

use super::id::NodeId;
use super::items::{Item, ItemError, MAX_SALT, Signed};
use super::krpc::{Contact, ERROR_PROTOCOL, Message, Put, Query, Response, Want};
use super::node::Node;
use super::table::K;

/// Bytes of an answer (BEP 32, "Maximum packet size").
const MAX_ANSWER: usize = 1_024;

/// Times as many bytes as the query has: whoever asks with a forged address gains no more by it. Only an item is
/// answered whole, whatever its size.
const MAX_GAIN: usize = 10;

/// Peers in an answer.
const MAX_ANSWER_PEERS: usize = 100;

impl Node {
    #[expect(clippy::too_many_arguments, reason = "all of it comes from one datagram")]
    pub(super) fn handle_query(
        &mut self,
        now: Instant,
        via: usize,
        from: SocketAddr,
        message: &Message<'_>,
        id: NodeId,
        query: &Query<'_>,
        len: usize,
    ) {
        if self.config.read_only {
            return;
        }
        if !self.answer_budget.has_some(now) {
            self.counts.dropped += 1;
            return;
        }
        let contact = Contact { id, address: from };
        if !message.read_only && self.sockets[via].table.asked(now, contact) {
            self.verify(now, via, from);
        }
        match self.answer(now, via, from, query, message.transaction, len) {
            Ok(bytes) => {
                let sent = self.transmit(via, from, bytes);
                self.answer_budget.spend(sent);
            }
            Err((code, why)) => self.refuse(now, via, from, message.transaction, code, why),
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        via: usize,
        from: SocketAddr,
        query: &Query<'_>,
        transaction: &[u8],
        len: usize,
    ) -> Result<Vec<u8>, (i64, &'static str)> {
        let room = (len * MAX_GAIN).min(MAX_ANSWER);
        let own = self.sockets[via].table.own();
        let mut response = Response { id: Some(own), ..Response::default() };
        let token = self.tokens.make(now, via, from.ip(), &mut self.random);
        let encode = |response: &Response<'_>| response.encode(transaction, from);
        match query {
            Query::Ping => {}
            Query::FindNode { target, want } => self.add_nodes(now, via, target, *want, room, &mut response, &encode),
            Query::GetPeers { info_hash, want, no_seed, scrape } => {
                let filters = if *scrape { self.peers.scrape(info_hash) } else { None };
                if let Some((seeds, others)) = &filters {
                    (response.seeds, response.leeches) = (Some(&seeds.0[..]), Some(&others.0[..]));
                }
                response.token = Some(&token);
                self.add_nodes(now, via, info_hash, *want, room, &mut response, &encode);
                let each = if from.is_ipv6() { 21 } else { 8 };
                let left = room.saturating_sub(encode(&response).len() + "6:valuesle".len());
                let count = (left / each).min(MAX_ANSWER_PEERS);
                response.values = self.peers.get(info_hash, from.is_ipv6(), *no_seed, count, &mut self.random);
                return Ok(encode(&response));
            }
            Query::Announce { info_hash, port, seed, token } => {
                self.check_token(now, via, from, token)?;
                let peer = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
                self.peers.announce(now, *info_hash, peer, *seed);
            }
            Query::Get { target, seq, want } => {
                let item = self.items.get(target).cloned();
                response.token = Some(&token);
                if let Some(item) = &item {
                    response.seq = item.seq();
                    // BEP 44: who has this version already need not get it again.
                    if seq.is_none_or(|known| item.seq().is_none_or(|seq| seq > known)) {
                        response.value = Some(item.value());
                        response.key = item.signed().map(|signed| &signed.key[..]);
                        response.signature = item.signed().map(|signed| &signed.signature[..]);
                    }
                }
                self.add_nodes(now, via, target, *want, room, &mut response, &encode);
                return Ok(encode(&response));
            }
            Query::Put(put) => {
                self.check_token(now, via, from, put.token)?;
                let item = read_item(put).map_err(wire_error)?;
                self.items.put(now, item, put.cas, own).map_err(wire_error)?;
            }
            Query::Sample { target, want } => {
                let sample = self.peers.sample(now, &mut self.random);
                response.samples = Some(&sample.hashes);
                response.sample_count = i64::try_from(sample.count).ok();
                response.interval = i64::try_from(sample.interval.as_secs()).ok();
                self.add_nodes(now, via, target, *want, room, &mut response, &encode);
                return Ok(encode(&response));
            }
        }
        Ok(encode(&response))
    }

    fn check_token(
        &mut self,
        now: Instant,
        via: usize,
        from: SocketAddr,
        token: &[u8],
    ) -> Result<(), (i64, &'static str)> {
        match self.tokens.check(now, via, from.ip(), token, &mut self.random) {
            true => Ok(()),
            false => Err((ERROR_PROTOCOL, "bad token")),
        }
    }

    /// The nodes nearest to `target`, of the families that are wanted, as far as there is room: the family that the query
    /// came by goes first.
    #[expect(clippy::too_many_arguments, reason = "what is left of the answer's room depends on all of it")]
    fn add_nodes(
        &self,
        now: Instant,
        via: usize,
        target: &NodeId,
        want: Want,
        room: usize,
        response: &mut Response<'_>,
        encode: &dyn Fn(&Response<'_>) -> Vec<u8>,
    ) {
        let ours_v6 = self.sockets[via].is_v6();
        let wanted = if want == Want::default() { Want { v4: !ours_v6, v6: ours_v6 } } else { want };
        for v6 in [ours_v6, !ours_v6] {
            if !(if v6 { wanted.v6 } else { wanted.v4 }) {
                continue;
            }
            let socket = if v6 == ours_v6 { Some(via) } else { self.sockets.iter().position(|s| s.is_v6() == v6) };
            let nodes = socket.and_then(|socket| self.sockets.get(socket));
            let mut nodes = nodes.map(|s| s.table.closest_good(now, target, K)).unwrap_or_default();
            // "6:nodes6304:" and the token, which may come later, take no more than this.
            let left = room.saturating_sub(encode(response).len() + 16);
            nodes.truncate(left / if v6 { 38 } else { 26 });
            let list = if v6 { &mut response.nodes6 } else { &mut response.nodes };
            *list = Some(nodes);
        }
    }
}

fn read_item(put: &Put<'_>) -> Result<Item, ItemError> {
    let Some(claim) = put.signed else { return Item::immutable(put.value) };
    if claim.salt.len() > MAX_SALT {
        return Err(ItemError::Salt);
    }
    let key = claim.key.try_into().map_err(|_| ItemError::Signature)?;
    let signature = claim.signature.try_into().map_err(|_| ItemError::Signature)?;
    Item::verify(Signed { key, salt: claim.salt.to_vec(), seq: claim.seq, signature }, put.value)
}

fn wire_error(error: ItemError) -> (i64, &'static str) {
    let text = match error {
        ItemError::Value => "v is not canonical bencode",
        ItemError::TooLong => "v is too long",
        ItemError::Salt => "salt is too long",
        ItemError::Negative => "seq is negative",
        ItemError::Signature => "invalid signature",
        ItemError::Swapped => "cas mismatch: read again",
        ItemError::Old => "seq is less than current",
        ItemError::Full => "no room",
    };
    (error.code(), text)
}
