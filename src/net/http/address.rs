//! The look-up of names that strangers gave, which keeps to the addresses that they may lead to.

use std::net::{IpAddr, SocketAddr};

use super::scope::{Reach, Scope, scope};
use crate::net::egress::Egress;
use crate::tracker::{Family, printable};

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

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
