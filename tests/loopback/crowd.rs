//! Many at once.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use gannet::metainfo::Format;
use gannet::net::mini_tracker::{MiniTracker, MiniTrackerConfig};
use gannet::session::State;
use gannet::wire::Message;
use tokio::task::JoinSet;

use crate::fake::Fake;
use crate::lab::{KIB, Lab, MIB, PATIENCE, Payload, done, until, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_leechers_of_one_seeder() {
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    let lab = Lab::new();
    let payload = Payload::make("many", None, &[("many", MIB)], 32 * KIB, Format::V1, &[&[tracker.announce_url()]]);
    let seeder = lab.seeder("seeder", &payload).await;
    until("the seeder is known", || tracker.counts(payload.wire_hash()).seeders == 1).await;
    let mut gets = JoinSet::new();
    for n in 0..64 {
        let leecher = lab.node_with(&format!("leecher-{n}"), |config| config.disk_threads = Some(1)).await;
        let (payload, address) = (payload.clone(), seeder.address());
        gets.spawn(async move {
            let torrent = leecher.get(&payload, &[address]).await;
            done(&torrent).await;
            payload.assert_in(&leecher.folder);
        });
    }
    while let Some(got) = within(PATIENCE, "all are done", gets.join_next()).await {
        got.unwrap();
    }
}

/// Sockets of this process whose local port is `port`, the listening one included.
#[cfg(target_os = "linux")]
fn sockets_on(port: u16) -> usize {
    let ours: HashSet<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| Some(std::fs::read_link(fd.ok()?.path()).ok()?.to_str()?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    // The table is read in parts while it changes: the same socket may stand there twice.
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let socket = format!("socket:[{}]", fields[9]);
        (fields[1].ends_with(&format!(":{port:04X}")) && ours.contains(&socket)).then_some(socket)
    };
    table.lines().skip(1).filter_map(of_line).collect::<HashSet<_>>().len()
}

/// 300 who want nothing, and a stranger's share of noise: one more is still served, and afterwards nothing is left.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n9_three_hundred_idle_peers_and_a_clean_end() {
    let lab = Lab::new();
    let payload = Payload::file("idle", MIB);
    let node = lab.node_with("node", |config| config.max_peers = 320).await;
    let torrent = node.seed(&payload).await;
    let port = node.address().port();
    until("it listens", || sockets_on(port) == 1).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        let mut fake = Fake::dial(node.address(), &payload).await;
        fake.say(&Message::HaveNone).await;
        idle.push(fake);
    }
    until("all are in", || torrent.status().peers == 300).await;
    until("each has a socket", || sockets_on(port) == 301).await;
    let leecher = lab.node("leecher").await;
    done(&leecher.get(&payload, &[node.address()]).await).await;
    leecher.stop().await;
    // Beyond the limit nobody gets in, and nobody is thrown out.
    for _ in 300..320 {
        idle.push(Fake::dial(node.address(), &payload).await);
    }
    until("it is full", || torrent.status().peers == 320).await;
    let refused = within(PATIENCE, "refused", async {
        let hello = crate::fake::Hello::new(&payload);
        Fake::dial_as(node.address(), &hello).await.is_err()
    });
    assert!(refused.await);
    idle.truncate(300);
    until("twenty are gone", || torrent.status().peers == 300).await;
    let start = Instant::now();
    node.stop().await;
    assert!(start.elapsed() < Duration::from_secs(5), "K8: stopping took {:?}", start.elapsed());
    assert_eq!(torrent.status().state, State::Stopped);
    for fake in &mut idle {
        fake.until_closed().await;
    }
    until("all sockets are closed", || sockets_on(port) == 0).await;
}
