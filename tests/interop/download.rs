//! gannet downloads what another client seeds.

use crate::clients::makers::{NO_TRACKER, Torrent};
use crate::clients::{Crypto, Peer, aria2, gannet, libtorrent, makers, transmission};
use crate::lab::{Lab, Tool};
use crate::payload::{Payload, Shape};

/// One download, by address, from the seed that `start` brings up.
fn check(lab: &Lab, payload: &Payload, torrent: &Torrent, seed: &Peer) {
    let events = gannet::get(lab, torrent, payload, &lab.folder("out"), &[seed.address()]);
    let complete = events.iter().position(|event| event["event"] == "complete");
    let summary = events.iter().rposition(|event| event["event"] == "summary");
    assert!(complete < summary, "the summary comes last: {events:?}");
}

fn from_aria2(shape: Shape) {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, shape);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    check(&lab, &payload, &torrent, &aria2::seed(&lab, &torrent, &payload, Crypto::Usual));
}

#[test]
fn a_file_from_aria2() {
    from_aria2(Shape::Single);
}

#[test]
fn a_tree_from_aria2() {
    from_aria2(Shape::Tree);
}

fn from_transmission(shape: Shape) {
    let Some(lab) = Lab::with(&[Tool::Transmission, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, shape);
    // transmission-create leaves out files of no bytes.
    let torrent = match shape {
        Shape::Single => makers::transmission_create(&lab, &payload, None, &[]),
        Shape::Tree => makers::mktorrent(&lab, &payload, NO_TRACKER, &[]),
    };
    check(&lab, &payload, &torrent, &transmission::seed(&lab, &torrent, &payload, Crypto::Usual));
}

#[test]
fn a_file_from_transmission() {
    from_transmission(Shape::Single);
}

#[test]
fn a_tree_from_transmission() {
    from_transmission(Shape::Tree);
}

fn from_libtorrent(shape: Shape, format: &str) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, shape);
    let torrent = makers::libtorrent(&lab, &payload, format, None);
    check(&lab, &payload, &torrent, &libtorrent::seed(&lab, &torrent, &payload, &[], Crypto::Usual));
}

#[test]
fn a_v1_file_from_libtorrent() {
    from_libtorrent(Shape::Single, "v1");
}

#[test]
fn a_v1_tree_from_libtorrent() {
    from_libtorrent(Shape::Tree, "v1");
}

#[test]
fn a_v2_file_from_libtorrent() {
    from_libtorrent(Shape::Single, "v2");
}

#[test]
fn a_v2_tree_from_libtorrent() {
    from_libtorrent(Shape::Tree, "v2");
}

#[test]
fn a_hybrid_file_from_libtorrent() {
    from_libtorrent(Shape::Single, "hybrid");
}

#[test]
fn a_hybrid_tree_from_libtorrent() {
    from_libtorrent(Shape::Tree, "hybrid");
}
