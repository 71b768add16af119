//! UPnP: port mappings of internet gateway devices (WANIPConnection), and pinholes for IPv6 (WANIPv6FirewallControl).
//!
//! `igd_next` searches on loopback only, and is told there what the router has answered ([`search`](super::search)). It
//! follows no other address than the one in that answer, and bounds the length of what it reads.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU16;
use std::time::Duration;

use igd_next::aio::tokio::{Tokio, search_gateway, search_ipv6_firewall_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchError, SearchOptions};

use super::relay::udp_at;
use super::search::{MAX_ANSWER, ask};
use super::{Gateway, LEASE, Mapped, Method, NatConfig, Protocol};
use crate::net::egress::Egress;

/// How long answers to the search are waited for.
const SEARCH: Duration = Duration::from_secs(4);

/// How long one request may take. Routers have been seen to need more than a second.
const REQUEST: Duration = Duration::from_secs(5);

/// Other ports that are tried outside when ours is taken there.
const OTHER_PORTS: usize = 5;

/// What is shown for the mapping in the router's pages.
const DESCRIPTION: &str = "gannet";

/// A router that maps ports of IPv4.
#[derive(Clone, Debug)]
pub(super) struct Router {
    device: igd_next::aio::Gateway<Tokio>,
}

impl Router {
    /// Looks for the one at `gateway`.
    pub(super) async fn find(gateway: &Gateway, egress: &Egress, config: &NatConfig) -> Result<Self, String> {
        Ok(Self { device: found(gateway, egress, config, search_gateway).await? })
    }

    async fn external_ip(&self) -> Result<IpAddr, String> {
        within(self.device.get_external_ip()).await
    }
}

/// A router that keeps strangers of IPv6 out, and lets them in where it is asked to.
#[derive(Clone, Debug)]
pub(super) struct Firewall {
    device: igd_next::aio::Ipv6FirewallGateway<Tokio>,
}

impl Firewall {
    /// Looks for the one at `gateway`, over IPv6: whoever opens a hole must ask from the address behind it.
    pub(super) async fn find(gateway: &Gateway, egress: &Egress, config: &NatConfig) -> Result<Self, String> {
        Ok(Self { device: found(gateway, egress, config, search_ipv6_firewall_gateway).await? })
    }
}

/// Has `igd_next` make out what the router says that it is.
async fn found<T, F: Future<Output = Result<T, SearchError>>>(
    gateway: &Gateway,
    egress: &Egress,
    config: &NatConfig,
    search: impl FnOnce(SearchOptions) -> F,
) -> Result<T, String> {
    let failed = |e: io::Error| format!("UPnP: {e}");
    let answer = tokio::time::timeout(SEARCH, ask(gateway, egress, config)).await;
    let (answer, location) = answer.map_err(|_| "UPnP: no router answers".to_owned())?.map_err(failed)?;
    // Both ends of this are here, whatever device was chosen for the outside.
    let near = udp_at(&Egress::default(), (Ipv4Addr::LOCALHOST, 0).into()).map_err(failed)?;
    let mut options = SearchOptions::default();
    options.bind_addr = (Ipv4Addr::LOCALHOST, 0).into();
    options.broadcast_address = near.local_addr().map_err(failed)?;
    options.timeout = Some(SEARCH);
    options.allowed_gateway_ips = vec![location];
    let told = async {
        let (_, asker) = near.recv_from(&mut [0; MAX_ANSWER]).await?;
        near.send_to(&answer, asker).await?;
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        found = search(options) => found.map_err(|e| format!("UPnP: {e}")),
        Err(e) = told => Err(failed(e)),
    }
}

/// A mapping on the router.
#[derive(Debug)]
pub(super) struct Lease {
    router: Router,
    protocol: Protocol,
    ours: SocketAddr,
    external: SocketAddr,
    /// Seconds; 0 is until it is removed.
    seconds: u32,
}

impl Lease {
    /// Maps the port to `outside`, or to some other if that is taken there.
    pub(super) async fn new(
        router: &Router,
        protocol: Protocol,
        ours: SocketAddr,
        outside: NonZeroU16,
    ) -> Result<Self, String> {
        let external_ip = router.external_ip().await?;
        let mut lease = Self {
            router: router.clone(),
            protocol,
            ours,
            external: SocketAddr::new(external_ip, outside.get()),
            seconds: LEASE,
        };
        let mut others = OTHER_PORTS;
        loop {
            match lease.add().await? {
                Ok(()) => return Ok(lease),
                // Many old routers know no other.
                Err(AddPortError::OnlyPermanentLeasesSupported) if lease.seconds > 0 => lease.seconds = 0,
                Err(AddPortError::PortInUse) if others > 0 => {
                    others -= 1;
                    lease.external.set_port(fastrand::u16(20_000..60_000));
                }
                Err(e) => return Err(format!("UPnP: {e}")),
            }
        }
    }

    async fn add(&self) -> Result<Result<(), AddPortError>, String> {
        let (device, port) = (&self.router.device, self.external.port());
        let added = device.add_port(self.protocol.into(), port, self.ours, self.seconds, DESCRIPTION);
        tokio::time::timeout(REQUEST, added).await.map_err(|_| "UPnP: the router does not answer".to_owned())
    }

    /// The same again: that is how a lease is made longer.
    pub(super) async fn renew(&mut self) -> Result<(), String> {
        self.external.set_ip(self.router.external_ip().await?);
        self.add().await?.map_err(|e| format!("UPnP: {e}"))
    }

    pub(super) async fn remove(self) -> Result<(), String> {
        within(self.router.device.remove_port(self.protocol.into(), self.external.port())).await
    }

    /// How long it is kept. One that is kept until it is removed is looked at all the same: routers forget.
    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(if self.seconds == 0 { LEASE } else { self.seconds }.into())
    }

    pub(super) fn seen(&self) -> Mapped {
        Mapped {
            protocol: self.protocol,
            method: Method::Upnp,
            port: self.ours.port(),
            external: self.external,
            router: self.router.device.addr.ip(),
        }
    }
}

/// A hole in the router's firewall for IPv6.
#[derive(Debug)]
pub(super) struct Pinhole {
    firewall: Firewall,
    protocol: Protocol,
    ours: SocketAddrV6,
    number: u16,
}

impl Pinhole {
    pub(super) async fn new(firewall: &Firewall, protocol: Protocol, ours: SocketAddrV6) -> Result<Self, String> {
        let number = within(firewall.device.add_pinhole(protocol.into(), ours, LEASE)).await?;
        Ok(Self { firewall: firewall.clone(), protocol, ours, number })
    }

    pub(super) async fn renew(&mut self) -> Result<(), String> {
        within(self.firewall.device.update_pinhole(self.number, LEASE)).await
    }

    pub(super) async fn remove(self) -> Result<(), String> {
        within(self.firewall.device.remove_pinhole(self.number)).await
    }

    pub(super) fn seen(&self) -> Mapped {
        Mapped {
            protocol: self.protocol,
            method: Method::Upnp,
            port: self.ours.port(),
            external: self.ours.into(),
            router: self.firewall.device.addr.ip(),
        }
    }
}

async fn within<T, E: std::fmt::Display>(request: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(answer) => answer.map_err(|e| format!("UPnP: {e}")),
        Err(_) => Err("UPnP: the router does not answer".to_owned()),
    }
}

impl From<Protocol> for PortMappingProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::TCP,
            Protocol::Udp => Self::UDP,
        }
    }
}
