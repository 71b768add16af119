use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::metainfo::Metainfo;
use crate::torrent::{Place, SeedGoal};

/// What all torrents of a session share.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen for peers; port 0 takes any free one. Without an address: all of IPv4 and IPv6, any port.
    pub listen: Vec<SocketAddr>,
    /// Payload bytes per second, in; `None` is no limit.
    pub limit_down: Option<u64>,
    /// Payload bytes per second, out; `None` is no limit.
    pub limit_up: Option<u64>,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections of one torrent.
    pub max_peers: usize,
    /// Whether trackers are asked.
    pub trackers: bool,
    /// Where resume data is kept.
    pub state_dir: PathBuf,
    /// Bytes of blocks that may wait to be verified and written, over all torrents.
    pub block_memory: u64,
    /// Disk threads; `None` is one per core.
    pub disk_threads: Option<usize>,
}

/// A torrent to add, and how to treat it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AddTorrent {
    /// What it is.
    pub metainfo: Arc<Metainfo>,
    /// Where its data lies.
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
    pub backend: crate::storage::Backend,
    /// Whether the space is taken before the first byte.
    pub preallocate: crate::storage::Preallocate,
    /// Whether existing files that resume data does not know may be overwritten where they are wrong. Without it they
    /// are checked, and a file longer than the torrent's is an error.
    pub overwrite: bool,
    /// When the torrent is complete, whether it stays to seed, and until when; `None` stops at once.
    pub seed: Option<SeedGoal>,
    /// BEP 16: show each peer one piece at a time, so that a lone seeder sends each piece about once.
    pub super_seed: bool,
}
