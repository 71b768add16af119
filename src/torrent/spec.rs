//! What a torrent is told when it starts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::base::{InfoHash, PeerId};
use crate::metainfo::{Magnet, Metainfo};
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

/// What is known of a torrent that is added.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// All of it.
    Metainfo(Arc<Metainfo>),
    /// What a magnet link says; the rest is asked of peers.
    Magnet(Arc<Magnet>),
}

impl Origin {
    /// Its identity, or one of two if a link does not know better.
    pub fn info_hash(&self) -> InfoHash {
        match self {
            Self::Metainfo(metainfo) => metainfo.info.info_hash(),
            Self::Magnet(magnet) => magnet.info_hash,
        }
    }

    /// What to call it: as it stands there, so to be shown through [`Printable`](crate::base::Printable).
    pub fn name(&self) -> String {
        match self {
            Self::Metainfo(metainfo) => metainfo.info.name().to_owned(),
            Self::Magnet(magnet) => magnet.name.clone().unwrap_or_else(|| magnet.info_hash.to_string()),
        }
    }

    /// Its trackers, in tiers.
    pub(super) fn announce(&self) -> Vec<Vec<String>> {
        match self {
            Self::Metainfo(metainfo) => metainfo.announce.clone(),
            Self::Magnet(magnet) => magnet.trackers.iter().map(|url| vec![url.clone()]).collect(),
        }
    }

    /// Whether it is known to be private (BEP 27).
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Metainfo(metainfo) if metainfo.info.is_private())
    }
}

impl From<Arc<Metainfo>> for Origin {
    fn from(metainfo: Arc<Metainfo>) -> Self {
        Self::Metainfo(metainfo)
    }
}

impl From<Metainfo> for Origin {
    fn from(metainfo: Metainfo) -> Self {
        Self::Metainfo(Arc::new(metainfo))
    }
}

impl From<Magnet> for Origin {
    fn from(magnet: Magnet) -> Self {
        Self::Magnet(Arc::new(magnet))
    }
}

/// Files of a torrent, by number: which are wanted. `None` is all of them.
pub type Selected = Option<Vec<bool>>;

/// Which files of a torrent are wanted, or in words why there is nothing to choose, which ends it.
pub type Choice = dyn Fn(&Metainfo) -> Result<Selected, String> + Send + Sync;

/// Chooses files once the metadata is there.
#[derive(Clone)]
pub struct Choose(pub Arc<Choice>);

impl fmt::Debug for Choose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Choose")
    }
}

/// What may be lost when the power goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The last half minute: what is claimed to be there was synced before.
    #[default]
    Sync,
    /// More: nothing is synced, and so what was fetched is hashed at the next start to know whether it is there.
    Lazy,
}

/// A torrent to add, and how to treat it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AddTorrent {
    /// What it is.
    pub origin: Origin,
    /// Where its data lies. [`Place::Exact`] is only ever read.
    pub place: Place,
    /// Which files to fetch, by file number in the torrent; `None` is all, or those that a magnet link selects (BEP 53).
    pub selected: Selected,
    /// The same for a torrent whose files are not known yet. Goes before what a magnet link selects.
    pub choose: Option<Choose>,
    /// Ends once the metadata is there; nothing is downloaded, no file is made.
    pub metadata_only: bool,
    /// Pieces in order instead of rarest first.
    pub sequential: bool,
    /// Peers to try besides those from trackers.
    pub peers: Vec<SocketAddr>,
    /// Trackers besides the torrent's own, each a tier of its own.
    pub extra_trackers: Vec<String>,
    /// Web seeds (BEP 19) besides the torrent's own. These are trusted to be in the local network.
    pub extra_web_seeds: Vec<String>,
    /// How pieces are written.
    pub backend: Backend,
    /// Whether the space is taken before the first byte.
    pub preallocate: Preallocate,
    /// All of the data was hashed, from this time on, and was right: only files that were written to since are checked.
    pub hashed_since: Option<SystemTime>,
    /// Whether what was fetched is made to outlive a loss of power.
    pub durability: Durability,
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
    pub fn new(origin: impl Into<Origin>, place: Place) -> Self {
        Self {
            origin: origin.into(),
            place,
            selected: None,
            choose: None,
            metadata_only: false,
            sequential: false,
            peers: Vec::new(),
            extra_trackers: Vec::new(),
            extra_web_seeds: Vec::new(),
            backend: Backend::default(),
            preallocate: Preallocate::default(),
            hashed_since: None,
            durability: Durability::default(),
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
    /// Whether web seeds are asked.
    pub use_web_seeds: bool,
    /// Connections, at most.
    pub max_peers: usize,
    /// Bytes of blocks that may wait to be verified and written.
    pub block_memory: u64,
    /// From a failure of the disk to the next try.
    pub disk_retry: Duration,
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
