//! Ids, the distance between them (BEP 5), and how an id is bound to an address (BEP 42).

use std::fmt;
use std::net::IpAddr;

use super::address::is_local;
use super::random::Random;

/// The id of a node, or what is looked for: an info-hash, the target of an item. 160 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub [u8; 20]);

/// The bits of an address that count for an id (BEP 42): the nearer to the host, the more of them.
const V4_MASK: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];
const V6_MASK: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];

impl NodeId {
    /// Takes exactly 20 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Any id.
    pub fn random(random: &mut Random) -> Self {
        let mut id = [0; 20];
        random.fill(&mut id);
        Self(id)
    }

    /// An id that a node at `ip` may have (BEP 42, "Node ID restriction").
    pub fn bound_to(ip: IpAddr, random: &mut Random) -> Self {
        let mut id = Self::random(random);
        let prefix = prefix_for(ip, id.0[19]);
        id.0[0] = prefix[0];
        id.0[1] = prefix[1];
        id.0[2] = (prefix[2] & 0xf8) | (id.0[2] & 0x07);
        id
    }

    /// Whether a node at `ip` may have this id (BEP 42). Any id is right for a local address.
    pub fn is_bound_to(&self, ip: IpAddr) -> bool {
        let prefix = prefix_for(ip, self.0[19]);
        is_local(ip) || (self.0[..2] == prefix[..2] && (self.0[2] ^ prefix[2]) & 0xf8 == 0)
    }

    /// The distance to `other`: smaller is closer.
    pub fn distance(&self, other: &Self) -> [u8; 20] {
        std::array::from_fn(|i| self.0[i] ^ other.0[i])
    }

    /// How many leading bits are the same: 0 to 160.
    pub fn shared_bits(&self, other: &Self) -> usize {
        let mut bits = 0;
        for byte in self.distance(other) {
            bits += byte.leading_zeros() as usize;
            if byte != 0 {
                break;
            }
        }
        bits
    }

    /// A random id that shares exactly the first `bits` bits with this one; 160 gives this one.
    pub fn sibling(&self, bits: usize, random: &mut Random) -> Self {
        let mut id = Self::random(random);
        for (i, byte) in id.0.iter_mut().enumerate() {
            let keep = bits.saturating_sub(i * 8).min(8);
            let mask = u8::try_from(0xff00_u16 >> keep & 0xff).unwrap_or(0xff);
            *byte = (self.0[i] & mask) | (*byte & !mask);
        }
        if let Some(byte) = id.0.get_mut(bits / 8) {
            let bit = 0x80 >> (bits % 8);
            *byte = (*byte & !bit) | (!self.0[bits / 8] & bit);
        }
        id
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first bytes of an id at `ip` whose last byte is `last`; of the third byte only the upper five bits count.
fn prefix_for(ip: IpAddr, last: u8) -> [u8; 4] {
    let r = (last & 0x07) << 5;
    let crc = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mut masked: [u8; 4] = std::array::from_fn(|i| ip.octets()[i] & V4_MASK[i]);
            masked[0] |= r;
            crc32c(&masked)
        }
        IpAddr::V6(ip) => {
            let mut masked: [u8; 8] = std::array::from_fn(|i| ip.octets()[i] & V6_MASK[i]);
            masked[0] |= r;
            crc32c(&masked)
        }
    };
    crc.to_be_bytes()
}

/// CRC-32C (Castagnoli), bit by bit: eight bytes at most, once per node.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_bep_42() {
        let table: [(&str, &str); 5] = [
            ("124.31.75.21", "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
            ("21.75.31.124", "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
            ("65.23.51.170", "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
            ("84.124.73.14", "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
            ("43.213.53.83", "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
        ];
        for (ip, id) in table {
            let ip: IpAddr = ip.parse().unwrap();
            let bytes: Vec<u8> = (0..20).map(|i| u8::from_str_radix(&id[2 * i..2 * i + 2], 16).unwrap()).collect();
            let id = NodeId::from_slice(&bytes).unwrap();
            assert!(id.is_bound_to(ip), "{ip}");
            assert!(!id.is_bound_to("124.31.75.20".parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn ids_are_made_for_addresses() {
        let mut random = Random::new([3; 32]);
        for ip in ["8.8.4.4", "2600:1234::5", "::ffff:8.8.4.4"] {
            let ip: IpAddr = ip.parse().unwrap();
            let ids: Vec<_> = (0..50).map(|_| NodeId::bound_to(ip, &mut random)).collect();
            assert!(ids.iter().all(|id| id.is_bound_to(ip)));
            assert!(!ids[0].is_bound_to("9.9.9.9".parse().unwrap()));
        }
        assert!(NodeId::random(&mut random).is_bound_to("192.168.1.4".parse().unwrap()), "local addresses are exempt");
    }

    #[test]
    fn siblings_share_exactly_so_many_bits() {
        let mut random = Random::new([9; 32]);
        let id = NodeId::random(&mut random);
        for bits in 0..=160 {
            assert_eq!(id.shared_bits(&id.sibling(bits, &mut random)), bits);
        }
    }
}
