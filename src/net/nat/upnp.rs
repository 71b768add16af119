//! UPnP: port mappings of internet gateway devices (WANIPConnection), and pinholes for IPv6 (WANIPv6FirewallControl).
//!
//! Anybody in the network may answer the search, and answers may name any address. Only those of the router itself are
//! let through ([`relay`]), and `igd_next` follows no address in them but the router's; it also bounds their length.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU16;
use std::time::Duration;

use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use tokio::net::UdpSocket;

use super::relay::udp_at;
use super::{Gateway, LEASE, Mapped, Method, NatConfig, Protocol};
use crate::net::egress::Egress;

/// How long answers to the search are waited for.
const SEARCH: Duration = Duration::from_secs(4);

/// How long one request may take. Routers have been seen to need more than a second.
const REQUEST: Duration = Duration::from_secs(5);

/// What is searched for; whatever else a router is, it answers to one of these.
const TARGETS: [&str; 3] = ["device:InternetGatewayDevice", "service:WANIPConnection", "service:WANPPPConnection"];

/// Bytes of an answer to the search that are read; longer ones are cut, and make no sense then.
const MAX_ANSWER: usize = 1_500;

/// Other ports that are tried outside when ours is taken there.
const OTHER_PORTS: usize = 5;

/// What is shown for the mapping in the router's pages.
const DESCRIPTION: &str = "gannet";

type Device = igd_next::aio::Gateway<Tokio>;

/// A router that speaks it.
#[derive(Clone, Debug)]
pub(super) struct Router {
    device: Device,
}

impl Router {
    /// Looks for the one at `gateway`.
    pub(super) async fn find(gateway: &Gateway, egress: &Egress, config: &NatConfig) -> Result<Self, String> {
        let failed = |e: io::Error| format!("UPnP: {e}");
        // Both ends of this are here, whatever device was chosen for the outside.
        let near = udp_at(&Egress::default(), (Ipv4Addr::LOCALHOST, 0).into()).map_err(failed)?;
        let mut options = SearchOptions::default();
        options.bind_addr = (Ipv4Addr::LOCALHOST, 0).into();
        options.broadcast_address = near.local_addr().map_err(failed)?;
        options.timeout = Some(SEARCH);
        options.allowed_gateway_ips = vec![gateway.router.ip()];
        let device = tokio::select! {
            found = search_gateway(options) => found.map_err(|e| format!("UPnP: {e}"))?,
            Err(e) = relay(&near, gateway, egress, config) => return Err(failed(e)),
        };
        Ok(Self { device })
    }

    async fn external_ip(&self) -> Result<IpAddr, String> {
        within(self.device.get_external_ip()).await
    }
}

/// Asks the network what `igd_next` asks `near`, a socket on loopback, and gives it what the router answers, and nothing
/// that others do. Ends only with an error.
async fn relay(near: &UdpSocket, gateway: &Gateway, egress: &Egress, config: &NatConfig) -> io::Result<()> {
    // By the address the system knows by which device the question is to leave.
    let far = udp_at(egress, SocketAddr::new(gateway.ours, 0))?;
    let mut question = [0; MAX_ANSWER];
    let (_, asker) = near.recv_from(&mut question).await?;
    for target in TARGETS {
        let question = format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {}\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\nST: urn:schemas-upnp-org:{target}:1\r\n\r\n",
            config.ssdp
        );
        far.send_to(question.as_bytes(), config.ssdp).await?;
    }
    let mut answer = [0; MAX_ANSWER];
    loop {
        let (len, from) = far.recv_from(&mut answer).await?;
        if from.ip() == gateway.router.ip() {
            near.send_to(answer.get(..len).unwrap_or_default(), asker).await?;
        }
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
    router: Router,
    protocol: Protocol,
    ours: SocketAddrV6,
    number: u16,
}

impl Pinhole {
    pub(super) async fn new(router: &Router, protocol: Protocol, ours: SocketAddrV6) -> Result<Self, String> {
        let number = within(router.device.add_pinhole(protocol.into(), ours, LEASE)).await?;
        Ok(Self { router: router.clone(), protocol, ours, number })
    }

    pub(super) async fn renew(&mut self) -> Result<(), String> {
        within(self.router.device.update_pinhole(self.number, LEASE)).await
    }

    pub(super) async fn remove(self) -> Result<(), String> {
        within(self.router.device.remove_pinhole(self.number)).await
    }

    pub(super) fn seen(&self) -> Mapped {
        Mapped {
            protocol: self.protocol,
            method: Method::Upnp,
            port: self.ours.port(),
            external: self.ours.into(),
            router: self.router.device.addr.ip(),
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
