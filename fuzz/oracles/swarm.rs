//! A swarm among peers that send whatever they like, through the decoder that stands before it: no more memory than there
//! may be, no answer to what may not be asked, every peer that is closed closed once; and what is asked of a magnet link's
//! peers makes the metadata or nothing.
//!
//! The input is a list of steps; most hand bytes to a peer's connection.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use gannet::Metainfo;
use gannet::base::{BLOCK_LEN, Bitfield, Block, PeerId, PeerKey};
use gannet::swarm::candidates::CAPACITY;
use gannet::swarm::{
    Action, FetchOutcome, FullPiece, NewPeer, Receive, Source, Spill, Spilled, Swarm, SwarmConfig, Verdict,
};
use gannet::wire::{CONTROL_CEILING, Decoder, Item, Message, PieceHeader, Reserved};

use super::tape::Tape;

const STEPS: usize = 200;
const PEERS: usize = 5;
const MEMORY: u64 = 12 * BLOCK_LEN as u64;

/// A hybrid with several files: it has everything that a torrent can have.
static TORRENT: LazyLock<Arc<Metainfo>> = LazyLock::new(|| {
    Arc::new(Metainfo::parse(include_bytes!("../../testdata/torrents/lt-hybrid-many.torrent")).unwrap())
});

struct Peer {
    decoder: Decoder,
    /// A block whose bytes are on their way.
    block: Option<Block>,
}

struct World {
    swarm: Swarm,
    now: Instant,
    peers: BTreeMap<PeerKey, Peer>,
    full: Vec<FullPiece>,
    spills: Vec<Spill>,
    stored: Vec<gannet::base::PieceIndex>,
    fetches: Vec<(PeerKey, Vec<Block>)>,
    dials: usize,
    /// The metainfo is known to the swarm.
    described: bool,
}

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let [kind, have, seed] = tape.array();
    let metainfo = &*TORRENT;
    let geometry = metainfo.info.geometry();
    let config = SwarmConfig {
        info_hash: metainfo.info.info_hash().wire(),
        peer_id: PeerId(*b"-GN0100-abcdefghijkl"),
        listen_port: Some(6881),
        dht_port: Some(6881),
        max_peers: PEERS,
        block_memory: MEMORY,
        limit_up: (kind & 4 != 0).then_some(100_000),
        sequential: kind & 8 != 0,
        super_seed: kind & 16 != 0,
        pex: kind & 32 == 0,
        holepunch: kind & 64 == 0,
        many_per_address: true,
    };
    let now = Instant::now();
    let unknown = kind & 1 != 0;
    let mut swarm = if unknown {
        Swarm::unknown(now, metainfo.info.info_hash(), config, seed.into())
    } else {
        let mut had = Bitfield::new(geometry.piece_count());
        for piece in geometry.pieces().filter(|piece| have.rotate_left(piece.get()) & 1 == 1 || have == 255) {
            had.set(piece);
        }
        Swarm::new(now, geometry.clone(), &had, &[], config, seed.into())
    };
    if kind & 2 != 0 && !unknown {
        swarm.set_metainfo(now, metainfo.clone());
    }
    let described = kind & 2 != 0 && !unknown;
    let (peers, full, spills, stored, fetches) = (BTreeMap::new(), vec![], vec![], vec![], vec![]);
    let mut world = World { swarm, now, peers, full, spills, stored, fetches, dials: 0, described };
    for _ in 0..STEPS {
        if tape.is_over() {
            break;
        }
        world.step(&mut tape);
        world.settle();
    }
    world.stop();
}

impl World {
    fn step(&mut self, tape: &mut Tape<'_>) {
        let now = self.now;
        match tape.byte() % 16 {
            0 => self.join(tape),
            1 => {
                if let Some(key) = self.peer(tape) {
                    self.close(key);
                }
            }
            2 => {
                self.now += Duration::from_millis(u64::from(tape.word()) * 3);
                self.swarm.handle_timeout(self.now);
            }
            3 => {
                let addresses: Vec<SocketAddr> = (0..tape.below(8)).map(|_| address(tape)).collect();
                let sources = [Source::Tracker, Source::Dht, Source::Lsd, Source::Magnet];
                self.swarm.handle_candidates(now, sources[tape.below(4)], &addresses);
            }
            4 => self.disk(tape),
            5 => {
                if tape.byte() < 64 {
                    self.swarm.add_web_seed(now);
                } else if let Some((key, blocks)) = self.fetches.pop() {
                    self.fetched(tape, key, &blocks);
                }
            }
            6 => self.send(tape),
            7 => {
                if self.dials > 0 {
                    self.dials -= 1;
                    self.swarm.handle_dial_failed(now, address(tape));
                }
            }
            _ => {
                let key = self.peer(tape);
                let len = usize::from(tape.word()) % 2_048;
                let bytes = tape.bytes(len);
                if let Some(key) = key {
                    self.receive(key, bytes);
                }
            }
        }
    }

    fn peer(&self, tape: &mut Tape<'_>) -> Option<PeerKey> {
        let at = tape.below(self.peers.len());
        self.peers.keys().nth(at).copied()
    }

    fn join(&mut self, tape: &mut Tape<'_>) {
        let [flags, id] = tape.array();
        let mut reserved = Reserved::NONE;
        for (bit, with) in [Reserved::with_fast, Reserved::with_extended, Reserved::with_dht].into_iter().enumerate() {
            if flags >> bit & 1 == 1 {
                reserved = with(reserved);
            }
        }
        let (address, outgoing, v2) = (address(tape), flags & 8 != 0 && self.dials > 0, flags & 16 != 0);
        self.dials -= usize::from(outgoing);
        let new = NewPeer { address, outgoing, id: PeerId([id; 20]), reserved, v2, utp: id & 1 == 0 };
        if let Ok(key) = self.swarm.handle_connected(self.now, new) {
            // As long as a bitfield may be for any torrent, or for this one.
            let pieces = (flags & 32 != 0).then(|| TORRENT.info.geometry().piece_count());
            assert!(self.peers.insert(key, Peer { decoder: Decoder::new(pieces), block: None }).is_none());
            assert!(self.peers.len() <= PEERS);
        } else if outgoing {
            self.swarm.handle_dial_failed(self.now, address);
        }
    }

    /// As a connection does: all that a read brought.
    fn receive(&mut self, key: PeerKey, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(peer) = self.peers.get_mut(&key) else { return };
            let reach = peer.decoder.reach();
            self.swarm.look_ahead(key, &mut peer.decoder, reach);
            bytes = &bytes[peer.decoder.feed(bytes)..];
            loop {
                let Some(peer) = self.peers.get_mut(&key) else { return };
                let outcome = match peer.decoder.next() {
                    Ok(None) => break,
                    Ok(Some(Item::Message(message))) => self.swarm.handle_message(self.now, key, &message).is_ok(),
                    Ok(Some(Item::PieceHeader(header))) => match self.swarm.receive_into(self.now, key, header) {
                        Ok(Receive::Into(block, buf)) => {
                            assert_eq!(PieceHeader::from(block), header, "another place than was said");
                            peer.block = Some(block);
                            if let Err(buf) = peer.decoder.receive(buf) {
                                panic!("a buffer of {} bytes", buf.len());
                            }
                            true
                        }
                        Ok(Receive::Discard) => {
                            peer.decoder.discard();
                            true
                        }
                        Err(_) => false,
                    },
                    Ok(Some(Item::Body(buf))) => {
                        let block = peer.block.take().expect("a body without a header");
                        self.swarm.handle_block(self.now, key, block, buf);
                        true
                    }
                    Err(_) => false,
                };
                if !outcome {
                    return self.close(key);
                }
            }
        }
        self.swarm.handle_turn(self.now, key);
    }

    fn close(&mut self, key: PeerKey) {
        let Some(mut peer) = self.peers.remove(&key) else { return };
        peer.decoder.reset_expected();
        let spare = std::iter::from_fn(|| peer.decoder.take_spare()).collect::<Vec<_>>();
        for buf in spare.into_iter().chain(peer.decoder.take_buf()) {
            self.swarm.handle_unused(key, buf);
        }
        self.swarm.handle_closed(self.now, key);
    }

    /// A disk thread ends with something.
    fn disk(&mut self, tape: &mut Tape<'_>) {
        let verdict = match tape.below(3) {
            0 => Verdict::Good,
            1 => Verdict::Bad,
            _ => Verdict::DiskFailed,
        };
        if let Some(FullPiece { piece, blocks }) = self.full.pop() {
            assert_eq!(blocks.len(), TORRENT.info.geometry().block_count(piece) as usize);
            self.swarm.handle_verdict(self.now, piece, &verdict, blocks);
        } else if let Some(Spill { piece, begin, blocks, .. }) = self.spills.pop() {
            let written = matches!(verdict, Verdict::Good).then(|| Spilled::Written(vec![7; blocks.len()]));
            self.swarm.handle_spilled(self.now, piece, begin, &written.unwrap_or(Spilled::DiskFailed), blocks);
        } else if let Some(piece) = self.stored.pop() {
            self.swarm.handle_verdict(self.now, piece, &verdict, vec![]);
        }
    }

    fn fetched(&mut self, tape: &mut Tape<'_>, key: PeerKey, blocks: &[Block]) {
        let come = &blocks[..tape.below(blocks.len() + 1).min(blocks.len())];
        let mut lent = Vec::new();
        self.swarm.lend(key, come, &mut lent);
        for (block, buf) in lent {
            if let Some(buf) = buf {
                self.swarm.handle_fetched(self.now, key, block, buf);
            }
        }
        let outcomes = [
            FetchOutcome::Done,
            FetchOutcome::Busy(None),
            FetchOutcome::Busy(Some(Duration::from_secs(u64::MAX))),
            FetchOutcome::Failed,
            FetchOutcome::Lacks(0..u32::from(tape.byte())),
            FetchOutcome::GivenUp,
        ];
        self.swarm.handle_fetch_ended(self.now, key, &outcomes[tape.below(outcomes.len())], []);
    }

    /// The connection can send: control messages, and blocks that were asked for.
    fn send(&mut self, tape: &mut Tape<'_>) {
        let Some(key) = self.peer(tape) else { return };
        let have = self.swarm.have().clone();
        let Some(outbox) = self.swarm.outbox(key) else { return };
        let mut control = Vec::new();
        outbox.take_control(&mut control);
        let blocks: Vec<Block> = std::iter::from_fn(|| outbox.next_piece()).take(tape.below(5)).collect();
        assert!(blocks.iter().all(|block| have.has(block.piece()) && block.len() <= BLOCK_LEN), "what we do not have");
        self.read(&control);
        let (sent, unsent) = blocks.split_at(tape.below(blocks.len() + 1).min(blocks.len()));
        for block in sent {
            self.swarm.handle_sent(self.now, key, u64::from(block.len()));
        }
        self.swarm.handle_unsent(key, unsent);
    }

    /// What is sent can be understood, and asks for what there is.
    fn read(&self, control: &[u8]) {
        let geometry = TORRENT.info.geometry();
        let mut decoder = Decoder::new(None);
        let mut rest = control;
        while !rest.is_empty() {
            rest = &rest[decoder.feed(rest)..];
            while let Some(item) = decoder.next().expect("what we send is sound") {
                let Item::Message(message) = item else { panic!("{item:?}") };
                if let Message::Request { index, begin, len } = message {
                    assert!(geometry.whole_block(index, begin, len).is_ok());
                }
            }
        }
    }

    fn settle(&mut self) {
        while let Some(action) = self.swarm.poll_action() {
            match action {
                Action::Verify(full) => self.full.push(full),
                Action::Spill(spill) => self.spills.push(spill),
                Action::VerifyStored(piece) => self.stored.push(piece),
                Action::Dial(address) => {
                    assert!(address.port() != 0 && !address.ip().is_unspecified());
                    self.dials += 1;
                }
                Action::Fetch(fetch) => self.fetches.push((fetch.key, fetch.blocks)),
                Action::Close(key, _) => match self.fetches.iter().position(|fetch| fetch.0 == key) {
                    Some(at) => {
                        self.fetches.swap_remove(at);
                        self.swarm.handle_fetch_ended(self.now, key, &FetchOutcome::GivenUp, []);
                    }
                    None => self.close(key),
                },
                Action::Metadata(raw) => {
                    assert_eq!(raw, TORRENT.info.raw(), "another torrent");
                    self.swarm.set_metainfo(self.now, TORRENT.clone());
                    self.described = true;
                    let none = Bitfield::new(TORRENT.info.geometry().piece_count());
                    self.swarm.open(self.now, &none, &[]);
                }
                Action::MetadataMemory(bytes) => self.swarm.set_metadata_allowance(self.now, bytes.min(1 << 20)),
                Action::NoSuchMetadata => panic!("there is only one torrent"),
                Action::PieceLayers(layers) => assert!(!layers.is_empty()),
                _ => {}
            }
        }
        while let Some(key) = self.swarm.poll_wake() {
            self.swarm.handle_turn(self.now, key);
            if self.swarm.outbox(key).is_some_and(|outbox| outbox.control_len() > 2 * CONTROL_CEILING) {
                panic!("what waits to be sent grows");
            }
        }
        assert!(self.swarm.block_memory() <= MEMORY);
        let totals = self.swarm.totals(self.now);
        assert_eq!(totals.peers as usize, self.peers.len());
        assert!(totals.candidates as usize <= CAPACITY);
        assert!(self.swarm.poll_timeout() > self.now - Duration::from_secs(1_000));
    }

    /// Everybody leaves, the disk is done: nothing is kept that somebody lent.
    fn stop(&mut self) {
        for _ in 0..64 {
            self.disk(&mut Tape(&[0]));
            self.settle();
        }
        self.swarm.stop();
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            self.close(key);
        }
        while let Some((key, _)) = self.fetches.pop() {
            self.swarm.handle_fetch_ended(self.now, key, &FetchOutcome::GivenUp, []);
        }
        self.settle();
        assert_eq!(self.swarm.totals(self.now).peers, 0);
    }
}

/// Somebody anywhere; a few of them again and again.
fn address(tape: &mut Tape<'_>) -> SocketAddr {
    let [kind, a, b] = tape.array();
    let port = [6881, 0, 22, 65_535][usize::from(kind >> 6)];
    match kind % 4 {
        0 => (Ipv4Addr::new(93, 184, a & 3, b & 3), 6881).into(),
        1 => (Ipv4Addr::new(a, b, a, b), port).into(),
        2 => (Ipv6Addr::new(0x2600, a.into(), 0, 0, 0, 0, 0, b.into()), port).into(),
        _ => (Ipv4Addr::new(127, 0, 0, 1), port).into(),
    }
}
