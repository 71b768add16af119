//! L2: every decision about one torrent.
//!
//! For: who to connect to, what to ask for, whom to serve, whom to blame.
//! Must not know: sockets, files, threads, trackers, the clock, randomness; `now` and `seed` are passed in.
//! Main type: [`Swarm`]. BEPs: 3, 6, 9, 10, 11, 16, 17, 19, 21, 27, 40, 52 (hashes of
//! pieces), 54.
//!
//! What happened goes in by `handle_*`; what to do comes out by [`Swarm::poll_action`], [`Swarm::poll_wake`] and
//! [`Swarm::poll_timeout`]. `impl Swarm` is spread over files by what it deals with:
//!
//! | file | deals with |
//! |---|---|
//! | `connect` | connections that come and go, whom to dial |
//! | `receive` | messages: what peers have, want and can do |
//! | `download` | asking for blocks, taking them, verdicts about pieces |
//! | `early` | a torrent of which only the info-hash is known, and what peers say meanwhile |
//! | `describe` | pieces of the info dictionary and hashes of pieces, asked for and given |
//! | `ahead` | laying reads out for the blocks to come |
//! | `fetch` | what is fetched from web seeds |
//! | `disk` | a disk that fails, pieces that were lost |
//! | `memory` | how many blocks may be asked for, what is written early to make room |
//! | `rebalance` | moving requests from long queues to idle peers |
//! | `upload` | their requests, who is choked |
//! | `pex`, `holepunch` | peers that we tell each other of, and introduce to each other |
//! | `tick` | all that happens because time passes |
//! | `look` | counters for display |
//!
//! The policies stand apart, as functions and machines of plain data: [`Picker`], [`choker`], [`requests`],
//! [`candidates`], [`ip_filter`], [`blame`], [`super_seed`], [`suggest`], [`allowed_fast`], [`metadata`],
//! [`hash_picker`], [`hash_trees`], [`web_seed`].

pub mod address_filter;
mod ahead;
pub mod allowed_fast;
pub mod bans;
pub mod blame;
pub mod candidates;
pub mod choker;
mod connect;
mod describe;
mod disk;
mod download;
mod early;
mod fetch;
pub mod hash_picker;
pub mod hash_trees;
mod holepunch;
pub mod ip_filter;
mod look;
mod memory;
pub mod metadata;
mod partial;
mod peer;
pub mod peer_priority;
mod pex;
pub mod picker;
mod rebalance;
mod receive;
pub mod requests;
pub mod suggest;
pub mod super_seed;
mod tick;
mod upload;
pub mod upload_slots;
pub mod web_seed;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use candidates::CandidatesConfig;
pub use candidates::Source;
pub use connect::Refused;
pub use download::{Receive, Verdict};
pub use ip_filter::IpFilter;
pub use look::{PeerSummary, Totals};
pub use memory::Spilled;
pub use metadata::MetadataProgress;
pub use partial::{FullPiece, Spill};
pub use peer::NewPeer;
pub use picker::{Picker, Priority};
pub use web_seed::{Fetch, FetchOutcome, WebSeedSummary};

use crate::base::{Bitfield, BlockPool, Geometry, PeerId, PeerKey, PieceIndex, Slab};
use crate::metainfo::Metainfo;
use crate::wire::Outbox;

/// Ports at which the internet finds us, where a router has made others of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutsidePorts {
    /// Of [`SwarmConfig::listen_port`].
    pub listen: Option<u16>,
    /// Of [`SwarmConfig::dht_port`].
    pub dht: Option<u16>,
}

/// What a swarm is told once.
#[derive(Clone, Debug)]
pub struct SwarmConfig {
    /// The 20 bytes that name the torrent in handshakes; seeds the allowed-fast sets.
    pub info_hash: [u8; 20],
    /// Our own id, so that we do not talk to ourselves.
    pub peer_id: PeerId,
    /// Our listening port, told to peers.
    pub listen_port: Option<u16>,
    /// The port of our DHT node, told to peers that have one; none without a node, and for private torrents.
    pub dht_port: Option<u16>,
    /// Connections, at most.
    pub max_peers: usize,
    /// Bytes of blocks that may wait for their piece to be complete, verified and written; rounded up to whole blocks,
    /// and never exceeded. Blocks of pieces that do not fit are written before they are verified.
    pub block_memory: u64,
    /// Bytes per second that may be sent, if limited: the number of unchoked peers follows from it.
    pub limit_up: Option<u64>,
    /// Pieces in order instead of rarest first.
    pub sequential: bool,
    /// BEP 16.
    pub super_seed: bool,
    /// Peers may be told of others and tell us (BEP 11). Never for a private torrent (BEP 27).
    pub pex: bool,
    /// Peers that cannot be dialled are met by introduction, by uTP (BEP 55). Never for a private torrent.
    pub holepunch: bool,
    /// Several connections from one address, not only from loopback.
    pub many_per_address: bool,
}

/// Something to be done about the swarm's decisions.
#[derive(Debug)]
pub enum Action {
    /// Hash the piece, write it if it is right, and report by [`Swarm::handle_verdict`].
    Verify(FullPiece),
    /// Write blocks of a piece that is not whole, in no order with others, and report by [`Swarm::handle_spilled`].
    Spill(Spill),
    /// Hash a piece all of whose blocks were spilled, from the disk, and report by [`Swarm::handle_verdict`].
    VerifyStored(PieceIndex),
    /// Connect to this address, and report by [`Swarm::handle_connected`] or [`Swarm::handle_dial_failed`].
    Dial(SocketAddr),
    /// Connect to this address by uTP, which does the same now (BEP 55), and report by [`Swarm::handle_connected`] or
    /// [`Swarm::handle_punch_failed`].
    Punch(SocketAddr),
    /// A peer runs a node of the DHT at this address (BEP 5).
    DhtNode(SocketAddr),
    /// Fetch this from a web seed, and report by [`Swarm::handle_fetched`] and [`Swarm::handle_fetch_ended`].
    Fetch(Fetch),
    /// A web seed sent bad data, and is not asked again: news for whoever watches.
    WebSeedBanned(u32),
    /// Close the connection, and report by [`Swarm::handle_closed`]; or end the fetch that has this key, and report by
    /// [`Swarm::handle_fetch_ended`].
    Close(PeerKey, CloseReason),
    /// A piece was verified and written: news for whoever watches.
    Have(PieceIndex),
    /// All that is wanted is there.
    Complete,
    /// The info dictionary, as its info-hash names it. If it is sound: [`Swarm::set_metainfo`].
    Metadata(Vec<u8>),
    /// The two info-hashes that were given name different torrents: there is no such metadata.
    NoSuchMetadata,
    /// So many bytes would be of use for fetching the info dictionary: [`Swarm::set_metadata_allowance`].
    MetadataMemory(u64),
    /// The piece layers that the metainfo lacks, by number of file. Once it has them: [`Swarm::set_metainfo`].
    PieceLayers(Vec<(usize, Vec<[u8; 32]>)>),
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// It broke the protocol, or sent what cannot be.
    #[error("{0}")]
    Misbehaved(#[from] Misbehaved),
    /// It sent data that does not hash.
    #[error("sent bad data")]
    BadData,
    /// It has been silent for two minutes.
    #[error("silent")]
    Silent,
    /// It was asked and did not deliver for a minute.
    #[error("does not deliver")]
    Stalled,
    /// It does not read what we send.
    #[error("does not read")]
    NotReading,
    /// Neither side has anything for the other.
    #[error("no use to each other")]
    Useless,
    /// A file was cut while a block of it was on its way: the frame cannot be finished.
    #[error("a file was cut while it was sent")]
    Cut,
    /// The other side closed, or the network did.
    #[error("connection lost")]
    Lost,
    /// A second connection to the same peer.
    #[error("connected twice")]
    Duplicate,
    /// The torrent is private, and the peer was not found by its trackers.
    #[error("not of the private torrent")]
    Private,
    /// Its address is on the IP filter now.
    #[error("on the IP filter")]
    Filtered,
    /// Others have sent by now what it was asked for.
    #[error("not needed any more")]
    NotNeeded,
    /// The torrent stops.
    #[error("stopping")]
    Stopping,
}

/// What a peer did that it may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misbehaved {
    /// Bytes that are no message.
    #[error("sent bytes that are no message")]
    Malformed,
    /// Numbers that name no place in the torrent.
    #[error("named a place outside the torrent")]
    Geometry,
    /// A bitfield of the wrong size or with spare bits.
    #[error("sent a malformed bitfield")]
    Bitfield,
    /// A message of the fast extension that was not agreed on.
    #[error("used the fast extension without leave")]
    NotFast,
    /// Too many requests that it may not make.
    #[error("kept asking for what it cannot have")]
    InvalidRequests,
    /// More requests than any queue holds.
    #[error("asked for too much at once")]
    TooManyRequests,
    /// Changed its mind about interest, choking or what it has a hundred times in a second.
    #[error("flooded us with changes of mind")]
    Flood,
    /// Told us of other peers several times a minute.
    #[error("flooded us with addresses")]
    PexFlood,
    /// An extension message that is no bencoded dictionary.
    #[error("sent a malformed extension message")]
    Extension,
}

/// The brain of one torrent: see the [module](self).
#[derive(Debug)]
pub struct Swarm {
    config: SwarmConfig,
    /// By family, IPv4 first.
    outside: [OutsidePorts; 2],
    geometry: Geometry,
    pool: BlockPool,
    picker: Picker,
    peers: Slab<peer::Peer>,
    candidates: candidates::Candidates,
    contacts: pex::Contacts,
    introductions: holepunch::Introductions,
    choker: choker::Choker,
    slots: upload_slots::UploadSlots,
    blame: blame::Blame,
    super_seed: Option<super_seed::SuperSeed>,
    /// Of a seeder that hides nothing.
    suggestions: Option<suggest::Suggestions>,
    /// Pieces of which some blocks are here.
    partials: FxHashMap<PieceIndex, partial::PartialPiece>,
    /// Pieces at the disk threads to be hashed, and who sent which of their blocks.
    verifying: FxHashMap<PieceIndex, partial::Origins>,
    /// Blocks that the disk threads have, to be verified or only to be written.
    at_disk: usize,
    /// Blocks whose bytes are on their way into a buffer of the pool.
    receiving: usize,
    actions: VecDeque<Action>,
    wakes: Vec<PeerKey>,
    /// Reused by [`Picker::pick`].
    picked: Vec<crate::base::Block>,
    /// Buffers that connections hold for blocks to come.
    lent_ahead: usize,
    /// Somebody could ask for more if there were more buffers.
    starved: bool,
    /// Where the next round through all peers begins.
    first_refilled: usize,
    /// Connections being opened.
    dialling: usize,
    /// No new connections and no new requests.
    stopping: bool,
    /// No new requests, because the disk takes nothing.
    paused: bool,
    completed: bool,
    totals: look::Counters,
    next_tick: Instant,
    next_choke: Instant,
    stage: Stage,
    /// What peers are told about the torrent if they ask.
    metainfo: Option<Arc<Metainfo>>,
    trees: hash_trees::HashTrees,
    /// Hashes of pieces that have to be asked of peers.
    hashes: Option<hash_picker::HashPicker>,
    /// What [`Action::MetadataMemory`] last asked for.
    memory_wanted: u64,
    /// Peers were told that they may tell us of others, before it was known that the torrent is private.
    withdrawn: bool,
    seed: u64,
    web_seeds: web_seed::WebSeeds,
}

/// How much of the torrent is known.
#[derive(Debug)]
enum Stage {
    /// Its info-hash; the info dictionary is asked of peers.
    Metadata(metadata::MetadataFetch),
    /// Its info dictionary. Its files are not open, and hashes of its pieces may be missing.
    Described,
    /// All: pieces go back and forth.
    Open,
}

impl Swarm {
    /// A swarm nobody has joined yet.
    ///
    /// `have` is what is on disk and verified; `priorities` holds one entry per piece, or is empty if every piece is
    /// wanted alike. The same `seed` and the same calls give the same decisions.
    pub fn new(
        now: Instant,
        geometry: Geometry,
        have: &Bitfield,
        priorities: &[Priority],
        config: SwarmConfig,
        seed: u64,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut picker = Picker::new(geometry.clone(), have, rng.u64(..));
        picker.set_sequential(config.sequential);
        picker.set_priorities(priorities);
        let completed = picker.is_complete();
        let super_seed =
            (config.super_seed && have.is_full()).then(|| super_seed::SuperSeed::new(&geometry, rng.u64(..)));
        let count = geometry.piece_count();
        let suggestions =
            (have.is_full() && super_seed.is_none()).then(|| suggest::Suggestions::new(count, rng.u32(..count.max(1))));
        Self {
            pool: BlockPool::new(config.block_memory),
            peers: Slab::default(),
            candidates: candidates::Candidates::new(
                CandidatesConfig { shared_ips: config.many_per_address, ..CandidatesConfig::default() },
                rng.u64(..),
            ),
            contacts: pex::Contacts::default(),
            introductions: holepunch::Introductions::default(),
            choker: choker::Choker::new(geometry.piece_length(), rng.u64(..)),
            slots: upload_slots::UploadSlots::new(now),
            blame: blame::Blame::new(rng.u128(..).to_le_bytes()),
            suggestions,
            super_seed,
            partials: FxHashMap::default(),
            verifying: FxHashMap::default(),
            at_disk: 0,
            receiving: 0,
            actions: VecDeque::new(),
            wakes: Vec::new(),
            picked: Vec::new(),
            lent_ahead: 0,
            starved: false,
            first_refilled: 0,
            dialling: 0,
            stopping: false,
            paused: false,
            completed,
            totals: look::Counters::new(now),
            next_tick: now + tick::TICK,
            next_choke: now + choker::ROUND,
            picker,
            geometry,
            outside: Default::default(),
            config,
            stage: Stage::Open,
            metainfo: None,
            trees: hash_trees::HashTrees::default(),
            hashes: None,
            memory_wanted: 0,
            withdrawn: false,
            seed: rng.u64(..),
            web_seeds: web_seed::WebSeeds::new(rng.u64(..)),
        }
    }

    /// The next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next peer whose outbox has something new, put there while dealing with another. Each is named once until
    /// its outbox is looked at.
    pub fn poll_wake(&mut self) -> Option<PeerKey> {
        while let Some(key) = self.wakes.pop() {
            if self.peers.at(key).is_some_and(|peer| peer.waking) {
                return Some(key);
            }
        }
        None
    }

    /// When [`Swarm::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Instant {
        self.next_tick
    }

    /// What waits to be sent to a peer. The caller takes what it can send; nothing if the peer is gone.
    pub fn outbox(&mut self, key: PeerKey) -> Option<&mut Outbox> {
        let peer = self.peers.at_mut(key)?;
        peer.waking = false;
        if !peer.metadata_asked.is_empty() {
            self.give_metadata(key);
        }
        self.peers.at_mut(key).map(|peer| &mut peer.outbox)
    }

    /// How the torrent divides.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What is verified and on disk.
    pub fn have(&self) -> &Bitfield {
        self.picker.have()
    }

    /// Whether all that is wanted is there.
    pub fn is_complete(&self) -> bool {
        self.is_open() && self.picker.is_complete()
    }

    /// Asks for nothing more and connects to nobody: the torrent is about to stop. All connections are closed.
    pub fn stop(&mut self) {
        self.stopping = true;
        for key in self.peers.keys() {
            self.close(key, CloseReason::Stopping);
        }
        self.close_fetches(CloseReason::Stopping);
    }

    fn close(&mut self, key: PeerKey, reason: CloseReason) {
        self.actions.push_back(Action::Close(key, reason));
    }

    /// Sees to it that what was put into a peer's outbox is sent soon.
    fn wake(wakes: &mut Vec<PeerKey>, key: PeerKey, peer: &mut peer::Peer) {
        if !peer.waking {
            peer.waking = true;
            wakes.push(key);
        }
    }
}
