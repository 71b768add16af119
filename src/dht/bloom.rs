//! Counting over many nodes without naming anybody: the filters of BEP 33.

use std::net::IpAddr;

use crate::hash::sha1;

/// A set of addresses in 256 bytes, of which only the size can be estimated. Filters of different nodes can be joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bloom(pub [u8; Self::LEN]);

impl Bloom {
    /// Bytes of a filter.
    pub const LEN: usize = 256;

    /// The empty set.
    pub const fn new() -> Self {
        Self([0; Self::LEN])
    }

    /// Takes exactly 256 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn bits(ip: IpAddr) -> [usize; 2] {
        let hash = match ip.to_canonical() {
            IpAddr::V4(ip) => sha1(&[&ip.octets()]),
            IpAddr::V6(ip) => sha1(&[&ip.octets()]),
        };
        let bit = |low: u8, high: u8| usize::from(u16::from_le_bytes([low, high])) % (Self::LEN * 8);
        [bit(hash[0], hash[1]), bit(hash[2], hash[3])]
    }

    /// Puts an address in.
    pub fn insert(&mut self, ip: IpAddr) {
        for bit in Self::bits(ip) {
            self.0[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// Whether the address may be in: false is certain.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::bits(ip).iter().all(|bit| self.0[bit / 8] & 1 << (bit % 8) != 0)
    }

    /// Puts in what `other` has.
    pub fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(byte, other)| *byte |= other);
    }

    /// How many addresses are in, about. Beyond some 6,000 it says little.
    pub fn estimate(&self) -> f64 {
        const BITS: u32 = 256 * 8;
        let zeros: u32 = self.0.iter().map(|byte| byte.count_zeros()).sum();
        let (zeros, bits) = (f64::from(zeros.clamp(1, BITS - 1)), f64::from(BITS));
        if self.0.iter().all(|byte| *byte == 0) {
            return 0.0;
        }
        (zeros / bits).ln() / (2.0 * (1.0 - 1.0 / bits).ln())
    }
}

impl Default for Bloom {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn the_vector_of_bep_33() {
        let mut filter = Bloom::new();
        assert!(filter.estimate() == 0.0);
        (0..=255).for_each(|i| filter.insert(Ipv4Addr::new(192, 0, 2, i).into()));
        (0..=0x3e7).for_each(|i| filter.insert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, i).into()));
        let hex: String = filter.0.iter().map(|byte| format!("{byte:02X}")).collect();
        assert!(hex.starts_with("F6C3F5EAA07FFD91BDE89F777F26FB2BFF37BDB8FB2BBAA2FD3DDDE7BACFFF75EE7CCBAE"));
        assert!(hex.ends_with("FBFD9F6AEFFEEE76B6FD8F72EF"));
        assert!((filter.estimate() - 1224.9308).abs() < 0.001, "{}", filter.estimate());
        assert!(filter.contains(Ipv4Addr::new(192, 0, 2, 7).into()));
    }

    #[test]
    fn small_sets_are_counted_well() {
        let (mut a, mut b) = (Bloom::new(), Bloom::new());
        (0..20).for_each(|i| a.insert(Ipv4Addr::new(5, 6, 7, i).into()));
        (10..30).for_each(|i| b.insert(Ipv4Addr::new(5, 6, 7, i).into()));
        a.join(&b);
        assert!((a.estimate() - 30.0).abs() < 2.0, "{}", a.estimate());
    }
}
