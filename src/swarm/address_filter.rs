//! Which addresses may be dialled at all: strangers must not make us knock at other people's doors.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::candidates::Source;

/// The address with mapped IPv4 (`::ffff:a.b.c.d`) written as IPv4 and without flow information, so that one
/// peer is one key. The scope of link-local addresses stays: without it they cannot be dialled.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(mut v6) if v6.ip().to_ipv4_mapped().is_none() => {
            v6.set_flowinfo(0);
            SocketAddr::V6(v6)
        }
        _ => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
    }
}

/// Whether `ip` means something else in every network: loopback, private, link-local, shared (RFC 6598), unique local.
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unique_local(),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether `ip` can be the address of one host: not unspecified, multicast, broadcast or reserved.
pub fn is_host(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => !v4.is_multicast() && v4.octets()[0] != 0 && v4 < Ipv4Addr::new(240, 0, 0, 0),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    }
}

/// Ports of well-known services, where nobody runs a BitTorrent client, but where a victim may listen. Some
/// peers do hide behind the ports of the web.
fn is_privileged(port: u16) -> bool {
    port < 1024 && port != 80 && port != 443
}

/// Whether an address heard of from `source` may be dialled. `told_by` is who said so, for trackers, peer exchange and the
/// DHT: a local address means something only to those who are in the same place. A tracker may be on the internet and
/// serve a network of private addresses, as at a university; of this machine and this link it knows nothing, either.
pub fn may_dial(addr: SocketAddr, source: Source, told_by: Option<IpAddr>, privileged_ports: bool) -> bool {
    let ip = addr.ip().to_canonical();
    if addr.port() == 0 || !is_host(ip) {
        return false;
    }
    if !privileged_ports && source != Source::Manual && is_privileged(addr.port()) {
        return false;
    }
    match source {
        Source::Tracker | Source::Pex | Source::Dht if ip.is_loopback() => {
            told_by.is_some_and(|by| by.to_canonical().is_loopback())
        }
        Source::Tracker if is_link_local(ip) => told_by.is_some_and(is_local),
        Source::Pex | Source::Dht if is_local(ip) => told_by.is_some_and(is_local),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_say_what() {
        use Source::{Dht, Lsd, Manual, Pex, Tracker};
        let cases: &[(&str, Source, Option<&str>, bool)] = &[
            ("9.9.9.9:6881", Pex, Some("8.8.8.8"), true),
            ("9.9.9.9:6881", Pex, None, true),
            ("9.9.9.9:443", Pex, None, true),
            ("9.9.9.9:0", Manual, None, false),
            ("9.9.9.9:22", Pex, None, false),
            ("9.9.9.9:25", Tracker, None, false),
            ("9.9.9.9:53", Dht, None, false),
            ("9.9.9.9:22", Manual, None, true),
            ("0.0.0.0:6881", Manual, None, false),
            ("0.1.2.3:6881", Tracker, None, false),
            ("224.0.0.1:6881", Tracker, None, false),
            ("240.0.0.1:6881", Tracker, None, false),
            ("255.255.255.255:6881", Tracker, None, false),
            ("[::]:6881", Tracker, None, false),
            ("[ff02::1]:6881", Tracker, None, false),
            ("[::ffff:224.0.0.1]:6881", Tracker, None, false),
            ("[2600::1]:6881", Pex, None, true),
            ("127.0.0.1:6881", Tracker, None, false),
            ("127.0.0.1:6881", Tracker, Some("8.8.8.8"), false),
            ("127.0.0.1:6881", Tracker, Some("127.0.0.1"), true),
            ("192.168.0.1:6881", Tracker, Some("8.8.8.8"), true),
            ("169.254.0.1:6881", Tracker, Some("8.8.8.8"), false),
            ("[fe80::1]:6881", Tracker, Some("2600::1"), false),
            ("169.254.0.1:6881", Tracker, Some("192.168.0.2"), true),
            ("9.9.9.9:6881", Tracker, None, true),
            ("127.0.0.1:6881", Manual, None, true),
            ("127.0.0.1:6881", Pex, Some("8.8.8.8"), false),
            ("127.0.0.1:6881", Pex, Some("192.168.0.2"), false),
            ("127.0.0.1:6881", Pex, Some("::1"), true),
            ("192.168.0.3:6881", Pex, Some("192.168.0.2"), true),
            ("192.168.0.3:6881", Pex, Some("8.8.8.8"), false),
            ("10.0.0.3:6881", Dht, None, false),
            ("169.254.3.3:6881", Pex, None, false),
            ("100.64.3.3:6881", Pex, None, false),
            ("100.128.3.3:6881", Pex, None, true),
            ("[fe80::1]:6881", Pex, Some("2600::2"), false),
            ("[fd00::1]:6881", Pex, Some("fd00::2"), true),
            ("[::ffff:127.0.0.1]:6881", Pex, Some("8.8.8.8"), false),
            ("192.168.0.3:6881", Lsd, None, true),
        ];
        for &(addr, source, by, expected) in cases {
            let by = by.map(|by| by.parse().unwrap());
            assert_eq!(may_dial(addr.parse().unwrap(), source, by, false), expected, "{addr} {source:?} {by:?}");
        }
        assert!(may_dial("9.9.9.9:22".parse().unwrap(), Pex, None, true));
    }
}
