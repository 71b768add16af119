//! uTP (BEP 29) between sessions, encrypted or not, beside TCP and without it, and under a flood (W20).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use gannet::session::{Config, Encryption, Event, Torrent};
use gannet::utp::{Header, Kind};

use crate::lab::{Lab, MIB, Node, PATIENCE, Payload, SOON, done, until, within};

/// A session without TCP.
async fn node(lab: &Lab, name: &str, set: impl FnOnce(&mut Config)) -> Node {
    let set = |config: &mut Config| {
        config.tcp = false;
        set(config);
    };
    lab.node_with(name, set).await
}

/// Whether the first connection of `torrent` is uTP, and encrypted.
async fn first_connection(torrent: &Torrent) -> (bool, bool) {
    let mut events = torrent.events();
    within(PATIENCE, "a connection", async {
        loop {
            if let Event::PeerConnected { utp, encrypted, .. } = events.recv().await.unwrap() {
                return (utp, encrypted);
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_over_utp_alone() {
    let lab = Lab::new();
    let payload = Payload::file("data", 24 * MIB + 12_345);
    for (encryption, encrypted) in [(Encryption::Off, false), (Encryption::Require, true)] {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            // IPv6 may be off.
            if UdpSocket::bind(SocketAddr::new(ip, 0)).is_err() {
                continue;
            }
            let set = |config: &mut Config| {
                config.listen = vec![SocketAddr::new(ip, 0)];
                config.encryption = encryption;
            };
            let seeder = node(&lab, "seeder", set).await;
            seeder.seed(&payload).await;
            let leecher = node(&lab, &format!("leecher {ip} {encrypted}"), set).await;
            let get = leecher.get(&payload, &[seeder.address()]).await;
            assert_eq!(first_connection(&get).await, (true, encrypted), "{ip}");
            done(&get).await;
            payload.assert_in(&leecher.folder);
            leecher.stop().await;
            seeder.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_tcp_is_reached_by_those_who_have_both() {
    let lab = Lab::new();
    let payload = Payload::file("data", 2 * MIB);
    let seeder = node(&lab, "seeder", |_| ()).await;
    seeder.seed(&payload).await;
    let both = lab.node("both").await;
    let get = both.get_and_stay(&payload, &[seeder.address()]).await;
    assert!(first_connection(&get).await.0);
    until("the download", || get.status().have_bytes == payload.size()).await;
    payload.assert_in(&both.folder);
    // And the other way round; where TCP answers, it is TCP.
    for (tcp, utp) in [(false, true), (true, false)] {
        let leecher = lab.node_with(&format!("leecher {tcp}"), |config| config.tcp = tcp).await;
        let get = leecher.get(&payload, &[both.address()]).await;
        assert_eq!(first_connection(&get).await.0, utp);
        done(&get).await;
        payload.assert_in(&leecher.folder);
        leecher.stop().await;
    }
    both.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_leechers_share_one_socket_with_one_seeder() {
    let lab = Lab::new();
    let payload = Payload::file("data", 4 * MIB);
    let seeder = node(&lab, "seeder", |_| ()).await;
    seeder.seed(&payload).await;
    let mut leechers = Vec::new();
    for n in 0..8 {
        let leecher = node(&lab, &format!("leecher {n}"), |_| ()).await;
        let get = leecher.get(&payload, &[seeder.address()]).await;
        leechers.push((leecher, get));
    }
    for (leecher, get) in &leechers {
        done(get).await;
        payload.assert_in(&leecher.folder);
        leecher.stop().await;
    }
    seeder.stop().await;
}

/// The end of a session is told to those who are connected, which do not have to wait until it is taken for gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_says_so() {
    let lab = Lab::new();
    let payload = Payload::file("data", MIB);
    let seeder = node(&lab, "seeder", |_| ()).await;
    let seed = seeder.seed(&payload).await;
    let mut events = seed.events();
    let leecher = node(&lab, "leecher", |_| ()).await;
    done(&leecher.get(&payload, &[seeder.address()]).await).await;
    leecher.stop().await;
    drop(leecher);
    within(SOON, "the end of the connection", async {
        while !matches!(events.recv().await.unwrap(), Event::PeerClosed { .. }) {}
    })
    .await;
    seeder.stop().await;
}

/// What has come so far.
fn answers(socket: &UdpSocket) -> usize {
    let mut buf = [0; 2000];
    std::iter::from_fn(|| socket.recv(&mut buf).ok()).count()
}

/// W20: a flood of first packets from many ports and of packets of no connection, while an honest peer downloads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w20_a_flood_leaves_honest_peers_alone() {
    let lab = Lab::new();
    let payload = Payload::file("data", 8 * MIB);
    let seeder = node(&lab, "seeder", |_| ()).await;
    seeder.seed(&payload).await;
    let strangers: Vec<UdpSocket> = (0..300)
        .map(|_| {
            let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            socket.connect(seeder.address()).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let packet = |kind, conn_id| {
        let header = Header { kind, conn_id, timestamp: 5, delay: 0, window: 1 << 20, seq: 1, ack: 0 };
        let mut bytes = Vec::new();
        header.encode_into(&mut bytes);
        bytes
    };
    let flood = |strangers: &[UdpSocket]| {
        for (stranger, id) in strangers.iter().zip(1000..) {
            // What does not fit is lost, as floods are.
            let _ = stranger.send(&packet(Kind::Syn, id));
        }
    };
    flood(&strangers);
    let leecher = node(&lab, "leecher", |_| ()).await;
    let get = leecher.get(&payload, &[seeder.address()]).await;
    for _ in 0..3 {
        flood(&strangers);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    done(&get).await;
    payload.assert_in(&leecher.folder);
    for stranger in &strangers {
        // One for each, at most; those that came again were answered again.
        assert!(answers(stranger) <= 4);
    }
    for stranger in &strangers {
        let _ = stranger.send(&packet(Kind::Data, 7));
        let _ = stranger.send(&packet(Kind::Reset, 7));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(strangers.iter().all(|stranger| answers(stranger) <= 1));
    leecher.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_utp_nobody_is_answered() {
    let lab = Lab::new();
    let seeder = lab.node_with("seeder", |config| config.utp = false).await;
    let stranger = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    stranger.connect(seeder.address()).unwrap();
    stranger.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut syn = Vec::new();
    Header { kind: Kind::Syn, conn_id: 1, timestamp: 5, delay: 0, window: 1 << 20, seq: 1, ack: 0 }
        .encode_into(&mut syn);
    let _ = stranger.send(&syn);
    assert!(stranger.recv(&mut [0; 100]).is_err());
    assert!(seeder.session.udp().is_none());
    seeder.stop().await;
}
