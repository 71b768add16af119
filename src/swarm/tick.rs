//! All that happens because time passes.

use std::time::{Duration, Instant};

use super::{CloseReason, Stage, Swarm, choker};
use crate::base::PeerKey;
use crate::wire::Message;

/// How often time is looked at. Nothing here needs to be more exact.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// The same while nobody is connected: a seeder that nobody asks should cost nothing.
const IDLE_TICK: Duration = Duration::from_secs(2);

/// A peer that says nothing for so long is gone (`limits.md`).
const SILENCE: Duration = Duration::from_secs(120);

/// We say something at least so often, well within others' two minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(100);

/// A request so much older than the next answer is lost. Peers answer in order, so this is generous.
const LOST_REQUEST: Duration = Duration::from_secs(60);

/// Neither interested in the other for so long, while others wait to get in.
const USELESS: Duration = Duration::from_secs(600);

/// Unchoked by a seed, and asks for nothing for so long, while others wait to get in.
const ASKS_NOTHING: Duration = Duration::from_secs(60);

/// Without the metadata that we lack for so long, while others wait to get in.
const USELESS_EARLY: Duration = Duration::from_secs(30);

impl Swarm {
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        let idle = self.peers.is_empty() && self.dialling == 0;
        self.next_tick = now + if idle { IDLE_TICK } else { TICK };
        for key in self.peers.keys() {
            if let Some(reason) = self.look_after(now, key) {
                self.close(key, reason);
            } else {
                self.tell_peers(now, key);
            }
        }
        if now >= self.next_choke {
            self.next_choke = now + choker::ROUND;
            self.choke_round(now);
            self.close_useless();
        } else {
            self.fill_slots(now);
        }
        self.look_after_super_seeding(now);
        self.look_after_description(now);
        self.look_after_web_seeds(now);
        self.make_room();
        self.refill_all(now);
        self.rebalance(now);
        self.dial(now);
    }

    /// Looks after one connection; says why it should end, if it should.
    fn look_after(&mut self, now: Instant, key: PeerKey) -> Option<CloseReason> {
        let full = self.peers.len() >= self.config.max_peers;
        let gives_only = self.is_complete() && self.super_seed.is_none();
        let waits = matches!(self.stage, Stage::Metadata(_));
        let peer = self.peers.at_mut(key)?;
        let since = |then: Instant| now.saturating_duration_since(then);
        if since(peer.last_message) >= SILENCE {
            return Some(CloseReason::Silent);
        }
        if peer.outbox.is_overfull() {
            return Some(CloseReason::NotReading);
        }
        if peer.window.is_dead(now) {
            return Some(CloseReason::Stalled);
        }
        if full && !peer.am_interested && !peer.peer_interested && since(peer.idle_since) >= USELESS {
            return Some(CloseReason::Useless);
        }
        let asks_nothing =
            full && gives_only && !peer.am_choking && peer.peer_interested && peer.outbox.piece_count() == 0;
        let idle_since = peer.choke_changed.max(peer.last_request).max(peer.last_sent);
        if asks_nothing && since(idle_since) >= ASKS_NOTHING {
            return Some(CloseReason::Useless);
        }
        if full && waits && peer.said.metadata_size.is_none() && since(peer.connected) >= USELESS_EARLY {
            return Some(CloseReason::Useless);
        }
        if since(peer.last_sent) >= KEEP_ALIVE {
            peer.last_sent = now;
            peer.outbox.push(&Message::KeepAlive);
            Self::wake(&mut self.wakes, key, peer);
        }
        if !peer.snubbed && peer.window.is_snubbed(now) {
            // Others may have what it was asked. It stays on the list, so that a late answer is still welcome.
            peer.snubbed = true;
            self.picker.lapse_peer(key);
        } else {
            self.give_up_lost_requests(now, key);
        }
        None
    }

    /// Peers answer in order. What is much older than the rest was lost on the way, say to a choke.
    fn give_up_lost_requests(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        while let Some(oldest) = peer.asked.front()
            && now.saturating_duration_since(oldest.at) > LOST_REQUEST
        {
            let block = oldest.block;
            peer.asked.pop_front();
            peer.window.release(now, 1);
            self.picker.release(key, block);
        }
    }

    /// Everybody still connected.
    pub fn keys(&self) -> Vec<PeerKey> {
        self.peers.keys()
    }
}
