//! What can be asked of a node, and what it has to tell.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::id::NodeId;
use super::items::Item;
use super::krpc::Contact;
use super::lookup::Question;

/// Names an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(pub(super) u64);

/// What can be asked of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Peers of a torrent.
    GetPeers {
        /// The torrent.
        info_hash: NodeId,
    },
    /// Peers of a torrent, and that we are one.
    Announce {
        /// The torrent.
        info_hash: NodeId,
        /// Where we listen on IPv4; none is the port of the socket, as others see it.
        port_v4: Option<u16>,
        /// The same on IPv6.
        port_v6: Option<u16>,
        /// Whether we have all of it (BEP 33).
        seed: bool,
    },
    /// How many peers a torrent has (BEP 33).
    Scrape {
        /// The torrent.
        info_hash: NodeId,
    },
    /// An item (BEP 44). Of a mutable one all versions that are newer than those before.
    Get {
        /// Where it is stored.
        target: NodeId,
        /// The salt of a mutable item, empty for most.
        salt: Vec<u8>,
    },
    /// Stores an item.
    Put {
        /// What.
        item: Item,
        /// Only in place of this version.
        cas: Option<i64>,
    },
    /// Info-hashes that the nodes around `target` keep (BEP 51).
    Sample {
        /// Around what.
        target: NodeId,
    },
}

/// What the node has to tell.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A node told of peers that were not known before.
    Peers {
        /// Who wanted them.
        operation: OperationId,
        /// The node: what a local address means depends on where it is.
        from: SocketAddr,
        /// The peers.
        peers: Vec<SocketAddr>,
    },
    /// An item was found, and is sound.
    Item {
        /// Who wanted it.
        operation: OperationId,
        /// The item.
        item: Item,
    },
    /// A node told which torrents it keeps.
    Samples {
        /// Who wanted them.
        operation: OperationId,
        /// The node.
        from: Contact,
        /// Some of its info-hashes.
        hashes: Vec<NodeId>,
        /// How many it has.
        count: u64,
        /// When to ask it again.
        interval: Duration,
    },
    /// An operation has ended. Nothing more comes of it.
    Done {
        /// Which.
        operation: OperationId,
        /// What became of it.
        summary: Summary,
    },
    /// There are too few nodes: call [`bootstrap`](super::Node::bootstrap) with some that are known to be there. Comes again, less and less
    /// often, until there are enough.
    WantBootstrap,
    /// Others see socket `via` at this address.
    External {
        /// The socket.
        via: usize,
        /// The address.
        ip: IpAddr,
    },
}

/// What became of an operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Nodes that were asked.
    pub asked: usize,
    /// Nodes that answered.
    pub answered: usize,
    /// Nodes that have stored what was to be stored.
    pub stored: usize,
    /// Peers that were told of.
    pub peers: usize,
    /// Over how many nodes the first find was reached: 1 if a node told that we knew already.
    pub hops: Option<u8>,
    /// What [`Command::Scrape`] found.
    pub scrape: Option<Scrape>,
    /// Why a node refused to store, the last one that did: code and text.
    pub refused: Option<(i64, String)>,
    /// The nodes nearest to the target that answered.
    pub nearest: Vec<Contact>,
}

/// The size of a swarm, as filters say (BEP 33).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scrape {
    /// Peers that have all of it, about.
    pub seeds: f64,
    /// Peers that have not, about.
    pub peers: f64,
}

impl Command {
    pub(super) fn target(&self) -> NodeId {
        match self {
            Self::GetPeers { info_hash } | Self::Announce { info_hash, .. } | Self::Scrape { info_hash } => *info_hash,
            Self::Get { target, .. } | Self::Sample { target } => *target,
            Self::Put { item, .. } => item.target(),
        }
    }

    pub(super) fn question(&self) -> Question {
        match self {
            // Seeds have no use for each other.
            Self::Announce { seed, .. } => Question::Peers { no_seed: *seed, scrape: false },
            Self::GetPeers { .. } => Question::Peers { no_seed: false, scrape: false },
            Self::Scrape { .. } => Question::Peers { no_seed: false, scrape: true },
            Self::Get { .. } | Self::Put { .. } => Question::Item,
            Self::Sample { .. } => Question::Sample,
        }
    }
}
