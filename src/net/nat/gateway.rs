//! Who may map ports for us, and which of our addresses they know.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::egress::Egress;
use crate::sys::{self, DefaultRoute};

/// A router, and us as it sees us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The router; with the number of the device if its address means something there only.
    pub router: SocketAddr,
    /// Our address in its network.
    pub ours: IpAddr,
}

/// Somewhere on the internet: packets to it would take the default route. None is ever sent there.
const FAR_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9);
const FAR_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

/// The router of one family.
///
/// # Errors
/// Why there is none, for people.
pub fn find(egress: &Egress, v4: bool) -> Result<Gateway, String> {
    let routes = if v4 { sys::default_routes_v4() } else { sys::default_routes_v6() };
    let chosen = |route: &&DefaultRoute| egress.device().is_none_or(|device| device == route.device);
    let route = routes.iter().find(chosen);
    let far = if v4 { FAR_V4 } else { FAR_V6 };
    let router = match (route.and_then(|route| route.gateway), egress.device()) {
        (Some(gateway), _) => gateway,
        // A tunnel has no router; where its other end does map ports, it has the first address of the network. So have
        // most routers at home, which is the best guess where the system does not tell.
        (None, device) if v4 && (route.is_some() || device.is_some() || !sys::TELLS_ROUTES) => {
            let ours = address_towards(egress, far).map_err(|e| e.to_string())?;
            let IpAddr::V4(ours) = ours else { return Err("no router".to_owned()) };
            let [a, b, c, _] = ours.octets();
            SocketAddr::new(Ipv4Addr::new(a, b, c, 1).into(), 0)
        }
        (None, Some(device)) => return Err(format!("no route to the internet by {device}")),
        (None, None) => return Err("no route to the internet".to_owned()),
    };
    // Of several addresses it is the one that packets to the internet come from: with IPv6 peers see that one, and to a
    // router at a link-local address we would have another.
    let ours = address_towards(egress, if v4 { SocketAddr::new(router.ip(), 9) } else { far });
    let ours = ours.map_err(|e| format!("no address: {e}"))?;
    if ours == router.ip() {
        return Err("no router".to_owned());
    }
    Ok(Gateway { router, ours })
}

/// The address that packets to `remote` come from. Nothing is sent.
fn address_towards(egress: &Egress, remote: SocketAddr) -> io::Result<IpAddr> {
    let socket = egress.udp_for(remote)?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

/// Whether packets to the router leave by the device that was chosen. What speaks to routers is not ours, and binds no
/// sockets to devices; so this is asked before every exchange.
pub(super) fn is_reached(egress: &Egress, gateway: &Gateway) -> bool {
    let Some(device) = egress.device() else { return true };
    let mut router = gateway.router;
    router.set_port(9);
    let (bound, free) = (address_towards(egress, router), address_towards(&Egress::default(), router));
    // A system may lend one device's address to another.
    let is_its_own =
        |ip| if_addrs::get_if_addrs().is_ok_and(|all| all.iter().any(|i| i.name == device && i.ip() == ip));
    matches!((bound, free), (Ok(bound), Ok(free)) if bound == free && is_its_own(bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The system would send both by the same device, with the same address.
    #[test]
    fn no_router_is_reached_by_another_device() {
        let ours = Ipv4Addr::LOCALHOST.into();
        let reached = |egress: &Egress, router: [u8; 4]| {
            is_reached(egress, &Gateway { router: SocketAddr::new(router.into(), 0), ours })
        };
        let lo = Egress::new(Some("lo".to_owned()), None, Vec::new());
        assert!(reached(&Egress::default(), [198, 51, 100, 1]));
        if lo.socket(socket2::Domain::IPV4, socket2::Type::DGRAM, socket2::Protocol::UDP).is_ok() {
            assert!(reached(&lo, [127, 0, 0, 1]));
        }
        assert!(!reached(&lo, [198, 51, 100, 1]));
        assert!(!reached(&Egress::new(Some("none-such".to_owned()), None, Vec::new()), [127, 0, 0, 1]));
    }
}
