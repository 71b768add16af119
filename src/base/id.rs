use std::fmt;

/// SHA-1 of the bencoded info dictionary: a torrent's v1 identity (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InfoHashV1(pub [u8; 20]);

/// SHA-256 of the bencoded info dictionary: a torrent's v2 identity (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InfoHashV2(pub [u8; 32]);

impl InfoHashV2 {
    /// The first 20 bytes, which stand for the hash in handshakes, trackers and the DHT (BEP 52, "handshake").
    pub fn truncated(&self) -> [u8; 20] {
        let mut short = [0; 20];
        short.copy_from_slice(&self.0[..20]);
        short
    }
}

/// The identity of a torrent: a v1 hash, a v2 hash, or both (hybrid). Never empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InfoHash {
    v1: Option<InfoHashV1>,
    v2: Option<InfoHashV2>,
}

impl InfoHash {
    /// A v1-only torrent.
    pub fn v1(hash: InfoHashV1) -> Self {
        Self { v1: Some(hash), v2: None }
    }

    /// A v2-only torrent.
    pub fn v2(hash: InfoHashV2) -> Self {
        Self { v1: None, v2: Some(hash) }
    }

    /// A torrent with both identities.
    pub fn hybrid(v1: InfoHashV1, v2: InfoHashV2) -> Self {
        Self { v1: Some(v1), v2: Some(v2) }
    }

    /// The v1 hash, if the torrent has one.
    pub fn as_v1(&self) -> Option<InfoHashV1> {
        self.v1
    }

    /// The v2 hash, if the torrent has one.
    pub fn as_v2(&self) -> Option<InfoHashV2> {
        self.v2
    }

    /// The 20 bytes that we put into handshakes and announces: v1 if there is one, else the truncated v2 hash.
    pub fn wire(&self) -> [u8; 20] {
        match (self.v1, self.v2) {
            (Some(v1), _) => v1.0,
            (None, Some(v2)) => v2.truncated(),
            (None, None) => [0; 20],
        }
    }

    /// Every 20-byte form under which peers may ask for this torrent.
    pub fn wire_forms(&self) -> impl Iterator<Item = [u8; 20]> + use<> {
        let v1 = self.v1.map(|h| h.0);
        let v2 = self.v2.map(|h| h.truncated());
        v1.into_iter().chain(v2)
    }
}

impl fmt::Display for InfoHash {
    /// The v1 hash in hex, else the v2 hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.v1, self.v2) {
            (Some(v1), _) => write!(f, "{v1}"),
            (None, Some(v2)) => write!(f, "{v2}"),
            (None, None) => Ok(()),
        }
    }
}

macro_rules! hex_display {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hex_display!(InfoHashV1);
hex_display!(InfoHashV2);

/// The 20 bytes by which a peer names itself (BEP 3, BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId(pub [u8; 20]);

impl PeerId {
    /// Our own id: `-GN0100-` (BEP 20, Azureus style) and 12 bytes from `entropy`, mapped to letters and digits.
    pub fn ours(entropy: [u8; 12]) -> Self {
        const ALPHABET: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.~";
        let mut id = *b"-GN0100-............";
        for (slot, byte) in id[8..].iter_mut().zip(entropy) {
            *slot = ALPHABET[usize::from(byte & 63)];
        }
        Self(id)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// The number of a piece of one torrent. Made only by that torrent's [`Geometry`](super::Geometry), so it is in range.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceIndex(pub(super) u32);

impl PieceIndex {
    /// As it goes over the wire.
    pub fn get(self) -> u32 {
        self.0
    }

    /// As an index into a per-piece table.
    pub fn idx(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
