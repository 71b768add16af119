//! Connections that come and go, and whom to dial.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address_filter::is_local;
use super::candidates::Source;
use super::ip_filter::IpFilter;
use super::peer::{NewPeer, Peer};
use super::requests::{self, RequestWindow};
use super::{Action, CloseReason, OutsidePorts, Swarm, tick};
use crate::base::{Bitfield, PeerKey};
use crate::wire::{EXTENDED_HANDSHAKE_ID, ExtendedHandshake, Extension, ExtensionIds, MAX_REQUEST_QUEUE, Message};

/// Connections being opened at once, at most (`limits.md`: half-open).
pub(super) const MAX_DIALLING: usize = 64;

/// Connections with one address, but for those of the local network. We dial one; but several peers of one household may
/// come to us, where others can reach none of them.
const MAX_PER_IP: usize = 4;

/// Dials from both sides cross if they are no further apart than a round trip. Of a connection that is older both sides know.
const CROSSING: Duration = Duration::from_secs(1);

/// Addresses kept of a peer besides the one that it is connected by: it may have one for each family and network.
const MAX_FOUND_AT: usize = 4;

/// What we call ourselves in the extension handshake (the `v` of BEP 10).
const CLIENT: &str = concat!("gannet ", env!("CARGO_PKG_VERSION"));

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The torrent has as many connections as it may have.
    #[error("enough peers")]
    Full,
    /// We have connected to ourselves.
    #[error("that is us")]
    Ourselves,
    /// The same peer is connected already.
    #[error("connected already")]
    Duplicate,
    /// As many others at its address are connected already as may be.
    #[error("too many connections with its address")]
    SameAddress,
    /// It sent bad data before.
    #[error("banned")]
    Banned,
    /// Its address is on the IP filter.
    #[error("on the IP filter")]
    Filtered,
    /// The torrent is stopping.
    #[error("stopping")]
    Stopping,
}

impl Swarm {
    /// Addresses of peers were found.
    pub fn handle_candidates(&mut self, now: Instant, source: Source, addresses: &[SocketAddr]) {
        for address in addresses {
            self.candidates.add(now, *address, source, None);
        }
        self.dial(now);
    }

    /// As [`Swarm::handle_candidates`], for what the host at `by` has told: a local address means something only to
    /// those who are in the same place.
    pub fn handle_told(&mut self, now: Instant, source: Source, by: IpAddr, addresses: &[SocketAddr]) {
        for address in addresses {
            self.candidates.add(now, *address, source, Some(by));
        }
        self.dial(now);
    }

    /// An address is ours: it is never dialled. Trackers and peers often tell us about ourselves.
    pub fn handle_own_address(&mut self, address: SocketAddr) {
        self.candidates.add_own(address);
    }

    /// Our address as others see it: the order of candidates follows from it (BEP 40).
    pub fn handle_external_address(&mut self, address: SocketAddr) {
        self.candidates.set_external(address);
    }

    /// Where peers reach us from outside, by family, IPv4 first. Those that are connected are told if it is news.
    pub fn handle_outside_ports(&mut self, outside: [OutsidePorts; 2]) {
        let before = std::mem::replace(&mut self.outside, outside);
        let (listen, dht) = (self.config.listen_port, self.config.dht_port);
        let told = |ports: OutsidePorts| (ports.listen.or(listen), ports.dht.or(dht));
        let news = [0, 1].map(|family| told(before[family]) != told(outside[family]));
        let concerned = |at: SocketAddr| news[usize::from(at.is_ipv6())] && !is_local(at.ip());
        let keys = self.peers.iter().filter(|(_, peer)| concerned(peer.address));
        for key in keys.map(|(key, _)| key).collect::<Vec<_>>() {
            self.introduce_ourselves(key);
            self.tell_dht_port(key);
            if let Some(peer) = self.peers.at_mut(key) {
                Self::wake(&mut self.wakes, key, peer);
            }
        }
    }

    /// Whom we have nothing to do with from now on: known addresses are forgotten, connections closed.
    pub fn handle_ip_filter(&mut self, ip_filter: Arc<IpFilter>) {
        self.candidates.set_ip_filter(ip_filter);
        let filtered = self.peers.iter().filter(|(_, peer)| self.candidates.is_filtered(peer.address));
        for key in filtered.map(|(key, _)| key).collect::<Vec<_>>() {
            self.close(key, CloseReason::Filtered);
        }
    }

    /// Whether a connection from `address` is welcome, before any time is spent on its handshake.
    ///
    /// # Errors
    /// The reason why not.
    pub fn admits(&self, address: SocketAddr) -> Result<(), Refused> {
        if self.stopping {
            Err(Refused::Stopping)
        } else if self.candidates.is_banned(address) {
            Err(Refused::Banned)
        } else if self.candidates.is_filtered(address) {
            Err(Refused::Filtered)
        } else if self.peers.len() >= self.config.max_peers {
            Err(Refused::Full)
        } else {
            Ok(())
        }
    }

    /// A handshake is done. Its outbox holds our first messages.
    ///
    /// # Errors
    /// The connection is not wanted, and is to be closed.
    pub fn handle_connected(&mut self, now: Instant, new: NewPeer) -> Result<PeerKey, Refused> {
        if new.outgoing {
            self.dialling = self.dialling.saturating_sub(1);
            self.introductions.end_call(new.address);
        }
        let admitted = self.admit(now, &new);
        if let Err(refused) = admitted {
            if new.outgoing {
                if refused == Refused::Ourselves {
                    self.candidates.add_own(new.address);
                }
                if refused == Refused::Duplicate {
                    self.note_found(new);
                }
                if !self.is_in_use(new.address) {
                    self.candidates.failed(new.address, now);
                }
            }
            return Err(refused);
        }
        self.candidates.connected(new.address);
        self.next_tick = self.next_tick.min(now + tick::TICK);
        let none = Bitfield::new(self.geometry.piece_count());
        let counted = self.picker.add_peer(&none);
        let window = RequestWindow::new(now, requests::DEFAULT_REQQ);
        let told = self.contacts.newcomer();
        let key = self.peers.insert(Peer::new(now, &new, self.geometry.piece_count(), counted, window, told));
        if self.is_open() {
            self.say_what_we_have(key);
        }
        self.introduce_ourselves(key);
        if new.outgoing {
            self.note_contact(key, new.address, true);
        }
        self.greet_allowed_fast(key);
        self.begin_super_seeding(now, key);
        self.meet_source_of_hashes(now, key);
        Ok(key)
    }

    pub(super) fn begin_super_seeding(&mut self, now: Instant, key: PeerKey) {
        if let Some(super_seed) = &mut self.super_seed {
            super_seed.connected(key);
            self.reveal(now, key);
        }
    }

    fn admit(&mut self, now: Instant, new: &NewPeer) -> Result<(), Refused> {
        if new.id == self.config.peer_id {
            return Err(Refused::Ourselves);
        }
        self.admits(new.address)?;
        let Some((other, old)) = self.peers.iter().find(|(_, p)| p.id == new.id) else {
            let ip = new.address.ip();
            if self.config.many_per_address || is_local(ip) {
                return Ok(());
            }
            // Who invents names for himself does not get all places.
            let others = self.peers.iter().filter(|(_, peer)| peer.address.ip() == ip).count();
            return if others >= MAX_PER_IP { Err(Refused::SameAddress) } else { Ok(()) };
        };
        // Both sides dialled at once: both must keep the same one of the two, that of the smaller id. Later it is one of the
        // peer's other addresses, and no reason to give up what is under way.
        let crossed = new.outgoing != old.outgoing && now.saturating_duration_since(old.connected) < CROSSING;
        let keep_outgoing = self.config.peer_id.0 < new.id.0;
        if !crossed || new.outgoing != keep_outgoing {
            return Err(Refused::Duplicate);
        }
        self.close(other, CloseReason::Duplicate);
        Ok(())
    }

    /// A peer that is connected already is found at an address that we dialled: it listens there, too.
    fn note_found(&mut self, new: NewPeer) {
        let Some((key, peer)) = self.peers.iter_mut().find(|(_, p)| p.id == new.id) else { return };
        let came_to_us = !peer.outgoing;
        if came_to_us {
            peer.listens_at.get_or_insert(new.address);
        }
        if peer.found_at.len() < MAX_FOUND_AT && peer.addresses().all(|its| its != new.address) {
            peer.found_at.push(new.address);
        }
        if came_to_us {
            self.note_contact(key, new.address, true);
        }
    }

    /// Whether there is a connection with whoever listens at `address`, so that it is not to be dialled.
    pub(super) fn is_in_use(&self, address: SocketAddr) -> bool {
        self.peers.iter().any(|(_, peer)| peer.addresses().any(|its| its == address))
    }

    /// Our first words, once we know what there is to have.
    pub(super) fn say_what_we_have(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.at_mut(key) else { return };
        let have = self.picker.have();
        let hidden = self.super_seed.is_some();
        if peer.fast && (hidden || have.is_none()) {
            peer.outbox.push(&Message::HaveNone);
        } else if peer.fast && have.is_full() {
            peer.outbox.push(&Message::HaveAll);
        } else if !hidden && !have.is_none() {
            peer.outbox.push(&Message::Bitfield(&have.to_wire()));
        }
        self.tell_dht_port(key);
    }

    /// Where a peer reaches us, unless it is at our own ports, as for those on our side of the router.
    fn outside_ports(&self, key: PeerKey) -> OutsidePorts {
        let outside = self.peers.at(key).filter(|peer| !is_local(peer.address.ip()));
        outside.map_or_else(OutsidePorts::default, |peer| self.outside[usize::from(peer.address.is_ipv6())])
    }

    fn tell_dht_port(&mut self, key: PeerKey) {
        let Some(port) = self.config.dht_port else { return };
        let port = self.outside_ports(key).dht.unwrap_or(port);
        if let Some(peer) = self.peers.at_mut(key).filter(|peer| peer.dht) {
            peer.outbox.push(&Message::Port(port));
        }
    }

    /// Which extensions we speak, and what else a peer may want to know of us. Said again when it has changed (BEP 10).
    pub(super) fn introduce_ourselves(&mut self, key: PeerKey) {
        let handshake = ExtendedHandshake {
            m: self.our_extensions(),
            v: Some(CLIENT.to_owned()),
            p: self.outside_ports(key).listen.or(self.config.listen_port),
            reqq: Some(MAX_REQUEST_QUEUE),
            metadata_size: self.metadata_size(),
            upload_only: Some(self.completed && self.super_seed.is_none()),
            ..ExtendedHandshake::default()
        };
        let Some(peer) = self.peers.at_mut(key).filter(|peer| peer.extended) else { return };
        let payload = ExtendedHandshake { yourip: Some(peer.address.ip()), ..handshake }.encode();
        peer.outbox.push(&Message::Extended { id: EXTENDED_HANDSHAKE_ID, payload: &payload });
    }

    /// The extensions that we take messages of.
    fn our_extensions(&self) -> ExtensionIds {
        let mut ids = ExtensionIds::default();
        let (pex, metadata) = (self.config.pex, self.exchanges_metadata());
        let spoken = [Extension::UploadOnly, Extension::DontHave]
            .into_iter()
            .chain(pex.then_some(Extension::Pex))
            .chain(self.config.holepunch.then_some(Extension::Holepunch))
            .chain(metadata.then_some(Extension::Metadata));
        for extension in spoken {
            ids.set(extension, extension.our_id());
        }
        if self.withdrawn {
            ids.set(Extension::Pex, 0);
            ids.set(Extension::Holepunch, 0);
        }
        ids
    }

    /// A connection could not be opened.
    pub fn handle_dial_failed(&mut self, now: Instant, address: SocketAddr) {
        self.dialling = self.dialling.saturating_sub(1);
        self.candidates.failed(address, now);
        self.seek_introduction(now, address);
        self.dial(now);
    }

    /// A connection is gone. Its key is dead from here on.
    pub fn handle_closed(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.remove(key) else { return };
        let addresses: Vec<SocketAddr> = peer.addresses().collect();
        self.forget_contact(peer.contact);
        self.picker.release_peer(key);
        self.picker.remove_peer(peer.counted, &peer.have);
        // These buffers went down with the connection.
        let receiving = usize::from(peer.receiving.is_some());
        self.pool.forget(receiving + peer.lent_ahead);
        self.receiving = self.receiving.saturating_sub(receiving);
        self.lent_ahead = self.lent_ahead.saturating_sub(peer.lent_ahead);
        if let Some(super_seed) = &mut self.super_seed {
            super_seed.disconnected(key);
        }
        if let Some(suggestions) = &mut self.suggestions {
            suggestions.withdraw(key);
        }
        self.lose_source(now, key);

        let useful = peer.down.total() > 0 || peer.up.total() > 0;
        // Of two connections with one peer the other one may stay.
        for address in addresses {
            if !self.is_in_use(address) {
                self.candidates.closed(address, now, useful);
            }
        }
        if !peer.am_choking {
            self.fill_slots(now);
        }
        // What it was asked may go to others now.
        if !peer.asked.is_empty() {
            self.refill_all(now);
        }
        self.dial(now);
    }

    /// Emits [`Action::Dial`] for as many candidates as there is room for.
    pub(super) fn dial(&mut self, now: Instant) {
        while !self.stopping && self.dialling < MAX_DIALLING && self.peers.len() + self.dialling < self.config.max_peers
        {
            let Some(candidate) = self.candidates.next(now) else { return };
            self.dialling += 1;
            self.actions.push_back(Action::Dial(candidate.addr));
        }
    }

    /// Closes connections that have become useless once we have everything: seeds have nothing for a seed.
    pub(super) fn close_useless(&mut self) {
        if !self.is_complete() {
            return;
        }
        let useless: Vec<PeerKey> =
            self.peers.iter().filter(|(_, p)| p.is_seed() && !p.peer_interested).map(|(key, _)| key).collect();
        for key in useless {
            self.close(key, CloseReason::Useless);
        }
    }
}
