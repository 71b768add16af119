//! The DHT between sessions: peers without trackers, peers' nodes, and nothing at all for private torrents.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gannet::session::{Config, DhtConfig, Event, SeedGoal};

use crate::lab::{Lab, Node, PATIENCE, Payload, done, loopback, until, within};

fn with_dht(nodes: &[SocketAddr]) -> impl FnOnce(&mut Config) {
    let nodes = nodes.iter().map(|at| (at.ip().to_string(), at.port())).collect();
    |config| config.dht = Some(DhtConfig { nodes, ..DhtConfig::default() })
}

fn dht_nodes(node: &Node) -> usize {
    node.session.dht().unwrap().node_count()
}

/// Seven nodes that know the first, a seed and a downloader among them.
async fn find_each_other(at: SocketAddr) {
    let lab = Lab::new();
    let payload = Payload::file("data.bin", 300_000);
    let mut nodes: Vec<Node> = Vec::new();
    for n in 0..7 {
        let begin: Vec<_> = nodes.first().map(Node::address).into_iter().collect();
        let set = with_dht(&begin);
        let name = format!("node-{n}");
        let node = lab.node_with(&name, |config| {
            config.listen = vec![at];
            set(config);
        });
        nodes.push(node.await);
    }
    nodes[3].seed(&payload).await;
    let torrent = nodes[5].get(&payload, &[]).await;
    let mut events = torrent.events();
    done(&torrent).await;
    payload.assert_in(&nodes[5].folder);
    let searched = within(PATIENCE, "the search is told of", async {
        loop {
            if let Event::Dht { answered, peers, announced } = events.recv().await.unwrap() {
                return (answered, peers, announced);
            }
        }
    });
    if torrent.status().state != gannet::session::State::Stopped {
        let (answered, ..) = searched.await;
        assert!(answered > 0);
    }
    for node in &nodes {
        node.stop().await;
    }
    // Who was there is remembered.
    let again = lab.node_with("node-5", with_dht(&[])).await;
    assert!(lab.folder("node-5.state").join("dht.state").exists());
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torrents_are_found_without_a_tracker() {
    find_each_other(loopback()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torrents_are_found_without_a_tracker_over_ipv6() {
    let at = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
    if UdpSocket::bind(at).is_err() {
        println!("skipped: no IPv6 on this machine");
        return;
    }
    find_each_other(at).await;
}

/// BEP 5: peers tell each other where their nodes are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_leads_into_the_dht() {
    let lab = Lab::new();
    let payload = Payload::file("data.bin", 100_000);
    let seeder = lab.node_with("seeder", with_dht(&[])).await;
    seeder.seed(&payload).await;
    let leecher = lab.node_with("leecher", with_dht(&[])).await;
    let torrent = leecher.get_and_stay(&payload, &[seeder.address()]).await;
    until("each knows the other's node", || dht_nodes(&leecher) == 1 && dht_nodes(&seeder) == 1).await;
    assert_eq!(torrent.status().dht_nodes, Some(1));
    // With a session that has no node nobody speaks of nodes.
    let other = lab.node("other").await;
    let torrent = other.get_and_stay(&payload, &[seeder.address()]).await;
    until("it is complete", || torrent.status().have_pieces == payload.pieces()).await;
    assert_eq!((torrent.status().dht_nodes, dht_nodes(&seeder)), (None, 1));
    for node in [&seeder, &leecher, &other] {
        node.stop().await;
    }
}

/// A node that answers every query with its id alone, and counts those that name `hashes`.
struct Watcher {
    address: SocketAddr,
    seen: Arc<[AtomicUsize; 2]>,
    stop: Arc<AtomicBool>,
}

impl Watcher {
    fn start(hashes: [[u8; 20]; 2]) -> Self {
        let socket = UdpSocket::bind(loopback()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (seen, stop) = (Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]), Arc::new(AtomicBool::new(false)));
        let watcher = Self { address: socket.local_addr().unwrap(), seen: seen.clone(), stop: stop.clone() };
        std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut bytes) else { continue };
                let query = &bytes[..len];
                for (hash, seen) in hashes.iter().zip(&*seen) {
                    if query.windows(20).any(|window| window == hash) {
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // Our transaction ids have four bytes.
                let Some(at) = query.windows(5).position(|window| window == b"1:t4:") else { continue };
                let mut answer = b"d1:rd2:id20:watcherwatcherwatche5:token1:xe1:t4:".to_vec();
                answer.extend_from_slice(&query[at + 5..at + 9]);
                answer.extend_from_slice(b"1:y1:re");
                let _ = socket.send_to(&answer, from);
            }
        });
        watcher
    }

    fn seen(&self, which: usize) -> usize {
        self.seen[which].load(Ordering::Relaxed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// BEP 27: not a packet, not a word to peers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_torrents_are_kept_out_of_the_dht() {
    let lab = Lab::new();
    let public = Payload::file("public.bin", 100_000);
    let private = Payload::private_file("private.bin", 100_000);
    let watcher = Watcher::start([public.wire_hash(), private.wire_hash()]);
    let node = lab.node_with("node", with_dht(&[watcher.address])).await;
    let folder = lab.folder("private-data");
    let secret = node.seed_at(&private, &folder).await;
    let torrent = node.seed(&public).await;
    assert_eq!(torrent.status().dht_nodes, Some(dht_nodes(&node)));
    assert_eq!(secret.status().dht_nodes, None);
    until("the public one is looked for and announced", || watcher.seen(0) >= 2).await;
    // A peer of the private torrent learns of no node.
    let other = lab.node_with("other", with_dht(&[])).await;
    let got = other.get_with(&private, &[node.address()], |add| add.seed = Some(SeedGoal::default())).await;
    until("it is complete", || got.status().have_pieces == private.pieces()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((watcher.seen(1), dht_nodes(&other)), (0, 0));
    node.stop().await;
    other.stop().await;
    assert_eq!(watcher.seen(1), 0);
}
