use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ExtensionError;
use super::bencoding::{put_string, string};
use crate::base::bencode::{Dictionary, Limits};

/// The most peers added, and the most dropped, in one message that we send, and the most that we keep of one that we
/// receive (BEP 11: "should not exceed 50 entries").
pub const MAX_PEX_PEERS: usize = 50;

/// Of those, places that IPv6 gets if both families are there: a flood of one must not shut out the other.
const V6_SHARE: usize = MAX_PEX_PEERS / 2;

/// The longest payload that is looked at, in bytes.
const MAX_MESSAGE: usize = 64 << 10;

/// What peers tell each other about the swarm, at most once a minute (BEP 11). Not to be believed: who keeps addresses
/// decides which may be dialled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pex {
    /// Peers to which the sender is now connected.
    pub added: Vec<PexPeer>,
    /// Peers to which it no longer is.
    pub dropped: Vec<SocketAddr>,
}

/// One peer that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PexPeer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What is known about it.
    pub flags: PexFlags,
}

/// What is known about a peer (BEP 11). Unknown bits are kept and mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PexFlags(pub u8);

impl PexFlags {
    /// Prefers encrypted connections.
    pub const ENCRYPTION: Self = Self(0x01);
    /// Is a seed, or downloads nothing any more.
    pub const SEED: Self = Self(0x02);
    /// Knows uTP.
    pub const UTP: Self = Self(0x04);
    /// Knows `ut_holepunch`.
    pub const HOLEPUNCH: Self = Self(0x08);
    /// Was dialled by the sender, so it can be.
    pub const REACHABLE: Self = Self(0x10);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Pex {
    /// Reads the payload of a `ut_pex` message. Of each list at most [`MAX_PEX_PEERS`] are kept. Left out are port 0 and
    /// what names an IP address again, even with another port (BEP 11, "security considerations"). Flags whose number
    /// does not fit are left out too.
    ///
    /// # Errors
    /// Too long, not a dictionary, or a list that is no whole number of addresses.
    pub fn parse(payload: &[u8]) -> Result<Self, ExtensionError> {
        if payload.len() > MAX_MESSAGE {
            return Err(ExtensionError::Length(payload.len()));
        }
        let fields = Dictionary::parse(payload, Limits::MESSAGE)?;
        let text = |key: &str| fields.raw(key.as_bytes()).and_then(string).unwrap_or_default();
        let added = Lists::new(text("added"), text("added6"))?.flagged(text("added.f"), text("added6.f"));
        let dropped = Lists::new(text("dropped"), text("dropped6"))?.flagged(&[], &[]);
        Ok(Self { added, dropped: dropped.into_iter().map(|peer| peer.addr).collect() })
    }

    /// The payload, with the first [`MAX_PEX_PEERS`] of each list. There is nothing to send if both are empty.
    pub fn encode(&self) -> Vec<u8> {
        let mut added = Compact::default();
        for peer in self.added.iter().take(MAX_PEX_PEERS) {
            added.push(peer.addr, peer.flags);
        }
        let mut dropped = Compact::default();
        for addr in self.dropped.iter().take(MAX_PEX_PEERS) {
            dropped.push(*addr, PexFlags::default());
        }
        let mut out = Vec::with_capacity(64 + added.v4.len() + added.v6.len() + dropped.v4.len() + dropped.v6.len());
        out.push(b'd');
        for (key, list) in [
            ("added", added.v4),
            ("added.f", added.v4_flags),
            ("added6", added.v6),
            ("added6.f", added.v6_flags),
            ("dropped", dropped.v4),
            ("dropped6", dropped.v6),
        ] {
            // Some old clients look for the first two without asking whether they are there.
            if !list.is_empty() || matches!(key, "added" | "added.f") {
                put_string(&mut out, key.as_bytes());
                put_string(&mut out, &list);
            }
        }
        out.push(b'e');
        out
    }
}

/// Addresses of both families, as they came.
struct Lists<'a> {
    v4: &'a [[u8; 6]],
    v6: &'a [[u8; 18]],
}

impl<'a> Lists<'a> {
    fn new(v4: &'a [u8], v6: &'a [u8]) -> Result<Self, ExtensionError> {
        match (v4.as_chunks(), v6.as_chunks()) {
            ((v4, []), (v6, [])) => Ok(Self { v4, v6 }),
            ((_, []), _) => Err(ExtensionError::Length(v6.len())),
            _ => Err(ExtensionError::Length(v4.len())),
        }
    }

    fn flagged(self, v4_flags: &[u8], v6_flags: &[u8]) -> Vec<PexPeer> {
        let v4_flags = if v4_flags.len() == self.v4.len() { v4_flags } else { &[] };
        let v6_flags = if v6_flags.len() == self.v6.len() { v6_flags } else { &[] };
        let v4 = self.v4.iter().map(|bytes| {
            let [a, b, c, d, port @ ..] = *bytes;
            SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes(port))
        });
        let v6 = self.v6.iter().filter_map(|bytes| {
            let (ip, port) = bytes.split_first_chunk::<16>()?;
            // An IPv4 address in disguise is that address.
            Some(SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), u16::from_be_bytes(*port.first_chunk()?)))
        });
        let v4 = v4.zip(v4_flags.iter().copied().chain(std::iter::repeat(0)));
        let v6 = v6.zip(v6_flags.iter().copied().chain(std::iter::repeat(0)));
        let mut kept: Vec<PexPeer> = Vec::with_capacity(MAX_PEX_PEERS.min(self.v4.len() + self.v6.len()));
        let mut keep = |addr: SocketAddr, flags: u8, ceiling: usize| {
            // At most fifty are compared.
            if kept.len() < ceiling && addr.port() != 0 && kept.iter().all(|peer| peer.addr.ip() != addr.ip()) {
                kept.push(PexPeer { addr, flags: PexFlags(flags) });
            }
        };
        let v4_ceiling = MAX_PEX_PEERS - self.v6.len().min(V6_SHARE);
        v4.for_each(|(addr, flags)| keep(addr, flags, v4_ceiling));
        v6.for_each(|(addr, flags)| keep(addr, flags, MAX_PEX_PEERS));
        kept
    }
}

/// Addresses as they are sent.
#[derive(Default)]
struct Compact {
    v4: Vec<u8>,
    v4_flags: Vec<u8>,
    v6: Vec<u8>,
    v6_flags: Vec<u8>,
}

impl Compact {
    fn push(&mut self, addr: SocketAddr, flags: PexFlags) {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => {
                self.v4.extend_from_slice(&ip.octets());
                self.v4.extend_from_slice(&addr.port().to_be_bytes());
                self.v4_flags.push(flags.0);
            }
            IpAddr::V6(ip) => {
                self.v6.extend_from_slice(&ip.octets());
                self.v6.extend_from_slice(&addr.port().to_be_bytes());
                self.v6_flags.push(flags.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(n: u16) -> SocketAddr {
        let [a, b] = n.to_be_bytes();
        SocketAddr::new(Ipv4Addr::new(10, 1, a, b).into(), 6881)
    }

    fn v6(n: u16) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into(), 6881)
    }

    fn dictionary(fields: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = vec![b'd'];
        for (key, value) in fields {
            put_string(&mut out, key.as_bytes());
            put_string(&mut out, value);
        }
        out.push(b'e');
        out
    }

    #[test]
    fn there_and_back() {
        let pex = Pex {
            added: vec![
                PexPeer { addr: v4(1), flags: PexFlags::SEED.or(PexFlags::REACHABLE) },
                PexPeer { addr: v6(2), flags: PexFlags::UTP },
            ],
            dropped: vec![v4(3), v6(4)],
        };
        let bytes = pex.encode();
        assert!(Dictionary::parse(&bytes, Limits::MESSAGE).unwrap().is_canonical());
        assert_eq!(Pex::parse(&bytes), Ok(pex));
        assert_eq!(Pex::parse(b"de"), Ok(Pex::default()));
        assert_eq!(Pex::parse(&Pex::default().encode()), Ok(Pex::default()));
    }

    /// E9: too many, twice, nowhere, mismatched.
    #[test]
    fn floods_and_nonsense() {
        let flood: Vec<u8> =
            (0..3_000u16).flat_map(|n| [10, 2, n.to_be_bytes()[0], n.to_be_bytes()[1], 1, 1]).collect();
        let flood6: Vec<u8> =
            (0..1_000u16).flat_map(|n| [&[0x20; 14], &n.to_be_bytes()[..], &[1, 1]].concat()).collect();
        let count = |fields: &[(&str, &[u8])]| {
            let pex = Pex::parse(&dictionary(fields)).unwrap();
            (pex.added.len(), pex.added.iter().filter(|p| p.addr.is_ipv6()).count(), pex.dropped.len())
        };
        assert_eq!(count(&[("added", &flood), ("dropped", &flood)]), (50, 0, 50));
        assert_eq!(count(&[("added", &flood), ("added6", &flood6)]), (50, 25, 0));
        assert_eq!(count(&[("added6", &flood6), ("dropped6", &flood6[..180])]), (50, 50, 10));
        assert_eq!(count(&[("added", &[1, 2, 3, 4, 0, 0])]), (0, 0, 0));
        assert_eq!(count(&[("added", &[1, 2, 3, 4, 0, 5, 1, 2, 3, 4, 0, 6])]), (1, 0, 0));
        let mapped = [&[0; 10], &[0xff; 2][..], &[1, 2, 3, 4, 0, 9]].concat();
        assert_eq!(count(&[("added", &[1, 2, 3, 4, 0, 5]), ("added6", &mapped)]), (1, 0, 0));
        for flags in [[].as_slice(), &[1, 1], &[0xff; 300]] {
            let pex = Pex::parse(&dictionary(&[("added", &[1, 2, 3, 4, 0, 5]), ("added.f", flags)])).unwrap();
            assert_eq!(pex.added[0].flags, PexFlags(0));
        }
        for (key, len) in [("added", 5), ("added", 7), ("added6", 19), ("dropped", 1), ("dropped6", 6)] {
            assert_eq!(Pex::parse(&dictionary(&[(key, &vec![1; len])])), Err(ExtensionError::Length(len)));
        }
        assert!(Pex::parse(&dictionary(&[("added", &[1; 66_000])])).is_err());
        assert!(Pex::parse(b"le").is_err());
    }

    #[test]
    fn what_we_send_is_bounded() {
        let added = (0..200).map(|n| PexPeer { addr: v4(n), flags: PexFlags(1) }).collect();
        let bytes = Pex { added, dropped: (200..400).map(v4).collect() }.encode();
        let back = Pex::parse(&bytes).unwrap();
        assert_eq!((back.added.len(), back.dropped.len()), (50, 50));
        assert!(bytes.len() < 1_000);
    }

    proptest! {
        #[test]
        fn any_lists(
            a in prop::collection::vec(any::<[u8; 6]>(), 0..70),
            a6 in prop::collection::vec(any::<[u8; 18]>(), 0..70),
            f: Vec<u8>,
            d in prop::collection::vec(any::<u8>(), 0..13),
        ) {
            let (a, a6) = (a.concat(), a6.concat());
            let bytes = dictionary(&[("added", &a), ("added.f", &f), ("added6", &a6), ("dropped", &d)]);
            let parsed = Pex::parse(&bytes);
            prop_assert_eq!(parsed.is_ok(), d.len() % 6 == 0);
            if let Ok(pex) = parsed {
                prop_assert!(pex.added.len() <= MAX_PEX_PEERS && pex.dropped.len() <= MAX_PEX_PEERS);
                prop_assert_eq!(Pex::parse(&pex.encode()).unwrap(), pex);
            }
        }
    }
}
