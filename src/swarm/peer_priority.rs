//! Canonical peer priority (BEP 40): which connection is worth more, computed alike at both ends.

use std::net::{IpAddr, SocketAddr};

/// The priority of the connection between `ours` and `theirs`; the higher, the more it is worth.
///
/// `ours` is our address as the peer sees it. `None` when the two are of different families.
pub fn peer_priority(ours: SocketAddr, theirs: SocketAddr) -> Option<u32> {
    match (ours.ip().to_canonical(), theirs.ip().to_canonical()) {
        (a, b) if a == b => Some(of_sorted(ours.port().to_be_bytes(), theirs.port().to_be_bytes())),
        (IpAddr::V4(a), IpAddr::V4(b)) => Some(of_masked(a.octets(), b.octets(), 2)),
        (IpAddr::V6(a), IpAddr::V6(b)) => Some(of_masked(a.octets(), b.octets(), 6)),
        _ => None,
    }
}

/// The leading bytes count in full: `base` of them, or all up to the first difference if that is more. Of the
/// rest every second bit is masked out, so that owning a network is worth little.
fn of_masked<const N: usize>(mut a: [u8; N], mut b: [u8; N], base: usize) -> u32 {
    let differ = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    for byte in a.iter_mut().skip(base.max(differ + 1)) {
        *byte &= 0x55;
    }
    for byte in b.iter_mut().skip(base.max(differ + 1)) {
        *byte &= 0x55;
    }
    of_sorted(a, b)
}

fn of_sorted<const N: usize>(a: [u8; N], b: [u8; N]) -> u32 {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    !crc32c(crc32c(u32::MAX, &low), &high)
}

/// CRC-32C (Castagnoli, reflected), without the final inversion. Sixteen bytes at a time: a table would be a waste.
fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1));
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_check_value() {
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn examples_of_bep_40() {
        let cases: [(&str, &str, Option<u32>); 3] = [
            ("123.213.32.10:1", "98.76.54.32:2", Some(0xec2d_7224)),
            ("123.213.32.10:1", "123.213.32.234:2", Some(0x9956_8189)),
            ("123.213.32.10:1", "[2001:db8::1]:2", None),
        ];
        for (a, b, expected) in cases {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(peer_priority(a, b), expected, "{a} {b}");
            assert_eq!(peer_priority(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn masks() {
        let same = |ours: &str, one: &str, other: &str| {
            let ours = ours.parse().unwrap();
            peer_priority(ours, one.parse().unwrap()) == peer_priority(ours, other.parse().unwrap())
        };
        // FF.FF.55.55, FF.FF.FF.55, FF.FF.FF.FF: bit 1 of a byte is masked by 55.
        assert!(same("9.9.9.9:1", "8.8.0.0:1", "8.8.2.2:1"));
        assert!(same("9.9.9.9:1", "9.9.8.0:1", "9.9.8.2:1"));
        assert!(!same("9.9.9.9:1", "9.9.8.0:1", "9.9.10.0:1"));
        assert!(!same("9.9.9.9:1", "9.9.9.0:1", "9.9.9.2:1"));
        // The same for /48 and /56 of IPv6.
        assert!(same("[1:1:1::1]:1", "[1:1:2::]:1", "[1:1:2:0202::]:1"));
        assert!(same("[1:1:1::1]:1", "[1:1:1:0100::]:1", "[1:1:1:0102::]:1"));
        assert!(!same("[1:1:1::1]:1", "[1:1:1:0100::]:1", "[1:1:1:0300::]:1"));
        assert!(!same("[1:1:1::1]:1", "[1:1:1:0001::]:1", "[1:1:1:0003::]:1"));
        // Equal addresses: the ports decide.
        assert!(!same("9.9.9.9:1", "9.9.9.9:2", "9.9.9.9:3"));
    }
}
