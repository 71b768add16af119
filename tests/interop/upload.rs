//! Another client downloads what gannet seeds. gannet never writes where it seeds from.

use crate::clients::makers::NO_TRACKER;
use crate::clients::{Crypto, aria2, gannet, libtorrent, makers, transmission};
use crate::lab::{Lab, Tool};
use crate::payload::{Payload, Shape};
use crate::probe::{self, Manner};

/// aria2 cannot be told of a peer: gannet calls it.
fn to_aria2(shape: Shape) {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, shape);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let out = lab.folder("out");
    let leech = aria2::leech(&lab, &torrent, &out, Crypto::Usual);
    let _seed = gannet::seed(&lab, &torrent, &payload, &[leech.address()]);
    aria2::finish(leech, &payload, &out);
    payload.assert_same(&payload.parent);
}

#[test]
fn a_file_to_aria2() {
    to_aria2(Shape::Single);
}

#[test]
fn a_tree_to_aria2() {
    to_aria2(Shape::Tree);
}

/// Transmission does not call loopback addresses: gannet calls it.
fn to_transmission(shape: Shape) {
    let Some(lab) = Lab::with(&[Tool::Transmission, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, shape);
    // transmission-create leaves out files of no bytes.
    let torrent = match shape {
        Shape::Single => makers::transmission_create(&lab, &payload, None, &[]),
        Shape::Tree => makers::mktorrent(&lab, &payload, NO_TRACKER, &[]),
    };
    let out = lab.folder("out");
    let leech = transmission::leech(&lab, &torrent, &out, Crypto::Usual);
    let _seed = gannet::seed(&lab, &torrent, &payload, &[leech.address()]);
    transmission::finish(leech, &lab, &payload, &out);
    payload.assert_same(&payload.parent);
}

#[test]
fn a_file_to_transmission() {
    to_transmission(Shape::Single);
}

#[test]
fn a_tree_to_transmission() {
    to_transmission(Shape::Tree);
}

/// libtorrent calls gannet.
fn to_libtorrent(shape: Shape, format: &str) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, shape);
    let torrent = makers::libtorrent(&lab, &payload, format, None);
    let seed = gannet::seed(&lab, &torrent, &payload, &[]);
    let out = lab.folder("out");
    libtorrent::finish(libtorrent::leech(&lab, &torrent, &out, &[seed.address()], Crypto::Usual), &payload, &out);
    payload.assert_same(&payload.parent);
}

#[test]
fn a_v1_file_to_libtorrent() {
    to_libtorrent(Shape::Single, "v1");
}

#[test]
fn a_v1_tree_to_libtorrent() {
    to_libtorrent(Shape::Tree, "v1");
}

#[test]
fn a_v2_file_to_libtorrent() {
    to_libtorrent(Shape::Single, "v2");
}

#[test]
fn a_v2_tree_to_libtorrent() {
    to_libtorrent(Shape::Tree, "v2");
}

#[test]
fn a_hybrid_file_to_libtorrent() {
    to_libtorrent(Shape::Single, "hybrid");
}

#[test]
fn a_hybrid_tree_to_libtorrent() {
    to_libtorrent(Shape::Tree, "hybrid");
}

/// What every caller is told first: extensions by their bits, a peer id in the customary form, and what gannet has.
#[test]
fn gannet_greets() {
    let Some(lab) = Lab::with(&[Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let seed = gannet::seed(&lab, &torrent, &payload, &[]);
    let greeting = probe::greet(seed.port, torrent.wire_hash, Manner::Plain).expect("a greeting");
    assert!(greeting.reserved[5] & 0x10 != 0 && greeting.reserved[7] & 0x04 != 0, "BEPs 10 and 6: {greeting:?}");
    assert!(greeting.peer_id.starts_with(b"-GN") && greeting.peer_id[7] == b'-', "BEP 20: {greeting:?}");
    // BEP 6 wants it first of all; libtorrent sends its extension handshake (20) before it, and all take that.
    let first = greeting.messages.iter().find(|id| **id != 20);
    assert!(matches!(first, Some(5 | 14 | 15)), "what it has comes first: {greeting:?}");
}
