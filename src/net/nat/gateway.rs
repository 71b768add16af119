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
