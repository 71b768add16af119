//! Moving requests from long queues to idle peers.
//!
//! A request is bound to a peer when it is made. In a swarm of many slow connections that goes wrong after a while: all that
//! an idle peer could send is asked for elsewhere already, of peers that will need seconds for it. Blocks at the end of such
//! queues are taken back by `cancel` and asked of the idle peer. Nothing is fetched twice by it, unless a block had
//! left already; that is why only the tail of a queue that takes long is touched.

use std::time::{Duration, Instant};

use super::Swarm;
use crate::base::{Block, PeerKey};
use crate::wire::Message;

/// A queue that will be empty sooner is left alone.
const LONG_QUEUE: Duration = Duration::from_millis(1_500);

/// Blocks that stay with their peer in any case: the one under way, and one that may be.
const LEFT_ALONE: usize = 1;

/// Blocks that an idle peer takes over at once, at most.
const AT_ONCE: usize = 4;

/// Idle peers that get work in one turn, at most: it costs a look at every queue for each.
const MAX_AT_ONCE: usize = 64;

impl Swarm {
    pub(super) fn rebalance(&mut self, now: Instant) {
        if self.fetches_nothing() || self.picker.is_complete() {
            return;
        }
        let idle = |(_, peer): &(PeerKey, &super::peer::Peer)| {
            peer.wanted > 0
                && !peer.peer_choking
                && !peer.snubbed
                && peer.asked.is_empty()
                && peer.pause_until.is_none()
        };
        let idle: Vec<PeerKey> = self.peers.iter().filter(idle).map(|(key, _)| key).take(MAX_AT_ONCE).collect();
        if idle.is_empty() {
            return;
        }
        let mut queues: Vec<(Duration, PeerKey)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.asked.len() > LEFT_ALONE && !peer.snubbed)
            .filter_map(|(key, peer)| Some((peer.window.eta(now)?, key)))
            .filter(|(eta, _)| *eta >= LONG_QUEUE)
            .collect();
        queues.sort_unstable_by_key(|(eta, _)| std::cmp::Reverse(*eta));
        for key in idle {
            self.relieve(now, key, &queues);
        }
    }

    /// Takes blocks over for an idle peer from the longest queue that has some for it.
    fn relieve(&mut self, now: Instant, idle: PeerKey, queues: &[(Duration, PeerKey)]) {
        for (_, victim) in queues {
            let (Some(taker), Some(peer)) = (self.peers.at(idle), self.peers.at(*victim)) else { continue };
            // From the back, half of what may be taken, so that the two end at about the same time.
            let spare = peer.asked.len().saturating_sub(LEFT_ALONE);
            // A piece that failed before stays with its one peer, or nobody would ever know who spoils it.
            let may_move = |block: &Block| taker.have.has(block.piece()) && !self.picker.is_exclusive(block.piece());
            let tail = peer.asked.iter().rev().take(spare).map(|asked| asked.block);
            let blocks: Vec<Block> =
                tail.filter(|block| may_move(block)).take(spare.div_ceil(2).min(AT_ONCE)).collect();
            if blocks.is_empty() {
                continue;
            }
            for block in blocks {
                self.take_back(now, *victim, block);
            }
            self.refill(now, idle);
            return;
        }
    }

    fn take_back(&mut self, now: Instant, from: PeerKey, block: Block) {
        let Some(peer) = self.peers.at_mut(from) else { return };
        if peer.take_asked(block).is_some() {
            peer.window.release(now, 1);
            self.picker.release(from, block);
            peer.outbox.push(&Message::cancel(block));
            Self::wake(&mut self.wakes, from, peer);
        }
    }
}
