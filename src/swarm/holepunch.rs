//! Introductions (BEP 55): two peers behind routers that let nobody in call each other at the same moment, at the word of
//! a third with whom both are connected. Then each router takes the packets of the other side for answers.
//!
//! We take all three parts. *Who looks for a peer*: a dial has failed, and a peer that told us of that address (BEP 11),
//! with the flag that it can be introduced, is asked to introduce us. *Who is asked*: sends both of them the address of
//! the other. *Who is told* an address calls it, by uTP only.
//!
//! Nobody gets us to call whom it likes, or as often as it likes: addresses are those that peer exchange might name, the
//! words of each peer and the calls of the torrent are paced, and private torrents know nothing of this (BEP 27).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use super::address_filter::{canonical, is_host, may_dial};
use super::candidates::Source;
use super::connect::MAX_DIALLING;
use super::peer::Peer;
use super::pex::means_something;
use super::{Action, Swarm};
use crate::base::{Pace, PeerKey};
use crate::wire::{Extension, Holepunch, HolepunchError, Message, Pex, PexFlags};

/// Addresses that one peer can introduce us to; the latest are kept.
const MAX_ACQUAINTANCES: usize = 100;

/// Nobody is asked for the same address again within this time...
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// ...as long as there are no more of them.
const MAX_ASKED: usize = 100;

/// Of each peer one message in so much time is heeded, and so many at once. As often is it sent to meet others.
const WORD_INTERVAL: Duration = Duration::from_secs(3);
const WORD_BURST: u32 = 10;

/// How often the torrent calls somebody at the word of others, and how often at once.
const CALL_INTERVAL: Duration = Duration::from_secs(1);
const CALL_BURST: u32 = 10;

/// Such calls under way.
const MAX_CALLS: usize = 16;

/// What a torrent has to do with introductions.
#[derive(Debug)]
pub(super) struct Introductions {
    /// Whom we have asked others for, and when; the latest last.
    asked: VecDeque<(Instant, SocketAddr)>,
    /// Who is being called.
    calls: Vec<SocketAddr>,
    pace: Pace,
}

/// What one peer has to do with introductions.
#[derive(Debug)]
pub(super) struct Introducer {
    /// Those to whom it can introduce us.
    acquaintances: VecDeque<SocketAddr>,
    /// What it says.
    words: Pace,
    /// How often it is sent to meet others.
    errands: Pace,
}

impl Default for Introductions {
    fn default() -> Self {
        Self { asked: VecDeque::new(), calls: Vec::new(), pace: Pace::new(CALL_INTERVAL, CALL_BURST) }
    }
}

impl Default for Introducer {
    fn default() -> Self {
        let pace = Pace::new(WORD_INTERVAL, WORD_BURST);
        Self { acquaintances: VecDeque::new(), words: pace, errands: pace }
    }
}

impl Introductions {
    /// Whether `address` was asked for not long ago.
    fn has_asked(&mut self, now: Instant, address: SocketAddr) -> bool {
        while self.asked.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= ASK_AGAIN) {
            self.asked.pop_front();
        }
        self.asked.iter().any(|(_, asked)| *asked == address)
    }

    fn note_asked(&mut self, now: Instant, address: SocketAddr) {
        if self.asked.len() == MAX_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back((now, address));
    }

    /// A call has ended, one way or the other.
    pub(super) fn end_call(&mut self, address: SocketAddr) {
        self.calls.retain(|called| *called != address);
    }
}

impl Peer {
    /// The id of messages about introductions, if it knows them.
    fn holepunch_id(&self) -> Option<NonZeroU8> {
        self.said.m.id(Extension::Holepunch)
    }

    /// Where others are to call it: uTP comes from the port that it listens on, as its router shows it.
    fn callable_at(&self) -> SocketAddr {
        let listens_at = self.listens_at.filter(|_| !self.utp && !self.outgoing);
        listens_at.unwrap_or(self.address)
    }
}

impl Swarm {
    /// A peer told us of others. It can introduce us to some of them.
    pub(super) fn note_acquaintances(&mut self, key: PeerKey, pex: &Pex) {
        let Some(peer) = self.peers.at_mut(key).filter(|peer| self.config.holepunch && peer.holepunch_id().is_some())
        else {
            return;
        };
        let known = &mut peer.introducer.acquaintances;
        known.retain(|address| !pex.dropped.contains(address));
        for added in pex.added.iter().filter(|added| added.flags.contains(PexFlags::HOLEPUNCH)) {
            if !known.contains(&added.addr) {
                known.push_back(added.addr);
            }
        }
        known.drain(..known.len().saturating_sub(MAX_ACQUAINTANCES));
    }

    /// The peer at `address` cannot be dialled: asks for an introduction, if somebody can introduce us.
    pub(super) fn seek_introduction(&mut self, now: Instant, address: SocketAddr) {
        let address = canonical(address);
        if self.config.holepunch && self.may_call(address) && !self.introductions.has_asked(now, address) {
            self.ask_for_introduction(now, address);
        }
    }

    fn ask_for_introduction(&mut self, now: Instant, address: SocketAddr) {
        let knows = |peer: &Peer| peer.introducer.acquaintances.contains(&address);
        let able = self.peers.iter().filter(|(_, peer)| peer.holepunch_id().is_some() && knows(peer));
        // One that we speak uTP with sees from which port our router lets it out.
        let Some((key, _)) = able.max_by_key(|(_, peer)| peer.utp) else { return };
        self.introductions.note_asked(now, address);
        self.say_holepunch(key, Holepunch::Rendezvous(address));
    }

    /// Whether there is room for a connection with somebody at `address`, and none yet.
    fn may_call(&self, address: SocketAddr) -> bool {
        let room = self.dialling < MAX_DIALLING && self.peers.len() + self.dialling < self.config.max_peers;
        room && !self.stopping && !self.is_in_use(address)
    }

    fn say_holepunch(&mut self, key: PeerKey, message: Holepunch) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        let Some(id) = peer.holepunch_id() else { return };
        peer.outbox.push(&Message::Extended { id: id.get(), payload: &message.encode() });
        Self::wake(&mut self.wakes, key, peer);
    }

    /// A message about introductions. One that cannot be understood, comes too often or from somebody who has not said that
    /// he knows of them is as if it had not come.
    pub(super) fn on_holepunch(&mut self, now: Instant, key: PeerKey, payload: &[u8]) {
        let Some(peer) = self.peers.at_mut(key).filter(|peer| peer.holepunch_id().is_some()) else { return };
        let Ok(message) = Holepunch::parse(payload) else { return };
        if !self.config.holepunch || !peer.introducer.words.take(now) {
            return;
        }
        match message {
            Holepunch::Rendezvous(address) => {
                if let Err(error) = self.introduce(now, key, canonical(address)) {
                    self.say_holepunch(key, Holepunch::Error(address, error));
                }
            }
            Holepunch::Connect(address) => self.call(now, key, canonical(address)),
            Holepunch::Error(address, _) => {
                let address = canonical(address);
                peer.introducer.acquaintances.retain(|known| *known != address);
                // Somebody else may be able to.
                if self.introductions.has_asked(now, address) && self.may_call(address) {
                    self.ask_for_introduction(now, address);
                }
            }
        }
    }

    /// Tells a peer and the one at `address` to call each other.
    fn introduce(&mut self, now: Instant, key: PeerKey, address: SocketAddr) -> Result<(), HolepunchError> {
        if address.port() == 0 || !is_host(address.ip()) {
            return Err(HolepunchError::NoSuchPeer);
        }
        if self.candidates.is_own(address) {
            return Err(HolepunchError::NoSelf);
        }
        let is_there = |peer: &Peer| peer.addresses().any(|its| its == address);
        let target = self.peers.iter().find(|(_, peer)| is_there(peer)).map(|(target, _)| target);
        let target = target.filter(|target| *target != key).ok_or(HolepunchError::NotConnected)?;
        let (Some(peer), Some(asking)) = (self.peers.at(target), self.peers.at(key)) else { return Ok(()) };
        if peer.holepunch_id().is_none() {
            return Err(HolepunchError::NoSupport);
        }
        let (there, here) = (peer.callable_at(), asking.callable_at());
        if !means_something(there, asking) || !means_something(here, peer) {
            return Err(HolepunchError::NoSuchPeer);
        }
        if !self.peers.at_mut(target).is_some_and(|peer| peer.introducer.errands.take(now)) {
            return Ok(());
        }
        self.say_holepunch(target, Holepunch::Connect(here));
        self.say_holepunch(key, Holepunch::Connect(there));
        Ok(())
    }

    /// Calls the peer at `address`, at the word of another.
    fn call(&mut self, now: Instant, key: PeerKey, address: SocketAddr) {
        let Some(teller) = self.peers.at(key).map(|peer| peer.address.ip()) else { return };
        let calls = &self.introductions.calls;
        let may = may_dial(address, Source::Pex, Some(teller), false)
            && self.candidates.is_welcome(address)
            && self.may_call(address)
            && calls.len() < MAX_CALLS
            && !calls.contains(&address);
        if may && self.introductions.pace.take(now) {
            self.introductions.calls.push(address);
            self.dialling += 1;
            self.actions.push_back(Action::Punch(address));
        }
    }

    /// A call at the word of another came to nothing.
    pub fn handle_punch_failed(&mut self, now: Instant, address: SocketAddr) {
        self.introductions.end_call(address);
        self.dialling = self.dialling.saturating_sub(1);
        self.dial(now);
    }
}

#[cfg(test)]
#[path = "holepunch_tests.rs"]
mod tests;
