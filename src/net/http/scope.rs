//! Which addresses a URL from a stranger may lead to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On the internet.
    Public,
    /// On this machine or in its network: loopback, private, shared (100.64/10), unique local (fc00::/7).
    Local,
    /// Nothing that a URL has to name: unspecified, link-local (where clouds keep their metadata), multicast, reserved.
    Never,
}

/// Where `ip` lies. IPv4 inside IPv6 (mapped, NAT64, 6to4) counts as what it holds.
pub fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Scope {
    let [a, b, ..] = ip.octets();
    if a == 0 || a >= 224 || ip.is_link_local() {
        Scope::Never
    } else if ip.is_loopback() || ip.is_private() || (a == 100 && b & 0xc0 == 64) {
        Scope::Local
    } else {
        Scope::Public
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let inner = |high: u16, low: u16| {
        let [[w, x], [y, z]] = [high.to_be_bytes(), low.to_be_bytes()];
        scope_v4(Ipv4Addr::new(w, x, y, z))
    };
    match [a, b, c, d, e, f] {
        _ if ip.is_loopback() => Scope::Local,
        // Unspecified, and the long abandoned "compatible" form.
        [0, 0, 0, 0, 0, 0] => Scope::Never,
        [0x64, 0xff9b, 0, 0, 0, 0] => inner(g, h),
        [0x2002, ..] => inner(b, c),
        // NAT64 for local use (RFC 8215): whoever runs it says what it leads to.
        [0x64, 0xff9b, 1, ..] => Scope::Local,
        _ if ip.is_unicast_link_local() || ip.is_multicast() => Scope::Never,
        _ if ip.is_unique_local() => Scope::Local,
        _ => Scope::Public,
    }
}

/// Which addresses are acceptable for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The internet only.
    Public,
    /// This machine and its network too.
    Local,
}

impl Reach {
    /// Whether `ip` may be asked.
    pub fn allows(self, ip: IpAddr) -> bool {
        match scope(ip) {
            Scope::Public => true,
            Scope::Local => self == Self::Local,
            Scope::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t8_scopes() {
        for (ips, expected) in [
            ("8.8.8.8 1.1.1.1 172.32.0.1 100.128.0.1 2606:4700::1111 64:ff9b::808:808 2002:808:808::1", Scope::Public),
            (
                "127.0.0.1 127.1.2.3 10.1.2.3 172.16.0.1 192.168.1.1 100.64.0.1 ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 \
                 fd00::1 64:ff9b::7f00:1 64:ff9b:1::808:808 2002:7f00:1::",
                Scope::Local,
            ),
            (
                "0.0.0.0 0.1.2.3 169.254.169.254 224.0.0.1 255.255.255.255 240.0.0.1 :: fe80::1 ff02::1 \
                 ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::7f00:1 64:ff9b::a9fe:a9fe",
                Scope::Never,
            ),
        ] {
            for ip in ips.split_whitespace() {
                assert_eq!(scope(ip.parse().unwrap()), expected, "{ip}");
            }
        }
    }
}
