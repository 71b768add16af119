//! Peers that are found through peers (BEP 11) and in the local network (BEP 14), neither of which is done for private
//! torrents (BEP 27).

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gannet::metainfo::Format;
use gannet::session::{AddTorrent, Place, SeedGoal, State, Torrent};
use gannet::wire::{
    ExtendedHandshake, Extension, LSD_V4, LocalAnnounce, MAX_LSD_LEN, Message, Pex, PexFlags, PexPeer, Reserved,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::fake::{Ear, Fake, Hello, Said};
use crate::lab::{KIB, Lab, MIB, Node, PATIENCE, Payload, SOON, done, reaches, until, within};

/// Under which a fake wants to hear of others.
const FAKE_PEX: u8 = 40;

/// A node that takes little, so that it goes on to need others, and gives nothing.
async fn hub(lab: &Lab, payloads: &[&Payload], peers: &[SocketAddr]) -> (Node, Vec<Torrent>) {
    let hub = lab.node_with("hub", |config| (config.limit_up, config.limit_down) = (Some(1), Some(32 << 10))).await;
    let mut torrents = Vec::new();
    for payload in payloads {
        let torrent = hub.get_and_stay(payload, peers).await;
        reaches(&torrent, State::Downloading).await;
        torrents.push(torrent);
    }
    (hub, torrents)
}

/// A seeder that dials.
async fn seed_to(node: &Node, payload: &Payload, peers: &[SocketAddr]) -> Torrent {
    let data = payload.write_to(&node.folder);
    let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Exact(data));
    add.seed = Some(SeedGoal::default());
    add.peers = peers.to_vec();
    node.session.add(add).await.unwrap()
}

/// The second peer dialled the third: it is known to be reachable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_peer_is_found_through_a_second() {
    let lab = Lab::new();
    let payload = Payload::file("third", 2 * MIB);
    let seeder = lab.seeder("seeder", &payload).await;
    let (hub, _torrents) = hub(&lab, &[&payload], &[seeder.address()]).await;
    let leecher = lab.node("leecher").await;
    let get = leecher.get(&payload, &[hub.address()]).await;
    done(&get).await;
    payload.assert_in(&leecher.folder);
}

/// Both dialled the second, which knows from each where it listens. Of a private torrent nobody is told anything (E10).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e10_two_that_know_a_third_meet_unless_the_torrent_is_private() {
    let lab = Lab::new();
    let (public, private) = (Payload::file("public", 2 * MIB), Payload::private("private", 2 * MIB));
    let (hub, torrents) = hub(&lab, &[&public, &private], &[]).await;
    let (seeder, leecher) = (lab.node("seeder").await, lab.node("leecher").await);
    for payload in [&private, &public] {
        seed_to(&seeder, payload, &[hub.address()]).await;
    }
    let hidden = leecher.get(&private, &[hub.address()]).await;
    until("the hub has both", || torrents[1].status().peers == 2).await;
    let get = leecher.get(&public, &[hub.address()]).await;
    done(&get).await;
    public.assert_in(&leecher.folder);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = hidden.status();
    assert_eq!((status.peers, status.candidates, status.have_pieces), (1, 1, 0), "{status:?}");
}

/// What a fake that speaks of other peers hears, and where it leads.
struct Gossip {
    fake: Fake,
    /// Where the other side is told that there is somebody.
    rumour: Ear,
    offered: bool,
}

impl Gossip {
    async fn start(hub: &Node, payload: &Payload) -> Self {
        let hello = Hello::new(payload).reserved(Reserved::NONE.with_fast().with_extended());
        let mut fake = Fake::dial_as(hub.address(), &hello).await.unwrap();
        let mut handshake = ExtendedHandshake::default();
        handshake.m.set(Extension::Pex, FAKE_PEX);
        let theirs = fake.hear_until(|said| match said {
            Said::Extended(payload) if payload[0] == 0 => Some(ExtendedHandshake::parse(&payload[1..]).unwrap()),
            _ => None,
        });
        let offered = theirs.await.unwrap().m.id(Extension::Pex).is_some();
        fake.say(&Message::Extended { id: 0, payload: &handshake.encode() }).await;
        let rumour = Ear::new().await;
        let added = vec![PexPeer { addr: rumour.address, flags: PexFlags::default() }];
        let payload = Pex { added, dropped: vec![] }.encode();
        fake.say(&Message::Extended { id: Extension::Pex.our_id(), payload: &payload }).await;
        Self { fake, rumour, offered }
    }
}

/// E10: a private torrent does not offer the exchange; it sends nothing to one who wants it, and does not follow what it is
/// told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e10_private_torrents_exchange_nothing() {
    let lab = Lab::new();
    let (public, private) = (Payload::file("public", 2 * MIB), Payload::private("private", 2 * MIB));
    let seeder = lab.seeder("seeder", &public).await;
    seeder.seed(&private).await;
    let (hub, torrents) = hub(&lab, &[&public, &private], &[seeder.address()]).await;
    until("it is connected", || torrents.iter().all(|torrent| torrent.status().peers == 1)).await;
    let mut private = Gossip::start(&hub, &private).await;
    let mut open = Gossip::start(&hub, &public).await;
    assert_eq!((open.offered, private.offered), (true, false));
    let told = open.fake.hear_until(|said| match said {
        Said::Extended(payload) if payload[0] == FAKE_PEX => Some(Pex::parse(&payload[1..]).unwrap()),
        _ => None,
    });
    let told = told.await.unwrap();
    assert_eq!(told.added.iter().map(|peer| peer.addr).collect::<Vec<_>>(), [seeder.address()]);
    assert!(told.added[0].flags.contains(PexFlags::REACHABLE));
    open.rumour.accept(&Hello::new(&public)).await;
    // By now the same would have happened to the other.
    let said = private.fake.until_rejected(0, 0, 1).await.unwrap();
    assert!(!said.iter().any(|said| matches!(said, Said::Extended(_))), "{said:?}");
    let called = tokio::time::timeout(Duration::from_secs(1), private.rumour.accept(&Hello::new(&public))).await;
    assert!(called.is_err());
}

/// A session that searches on the loopback interface.
async fn searching(lab: &Lab, name: &str) -> Node {
    lab.node_with(name, |config| config.lsd_on_loopback = true).await
}

/// A socket that hears what is announced on the loopback interface.
fn eavesdrop() -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddr::V4(LSD_V4).into()).unwrap();
    let interface = InterfaceIndexOrAddress::Address(Ipv4Addr::LOCALHOST);
    socket.join_multicast_v4_n(LSD_V4.ip(), &interface).unwrap();
    UdpSocket::from_std(socket.into()).unwrap()
}

/// Two that know nothing of each other, and a hybrid torrent: both of its names are announced. Of a private one and of
/// one whose session is told not to, nothing is (E10).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e10_neighbours_find_each_other_unless_the_torrent_is_private() {
    let lab = Lab::new();
    let files = [("a", 700 * KIB), ("b", 100 * KIB)];
    let public = Payload::make("hybrid", Some("hybrid"), &files, 64 * KIB, Format::Hybrid, &[]);
    let (private, silent) = (Payload::private("private", 2 * MIB), Payload::file("silent", MIB));
    let spy = eavesdrop();
    let off = lab.node_with("off", |config| (config.lsd_on_loopback, config.lsd) = (true, false)).await;
    off.seed(&silent).await;
    let (seeder, leecher) = (searching(&lab, "seeder").await, searching(&lab, "leecher").await);
    seeder.seed(&private).await;
    let hidden = leecher.get(&private, &[]).await;
    seeder.seed(&public).await;
    let get = leecher.get(&public, &[]).await;
    done(&get).await;
    public.assert_in(&leecher.folder);

    // All that was said on this machine meanwhile, until the names of the public one were heard.
    let mut named = BTreeSet::new();
    let names: Vec<[u8; 20]> = public.metainfo.info.info_hash().wire_forms().collect();
    assert_eq!(names.len(), 2);
    let mut buffer = [0; MAX_LSD_LEN];
    while !names.iter().all(|name| named.contains(name)) {
        let (len, from) = within(PATIENCE, "an announce", spy.recv_from(&mut buffer)).await.unwrap();
        let announce = LocalAnnounce::parse(&buffer[..len]);
        named.extend(announce.filter(|_| from.ip().is_loopback()).into_iter().flat_map(|it| it.info_hashes));
    }
    while let Ok(received) = tokio::time::timeout(Duration::from_secs(1), spy.recv_from(&mut buffer)).await {
        named.extend(LocalAnnounce::parse(&buffer[..received.unwrap().0]).into_iter().flat_map(|it| it.info_hashes));
    }
    assert!(!named.contains(&private.wire_hash()) && !named.contains(&silent.wire_hash()));
    let status = hidden.status();
    assert_eq!((status.peers, status.candidates), (0, 0));
    within(SOON, "stop", seeder.session.stop(Duration::from_secs(5))).await;
}
