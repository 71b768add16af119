use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::super::{Action, NewPeer, OutsidePorts, SwarmConfig};
use super::*;
use crate::base::{Bitfield, Geometry, PeerId};
use crate::wire::{Decoder, ExtendedHandshake, Item, Reserved};

fn ip(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0b00_0000 + n).into()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A swarm, and a clock.
struct Rig {
    swarm: Swarm,
    now: Instant,
    next: u8,
}

impl Rig {
    fn new(seed: bool, pex: bool) -> Self {
        let geometry = Geometry::new(1 << 20, 1 << 16).unwrap();
        let have = if seed { Bitfield::full(16) } else { Bitfield::new(16) };
        let config = SwarmConfig {
            info_hash: [7; 20],
            peer_id: PeerId([1; 20]),
            listen_port: Some(6881),
            dht_port: None,
            max_peers: 300,
            block_memory: 1 << 20,
            limit_up: None,
            sequential: false,
            super_seed: false,
            pex,
            holepunch: false,
            many_per_address: false,
        };
        let now = Instant::now();
        Self { swarm: Swarm::new(now, geometry, &have, &[], config, 42), now, next: 2 }
    }

    fn peer(&mut self, address: SocketAddr, outgoing: bool) -> PeerKey {
        self.next += 1;
        let reserved = Reserved::NONE.with_fast().with_extended();
        let new = NewPeer { address, outgoing, utp: false, id: PeerId([self.next; 20]), reserved, v2: false };
        self.swarm.handle_connected(self.now, new).unwrap()
    }

    /// One that wants to hear of others.
    fn listener(&mut self, address: &str) -> PeerKey {
        let key = self.peer(addr(address), false);
        let mut handshake = ExtendedHandshake::default();
        handshake.m.set(Extension::Pex, 77);
        self.says(key, 0, &handshake.encode()).unwrap();
        key
    }

    fn says(&mut self, key: PeerKey, id: u8, payload: &[u8]) -> Result<(), Misbehaved> {
        self.swarm.handle_message(self.now, key, &Message::Extended { id, payload })
    }

    fn tells(&mut self, key: PeerKey, added: &[SocketAddr]) -> Result<(), Misbehaved> {
        let added = added.iter().map(|addr| PexPeer { addr: *addr, flags: PexFlags::default() }).collect();
        self.says(key, Extension::Pex.our_id(), &Pex { added, dropped: vec![] }.encode())
    }

    /// Time passes in steps of the swarm's own.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = self.swarm.poll_timeout().min(until);
            for key in self.swarm.keys() {
                self.swarm.handle_message(self.now, key, &Message::KeepAlive).unwrap();
            }
            self.swarm.handle_timeout(self.now);
        }
    }

    fn extended(&mut self, key: PeerKey) -> Vec<(u8, Vec<u8>)> {
        let mut bytes = Vec::new();
        self.swarm.outbox(key).unwrap().take_control(&mut bytes);
        let mut decoder = Decoder::new(Some(16));
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let n = decoder.feed(&bytes);
            bytes.drain(..n);
            while let Some(item) = decoder.next().unwrap() {
                if let Item::Message(Message::Extended { id, payload }) = item {
                    all.push((id, payload.to_vec()));
                }
            }
        }
        all
    }

    /// What a listener has been told since it was last asked.
    fn told(&mut self, key: PeerKey) -> Vec<Pex> {
        let messages = self.extended(key).into_iter().filter(|(id, _)| *id == 77);
        messages.map(|(_, payload)| Pex::parse(&payload).unwrap()).collect()
    }

    fn dials(&mut self) -> Vec<SocketAddr> {
        std::iter::from_fn(|| self.swarm.poll_action())
            .filter_map(|action| if let Action::Dial(addr) = action { Some(addr) } else { None })
            .collect()
    }
}

fn addrs(pex: &Pex) -> Vec<SocketAddr> {
    pex.added.iter().map(|peer| peer.addr).collect()
}

/// A router has given us other ports: those who are outside of it are told, once.
#[test]
fn peers_hear_of_the_ports_outside() {
    let mut rig = Rig::new(false, true);
    let keys = ["11.0.0.1:6881", "192.168.0.5:6881", "[2600::1]:6881"].map(|at| rig.listener(at));
    let ports = |rig: &mut Rig| {
        keys.map(|key| {
            let said = rig.extended(key).into_iter().filter(|(id, _)| *id == 0);
            said.map(|(_, payload)| ExtendedHandshake::parse(&payload).unwrap().p).collect::<Vec<_>>()
        })
    };
    assert_eq!(ports(&mut rig), [[Some(6881)]; 3]);
    let outside = |listen| OutsidePorts { listen, dht: listen };
    for _ in 0..2 {
        rig.swarm.handle_outside_ports([outside(Some(7_000)), outside(None)]);
    }
    assert_eq!(ports(&mut rig), [vec![Some(7_000)], vec![], vec![]]);
    let late = rig.listener("11.0.0.2:6881");
    assert_eq!(ExtendedHandshake::parse(&rig.extended(late)[0].1).unwrap().p, Some(7_000));
}

#[test]
fn first_all_then_what_is_new_once_a_minute() {
    let mut rig = Rig::new(false, true);
    let dialled = rig.peer(addr("11.0.0.1:6881"), true);
    let silent = rig.peer(addr("11.0.0.2:50000"), false);
    let named = rig.peer(addr("11.0.0.3:50000"), false);
    let mut handshake =
        ExtendedHandshake { p: Some(7_000), encryption: Some(true), upload_only: Some(true), ..Default::default() };
    handshake.m.set(Extension::Holepunch, 9);
    rig.says(named, 0, &handshake.encode()).unwrap();
    let key = rig.listener("11.0.0.9:50000");
    rig.wait(GATHERING - Duration::from_millis(1));
    assert_eq!(rig.told(key), []);
    rig.wait(secs(2));
    let expected = [
        // Seed, encryption, holepunch, and with that uTP.
        PexPeer { addr: addr("11.0.0.3:7000"), flags: PexFlags(0x0f) },
        PexPeer { addr: addr("11.0.0.1:6881"), flags: PexFlags::REACHABLE },
    ];
    assert_eq!(rig.told(key), [Pex { added: expected.to_vec(), dropped: vec![] }]);
    // Nobody but those who asked for it hears anything.
    assert!([dialled, silent, named].iter().all(|other| rig.extended(*other).len() == 1));

    rig.swarm.handle_closed(rig.now, dialled);
    rig.peer(addr("11.0.0.4:6881"), true);
    let gone = rig.peer(addr("11.0.0.5:6881"), true);
    rig.swarm.handle_closed(rig.now, gone);
    rig.wait(secs(55));
    assert_eq!(rig.told(key), [], "not before the minute is over");
    rig.wait(secs(6));
    let news = rig.told(key);
    assert_eq!((addrs(&news[0]), &news[0].dropped), (vec![addr("11.0.0.4:6881")], &vec![addr("11.0.0.1:6881")]));
    assert_eq!(news.len(), 1);
    rig.wait(secs(119));
    assert_eq!(rig.told(key), [], "no news");
    rig.peer(addr("11.0.0.6:6881"), true);
    rig.wait(secs(1));
    assert_eq!(rig.told(key).len(), 1, "at once after a long silence");
}

#[test]
fn a_torrent_with_many_connections_tells_at_once() {
    let mut rig = Rig::new(false, true);
    (0..120).for_each(|n| _ = rig.peer(SocketAddr::new(ip(n), 6881), true));
    let key = rig.listener("12.0.0.9:50000");
    rig.wait(Duration::from_millis(501));
    let first = rig.told(key);
    assert_eq!((first.len(), first[0].added.len()), (1, 50));
    // The rest follows, fifty a minute.
    rig.wait(secs(121));
    let rest = rig.told(key);
    assert_eq!(rest.iter().map(|pex| pex.added.len()).collect::<Vec<_>>(), [50, 20]);
    let all: BTreeSet<SocketAddr> = first.iter().chain(&rest).flat_map(addrs).collect();
    assert_eq!(all.len(), 120);
}

#[test]
fn who_is_told_of_whom() {
    let mut rig = Rig::new(false, true);
    for text in
        ["192.168.1.2:6881", "127.0.0.1:6881", "11.0.0.1:6881", "[fe80::1]:6881", "[2600::1]:6881", "11.0.0.2:22"]
    {
        rig.peer(addr(text), true);
    }
    for (to, expected) in [
        ("12.0.0.1:50000", vec!["[2600::1]:6881", "11.0.0.1:6881"]),
        ("192.168.1.9:50000", vec!["[2600::1]:6881", "11.0.0.1:6881", "192.168.1.2:6881"]),
        ("127.0.0.1:50000", vec!["[2600::1]:6881", "11.0.0.1:6881", "127.0.0.1:6881", "192.168.1.2:6881"]),
    ] {
        let key = rig.listener(to);
        // Itself.
        rig.says(key, 0, &ExtendedHandshake { p: Some(9_999), ..Default::default() }.encode()).unwrap();
        rig.wait(secs(3));
        let mut told = addrs(&rig.told(key)[0]);
        told.sort_unstable_by_key(|addr| (addr.is_ipv4(), *addr));
        assert!(!told.contains(&SocketAddr::new(addr(to).ip(), 9_999)));
        // Those who listened before can be dialled, too.
        told.retain(|addr| addr.port() != 9_999);
        assert_eq!(told, expected.into_iter().map(addr).collect::<Vec<_>>(), "{to}");
    }
}

/// Whatever comes and goes, at any pace, each listener knows in the end who is there.
#[test]
fn those_who_are_told_know() {
    for seed in 0..200 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut contacts = Contacts::default();
        let mut slab = crate::base::Slab::default();
        let mut present: Vec<(u64, SocketAddr)> = Vec::new();
        let mut listeners: Vec<(Told, BTreeSet<SocketAddr>)> = Vec::new();
        let tell = |contacts: &Contacts, (told, known): &mut (Told, BTreeSet<SocketAddr>)| {
            let (added, dropped) = contacts.news(told, |_| true);
            let added: Vec<SocketAddr> = added.iter().map(|contact| contact.addr).collect();
            assert!(added.len() <= 50 && dropped.len() <= 50);
            assert!(added.iter().all(|addr| !dropped.contains(addr)), "seed {seed}");
            for list in [&added, &dropped] {
                assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len(), "seed {seed}");
            }
            known.extend(&added);
            dropped.iter().for_each(|addr| _ = known.remove(addr));
            added.len() + dropped.len()
        };
        for _ in 0..dice.usize(..600) {
            match dice.u8(..10) {
                0..=4 => {
                    let addr = SocketAddr::new(ip(dice.u32(..150)), 6881);
                    if present.iter().all(|(_, other)| *other != addr) {
                        present.push((contacts.came(slab.insert(()), addr, true), addr));
                    }
                }
                5..=7 if !present.is_empty() => {
                    contacts.left(present.swap_remove(dice.usize(..present.len())).0);
                }
                8 => listeners.push((contacts.newcomer(), BTreeSet::new())),
                _ if !listeners.is_empty() => {
                    let at = dice.usize(..listeners.len());
                    tell(&contacts, &mut listeners[at]);
                }
                _ => {}
            }
        }
        let expected: BTreeSet<SocketAddr> = present.iter().map(|(_, addr)| *addr).collect();
        for listener in &mut listeners {
            while tell(&contacts, listener) > 0 {}
            assert_eq!(listener.1, expected, "seed {seed}");
        }
    }
}

#[test]
fn memory_is_bounded() {
    let mut contacts = Contacts::default();
    let mut slab = crate::base::Slab::default();
    for n in 0..10_000 {
        let number = contacts.came(slab.insert(()), SocketAddr::new(ip(n), 1), true);
        contacts.left(number);
    }
    assert_eq!((contacts.present.len(), contacts.departures.len()), (0, MAX_DEPARTURES));
}

/// E9: once a second, ten thousand addresses, lengths that do not fit; our own address, ports 0 and of services, the
/// same address again and again, local ones from afar.
#[test]
fn e9_what_strangers_tell_is_bounded() {
    let mut rig = Rig::new(false, true);
    rig.swarm.handle_own_address(addr("11.0.0.99:6881"));
    let key = rig.peer(addr("12.0.0.1:50000"), false);
    let odd = [
        "11.0.0.99:6881",
        "11.0.0.1:0",
        "11.0.0.2:22",
        "192.168.0.1:6881",
        "127.0.0.1:6881",
        "0.0.0.0:6881",
        "224.0.0.1:6881",
        "[::1]:6881",
        "[fe80::1]:6881",
        "[::ffff:10.0.0.1]:6881",
        "11.0.0.3:6881",
    ];
    rig.tells(key, &odd.map(addr)).unwrap();
    assert_eq!(rig.dials(), [addr("11.0.0.3:6881")]);
    let ports: Vec<SocketAddr> = (7_000..7_100).map(|port| SocketAddr::new(ip(50), port)).collect();
    rig.tells(key, &ports).unwrap();
    assert_eq!(rig.dials(), [ports[0]]);
    let flood: Vec<u8> =
        (0..10_000u32).flat_map(|n| [&(0x0d00_0000 + n).to_be_bytes()[..], &[26, 225]].concat()).collect();
    let payload = [format!("d5:added{}:", flood.len()).as_bytes(), &flood, b"e"].concat();
    rig.says(key, 2, &payload).unwrap();
    assert_eq!(rig.dials().len(), 50);
    // The slack is used up. What comes now is not even looked at.
    for _ in 0..MAX_UNHEARD {
        rig.now += secs(1);
        rig.tells(key, &[SocketAddr::new(ip(2_000), 6881)]).unwrap();
    }
    assert_eq!(rig.dials(), []);
    assert_eq!(rig.tells(key, &[]), Err(Misbehaved::PexFlood));
    // Once a minute is welcome for ever.
    let key = rig.peer(addr("12.0.0.2:50000"), false);
    for n in 0..100 {
        rig.now += secs(59);
        rig.tells(key, &[SocketAddr::new(ip(3_000 + n), 6881)]).unwrap();
    }
    for payload in [b"d5:added7:abcdefge".as_slice(), b"le", b"d5:added", &b"d1:x".repeat(100)] {
        let key = rig.peer(SocketAddr::new(ip(u32::from(rig.next)), 1), false);
        assert_eq!(rig.says(key, 2, payload), Err(Misbehaved::Extension));
    }
}

#[test]
fn a_seed_wants_no_seeds() {
    let mut rig = Rig::new(true, true);
    let key = rig.peer(addr("12.0.0.1:50000"), false);
    let added = [(1, PexFlags::SEED), (2, PexFlags::UTP)];
    let added = added.map(|(n, flags)| PexPeer { addr: SocketAddr::new(ip(n), 6881), flags }).to_vec();
    rig.says(key, 2, &Pex { added, dropped: vec![] }.encode()).unwrap();
    assert_eq!(rig.dials(), [SocketAddr::new(ip(2), 6881)]);
}

/// E10: a private torrent does not offer it, does not do it when the other side wants it, and takes nothing.
#[test]
fn e10_nothing_where_it_is_off() {
    let mut rig = Rig::new(false, false);
    (0..20).for_each(|n| _ = rig.peer(SocketAddr::new(ip(n), 6881), true));
    let key = rig.listener("12.0.0.9:50000");
    rig.wait(secs(100));
    let said = rig.extended(key);
    assert_eq!(said.len(), 1, "the handshake, and no more");
    assert_eq!(ExtendedHandshake::parse(&said[0].1).unwrap().m.id(Extension::Pex), None);
    for _ in 0..100 {
        rig.tells(key, &[addr("11.0.1.1:6881")]).unwrap();
    }
    assert_eq!(rig.dials(), []);
}
