//! The state file of the DHT: with the right checksum anything may stand in it; what is taken is written back the same.

use gannet::dht::{MAX_STATE_NODES, SavedState};
use gannet::hash::sha256;

const MAGIC: &[u8] = b"gannet dht 1\n";

pub fn run(data: &[u8]) {
    let _ = SavedState::from_bytes(data);
    // The checksum is made to fit, or nothing but it would be tested.
    let Ok(state) = SavedState::from_bytes(&[MAGIC, &sha256(&[data]), data].concat()) else { return };
    assert!(state.nodes.len() <= 2 * MAX_STATE_NODES);
    assert_eq!(SavedState::from_bytes(&state.to_bytes()).as_ref(), Ok(&state));
}
