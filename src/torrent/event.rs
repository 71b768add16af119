use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Failure;
use crate::base::InfoHash;
use crate::metainfo::Metainfo;
pub use crate::swarm::MetadataProgress;

/// Where a torrent is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Asking peers what the torrent is: only its info-hash is known.
    Metadata,
    /// Hashing what lies on disk.
    Checking,
    /// Fetching what is wanted.
    Downloading,
    /// All that is wanted is there and verified.
    Seeding,
    /// The disk takes or gives nothing, as [`Status::cause`] tells. What is there is seeded, and it goes on by itself.
    DiskError,
    /// Given up because of an error, which [`Status::cause`] tells.
    Failed,
    /// Asked to stop.
    Stopped,
}

/// A torrent at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// Why it is not moving, in words, when that is known ("no peers yet", "choked by all 3 peers").
    pub cause: Option<String>,
    /// Bytes per second of payload, in.
    pub down_rate: u64,
    /// Bytes per second of payload, out.
    pub up_rate: u64,
    /// Payload bytes received in this run.
    pub downloaded: u64,
    /// Payload bytes sent in this run.
    pub uploaded: u64,
    /// Payload bytes received twice, or thrown away because they were wrong.
    pub wasted: u64,
    /// Bytes of wanted data that are there and verified.
    pub have_bytes: u64,
    /// Bytes of wanted data.
    pub wanted_bytes: u64,
    /// Verified pieces.
    pub have_pieces: u32,
    /// All pieces.
    pub piece_count: u32,
    /// While checking: bytes looked at so far, of `wanted_bytes`.
    pub checked_bytes: u64,
    /// Connected peers.
    pub peers: u32,
    /// Those of them that have everything.
    pub seeds: u32,
    /// Addresses known and not connected.
    pub candidates: u32,
    /// Nodes that the DHT node knows; none if the torrent does not use the DHT.
    pub dht_nodes: Option<usize>,
    /// How far the metadata has come, while it is asked of peers.
    pub metadata: Option<MetadataProgress>,
    /// Answers about hashes of pieces that are here, and all, while they are asked of peers (BEP 52).
    pub hashes: Option<(u32, u32)>,
    /// Web seeds that are of use now.
    pub web_seeds: u32,
    /// Until all that is wanted is there, at the present rate.
    pub eta: Option<Duration>,
    /// Uploaded through wanted size.
    pub ratio: f64,
}

/// What one tracker last said.
#[derive(Clone, Debug)]
pub struct TrackerReport {
    /// Scheme, host and port; never the path or query, which may hold a passkey.
    pub tracker: String,
    /// Addresses in its answer, or what went wrong.
    pub outcome: Result<usize, String>,
    /// Seeders it counts.
    pub seeders: Option<u32>,
    /// Leechers it counts.
    pub leechers: Option<u32>,
    /// When it is asked again.
    pub next: Duration,
}

/// How it goes with a web seed.
#[derive(Clone, Debug)]
pub struct WebSeedReport {
    /// Scheme, host and port; never the path or query, which may hold a passkey.
    pub web_seed: String,
    /// What it does.
    pub state: WebSeedState,
    /// Why it does not serve, in words.
    pub reason: Option<String>,
    /// When it is asked again, if it is left alone for a while.
    pub retry: Option<Duration>,
}

/// What a web seed does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebSeedState {
    /// It sends what it is asked for.
    Serving,
    /// It does not have a file: it is asked for others.
    Lacking,
    /// It does not answer, or not sensibly: it is left alone for a while.
    Failed,
    /// It sent bad data: it is not asked again.
    Banned,
}

/// Something that happened to a torrent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// It was added to the session.
    Added {
        /// Its identity.
        info_hash: InfoHash,
        /// Its name, as in the torrent.
        name: String,
    },
    /// A piece was verified and written.
    Piece {
        /// Its number.
        piece: u32,
    },
    /// A wanted file is whole.
    File {
        /// Path as written to disk, below the download folder.
        path: PathBuf,
    },
    /// A peer came.
    PeerConnected {
        /// Its address.
        address: SocketAddr,
        /// What it calls itself, made safe to print.
        client: String,
        /// Whether the connection is encrypted.
        encrypted: bool,
        /// Whether uTP carries it; else it is TCP.
        utp: bool,
    },
    /// A peer went.
    PeerClosed {
        /// Its address.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A tracker answered, or did not.
    Tracker(TrackerReport),
    /// The DHT was searched.
    Dht {
        /// Nodes that answered.
        answered: usize,
        /// Peers that they named.
        peers: usize,
        /// Nodes that have noted us down as a peer.
        announced: usize,
    },
    /// A web seed began to serve, or ceased to.
    WebSeed(WebSeedReport),
    /// Something is wrong that does not end the torrent.
    Warning {
        /// One line.
        message: String,
    },
    /// The disk failed. Told once, until it works again.
    DiskError(Failure),
    /// The disk works again.
    DiskMended,
    /// All that is wanted is there and verified.
    Complete,
    /// It is seeding.
    Seeding,
    /// What the torrent is has come from peers, or from an earlier run.
    Metadata(Arc<Metainfo>),
    /// The hashes of its pieces that its metadata lacked have come from peers: now it could be a `.torrent` file (BEP 52).
    PieceLayers(Arc<Metainfo>),
    /// It cannot go on.
    Failed(Failure),
    /// It has stopped: state is saved, trackers were told.
    Stopped,
}

impl Status {
    /// All zero, in this state.
    pub fn new(state: State) -> Self {
        Self {
            state,
            cause: None,
            down_rate: 0,
            up_rate: 0,
            downloaded: 0,
            uploaded: 0,
            wasted: 0,
            have_bytes: 0,
            wanted_bytes: 0,
            have_pieces: 0,
            piece_count: 0,
            checked_bytes: 0,
            peers: 0,
            seeds: 0,
            candidates: 0,
            dht_nodes: None,
            metadata: None,
            hashes: None,
            web_seeds: 0,
            eta: None,
            ratio: 0.0,
        }
    }
}
