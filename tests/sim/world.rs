//! A pretend world: swarms on a virtual clock, joined by links with delay and rate. Everything follows from a seed.
//!
//! Control messages travel as bytes, through the real encoder and decoder. The payload of a block travels as one mark,
//! which says whether it was corrupted, so that gigabytes can be moved in seconds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use gannet::base::{BLOCK_LEN, Bitfield, Block, BlockBuf, Geometry, PeerId, PeerKey, PieceIndex};
use gannet::hash::keyed_digests;
use gannet::swarm::{
    Action, CloseReason, FetchOutcome, FullPiece, NewPeer, Receive, Source, Spill, Spilled, Swarm, SwarmConfig, Totals,
    Verdict,
};
use gannet::wire::{Decoder, Item, PieceHeader, Reserved};

use crate::web::{Request, Server};

/// How a node behaves beyond what its swarm decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Temper {
    Honest,
    /// Corrupts each block it sends with this probability.
    Corrupt(f64),
    /// Says it has things and never sends them.
    Silent,
    /// Disappears after this time.
    Vanishing(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeSpec {
    pub(crate) seed: bool,
    /// Bytes per second.
    pub(crate) up: u64,
    pub(crate) down: u64,
    /// After a pause so much of a second's worth leaves at once, as with a limit that is a token bucket.
    pub(crate) burst: Duration,
    pub(crate) temper: Temper,
    /// When it joins.
    pub(crate) joins: Duration,
}

impl NodeSpec {
    pub(crate) fn leecher(rate: u64) -> Self {
        Self {
            seed: false,
            up: rate,
            down: u64::MAX,
            burst: Duration::ZERO,
            temper: Temper::Honest,
            joins: Duration::ZERO,
        }
    }

    pub(crate) fn seeder(rate: u64) -> Self {
        Self { seed: true, ..Self::leecher(rate) }
    }

    pub(crate) fn burst(self, burst: Duration) -> Self {
        Self { burst, ..self }
    }

    pub(crate) fn temper(self, temper: Temper) -> Self {
        Self { temper, ..self }
    }
}

pub(crate) struct Node {
    pub(crate) spec: NodeSpec,
    /// Bytes that its blocks may take.
    block_memory: u64,
    pub(crate) swarm: Swarm,
    pub(crate) completed: Option<Duration>,
    /// Nodes it closed for bad data.
    pub(crate) convicted: Vec<usize>,
    address: SocketAddr,
    id: PeerId,
    links: BTreeMap<PeerKey, Link>,
    /// Whose turn it is on the uplink.
    turn: VecDeque<PeerKey>,
    uplink_busy: bool,
    downlink_free: Duration,
    /// The servers that it knows, by the numbers of its web seeds.
    pub(crate) web_seeds: Vec<usize>,
    pub(crate) requests: HashMap<PeerKey, Request>,
    /// Web seeds it has banned.
    pub(crate) banned: Vec<usize>,
    gone: bool,
    sent_bad: usize,
    /// The marks of blocks that were written before they were verified.
    disk: HashMap<(PieceIndex, u32), u8>,
    /// Blocks that were spilled, over all.
    pub(crate) spilled: usize,
    /// When the uplink has earned what it has sent: it may be ahead of that by a burst.
    uplink_owes: Duration,
}

/// One side of a connection.
struct Link {
    peer: usize,
    peer_key: PeerKey,
    decoder: Decoder,
    delay: Duration,
    in_turn: bool,
}

pub(crate) enum What {
    Join,
    Tick,
    Connect {
        to: SocketAddr,
    },
    /// Control bytes.
    Bytes {
        key: PeerKey,
        bytes: Vec<u8>,
    },
    /// The payload of one block has crossed the net, and waits for the downlink.
    Arrived {
        key: PeerKey,
        block: Block,
        corrupt: bool,
    },
    /// The payload of one block.
    Payload {
        key: PeerKey,
        block: Block,
        corrupt: bool,
    },
    /// A block has left the uplink.
    Sent {
        key: PeerKey,
        block: Block,
    },
    Verified {
        full: FullPiece,
    },
    Written {
        spill: Spill,
    },
    HashedStored {
        piece: PieceIndex,
    },
    Closed {
        key: PeerKey,
    },
    /// A web seed's answer has begun, or its next block is there.
    Fetched {
        key: PeerKey,
        number: u64,
        first: bool,
    },
    /// A fetch was told to end.
    GivenUp {
        key: PeerKey,
    },
    Vanish,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) servers: Vec<Server>,
    /// Requests to servers so far.
    pub(crate) requests_made: u64,
    pub(crate) now: Duration,
    base: Instant,
    geometry: Geometry,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: HashMap<u64, What>,
    next: u64,
    pub(crate) rng: fastrand::Rng,
    by_address: HashMap<SocketAddr, usize>,
    /// How many others each node hears of when it joins.
    pub(crate) acquaintances: usize,
    /// Who hears of them at all.
    pub(crate) told: Box<dyn Fn(usize) -> bool>,
    /// A digest of all that happened, in order.
    trace: DefaultHasher,
}

const INFO_HASH: [u8; 20] = [7; 20];
const MARK_GOOD: u8 = 1;
const MARK_BAD: u8 = 2;

impl World {
    pub(crate) fn new(geometry: Geometry, specs: &[NodeSpec], seed: u64) -> Self {
        Self::with_config(geometry, specs, seed, |config| config)
    }

    pub(crate) fn with_config(
        geometry: Geometry,
        specs: &[NodeSpec],
        seed: u64,
        change: impl Fn(SwarmConfig) -> SwarmConfig,
    ) -> Self {
        let base = Instant::now();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut nodes = Vec::new();
        let mut by_address = HashMap::new();
        for (i, spec) in specs.iter().enumerate() {
            let [_, _, a, b] = u32::try_from(i).unwrap().to_be_bytes();
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, 1)), 6881);
            by_address.insert(address, i);
            let mut entropy = [0; 12];
            rng.fill(&mut entropy);
            let id = PeerId::ours(entropy);
            let have =
                if spec.seed { Bitfield::full(geometry.piece_count()) } else { Bitfield::new(geometry.piece_count()) };
            let config = change(SwarmConfig {
                info_hash: INFO_HASH,
                peer_id: id,
                listen_port: Some(6881),
                dht_port: None,
                max_peers: 100,
                block_memory: 8 << 20,
                limit_up: Some(spec.up),
                sequential: false,
                super_seed: false,
                pex: true,
                holepunch: false,
                many_per_address: false,
            });
            let block_memory = config.block_memory.next_multiple_of(u64::from(BLOCK_LEN));
            let swarm = Swarm::new(base, geometry.clone(), &have, &[], config, rng.u64(..));
            nodes.push(Node {
                spec: *spec,
                block_memory,
                swarm,
                completed: spec.seed.then_some(Duration::ZERO),
                convicted: Vec::new(),
                address,
                id,
                links: BTreeMap::new(),
                turn: VecDeque::new(),
                uplink_busy: false,
                downlink_free: Duration::ZERO,
                web_seeds: Vec::new(),
                requests: HashMap::new(),
                banned: Vec::new(),
                gone: false,
                sent_bad: 0,
                disk: HashMap::new(),
                spilled: 0,
                uplink_owes: Duration::ZERO,
            });
        }
        let mut world = Self {
            nodes,
            servers: Vec::new(),
            requests_made: 0,
            now: Duration::ZERO,
            base,
            geometry,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            next: 0,
            rng,
            by_address,
            acquaintances: 200,
            told: Box::new(|_| true),
            trace: DefaultHasher::new(),
        };
        for i in 0..world.nodes.len() {
            let spec = world.nodes[i].spec;
            world.at(spec.joins, i, What::Join);
            if let Temper::Vanishing(when) = spec.temper {
                world.at(spec.joins + when, i, What::Vanish);
            }
        }
        world
    }

    pub(crate) fn at(&mut self, when: Duration, node: usize, what: What) {
        self.next += 1;
        self.queue.push(Reverse((when, self.next, node)));
        self.events.insert(self.next, what);
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// Runs until every honest leecher that stays is complete, or `limit` has passed. True if all are complete.
    pub(crate) fn run(&mut self, limit: Duration) -> bool {
        while let Some(Reverse((when, number, i))) = self.queue.pop() {
            if when > limit {
                // Time has not come to it yet.
                self.queue.push(Reverse((when, number, i)));
                return false;
            }
            self.now = when;
            let Some(what) = self.events.remove(&number) else { continue };
            if self.nodes[i].gone {
                continue;
            }
            (when, i, std::mem::discriminant(&what)).hash(&mut self.trace);
            self.happen(i, what);
            if self.nodes.iter().all(|n| n.completed.is_some() || n.gone || n.spec.temper != Temper::Honest) {
                return true;
            }
        }
        false
    }

    /// A number that differs when anything happened differently.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(crate) fn totals(&mut self, i: usize) -> Totals {
        let now = self.instant();
        self.nodes[i].swarm.totals(now)
    }

    /// Corrupt blocks that node `i` has sent.
    pub(crate) fn sent_bad(&self, i: usize) -> usize {
        self.nodes[i].sent_bad
    }

    fn happen(&mut self, i: usize, what: What) {
        let now = self.instant();
        match what {
            What::Join => {
                let others: Vec<SocketAddr> = self
                    .nodes
                    .iter()
                    .enumerate()
                    .filter(|(j, n)| *j != i && n.spec.joins <= self.now && !n.gone)
                    .map(|(_, n)| n.address)
                    .collect();
                if (self.told)(i) {
                    let known = self.rng.choose_multiple(others, self.acquaintances);
                    self.nodes[i].swarm.handle_candidates(now, Source::Tracker, &known);
                }
                self.at(self.now + Duration::from_millis(1), i, What::Tick);
            }
            What::Tick => {
                self.nodes[i].swarm.handle_timeout(now);
                let next = self.nodes[i].swarm.poll_timeout().saturating_duration_since(self.base);
                self.at(next.max(self.now + Duration::from_millis(1)), i, What::Tick);
            }
            What::Connect { to } => self.connect(i, to),
            What::Bytes { key, bytes } => self.receive(i, key, &bytes),
            What::Arrived { key, block, corrupt } => {
                let node = &mut self.nodes[i];
                node.downlink_free = node.downlink_free.max(self.now) + transfer(block.len(), node.spec.down);
                let through = node.downlink_free;
                return self.at(through, i, What::Payload { key, block, corrupt });
            }
            What::Payload { key, block, corrupt } => self.receive_payload(i, key, block, corrupt),
            What::Sent { key, block } => {
                let node = &mut self.nodes[i];
                node.uplink_busy = false;
                node.swarm.handle_sent(now, key, u64::from(block.len()));
            }
            What::Verified { full } => {
                let good = full.blocks.iter().all(|b| b.as_slice()[0] == MARK_GOOD);
                let verdict = if good { Verdict::Good } else { Verdict::Bad };
                self.nodes[i].swarm.handle_verdict(now, full.piece, &verdict, full.blocks);
            }
            What::Written { spill: Spill { piece, begin, blocks, digest_key } } => {
                let node = &mut self.nodes[i];
                let slices: Vec<&[u8]> = blocks.iter().map(BlockBuf::as_slice).collect();
                let marks = (begin / BLOCK_LEN..).zip(slices.iter().map(|bytes| bytes[0]));
                node.disk.extend(marks.map(|(number, mark)| ((piece, number), mark)));
                node.spilled += blocks.len();
                let outcome = Spilled::Written(keyed_digests(&digest_key, &slices));
                node.swarm.handle_spilled(now, piece, begin, &outcome, blocks);
            }
            What::HashedStored { piece } => {
                let node = &mut self.nodes[i];
                let mut numbers = 0..self.geometry.block_count(piece);
                let good = numbers.all(|number| node.disk[&(piece, number)] == MARK_GOOD);
                let verdict = if good { Verdict::Good } else { Verdict::Bad };
                node.swarm.handle_verdict(now, piece, &verdict, vec![]);
            }
            What::Closed { key } => self.drop_link(i, key),
            What::Fetched { key, number, first } => self.fetched(i, key, number, first),
            What::GivenUp { key } => self.end_fetch(i, key, &FetchOutcome::GivenUp),
            What::Vanish => {
                let keys: Vec<PeerKey> = self.nodes[i].links.keys().copied().collect();
                for key in keys {
                    self.close(i, key);
                }
                self.nodes[i].gone = true;
                return;
            }
        }
        self.settle(i);
        let node = &self.nodes[i];
        assert!(node.swarm.block_memory() <= node.block_memory);
    }

    fn connect(&mut self, i: usize, to: SocketAddr) {
        let now = self.instant();
        let found =
            self.by_address.get(&to).copied().filter(|j| !self.nodes[*j].gone && self.nodes[*j].spec.joins <= self.now);
        let Some(j) = found.filter(|j| self.nodes[*j].swarm.admits(self.nodes[i].address).is_ok()) else {
            return self.nodes[i].swarm.handle_dial_failed(now, to);
        };
        let reserved = Reserved::NONE.with_fast().with_extended();
        // An incoming connection comes from another port than the one it can be reached at.
        let from = SocketAddr::new(self.nodes[i].address.ip(), 40_000);
        let there = NewPeer { address: from, outgoing: false, utp: false, id: self.nodes[i].id, reserved, v2: false };
        let here = NewPeer { address: to, outgoing: true, utp: false, id: self.nodes[j].id, reserved, v2: false };
        let delay = Duration::from_micros(self.rng.u64(5_000..60_000));
        let (a, b) =
            (self.nodes[i].swarm.handle_connected(now, here), self.nodes[j].swarm.handle_connected(now, there));
        match (a, b) {
            (Ok(a), Ok(b)) => {
                let link = |peer, peer_key| Link { peer, peer_key, decoder: Decoder::new(None), delay, in_turn: false };
                self.nodes[i].links.insert(a, link(j, b));
                self.nodes[j].links.insert(b, link(i, a));
                self.flush(i, a);
                self.flush(j, b);
            }
            (Ok(a), Err(_)) => self.nodes[i].swarm.handle_closed(now, a),
            (Err(_), Ok(b)) => self.nodes[j].swarm.handle_closed(now, b),
            (Err(_), Err(_)) => {}
        }
        self.settle(j);
    }

    fn receive(&mut self, i: usize, key: PeerKey, bytes: &[u8]) {
        let now = self.instant();
        let node = &mut self.nodes[i];
        let Some(link) = node.links.get_mut(&key) else { return };
        link.decoder.set_piece_count(self.geometry.piece_count());
        let mut rest = bytes;
        let mut broken = false;
        while !rest.is_empty() && !broken {
            let taken = link.decoder.feed(rest);
            rest = &rest[taken..];
            loop {
                match link.decoder.next() {
                    Ok(None) => break,
                    Ok(Some(Item::Message(message))) => {
                        if node.swarm.handle_message(now, key, &message).is_err() {
                            broken = true;
                            break;
                        }
                    }
                    Ok(Some(_)) | Err(_) => unreachable!("payload does not travel as bytes here"),
                }
            }
        }
        if broken {
            self.close(i, key);
        } else {
            self.nodes[i].swarm.handle_turn(now, key);
            // The peer whose turn it is needs no wake.
            self.flush(i, key);
        }
    }

    fn receive_payload(&mut self, i: usize, key: PeerKey, block: Block, corrupt: bool) {
        let now = self.instant();
        let node = &mut self.nodes[i];
        if !node.links.contains_key(&key) {
            return;
        }
        let header = PieceHeader { index: block.piece().get(), begin: block.begin(), len: block.len() };
        if let Receive::Into(block, mut buf) = node.swarm.receive_into(now, key, header).expect("a real block") {
            mark(&mut buf, corrupt);
            node.swarm.handle_block(now, key, block, buf);
        }
        node.swarm.handle_turn(now, key);
        self.flush(i, key);
    }

    /// Carries out what node `i` has decided, and sends what it wants to send.
    pub(crate) fn settle(&mut self, i: usize) {
        while let Some(action) = self.nodes[i].swarm.poll_action() {
            match action {
                Action::Verify(full) => self.at(self.now + Duration::from_millis(1), i, What::Verified { full }),
                Action::DhtNode(_) => {}
                Action::Spill(spill) => {
                    // Several disk threads: not in the order in which they were asked.
                    let took = Duration::from_micros(self.rng.u64(500..20_000));
                    self.at(self.now + took, i, What::Written { spill });
                }
                Action::VerifyStored(piece) => {
                    self.at(self.now + Duration::from_millis(3), i, What::HashedStored { piece });
                }
                Action::Fetch(fetch) => self.begin_fetch(i, fetch),
                Action::WebSeedBanned(number) => {
                    let server = self.nodes[i].web_seeds[number as usize];
                    self.nodes[i].banned.push(server);
                }
                Action::Close(key, _) if self.nodes[i].requests.contains_key(&key) => {
                    self.at(self.now, i, What::GivenUp { key });
                }
                Action::Dial(to) => self.at(self.now + Duration::from_millis(30), i, What::Connect { to }),
                Action::Close(key, reason) => {
                    if reason == CloseReason::BadData
                        && let Some(link) = self.nodes[i].links.get(&key)
                    {
                        let peer = link.peer;
                        self.nodes[i].convicted.push(peer);
                    }
                    self.close(i, key);
                }
                // Nobody is behind a router.
                Action::Have(_) | Action::Punch(_) => {}
                // Of torrents that begin with an info-hash.
                Action::Metadata(_) | Action::NoSuchMetadata | Action::MetadataMemory(_) | Action::PieceLayers(_) => {}
                Action::Complete => self.nodes[i].completed = Some(self.now),
            }
        }
        while let Some(key) = self.nodes[i].swarm.poll_wake() {
            self.flush(i, key);
        }
        self.send_next(i);
    }

    /// Sends the control bytes at once, and puts the peer in line for the uplink.
    fn flush(&mut self, i: usize, key: PeerKey) {
        let node = &mut self.nodes[i];
        let Some(outbox) = node.swarm.outbox(key) else { return };
        let mut bytes = Vec::new();
        outbox.take_control(&mut bytes);
        let has_pieces = outbox.piece_count() > 0;
        let Some(link) = node.links.get_mut(&key) else { return };
        if has_pieces && !link.in_turn {
            link.in_turn = true;
            node.turn.push_back(key);
        }
        let (peer, peer_key, arrival) = (link.peer, link.peer_key, self.now + link.delay);
        if !bytes.is_empty() {
            self.at(arrival, peer, What::Bytes { key: peer_key, bytes });
        }
    }

    /// Gives the uplink to the next peer in line.
    fn send_next(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        if node.uplink_busy || node.spec.temper == Temper::Silent {
            return;
        }
        while let Some(key) = node.turn.pop_front() {
            let block = node.swarm.outbox(key).and_then(|outbox| outbox.next_piece());
            let Some(link) = node.links.get_mut(&key) else { continue };
            let Some(block) = block else {
                link.in_turn = false;
                continue;
            };
            node.turn.push_back(key);
            node.uplink_busy = true;
            let corrupt = matches!(node.spec.temper, Temper::Corrupt(p) if self.rng.f64() < p);
            let (peer, peer_key, delay) = (link.peer, link.peer_key, link.delay);
            node.uplink_owes = node.uplink_owes.max(self.now) + transfer(block.len(), node.spec.up);
            let leaves = node.uplink_owes.saturating_sub(node.spec.burst).max(self.now);
            node.sent_bad += usize::from(corrupt);
            self.at(leaves, i, What::Sent { key, block });
            self.at(leaves + delay, peer, What::Arrived { key: peer_key, block, corrupt });
            return;
        }
    }

    fn close(&mut self, i: usize, key: PeerKey) {
        if let Some(link) = self.nodes[i].links.get(&key) {
            let (peer, peer_key, when) = (link.peer, link.peer_key, self.now + link.delay);
            self.at(when, peer, What::Closed { key: peer_key });
        }
        self.drop_link(i, key);
    }

    fn drop_link(&mut self, i: usize, key: PeerKey) {
        let now = self.instant();
        let node = &mut self.nodes[i];
        if node.links.remove(&key).is_some() {
            node.turn.retain(|k| *k != key);
            node.swarm.handle_closed(now, key);
        }
    }
}

pub(crate) fn transfer(bytes: u32, rate: u64) -> Duration {
    if rate == u64::MAX { Duration::ZERO } else { Duration::from_nanos(u64::from(bytes) * 1_000_000_000 / rate) }
}

/// What a block says instead of its payload. Corruption differs from time to time, as it would.
pub(crate) fn mark(buf: &mut BlockBuf, corrupt: bool) {
    let bytes = buf.as_mut_slice();
    bytes.fill(0);
    bytes[0] = if corrupt { MARK_BAD } else { MARK_GOOD };
}
