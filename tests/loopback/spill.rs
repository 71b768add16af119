//! Pieces that do not fit into the memory that there is for blocks.

use gannet::metainfo::Format;
use gannet::session::State;
use gannet::storage::{Backend, Preallocate};
use gannet::wire::Message;

use crate::disk::Mount;
use crate::fake::{Ear, Fake, Hello, Said};
use crate::lab::{KIB, Lab, MIB, Node, PATIENCE, Payload, SOON, done, until, why_closed, within};

/// A session that has room for `blocks` blocks.
async fn small(lab: &Lab, name: &str, blocks: usize) -> Node {
    lab.node_with(name, |config| config.block_memory = (blocks * 16 * KIB) as u64).await
}

/// Pieces sixteen times as large as all the memory for blocks, from several seeders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_of_64_mib_through_4_mib_of_memory() {
    let lab = Lab::new();
    let payload = Payload::make("huge", None, &[("huge", 140 * MIB + 12_345)], 64 * MIB, Format::V1, &[]);
    let mut seeders = Vec::new();
    for name in ["s1", "s2", "s3"] {
        let seeder = lab.node(name).await;
        // The same file for all of them: 140 MiB need not be written three times.
        seeder.seed_at(&payload, &lab.folder("seeders")).await;
        seeders.push(seeder);
    }
    let addresses: Vec<_> = seeders.iter().map(Node::address).collect();
    let leecher = small(&lab, "leecher", 256).await;
    let torrent = leecher.get(&payload, &addresses).await;
    done(&torrent).await;
    payload.assert_in(&leecher.folder);
    // What was written early counts no more than what was not: a second look finds all of it verified.
    torrent.stopped().await;
    assert_eq!(torrent.status().have_bytes, payload.size());
    assert!(torrent.status().wasted <= payload.size() / 50 + MIB as u64, "{:?}", torrent.status());
}

/// v1, v2 and hybrid, files that share pieces with others, padding, both ways of writing; with room for as little as one
/// block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_through_little_memory() {
    let lab = Lab::new();
    let seeder = lab.node("seeder").await;
    let tree = [("a/first", 100_000), ("a/empty", 0), ("big", 3_000_000), ("z/exact", MIB), ("z/last", 70_001)];
    for (format, blocks) in [(Format::V1, 20), (Format::V2, 7), (Format::Hybrid, 1)] {
        let single = format!("single-{format:?}");
        let folder = format!("folder-{format:?}");
        for payload in [
            Payload::make(&single, None, &[(&single, 2_200_001)], MIB, format, &[]),
            Payload::make(&folder, Some(&folder), &tree, MIB, format, &[]),
        ] {
            seeder.seed(&payload).await;
            for (backend, preallocate) in [(Backend::Mmap, Preallocate::Full), (Backend::Pwrite, Preallocate::Sparse)] {
                let name = format!("leecher-{}-{backend:?}", payload.metainfo.info.name());
                let leecher = small(&lab, &name, blocks).await;
                let torrent = leecher
                    .get_with(&payload, &[seeder.address()], |add| {
                        (add.backend, add.preallocate) = (backend, preallocate)
                    })
                    .await;
                done(&torrent).await;
                payload.assert_in(&leecher.folder);
                leecher.stop().await;
            }
        }
    }
}

/// What is spilled of files that are not wanted goes where it would go with a whole piece, and is found there later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_that_are_not_wanted() {
    let lab = Lab::new();
    let files = [("a", 700_000), ("b", 900_000), ("c", 800_000), ("d", 3_000_000)];
    let payload = Payload::make("part", Some("part"), &files, MIB, Format::V1, &[]);
    let seeder = lab.seeder("seeder", &payload).await;
    let leecher = small(&lab, "leecher", 10).await;
    let only_b = vec![false, true, false, false];
    let torrent = leecher.get_with(&payload, &[seeder.address()], |add| add.selected = Some(only_b)).await;
    done(&torrent).await;
    payload.assert_only(&leecher.folder, |path| path.ends_with("b"));
    leecher.stop().await;
    let leecher = small(&lab, "leecher", 10).await;
    let torrent = leecher.get(&payload, &[seeder.address()]).await;
    done(&torrent).await;
    payload.assert_in(&leecher.folder);
}

/// One of two sources sends one bad block of a piece that has long left memory when that comes out. The piece is written
/// once more in the same place, the liar alone is banned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_spoilt_a_spilled_piece_is_found() {
    let lab = Lab::new();
    let payload = Payload::make("spoilt", None, &[("spoilt", 4 * MIB)], 4 * MIB, Format::V1, &[]);
    let (liar_ear, honest_ear) = (Ear::new().await, Ear::new().await);
    let leecher = small(&lab, "leecher", 16).await;
    let torrent = leecher.get_and_stay(&payload, &[liar_ear.address, honest_ear.address]).await;
    let mut events = torrent.events();
    let mut liar = liar_ear.accept(&Hello::new(&payload)).await;
    let honest = honest_ear.accept(&Hello::new(&payload)).await;
    let lies = payload.clone();
    let (tell, has_lied) = tokio::sync::oneshot::channel();
    let liar = tokio::spawn(async move {
        liar.say(&Message::HaveAll).await;
        liar.say(&Message::Unchoke).await;
        let mut tell = Some(tell);
        while let Some(said) = liar.hear().await {
            let Said::Request(index, begin, len) = said else { continue };
            // One bad block, and nothing else.
            if let Some(tell) = tell.take() {
                let mut block = lies.block(index, begin, len).to_vec();
                block[100] ^= 1;
                liar.give(index, begin, &block).await;
                tell.send(()).unwrap();
            } else {
                liar.say(&Message::Reject { index, begin, len }).await;
            }
        }
    });
    within(SOON, "the lie is told", has_lied).await.unwrap();
    let data = payload.clone();
    let honest = tokio::spawn(honest.serve(move |index, begin, len| Some(data.block(index, begin, len).to_vec())));
    assert_eq!(why_closed(&mut events, liar_ear.address).await, "sent bad data");
    within(PATIENCE, "the liar is thrown out", liar).await.unwrap();
    until("complete", || torrent.status().state == State::Seeding).await;
    payload.assert_in(&leecher.folder);
    let status = torrent.status();
    assert!(status.wasted >= 4 * MIB as u64, "{status:?}");
    leecher.stop().await;
    within(SOON, "the honest one is let go", honest).await.unwrap();
}

/// What was written unverified is not claimed after a stop, neither where it is right nor where it is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_with_half_a_piece_on_disk() {
    let lab = Lab::new();
    let payload = Payload::make("stopped", None, &[("stopped", 8 * MIB)], 4 * MIB, Format::V1, &[]);
    let leecher = small(&lab, "leecher", 16).await;
    let torrent = leecher.get(&payload, &[]).await;
    until("it listens", || torrent.status().state == State::Downloading).await;
    let mut fake = Fake::dial(leecher.address(), &payload).await;
    fake.say(&Message::HaveAll).await;
    fake.say(&Message::Unchoke).await;
    let mut given = 0;
    while given < 150 {
        let said = fake.hear().await.expect("requests");
        let Said::Request(index, begin, len) = said else { continue };
        let mut block = payload.block(index, begin, len).to_vec();
        block[0] ^= u8::from(given % 2 == 0);
        assert!(fake.give(index, begin, &block).await);
        given += 1;
    }
    until("it came", || torrent.status().downloaded == 150 * 16 * KIB as u64).await;
    leecher.stop().await;
    assert_eq!((torrent.status().state, torrent.status().have_pieces), (State::Stopped, 0));
    let on_disk = std::fs::read(leecher.folder.join("stopped")).unwrap();
    assert!(on_disk.iter().filter(|byte| **byte != 0).count() > MIB, "much of it was written");
    let seeder = lab.seeder("seeder", &payload).await;
    let leecher = small(&lab, "leecher", 16).await;
    let torrent = leecher.get(&payload, &[seeder.address()]).await;
    done(&torrent).await;
    assert_eq!(torrent.status().downloaded, payload.size());
    payload.assert_in(&leecher.folder);
}

/// The disk is full in the middle of a piece: a clear failure, not a hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_when_blocks_are_spilled() {
    let lab = Lab::new();
    let Some(_mount) = Mount::new(&lab.folder("leecher"), "2m") else {
        eprintln!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let payload = Payload::make("full", None, &[("full", 8 * MIB)], 8 * MIB, Format::V1, &[]);
    let seeder = lab.seeder("seeder", &payload).await;
    let leecher = small(&lab, "leecher", 16).await;
    let sparse = |add: &mut gannet::session::AddTorrent| add.preallocate = Preallocate::Sparse;
    let torrent = leecher.get_with(&payload, &[seeder.address()], sparse).await;
    let failure = within(PATIENCE, "it fails", torrent.finished()).await.unwrap_err();
    assert!(
        failure.fault == gannet::session::Fault::Disk && failure.message.contains("no space left"),
        "{}",
        failure.message
    );
    within(PATIENCE, "it ends", torrent.stopped()).await;
    leecher.stop().await;
}
