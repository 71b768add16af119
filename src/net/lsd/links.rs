//! The networks that this machine is in, as far as we listen there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use if_addrs::{IfAddr, Interface};

use crate::swarm::address_filter::is_local;

/// One interface on which announces go out, and where we listen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Link {
    /// The interface's number.
    pub(super) index: u32,
    /// Its address, which IPv4 needs to choose it; `None` on an IPv6 link.
    pub(super) v4: Option<Ipv4Addr>,
    /// The port on which we listen for peers.
    pub(super) port: u16,
}

/// All interfaces, looked at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    pub(super) links: Vec<Link>,
    /// Every address of this machine, with what part of it names the network.
    networks: Vec<(IpAddr, IpAddr)>,
}

impl Links {
    /// Those of `interfaces` on which one of the `listen` addresses is reached: one per interface and family. The
    /// loopback interface counts only if `loopback` is set.
    pub(super) fn new(interfaces: &[Interface], listen: &[SocketAddr], loopback: bool) -> Self {
        let mut all = Self::default();
        // Who is at the other end of a tunnel is not near.
        let near = interfaces.iter().filter(|it| it.is_oper_up() && !it.is_p2p && (loopback || !it.is_loopback()));
        for interface in near {
            let ip = interface.ip();
            all.networks.push(match &interface.addr {
                IfAddr::V4(v4) => (ip, v4.netmask.into()),
                IfAddr::V6(v6) => (ip, v6.netmask.into()),
            });
            let here = |at: &&SocketAddr| at.ip() == ip || (at.ip().is_unspecified() && at.is_ipv4() == ip.is_ipv4());
            let (Some(index), Some(listens)) = (interface.index, listen.iter().find(here)) else { continue };
            let v4 = if let IpAddr::V4(v4) = ip { Some(v4) } else { None };
            if all.links.iter().all(|link| (link.index, link.v4.is_some()) != (index, v4.is_some())) {
                all.links.push(Link { index, v4, port: listens.port() });
            }
        }
        all
    }

    /// Whether `ip` is in one of the networks, or has an address that means nothing elsewhere.
    pub(super) fn are_near(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        is_local(ip) || self.networks.iter().any(|(ours, mask)| same_network(*ours, ip, *mask))
    }
}

fn same_network(a: IpAddr, b: IpAddr, mask: IpAddr) -> bool {
    match (a, b, mask) {
        (IpAddr::V4(a), IpAddr::V4(b), IpAddr::V4(mask)) => {
            let mask = mask.to_bits();
            mask != 0 && a.to_bits() & mask == b.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b), IpAddr::V6(mask)) => {
            let mask = mask.to_bits();
            mask != 0 && a.to_bits() & mask == b.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(index: u32, ip: &str, mask: &str) -> Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => {
                let netmask = mask.parse().unwrap();
                IfAddr::V4(Ifv4Addr { ip, netmask, prefixlen: 0, broadcast: None })
            }
            IpAddr::V6(ip) => {
                let netmask: Ipv6Addr = mask.parse().unwrap();
                IfAddr::V6(Ifv6Addr { ip, netmask, prefixlen: 0, broadcast: None })
            }
        };
        let name = format!("eth{index}");
        Interface { name, addr, index: Some(index), oper_status: IfOperStatus::Up, is_p2p: false }
    }

    fn machine() -> Vec<Interface> {
        let mut down = interface(5, "192.168.7.1", "255.255.255.0");
        down.oper_status = IfOperStatus::Unknown;
        let mut tunnel = interface(6, "10.8.0.2", "255.255.255.255");
        tunnel.is_p2p = true;
        vec![
            interface(1, "127.0.0.1", "255.0.0.0"),
            interface(1, "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            interface(2, "192.168.1.5", "255.255.255.0"),
            interface(2, "192.168.1.6", "255.255.255.0"),
            interface(2, "fe80::5", "ffff:ffff:ffff:ffff::"),
            interface(2, "2600:1:2:3::5", "ffff:ffff:ffff:ffff::"),
            interface(3, "11.22.33.44", "255.255.255.240"),
            down,
            tunnel,
        ]
    }

    #[test]
    fn where_we_listen() {
        let links = |listen: &[&str], loopback| {
            let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().unwrap()).collect();
            let found = Links::new(&machine(), &listen, loopback).links;
            found.iter().map(|link| (link.index, link.v4.is_some(), link.port)).collect::<Vec<_>>()
        };
        assert_eq!(links(&["0.0.0.0:7", "[::]:8"], false), [(2, true, 7), (2, false, 8), (3, true, 7)]);
        assert_eq!(links(&["192.168.1.6:7"], false), [(2, true, 7)]);
        assert_eq!(links(&["[2600:1:2:3::5]:8"], false), [(2, false, 8)]);
        assert_eq!(links(&["127.0.0.1:7", "[::1]:8"], false), []);
        assert_eq!(links(&["127.0.0.1:7", "[::1]:8"], true), [(1, true, 7), (1, false, 8)]);
        assert_eq!(links(&[], true), []);
    }

    #[test]
    fn who_is_near() {
        let links = Links::new(&machine(), &[], false);
        for (ip, near) in [
            ("192.168.200.1", true),
            ("10.0.0.1", true),
            ("fe80::9", true),
            ("11.22.33.46", true),
            ("11.22.33.48", false),
            ("2600:1:2:3:4::", true),
            ("2600:1:2:4::", false),
            ("8.8.8.8", false),
            ("::ffff:11.22.33.46", true),
        ] {
            assert_eq!(links.are_near(ip.parse().unwrap()), near, "{ip}");
        }
    }
}
