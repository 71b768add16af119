//! L5: many torrents in one process.
//!
//! For: adding and stopping torrents, what they share (ports, limits, disk threads), what they report.
//! Must not know: how any of it is shown.
//! Main types: [`Session`], [`Torrent`].

mod config;
mod dht;
mod incoming;
mod ip_filter;
mod nat;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use config::Config;
pub use ip_filter::{IpFilterLists, read_ip_filter};

use self::incoming::Door;
use crate::base::PeerId;
use crate::disk::DiskPool;
use crate::error::Error;
use crate::net::dht::DhtClient;
pub use crate::net::dht::DhtConfig;
use crate::net::dial::Dialer;
pub use crate::net::encryption::Encryption;
use crate::net::handshake::Answerer;
use crate::net::listen::{self, Transports};
use crate::net::lsd::Lsd;
pub use crate::net::nat::{Mapped, Mappings, NatConfig};
use crate::net::tracker::{TrackerClient, TrackerClientConfig};
use crate::net::udp::UdpHub;
pub use crate::swarm::IpFilter;
use crate::sys::open_file_limit;
use crate::torrent::{self, Network, RateLimits, Spec};
pub use crate::torrent::{
    AddTorrent, Choice, Choose, Durability, End, Event, Failure, Fault, MetadataProgress, Origin, Place, SeedGoal,
    Selected, State, Status, Torrent, TrackerReport, WebSeedReport, WebSeedState,
};
use crate::wire::mse::torrent_mark;

/// Open files of a process besides connections and torrents: standard streams, listeners, the runtime, the log.
const PROCESS_FILES: u64 = 20;

/// How long those who are connected by uTP are given to hear that we end.
const FAREWELL: Duration = Duration::from_millis(300);

/// Many torrents in one process. Cheap to clone. Stops when the last clone and the last torrent are dropped, or by
/// [`Session::stop`], which also tells trackers.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    network: Arc<Network>,
    disk: Arc<DiskPool>,
    trackers: TrackerClient,
    addresses: Vec<SocketAddr>,
    torrents: Arc<Torrents>,
    listeners: Mutex<Vec<JoinHandle<()>>>,
    /// One UDP socket for each address, where anything uses UDP.
    udp: Option<Arc<UdpHub>>,
    dht: Option<dht::Dht>,
    nat: Option<nat::Nat>,
}

/// Every torrent under each of the 20-byte names that peers may use for it.
#[derive(Default)]
struct Torrents {
    by_wire_form: RwLock<HashMap<[u8; 20], Torrent>>,
    /// The same names, by the [mark](torrent_mark) that peers use when they encrypt.
    by_mark: RwLock<HashMap<[u8; 20], [u8; 20]>>,
}

impl Torrents {
    fn find(&self, wire_form: &[u8; 20]) -> Option<Torrent> {
        self.by_wire_form.read().unwrap_or_else(PoisonError::into_inner).get(wire_form).cloned()
    }

    fn marked(&self, mark: &[u8; 20]) -> Option<[u8; 20]> {
        self.by_mark.read().unwrap_or_else(PoisonError::into_inner).get(mark).copied()
    }

    /// Puts a torrent there under names that it turned out to have.
    fn add_names(&self, torrent: &Torrent) {
        let mut by_wire_form = self.by_wire_form.write().unwrap_or_else(PoisonError::into_inner);
        let mut by_mark = self.by_mark.write().unwrap_or_else(PoisonError::into_inner);
        for form in torrent.info_hash().wire_forms() {
            by_mark.insert(torrent_mark(&form), form);
            let place = by_wire_form.entry(form).or_insert_with(|| torrent.clone());
            if place.has_ended() {
                *place = torrent.clone();
            }
        }
    }

    fn all(&self) -> Vec<Torrent> {
        let by_wire_form = self.by_wire_form.read().unwrap_or_else(PoisonError::into_inner);
        // A hybrid stands there twice.
        by_wire_form
            .iter()
            .filter(|(name, torrent)| **name == torrent.origin().info_hash().wire())
            .map(|(_, t)| t.clone())
            .collect()
    }
}

impl Session {
    /// Binds the ports and starts the disk threads.
    ///
    /// # Errors
    /// [`Error::Network`] when an address cannot be bound.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let egress = &config.egress;
        egress.check().await.map_err(|e| Error::Network(e.to_string()))?;
        let proxied = egress.proxy().is_some();
        // A listener past the proxy would show where we are; who names an address wants that.
        let tcp = config.tcp && (!proxied || !config.listen.is_empty());
        let wants_udp = config.utp || config.dht.is_some();
        let transports = Transports { tcp, udp: wants_udp && !proxied };
        let listeners = listen::open(&config.listen, transports, egress)
            .map_err(|e| Error::Network(format!("cannot listen on {e}")))?;
        let addresses = listeners.addresses();
        let udp = match listeners.udp {
            _ if proxied && wants_udp && egress.takes_udp() => Some(UdpHub::start_relayed(egress, config.utp).await),
            none if none.is_empty() => None,
            sockets => Some(UdpHub::start(sockets, config.utp)),
        };
        let udp = udp.transpose().map_err(|e| Error::Network(format!("cannot listen for UDP: {e}")))?.map(Arc::new);
        let dht = match (&udp, &config.dht) {
            (Some(hub), Some(settings)) => dht::Dht::start(hub.clone(), egress, settings.clone(), &config.state_dir),
            _ => Ok(None),
        };
        let dht = dht.map_err(|e| Error::Network(format!("cannot start the DHT: {e}")))?;
        let limits = RateLimits::new(Instant::now(), config.limit_down, config.limit_up);
        let dialer = Dialer::new(egress.clone(), config.encryption);
        let dialer = dialer.with_utp(udp.clone().filter(|_| config.utp), !config.tcp);
        let answerer = Answerer::new(config.encryption);
        let max_connections = affordable(config.max_connections, open_file_limit());
        let mut network = Network::new(limits, dialer, answerer, max_connections);
        network.lsd = local_discovery(&config, &addresses);
        let nat = config.port_mapping.as_ref();
        let nat = nat.and_then(|nat| {
            nat::Nat::start(&listeners.tcp, udp.as_deref(), egress, nat, dht.as_ref().map(|dht| &dht.client))
        });
        network.mappings = nat.as_ref().map(nat::Nat::mappings);
        let network = Arc::new(network);
        network.set_ip_filter(config.ip_filter.clone());
        let torrents = Arc::new(Torrents::default());
        let door = Door::new(torrents.clone(), network.clone());
        let tcp = listeners.tcp.into_iter().map(|listener| tokio::spawn(door.clone().accept(listener)));
        let incoming = udp.as_ref().map(|hub| hub.incoming_utp()).unwrap_or_default();
        let utp = incoming.into_iter().map(|incoming| tokio::spawn(door.clone().accept_utp(incoming)));
        let tasks = tcp.chain(utp).collect();
        let mut tracker_config = TrackerClientConfig::default();
        tracker_config.http.egress = egress.clone();
        let disk = DiskPool::new(config.disk_threads)
            .map_err(|e| Error::Disk { message: format!("cannot start disk threads: {e}"), path: None })?;
        Ok(Self {
            inner: Arc::new(Inner {
                network,
                disk: Arc::new(disk),
                trackers: TrackerClient::new(tracker_config),
                addresses,
                torrents,
                listeners: Mutex::new(tasks),
                udp,
                dht,
                nat,
                config,
            }),
        })
    }

    /// Adds a torrent and starts it. What becomes of it is told by [`Torrent::events`] and [`Torrent::finished`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when the session has it already, and it has not ended.
    pub async fn add(&self, add: AddTorrent) -> Result<Torrent, Error> {
        let inner = &self.inner;
        let mut entropy = [0; 12];
        getrandom::fill(&mut entropy).map_err(|e| Error::Invalid(format!("no randomness: {e}")))?;
        let info_hash = add.origin.info_hash();
        let spec = Spec {
            use_trackers: inner.config.trackers,
            use_pex: inner.config.pex,
            use_web_seeds: inner.config.web_seeds,
            max_peers: inner.config.max_peers,
            block_memory: inner.config.block_memory,
            disk_retry: inner.config.disk_retry,
            state_dir: inner.config.state_dir.clone(),
            listen: inner.addresses.clone(),
            dht: self.dht().filter(|_| !add.origin.is_private()).cloned(),
            implied_port: inner.config.utp,
            peer_id: PeerId::ours(entropy),
            torrent: add,
        };
        let mut by_wire_form = inner.torrents.by_wire_form.write().unwrap_or_else(PoisonError::into_inner);
        let taken = |form| by_wire_form.get(&form).is_some_and(|torrent| !torrent.has_ended());
        if info_hash.wire_forms().any(taken) {
            return Err(Error::Invalid(format!("{info_hash} is given twice")));
        }
        let torrent = torrent::start(spec, inner.disk.clone(), inner.network.clone(), inner.trackers.clone());
        let mut by_mark = inner.torrents.by_mark.write().unwrap_or_else(PoisonError::into_inner);
        for form in info_hash.wire_forms() {
            by_mark.insert(torrent_mark(&form), form);
            by_wire_form.insert(form, torrent.clone());
        }
        if let Origin::Magnet(_) = torrent.origin() {
            let (torrents, torrent) = (inner.torrents.clone(), torrent.clone());
            tokio::spawn(async move {
                if let Ok(Some(_)) = torrent.described().await {
                    torrents.add_names(&torrent);
                }
            });
        }
        Ok(torrent)
    }

    /// The UDP sockets of its ports, where anything uses UDP.
    pub fn udp(&self) -> Option<&Arc<UdpHub>> {
        self.inner.udp.as_ref()
    }

    /// The DHT node, where there is one. Private torrents must not use it (BEP 27).
    pub fn dht(&self) -> Option<&DhtClient> {
        self.inner.dht.as_ref().map(|dht| &dht.client)
    }

    /// What routers were asked for, and what came of it; all off where nobody is asked.
    pub fn mappings(&self) -> Mappings {
        self.watch_mappings().map(|mappings| mappings.borrow().clone()).unwrap_or_default()
    }

    /// The same as it changes; none where nobody is asked.
    pub fn watch_mappings(&self) -> Option<watch::Receiver<Mappings>> {
        self.inner.nat.as_ref().map(nat::Nat::mappings)
    }

    /// Another filter of addresses, from now on: connections with those on it are closed.
    pub fn set_ip_filter(&self, ip_filter: Arc<IpFilter>) {
        // In this order: a torrent that begins meanwhile looks at the network.
        self.inner.network.set_ip_filter(ip_filter.clone());
        for torrent in self.inner.torrents.all() {
            torrent.set_ip_filter(&ip_filter);
        }
    }

    /// Where it listens.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.inner.addresses.clone()
    }

    /// Stops all torrents: state is saved, trackers are told, within `deadline`.
    pub async fn stop(&self, deadline: Duration) {
        for listener in self.inner.listeners.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            listener.abort();
        }
        let torrents = self.inner.torrents.all();
        for torrent in &torrents {
            torrent.stop(deadline);
        }
        let all_stopped = async {
            if let Some(dht) = &self.inner.dht {
                dht.stop().await;
            }
            for torrent in &torrents {
                torrent.stopped().await;
            }
        };
        let unmapped = async {
            if let Some(nat) = &self.inner.nat {
                nat.stop(deadline).await;
            }
        };
        // What is not done by then is left: resume data is written first, trackers are told last.
        let (_, ()) = tokio::join!(tokio::time::timeout(deadline, all_stopped), unmapped);
        if let Some(udp) = &self.inner.udp {
            udp.utp_ended(FAREWELL).await;
        }
    }
}

/// The search for peers in the local network, if it is wanted and somebody there could reach us. Who has all peers see a
/// proxy shows the neighbours no more.
fn local_discovery(config: &Config, listen: &[SocketAddr]) -> Option<Lsd> {
    let reachable = listen.iter().any(|address| config.lsd_on_loopback || !address.ip().is_loopback());
    let wanted = config.lsd && config.egress.proxy().is_none();
    (wanted && reachable).then(|| Lsd::start(listen.to_vec(), config.egress.clone(), config.lsd_on_loopback))
}

/// How many of `wanted` connections there may be where `open_files` is the limit of open files: each takes one, and a
/// fifth is left for the torrents' files, besides what every process has open.
fn affordable(wanted: usize, open_files: u64) -> usize {
    let most = open_files.saturating_sub(PROCESS_FILES) / 5 * 4;
    wanted.min(usize::try_from(most).unwrap_or(usize::MAX)).clamp(1, Semaphore::MAX_PERMITS)
}

impl Drop for Inner {
    fn drop(&mut self) {
        for listener in self.listeners.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            listener.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_files() {
        let table = [(500, 1_024, 500), (2_000, 1_024, 800), (500, 256, 188), (500, 20, 1), (500, 0, 1)];
        for (wanted, open_files, expected) in table {
            assert_eq!(affordable(wanted, open_files), expected, "{wanted} of {open_files}");
        }
        assert_eq!(affordable(usize::MAX, u64::MAX), Semaphore::MAX_PERMITS);
    }
}
