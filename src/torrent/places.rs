//! Places for connections: so many in all, and of these so many with one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::swarm::address_filter::is_local;

/// Of all connections those with one address may be one part in so many, over all torrents. A torrent has few with each
/// address; this is for who has many torrents in common with us, and for who pretends to.
const SHARE: usize = 8;

/// ... but always so many (`limits.md`).
const LEAST_SHARE: usize = 8;

/// Connections with each address.
type Counts = Mutex<HashMap<IpAddr, usize>>;

/// How many connections there may be.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    /// With one address, but for those of the local network.
    share: usize,
    taken: Arc<Counts>,
}

/// One connection's place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    counted: Option<(Arc<Counts>, IpAddr)>,
}

impl Places {
    pub(super) fn new(max_connections: usize) -> Self {
        let share = (max_connections / SHARE).max(LEAST_SHARE);
        Self { all: Arc::new(Semaphore::new(max_connections)), share, taken: Arc::default() }
    }

    /// A place for a connection with `ip`, if one is free.
    pub(super) fn take(&self, ip: IpAddr) -> Option<Place> {
        let permit = self.all.clone().try_acquire_owned().ok()?;
        let ip = ip.to_canonical();
        if is_local(ip) {
            return Some(Place { _permit: permit, counted: None });
        }
        let ip = owner(ip);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(ip).or_default();
        if *count >= self.share {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(Place { _permit: permit, counted: Some((self.taken.clone(), ip)) })
    }

    /// A place for what is no peer.
    pub(super) fn take_any(&self) -> Option<Place> {
        self.all.clone().try_acquire_owned().ok().map(|permit| Place { _permit: permit, counted: None })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((taken, ip)) = &self.counted else { return };
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(ip) {
            *count -= 1;
            if *count == 0 {
                taken.remove(ip);
            }
        }
    }
}

/// What one customer of a provider has: an address, of IPv6 a /64.
fn owner(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_all_places() {
        let places = Places::new(100);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let take = |text: &str| std::iter::from_fn(|| places.take(ip(text))).take(1_000).collect::<Vec<_>>();
        let first = take("192.0.2.1");
        assert_eq!(first.len(), 12);
        assert_eq!(take("::ffff:192.0.2.1").len(), 0, "the same in other words");
        let second = take("2001:db8::1");
        assert_eq!((second.len(), take("2001:db8::2").len(), take("2001:db8:0:1::1").len()), (12, 0, 12));
        drop(first);
        assert_eq!(take("192.0.2.1").len(), 12);
        assert_eq!(take("127.0.0.1").len(), 88, "the local network has what is left");
        drop(second);
        assert!(places.taken.lock().unwrap().is_empty());
        assert_eq!(std::iter::from_fn(|| places.take_any()).take(1_000).collect::<Vec<_>>().len(), 100);
        let few = Places::new(20);
        assert_eq!(std::iter::from_fn(|| few.take(ip("192.0.2.1"))).take(1_000).collect::<Vec<_>>().len(), 8);
    }
}
