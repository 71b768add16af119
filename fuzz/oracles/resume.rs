//! Resume data: with the right checksum anything may stand in it; what is taken is sound, and written back the same.

use gannet::hash::sha256;
use gannet::resume::{MAX_RESUME_PEERS, ResumeData};

const MAGIC: &[u8] = b"gannet resume 1\n";

pub fn run(data: &[u8]) {
    let _ = ResumeData::from_bytes(data);
    // The checksum is made to fit, or nothing but it would be tested.
    let Ok(mut found) = ResumeData::from_bytes(&[MAGIC, &sha256(&[MAGIC, data]), data].concat()) else { return };
    assert!(found.have.count() <= found.have.len());
    assert!(found.fits(&found.info_hash, found.have.len()) && !found.fits(&found.info_hash, found.have.len() + 1));
    // Of what another program wrote there may be more than we keep; beyond that nothing changes, and nothing twice.
    let kept = ResumeData::from_bytes(&found.to_bytes().unwrap()).unwrap();
    found.peers.truncate(MAX_RESUME_PEERS);
    assert_eq!(kept, found);
    let bytes = kept.to_bytes().unwrap();
    assert_eq!(ResumeData::from_bytes(&bytes).as_ref(), Ok(&kept));
    let mut torn = bytes.clone();
    torn.truncate(data.len() * 7 % bytes.len());
    assert!(ResumeData::from_bytes(&torn).is_err());
}
