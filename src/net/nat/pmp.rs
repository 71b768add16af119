//! PCP (RFC 6887), and NAT-PMP (RFC 6886) where that is what the router knows.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crab_nat::{
    GatewayAddress, InternetProtocol, MappingFailure, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig,
    natpmp, pcp,
};

use super::gateway::Gateway;
use super::relay::Relay;
use super::{LEASE, Mapped, Method, Protocol};

/// A router that speaks these is in the same network, and answers at once: 250 ms, then twice, then four times that.
const TIMING: TimeoutConfig =
    TimeoutConfig { initial_timeout: Duration::from_millis(250), max_retries: 2, max_retry_timeout: None };

/// A mapping on the router.
#[derive(Debug)]
pub(super) struct Lease {
    mapping: PortMapping,
    external_ip: IpAddr,
    router: IpAddr,
    /// By which the router is spoken to, if not directly.
    _relay: Option<Arc<Relay>>,
}

impl Lease {
    /// Maps the port to `outside` if that is free there. The router is spoken to by `relay`, if there is one.
    pub(super) async fn new(
        gateway: &Gateway,
        relay: Option<Arc<Relay>>,
        protocol: Protocol,
        port: NonZeroU16,
        outside: NonZeroU16,
    ) -> Result<Self, String> {
        let router = match (&relay, gateway.router) {
            (Some(relay), _) => GatewayAddress::IpV4(relay.address),
            (None, SocketAddr::V4(v4)) => GatewayAddress::IpV4(*v4.ip()),
            (None, SocketAddr::V6(v6)) => GatewayAddress::IpV6(*v6.ip(), (v6.scope_id() != 0).then(|| v6.scope_id())),
        };
        let options = PortMappingOptions {
            external_port: Some(outside),
            lifetime_seconds: Some(LEASE),
            timeout_config: Some(TIMING),
        };
        let transport = match protocol {
            Protocol::Tcp => InternetProtocol::Tcp,
            Protocol::Udp => InternetProtocol::Udp,
        };
        let base = pcp::BaseMapRequest::new(router, gateway.ours, transport, port);
        let mapping = match pcp::port_mapping(base, None, None, options).await {
            Ok(mapping) => mapping,
            // Old routers say so in the old form, or in one that is neither.
            Err(pcp::Failure::UnsupportedVersion(_) | pcp::Failure::InvalidResponse(_)) if gateway.router.is_ipv4() => {
                natpmp::port_mapping(router, transport, port, options).await.map_err(|e| format!("NAT-PMP: {e}"))?
            }
            Err(e) => return Err(format!("PCP: {e}")),
        };
        let external_ip = match mapping.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
            PortMappingType::NatPmp => {
                let ip = natpmp::external_address(router, Some(TIMING)).await;
                ip.map_err(|e| format!("NAT-PMP: {e}"))?.into()
            }
        };
        Ok(Self { mapping, external_ip, router: gateway.router.ip(), _relay: relay })
    }

    pub(super) async fn renew(&mut self) -> Result<(), String> {
        self.mapping.renew().await.map_err(|e| e.to_string())?;
        if let PortMappingType::Pcp { external_ip, .. } = self.mapping.mapping_type() {
            self.external_ip = external_ip.to_canonical();
        } else if let Ok(ip) = natpmp::external_address(self.mapping.gateway(), Some(TIMING)).await {
            self.external_ip = ip.into();
        }
        Ok(())
    }

    pub(super) async fn remove(self) -> Result<(), String> {
        self.mapping.try_drop().await.map_err(|(e, _): (MappingFailure, _)| e.to_string())
    }

    /// How long the router has promised to keep it.
    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.mapping.lifetime().into())
    }

    pub(super) fn seen(&self, protocol: Protocol) -> Mapped {
        let method = match self.mapping.mapping_type() {
            PortMappingType::Pcp { .. } => Method::Pcp,
            PortMappingType::NatPmp => Method::NatPmp,
        };
        Mapped {
            protocol,
            method,
            port: self.mapping.internal_port().get(),
            external: SocketAddr::new(self.external_ip, self.mapping.external_port().get()),
            router: self.router,
        }
    }
}
