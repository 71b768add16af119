//! Data gets across, whole, in every shape a torrent comes in.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use gannet::metainfo::Format;
use gannet::net::mini_tracker::{MiniTracker, MiniTrackerConfig};
use gannet::session::{Event, State};
use tokio::net::TcpListener;

use crate::fake::{Ear, Fake, Hello};
use crate::lab::{KIB, Lab, MIB, PATIENCE, Payload, SOON, done, loopback, until, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_one_seeder_and_from_three() {
    let lab = Lab::new();
    let payload = Payload::file("one", 4 * MIB + 12_345);
    let mut addresses = Vec::new();
    let mut seeders = Vec::new();
    for name in ["s1", "s2", "s3"] {
        let seeder = lab.seeder(name, &payload).await;
        addresses.push(seeder.address());
        seeders.push(seeder);
    }
    for count in [1, 3] {
        let leecher = lab.node(&format!("leecher-{count}")).await;
        let torrent = leecher.get(&payload, &addresses[..count]).await;
        let mut events = torrent.events();
        done(&torrent).await;
        payload.assert_in(&leecher.folder);
        torrent.stopped().await;
        assert_eq!(torrent.status().state, State::Stopped);
        let (mut pieces, mut files, mut complete) = (Vec::new(), 0, 0);
        while let Ok(event) = events.try_recv() {
            match event {
                Event::Piece { piece } => pieces.push(piece),
                Event::File { .. } => files += 1,
                Event::Complete => complete += 1,
                _ => {}
            }
        }
        pieces.sort_unstable();
        assert_eq!(pieces, (0..payload.pieces()).collect::<Vec<_>>(), "each piece is told once");
        assert_eq!((files, complete), (1, 1));
        leecher.stop().await;
    }
}

/// v1, v2 and hybrid, one file and many with empty ones and sub-folders, all at once in one session on each side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_in_one_session() {
    let lab = Lab::new();
    let (seeder, leecher) = (lab.node("seeder").await, lab.node("leecher").await);
    let tree = [
        ("a/first", 100_000),
        ("a/b/c/deep", 1),
        ("a/empty", 0),
        ("big", 300_000),
        ("z/exact", 65_536),
        ("z/last", 70_001),
    ];
    let mut gets = Vec::new();
    for format in [Format::V1, Format::V2, Format::Hybrid] {
        let single = format!("single-{format:?}");
        let small = format!("small-{format:?}");
        let folder = format!("folder-{format:?}");
        for payload in [
            Payload::make(&single, None, &[(&single, 200_001)], 32 * KIB, format, &[]),
            Payload::make(&small, None, &[(&small, 5)], 16 * KIB, format, &[]),
            Payload::make(&folder, Some(&folder), &tree, 32 * KIB, format, &[]),
        ] {
            seeder.seed(&payload).await;
            gets.push((leecher.get(&payload, &[seeder.address()]).await, payload));
        }
    }
    for (torrent, payload) in gets {
        done(&torrent).await;
        payload.assert_in(&leecher.folder);
    }
    leecher.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_tracker_of_each_family() {
    for local in [loopback(), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
        let mut config = MiniTrackerConfig::default();
        config.listen = local;
        let Ok(tracker) = MiniTracker::start(config).await else {
            eprintln!("skipped: no {local} here");
            continue;
        };
        let lab = Lab::new();
        let payload =
            Payload::make("tracked", None, &[("tracked", MIB)], 64 * KIB, Format::V1, &[&[tracker.announce_url()]]);
        let seeder = lab.node_with("seeder", |config| config.listen = vec![local]).await;
        seeder.seed(&payload).await;
        until("the seeder is known", || tracker.counts(payload.wire_hash()).seeders == 1).await;
        let leecher = lab.node_with("leecher", |config| config.listen = vec![local]).await;
        let torrent = leecher.get(&payload, &[]).await;
        done(&torrent).await;
        payload.assert_in(&leecher.folder);
        within(SOON, "stopped", torrent.stopped()).await;
        seeder.stop().await;
        let counts = tracker.counts(payload.wire_hash());
        assert_eq!((counts.started, counts.completed, counts.stopped), (2, 1, 2), "{local}");
    }
}

/// A tracker that refuses, and one that says nothing for ever, hold nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_trackers_cost_no_time() {
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    let refusing = {
        let gone = TcpListener::bind(loopback()).await.unwrap();
        format!("http://{}/announce", gone.local_addr().unwrap())
    };
    let mute = TcpListener::bind(loopback()).await.unwrap();
    let mute_url = format!("http://{}/announce", mute.local_addr().unwrap());
    let lab = Lab::new();
    let tiers = [vec![refusing], vec![mute_url], vec![tracker.announce_url()]];
    let tiers: Vec<&[String]> = tiers.iter().map(Vec::as_slice).collect();
    let payload = Payload::make("t", None, &[("t", MIB)], 64 * KIB, Format::V1, &tiers);
    let _seeder = lab.seeder("seeder", &payload).await;
    until("the seeder is known", || tracker.counts(payload.wire_hash()).seeders == 1).await;
    let leecher = lab.node("leecher").await;
    let start = Instant::now();
    let torrent = leecher.get(&payload, &[]).await;
    done(&torrent).await;
    assert!(start.elapsed() < SOON, "took {:?}", start.elapsed());
    payload.assert_in(&leecher.folder);
    // The mute one does not hold up the end either.
    let start = Instant::now();
    leecher.stop().await;
    assert!(start.elapsed() < Duration::from_secs(6), "stopping took {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selected_files_and_later_the_rest() {
    let lab = Lab::new();
    // Three files that share pieces, and a pair far behind that does not.
    let files = [("a", 50_000), ("b", 50_000), ("c", 50_000), ("d", 300_000), ("e", 100_000)];
    let payload = Payload::make("sel", Some("sel"), &files, 32 * KIB, Format::V1, &[]);
    let seeder = lab.seeder("seeder", &payload).await;
    let leecher = lab.node("leecher").await;
    let only_b = vec![false, true, false, false, false];
    let torrent = leecher.get_with(&payload, &[seeder.address()], |add| add.selected = Some(only_b)).await;
    let mut events = torrent.events();
    done(&torrent).await;
    assert_eq!(torrent.status().have_bytes, 50_000);
    payload.assert_only(&leecher.folder, |path| path.ends_with("b"));
    let part = leecher.folder.join(".sel.gannet-part");
    assert!(
        part.exists(),
        "bytes of neighbours are kept: {:?}",
        std::fs::read_dir(&leecher.folder).unwrap().collect::<Vec<_>>()
    );
    leecher.stop().await;
    let first: usize =
        std::iter::from_fn(|| events.try_recv().ok()).filter(|e| matches!(e, Event::Piece { .. })).count();
    assert_eq!(first, 3, "pieces 1, 2 and 3 hold file b");

    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[seeder.address()]).await;
    let mut events = torrent.events();
    done(&torrent).await;
    payload.assert_in(&leecher.folder);
    torrent.stopped().await;
    let second: usize =
        std::iter::from_fn(|| events.try_recv().ok()).filter(|e| matches!(e, Event::Piece { .. })).count();
    // The pieces that the file shares may have to be fetched again: their other ends lay in the part file.
    assert!(second <= payload.pieces() as usize - first + 2, "{second} pieces");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequential_is_in_order() {
    let lab = Lab::new();
    let payload = Payload::file("film", 2 * MIB);
    let ear = Ear::new().await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_with(&payload, &[ear.address], |add| add.sequential = true).await;
    let fake = ear.accept(&Hello::new(&payload)).await;
    let serve = fake.serve(|index, begin, len| Some(payload.block(index, begin, len).to_vec()));
    let (asked, ()) = tokio::join!(within(PATIENCE, "served", serve), done(&torrent));
    let mut pieces: Vec<u32> = asked.iter().map(|(index, ..)| *index).collect();
    pieces.dedup();
    assert_eq!(pieces, (0..payload.pieces()).collect::<Vec<_>>());
    payload.assert_in(&leecher.folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dial_and_one_connection_stays() {
    let lab = Lab::new();
    let payload = Payload::file("both", MIB);
    // Both lack everything, or they would be done before anybody could look.
    let (a, b) = (lab.node("a").await, lab.node("b").await);
    let (at_a, at_b) = ([a.address()], [b.address()]);
    let (ta, tb) = tokio::join!(a.get(&payload, &at_b), b.get(&payload, &at_a));
    until("one connection on both sides", || ta.status().peers == 1 && tb.status().peers == 1).await;
    let seeder = lab.seeder("seeder", &payload).await;
    // It still works: a third, who knows only one of them, reaches both.
    let c = lab.node("c").await;
    let tc = c.get_and_stay(&payload, &[seeder.address(), a.address()]).await;
    for torrent in [&ta, &tb] {
        done(torrent).await;
    }
    drop(tc);
    payload.assert_in(&a.folder);
    payload.assert_in(&b.folder);
}

/// A hybrid is two swarms: whoever asks by either hash is answered by the same (BEP 52).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hybrid_answers_to_both_of_its_names() {
    let lab = Lab::new();
    let payload = Payload::make("two", None, &[("two", 100_000)], 32 * KIB, Format::Hybrid, &[]);
    let seeder = lab.seeder("seeder", &payload).await;
    let names: Vec<[u8; 20]> = payload.metainfo.info.info_hash().wire_forms().collect();
    assert_eq!(names.len(), 2);
    for info_hash in names {
        let hello = Hello { info_hash, ..Hello::new(&payload) };
        let mut fake = Fake::dial_as(seeder.address(), &hello).await.unwrap();
        assert_eq!(fake.theirs.info_hash, info_hash);
        fake.get_in().await;
        assert_eq!(
            fake.fetch(3, 0, 100_000 - 3 * 32_768).await.as_deref(),
            Some(payload.block(3, 0, 100_000 - 3 * 32_768))
        );
    }
}
