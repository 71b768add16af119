//! Swarms that tell each other what the torrent is, and strangers who ask and tell too much.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::base::{Bitfield, Geometry, InfoHash, PeerId};
use crate::metainfo::{Builder, Format, Info, SourceFile};
use crate::swarm::hash_picker::tests::torrent;
use crate::swarm::metadata::MAX_METADATA_MEMORY;
use crate::swarm::{CloseReason, NewPeer, Refused, SwarmConfig};
use crate::wire::{Decoder, EXTENDED_HANDSHAKE_ID, ExtendedHandshake, ExtensionIds, Item, Reserved};

fn config(n: u8) -> SwarmConfig {
    SwarmConfig {
        info_hash: [7; 20],
        peer_id: PeerId([n; 20]),
        listen_port: Some(6881),
        dht_port: None,
        max_peers: 100,
        block_memory: 1 << 20,
        limit_up: None,
        sequential: false,
        super_seed: false,
        pex: false,
        holepunch: false,
        many_per_address: true,
    }
}

fn metainfo(info: Info) -> Arc<Metainfo> {
    Arc::new(Metainfo::from_info(info))
}

/// A v1 torrent with an info dictionary of some 70 KiB, and 2,000 pieces.
fn large(private: bool) -> Arc<Metainfo> {
    let files = (0..2_000).map(|n| SourceFile::new([format!("{n:06}")], 16_384)).collect();
    let mut builder = Builder::folder("large", files);
    builder.format = Format::V1;
    builder.piece_length = Some(16_384);
    builder.private = private;
    let plan = builder.plan().unwrap();
    let hashes: Vec<[u8; 20]> = (0..plan.piece_count()).map(|n| crate::hash::sha1(&[&n.to_be_bytes()])).collect();
    Arc::new(Metainfo::parse(&plan.finish(&hashes, &[]).unwrap()).unwrap())
}

/// Swarms joined to each other by bytes.
struct Net {
    swarms: Vec<Swarm>,
    /// Both ends of each connection: whose, under which key; and what decodes what comes from the other end.
    ends: BTreeMap<(usize, PeerKey), (usize, PeerKey, Decoder)>,
    now: Instant,
    /// What each swarm has said that is not carried out here.
    actions: Vec<Vec<Action>>,
}

impl Net {
    fn new() -> Self {
        Self { swarms: vec![], ends: BTreeMap::new(), now: Instant::now(), actions: vec![] }
    }

    fn id(&self) -> u8 {
        u8::try_from(self.swarms.len()).unwrap() + 1
    }

    fn seed(&mut self, metainfo: &Arc<Metainfo>) -> usize {
        let geometry = metainfo.info.geometry().clone();
        let have = Bitfield::full(geometry.piece_count());
        let mut swarm = Swarm::new(self.now, geometry, &have, &[], config(self.id()), 1);
        swarm.set_metainfo(self.now, metainfo.clone());
        self.push(swarm)
    }

    fn unknown(&mut self, wanted: InfoHash) -> usize {
        let mut swarm = Swarm::unknown(self.now, wanted, config(self.id()), 2);
        swarm.set_metadata_allowance(self.now, MAX_METADATA_MEMORY);
        self.push(swarm)
    }

    fn push(&mut self, swarm: Swarm) -> usize {
        self.swarms.push(swarm);
        self.actions.push(vec![]);
        self.swarms.len() - 1
    }

    fn join(&mut self, a: usize, b: usize, v2: bool) {
        let reserved = Reserved::NONE.with_fast().with_extended();
        let mut meet = |of: usize, with: usize, outgoing| {
            let n = u8::try_from(with).unwrap() + 1;
            let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, n), 6881));
            let new = NewPeer { address, outgoing, utp: false, id: PeerId([n; 20]), reserved, v2 };
            self.swarms[of].handle_connected(self.now, new).unwrap()
        };
        let (at_a, at_b) = (meet(a, b, true), meet(b, a, false));
        self.ends.insert((a, at_a), (b, at_b, Decoder::new(None)));
        self.ends.insert((b, at_b), (a, at_a, Decoder::new(None)));
    }

    /// Carries bytes until nobody says anything more.
    fn run(&mut self) {
        loop {
            let mut quiet = true;
            let from: Vec<(usize, PeerKey)> = self.ends.keys().copied().collect();
            for (from, key) in from {
                let mut bytes = Vec::new();
                let Some(outbox) = self.swarms[from].outbox(key) else { continue };
                outbox.take_control(&mut bytes);
                quiet &= bytes.is_empty();
                let (to, at, _) = &self.ends[&(from, key)];
                let (to, at) = (*to, *at);
                let decoder = &mut self.ends.get_mut(&(to, at)).unwrap().2;
                while !bytes.is_empty() {
                    let n = decoder.feed(&bytes);
                    bytes.drain(..n);
                    while let Some(item) = decoder.next().unwrap() {
                        let Item::Message(message) = item else { panic!("{item:?}") };
                        self.swarms[to].handle_message(self.now, at, &message).unwrap();
                    }
                }
            }
            for (swarm, actions) in self.swarms.iter_mut().zip(&mut self.actions) {
                actions.extend(std::iter::from_fn(|| swarm.poll_action()));
            }
            if quiet {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(500);
            for swarm in &mut self.swarms {
                swarm.handle_timeout(self.now);
            }
            self.run();
        }
    }

    /// The metadata that swarm number `n` has found.
    fn found(&mut self, n: usize) -> Option<Vec<u8>> {
        self.actions[n].drain(..).find_map(|action| match action {
            Action::Metadata(bytes) => Some(bytes),
            _ => None,
        })
    }
}

/// From the hash to the first requests, over one and the same connection.
#[test]
fn the_whole_way() {
    let metainfo = large(false);
    let mut net = Net::new();
    let (seed, leecher) = (net.seed(&metainfo), net.unknown(metainfo.info.info_hash()));
    net.join(leecher, seed, false);
    net.run();
    let raw = net.found(leecher).unwrap();
    assert_eq!(raw, metainfo.info.raw());
    assert!(!net.swarms[leecher].is_complete() && !net.swarms[leecher].is_open());
    let totals = net.swarms[leecher].totals(net.now);
    assert_eq!((totals.peers, totals.seeds), (1, 0));

    let found = self::metainfo(Info::parse(&raw, None).unwrap());
    net.swarms[leecher].set_metainfo(net.now, found);
    // The files are opened in the meantime.
    net.pass(Duration::from_secs(130));
    let have = Bitfield::new(2_000);
    net.swarms[leecher].open(net.now, &have, &[]);
    net.run();
    let totals = net.swarms[leecher].totals(net.now);
    assert_eq!((totals.peers, totals.seeds, totals.interesting, totals.choking), (1, 1, 1, 0));
    let (_, key) = *net.ends.keys().find(|(n, _)| *n == seed).unwrap();
    assert!(net.swarms[seed].outbox(key).unwrap().piece_count() > 0, "blocks are asked for");
}

/// Who has just got it passes it on to those who were there before.
#[test]
fn from_one_who_did_not_have_it_either() {
    let metainfo = large(false);
    let wanted = metainfo.info.info_hash();
    let mut net = Net::new();
    let (first, second) = (net.unknown(wanted), net.unknown(wanted));
    net.join(first, second, false);
    net.run();
    let seed = net.seed(&metainfo);
    net.join(first, seed, false);
    net.run();
    assert!(net.found(second).is_none());
    let found = self::metainfo(Info::parse(&net.found(first).unwrap(), None).unwrap());
    net.swarms[first].set_metainfo(net.now, found);
    net.run();
    assert_eq!(net.found(second).unwrap(), metainfo.info.raw());
}

/// v2: the dictionary, then the hashes of the pieces; from others who have them, and from none of v1.
#[test]
fn hashes_of_pieces() {
    let whole = torrent(&[700, 1, 3, 40], 0);
    let metainfo = self::metainfo(whole.clone());
    let mut net = Net::new();
    let (seed, leecher) = (net.seed(&metainfo), net.unknown(whole.info_hash()));
    net.join(leecher, seed, true);
    net.run();
    let mut bare = Info::parse(&net.found(leecher).unwrap(), None).unwrap();
    net.swarms[leecher].set_metainfo(net.now, self::metainfo(bare.clone()));
    assert_eq!(net.swarms[leecher].totals(net.now).hashes, Some((0, 4)));
    net.run();
    let layers = net.actions[leecher].drain(..).find_map(|action| match action {
        Action::PieceLayers(layers) => Some(layers),
        _ => None,
    });
    for (file, layer) in layers.unwrap() {
        bare.set_piece_layer(file, layer).unwrap();
    }
    assert_eq!(bare.missing_layers().count(), 0);
    net.swarms[leecher].set_metainfo(net.now, self::metainfo(bare));
    net.swarms[leecher].open(net.now, &Bitfield::new(744), &[]);
    net.run();
    assert_eq!(net.swarms[leecher].totals(net.now).interesting, 1);
}

#[test]
fn private_torrents_are_not_described() {
    let metainfo = large(true);
    let mut net = Net::new();
    let (seed, leecher) = (net.seed(&metainfo), net.unknown(metainfo.info.info_hash()));
    net.join(leecher, seed, false);
    net.run();
    assert_eq!(net.found(leecher), None);
    assert_eq!(net.swarms[leecher].totals(net.now).metadata.unwrap().sources, 0);
}

/// A swarm and strangers who say what the test says.
struct Rig {
    swarm: Swarm,
    now: Instant,
    peers: u8,
}

impl Rig {
    fn new(swarm: Swarm) -> Self {
        Self { swarm, now: Instant::now(), peers: 100 }
    }

    fn seed(metainfo: &Arc<Metainfo>) -> Self {
        let geometry = metainfo.info.geometry().clone();
        let have = Bitfield::full(geometry.piece_count());
        let now = Instant::now();
        let mut swarm = Swarm::new(now, geometry, &have, &[], config(1), 1);
        swarm.set_metainfo(now, metainfo.clone());
        Self::new(swarm)
    }

    fn unknown(wanted: InfoHash) -> Self {
        let now = Instant::now();
        let mut swarm = Swarm::unknown(now, wanted, config(1), 2);
        swarm.set_metadata_allowance(now, MAX_METADATA_MEMORY);
        Self::new(swarm)
    }

    /// A peer that has introduced itself.
    fn peer(&mut self, metadata_size: Option<u32>) -> PeerKey {
        self.peers += 1;
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 1, self.peers), 6881));
        let reserved = Reserved::NONE.with_fast().with_extended();
        let new = NewPeer { address, outgoing: false, utp: false, id: PeerId([self.peers; 20]), reserved, v2: false };
        let key = self.swarm.handle_connected(self.now, new).unwrap();
        self.introduce(key, metadata_size);
        self.heard(key);
        key
    }

    fn introduce(&mut self, key: PeerKey, metadata_size: Option<u32>) {
        let handshake =
            ExtendedHandshake { m: ExtensionIds::ours(), metadata_size, ..ExtendedHandshake::default() }.encode();
        self.says(key, &Message::Extended { id: EXTENDED_HANDSHAKE_ID, payload: &handshake }).unwrap();
    }

    fn says(&mut self, key: PeerKey, message: &Message<'_>) -> Result<(), Misbehaved> {
        self.swarm.handle_message(self.now, key, message)
    }

    fn says_of_metadata(&mut self, key: PeerKey, message: &MetadataMessage<'_>) -> Result<(), Misbehaved> {
        let mut payload = Vec::new();
        message.encode_into(&mut payload);
        self.says(key, &Message::Extended { id: Extension::Metadata.our_id(), payload: &payload })
    }

    /// What is said to a peer now; as a connection does, which looks again once it has sent all.
    fn heard(&mut self, key: PeerKey) -> Vec<String> {
        let mut all = Vec::new();
        let mut decoder = Decoder::new(None);
        loop {
            let mut bytes = Vec::new();
            let outbox = self.swarm.outbox(key).unwrap();
            assert!(!outbox.is_overfull(), "{}", outbox.control_len());
            outbox.take_control(&mut bytes);
            if bytes.is_empty() {
                return all;
            }
            while !bytes.is_empty() {
                let n = decoder.feed(&bytes);
                bytes.drain(..n);
                while let Some(item) = decoder.next().unwrap() {
                    let Item::Message(message) = item else { panic!("{item:?}") };
                    all.push(match message {
                        Message::Extended { id: 0, .. } => "introduction".to_owned(),
                        Message::Extended { id: 1, payload } => match MetadataMessage::parse(payload).unwrap() {
                            MetadataMessage::Request { piece } => format!("request {piece}"),
                            MetadataMessage::Reject { piece } => format!("reject {piece}"),
                            MetadataMessage::Data { piece, payload, .. } => format!("data {piece} {}", payload.len()),
                            MetadataMessage::Unknown => "unknown".to_owned(),
                        },
                        Message::Hashes { hashes, .. } => format!("{} hashes", hashes.len() / 32),
                        Message::HashReject(_) => "hash reject".to_owned(),
                        other => format!("{other:?}"),
                    });
                }
            }
        }
    }

    fn closed(&mut self) -> Vec<(PeerKey, CloseReason)> {
        let actions = std::iter::from_fn(|| self.swarm.poll_action());
        let closed = actions.filter_map(|action| match action {
            Action::Close(key, reason) => Some((key, reason)),
            _ => None,
        });
        closed.collect()
    }
}

#[test]
fn e5_a_flood_of_requests() {
    let metainfo = large(false);
    let size = metainfo.info.raw().len();
    let pieces = u32::try_from(size.div_ceil(METADATA_PIECE_LEN as usize)).unwrap();
    let mut rig = Rig::seed(&metainfo);
    let peer = rig.peer(None);
    for n in 0..1_000 {
        rig.says_of_metadata(peer, &MetadataMessage::Request { piece: n % pieces }).unwrap();
    }
    let heard = rig.heard(peer);
    let given = heard.iter().filter(|said| said.starts_with("data")).count();
    let rejected = heard.iter().filter(|said| said.starts_with("reject")).count();
    assert_eq!((given, rejected), (2 * pieces as usize, 1_000 - 2 * pieces as usize));
    assert!(heard.contains(&format!("data {} {}", pieces - 1, size % METADATA_PIECE_LEN as usize)));
    // Beyond the last piece, and the first byte of an attack on arithmetic.
    let other = rig.peer(None);
    for piece in [pieces, u32::MAX] {
        rig.says_of_metadata(other, &MetadataMessage::Request { piece }).unwrap();
    }
    assert_eq!(rig.heard(other), [format!("reject {pieces}"), format!("reject {}", u32::MAX)]);
}

/// Of a long dictionary no more waits than the queue holds, and little of it in memory.
#[test]
fn e5_the_queue_is_bounded() {
    let name = "n".repeat(230);
    let files = (0..8_000).map(|n| SourceFile::new([format!("{name}{n:06}")], 16_384)).collect();
    let mut builder = Builder::folder("longest", files);
    builder.format = Format::V1;
    builder.piece_length = Some(1 << 20);
    let plan = builder.plan().unwrap();
    let hashes = vec![[1; 20]; plan.piece_count() as usize];
    let metainfo = Arc::new(Metainfo::parse(&plan.finish(&hashes, &[]).unwrap()).unwrap());
    assert!(metainfo.info.raw().len() > MAX_METADATA_QUEUE * METADATA_PIECE_LEN as usize * 3 / 2);
    let mut rig = Rig::seed(&metainfo);
    let peer = rig.peer(None);
    for piece in 0..100 {
        rig.says_of_metadata(peer, &MetadataMessage::Request { piece }).unwrap();
    }
    assert!(rig.swarm.outbox(peer).unwrap().control_len() < METADATA_AHEAD + 2 * METADATA_PIECE_LEN as usize);
    let heard = rig.heard(peer);
    assert_eq!(heard.iter().filter(|said| said.starts_with("data")).count(), MAX_METADATA_QUEUE);
    assert_eq!(heard.iter().filter(|said| said.starts_with("reject")).count(), 100 - MAX_METADATA_QUEUE);
}

#[test]
fn e5_before_we_have_it() {
    let mut rig = Rig::unknown(large(false).info.info_hash());
    let peer = rig.peer(None);
    for piece in 0..1_000 {
        rig.says_of_metadata(peer, &MetadataMessage::Request { piece }).unwrap();
    }
    let heard = rig.heard(peer);
    assert!(heard.len() == 1_000 && heard.iter().all(|said| said.starts_with("reject")));
}

/// E8: v2 messages before the metadata of what turns out to be v1.
#[test]
fn e8_hash_messages_before_the_metadata() {
    let metainfo = large(false);
    let mut rig = Rig::unknown(metainfo.info.info_hash());
    let peer = rig.peer(None);
    let request = HashRequest { pieces_root: [1; 32], base_layer: 0, index: 0, length: 2, proof_layers: 0 };
    for _ in 0..2 {
        rig.says(peer, &Message::HashRequest(request)).unwrap();
        rig.says(peer, &Message::Hashes { request, hashes: &[0; 64] }).unwrap();
        rig.says(peer, &Message::HashReject(request)).unwrap();
        assert_eq!(rig.heard(peer), ["hash reject"]);
        rig.swarm.set_metainfo(rig.now, metainfo.clone());
        rig.swarm.open(rig.now, &Bitfield::new(2_000), &[]);
        rig.heard(peer);
    }
    assert_eq!(rig.closed(), []);
}

#[test]
fn hash_requests_without_end() {
    let info = torrent(&[600], 0);
    let root = info.files()[0].pieces_root.unwrap();
    let mut rig = Rig::seed(&metainfo(info));
    let peer = rig.peer(None);
    let request = HashRequest { pieces_root: root, base_layer: 0, index: 0, length: 512, proof_layers: 9 };
    for _ in 0..100 {
        rig.says(peer, &Message::HashRequest(request)).unwrap();
    }
    let heard = rig.heard(peer);
    let given = heard.iter().filter(|said| *said == "513 hashes").count();
    assert!((15..=17).contains(&given) && heard.len() == 100, "{given} of {}", heard.len());
    let mut more = 0;
    for _ in 0..100 {
        rig.says(peer, &Message::HashRequest(request)).unwrap();
        more += rig.heard(peer).iter().filter(|said| *said == "513 hashes").count();
    }
    assert!(((given + more) * 512) as u64 <= 600 * HASHES_PER_PIECE + MORE_HASHES + 512);
}

/// W5: what was said early is judged when it can be.
#[test]
fn w5_bitfields_before_the_metadata() {
    let metainfo = large(false);
    let mut rig = Rig::unknown(metainfo.info.info_hash());
    let full = vec![0xff; 250];
    let cases: [(&[u8], bool); 4] = [(&full, true), (&full[1..], false), (&[0; 300], false), (&[], false)];
    let peers: Vec<(PeerKey, bool)> = cases
        .into_iter()
        .map(|(bytes, good)| {
            let key = rig.peer(None);
            rig.says(key, &Message::Bitfield(bytes)).unwrap();
            (key, good)
        })
        .collect();
    // Pieces that there are, that there are not, twice, and far too many.
    let have = rig.peer(None);
    for _ in 0..20 {
        for index in 0..2_000 {
            rig.says(have, &Message::Have(index)).unwrap();
        }
    }
    let beyond = rig.peer(None);
    rig.says(beyond, &Message::Have(2_000)).unwrap();
    let all = rig.peer(None);
    rig.says(all, &Message::Have(9_999)).unwrap();
    rig.says(all, &Message::HaveAll).unwrap();
    assert_eq!(rig.closed(), []);
    rig.swarm.set_metainfo(rig.now, metainfo);
    rig.swarm.open(rig.now, &Bitfield::new(2_000), &[]);
    let mut closed: Vec<PeerKey> = rig.closed().into_iter().map(|(key, _)| key).collect();
    let mut wrong: Vec<PeerKey> = peers.iter().filter(|(_, good)| !good).map(|(key, _)| *key).collect();
    wrong.push(beyond);
    closed.sort_unstable();
    wrong.sort_unstable();
    assert_eq!(closed, wrong);
    let totals = rig.swarm.totals(rig.now);
    assert_eq!((totals.seeds, totals.interesting), (3, 3));
}

/// Before there are pieces nobody gets any, and whoever sends some sends them in vain.
#[test]
fn nothing_is_exchanged_early() {
    let mut rig = Rig::unknown(large(false).info.info_hash());
    let peer = rig.peer(None);
    rig.says(peer, &Message::Interested).unwrap();
    rig.says(peer, &Message::Unchoke).unwrap();
    rig.says(peer, &Message::AllowedFast(3)).unwrap();
    for _ in 0..60 {
        rig.now += Duration::from_millis(500);
        rig.swarm.handle_timeout(rig.now);
    }
    assert!(rig.heard(peer).is_empty());
    for (index, begin, len) in [(0, 0, 16_384), (u32::MAX, u32::MAX, u32::MAX)] {
        rig.says(peer, &Message::Request { index, begin, len }).unwrap();
        let header = crate::wire::PieceHeader { index, begin, len: len.min(16_384) };
        assert!(matches!(rig.swarm.receive_into(rig.now, peer, header), Ok(crate::swarm::Receive::Discard)));
        assert!(rig.heard(peer)[0].starts_with("Reject"));
    }
    let flood = (0..1_000).find_map(|_| rig.says(peer, &Message::Request { index: 0, begin: 0, len: 1 }).err());
    assert_eq!(flood, Some(Misbehaved::InvalidRequests));
}

/// A peer that lied about the dictionary is closed, and does not come again.
#[test]
fn liars_are_banned() {
    let metainfo = large(false);
    let mut rig = Rig::unknown(metainfo.info.info_hash());
    let liar = rig.peer(Some(100));
    assert_eq!(
        rig.says_of_metadata(liar, &MetadataMessage::Data { piece: 0, total_size: None, payload: &[0; 100] }),
        Ok(())
    );
    assert_eq!(rig.closed(), [(liar, CloseReason::BadData)]);
    rig.swarm.handle_closed(rig.now, liar);
    let address = SocketAddr::from((Ipv4Addr::new(10, 0, 1, rig.peers), 6881));
    assert_eq!(rig.swarm.admits(address), Err(Refused::Banned));
}

/// Memory is asked for, and nothing is fetched before it is granted.
#[test]
fn memory_is_asked_for() {
    let now = Instant::now();
    let mut rig = Rig::new(Swarm::unknown(now, large(false).info.info_hash(), config(1), 2));
    let peer = rig.peer(Some(20_000));
    let wants = |rig: &mut Rig| {
        let actions = std::iter::from_fn(|| rig.swarm.poll_action());
        actions.filter_map(|a| if let Action::MetadataMemory(bytes) = a { Some(bytes) } else { None }).last()
    };
    assert_eq!(wants(&mut rig), Some(32_768));
    assert!(rig.heard(peer).is_empty());
    rig.swarm.set_metadata_allowance(rig.now, 32_768);
    assert_eq!(rig.heard(peer), ["request 0", "request 1"]);
    rig.swarm.handle_closed(rig.now, peer);
    // What was begun keeps its memory for a while, in case the next peer can complete it.
    for _ in 0..200 {
        rig.now += Duration::from_millis(500);
        rig.swarm.handle_timeout(rig.now);
    }
    assert_eq!(wants(&mut rig), Some(0));
}

#[test]
fn full_of_peers_that_do_not_have_it() {
    let now = Instant::now();
    let few = SwarmConfig { max_peers: 2, ..config(1) };
    let mut rig = Rig::new(Swarm::unknown(now, large(false).info.info_hash(), few, 2));
    let (useful, useless) = (rig.peer(Some(100_000)), rig.peer(None));
    rig.now += Duration::from_secs(31);
    rig.swarm.handle_timeout(rig.now);
    assert_eq!(rig.closed(), [(useless, CloseReason::Useless)]);
    assert!(rig.swarm.outbox(useful).is_some());
}

#[test]
fn a_geometry_without_pieces_is_no_torrent() {
    let unknown = Geometry::unknown();
    assert_eq!((unknown.piece_count(), unknown.pieces().count(), unknown.fetch_len()), (0, 0, 0));
    assert!(unknown.piece(0).is_err() && unknown.range(0, 0, 1).is_err());
}
