/// The most hashes of a base layer in one message (BEP 52: "SHOULD NOT be greater than 512").
pub const MAX_HASHES: u32 = 512;

/// The most layers of a tree: 2^48 bytes, the longest file, are 2^34 leaves.
pub const MAX_PROOF_LAYERS: u32 = 34;

/// Bytes of a [`HashRequest`] on the wire.
pub(super) const REQUEST_LEN: u32 = 48;

/// A node of a file's tree: SHA-256 (BEP 52).
type Hash = [u8; 32];

/// Which hashes of a file's tree are meant, in `hash request`, `hashes` and `hash reject` (BEP 52).
///
/// Raw as it came; [`HashRequest::is_sound`] says whether it obeys the BEP. Whether the tree has such layers is for
/// those who know the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashRequest {
    /// Root of the file's tree, which names the file.
    pub pieces_root: [u8; 32],
    /// Layers above the leaves where the hashes lie; 0 for the leaves.
    pub base_layer: u32,
    /// First hash in that layer, a multiple of `length`.
    pub index: u32,
    /// Hashes of that layer, a power of two, 1 ..= [`MAX_HASHES`]. BEP 52 wants two at least, but libtorrent asks for one
    /// where only one is left.
    pub length: u32,
    /// Ancestor layers for which uncles are wanted.
    pub proof_layers: u32,
}

impl HashRequest {
    /// Whether the numbers obey the BEP: a power of two of hashes within bounds, at a multiple of it, and no more layers
    /// than a tree can have.
    pub fn is_sound(&self) -> bool {
        (1..=MAX_HASHES).contains(&self.length)
            && self.length.is_power_of_two()
            && self.index.is_multiple_of(self.length)
            && self.base_layer.checked_add(self.proof_layers).is_some_and(|layers| layers <= MAX_PROOF_LAYERS)
    }

    /// How many uncles the answer has: the layers that follow from the hashes themselves are counted in
    /// `proof_layers`, but not sent. 0 for a request that is not sound.
    pub fn uncles(&self) -> u32 {
        if !self.is_sound() {
            return 0;
        }
        (self.proof_layers + 1).saturating_sub(self.length.ilog2())
    }

    /// Divides the bytes of a `hashes` message into the base layer and the uncles, lowest first. `None` if the request is
    /// not sound, or the number of hashes is not what it asks for.
    pub fn split<'a>(&self, hashes: &'a [u8]) -> Option<(&'a [Hash], &'a [Hash])> {
        let (hashes, rest) = hashes.as_chunks();
        let fits = self.is_sound() && rest.is_empty() && hashes.len() == (self.length + self.uncles()) as usize;
        if fits { hashes.split_at_checked(self.length as usize) } else { None }
    }

    /// The request at the start of `payload`, and what follows.
    pub(super) fn parse(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (pieces_root, rest) = payload.split_first_chunk()?;
        let (base_layer, rest) = rest.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (proof_layers, rest) = rest.split_first_chunk()?;
        let request = Self {
            pieces_root: *pieces_root,
            base_layer: u32::from_be_bytes(*base_layer),
            index: u32::from_be_bytes(*index),
            length: u32::from_be_bytes(*length),
            proof_layers: u32::from_be_bytes(*proof_layers),
        };
        Some((request, rest))
    }

    pub(super) fn encode(&self) -> [u8; REQUEST_LEN as usize] {
        let mut bytes = [0; REQUEST_LEN as usize];
        bytes[..32].copy_from_slice(&self.pieces_root);
        bytes[32..36].copy_from_slice(&self.base_layer.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.index.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.length.to_be_bytes());
        bytes[44..].copy_from_slice(&self.proof_layers.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: HashRequest =
        HashRequest { pieces_root: [7; 32], base_layer: 0, index: 8, length: 8, proof_layers: 5 };

    #[test]
    fn soundness() {
        assert!(REQUEST.is_sound());
        let unsound = [
            HashRequest { length: 0, ..REQUEST },
            HashRequest { length: 6, index: 12, ..REQUEST },
            HashRequest { length: 1024, index: 0, ..REQUEST },
            HashRequest { length: 1 << 31, index: 0, ..REQUEST },
            HashRequest { index: 4, ..REQUEST },
            HashRequest { index: u32::MAX, ..REQUEST },
            HashRequest { base_layer: u32::MAX, ..REQUEST },
            HashRequest { base_layer: 30, ..REQUEST },
            HashRequest { proof_layers: u32::MAX, base_layer: 1, ..REQUEST },
        ];
        for request in unsound {
            assert!(!request.is_sound(), "{request:?}");
            assert_eq!(request.uncles(), 0);
            assert_eq!(request.split(&[0; 320]), None);
        }
    }

    /// Eight hashes prove two layers by themselves, so five proof layers need three uncles.
    #[test]
    fn base_and_uncles() {
        let bytes: Vec<u8> = (0..11).flat_map(|n| [n; 32]).collect();
        let (base, uncles) = REQUEST.split(&bytes).unwrap();
        assert_eq!((base.len(), uncles), (8, [[8; 32], [9; 32], [10; 32]].as_slice()));
        assert_eq!(REQUEST.split(&bytes[32..]), None);
        assert_eq!(REQUEST.split(&bytes[1..]), None);
        let alone = HashRequest { proof_layers: 1, ..REQUEST };
        assert_eq!(alone.split(&bytes[..256]).map(|(base, uncles)| (base.len(), uncles.len())), Some((8, 0)));
        // A lone hash needs its sibling, too.
        let lone = HashRequest { length: 1, proof_layers: 2, ..REQUEST };
        assert_eq!(lone.split(&bytes[..128]).map(|(base, uncles)| (base.len(), uncles.len())), Some((1, 3)));
    }
}
