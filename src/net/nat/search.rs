//! The search for UPnP devices (SSDP). Anybody in the network may answer it, and answers may name any address: the first
//! is taken that leads to the router itself.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Type};
use tokio::net::UdpSocket;
use url::{Host, Url};

use super::{Gateway, NatConfig};
use crate::net::egress::Egress;

/// What is searched for; whatever else a router is, it answers to one of these.
const WAN: [&str; 3] = ["device:InternetGatewayDevice", "service:WANIPConnection", "service:WANPPPConnection"];
const FIREWALL: [&str; 3] = ["device:InternetGatewayDevice", "device:WANDevice", "service:WANIPv6FirewallControl"];

/// Bytes of an answer that are read; longer ones are cut.
pub(super) const MAX_ANSWER: usize = 1_500;

/// The router's answer, and the address in it.
pub(super) async fn ask(gateway: &Gateway, egress: &Egress, config: &NatConfig) -> io::Result<(Vec<u8>, IpAddr)> {
    let (socket, to, targets) = match gateway.ours {
        IpAddr::V4(ours) => (bound(egress, (ours, 0).into())?, config.ssdp, WAN),
        IpAddr::V6(_) => {
            let socket = bound(egress, (Ipv6Addr::UNSPECIFIED, 0).into())?;
            socket.set_multicast_if_v6(device_of(gateway))?;
            (socket, config.ssdp_v6, FIREWALL)
        }
    };
    let socket = UdpSocket::from_std(socket.into())?;
    for target in targets {
        let question = format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {to}\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\nST: urn:schemas-upnp-org:{target}:1\r\n\r\n"
        );
        socket.send_to(question.as_bytes(), to).await?;
    }
    let mut buffer = [0; MAX_ANSWER];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await?;
        let answer = buffer.get(..len).unwrap_or_default();
        let location = std::str::from_utf8(answer).ok().and_then(location);
        if let Some(location) = location.filter(|location| leads_to_router(gateway, from.ip(), *location)) {
            return Ok((answer.to_vec(), location));
        }
    }
}

/// By the address the system knows by which device the question is to leave.
fn bound(egress: &Egress, address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = egress.socket(Domain::for_address(address), Type::DGRAM, socket2::Protocol::UDP)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The number of the device that leads to the router; 0 leaves it to the system.
fn device_of(gateway: &Gateway) -> u32 {
    let scope = if let SocketAddr::V6(router) = gateway.router { router.scope_id() } else { 0 };
    let by_address = || {
        let all = if_addrs::get_if_addrs().ok()?;
        all.into_iter().find(|interface| interface.ip() == gateway.ours)?.index
    };
    if scope == 0 { by_address().unwrap_or(0) } else { scope }
}

/// The address in an answer (`LOCATION: http://192.0.2.1:5000/desc.xml`).
fn location(answer: &str) -> Option<IpAddr> {
    let url = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("location").then(|| value.trim())
    })?;
    match Url::parse(url).ok()?.host()? {
        Host::Ipv4(ip) => Some(ip.into()),
        Host::Ipv6(ip) => Some(ip.into()),
        Host::Domain(_) => None,
    }
}

/// Whether what the host at `from` has answered leads to the router. With IPv6 it is mostly known by a link-local address,
/// and names another one of its own: in our network, if it is to be believed.
fn leads_to_router(gateway: &Gateway, from: IpAddr, location: IpAddr) -> bool {
    let router = gateway.router.ip();
    match (gateway.ours, location) {
        (IpAddr::V4(_), _) => from == router && location == router,
        (IpAddr::V6(ours), IpAddr::V6(there)) => {
            // Without the number of the device a link-local address leads nowhere, and answers have no place for it.
            let near = ours.segments()[..4] == there.segments()[..4] && ours != there;
            !there.is_unicast_link_local() && (location == router || (from == router && near))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_lead_to_the_router_are_taken() {
        let gateway =
            |router: &str, ours: &str| Gateway { router: router.parse().unwrap(), ours: ours.parse().unwrap() };
        let (home, link, global) = (
            gateway("192.168.0.1:0", "192.168.0.2"),
            gateway("[fe80::1]:0", "2600::2"),
            gateway("[2600::1]:0", "2600::2"),
        );
        for (gateway, from, location, leads) in [
            (&home, "192.168.0.1", "192.168.0.1", true),
            (&home, "192.168.0.1", "192.168.0.9", false),
            (&home, "192.168.0.9", "192.168.0.9", false),
            (&home, "192.168.0.9", "192.168.0.1", false),
            (&home, "192.168.0.1", "127.0.0.1", false),
            (&link, "fe80::1", "2600::1", true),
            (&link, "fe80::1", "2600::2", false),
            (&link, "fe80::1", "2600:0:0:1::1", false),
            (&link, "fe80::1", "fe80::1", false),
            (&link, "fe80::1", "::1", false),
            (&link, "fe80::9", "2600::1", false),
            (&global, "fe80::1", "2600::1", true),
            (&global, "2600::1", "192.168.0.1", false),
        ] {
            let (from, location) = (from.parse().unwrap(), location.parse().unwrap());
            assert_eq!(leads_to_router(gateway, from, location), leads, "{gateway:?} {from} {location}");
        }
    }

    #[test]
    fn addresses_in_answers() {
        let at = |text: &str| location(&format!("HTTP/1.1 200 OK\r\n{text}\r\n\r\n")).map(|ip| ip.to_string());
        assert_eq!(at("Location: http://192.0.2.1:5000/d.xml").as_deref(), Some("192.0.2.1"));
        assert_eq!(at("LOCATION:http://[2600::1]/d.xml").as_deref(), Some("2600::1"));
        for text in ["Location: http://router.example/", "Location: /d.xml", "Loc", "X: http://192.0.2.1/"] {
            assert_eq!(at(text), None, "{text}");
        }
    }
}
