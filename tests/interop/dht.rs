//! The DHT with libtorrent's nodes: a network of both kinds on loopback, over IPv4 and IPv6, in which each finds what the
//! other has announced and stored. Peers are given to each other's clients by the DHT alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use gannet::dht::{self, Event, Item, NodeId};
use gannet::net::dht::{DhtClient, DhtConfig};
use gannet::net::egress::Egress;
use gannet::net::udp::UdpHub;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::lab::{Lab, Tool, python};
use crate::process::{PATIENCE, Running, poll};

/// Nodes of each kind.
const LIBTORRENT_NODES: usize = 15;
const GANNET_NODES: usize = 15;

/// How many of the others each node of gannet is to know before anything is asked.
const KNOWN: usize = 8;

struct Network {
    runtime: Runtime,
    ip: IpAddr,
    clients: Vec<DhtClient>,
    nodes: Running,
}

impl Network {
    fn start(lab: &Lab, ip: IpAddr) -> Self {
        let mut command = lab.command(python().expect("asked for by Lab::with"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/libtorrent_dht.py"));
        command.args([ip.to_string(), LIBTORRENT_NODES.to_string()]);
        let mut nodes = Running::start("libtorrent-nodes", &mut command, &lab.path("logs"));
        let port = nodes.until("their ports", |nodes| answer(nodes, 0))["ports"][0].as_u64();
        let first = port.and_then(|port| u16::try_from(port).ok()).expect("a port");
        let runtime = Runtime::new().expect("threads");
        let (clients, addresses): (Vec<_>, Vec<_>) = (0..GANNET_NODES).map(|_| client(&runtime, ip, first)).unzip();
        let mut network = Self { runtime, ip, clients, nodes };
        for address in addresses {
            network.libtorrent(&format!("add {}", address.port()));
        }
        let known = || network.clients.iter().all(|client| client.node_count() >= KNOWN);
        assert!(poll(PATIENCE, || known().then_some(())).is_some(), "the nodes do not find each other");
        network
    }

    fn ask(&self, which: usize, command: dht::Command) -> Vec<Event> {
        self.runtime.block_on(async {
            let mut events = self.clients[which].command(command);
            let mut all = Vec::new();
            while let Ok(Some(event)) = tokio::time::timeout(PATIENCE, events.recv()).await {
                all.push(event);
            }
            all
        })
    }

    /// Has one of libtorrent's nodes do something; what it answers.
    fn libtorrent(&mut self, what: &str) -> Value {
        let before = self.nodes.stdout().lines().count();
        self.nodes.write_line(what);
        self.nodes.until(what, |nodes| answer(nodes, before))
    }

    fn finds(&self, which: usize, info_hash: NodeId, port: u16) -> bool {
        let peer = SocketAddr::new(self.ip, port);
        let events = self.ask(which, dht::Command::GetPeers { info_hash });
        events.iter().any(|event| matches!(event, Event::Peers { peers, .. } if peers.contains(&peer)))
    }
}

/// The answer of that number, once all of it is there.
fn answer(nodes: &Running, number: usize) -> Option<Value> {
    let told = nodes.stdout();
    let line = told.split_inclusive('\n').nth(number).filter(|line| line.ends_with('\n'))?;
    Some(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
}

fn client(runtime: &Runtime, ip: IpAddr, first: u16) -> (DhtClient, SocketAddr) {
    let _inside = runtime.enter();
    let socket = UdpSocket::bind((ip, 0)).expect("a port");
    socket.set_nonblocking(true).expect("a socket that does not block");
    let address = socket.local_addr().expect("an address");
    let hub = Arc::new(UdpHub::start(vec![socket], false).expect("a hub"));
    let config = DhtConfig { nodes: vec![(ip.to_string(), first)], ..DhtConfig::default() };
    (DhtClient::start(hub, &Egress::default(), config).expect("entropy").expect("the only node there"), address)
}

fn each_finds_what_the_other_has(ip: IpAddr) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let mut network = Network::start(&lab, ip);
    // Items.
    let item = Item::immutable(b"11:from-gannet").expect("an item");
    let target = item.target();
    network.ask(2, dht::Command::Put { item, cas: None });
    assert_eq!(network.libtorrent(&format!("get {target}"))["value"], "from-gannet");
    let put = network.libtorrent("put from-libtorrent");
    let target = Item::immutable(b"15:from-libtorrent").expect("an item").target();
    assert_eq!(put["target"], target.to_string());
    let found = network.ask(3, dht::Command::Get { target, salt: Vec::new() });
    assert!(matches!(&found[0], Event::Item { item, .. } if item.value() == b"15:from-libtorrent"), "{found:?}");
    // Peers.
    let ours = NodeId([0x3a; 20]);
    network.ask(4, dht::Command::Announce { info_hash: ours, port_v4: Some(6881), port_v6: Some(6881), seed: false });
    let told = network.libtorrent(&format!("peers {ours}"));
    assert!(told["peers"][0].as_str().is_some_and(|peer| peer.ends_with(":6881")), "{told}");
    let theirs = NodeId([0xc5; 20]);
    // It does not say when it has announced.
    network.libtorrent(&format!("announce {theirs} 6882"));
    let found = poll(PATIENCE, || network.finds(5, theirs, 6882).then_some(()));
    assert!(found.is_some(), "libtorrent's peer is not found");
}

#[test]
fn a_network_of_both_over_ipv4() {
    each_finds_what_the_other_has(Ipv4Addr::LOCALHOST.into());
}

#[test]
fn a_network_of_both_over_ipv6() {
    let ip = IpAddr::V6(Ipv6Addr::LOCALHOST);
    if UdpSocket::bind((ip, 0)).is_err() {
        println!("skipped: no IPv6 on this machine");
        return;
    }
    each_finds_what_the_other_has(ip);
}
