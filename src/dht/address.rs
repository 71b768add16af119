//! Which addresses may stand in an answer, and which of them count as one host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address with mapped IPv4 written as IPv4, without flow and scope, so that one node is one key.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether `ip` means something else in every network: loopback, private, link-local, shared, unique local. There the
/// rules against many nodes of one owner make no sense (BEP 42 exempts them too).
pub(super) fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unique_local(),
    }
}

/// Whether an address that the node at `told_by` named can be a host's: a port, no group of hosts, and a local address
/// only from where it means the same.
pub(super) fn is_usable(address: SocketAddr, told_by: IpAddr) -> bool {
    let ip = address.ip().to_canonical();
    let host = match ip {
        IpAddr::V4(v4) => !v4.is_multicast() && v4.octets()[0] != 0 && v4 < Ipv4Addr::new(240, 0, 0, 0),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    };
    let near = if ip.is_loopback() { told_by.to_canonical().is_loopback() } else { !is_local(ip) || is_local(told_by) };
    host && near && address.port() != 0
}

/// The same for the address of a node. On the internet no node listens at the ports of well-known services, but there a
/// victim may be to whom whole networks are sent.
pub(super) fn is_usable_node(address: SocketAddr, told_by: IpAddr) -> bool {
    is_usable(address, told_by) && (address.port() >= 1024 || is_local(address.ip()))
}

/// What counts as one owner: a /24, a /64 of IPv6; one address in a local network; one port on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Owner(SocketAddr);

impl Owner {
    pub(super) fn of(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        Self(match ip {
            _ if ip.is_loopback() => SocketAddr::new(ip, address.port()),
            _ if is_local(ip) => SocketAddr::new(ip, 0),
            IpAddr::V4(v4) => SocketAddr::new(Ipv4Addr::from_bits(v4.to_bits() & 0xffff_ff00).into(), 0),
            IpAddr::V6(v6) => SocketAddr::new(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(), 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stand_in_an_answer() {
        let table = [
            ("9.9.9.9:6881", "8.8.8.8", true),
            ("9.9.9.9:0", "8.8.8.8", false),
            ("0.1.2.3:1", "8.8.8.8", false),
            ("224.0.0.1:1", "8.8.8.8", false),
            ("255.255.255.255:1", "8.8.8.8", false),
            ("127.0.0.1:1", "8.8.8.8", false),
            ("127.0.0.1:1", "192.168.1.1", false),
            ("127.0.0.1:1", "127.0.0.1", true),
            ("[::1]:1", "127.0.0.1", true),
            ("192.168.1.2:1", "8.8.8.8", false),
            ("192.168.1.2:1", "10.0.0.1", true),
            ("[::]:1", "2600::1", false),
            ("[ff02::1]:1", "2600::1", false),
            ("[::ffff:127.0.0.1]:1", "8.8.8.8", false),
            ("[2600::2]:1", "2600::1", true),
        ];
        for (address, by, expected) in table {
            assert_eq!(is_usable(address.parse().unwrap(), by.parse().unwrap()), expected, "{address} by {by}");
        }
        let usable = |address: &str| is_usable_node(address.parse().unwrap(), "10.0.0.1".parse().unwrap());
        assert!(usable("9.9.9.9:1024") && usable("10.0.0.2:53") && usable("[2600::2]:6881"));
        assert!(!usable("9.9.9.9:53") && !usable("9.9.9.9:443") && !usable("[2600::2]:123") && !usable("9.9.9.9:0"));
    }

    #[test]
    fn who_counts_as_one() {
        let one = |a: &str, b: &str| Owner::of(a.parse().unwrap()) == Owner::of(b.parse().unwrap());
        assert!(one("9.9.9.9:1", "9.9.9.200:2") && !one("9.9.9.9:1", "9.9.8.9:1"));
        assert!(one("[2600::1]:1", "[2600::ff:2]:1") && !one("[2600::1]:1", "[2600:0:0:1::1]:1"));
        assert!(!one("127.0.0.1:1", "127.0.0.1:2") && one("127.0.0.1:1", "127.0.0.1:1"));
        assert!(!one("10.0.0.1:1", "10.0.0.2:1") && one("10.0.0.1:1", "10.0.0.1:2"));
    }
}
