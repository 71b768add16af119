use std::net::Ipv4Addr;

use super::super::{NewPeer, SwarmConfig};
use super::*;
use crate::base::{Bitfield, Geometry, PeerId};
use crate::wire::{Decoder, ExtendedHandshake, Item, PexPeer, Reserved};

/// The id under which the peers of these tests take messages about introductions.
const THEIRS: u8 = 99;

fn at(n: u8) -> SocketAddr {
    (Ipv4Addr::new(93, 184, n, 1), 6881).into()
}

/// A swarm, and a clock.
struct Rig {
    swarm: Swarm,
    now: Instant,
    next: u8,
}

impl Rig {
    fn new(holepunch: bool) -> Self {
        let geometry = Geometry::new(1 << 20, 1 << 16).unwrap();
        let config = SwarmConfig {
            info_hash: [7; 20],
            peer_id: PeerId([1; 20]),
            listen_port: Some(6881),
            dht_port: None,
            max_peers: 100,
            block_memory: 1 << 20,
            limit_up: None,
            sequential: false,
            super_seed: false,
            pex: true,
            holepunch,
            many_per_address: false,
        };
        let now = Instant::now();
        Self { swarm: Swarm::new(now, geometry, &Bitfield::new(16), &[], config, 42), now, next: 1 }
    }

    /// One that knows of introductions, or not, and listens at `p` if that is not where it came from.
    fn peer_with(&mut self, address: SocketAddr, utp: bool, knows: bool, p: Option<u16>) -> PeerKey {
        self.next += 1;
        let reserved = Reserved::NONE.with_fast().with_extended();
        let new = NewPeer { address, outgoing: false, utp, id: PeerId([self.next; 20]), reserved, v2: false };
        let key = self.swarm.handle_connected(self.now, new).unwrap();
        let mut handshake = ExtendedHandshake { p, ..ExtendedHandshake::default() };
        if knows {
            handshake.m.set(Extension::Holepunch, THEIRS);
        }
        self.says(key, 0, &handshake.encode());
        key
    }

    fn peer(&mut self, address: SocketAddr) -> PeerKey {
        self.peer_with(address, true, true, None)
    }

    fn says(&mut self, key: PeerKey, id: u8, payload: &[u8]) {
        self.swarm.handle_message(self.now, key, &Message::Extended { id, payload }).unwrap();
    }

    fn word(&mut self, key: PeerKey, message: Holepunch) {
        self.says(key, Extension::Holepunch.our_id(), &message.encode());
    }

    /// By peer exchange.
    fn names(&mut self, key: PeerKey, address: SocketAddr, flags: PexFlags) {
        let added = vec![PexPeer { addr: address, flags }];
        self.says(key, Extension::Pex.our_id(), &Pex { added, dropped: vec![] }.encode());
    }

    /// What a peer has been sent about introductions since it was last asked.
    fn heard(&mut self, key: PeerKey) -> Vec<Holepunch> {
        let mut bytes = Vec::new();
        self.swarm.outbox(key).unwrap().take_control(&mut bytes);
        let mut decoder = Decoder::new(Some(16));
        let mut heard = Vec::new();
        while !bytes.is_empty() {
            let n = decoder.feed(&bytes);
            bytes.drain(..n);
            while let Some(item) = decoder.next().unwrap() {
                if let Item::Message(Message::Extended { id: THEIRS, payload }) = item {
                    heard.push(Holepunch::parse(payload).unwrap());
                }
            }
        }
        heard
    }

    /// The id under which we take messages about introductions, as a peer was told when it came.
    fn our_extension(&mut self, key: PeerKey) -> Option<u8> {
        let mut bytes = Vec::new();
        self.swarm.outbox(key).unwrap().take_control(&mut bytes);
        let mut decoder = Decoder::new(Some(16));
        decoder.feed(&bytes);
        while let Some(item) = decoder.next().unwrap() {
            if let Item::Message(Message::Extended { id: 0, payload }) = item {
                return ExtendedHandshake::parse(payload).unwrap().m.id(Extension::Holepunch).map(NonZeroU8::get);
            }
        }
        None
    }

    fn punches(&mut self) -> Vec<SocketAddr> {
        let actions = std::iter::from_fn(|| self.swarm.poll_action());
        actions.filter_map(|action| if let Action::Punch(address) = action { Some(address) } else { None }).collect()
    }
}

const FLAGS: PexFlags = PexFlags(PexFlags::HOLEPUNCH.0 | PexFlags::UTP.0);

#[test]
fn a_relay_sends_two_peers_to_each_other() {
    let mut rig = Rig::new(true);
    let seeks = rig.peer(at(2));
    let sought = rig.peer(at(3));
    rig.word(seeks, Holepunch::Rendezvous(at(3)));
    assert_eq!(rig.heard(seeks), [Holepunch::Connect(at(3))]);
    assert_eq!(rig.heard(sought), [Holepunch::Connect(at(2))]);
    // Over TCP it came from some port; routers mostly keep the one that it listens on for uTP.
    let by_tcp = rig.peer_with((at(4).ip(), 50_000).into(), false, true, Some(7000));
    rig.word(by_tcp, Holepunch::Rendezvous(at(3)));
    let listens = SocketAddr::new(at(4).ip(), 7000);
    assert_eq!(rig.heard(sought), [Holepunch::Connect(listens)]);
    rig.heard(by_tcp);
    rig.word(seeks, Holepunch::Rendezvous(listens));
    assert_eq!(
        (rig.heard(seeks), rig.heard(by_tcp)),
        (vec![Holepunch::Connect(listens)], vec![Holepunch::Connect(at(2))])
    );
    // Over uTP the port is the one that its router shows.
    let by_utp = rig.peer_with((at(5).ip(), 50_000).into(), true, true, Some(7000));
    rig.word(seeks, Holepunch::Rendezvous((at(5).ip(), 7000).into()));
    assert_eq!(rig.heard(seeks), [Holepunch::Connect((at(5).ip(), 50_000).into())]);
    assert_eq!(rig.heard(by_utp).len(), 1);
    assert_eq!(rig.punches(), [], "a relay calls nobody");
}

#[test]
fn a_relay_says_why_not() {
    let mut rig = Rig::new(true);
    let seeks = rig.peer(at(2));
    let ignorant = rig.peer_with(at(3), true, false, None);
    rig.swarm.handle_own_address(at(9));
    let refusals = [
        ("0.0.0.0:6881".parse().unwrap(), HolepunchError::NoSuchPeer),
        ((at(3).ip(), 0).into(), HolepunchError::NoSuchPeer),
        (at(7), HolepunchError::NotConnected),
        (at(2), HolepunchError::NotConnected),
        (at(3), HolepunchError::NoSupport),
        (at(9), HolepunchError::NoSelf),
    ];
    for (address, error) in refusals {
        rig.word(seeks, Holepunch::Rendezvous(address));
        assert_eq!(rig.heard(seeks), [Holepunch::Error(address, error)]);
    }
    // Who has not said that he knows of it is not answered (BEP 55).
    rig.word(ignorant, Holepunch::Rendezvous(at(2)));
    assert_eq!((rig.heard(ignorant), rig.heard(seeks)), (vec![], vec![]));
    // Addresses of a local network are not shown to those outside.
    let near = rig.peer("192.168.1.5:6881".parse().unwrap());
    rig.word(seeks, Holepunch::Rendezvous("192.168.1.5:6881".parse().unwrap()));
    assert!(matches!(rig.heard(seeks)[..], [Holepunch::Error(_, HolepunchError::NoSuchPeer)]));
    assert_eq!(rig.heard(near), []);
}

#[test]
fn a_failed_dial_leads_to_an_introduction() {
    let mut rig = Rig::new(true);
    let by_tcp = rig.peer_with(at(2), false, true, None);
    let relay = rig.peer(at(3));
    let ignorant = rig.peer_with(at(4), true, false, None);
    let far = at(10);
    for key in [by_tcp, relay, ignorant] {
        rig.names(key, far, FLAGS);
    }
    rig.names(relay, at(11), PexFlags::UTP);
    rig.swarm.handle_dial_failed(rig.now, at(11));
    assert_eq!(rig.heard(relay), [], "it cannot be introduced");
    rig.swarm.handle_dial_failed(rig.now, far);
    assert_eq!((rig.heard(by_tcp), rig.heard(ignorant)), (vec![], vec![]));
    assert_eq!(rig.heard(relay), [Holepunch::Rendezvous(far)]);
    // The relay has lost it: another is asked.
    rig.word(relay, Holepunch::Error(far, HolepunchError::NotConnected));
    assert_eq!(rig.heard(by_tcp), [Holepunch::Rendezvous(far)]);
    rig.swarm.handle_dial_failed(rig.now, far);
    assert_eq!(rig.heard(by_tcp), [], "not again so soon");
    rig.word(by_tcp, Holepunch::Connect(far));
    assert_eq!(rig.punches(), [far]);
    rig.word(by_tcp, Holepunch::Connect(far));
    assert_eq!(rig.punches(), [], "it is being called");
    rig.swarm.handle_punch_failed(rig.now, far);
    rig.now += ASK_AGAIN;
    rig.swarm.handle_dial_failed(rig.now, far);
    assert_eq!(rig.heard(by_tcp), [Holepunch::Rendezvous(far)]);
    // It is there.
    rig.peer(far);
    rig.word(by_tcp, Holepunch::Connect(far));
    assert_eq!(rig.punches(), []);
}

#[test]
fn who_is_told_calls_only_those_it_may() {
    let mut rig = Rig::new(true);
    let relay = rig.peer(at(2));
    rig.swarm.handle_own_address(at(9));
    for address in
        ["127.0.0.1:6881", "192.168.1.1:6881", "224.0.0.1:6881", "93.184.7.1:25", "93.184.7.1:0", "[fe80::1]:6881"]
    {
        rig.word(relay, Holepunch::Connect(address.parse().unwrap()));
        rig.now += WORD_INTERVAL;
    }
    rig.word(relay, Holepunch::Connect(at(9)));
    assert_eq!(rig.punches(), []);
    rig.word(relay, Holepunch::Connect(at(10)));
    assert_eq!(rig.punches(), [at(10)]);
    let new = NewPeer {
        address: at(10),
        outgoing: true,
        utp: true,
        id: PeerId([88; 20]),
        reserved: Reserved::NONE,
        v2: false,
    };
    rig.swarm.handle_connected(rig.now, new).unwrap();
    assert!(rig.swarm.introductions.calls.is_empty() && rig.swarm.dialling == 0);
}

/// BEP 27: private torrents know nothing of it, and those of which it turns out take it back.
#[test]
fn private_torrents_introduce_nobody() {
    let mut rig = Rig::new(false);
    let (a, b) = (rig.peer(at(2)), rig.peer(at(3)));
    assert!(rig.our_extension(a).is_none());
    rig.names(a, at(10), FLAGS);
    rig.swarm.handle_dial_failed(rig.now, at(10));
    rig.word(a, Holepunch::Rendezvous(at(3)));
    rig.word(a, Holepunch::Connect(at(11)));
    assert_eq!((rig.heard(a), rig.heard(b), rig.punches()), (vec![], vec![], vec![]));
    let mut rig = Rig::new(true);
    let a = rig.peer(at(2));
    assert_eq!(rig.our_extension(a), Some(Extension::Holepunch.our_id()));
}

#[test]
fn floods_are_bounded() {
    let mut rig = Rig::new(true);
    let (loud, victim) = (rig.peer(at(2)), rig.peer(at(3)));
    for _ in 0..1000 {
        rig.word(loud, Holepunch::Rendezvous(at(3)));
    }
    assert_eq!((rig.heard(loud).len(), rig.heard(victim).len()), (WORD_BURST as usize, WORD_BURST as usize));
    // However many there are who ask, the one that they ask for is not sent about by all of them.
    for n in 20..60 {
        let other = rig.peer(at(n));
        rig.word(other, Holepunch::Rendezvous(at(3)));
        assert_eq!(rig.heard(other), []);
    }
    assert_eq!(rig.heard(victim), []);
    let address = |n: u16| SocketAddr::from((Ipv4Addr::from_bits(0x5db9_0000 + u32::from(n)), 6881));
    for n in 0..1000 {
        rig.now += Duration::from_millis(1);
        let other = rig.swarm.peers.keys()[usize::from(n % 40)];
        rig.word(other, Holepunch::Connect(address(n)));
    }
    let called = rig.punches();
    assert!(called.len() <= CALL_BURST as usize + 1, "{}", called.len());
    for n in 0..1000 {
        rig.names(victim, address(n), FLAGS);
        rig.now += Duration::from_secs(60);
    }
    let known = |rig: &Rig| rig.swarm.peers.at(victim).unwrap().introducer.acquaintances.clone();
    assert!(known(&rig).len() == MAX_ACQUAINTANCES && known(&rig).contains(&address(999)));
    for n in 0..1000 {
        rig.swarm.introductions.note_asked(rig.now, address(n));
    }
    assert_eq!(rig.swarm.introductions.asked.len(), MAX_ASKED);
    // Nonsense is no reason to quarrel.
    for nonsense in [&[][..], &[9; 40], &[0, 0, 1], &[1, 7, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0]] {
        rig.says(victim, Extension::Holepunch.our_id(), nonsense);
    }
}
