//! Peer exchange (BEP 11): a third peer is found through a second. aria2 and Transmission tell others of peers only after
//! 60 and 90 seconds, so they are only told here.

use crate::clients::makers::NO_TRACKER;
use crate::clients::{Crypto, aria2, gannet, libtorrent, makers};
use crate::lab::{Lab, Tool};
use crate::payload::{Payload, Shape};

#[test]
fn gannet_tells_libtorrent() {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::libtorrent(&lab, &payload, "v1", None);
    let seed = gannet::seed_told(&lab, &torrent, &payload, &[], &["--no-pex"]);
    let relay = gannet::relay(&lab, &torrent, &[seed.address()]);
    let out = lab.folder("out");
    libtorrent::finish(libtorrent::leech(&lab, &torrent, &out, &[relay.address()], Crypto::Usual), &payload, &out);
}

/// Where a peer listens that has dialled, gannet knows from its extension handshake.
#[test]
fn gannet_tells_gannet_of_libtorrent_that_called() {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::libtorrent(&lab, &payload, "v1", None);
    let relay = gannet::relay(&lab, &torrent, &[]);
    let _seed = libtorrent::seed(&lab, &torrent, &payload, &[relay.address()], Crypto::Usual);
    gannet::get(&lab, &torrent, &payload, &lab.folder("out"), &[relay.address()]);
}

#[test]
fn gannet_tells_aria2() {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let out = lab.folder("out");
    let leech = aria2::leech_with_pex(&lab, &torrent, &out);
    let seed = gannet::seed_told(&lab, &torrent, &payload, &[], &["--no-pex"]);
    let _relay = gannet::relay(&lab, &torrent, &[leech.address(), seed.address()]);
    aria2::finish(leech, &payload, &out);
}
