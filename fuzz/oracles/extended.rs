//! Messages of extensions (BEP 9, 10, 11, 14, 21, 54, 55): what was taken is written so that it is taken again.

use std::collections::HashSet;
use std::net::SocketAddr;

use gannet::base::PeerId;
use gannet::wire::{
    DontHave, ExtendedHandshake, Handshake, Holepunch, LSD_V4, LocalAnnounce, MAX_LSD_HASHES, MAX_LSD_LEN,
    MAX_METADATA_LEN, MAX_PEX_PEERS, METADATA_PIECE_LEN, MetadataMessage, Pex, UploadOnly, client_name,
};

use super::tape::Tape;

pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let (kind, bytes) = (tape.byte(), tape.0);
    match kind % 8 {
        0 => handshake(bytes),
        1 => metadata(bytes),
        2 => pex(bytes),
        3 => holepunch(bytes),
        4 => local(bytes),
        5 => {
            if let Ok(notice) = DontHave::parse(bytes) {
                assert_eq!(notice.encode(), bytes);
            }
        }
        6 => {
            if let Ok(notice) = UploadOnly::parse(bytes) {
                assert_eq!(UploadOnly::parse(&notice.encode()).unwrap().0, notice.0);
            }
        }
        _ => first_bytes(tape),
    }
}

fn handshake(bytes: &[u8]) {
    let Ok(parsed) = ExtendedHandshake::parse(bytes) else { return };
    assert_ne!(parsed.p, Some(0));
    assert!(parsed.metadata_size.is_none_or(|size| (1..=MAX_METADATA_LEN).contains(&size)));
    assert!(parsed.v.as_ref().is_none_or(|name| !name.is_empty() && !name.chars().any(char::is_control)));
    let again = ExtendedHandshake::parse(&parsed.encode()).expect("what we write can be read");
    assert_eq!(again, parsed);
    let mut merged = parsed.clone();
    merged.merge(parsed.clone());
    assert_eq!(merged, parsed);
}

fn metadata(bytes: &[u8]) {
    let Ok(message) = MetadataMessage::parse(bytes) else { return };
    if let MetadataMessage::Data { payload, .. } = message {
        assert!(payload.len() <= METADATA_PIECE_LEN as usize && bytes.ends_with(payload));
    }
    let mut out = Vec::new();
    message.encode_into(&mut out);
    if message != MetadataMessage::Unknown {
        assert_eq!(MetadataMessage::parse(&out), Ok(message));
    }
}

fn pex(bytes: &[u8]) {
    let Ok(pex) = Pex::parse(bytes) else { return };
    assert!(pex.added.len() <= MAX_PEX_PEERS && pex.dropped.len() <= MAX_PEX_PEERS);
    let added: HashSet<_> = pex.added.iter().map(|peer| peer.addr.ip()).collect();
    assert_eq!(added.len(), pex.added.len(), "an address twice");
    assert!(pex.added.iter().all(|peer| peer.addr.port() != 0));
    let again = Pex::parse(&pex.encode()).unwrap();
    let sorted = |pex: &Pex| {
        let mut added: Vec<_> = pex.added.iter().map(|peer| (peer.addr, peer.flags.0)).collect();
        let mut dropped = pex.dropped.clone();
        added.sort_unstable();
        dropped.sort_unstable();
        (added, dropped)
    };
    assert_eq!(sorted(&again), sorted(&pex));
}

fn holepunch(bytes: &[u8]) {
    if let Ok(message) = Holepunch::parse(bytes) {
        assert_eq!(Holepunch::parse(&message.encode()), Ok(message));
    }
}

fn local(bytes: &[u8]) {
    let Some(announce) = LocalAnnounce::parse(bytes) else { return };
    assert!(bytes.len() <= MAX_LSD_LEN && announce.port != 0);
    assert!((1..=MAX_LSD_HASHES).contains(&announce.info_hashes.len()));
    let written = announce.encode(SocketAddr::V4(LSD_V4));
    assert!(written.len() <= MAX_LSD_LEN);
    assert_eq!(LocalAnnounce::parse(&written), Some(announce));
}

/// The handshake of BEP 3, and what the name of a client is made of.
fn first_bytes(mut tape: Tape<'_>) {
    let id = PeerId(tape.array());
    let named = tape.flag().then(|| String::from_utf8_lossy(tape.bytes(60)));
    assert!(!client_name(&id, named.as_deref()).chars().any(char::is_control));
    let bytes: [u8; Handshake::LEN] = tape.array();
    if let Ok(handshake) = Handshake::parse(&bytes) {
        assert_eq!(handshake.encode(), bytes);
    }
}
