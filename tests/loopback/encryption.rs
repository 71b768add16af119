//! Message Stream Encryption between sessions, with strangers, and against those who abuse it (W19).

use std::time::Duration;

use gannet::base::PeerId;
use gannet::metainfo::Format;
use gannet::net::dial::Dialer;
use gannet::net::egress::Egress;
use gannet::session::{Encryption, Event, Torrent};
use gannet::wire::mse::{Entropy, Exchange, Method, Step};
use gannet::wire::{Handshake, Reserved};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::fake::Hello;
use crate::lab::{KIB, Lab, MIB, Node, PATIENCE, Payload, SOON, done, loopback, noise, within};

const ALL: [Encryption; 4] = [Encryption::Off, Encryption::Allow, Encryption::Prefer, Encryption::Require];

/// How every plain handshake begins.
const PLAIN: &[u8] = b"\x13BitTorrent protocol";

async fn node(lab: &Lab, name: &str, encryption: Encryption) -> Node {
    lab.node_with(name, |config| config.encryption = encryption).await
}

/// Whether the first connection of `torrent` is encrypted.
async fn encrypted(torrent: &Torrent) -> bool {
    let mut events = torrent.events();
    within(PATIENCE, "a connection", async {
        loop {
            if let Event::PeerConnected { encrypted, .. } = events.recv().await.unwrap() {
                return encrypted;
            }
        }
    })
    .await
}

fn handshake(info_hash: [u8; 20]) -> Handshake {
    Handshake { info_hash, peer_id: PeerId(*b"-FK0001-encryption.."), reserved: Reserved::NONE.with_fast() }
}

/// Whoever dials, whoever answers, whatever both want: whether they meet, and whether it is encrypted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_of_policies() {
    let lab = Lab::new();
    let payload = Payload::file("data", 2 * MIB);
    let (plain, rc4) = (Some(false), Some(true));
    // By who dials: what comes of it when off, allow, prefer, require answer.
    let table = [
        (Encryption::Off, [plain, plain, plain, None]),
        (Encryption::Allow, [plain, plain, plain, rc4]),
        (Encryption::Prefer, [plain, rc4, rc4, rc4]),
        (Encryption::Require, [None, rc4, rc4, rc4]),
    ];
    for (answers, column) in ALL.into_iter().zip(0..) {
        let seeder = node(&lab, &format!("seeder {answers:?}"), answers).await;
        seeder.seed(&payload).await;
        for (dials, row) in &table {
            let pair = format!("{dials:?} dials {answers:?}");
            let Some(expected) = row[column] else {
                let dialled = Dialer::new(Egress::default(), *dials)
                    .dial(seeder.address(), &handshake(payload.wire_hash()))
                    .await;
                assert!(dialled.is_err(), "{pair}");
                continue;
            };
            let leecher = node(&lab, &pair, *dials).await;
            let torrent = leecher.get(&payload, &[seeder.address()]).await;
            assert_eq!(encrypted(&torrent).await, expected, "{pair}");
            done(&torrent).await;
            payload.assert_in(&leecher.folder);
            leecher.stop().await;
        }
        seeder.stop().await;
    }
}

/// The one who has the data dials; several files, small and large; both names of a hybrid torrent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seeder_dials_and_a_hybrid_has_two_names() {
    let lab = Lab::new();
    let files = [("small", 3), ("large", 3 * MIB + 5), ("other", 70 * KIB)];
    let payload = Payload::make("folder", Some("folder"), &files, 64 * KIB, Format::Hybrid, &[]);
    let leecher = node(&lab, "leecher", Encryption::Require).await;
    let get = leecher.get_and_stay(&payload, &[]).await;
    let seeder = node(&lab, "seeder", Encryption::Require).await;
    let data = payload.write_to(&seeder.folder);
    let mut add = gannet::AddTorrent::new(payload.metainfo.clone(), gannet::session::Place::Exact(data));
    add.peers = vec![leecher.address()];
    add.seed = Some(gannet::session::SeedGoal::default());
    seeder.session.add(add).await.unwrap();
    assert!(encrypted(&get).await);
    within(PATIENCE, "the download", async {
        while get.status().have_bytes < get.status().wanted_bytes || get.status().wanted_bytes == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    payload.assert_in(&leecher.folder);
    for name in payload.metainfo.info.info_hash().wire_forms() {
        let dialled =
            Dialer::new(Egress::default(), Encryption::Require).dial(leecher.address(), &handshake(name)).await;
        assert_eq!(dialled.unwrap().1.info_hash, name);
    }
    let unknown =
        Dialer::new(Egress::default(), Encryption::Require).dial(leecher.address(), &handshake([9; 20])).await;
    assert!(unknown.is_err());
    seeder.stop().await;
    leecher.stop().await;
}

/// All that comes until the other side closes, or `len` bytes.
async fn first_bytes(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut n = 0;
    while n < len {
        match within(SOON, "bytes", stream.read(&mut bytes[n..])).await {
            Ok(0) | Err(_) => break,
            Ok(more) => n += more,
        }
    }
    bytes.truncate(n);
    bytes
}

/// What is said first to a peer that hangs up on it, and what then, by policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_greeting_on_a_connection_of_its_own() {
    let lab = Lab::new();
    let payload = Payload::file("data", 64 * KIB);
    for (policy, plain) in [
        (Encryption::Off, &[true][..]),
        (Encryption::Allow, &[true, false]),
        (Encryption::Prefer, &[false, true]),
        (Encryption::Require, &[false]),
    ] {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let node = node(&lab, &format!("{policy:?}"), policy).await;
        let _get = node.get(&payload, &[listener.local_addr().unwrap()]).await;
        for (n, plain) in plain.iter().enumerate() {
            let (mut stream, _) = within(PATIENCE, "a call", listener.accept()).await.unwrap();
            let first = first_bytes(&mut stream, 68).await;
            assert_eq!(first.starts_with(PLAIN), *plain, "{policy:?}, call {n}");
            assert!(*plain || !first.windows(8).any(|w| PLAIN.windows(8).any(|p| p == w)), "{policy:?}");
        }
        // The next one would be in a minute.
        let again = tokio::time::timeout(Duration::from_millis(300), listener.accept()).await;
        assert!(again.is_err(), "{policy:?} calls a third time");
        node.stop().await;
    }
}

/// `require` never answers what is not encrypted, nor `off` what is; nobody answers for a torrent that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_no_answer() {
    let lab = Lab::new();
    let payload = Payload::file("data", 64 * KIB);
    let require = node(&lab, "require", Encryption::Require).await;
    require.seed(&payload).await;
    let mut stream = TcpStream::connect(require.address()).await.unwrap();
    stream.write_all(&Hello::new(&payload).bytes()).await.unwrap();
    assert!(first_bytes(&mut stream, 1).await.is_empty());
    // Encrypted, but to go on without.
    let mut offer = Caller::dial(&require, payload.wire_hash(), &[Method::Plaintext]).await;
    assert!(offer.run().await.is_none());

    let off = node(&lab, "off", Encryption::Off).await;
    off.seed(&payload).await;
    let mut caller = Caller::dial(&off, payload.wire_hash(), &[Method::Rc4]).await;
    assert!(caller.run().await.is_none());
    assert_eq!(caller.heard, 0);
    require.stop().await;
    off.stop().await;
}

/// Dials with the pure machine, and does with its bytes what a test says.
struct Caller {
    stream: TcpStream,
    exchange: Exchange,
    heard: usize,
}

impl Caller {
    async fn dial(node: &Node, torrent: [u8; 20], methods: &'static [Method]) -> Self {
        let stream = TcpStream::connect(node.address()).await.unwrap();
        let mut random = [0; Entropy::LEN];
        random.copy_from_slice(&noise(Entropy::LEN, 5));
        let exchange = Exchange::dial(Entropy::new(random), handshake(torrent), methods);
        Self { stream, exchange, heard: 0 }
    }

    /// The torrent agreed upon; `None` if the other side closes.
    async fn run(&mut self) -> Option<[u8; 20]> {
        let mut buf = [0; 1000];
        loop {
            match self.exchange.poll().ok()? {
                Step::Send(bytes) => self.stream.write_all(&bytes).await.ok()?,
                Step::Read => {
                    let n = within(SOON, "an answer, or the end", self.stream.read(&mut buf)).await.ok()?;
                    self.heard += n;
                    self.exchange.handle_bytes(buf.get(..n).filter(|b| !b.is_empty())?);
                }
                Step::Compute(power) => self.exchange.handle_raised(power.raise()).ok()?,
                Step::Find(_) => return None,
                Step::Done(secured) => return Some(secured.torrent),
            }
        }
    }
}

/// W19: a thousand key exchanges half done, noise without end where a mark should be; nobody gets more than a key and a
/// pad in return, and honest peers are served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w19_floods_of_half_done_exchanges() {
    let lab = Lab::new();
    let payload = Payload::file("data", MIB);
    let seeder = lab.node("seeder").await;
    let torrent = seeder.seed(&payload).await;
    let mut strangers = JoinSet::new();
    for n in 0..1000_u64 {
        let address = seeder.address();
        strangers.spawn(async move {
            let Ok(mut stream) = TcpStream::connect(address).await else { return 0 };
            // A key; one and noise without end; a key that is none.
            let _ = match n % 3 {
                0 => stream.write_all(&noise(96, n)).await,
                1 => stream.write_all(&noise(2 * MIB, n)).await,
                _ => stream.write_all(&[0xff; 96]).await,
            };
            let mut heard = 0;
            let mut buf = [0; 1000];
            let listen = async {
                while let Ok(n @ 1..) = stream.read(&mut buf).await {
                    heard += n;
                }
            };
            let _ = tokio::time::timeout(Duration::from_millis(500), listen).await;
            heard
        });
        // So many at once as there may be under way, and some.
        if strangers.len() >= 150 {
            let heard = strangers.join_next().await.unwrap().unwrap();
            assert!(heard <= 96 + 512, "{heard}");
        }
    }
    while let Some(heard) = strangers.join_next().await {
        assert!(heard.unwrap() <= 96 + 512);
    }
    let leecher = node(&lab, "leecher", Encryption::Require).await;
    let get = leecher.get(&payload, &[seeder.address()]).await;
    done(&get).await;
    payload.assert_in(&leecher.folder);
    assert_eq!(torrent.status().state, gannet::session::State::Seeding);
    leecher.stop().await;
    seeder.stop().await;
}
