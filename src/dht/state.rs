//! What is kept between runs: ids and nodes, as bytes with a checksum.
//!
//! ```text
//! "gannet dht 1\n"   32 bytes SHA-256 of all that follows   a bencoded dictionary: id4 id6 nodes nodes6
//! ```

use super::id::NodeId;
use super::krpc::{Contact, all_contacts, compact_nodes};
use crate::base::bencode::{BencodeError, Dictionary, Limits, string};
use crate::hash::sha256;

const MAGIC: &[u8; 13] = b"gannet dht 1\n";

/// The most bytes that are looked at: some 40 times what is ever written.
pub const MAX_STATE_LEN: usize = 1 << 20;

/// Nodes of each family that are kept, and taken.
pub const MAX_STATE_NODES: usize = 400;

/// Sockets of each family whose ids are kept.
const MAX_IDS: usize = 64;

/// What a node knows when it stops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedState {
    /// The ids of the IPv4 sockets, in their order.
    pub ids_v4: Vec<NodeId>,
    /// The ids of the IPv6 sockets, in their order.
    pub ids_v6: Vec<NodeId>,
    /// Nodes that answered.
    pub nodes: Vec<Contact>,
}

/// Why bytes are no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another format, or another version of this one.
    #[error("not the state of a DHT node of this version")]
    Version,
    /// Longer than [`MAX_STATE_LEN`].
    #[error("the state of the DHT node is too long: {0} bytes")]
    TooLong(usize),
    /// Cut, or changed since it was written.
    #[error("the state of the DHT node is damaged")]
    Damaged,
    /// Whole, but not made by this program.
    #[error("the state of the DHT node is not sound: {0}")]
    Shape(#[from] BencodeError),
}

impl SavedState {
    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let ids = |ids: &[NodeId]| ids.iter().take(MAX_IDS).flat_map(|id| id.0).collect::<Vec<u8>>();
        let family = |v6| self.nodes.iter().filter(move |n| n.address.is_ipv6() == v6).take(MAX_STATE_NODES);
        let entries = [
            ("id4", ids(&self.ids_v4)),
            ("id6", ids(&self.ids_v6)),
            ("nodes", compact_nodes(family(false))),
            ("nodes6", compact_nodes(family(true))),
        ];
        let mut body = vec![b'd'];
        for (key, value) in entries {
            body.extend_from_slice(format!("{}:{key}{}:", key.len(), value.len()).as_bytes());
            body.extend_from_slice(&value);
        }
        body.push(b'e');
        [MAGIC.as_slice(), &sha256(&[&body]), &body].concat()
    }

    /// Reads what [`SavedState::to_bytes`] wrote.
    ///
    /// # Errors
    /// For whatever is not exactly that.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        if bytes.len() > MAX_STATE_LEN {
            return Err(StateError::TooLong(bytes.len()));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(StateError::Version)?;
        let (sum, body) = rest.split_at_checked(32).ok_or(StateError::Damaged)?;
        if sum != sha256(&[body]) {
            return Err(StateError::Damaged);
        }
        let dictionary = Dictionary::parse(body, Limits::DHT)?;
        let text = |key| dictionary.raw(key).and_then(string).unwrap_or_default();
        let ids = |key| text(key).chunks_exact(20).take(MAX_IDS).filter_map(NodeId::from_slice).collect();
        let nodes = |key, v6| all_contacts(text(key), v6).take(MAX_STATE_NODES);
        let nodes = nodes(b"nodes", false).chain(nodes(b"nodes6", true)).collect();
        Ok(Self { ids_v4: ids(b"id4"), ids_v6: ids(b"id6"), nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn state() -> SavedState {
        let contact = |n: u8| Contact { id: NodeId([n; 20]), address: (Ipv4Addr::new(9, 9, n, 1), 6881).into() };
        let mut nodes: Vec<_> = (0..200).map(contact).collect();
        nodes.push(Contact { id: NodeId([7; 20]), address: "[2600::1]:5".parse().unwrap() });
        SavedState { ids_v4: vec![NodeId([1; 20]), NodeId([2; 20])], ids_v6: vec![NodeId([3; 20])], nodes }
    }

    /// D-9: cut anywhere, changed anywhere, far too long, empty.
    #[test]
    fn dht9_state_is_whole_or_refused() {
        let bytes = state().to_bytes();
        assert_eq!(SavedState::from_bytes(&bytes), Ok(state()));
        assert!((0..bytes.len()).all(|len| SavedState::from_bytes(&bytes[..len]).is_err()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            assert!(SavedState::from_bytes(&changed).is_err(), "{at}");
        }
        assert_eq!(SavedState::from_bytes(&vec![b'd'; 100 << 20]), Err(StateError::TooLong(100 << 20)));
        let empty = SavedState::default();
        assert_eq!(SavedState::from_bytes(&empty.to_bytes()), Ok(empty));
    }
}
