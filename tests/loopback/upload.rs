//! What peers get from us: the right bytes out of every kind of file, whatever happens to it, and nothing that they have
//! taken back.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use gannet::metainfo::Format;
use gannet::session::State;
use gannet::wire::{HashRequest, Message};

use crate::fake::{Fake, Hello, Said};
use crate::lab::{KIB, Lab, MIB, Payload, done, reaches, until};

const BLOCK: u32 = 16 << 10;

/// Every block of these pieces, in order.
fn requests(payload: &Payload, pieces: impl IntoIterator<Item = u32>) -> Vec<(u32, u32, u32)> {
    let geometry = payload.metainfo.info.geometry();
    let pieces = pieces.into_iter().map(|index| geometry.piece(index).unwrap());
    pieces.flat_map(|p| geometry.blocks(p).map(move |b| (p.get(), b.begin(), b.len()))).collect()
}

async fn ask(fake: &mut Fake, requests: &[(u32, u32, u32)]) {
    let mut bytes = Vec::new();
    for &(index, begin, len) in requests {
        Message::Request { index, begin, len }.encode_into(&mut bytes);
    }
    assert!(fake.raw(&bytes).await);
}

/// Asks for all of these at once, and looks at what comes: each of them once. A seeder sends last what others fetch.
async fn fetch_all(fake: &mut Fake, payload: &Payload, requests: &[(u32, u32, u32)]) {
    ask(fake, requests).await;
    let mut wanted: HashSet<(u32, u32, u32)> = requests.iter().copied().collect();
    while !wanted.is_empty() {
        let found = fake.hear_until(|said| match said {
            Said::Piece(i, b, data) => Some((*i, *b, data.clone())),
            Said::Reject(i, b, _) => panic!("rejected: {i} {b}"),
            _ => None,
        });
        let (index, begin, data) = found.await.expect("still connected");
        let len = u32::try_from(data.len()).unwrap();
        assert!(wanted.remove(&(index, begin, len)), "{index} {begin} {len}");
        assert!(data == payload.block(index, begin, len), "{index} {begin}");
    }
}

/// Drops what the system keeps of a file in memory, if it can. What is dirty stays.
fn make_cold(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// One file long enough to be mapped, many so small that a block has parts of twenty, and padding between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_file() {
    let lab = Lab::new();
    let node = lab.node("node").await;
    let names: Vec<String> = (0..200).map(|n| format!("d{}/f{n}", n % 7)).collect();
    let mut files: Vec<(&str, usize)> = names.iter().zip(0..).map(|(name, n)| (name.as_str(), 300 + 7 * n)).collect();
    files.push(("big", 3 * MIB + 77));
    files.push(("last", 5));
    for format in [Format::V1, Format::V2, Format::Hybrid] {
        let (one, tree) = (format!("one-{format:?}"), format!("tree-{format:?}"));
        for payload in [
            Payload::make(&one, None, &[(&one, 5 * MIB + 123)], 256 * KIB, format, &[]),
            Payload::make(&tree, Some(&tree), &files, 32 * KIB, format, &[]),
        ] {
            node.seed(&payload).await;
            let mut fake = Fake::dial(node.address(), &payload).await;
            fake.get_in().await;
            let mut all = requests(&payload, 0..payload.pieces());
            fetch_all(&mut fake, &payload, &all).await;
            // In no order, and with what others than us ask for: parts of blocks.
            fastrand::Rng::with_seed(1).shuffle(&mut all);
            for (_, begin, len) in all.iter_mut().step_by(3).filter(|(.., len)| *len > 1000) {
                (*begin, *len) = (*begin + 333, *len - 600);
            }
            fetch_all(&mut fake, &payload, &all).await;
        }
    }
}

/// Bytes of neighbours that nobody wanted come out of the part file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_the_part_file() {
    let lab = Lab::new();
    let files = [("a", 50_000), ("b", 50_000), ("c", 50_000), ("d", 300_000)];
    let payload = Payload::make("parts", Some("parts"), &files, 32 * KIB, Format::V1, &[]);
    let seeder = lab.seeder("seeder", &payload).await;
    let node = lab.node("node").await;
    let torrent = node
        .get_with(&payload, &[seeder.address()], |add| {
            add.selected = Some(vec![false, true, false, false]);
            add.seed = Some(gannet::session::SeedGoal::default());
        })
        .await;
    reaches(&torrent, State::Seeding).await;
    seeder.stop().await;
    let mut fake = Fake::dial(node.address(), &payload).await;
    fake.get_in().await;
    // File b lies in these three pieces, with the end of a and the beginning of c.
    let wanted = requests(&payload, 1..4);
    fetch_all(&mut fake, &payload, &wanted).await;
    assert_eq!(fake.fetch(5, 0, BLOCK).await, None, "not there");
    fetch_all(&mut fake, &payload, &wanted).await;
}

/// Data that nobody has read for long: two peers at once, one that wants all at once and one that jumps about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_a_cold_file() {
    let lab = Lab::new();
    let payload = Payload::make("cold", None, &[("cold", 24 * MIB)], 8 * MIB, Format::V1, &[]);
    let node = lab.node("node").await;
    node.seed(&payload).await;
    let path = node.folder.join("cold");
    make_cold(&path);
    let mut fakes = Vec::new();
    for _ in 0..2 {
        let mut fake = Fake::dial(node.address(), &payload).await;
        fake.get_in().await;
        fakes.push(fake);
    }
    let [a, b] = fakes.as_mut_slice() else { unreachable!() };
    let all = requests(&payload, 0..payload.pieces());
    let mut shuffled = all.clone();
    fastrand::Rng::with_seed(2).shuffle(&mut shuffled);
    let in_order = async { fetch_all(a, &payload, &all).await };
    let jumping = async {
        for some in shuffled.chunks(50) {
            fetch_all(b, &payload, some).await;
            make_cold(&path);
        }
    };
    tokio::join!(in_order, jumping);
}

/// A file is cut in the middle of a long send: that ends in a reject or with the connection, never in wrong bytes, and
/// others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_cut_in_the_middle_of_sending() {
    let lab = Lab::new();
    let (payload, other) = (Payload::file("cut", 20 * MIB), Payload::file("whole", MIB));
    let node = lab.node("node").await;
    let torrent = node.seed(&payload).await;
    node.seed(&other).await;
    let mut fake = Fake::dial_narrow(node.address(), &Hello::new(&payload)).await.unwrap();
    fake.get_in().await;
    let all = requests(&payload, 0..payload.pieces());
    ask(&mut fake, &all).await;
    until("it has begun", || torrent.status().uploaded > 0).await;
    File::options().write(true).open(node.folder.join("cut")).unwrap().set_len(0).unwrap();
    let (mut pieces, mut rejects) = (0, 0);
    while let Some(said) = fake.hear().await {
        match said {
            Said::Piece(index, begin, data) => {
                assert!(data == payload.block(index, begin, u32::try_from(data.len()).unwrap()), "{index} {begin}");
                pieces += 1;
            }
            Said::Reject(..) => rejects += 1,
            _ => {}
        }
        if pieces + rejects == all.len() {
            break;
        }
    }
    assert!(pieces < all.len());
    assert_eq!(torrent.status().state, State::Seeding);
    let leecher = lab.node("leecher").await;
    done(&leecher.get(&other, &[node.address()]).await).await;
    other.assert_in(&leecher.folder);
}

/// A peer that reads nothing has far more asked for than any socket takes. What it takes back then does not come, and an
/// answer to something else does not wait for the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_does_not_come_and_answers_pass_by() {
    let lab = Lab::new();
    let payload = Payload::file("asked", 28 * MIB);
    let node = lab.node("node").await;
    let torrent = node.seed(&payload).await;
    let mut fake = Fake::dial_narrow(node.address(), &Hello::new(&payload)).await.unwrap();
    fake.get_in().await;
    let all = requests(&payload, 0..payload.pieces());
    ask(&mut fake, &all).await;
    until("it has begun", || torrent.status().uploaded > 0).await;
    let (index, begin, len) = all[all.len() - 10];
    fake.say(&Message::Cancel { index, begin, len }).await;
    let request = HashRequest { pieces_root: [0; 32], base_layer: 0, index: 0, length: 2, proof_layers: 0 };
    fake.say(&Message::HashRequest(request)).await;
    let (mut came, mut answered, mut rejected) = (Vec::new(), None, None);
    while came.len() + usize::from(rejected.is_some()) < all.len() {
        match fake.hear().await.expect("still connected") {
            Said::Piece(i, b, _) => came.push((i, b)),
            Said::Reject(i, b, _) => {
                assert_eq!((i, b), (index, begin));
                rejected = Some(came.len());
            }
            Said::Other(23) => answered = Some(came.len()),
            _ => {}
        }
    }
    assert!(!came.contains(&(index, begin)));
    // What was in the socket, and a turn's worth.
    assert!(rejected.unwrap() < all.len() - 100 && answered.unwrap() < all.len() - 100, "{rejected:?} {answered:?}");
}
