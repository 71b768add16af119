//! What all torrents share of the network: how many connections there may be, and how fast new ones are opened.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Semaphore, watch};

use super::limits::RateLimits;
use super::metadata::MetadataMemory;
use super::places::{Place, Places};
use crate::net::dial::Dialer;
use crate::net::handshake::Answerer;
use crate::net::lsd::Lsd;
use crate::net::nat::Mappings;
use crate::net::pace::Pace;
use crate::swarm::IpFilter;

/// Connections being opened at once, over all torrents (`limits.md`).
const MAX_HALF_OPEN: usize = 64;

/// New connections per second, over all torrents (`limits.md`)...
const DIALS_PER_SECOND: u32 = 30;

/// ...after this many at once: a torrent that starts should not have to wait for its first peers.
const DIAL_BURST: u32 = 60;

/// What all torrents share of the network.
#[derive(Debug)]
pub struct Network {
    /// Rate limits.
    pub limits: RateLimits,
    /// How peers are reached.
    pub dialer: Dialer,
    /// Search for peers in the local network, if that is wanted.
    pub lsd: Option<Lsd>,
    /// What routers have made of our ports, where any is asked.
    pub mappings: Option<watch::Receiver<Mappings>>,
    /// How those who reach us are answered.
    pub answerer: Answerer,
    places: Places,
    half_open: Semaphore,
    dials: Pace,
    /// For info dictionaries that are fetched from peers.
    pub(super) metadata_memory: Arc<MetadataMemory>,
    ip_filter: RwLock<Arc<IpFilter>>,
}

impl Network {
    /// At most `max_connections` at once.
    pub fn new(limits: RateLimits, dialer: Dialer, answerer: Answerer, max_connections: usize) -> Self {
        Self {
            limits,
            dialer,
            lsd: None,
            mappings: None,
            answerer,
            places: Places::new(max_connections),
            half_open: Semaphore::new(MAX_HALF_OPEN),
            dials: Pace::new(DIALS_PER_SECOND, DIAL_BURST),
            metadata_memory: Arc::default(),
            ip_filter: RwLock::default(),
        }
    }

    /// The addresses that nobody connects to or from.
    pub fn ip_filter(&self) -> Arc<IpFilter> {
        self.ip_filter.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another filter for those that come from now on; torrents under way are told by
    /// [`Torrent::set_ip_filter`](super::Torrent::set_ip_filter).
    pub fn set_ip_filter(&self, ip_filter: Arc<IpFilter>) {
        *self.ip_filter.write().unwrap_or_else(PoisonError::into_inner) = ip_filter;
    }

    /// Whether a connection with `ip` is worth a handshake.
    pub fn blocks(&self, ip: IpAddr) -> bool {
        self.ip_filter.read().unwrap_or_else(PoisonError::into_inner).blocks(ip)
    }

    /// A place for a connection with a peer at `ip`, or none if there are as many as there may be. Held for the
    /// connection's life.
    pub fn connection(&self, ip: IpAddr) -> Option<Place> {
        self.places.take(ip)
    }

    /// The same for a connection with a server.
    pub(super) fn server_connection(&self) -> Option<Place> {
        self.places.take_any()
    }

    /// Waits for its turn, then runs `dial`.
    pub async fn paced<T>(&self, dial: impl Future<Output = T>) -> T {
        let permit = self.half_open.acquire().await;
        self.dials.turn().await;
        let result = dial.await;
        drop(permit);
        result
    }
}
