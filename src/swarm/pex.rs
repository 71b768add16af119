//! Peer exchange (BEP 11): what we tell each peer of the others, and how much we listen to.
//!
//! **What we tell.** [`Contacts`] numbers the peers that can be dialled in the order in which they came, and notes when
//! they left. What a peer has been told is then a range of numbers ([`Told`]) and not a list: each message goes on where the one
//! before ended, first with the peers that came since, then, as far as there is room, with older ones. A peer that came
//! and left between two messages is never named.
//!
//! **What we take.** One message a minute with some slack ([`Heard`]); of its addresses those that may be dialled. The
//! rest is [`candidates`](super::candidates)' affair.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::address_filter::{canonical, may_dial};
use super::candidates::Source;
use super::peer::Peer;
use super::{Misbehaved, Swarm};
use crate::base::{Pace, PeerKey};
use crate::wire::{Extension, MAX_PEX_PEERS, Message, Pex, PexFlags, PexPeer};

/// Least time between two messages to one peer (BEP 11: "no more than 1 PEX message per minute").
const INTERVAL: Duration = Duration::from_secs(60);

/// A torrent that starts waits so long for its first connections, because the second message comes a minute later...
const GATHERING: Duration = Duration::from_secs(2);

/// ...or until there are so many of them.
const WORTHWHILE: usize = 10;

/// Departures that are remembered; peers that could not be told of older ones keep addresses a little too long.
const MAX_DEPARTURES: usize = 500;

/// One message per so much time is read...
const HEARD_INTERVAL: Duration = Duration::from_secs(50);

/// ...and so many at once: messages queue on slow lines, and clocks differ.
const HEARD_BURST: u32 = 3;

/// A peer that sends so many in between, none of which is read, is closed.
const MAX_UNHEARD: u32 = 10;

/// The peers that can be dialled, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    /// The number that the next event gets: a peer comes, or one leaves.
    next: u64,
    present: BTreeMap<u64, Contact>,
    /// Latest last.
    departures: VecDeque<Departure>,
}

#[derive(Clone, Copy, Debug)]
struct Contact {
    key: PeerKey,
    addr: SocketAddr,
    /// We dialled it.
    reachable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Departure {
    /// When it left, and when it had come.
    number: u64,
    came: u64,
    addr: SocketAddr,
}

/// What one peer has been told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Those who came in this range, as far as they were there still.
    came: Range<u64>,
    /// Departures with lower numbers.
    left: u64,
    /// When the next message may go.
    next: Option<Instant>,
}

/// How often one peer tells us things.
#[derive(Debug)]
pub(super) struct Heard {
    pace: Pace,
    /// Messages since the last one that was read.
    unheard: u32,
}

impl Default for Heard {
    fn default() -> Self {
        Self { pace: Pace::new(HEARD_INTERVAL, HEARD_BURST), unheard: 0 }
    }
}

impl Contacts {
    /// A peer came, and others can dial it at `addr`. The number is its own until it leaves.
    fn came(&mut self, key: PeerKey, addr: SocketAddr, reachable: bool) -> u64 {
        let number = self.tick();
        self.present.insert(number, Contact { key, addr, reachable });
        number
    }

    fn left(&mut self, came: u64) {
        let Some(contact) = self.present.remove(&came) else { return };
        let number = self.tick();
        self.departures.push_back(Departure { number, came, addr: contact.addr });
        if self.departures.len() > MAX_DEPARTURES {
            self.departures.pop_front();
        }
    }

    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A peer that has been told nothing.
    pub(super) fn newcomer(&self) -> Told {
        Told { came: self.next + 1..self.next + 1, left: self.next + 1, next: None }
    }

    /// What is new to a peer, of those for which `tell` holds; from now on it counts as told.
    fn news(&self, told: &mut Told, tell: impl Fn(SocketAddr) -> bool) -> (Vec<Contact>, Vec<SocketAddr>) {
        let known = told.came.clone();
        let mut added = Vec::new();
        let mut take = |contact: &Contact| {
            let room = added.len() < MAX_PEX_PEERS;
            if room && tell(contact.addr) {
                added.push(*contact);
            }
            room
        };
        told.came.end = self.next + 1;
        for (number, contact) in self.present.range(known.end..) {
            if !take(contact) {
                told.came.end = *number;
                break;
            }
        }
        for (number, contact) in self.present.range(..known.start).rev() {
            if !take(contact) {
                break;
            }
            told.came.start = *number;
        }

        let first = self.departures.partition_point(|departure| departure.number < told.left);
        let mut dropped = Vec::new();
        told.left = self.next + 1;
        for departure in self.departures.range(first..) {
            if dropped.len() == MAX_PEX_PEERS {
                told.left = departure.number;
                break;
            }
            // Who is back, as far as the peer knows by now, is not gone; nor is anybody gone twice.
            let back = || self.present.range(told.came.clone()).any(|(_, contact)| contact.addr == departure.addr);
            let gone = known.contains(&departure.came) && tell(departure.addr) && !back();
            if gone && !dropped.contains(&departure.addr) {
                dropped.push(departure.addr);
            }
        }
        (added, dropped)
    }
}

impl Heard {
    /// A message came; whether it is to be read.
    fn admit(&mut self, now: Instant) -> Result<bool, Misbehaved> {
        let admitted = self.pace.take(now);
        self.unheard = if admitted { 0 } else { self.unheard + 1 };
        if self.unheard > MAX_UNHEARD { Err(Misbehaved::PexFlood) } else { Ok(admitted) }
    }
}

/// Whether an address means something to a peer at `to`, and is not its own.
pub(super) fn means_something(addr: SocketAddr, to: &Peer) -> bool {
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    addr != to.address
        && Some(addr) != to.listens_at
        // Which link that is cannot be said.
        && !link_local(addr.ip())
        && may_dial(addr, Source::Pex, Some(to.address.ip()), false)
}

/// What is told of a peer besides its address.
fn flags(peer: &Peer, reachable: bool) -> PexFlags {
    let when = |is_so: bool, flag: PexFlags| if is_so { flag } else { PexFlags::default() };
    let holepunch = peer.said.m.id(Extension::Holepunch).is_some();
    when(peer.said.encryption == Some(true), PexFlags::ENCRYPTION)
        .or(when(peer.is_seed(), PexFlags::SEED))
        // Who can be introduced is then called by uTP.
        .or(when(peer.utp || holepunch, PexFlags::UTP))
        .or(when(holepunch, PexFlags::HOLEPUNCH))
        .or(when(reachable, PexFlags::REACHABLE))
}

impl Swarm {
    /// Others can dial this peer at `addr`: we did (`reachable`), or it told us its port.
    pub(super) fn note_contact(&mut self, key: PeerKey, addr: SocketAddr, reachable: bool) {
        let addr = canonical(addr);
        let Some(peer) = self.peers.at_mut(key) else { return };
        match peer.contact.and_then(|number| self.contacts.present.get_mut(&number)) {
            Some(contact) => contact.reachable |= reachable && contact.addr == addr,
            None => peer.contact = Some(self.contacts.came(key, addr, reachable)),
        }
    }

    /// A peer with this number has gone.
    pub(super) fn forget_contact(&mut self, number: Option<u64>) {
        if let Some(number) = number {
            self.contacts.left(number);
        }
    }

    /// Tells a peer what is new, if it wants to hear that and it is time.
    pub(super) fn tell_peers(&mut self, now: Instant, key: PeerKey) {
        if !self.config.pex {
            return;
        }
        let Some(peer) = self.peers.at(key) else { return };
        let Some(id) = peer.said.m.id(Extension::Pex) else { return };
        let gathers =
            || self.contacts.present.len() < WORTHWHILE && now.saturating_duration_since(peer.connected) < GATHERING;
        if peer.told.next.map_or_else(gathers, |next| now < next) {
            return;
        }
        let mut told = peer.told.clone();
        let (added, dropped) = self.contacts.news(&mut told, |addr| means_something(addr, peer));
        let added: Vec<PexPeer> = added
            .into_iter()
            .filter_map(|c| Some(PexPeer { addr: c.addr, flags: flags(self.peers.at(c.key)?, c.reachable) }))
            .collect();
        let nothing = added.is_empty() && dropped.is_empty();
        if !nothing {
            told.next = Some(now + INTERVAL);
        }
        let Some(peer) = self.peers.at_mut(key) else { return };
        peer.told = told;
        if !nothing {
            let payload = Pex { added, dropped }.encode();
            peer.outbox.push(&Message::Extended { id: id.get(), payload: &payload });
            Self::wake(&mut self.wakes, key, peer);
        }
    }

    /// A peer tells us of others. Nothing is taken for a private torrent, whoever sends it (BEP 27).
    pub(super) fn on_pex(&mut self, now: Instant, key: PeerKey, payload: &[u8]) -> Result<(), Misbehaved> {
        let Some(peer) = self.peers.at_mut(key) else { return Ok(()) };
        if !self.config.pex || !peer.heard.admit(now)? {
            return Ok(());
        }
        let teller = peer.address.ip();
        let pex = Pex::parse(payload).map_err(|_| Misbehaved::Extension)?;
        // Seeds have nothing for us any more.
        let complete = self.picker.is_complete();
        for added in pex.added.iter().filter(|added| !(complete && added.flags.contains(PexFlags::SEED))) {
            self.candidates.add(now, added.addr, Source::Pex, Some(teller));
        }
        self.note_acquaintances(key, &pex);
        self.dial(now);
        Ok(())
    }
}

#[cfg(test)]
#[path = "pex_tests.rs"]
mod tests;
