use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::net::dht::DhtConfig;
use crate::net::egress::Egress;
use crate::net::encryption::Encryption;
use crate::net::nat::NatConfig;
use crate::swarm::IpFilter;

/// Connections in all, unless said otherwise.
const MAX_CONNECTIONS: usize = 500;

/// Connections of one torrent, unless said otherwise.
const MAX_PEERS: usize = 100;

/// Bytes of blocks that may wait to be verified and written, unless said otherwise.
const BLOCK_MEMORY: u64 = 64 << 20;

/// From a failure of the disk to the next try, unless said otherwise.
const DISK_RETRY: Duration = Duration::from_secs(5);

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
    /// Connections in all; fewer where the system's limit of open files does not leave room for so many.
    pub max_connections: usize,
    /// Connections of one torrent.
    pub max_peers: usize,
    /// Whether trackers are asked.
    pub trackers: bool,
    /// Whether peers are reached by TCP, and may reach us.
    pub tcp: bool,
    /// Whether peers are reached by uTP (BEP 29), and may reach us.
    pub utp: bool,
    /// Whether peers tell each other of peers (BEP 11). Never those of a private torrent.
    pub pex: bool,
    /// Whether peers in the local network are looked for (BEP 14). Never for a private torrent.
    pub lsd: bool,
    /// Whether the loopback interface is such a network. It is for tests.
    pub lsd_on_loopback: bool,
    /// The node of the DHT (BEP 5) by which peers are found without trackers; none runs no node.
    pub dht: Option<DhtConfig>,
    /// Whether routers are asked to let peers in; none asks nobody. Never with a proxy, and only for addresses that others
    /// could reach.
    pub port_mapping: Option<NatConfig>,
    /// Which connections with peers are encrypted.
    pub encryption: Encryption,
    /// Whether web seeds are asked.
    pub web_seeds: bool,
    /// Where resume data is kept.
    pub state_dir: PathBuf,
    /// Bytes of blocks that may wait to be verified and written, over all torrents.
    pub block_memory: u64,
    /// The device and the proxy that everything leaves by. With a proxy peers cannot connect to us, unless `listen` says
    /// where.
    pub egress: Egress,
    /// Addresses that are neither dialled nor let in; see [`read_ip_filter`](super::read_ip_filter).
    pub ip_filter: Arc<IpFilter>,
    /// Disk threads; `None` is one per core.
    pub disk_threads: Option<usize>,
    /// From a failure of the disk to the next try; doubled each time, up to ten minutes. Four times that while it is full.
    pub disk_retry: Duration,
}

impl Config {
    /// Any free port, no DHT, no port mapping, no rate limits, 500 connections, 100 per torrent, 64 MiB of blocks in memory; resume data in `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: Vec::new(),
            limit_down: None,
            limit_up: None,
            max_connections: MAX_CONNECTIONS,
            max_peers: MAX_PEERS,
            trackers: true,
            tcp: true,
            utp: true,
            pex: true,
            lsd: true,
            lsd_on_loopback: false,
            dht: None,
            port_mapping: None,
            encryption: Encryption::default(),
            web_seeds: true,
            state_dir: state_dir.into(),
            block_memory: BLOCK_MEMORY,
            egress: Egress::default(),
            ip_filter: Arc::default(),
            disk_threads: None,
            disk_retry: DISK_RETRY,
        }
    }
}
