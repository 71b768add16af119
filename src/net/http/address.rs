//! Which addresses a URL from a stranger may lead to, and the look-up of names that keeps to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::egress::Egress;
use crate::tracker::{Family, printable};

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

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

/// Why a name led to no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// It does not exist, or nobody answers.
    #[error("{0}")]
    Failed(String),
    /// It has addresses, but none of this family.
    #[error("no {0} address")]
    NoFamily(Family),
    /// It has addresses, but none that may be asked.
    #[error("it leads to {0}, which {what}", what = match scope(*.0) {
        Scope::Local => "is in the local network and asked only as a tracker, under a path that ends in /announce",
        _ => "is never asked",
    })]
    Refused(IpAddr),
}

/// The addresses of `host`, of one family if one is given, filtered by `reach`: at least one.
///
/// # Errors
/// See [`LookupError`]. Bounded in time by the caller.
pub async fn lookup(
    egress: &Egress,
    host: &str,
    port: u16,
    family: Option<Family>,
    reach: Reach,
) -> Result<Vec<SocketAddr>, LookupError> {
    let found = egress.lookup(host, port).await;
    let found = found.map_err(|e| {
        let text = e.to_string();
        // That it was about addresses is told already.
        let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
        LookupError::Failed(printable(text.as_bytes(), 120))
    })?;
    select(found.into_iter(), family, reach)
}

fn select(
    found: impl Iterator<Item = SocketAddr>,
    family: Option<Family>,
    reach: Reach,
) -> Result<Vec<SocketAddr>, LookupError> {
    let (mut addresses, mut refused, mut any) = (Vec::new(), None, false);
    for address in found.map(|a| SocketAddr::new(a.ip().to_canonical(), a.port())) {
        any = true;
        if family.is_some_and(|f| f != Family::of(address.ip())) {
            continue;
        }
        if !reach.allows(address.ip()) {
            refused = Some(address.ip());
        } else if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match (addresses.is_empty(), refused, family) {
        (false, ..) => Ok(addresses),
        (_, Some(ip), _) => Err(LookupError::Refused(ip)),
        (_, None, Some(family)) if any => Err(LookupError::NoFamily(family)),
        _ => Err(LookupError::Failed("the name has no address".into())),
    }
}

/// A look-up of names for `reqwest`, which asks it for every new connection: a name that changes its address between
/// two requests (DNS rebinding) gains nothing.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) egress: Egress,
    pub(super) family: Option<Family>,
    pub(super) reach: Reach,
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (egress, family, reach) = (self.egress.clone(), self.family, self.reach);
        Box::pin(async move {
            // Port 0 stands for the port of the URL.
            let addresses = lookup(&egress, name.as_str(), 0, family, reach).await?;
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
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
                 fd00::1 64:ff9b::7f00:1 2002:7f00:1::",
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

    #[test]
    fn t7_what_a_name_may_lead_to() {
        let addresses = |list: &str| -> Vec<SocketAddr> { list.split(' ').map(|a| a.parse().unwrap()).collect() };
        let mixed = addresses("1.1.1.1:80 [2606::1]:80 127.0.0.1:80 169.254.1.1:80 1.1.1.1:80");
        let chosen = |family, reach| select(mixed.clone().into_iter(), family, reach);
        assert_eq!(chosen(None, Reach::Public), Ok(addresses("1.1.1.1:80 [2606::1]:80")));
        assert_eq!(chosen(Some(Family::V4), Reach::Local), Ok(addresses("1.1.1.1:80 127.0.0.1:80")));
        let local = || addresses("127.0.0.1:80").into_iter();
        assert!(matches!(select(local(), None, Reach::Public), Err(LookupError::Refused(_))));
        assert_eq!(select(local(), Some(Family::V6), Reach::Local), Err(LookupError::NoFamily(Family::V6)));
        assert!(matches!(select([].into_iter(), None, Reach::Local), Err(LookupError::Failed(_))));
    }
}
