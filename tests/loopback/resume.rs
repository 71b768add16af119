//! Stopping in the middle, being killed in the middle, and going on.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use gannet::metainfo::Format;
use gannet::session::{AddTorrent, Place, State, Torrent};
use gannet::wire::Message;
use tokio::runtime::Runtime;

use crate::fake::{Fake, Said};
use crate::lab::{KIB, Lab, MIB, Node, Payload, done, until};

/// Changes a byte without a trace in the file's times.
fn flip_secretly(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let times = file.metadata().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.set_modified(times.modified().unwrap()).unwrap();
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Gives the leecher the first `count` pieces and no more.
pub async fn give_pieces(node: &Node, torrent: &Torrent, payload: &Payload, count: u32) {
    until("it listens", || torrent.status().state == State::Downloading).await;
    let mut fake = Fake::dial(node.address(), payload).await;
    for piece in torrent.status().have_pieces..count {
        fake.say(&Message::Have(piece)).await;
    }
    fake.say(&Message::Unchoke).await;
    while torrent.status().have_pieces < count {
        match tokio::time::timeout(Duration::from_millis(20), fake.hear()).await {
            Ok(Some(Said::Request(index, begin, len))) => {
                fake.give(index, begin, payload.block(index, begin, len)).await;
            }
            Ok(None) => panic!("closed"),
            Ok(Some(_)) | Err(_) => {}
        }
    }
}

/// Data that was hashed to make the torrent is not hashed again; what may have been written to since is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_just_hashed_is_believed() {
    let lab = Lab::new();
    let files = [("kept", 64 * KIB), ("touched", 64 * KIB)];
    let payload = Payload::make("fresh", Some("fresh"), &files, 16 * KIB, Format::V1, &[]);
    let node = lab.node("node").await;
    let data = payload.write_to(&node.folder);
    let now = SystemTime::now();
    // Both have changed, and one says so.
    for (name, changed) in [("kept", now - Duration::from_secs(3_600)), ("touched", now)] {
        flip(&data.join(name), 0);
        File::options().write(true).open(data.join(name)).unwrap().set_modified(changed).unwrap();
    }
    let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Exact(data));
    add.hashed_since = Some(now - Duration::from_secs(60));
    let torrent = node.session.add(add).await.unwrap();
    until("it is open", || torrent.status().have_pieces == payload.pieces() - 1).await;
}

/// A clean stop is believed: nothing is hashed again, and only the other half is fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_costs_nothing() {
    let lab = Lab::new();
    let payload = Payload::file("half", 2 * MIB);
    let seeder = lab.seeder("seeder", &payload).await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[]).await;
    give_pieces(&leecher, &torrent, &payload, 16).await;
    leecher.stop().await;
    assert_eq!(torrent.status().state, State::Stopped);

    // Whoever hashed this piece again would find it wrong.
    let file = leecher.folder.join("half");
    flip_secretly(&file, 3 * 64 * 1024);
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[]).await;
    until("it has begun", || torrent.status().state == State::Downloading).await;
    assert_eq!(torrent.status().have_pieces, 16);
    assert_eq!(torrent.status().have_bytes, MIB as u64);
    leecher.stop().await;

    // A file whose times have changed is looked at: the wrong piece is fetched again, and no other.
    flip(&file, 3 * 64 * 1024 + 1);
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_and_stay(&payload, &[seeder.address()]).await;
    until("complete", || torrent.status().state == State::Seeding).await;
    assert_eq!(torrent.status().downloaded, (16 + 1) * 64 * KIB as u64);
    payload.assert_in(&leecher.folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeding_twice_hashes_once() {
    let lab = Lab::new();
    let payload = Payload::file("again", MIB);
    let seeder = lab.seeder("seeder", &payload).await;
    seeder.stop().await;
    let file = seeder.folder.join("again");
    flip_secretly(&file, 0);
    let seeder = lab.node("seeder").await;
    // `seed` would write the data anew.
    let mut add =
        gannet::session::AddTorrent::new(payload.metainfo.clone(), gannet::session::Place::Exact(file.clone()));
    add.seed = Some(gannet::session::SeedGoal::default());
    let torrent = seeder.session.add(add.clone()).await.unwrap();
    until("it seeds", || torrent.status().state == State::Seeding).await;
    seeder.stop().await;
    // Changed for all to see: what is wrong is not offered.
    flip(&file, 1);
    let seeder = lab.node("seeder").await;
    let torrent = seeder.session.add(add).await.unwrap();
    until("it is checked", || torrent.status().state == State::Seeding).await;
    assert_eq!(torrent.status().have_pieces, payload.pieces() - 1);
}

/// The process is gone in the middle of things. What is on disk is hashed, and nothing else is believed.
#[test]
fn k1_k4_a_kill_never_leaves_a_false_claim() {
    let lab = Lab::new();
    let payload = Payload::file("killed", 2 * MIB);
    let file = lab.folder("leecher").join("killed");
    // In the middle of the download.
    let doomed = Runtime::new().unwrap();
    doomed.block_on(async {
        let leecher = lab.node("leecher").await;
        let torrent = leecher.get(&payload, &[]).await;
        give_pieces(&leecher, &torrent, &payload, 16).await;
    });
    doomed.shutdown_background();
    flip(&file, 5 * 64 * 1024);
    // While seeding: a state was written when it was complete, and not closed in good order.
    let doomed = Runtime::new().unwrap();
    doomed.block_on(async {
        let seeder = lab.seeder("seeder", &payload).await;
        let leecher = lab.node("leecher").await;
        let torrent = leecher.get_and_stay(&payload, &[seeder.address()]).await;
        until("complete", || torrent.status().state == State::Seeding).await;
        assert_eq!(torrent.status().downloaded, (16 + 1) * 64 * KIB as u64, "15 of 16 were right");
        payload.assert_in(&leecher.folder);
    });
    doomed.shutdown_background();
    for at in [0, 9 * 64 * 1024 + 77, 2 * MIB as u64 - 1] {
        flip_secretly(&file, at);
    }
    Runtime::new().unwrap().block_on(async {
        let seeder = lab.seeder("other", &payload).await;
        let leecher = lab.node("leecher").await;
        let torrent = leecher.get_and_stay(&payload, &[seeder.address()]).await;
        until("complete", || torrent.status().state == State::Seeding).await;
        done_again(&torrent, &payload, &leecher).await;
    });
}

async fn done_again(torrent: &Torrent, payload: &Payload, leecher: &Node) {
    assert_eq!(torrent.status().downloaded, 3 * 64 * KIB as u64);
    payload.assert_in(&leecher.folder);
    leecher.stop().await;
    // And now it is clean: nothing is fetched.
    done(&leecher_again(payload, leecher).await).await;
}

async fn leecher_again(payload: &Payload, before: &Node) -> Torrent {
    let mut config = gannet::session::Config::new(before.folder.with_extension("state"));
    config.listen = vec![crate::lab::loopback()];
    let session = gannet::session::Session::start(config).await.unwrap();
    let place = gannet::session::Place::Folder(before.folder.clone());
    session.add(gannet::session::AddTorrent::new(payload.metainfo.clone(), place)).await.unwrap()
}

/// K8: told to stop before anything has begun, while it checks, and twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_stopping_at_any_moment_ends_soon() {
    let lab = Lab::new();
    let payload = Payload::file("soon", 8 * MIB);
    let data = payload.write_to(&lab.folder("node"));
    assert!(data.exists());
    for pause in [0, 1, 3, 10, 30] {
        let node = lab.node("node").await;
        let torrent = node.get_and_stay(&payload, &[]).await;
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        tokio::join!(node.stop(), node.stop());
        assert_eq!(torrent.status().state, State::Stopped);
        assert_eq!(
            crate::lab::within(crate::lab::SOON, "the end", torrent.finished()).await.unwrap(),
            gannet::session::End::Stopped
        );
    }
    payload.assert_in(&lab.folder("node"));
}
