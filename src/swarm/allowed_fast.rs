//! The pieces that a peer may ask for while it is choked (BEP 6, "Allowed Fast Set Generation").

use std::net::IpAddr;

use sha1::{Digest, Sha1};

use crate::base::{Geometry, PieceIndex};

/// Size of the set that we grant (limits.md: 5, as libtorrent; BEP 6 suggests 10). Two or three pieces are enough to
/// start trading, and each is upload that nobody earned.
pub const ALLOWED_FAST: usize = 5;

/// The `k` pieces that the peer at `ip` may have although it is choked; all pieces of a torrent that has no more.
///
/// The order is that of the algorithm: a larger `k` only adds to the end. `info_hash` is the hash of the handshake
/// ([`InfoHash::wire`](crate::base::InfoHash::wire)).
///
/// BEP 6 defines the set for IPv4 alone, from the leading three bytes of the address, so that one who owns a network
/// gets one set. For IPv6 the same is done here with the leading eight bytes (the /64 a site gets at least). The receiver never
/// computes the set, so a sender that fills the gap in this way breaks nobody; two senders of different make
/// may merely name different pieces. A mapped address (`::ffff:a.b.c.d`) counts as IPv4.
pub fn allowed_fast_set(ip: IpAddr, info_hash: &[u8; 20], geometry: &Geometry, k: usize) -> Vec<PieceIndex> {
    let count = geometry.piece_count();
    if usize::try_from(count).is_ok_and(|count| count <= k) {
        return geometry.pieces().collect();
    }
    let mut sha1 = Sha1::new();
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            sha1.update([a, b, c, 0]);
        }
        IpAddr::V6(v6) => sha1.update(&v6.octets()[..8]),
    }
    sha1.update(info_hash);
    let mut x = sha1.finalize();
    let mut set = Vec::with_capacity(k);
    // Ends: k < count, and SHA-1 iterated visits every residue sooner or later. The bound makes that no article of faith.
    for _ in 0..k.saturating_mul(64) {
        for four in x.chunks_exact(4) {
            let y = four.iter().fold(0u32, |y, byte| y << 8 | u32::from(*byte));
            match geometry.piece(y % count) {
                Ok(piece) if set.len() < k && !set.contains(&piece) => set.push(piece),
                _ => {}
            }
        }
        if set.len() == k {
            break;
        }
        x = Sha1::digest(x);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(ip: &str, pieces: u32, k: usize) -> Vec<u32> {
        let geometry = Geometry::new(u64::from(pieces) * 16_384, 16_384).unwrap();
        allowed_fast_set(ip.parse().unwrap(), &[0xaa; 20], &geometry, k).into_iter().map(PieceIndex::get).collect()
    }

    #[test]
    fn examples_of_bep_6() {
        assert_eq!(indices("80.4.4.200", 1313, 7), [1059, 431, 808, 1217, 287, 376, 1188]);
        assert_eq!(indices("80.4.4.200", 1313, 9), [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]);
        // One set per /24, however the address is written.
        assert_eq!(indices("80.4.4.7", 1313, 7), indices("::ffff:80.4.4.200", 1313, 7));
    }

    #[test]
    fn one_set_per_64_for_ipv6() {
        assert_eq!(indices("2001:db8::1", 1313, 5), indices("2001:db8::ffff:1", 1313, 5));
        assert_ne!(indices("2001:db8::1", 1313, 5), indices("2001:db8:0:1::1", 1313, 5));
        assert_eq!(indices("2001:db8::1", 1313, 5).len(), 5);
    }

    #[test]
    fn small_torrents_end() {
        assert_eq!(indices("80.4.4.200", 3, 5), [0, 1, 2]);
        assert_eq!(indices("80.4.4.200", 5, 5), [0, 1, 2, 3, 4]);
        let mut six = indices("80.4.4.200", 6, 5);
        six.sort_unstable();
        six.dedup();
        assert_eq!(six.len(), 5);
        assert_eq!(indices("80.4.4.200", 6, 0), [0u32; 0]);
    }
}
