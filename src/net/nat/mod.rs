//! Port mapping: asks the router to let peers in.
//!
//! For: mappings of our ports on the router (IPv4), holes in its firewall (IPv6), renewed while we run and removed when
//! we stop, by PCP, NAT-PMP or UPnP, whichever it knows.
//! Must not know: who listens on the ports, and what is done with the addresses that come of it.
//! Main types: [`Mapper`], [`Mappings`]. RFCs: 6886 (NAT-PMP), 6887 (PCP); UPnP IGD 1 and 2.
//!
//! Each family has a task of its own. It asks again after a while if the router refused, before a lease is half over,
//! and when the way to the internet has changed, as when a laptop goes to another network.

mod family;
mod gateway;
mod pmp;
mod relay;
mod search;
mod upnp;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use gateway::{Gateway, find as find_gateway};

use family::Family;

use super::egress::Egress;
use crate::swarm::address_filter::{is_host, is_local};

/// Seconds that a mapping is asked for. It outlives us by no more than that if we cannot remove it.
const LEASE: u32 = 3600;

/// Ports that are mapped, of one family.
const MAX_PORTS: usize = 16;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Peers that connect by TCP.
    Tcp,
    /// uTP and the DHT.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// How a router was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// An internet gateway device.
    Upnp,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// A port through which peers can reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// For what.
    pub protocol: Protocol,
    /// Who agreed, and how.
    pub method: Method,
    /// Our port.
    pub port: u16,
    /// Where peers find it.
    pub external: SocketAddr,
    /// The router.
    pub router: IpAddr,
}

/// How it stands with one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing listens that others could reach.
    #[default]
    Off,
    /// The router is being asked.
    Asking,
    /// These ports are mapped.
    Mapped(Vec<Mapped>),
    /// Our own address is known everywhere: there is nothing to map.
    NotNeeded(IpAddr),
    /// It cannot be done, and why; it is tried again.
    Failed(String),
}

impl Mapped {
    /// Where the internet finds us, unless what is outside of the router is no more than another network at home.
    pub fn public(&self) -> Option<SocketAddr> {
        (is_host(self.external.ip()) && !is_local(self.external.ip())).then_some(self.external)
    }
}

impl State {
    /// The ports that are mapped.
    pub fn mapped(&self) -> &[Mapped] {
        if let Self::Mapped(mapped) = self { mapped } else { &[] }
    }

    /// Where peers find what we have for `protocol`.
    pub fn external(&self, protocol: Protocol) -> Option<SocketAddr> {
        self.mapped().iter().find(|mapped| mapped.protocol == protocol).and_then(Mapped::public)
    }

    /// Our address as the internet sees it.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::NotNeeded(ip) => Some(*ip),
            _ => self.mapped().iter().find_map(Mapped::public).map(|external| external.ip()),
        }
    }
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Mappings on the router.
    pub v4: State,
    /// Holes in its firewall.
    pub v6: State,
}

/// What differs in tests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NatConfig {
    /// Where UPnP devices are looked for.
    pub ssdp: SocketAddr,
    /// The same over IPv6.
    pub ssdp_v6: SocketAddr,
    /// The routers of both families, IPv4 first, instead of those of the system.
    pub gateways: Option<[Option<Gateway>; 2]>,
}

impl Default for NatConfig {
    fn default() -> Self {
        Self {
            ssdp: (Ipv4Addr::new(239, 255, 255, 250), 1900).into(),
            ssdp_v6: (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xc), 1900).into(),
            gateways: None,
        }
    }
}

/// A port that somebody listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where: an address of this machine, or all of a family.
    pub address: SocketAddr,
    /// For what.
    pub protocol: Protocol,
}

/// Keeps ports mapped until it is stopped. One that is dropped leaves them to their end.
#[derive(Debug)]
pub struct Mapper {
    mappings: watch::Receiver<Mappings>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Mappings {
    /// How it stands with the family.
    pub fn of(&self, v4: bool) -> &State {
        if v4 { &self.v4 } else { &self.v6 }
    }

    /// The port for `protocol` at which the internet finds us, if a router says which.
    pub fn port(&self, v4: bool, protocol: Protocol) -> Option<u16> {
        self.of(v4).external(protocol).map(|external| external.port())
    }
}

impl Mapper {
    /// Maps what is `wanted`, as far as others could reach it at all. None, and not a packet, if that is nothing, or if a
    /// proxy is to hide where we are.
    pub fn start(wanted: &[Wanted], egress: &Egress, config: &NatConfig) -> Option<Self> {
        let reachable = |wanted: &&Wanted| !wanted.address.ip().is_loopback() && wanted.address.port() != 0;
        let wanted: Vec<Wanted> = wanted.iter().filter(reachable).copied().collect();
        if wanted.is_empty() || egress.proxy().is_some() {
            return None;
        }
        let (report, mappings) = watch::channel(Mappings::default());
        let (stop, stopped) = watch::channel(false);
        let report = Arc::new(report);
        let family = |v4: bool| {
            let mut wanted: Vec<Wanted> = wanted.iter().filter(|w| w.address.is_ipv4() == v4).copied().collect();
            wanted.sort_by_key(|w| (w.address, w.protocol));
            wanted.dedup_by_key(|w| (w.address.port(), w.protocol));
            wanted.truncate(MAX_PORTS);
            (v4, wanted)
        };
        let families = [family(true), family(false)].into_iter().filter(|(_, wanted)| !wanted.is_empty());
        let tasks = families.map(|(v4, wanted)| {
            let family = Family::new(v4, wanted, egress.clone(), config.clone(), report.clone());
            tokio::spawn(family.run(stopped.clone()))
        });
        let tasks = tasks.collect();
        Some(Self { mappings, stop, tasks: Mutex::new(tasks) })
    }

    /// How it stands, and what changes.
    pub fn mappings(&self) -> watch::Receiver<Mappings> {
        self.mappings.clone()
    }

    /// Removes all mappings, within `deadline`.
    pub async fn stop(&self, deadline: Duration) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        let _ = tokio::time::timeout(deadline, all).await;
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}
