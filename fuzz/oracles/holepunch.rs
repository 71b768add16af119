//! Peers that name others, by peer exchange and by introductions: nobody gets us to call whom it likes, or as often as it
//! likes, and nobody is told of addresses that are not those of our peers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use gannet::base::{Bitfield, Geometry, PeerId, PeerKey};
use gannet::swarm::{Action, NewPeer, Swarm, SwarmConfig};
use gannet::wire::{
    Decoder, ExtendedHandshake, Extension, Holepunch, HolepunchError, Item, Message, Pex, PexFlags, PexPeer, Reserved,
};

use super::tape::Tape;

const STEPS: usize = 250;
const PEERS: usize = 8;
const PIECES: u32 = 16;

/// Under ids from here on peers take messages about introductions, and nothing else.
const IDS: u8 = 200;

/// What `docs/limits.md` says: calls at once and under way, one more each second; words at once, one more in three seconds.
const CALLS: u64 = 10;
const CALLS_UNDER_WAY: usize = 16;
const WORDS: u64 = 10;
const WORD_SECONDS: u64 = 3;
const ASK_AGAIN: Duration = Duration::from_secs(600);

struct Peer {
    address: SocketAddr,
    since: Instant,
    /// Under which id it takes messages about introductions.
    id: Option<u8>,
    /// Messages of it about introductions, those to it, and errors that it told.
    said: u64,
    told: u64,
    /// Whom it has named as one that can be introduced.
    knows: BTreeSet<SocketAddr>,
}

struct World {
    swarm: Swarm,
    now: Instant,
    began: Instant,
    holepunch: bool,
    peers: BTreeMap<PeerKey, Peer>,
    /// Who named an address, by peer exchange.
    named: BTreeMap<SocketAddr, BTreeSet<IpAddr>>,
    /// Addresses that peers came from.
    met: BTreeSet<IpAddr>,
    /// Who has spoken in this step, if it was about introductions.
    teller: Option<PeerKey>,
    /// It told that it could not introduce us.
    refused: bool,
    dials: VecDeque<SocketAddr>,
    calls: VecDeque<SocketAddr>,
    called: u64,
    asked: BTreeMap<SocketAddr, Instant>,
}

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let [kind, seed] = tape.array();
    let holepunch = kind & 1 == 0;
    let config = SwarmConfig {
        info_hash: [7; 20],
        peer_id: PeerId([1; 20]),
        listen_port: Some(6881),
        dht_port: None,
        max_peers: 3 * PEERS,
        block_memory: 1 << 20,
        limit_up: None,
        sequential: false,
        super_seed: false,
        pex: kind & 2 == 0,
        holepunch,
        many_per_address: true,
    };
    let now = Instant::now();
    let geometry = Geometry::new(1 << 20, 1 << 16).unwrap();
    let mut world = World {
        swarm: Swarm::new(now, geometry, &Bitfield::new(PIECES), &[], config, seed.into()),
        now,
        began: now,
        holepunch,
        peers: BTreeMap::new(),
        named: BTreeMap::new(),
        met: BTreeSet::new(),
        teller: None,
        refused: false,
        dials: VecDeque::new(),
        calls: VecDeque::new(),
        called: 0,
        asked: BTreeMap::new(),
    };
    for _ in 0..STEPS {
        if tape.is_over() {
            break;
        }
        world.step(&mut tape);
        world.settle();
    }
}

impl World {
    fn step(&mut self, tape: &mut Tape<'_>) {
        let [what, who] = tape.array();
        let key = self.peers.keys().nth(usize::from(who) % self.peers.len().max(1)).copied();
        match (what % 16, key) {
            (0 | 1, _) if self.peers.len() < PEERS => {
                // As listeners tell it.
                let from = canonical(address(tape));
                self.join(from, false, who);
            }
            (2, Some(key)) => self.close(key),
            (3, _) => {
                self.now += Duration::from_millis(u64::from(tape.word()) * 4);
                self.swarm.handle_timeout(self.now);
            }
            (4, Some(key)) => self.greet(key, tape),
            (5..8, Some(key)) => self.name(key, tape),
            (8, _) => {
                if let Some(address) = self.dials.pop_front() {
                    if who & 1 == 0 || self.peers.len() >= PEERS {
                        self.swarm.handle_dial_failed(self.now, address);
                    } else {
                        self.join(address, true, who);
                    }
                }
            }
            (9, _) => {
                if let Some(address) = self.calls.pop_front() {
                    if who & 1 == 0 || self.peers.len() >= PEERS {
                        self.swarm.handle_punch_failed(self.now, address);
                    } else {
                        self.join(address, true, who);
                    }
                }
            }
            (_, Some(key)) => self.word(key, tape),
            _ => {}
        }
    }

    fn join(&mut self, address: SocketAddr, outgoing: bool, id: u8) {
        let reserved = Reserved::NONE.with_fast().with_extended();
        let new = NewPeer { address, outgoing, id: PeerId([id | 2; 20]), reserved, v2: false, utp: id & 1 == 0 };
        let Ok(key) = self.swarm.handle_connected(self.now, new) else { return };
        self.met.insert(address.ip());
        let peer = Peer { address, since: self.now, id: None, said: 0, told: 0, knows: BTreeSet::new() };
        assert!(self.peers.insert(key, peer).is_none());
    }

    fn close(&mut self, key: PeerKey) {
        if self.peers.remove(&key).is_some() {
            self.swarm.handle_closed(self.now, key);
        }
    }

    fn says(&mut self, key: PeerKey, id: u8, payload: &[u8]) {
        if self.swarm.handle_message(self.now, key, &Message::Extended { id, payload }).is_err() {
            self.close(key);
        }
    }

    fn greet(&mut self, key: PeerKey, tape: &mut Tape<'_>) {
        let [flags, port] = tape.array();
        let p = (flags & 1 == 1).then(|| [6881, 80, 22, 7_000][usize::from(port % 4)]);
        let mut handshake = ExtendedHandshake { p, ..ExtendedHandshake::default() };
        let peer = self.peers.get_mut(&key).expect("it is there");
        if flags & 2 == 0 {
            let id = if flags & 4 == 0 { IDS + (flags >> 4) } else { 0 };
            handshake.m.set(Extension::Holepunch, id);
            peer.id = Some(id).filter(|id| *id != 0);
        }
        if flags & 8 == 0 {
            handshake.m.set(Extension::Pex, 1);
        }
        self.says(key, 0, &handshake.encode());
    }

    /// By peer exchange.
    fn name(&mut self, key: PeerKey, tape: &mut Tape<'_>) {
        let count = tape.below(6);
        let added: Vec<PexPeer> =
            (0..count).map(|_| PexPeer { flags: PexFlags(tape.byte()), addr: address(tape) }).collect();
        let dropped = (0..tape.below(3)).map(|_| address(tape)).collect();
        let payload = Pex { added, dropped }.encode();
        if let Ok(pex) = Pex::parse(&payload) {
            let peer = self.peers.get_mut(&key).expect("it is there");
            for added in pex.added {
                let told_by = self.named.entry(canonical(added.addr)).or_default();
                told_by.insert(peer.address.ip());
                if added.flags.contains(PexFlags::HOLEPUNCH) {
                    peer.knows.insert(canonical(added.addr));
                }
            }
        }
        self.says(key, Extension::Pex.our_id(), &payload);
    }

    /// About introductions.
    fn word(&mut self, key: PeerKey, tape: &mut Tape<'_>) {
        let what = tape.byte();
        let address = match self.peers.values().nth(usize::from(what >> 3)) {
            Some(peer) if what & 4 != 0 => peer.address,
            _ => address(tape),
        };
        let payload = match what % 4 {
            0 => Holepunch::Rendezvous(address).encode(),
            1 | 2 => Holepunch::Connect(address).encode(),
            _ if tape.flag() => Holepunch::Error(address, HolepunchError::NotConnected).encode(),
            _ => tape.bytes(30).to_vec(),
        };
        self.refused = matches!(Holepunch::parse(&payload), Ok(Holepunch::Error(..)));
        self.peers.get_mut(&key).expect("it is there").said += 1;
        self.teller = Some(key);
        self.says(key, Extension::Holepunch.our_id(), &payload);
    }

    fn settle(&mut self) {
        while let Some(action) = self.swarm.poll_action() {
            match action {
                Action::Dial(address) => {
                    let told_by = self.named.get(&address).into_iter().flatten();
                    let named = told_by.into_iter().any(|teller| may_call(address, *teller));
                    // Where a peer says that it listens is its own affair.
                    let own = address.port() != 0 && self.met.contains(&address.ip());
                    assert!(named || own, "{address} is dialled");
                    self.dials.push_back(address);
                }
                Action::Punch(address) => self.called(address),
                Action::Close(key, _) => self.close(key),
                _ => {}
            }
        }
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            self.swarm.handle_turn(self.now, key);
            self.hear(key);
        }
        while self.swarm.poll_wake().is_some() {}
        (self.teller, self.refused) = (None, false);
    }

    fn called(&mut self, address: SocketAddr) {
        let teller = self.teller.and_then(|key| self.peers.get(&key)).expect("at the word of somebody");
        assert!(self.holepunch && teller.id.is_some());
        assert!(may_call(address, teller.address.ip()), "{address} is called at the word of {}", teller.address);
        assert!(self.peers.values().all(|peer| peer.address != address), "it is connected");
        self.calls.push_back(address);
        self.called += 1;
        assert!(self.calls.len() <= CALLS_UNDER_WAY);
        assert!(self.called <= CALLS + (self.now - self.began).as_secs() + 1, "{} calls", self.called);
    }

    /// What a peer was sent.
    fn hear(&mut self, key: PeerKey) {
        let Some(outbox) = self.swarm.outbox(key) else { return };
        let mut bytes = Vec::new();
        outbox.take_control(&mut bytes);
        let mut decoder = Decoder::new(Some(PIECES));
        let mut rest = &bytes[..];
        let mut heard = Vec::new();
        while !rest.is_empty() {
            rest = &rest[decoder.feed(rest)..];
            while let Some(item) = decoder.next().expect("what we send is sound") {
                if let Item::Message(Message::Extended { id: id @ IDS.., payload }) = item {
                    heard.push((id, Holepunch::parse(payload).expect("what we send is sound")));
                }
            }
        }
        for (id, message) in heard {
            let peer = self.peers.get_mut(&key).expect("it is there");
            assert!(self.holepunch && peer.id == Some(id), "it has not asked for that");
            match message {
                Holepunch::Rendezvous(address) => {
                    assert!(peer.knows.contains(&address), "{address} it has not named");
                    let before = self.asked.insert(address, self.now);
                    assert!(self.refused || before.is_none_or(|then| self.now - then >= ASK_AGAIN), "asked again");
                    continue;
                }
                Holepunch::Connect(address) => {
                    assert!(may_call(address, peer.address.ip()), "{address} is named to {}", peer.address);
                    // Whoever it is may have gone since.
                    assert!(self.met.contains(&address.ip()) && address != peer.address, "{address} is no peer's");
                }
                Holepunch::Error(..) => assert_eq!(self.teller, Some(key)),
            }
            // Answers to what it said, and errands.
            peer.told += 1;
            let errands = WORDS + (self.now - peer.since).as_secs() / WORD_SECONDS + 1;
            assert!(peer.told <= peer.said.min(errands) + errands, "{} messages", peer.told);
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether somebody at `teller` may have us call `address`: a host, no service, and a local one only in the same place.
fn may_call(address: SocketAddr, teller: IpAddr) -> bool {
    let lies = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => match ip.octets() {
            [0 | 224.., ..] => None,
            [127, ..] => Some(0),
            [10, ..] | [192, 168, ..] | [169, 254, ..] => Some(1),
            [172, b, ..] if b & 0xf0 == 16 => Some(1),
            [100, b, ..] if b & 0xc0 == 64 => Some(1),
            _ => Some(2),
        },
        IpAddr::V6(ip) => match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => None,
            [0, 0, 0, 0, 0, 0, 0, 1] => Some(0),
            [0xff00..=0xffff, ..] => None,
            [0xfe80..0xfec0 | 0xfc00..0xfe00, ..] => Some(1),
            _ => Some(2),
        },
    };
    let port = matches!(address.port(), 80 | 443 | 1024..);
    // Loopback is nearer than the local network, and that is nearer than the rest.
    port && lies(address.ip()).is_some_and(|place| place == 2 || lies(teller).is_some_and(|teller| teller <= place))
}

/// A few hosts again and again, and what is none that may be called.
fn address(tape: &mut Tape<'_>) -> SocketAddr {
    let [kind, a] = tape.array();
    let port = [6881, 6881, 6881, 6881, 7_000, 22, 0, 80][usize::from(kind >> 5)];
    let ip: IpAddr = match kind % 16 {
        0..7 => Ipv4Addr::new(93, 184, a & 15, 1).into(),
        7 => Ipv4Addr::new(192, 168, 0, a & 3).into(),
        8 => Ipv4Addr::new(127, 0, 0, 1).into(),
        9 => Ipv4Addr::new(a, 0, 0, 1).into(),
        10 => Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, (a & 7).into()).into(),
        11 => Ipv4Addr::new(a, 168, 0, 1).to_ipv6_mapped().into(),
        12 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, a.into()).into(),
        13 => Ipv6Addr::new(u16::from(a) << 8, 0, 0, 0, 0, 0, 0, 1).into(),
        14 => Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, (a & 1).into()).into(),
        _ => Ipv4Addr::new(100, a, 0, 1).into(),
    };
    SocketAddr::new(ip, port)
}
