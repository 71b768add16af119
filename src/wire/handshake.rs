use crate::base::PeerId;

const PROTOCOL: &[u8; 19] = b"BitTorrent protocol";

/// What both sides send first (BEP 3): who wants which torrent, and what else they can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The torrent: a v1 hash, or a truncated v2 hash (BEP 52).
    pub info_hash: [u8; 20],
    /// Who speaks.
    pub peer_id: PeerId,
    /// Which extensions of the protocol the sender knows.
    pub reserved: Reserved,
}

/// Why 68 bytes are no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The first byte is not 19: another protocol, or an encrypted connection.
    #[error("handshake begins with byte {0}, not 19")]
    ProtocolLength(u8),
    /// The name of the protocol is another.
    #[error("handshake of protocol \"{}\"", .0.escape_ascii())]
    Protocol([u8; 19]),
}

impl Handshake {
    /// Bytes of a handshake.
    pub const LEN: usize = 68;

    /// How every handshake begins: the length of the protocol's name, and the name. What begins otherwise may be
    /// an encrypted connection.
    pub const PREFIX: [u8; 20] = {
        let mut prefix = [19; 20];
        let (_, name) = prefix.split_at_mut(1);
        name.copy_from_slice(PROTOCOL);
        prefix
    };

    /// Reads a handshake.
    ///
    /// # Errors
    /// When it does not begin with [`Handshake::PREFIX`].
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, HandshakeError> {
        let (mut protocol, mut reserved, mut info_hash, mut peer_id) = ([0; 19], [0; 8], [0; 20], [0; 20]);
        protocol.copy_from_slice(&bytes[1..20]);
        reserved.copy_from_slice(&bytes[20..28]);
        info_hash.copy_from_slice(&bytes[28..48]);
        peer_id.copy_from_slice(&bytes[48..]);
        if bytes[0] != Self::PREFIX[0] {
            return Err(HandshakeError::ProtocolLength(bytes[0]));
        }
        if protocol != *PROTOCOL {
            return Err(HandshakeError::Protocol(protocol));
        }
        Ok(Self { info_hash, peer_id: PeerId(peer_id), reserved: Reserved(reserved) })
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..20].copy_from_slice(&Self::PREFIX);
        bytes[20..28].copy_from_slice(&self.reserved.0);
        bytes[28..48].copy_from_slice(&self.info_hash);
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }
}

/// The eight reserved bytes of a handshake: one bit per extension of the protocol. Unknown bits are kept and mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved(pub [u8; 8]);

/// Where a bit lies: its byte and its mask.
struct Bit(usize, u8);

const DHT: Bit = Bit(7, 0x01);
const FAST: Bit = Bit(7, 0x04);
const V2_UPGRADE: Bit = Bit(7, 0x10);
const EXTENDED: Bit = Bit(5, 0x10);

impl Reserved {
    /// No extension at all.
    pub const NONE: Self = Self([0; 8]);

    /// Whether the sender runs a DHT node (BEP 5).
    pub fn dht(self) -> bool {
        self.has(DHT)
    }

    /// Whether the sender knows the fast extension (BEP 6).
    pub fn fast(self) -> bool {
        self.has(FAST)
    }

    /// Whether the sender knows the extension protocol (BEP 10).
    pub fn extended(self) -> bool {
        self.has(EXTENDED)
    }

    /// Whether the sender would switch to the v2 half of a hybrid torrent (BEP 52, "upgrade path").
    pub fn v2_upgrade(self) -> bool {
        self.has(V2_UPGRADE)
    }

    /// The same, with the DHT bit.
    #[must_use]
    pub fn with_dht(self) -> Self {
        self.with(DHT)
    }

    /// The same, with the bit of the fast extension.
    #[must_use]
    pub fn with_fast(self) -> Self {
        self.with(FAST)
    }

    /// The same, with the bit of the extension protocol.
    #[must_use]
    pub fn with_extended(self) -> Self {
        self.with(EXTENDED)
    }

    /// The same, with the bit that offers the v2 half of a hybrid torrent.
    #[must_use]
    pub fn with_v2_upgrade(self) -> Self {
        self.with(V2_UPGRADE)
    }

    /// What both sides can do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    fn has(self, Bit(byte, mask): Bit) -> bool {
        self.0[byte] & mask != 0
    }

    fn with(mut self, Bit(byte, mask): Bit) -> Self {
        self.0[byte] |= mask;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out by hand from BEP 3, 5, 6, 10.
    #[test]
    fn known_bytes() {
        let mut bytes = *b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05aaaaaaaaaaaaaaaaaaaa-GN0100-xxxxxxxxxxxx";
        let handshake = Handshake {
            info_hash: [b'a'; 20],
            peer_id: PeerId(*b"-GN0100-xxxxxxxxxxxx"),
            reserved: Reserved::NONE.with_dht().with_fast().with_extended(),
        };
        assert_eq!(Handshake::parse(&bytes), Ok(handshake));
        assert_eq!(handshake.encode(), bytes);
        assert!(!handshake.reserved.v2_upgrade());
        bytes[27] |= 0x10;
        let upgraded = Handshake::parse(&bytes).unwrap().reserved;
        assert!(upgraded.v2_upgrade() && upgraded.dht() && upgraded.fast() && upgraded.extended());
        assert_eq!(upgraded.and(handshake.reserved), handshake.reserved);
    }

    #[test]
    fn other_protocols() {
        let sound = Handshake { info_hash: [1; 20], peer_id: PeerId([2; 20]), reserved: Reserved([0xff; 8]) }.encode();
        let mut http = sound;
        http[..20].copy_from_slice(b"GET / HTTP/1.1\r\nHost");
        assert_eq!(Handshake::parse(&http), Err(HandshakeError::ProtocolLength(b'G')));
        for at in 1..20 {
            let mut bytes = sound;
            bytes[at] ^= 0x80;
            assert!(matches!(Handshake::parse(&bytes), Err(HandshakeError::Protocol(_))), "byte {at}");
        }
        let mut hostile = sound;
        hostile[1..20].fill(0x1b);
        let text = Handshake::parse(&hostile).unwrap_err().to_string();
        assert!(text.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
        // Every reserved bit may be set, and comes back.
        assert_eq!(Handshake::parse(&sound).unwrap().encode(), sound);
    }
}
