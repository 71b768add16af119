use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::net::nat;
use crate::sys::Confined;

/// What was found out. What could not be, or was not to be tried, is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Nothing may leave this machine.
    pub(super) offline: bool,
    /// The only network device that is used.
    pub(super) device: Option<String>,
    /// Everything goes by a proxy.
    pub(super) proxied: bool,
    /// Where peers may come to, or why that cannot be.
    pub(super) listening: Option<Result<Vec<SocketAddr>, String>>,
    /// How long a name took to be looked up, or why it was not found.
    pub(super) names: Option<Result<Duration, String>>,
    pub(super) v4: Family,
    pub(super) v6: Family,
    /// The DHT was tried.
    pub(super) dht: bool,
    /// UDP buffers in bytes: wanted, and granted by the system.
    pub(super) udp_buffers: Option<(usize, usize)>,
    pub(super) system: Option<System>,
}

/// The internet by one family.
#[derive(Clone, Debug, Default)]
pub(super) struct Family {
    /// Our address on the way there and the router, or why there is no way.
    pub(super) way: Option<Result<nat::Gateway, String>>,
    /// What the router makes of our ports.
    pub(super) mapping: nat::State,
    /// Whether a connection to our address outside came back to us.
    pub(super) comes_back: Option<bool>,
    /// Nodes of the DHT that answered.
    pub(super) dht_nodes: usize,
    /// Our address, as those see it.
    pub(super) seen_as: Option<IpAddr>,
}

impl Family {
    /// Our address as the internet sees it, as far as anybody says.
    pub(super) fn outside(&self) -> Option<IpAddr> {
        self.seen_as.or_else(|| self.mapping.ip())
    }
}

/// What the system tells.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) folder: Folder,
    pub(super) state: Folder,
    pub(super) open_files: u64,
    /// Bytes.
    pub(super) free_memory: Option<u64>,
    /// Whether something keeps the clock right; none if the system does not tell.
    pub(super) clock_is_kept: Option<bool>,
    /// Seconds since 1970.
    pub(super) clock: u64,
    /// How many hashes at once are computed.
    pub(super) hashing: &'static str,
    pub(super) cores: usize,
    /// What `--no-sandbox` would switch off, if it was not said.
    pub(super) confined: Option<Confined>,
}

/// A folder that is written to.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// It is there already; else the rest is about the nearest folder above that is.
    pub(super) exists: bool,
    /// Why it cannot be written to.
    pub(super) refused: Option<String>,
    /// Its name, if it is known.
    pub(super) file_system: Option<&'static str>,
    /// Bytes.
    pub(super) free: Option<u64>,
}

impl Facts {
    /// Those that programs ask for.
    pub(super) fn to_json(&self) -> Value {
        let family = |family: &Family| {
            let way = family.way.as_ref().and_then(|way| way.as_ref().ok());
            let mapped: Vec<Value> = family
                .mapping
                .mapped()
                .iter()
                .map(|one| {
                    let (protocol, method) = (one.protocol.to_string(), one.method.to_string());
                    json!({ "protocol": protocol, "port": one.port, "external": one.external, "method": method })
                })
                .collect();
            json!({
                "address": way.map(|way| way.ours),
                "router": way.map(|way| way.router.ip()),
                "external": family.outside(),
                "mapped": mapped,
                "dht_nodes": family.dht_nodes,
            })
        };
        let system = self.system.as_ref();
        json!({
            "listening": self.listening.as_ref().and_then(|listening| listening.as_ref().ok()),
            "ipv4": family(&self.v4),
            "ipv6": family(&self.v6),
            "file_system": system.and_then(|system| system.folder.file_system),
            "free_bytes": system.and_then(|system| system.folder.free),
            "open_files": system.map(|system| system.open_files),
            "sandbox": system.and_then(|system| system.confined).map(|confined| confined != Confined::Not),
            "udp_buffer_bytes": self.udp_buffers.map(|(_, granted)| granted),
        })
    }
}
