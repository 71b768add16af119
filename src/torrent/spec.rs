//! What a torrent is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::PeerId;
use crate::metainfo::Metainfo;
use crate::net::dht::DhtClient;
use crate::storage::{Backend, Place, Preallocate};

/// When to stop seeding. With no field set: never.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeedGoal {
    /// Uploaded through wanted size.
    pub ratio: Option<f64>,
    /// Time since complete.
    pub time: Option<Duration>,
}

/// A torrent to add, and how to treat it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AddTorrent {
    /// What it is.
    pub metainfo: Arc<Metainfo>,
    /// Where its data lies. [`Place::Exact`] is only ever read.
    pub place: Place,
    /// Which files to fetch, by file number in the torrent; `None` is all.
    pub selected: Option<Vec<bool>>,
    /// Pieces in order instead of rarest first.
    pub sequential: bool,
    /// Peers to try besides those from trackers.
    pub peers: Vec<SocketAddr>,
    /// Trackers besides the torrent's own, each a tier of its own.
    pub extra_trackers: Vec<String>,
    /// How pieces are written.
    pub backend: Backend,
    /// Whether the space is taken before the first byte.
    pub preallocate: Preallocate,
    /// Whether existing files that resume data does not know may be overwritten where they are wrong. Without it they
    /// are checked, and a file longer than the torrent's is an error.
    pub overwrite: bool,
    /// When the torrent is complete, whether it stays to seed, and until when; `None` stops at once.
    pub seed: Option<SeedGoal>,
    /// BEP 16: show each peer one piece at a time, so that a lone seeder sends each piece about once.
    pub super_seed: bool,
}

impl AddTorrent {
    /// All of a torrent, rarest first, peers from its trackers; it stops when it is complete.
    pub fn new(metainfo: Arc<Metainfo>, place: Place) -> Self {
        Self {
            metainfo,
            place,
            selected: None,
            sequential: false,
            peers: Vec::new(),
            extra_trackers: Vec::new(),
            backend: Backend::default(),
            preallocate: Preallocate::default(),
            overwrite: false,
            seed: None,
            super_seed: false,
        }
    }
}

/// A torrent to run, with what its session adds.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The torrent.
    pub torrent: AddTorrent,
    /// Whether trackers are asked.
    pub use_trackers: bool,
    /// Whether peers may be told of each other (BEP 11), unless the torrent is private.
    pub use_pex: bool,
    /// Connections, at most.
    pub max_peers: usize,
    /// Bytes of blocks that may wait to be verified and written.
    pub block_memory: u64,
    /// Where resume data is kept.
    pub state_dir: PathBuf,
    /// Where the session listens.
    pub listen: Vec<SocketAddr>,
    /// The DHT, if the torrent may use it.
    pub dht: Option<DhtClient>,
    /// Peers reach us at the port of the DHT's socket, by uTP, whatever a router has made of it (BEP 5).
    pub implied_port: bool,
    /// Who we are.
    pub peer_id: PeerId,
}
