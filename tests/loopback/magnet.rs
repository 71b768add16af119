//! Torrents of which only a magnet link is known: from seeders, from liars, across restarts. Ids such as E3 name rows of the
//! fault plan.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gannet::base::{InfoHash, InfoHashV1};
use gannet::hash;
use gannet::metainfo::{Format, Magnet, Metainfo};
use gannet::net::mini_tracker::{MiniTracker, MiniTrackerConfig};
use gannet::session::{AddTorrent, Choose, End, Event, Fault, Place, SeedGoal, State, Torrent};
use gannet::wire::{
    EXTENDED_HANDSHAKE_ID, ExtendedHandshake, Extension, ExtensionIds, METADATA_PIECE_LEN, Message, MetadataMessage,
    Reserved,
};
use tokio::sync::broadcast::Receiver;

use crate::fake::{Ear, Fake, Hello, Said};
use crate::lab::{KIB, Lab, MIB, Node, PATIENCE, Payload, SOON, done, until, within};

const PIECE: usize = METADATA_PIECE_LEN as usize;

fn link(payload: &Payload) -> Magnet {
    Magnet::new(payload.metainfo.info.info_hash())
}

impl Node {
    async fn get_link(&self, magnet: Magnet, peers: &[SocketAddr], set: impl FnOnce(&mut AddTorrent)) -> Torrent {
        let mut add = AddTorrent::new(magnet, Place::Folder(self.folder.clone()));
        add.peers = peers.to_vec();
        set(&mut add);
        self.session.add(add).await.unwrap()
    }
}

async fn described(torrent: &Torrent) -> Arc<Metainfo> {
    within(PATIENCE, "the metadata", torrent.described()).await.unwrap().unwrap()
}

/// Many small files: an info dictionary of several parts.
fn many_files(name: &str, format: Format) -> Payload {
    let names: Vec<String> =
        (0..700).map(|n| format!("{n:03}/a file with a long name, so that the dictionary has parts")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1_000)).collect();
    let payload = Payload::make(name, Some(name), &files, 16 * KIB, format, &[]);
    assert!(payload.metainfo.info.raw().len() > 3 * PIECE);
    payload
}

/// Five seeders that the link names. Every connection is made once, and the metadata is there soon after the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_five_peers_that_the_link_names() {
    let lab = Lab::new();
    for format in [Format::V1, Format::V2, Format::Hybrid] {
        let name = format!("five-{format:?}");
        let payload = Payload::make(&name, None, &[(&name, 3 * MIB + 7)], 32 * KIB, format, &[]);
        let mut magnet = link(&payload);
        let mut seeders = Vec::new();
        for n in 0..5 {
            let seeder = lab.seeder(&format!("seeder-{format:?}-{n}"), &payload).await;
            magnet.peers.push((seeder.address().ip().to_string(), seeder.address().port()));
            seeders.push(seeder);
        }
        let leecher = lab.node(&format!("leecher-{format:?}")).await;
        let torrent = leecher.get_link(magnet, &[], |_| ()).await;
        let mut events = torrent.events();
        assert_eq!(torrent.info_hash(), payload.metainfo.info.info_hash());
        let (mut connected, mut first, mut took) = (Vec::new(), None, None);
        within(PATIENCE, "complete", async {
            loop {
                match events.recv().await.unwrap() {
                    Event::PeerConnected { address, .. } => {
                        connected.push(address);
                        first.get_or_insert_with(Instant::now);
                    }
                    Event::Metadata(metainfo) => {
                        assert_eq!(metainfo.info.raw(), payload.metainfo.info.raw());
                        took = first.map(|first| first.elapsed());
                    }
                    Event::Complete => return,
                    _ => {}
                }
            }
        })
        .await;
        done(&torrent).await;
        payload.assert_in(&leecher.folder);
        connected.sort_unstable();
        let all = connected.len();
        connected.dedup();
        assert_eq!(connected.len(), all, "a connection was made twice");
        // A second is what it may take where nothing else runs.
        assert!(took.unwrap() < SOON, "{took:?}");
        eprintln!("{format:?}: metadata {took:?} after the first peer");
        leecher.stop().await;
    }
}

/// v2 with large and small files: layers of several answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashes_of_v2_pieces_come_from_peers() {
    let lab = Lab::new();
    let files = [("a/large", 9 * MIB + 1), ("b", 0), ("c", 16 * KIB), ("d", 16 * KIB + 1), ("e/f", 600_000)];
    let payload = Payload::make("layers", Some("layers"), &files, 16 * KIB, Format::V2, &[]);
    let seeder = lab.seeder("seeder", &payload).await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_link(link(&payload), &[seeder.address()], |_| ()).await;
    let mut events = torrent.events();
    done(&torrent).await;
    payload.assert_in(&leecher.folder);
    let mut whole = None;
    while let Ok(event) = events.try_recv() {
        if let Event::PieceLayers(metainfo) = event {
            whole = Some(metainfo);
        }
    }
    assert_eq!(Metainfo::parse(&whole.unwrap().encode()).unwrap().info.info_hash(), payload.metainfo.info.info_hash());
    // Who came by a link can describe the torrent to the next.
    leecher.stop().await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_link(link(&payload), &[], |add| add.seed = Some(SeedGoal::default())).await;
    until("it seeds", || torrent.status().state == State::Seeding).await;
    let next = lab.node("next").await;
    let torrent = next.get_link(link(&payload), &[leecher.address()], |_| ()).await;
    done(&torrent).await;
    payload.assert_in(&next.folder);
}

/// A hybrid torrent by either hash alone: found out to have both names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hybrid_by_either_hash() {
    let lab = Lab::new();
    let payload = Payload::make("either", None, &[("either", MIB)], 16 * KIB, Format::Hybrid, &[]);
    let both = payload.metainfo.info.info_hash();
    let seeder = lab.seeder("seeder", &payload).await;
    for hash in [InfoHash::v1(both.as_v1().unwrap()), InfoHash::v2(both.as_v2().unwrap())] {
        let leecher = lab.node(&format!("leecher-{hash}")).await;
        let seed = |add: &mut AddTorrent| add.seed = Some(SeedGoal::default());
        let torrent = leecher.get_link(Magnet::new(hash), &[seeder.address()], seed).await;
        until("it seeds", || torrent.status().state == State::Seeding).await;
        payload.assert_in(&leecher.folder);
        assert_eq!(torrent.info_hash(), both);
        // Peers may ask for it by the other name now.
        let other = lab.node(&format!("other-{hash}")).await;
        let names: Vec<[u8; 20]> = both.wire_forms().collect();
        for info_hash in names {
            let hello = Hello { info_hash, ..Hello::new(&payload) };
            within(PATIENCE, "an answer", async {
                while Fake::dial_as(leecher.address(), &hello).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
        other.stop().await;
        leecher.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_the_tracker_of_the_link() {
    let tracker = MiniTracker::start(MiniTrackerConfig::default()).await.unwrap();
    let lab = Lab::new();
    let url = tracker.announce_url();
    let payload = Payload::make("tracked", None, &[("tracked", MIB)], 64 * KIB, Format::V1, &[&[url]]);
    let seeder = lab.seeder("seeder", &payload).await;
    until("the seeder is known", || tracker.counts(payload.wire_hash()).seeders == 1).await;
    let leecher = lab.node("leecher").await;
    let magnet = payload.metainfo.magnet();
    assert_eq!(magnet.trackers.len(), 1);
    let torrent = leecher.get_link(magnet, &[], |_| ()).await;
    assert_eq!(torrent.metainfo().map(|_| ()), None);
    done(&torrent).await;
    payload.assert_in(&leecher.folder);
    within(SOON, "stopped", torrent.stopped()).await;
    let counts = tracker.counts(payload.wire_hash());
    assert_eq!((counts.started, counts.completed), (2, 1), "it was no seed to the tracker before it was one");
    seeder.stop().await;
}

/// What was found is kept: the next run knows the torrent without a peer, and goes on where the first stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_needs_no_network() {
    let lab = Lab::new();
    let payload = many_files("kept", Format::Hybrid);
    let seeder = lab.seeder("seeder", &payload).await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_link(link(&payload), &[seeder.address()], |_| ()).await;
    done(&torrent).await;
    leecher.stop().await;
    seeder.stop().await;

    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_link(link(&payload), &[], |_| ()).await;
    let mut events = torrent.events();
    assert_eq!(described(&torrent).await.info.raw(), payload.metainfo.info.raw());
    done(&torrent).await;
    assert_eq!(torrent.status().downloaded, 0);
    assert!(std::iter::from_fn(|| events.try_recv().ok()).any(|event| matches!(event, Event::Metadata(_))));
    leecher.stop().await;

    // What is damaged is not believed.
    let kept = lab.folder("leecher.state").join(format!("{}.torrent", payload.metainfo.info.info_hash()));
    let mut bytes = std::fs::read(&kept).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&kept, &bytes).unwrap();
    let _ = std::fs::remove_file(kept.with_extension("torrent.bak"));
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_link(link(&payload), &[], |_| ()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((torrent.status().state, torrent.metainfo().is_none()), (State::Metadata, true));
}

/// Nothing but the metadata: no file is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_only() {
    let lab = Lab::new();
    let payload = many_files("only", Format::V2);
    let seeder = lab.seeder("seeder", &payload).await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_link(link(&payload), &[seeder.address()], |add| add.metadata_only = true).await;
    assert_eq!(within(PATIENCE, "the end", torrent.finished()).await.unwrap(), End::Finished);
    assert_eq!(torrent.metainfo().unwrap().info.files().len(), 700);
    assert_eq!(std::fs::read_dir(&leecher.folder).unwrap().count(), 0);
    // It may be added again, and then is known.
    torrent.stopped().await;
    let torrent = leecher.get_link(link(&payload), &[seeder.address()], |_| ()).await;
    done(&torrent).await;
    payload.assert_in(&leecher.folder);
}

/// BEP 53, and what goes before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_files() {
    let lab = Lab::new();
    let files = [("a", 40_000), ("b", 50_000), ("c", 60_000), ("d", 70_000)];
    let payload = Payload::make("some", Some("some"), &files, 16 * KIB, Format::V1, &[]);
    let seeder = lab.seeder("seeder", &payload).await;
    let mut magnet = link(&payload);
    magnet.select = vec![1..=1, 3..=9];
    let leecher = lab.node("by-link").await;
    done(&leecher.get_link(magnet.clone(), &[seeder.address()], |_| ()).await).await;
    payload.assert_only(&leecher.folder, |path| path == Path::new("some/b") || path == Path::new("some/d"));

    let leecher = lab.node("by-user").await;
    let choose = Choose(Arc::new(|metainfo: &Metainfo| {
        Ok(Some(metainfo.info.files().iter().map(|file| file.path.as_str() == "c").collect()))
    }));
    let torrent = leecher.get_link(magnet.clone(), &[seeder.address()], |add| add.choose = Some(choose)).await;
    done(&torrent).await;
    payload.assert_only(&leecher.folder, |path| path == Path::new("some/c"));

    let leecher = lab.node("by-nobody").await;
    magnet.select = vec![4..=9];
    let torrent = leecher.get_link(magnet.clone(), &[seeder.address()], |_| ()).await;
    let failure = within(PATIENCE, "the end", torrent.finished()).await.unwrap_err();
    assert_eq!(failure.fault, Fault::Torrent, "{failure}");
    let choose = Choose(Arc::new(|_: &Metainfo| Err("no such file".to_owned())));
    within(SOON, "stopped", torrent.stopped()).await;
    let torrent = leecher.get_link(magnet, &[seeder.address()], |add| add.choose = Some(choose)).await;
    let failure = within(PATIENCE, "the end", torrent.finished()).await.unwrap_err();
    assert_eq!((failure.fault, failure.message.as_str()), (Fault::Usage, "no such file"));
    assert_eq!(std::fs::read_dir(&leecher.folder).unwrap().count(), 0);
}

// ---------------------------------------------------------------- peers that do what the test says

impl Ear {
    /// Waits to be called, and says that the info dictionary has so many bytes.
    async fn introduced(&self, hello: &Hello, size: i64) -> Fake {
        let mut fake = self.accept(hello).await;
        // By hand, since what cannot be cannot be encoded.
        let payload = format!("d1:md11:ut_metadatai{}ee13:metadata_sizei{size}ee", Extension::Metadata.our_id());
        fake.say(&Message::Extended { id: EXTENDED_HANDSHAKE_ID, payload: payload.as_bytes() }).await;
        fake
    }
}

impl Fake {
    /// The next part of the dictionary that is asked for; `None` if the connection ends.
    async fn asked_for(&mut self) -> Option<u32> {
        self.hear_until(|said| match said {
            Said::Extended(payload) if payload[0] == Extension::Metadata.our_id() => {
                match MetadataMessage::parse(&payload[1..]).unwrap() {
                    MetadataMessage::Request { piece } => Some(piece),
                    _ => None,
                }
            }
            _ => None,
        })
        .await
    }

    async fn say_of_metadata(&mut self, message: &MetadataMessage<'_>) -> bool {
        let mut payload = Vec::new();
        message.encode_into(&mut payload);
        self.say(&Message::Extended { id: Extension::Metadata.our_id(), payload: &payload }).await
    }

    async fn give_part(&mut self, dictionary: &[u8], piece: u32) -> bool {
        let total_size = Some(u32::try_from(dictionary.len()).unwrap());
        let payload = dictionary.chunks(PIECE).nth(piece as usize).unwrap();
        self.say_of_metadata(&MetadataMessage::Data { piece, total_size, payload }).await
    }

    /// Gives whatever is asked for until the connection ends.
    async fn give_all(mut self, dictionary: Vec<u8>) {
        while let Some(piece) = self.asked_for().await {
            self.give_part(&dictionary, piece).await;
        }
    }
}

fn extended(payload: &Payload) -> Hello {
    Hello::new(payload).reserved(Reserved::NONE.with_fast().with_extended())
}

async fn metadata_event(events: &mut Receiver<Event>) -> Arc<Metainfo> {
    within(PATIENCE, "the metadata", async {
        loop {
            if let Event::Metadata(metainfo) = events.recv().await.unwrap() {
                return metainfo;
            }
        }
    })
    .await
}

/// E1: introductions that are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_introductions_that_cannot_be() {
    let lab = Lab::new();
    let payload = Payload::file("e1", 100_000);
    let deep = [vec![b'l'; 1_000], vec![b'e'; 1_000]].concat();
    let odd: [(&[u8], bool); 9] = [
        (&deep, false),
        (b"no dictionary", false),
        (b"d1:mi1e13:metadata_sizei100ee", true),
        (b"d1:md11:ut_metadatai0ee13:metadata_sizei100ee", true),
        (b"d1:md11:ut_metadatai256ee13:metadata_sizei100ee", true),
        (b"d1:md11:ut_metadatai-1ee13:metadata_sizei100ee", true),
        (b"d1:md11:ut_metadata1:xe13:metadata_size3:100e", true),
        (b"d4:reqqi9223372036854775808ee", true),
        (b"d4:reqqi0e1:v4:\xff\xfe\xfd\xfce", true),
    ];
    let leecher = lab.node("leecher").await;
    let mut ears = Vec::new();
    for _ in &odd {
        ears.push(Ear::new().await);
    }
    let addresses: Vec<SocketAddr> = ears.iter().map(|ear| ear.address).collect();
    let torrent = leecher.get_link(link(&payload), &addresses, |_| ()).await;
    for ((introduction, stays), ear) in odd.iter().zip(&ears) {
        let mut fake = ear.accept(&extended(&payload)).await;
        fake.say(&Message::Extended { id: EXTENDED_HANDSHAKE_ID, payload: introduction }).await;
        if *stays {
            // A second one is welcome, and what is said under a foreign id is not.
            fake.say(&Message::Extended { id: EXTENDED_HANDSHAKE_ID, payload: b"d1:mdee" }).await;
            fake.say(&Message::Extended { id: 200, payload: b"?" }).await;
            assert!(fake.until_rejected(0, 0, 1).await.is_some(), "{}", introduction.escape_ascii());
        } else {
            fake.until_closed().await;
        }
    }
    assert_eq!(torrent.status().metadata.unwrap().sources, 0);
}

/// E2: sizes that cannot be are not asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_sizes_that_cannot_be() {
    let lab = Lab::new();
    let payload = Payload::file("e2", 100_000);
    let leecher = lab.node("leecher").await;
    let sizes = [0, -1, 1 << 31, i64::MAX, (32 << 20) + 1, 33 << 20];
    let mut ears = Vec::new();
    for _ in sizes {
        ears.push(Ear::new().await);
    }
    let addresses: Vec<SocketAddr> = ears.iter().map(|ear| ear.address).collect();
    leecher.get_link(link(&payload), &addresses, |_| ()).await;
    for (size, ear) in sizes.iter().zip(&ears) {
        let mut fake = ear.introduced(&extended(&payload), *size).await;
        let before = fake.until_rejected(0, 0, 1).await.unwrap();
        let introductions = before.iter().filter(|said| matches!(said, Said::Extended(_))).count();
        assert_eq!(introductions, 1, "{size}: {before:?}");
    }
}

/// E3: a liar about the size comes first, and holds nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e3_a_liar_about_the_size_first() {
    let lab = Lab::new();
    let payload = many_files("e3", Format::V1);
    let liar = Ear::new().await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_link(link(&payload), &[liar.address], |_| ()).await;
    let mut fake = liar.introduced(&extended(&payload), 32 << 20).await;
    fake.asked_for().await.unwrap();
    fake.give_part(&vec![7; 32 << 20], 0).await;
    // Found later: by its own call.
    let seeder = lab.node("seeder").await;
    let data = payload.write_to(&seeder.folder);
    let mut add = AddTorrent::new(payload.metainfo.clone(), Place::Exact(data));
    (add.seed, add.peers) = (Some(SeedGoal::default()), vec![leecher.address()]);
    seeder.session.add(add).await.unwrap();
    done(&torrent).await;
    payload.assert_in(&leecher.folder);
}

/// E4: garbage of the right length, alone and among honest ones; and answers that cannot be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e4_garbage() {
    let lab = Lab::new();
    let payload = many_files("e4", Format::V1);
    let dictionary = payload.metainfo.info.raw().to_vec();
    let size = i64::try_from(dictionary.len()).unwrap();
    let (liar, odd, honest) = (Ear::new().await, Ear::new().await, Ear::new().await);
    let leecher = lab.node("leecher").await;
    let peers = [liar.address, odd.address, honest.address];
    let torrent = leecher.get_link(link(&payload), &peers, |add| add.metadata_only = true).await;
    let mut events = torrent.events();
    let mut fakes = Vec::new();
    for ear in [&liar, &odd, &honest] {
        fakes.push(ear.introduced(&extended(&payload), size).await);
    }
    let (honest, mut odd, liar) = (fakes.pop().unwrap(), fakes.pop().unwrap(), fakes.pop().unwrap());
    let garbage = tokio::spawn(liar.give_all(vec![7; dictionary.len()]));
    let odd = tokio::spawn(async move {
        while let Some(piece) = odd.asked_for().await {
            odd.say_of_metadata(&MetadataMessage::Data { piece, total_size: Some(1), payload: b"short" }).await;
            odd.say_of_metadata(&MetadataMessage::Data { piece: u32::MAX, total_size: None, payload: &[0; PIECE] })
                .await;
        }
    });
    let honest = tokio::spawn(honest.give_all(dictionary));
    assert_eq!(metadata_event(&mut events).await.info.raw(), payload.metainfo.info.raw());
    for fake in [garbage, odd, honest] {
        within(PATIENCE, "the connection is closed", fake).await.unwrap();
    }
}

/// E5 towards a magnet link: it has nothing to give, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e5_asked_before_it_knows() {
    let lab = Lab::new();
    let payload = Payload::file("e5", 100_000);
    let leecher = lab.node("leecher").await;
    let ear = Ear::new().await;
    leecher.get_link(link(&payload), &[ear.address], |_| ()).await;
    let mut fake = ear.accept(&extended(&payload)).await;
    let handshake = ExtendedHandshake { m: ExtensionIds::ours(), ..ExtendedHandshake::default() }.encode();
    fake.say(&Message::Extended { id: EXTENDED_HANDSHAKE_ID, payload: &handshake }).await;
    for piece in 0..1_000 {
        fake.say_of_metadata(&MetadataMessage::Request { piece }).await;
    }
    for piece in 0..1_000 {
        let rejected = fake.hear_until(|said| match said {
            Said::Extended(payload) if payload[0] == Extension::Metadata.our_id() => {
                Some(MetadataMessage::parse(&payload[1..]) == Ok(MetadataMessage::Reject { piece }))
            }
            _ => None,
        });
        assert_eq!(rejected.await, Some(true));
    }
}

/// E6: the hash is right, and what it is of is no torrent. That ends it, without another try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e6_a_valid_hash_of_something_else() {
    let lab = Lab::new();
    let payload = Payload::file("e6", 100_000);
    let pieces = [b"d6:lengthi100e4:name1:a12:piece lengthi16384e6:pieces21:".as_slice(), &[7; 21], b"e"].concat();
    for dictionary in [b"de".to_vec(), b"i1e".to_vec(), vec![b'l'; 5_000], pieces] {
        let wanted = InfoHash::v1(InfoHashV1(hash::sha1(&[&dictionary])));
        let ear = Ear::new().await;
        let leecher = lab.node("leecher").await;
        let torrent = leecher.get_link(Magnet::new(wanted), &[ear.address], |_| ()).await;
        let hello = Hello { info_hash: wanted.wire(), ..extended(&payload) };
        let fake = ear.introduced(&hello, i64::try_from(dictionary.len()).unwrap()).await;
        let giver = tokio::spawn(fake.give_all(dictionary));
        let failure = within(PATIENCE, "the end", torrent.finished()).await.unwrap_err();
        within(SOON, "stopped", torrent.stopped()).await;
        assert_eq!((failure.fault, torrent.status().state), (Fault::Torrent, State::Failed), "{failure}");
        within(PATIENCE, "closed", giver).await.unwrap();
        leecher.stop().await;
    }
}

/// Row 1 of docs/bug-classes.md: what peers say a torrent is called is made as safe as what a file says, and whoever links to it
/// gets to choose the name no more than they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b1_names_from_peers_stay_below_the_folder() {
    let lab = Lab::new();
    let data = crate::lab::noise(3 * 10_000, 1);
    let pieces: Vec<u8> = data.chunks(16 << 10).flat_map(|piece| hash::sha1(&[piece])).collect();
    let files = ["2:..2:..7:escaped", "16:/tmp/gannet-root9:a/../../b", "1:.0:3:x\\y"]
        .map(|path| format!("d6:lengthi10000e4:pathl{path}ee"));
    let head = format!("d5:filesl{}e4:name5:../up12:piece lengthi16384e6:pieces{}:", files.concat(), pieces.len());
    let metainfo = Metainfo::parse(&[b"d4:info", head.as_bytes(), &pieces, b"ee"].concat()).unwrap();
    // The seeder has it under names that are safe.
    let seeder = lab.node("seeder").await;
    for (file, data) in metainfo.info.files().iter().zip(data.chunks(10_000)) {
        let path = seeder.folder.join("up").join(file.path.to_path_buf());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }
    let mut add = AddTorrent::new(metainfo.clone(), Place::Exact(seeder.folder.join("up")));
    add.seed = Some(SeedGoal::default());
    let seeding = seeder.session.add(add).await.unwrap();
    until("it seeds", || seeding.status().state == State::Seeding).await;
    let node = lab.node_with("a/b/c/node", |_| ()).await;
    let mut magnet = Magnet::new(metainfo.info.info_hash());
    magnet.name = Some("../../../named".into());
    done(&node.get_link(magnet, &[seeder.address()], |_| ()).await).await;
    let below = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| !name.ends_with(".state")).collect()
    };
    // From the root of the lab down there is nothing but the way to the folder, and one name in that.
    for (folder, only) in [("a", "b"), ("a/b", "c"), ("a/b/c", "node"), ("a/b/c/node", metainfo.info.name())] {
        assert_eq!(below(&lab.folder(folder)), [only], "{folder}");
    }
    for (file, data) in metainfo.info.files().iter().zip(data.chunks(10_000)) {
        let path = node.folder.join(metainfo.info.name()).join(file.path.to_path_buf());
        assert!(std::fs::read(&path).unwrap() == data, "{path:?}");
    }
    assert!(!Path::new("/tmp/gannet-root").exists());
}

/// E7: gone with the last part; stopped at its receipt; added again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e7_gone_with_the_last_part() {
    let lab = Lab::new();
    let payload = many_files("e7", Format::V1);
    let dictionary = payload.metainfo.info.raw().to_vec();
    let size = i64::try_from(dictionary.len()).unwrap();
    let parts = u32::try_from(dictionary.len().div_ceil(PIECE)).unwrap();
    let leecher = lab.node("leecher").await;
    let (first, second) = (Ear::new().await, Ear::new().await);
    let torrent = leecher.get_link(link(&payload), &[first.address, second.address], |_| ()).await;
    let mut fake = first.introduced(&extended(&payload), size).await;
    let mut given = 0;
    while given < parts - 1 {
        let piece = fake.asked_for().await.unwrap();
        if piece != parts - 1 {
            fake.give_part(&dictionary, piece).await;
            given += 1;
        }
    }
    until("all parts but one", || torrent.status().metadata.is_some_and(|m| m.pieces == parts - 1)).await;
    fake.reset();
    let mut fake = second.introduced(&extended(&payload), size).await;
    assert_eq!(fake.asked_for().await, Some(parts - 1), "the others are kept");
    let mut events = torrent.events();
    fake.give_part(&dictionary, parts - 1).await;
    metadata_event(&mut events).await;
    torrent.stop(Duration::from_secs(5));
    within(SOON, "stopped", torrent.stopped()).await;
    let again = leecher.get_link(link(&payload), &[], |_| ()).await;
    assert_eq!(described(&again).await.info.raw(), payload.metainfo.info.raw());
    leecher.stop().await;
}

/// E8 over a real connection: v2 messages on a v1 link are refused, and harm nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e8_v2_messages_on_a_v1_link() {
    let lab = Lab::new();
    let payload = Payload::file("e8", 100_000);
    let dictionary = payload.metainfo.info.raw().to_vec();
    let ear = Ear::new().await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get_link(link(&payload), &[ear.address], |_| ()).await;
    let hello = extended(&payload);
    let hello = hello.reserved(hello.reserved.with_v2_upgrade());
    let mut fake = ear.introduced(&hello, i64::try_from(dictionary.len()).unwrap()).await;
    let request =
        gannet::wire::HashRequest { pieces_root: [7; 32], base_layer: 0, index: 0, length: 2, proof_layers: 0 };
    fake.say(&Message::HashRequest(request)).await;
    fake.say(&Message::Hashes { request, hashes: &[0; 64] }).await;
    fake.say(&Message::HaveAll).await;
    fake.say(&Message::Unchoke).await;
    assert_eq!(fake.hear_until(|said| matches!(said, Said::Other(23)).then_some(())).await, Some(()));
    let piece = fake.asked_for().await;
    // It was asked for before the reject came, or after.
    fake.give_part(&dictionary, piece.unwrap_or(0)).await;
    described(&torrent).await;
    let payload = payload.clone();
    tokio::spawn(async move {
        while let Some(said) = fake.hear().await {
            if let Said::Request(index, begin, len) = said {
                fake.give(index, begin, payload.block(index, begin, len)).await;
            }
        }
    });
    // What it said before the metadata counts: it has everything, and lets us in.
    done(&torrent).await;
}

/// K9: the task of a torrent panics, here in what its user gave it to call. It fails, whoever waits for it is told, its peers
/// are let go, and the other torrents of the session go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k9_the_task_of_a_torrent_panics() {
    let lab = Lab::new();
    let (payload, other) = (Payload::file("panics", MIB), Payload::file("other", MIB));
    let seeder = lab.node("seeder").await;
    let seeding = seeder.seed(&payload).await;
    seeder.seed(&other).await;
    let node = lab.node("node").await;
    let torrent = node
        .get_link(link(&payload), &[seeder.address()], |add| {
            add.choose = Some(Choose(Arc::new(|_| std::panic::resume_unwind(Box::new("a test's panic")))));
        })
        .await;
    let failure = within(PATIENCE, "it fails", torrent.finished()).await.unwrap_err();
    assert_eq!(failure.fault, Fault::Internal);
    within(PATIENCE, "it ends", torrent.stopped()).await;
    assert_eq!((torrent.status().state, torrent.status().peers), (State::Failed, 0));
    done(&node.get(&other, &[seeder.address()]).await).await;
    other.assert_in(&node.folder);
    until("its peers are let go", || seeding.status().peers == 0).await;
    node.stop().await;
}
