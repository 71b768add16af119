use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::PeerId;

/// Peers that we ask a tracker for.
pub const NUMWANT: u32 = 200;

/// Peers that we take from one answer; the rest is dropped. Five times what we ask for.
pub(crate) const MAX_PEERS: usize = 1000;

/// How long between announces when the tracker does not say.
pub(crate) const DEFAULT_INTERVAL: Duration = Duration::from_secs(1800);

/// The shortest interval that we obey: nothing a tracker says may make us flood it, or another.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// The longest: a tracker that says "in 68 years" would never see us again.
pub(crate) const MAX_INTERVAL: Duration = Duration::from_secs(86_400);

/// Seconds from a tracker, brought into the range we obey.
pub(crate) fn clamp_interval(seconds: i128) -> Duration {
    let seconds = u64::try_from(seconds.max(0)).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).clamp(MIN_INTERVAL, MAX_INTERVAL)
}

/// IPv4 or IPv6. Each is announced on its own, from an address of that family (BEP 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What an announce tells besides the numbers (BEP 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// A regular announce.
    None,
    /// The first one.
    Started,
    /// The download has just become complete. Not sent if it was complete at the start.
    Completed,
    /// We leave.
    Stopped,
}

/// One announce, as it is sent (BEP 3, BEP 15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The torrent: its v1 hash, or its v2 hash truncated.
    pub info_hash: [u8; 20],
    /// Our peer id.
    pub peer_id: PeerId,
    /// The port that we listen on, in the family of the announce.
    pub port: u16,
    /// Payload bytes sent since `started`.
    pub uploaded: u64,
    /// Payload bytes received since `started`.
    pub downloaded: u64,
    /// Bytes that are still missing.
    pub left: u64,
    /// What happened.
    pub event: AnnounceEvent,
    /// Peers wanted.
    pub numwant: u32,
    /// Random and the same for the whole run, so that a tracker can tell that two of our addresses are one peer (BEP 7).
    pub key: u32,
    /// What the tracker gave us as its `tracker id`, if it did (HTTP only).
    pub tracker_id: Option<Vec<u8>>,
    /// Our address as we want it known, where the tracker sees another one. Most trackers ignore it.
    pub ip: Option<IpAddr>,
}

/// What a tracker says to an announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceResponse {
    /// Addresses of peers, at most 1,000, none with port 0 or an address that cannot be dialled. Not deduplicated.
    pub peers: Vec<SocketAddr>,
    /// Peers that have everything.
    pub seeders: Option<u32>,
    /// Peers that do not.
    pub leechers: Option<u32>,
    /// How often the torrent was completed.
    pub downloaded: Option<u32>,
    /// When to announce again, 60 to 86,400 s; `None`: it did not say.
    pub interval: Option<Duration>,
    /// Not to announce earlier than this, 60 to 86,400 s.
    pub min_interval: Option<Duration>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// To be sent back with the next announce.
    pub tracker_id: Option<Vec<u8>>,
    /// A message for the user, printable and short.
    pub warning: Option<String>,
    /// Who said so, as far as we can see: the tracker, or the proxy through which it was asked. Added by who asked.
    pub from: Option<IpAddr>,
}

/// What a tracker counts for one torrent (BEP 48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeEntry {
    /// Which torrent.
    pub info_hash: [u8; 20],
    /// Peers that have everything.
    pub seeders: u32,
    /// Peers that do not.
    pub leechers: u32,
    /// How often it was completed.
    pub downloaded: u32,
}

/// What a tracker says to a scrape: the torrents asked for that it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrapeResponse {
    /// One per known torrent.
    pub files: Vec<ScrapeEntry>,
}

/// Whether an address from a tracker can be a peer's at all.
pub(crate) fn is_dialable(peer: SocketAddr) -> bool {
    let address_ok = match peer.ip() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    };
    address_ok && peer.port() != 0
}

/// Reads compact peers: 6 bytes each for IPv4 (BEP 23), 18 for IPv6 (BEP 7). A partial entry at the end is skipped.
pub(crate) fn compact_peers(bytes: &[u8], family: Family, peers: &mut Vec<SocketAddr>) {
    let room = MAX_PEERS.saturating_sub(peers.len());
    let found = |ip: IpAddr, port: [u8; 2]| SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(port));
    match family {
        Family::V4 => {
            let all =
                bytes.as_chunks::<6>().0.iter().map(|[a, b, c, d, p, q]| found([*a, *b, *c, *d].into(), [*p, *q]));
            peers.extend(all.filter(|p| is_dialable(*p)).take(room));
        }
        Family::V6 => {
            let all = bytes.as_chunks::<18>().0.iter().filter_map(|entry| {
                let (ip, port) = entry.split_first_chunk::<16>()?;
                Some(found((*ip).into(), *port.first_chunk::<2>()?))
            });
            peers.extend(all.filter(|p| is_dialable(*p)).take(room));
        }
    }
}
