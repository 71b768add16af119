//! Message Stream Encryption with other clients, forced on either side, in both directions.

use crate::clients::makers::NO_TRACKER;
use crate::clients::{Crypto, aria2, gannet, libtorrent, makers, transmission};
use crate::lab::{Lab, Tool};
use crate::payload::{Payload, Shape};

/// Who insists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forced {
    /// gannet, as `require`.
    Here,
    /// The other, and gannet is as it comes: it greets in the clear, in vain, and then encrypts.
    There,
}

impl Forced {
    fn here(self) -> &'static str {
        if self == Self::Here { "require" } else { "allow" }
    }

    fn there(self) -> Crypto {
        if self == Self::Here { Crypto::Tolerated } else { Crypto::Forced }
    }
}

/// gannet downloads; every connection that it tells of is encrypted.
fn download(lab: &Lab, torrent: &makers::Torrent, payload: &Payload, seed: &str, forced: Forced) {
    let events = gannet::get_with(lab, torrent, payload, &lab.folder("out"), &[seed.to_owned()], forced.here());
    let connected: Vec<_> = events.iter().filter(|event| event["state"] == "connected").collect();
    assert!(!connected.is_empty(), "{events:?}");
    assert!(connected.iter().all(|event| event["encrypted"] == true), "{connected:?}");
}

fn from_aria2(forced: Forced) {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let seed = aria2::seed(&lab, &torrent, &payload, forced.there());
    download(&lab, &torrent, &payload, &seed.address(), forced);
}

#[test]
fn from_aria2_forced_here() {
    from_aria2(Forced::Here);
}

#[test]
fn from_aria2_forced_there() {
    from_aria2(Forced::There);
}

fn to_aria2(forced: Forced) {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let out = lab.folder("out");
    let leech = aria2::leech(&lab, &torrent, &out, forced.there());
    let _seed = gannet::seed_with(&lab, &torrent, &payload, &[leech.address()], forced.here());
    aria2::finish(leech, &payload, &out);
}

#[test]
fn to_aria2_forced_here() {
    to_aria2(Forced::Here);
}

#[test]
fn to_aria2_forced_there() {
    to_aria2(Forced::There);
}

fn from_transmission(forced: Forced) {
    let Some(lab) = Lab::with(&[Tool::Transmission]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::transmission_create(&lab, &payload, None, &[]);
    let seed = transmission::seed(&lab, &torrent, &payload, forced.there());
    download(&lab, &torrent, &payload, &seed.address(), forced);
}

#[test]
fn from_transmission_forced_here() {
    from_transmission(Forced::Here);
}

#[test]
fn from_transmission_forced_there() {
    from_transmission(Forced::There);
}

fn to_transmission(forced: Forced) {
    let Some(lab) = Lab::with(&[Tool::Transmission]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::transmission_create(&lab, &payload, None, &[]);
    let out = lab.folder("out");
    let leech = transmission::leech(&lab, &torrent, &out, forced.there());
    let _seed = gannet::seed_with(&lab, &torrent, &payload, &[leech.address()], forced.here());
    transmission::finish(leech, &lab, &payload, &out);
}

#[test]
fn to_transmission_forced_here() {
    to_transmission(Forced::Here);
}

#[test]
fn to_transmission_forced_there() {
    to_transmission(Forced::There);
}

fn from_libtorrent(forced: Forced, format: &str) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::libtorrent(&lab, &payload, format, None);
    let seed = libtorrent::seed(&lab, &torrent, &payload, &[], forced.there());
    download(&lab, &torrent, &payload, &seed.address(), forced);
}

#[test]
fn from_libtorrent_forced_here() {
    from_libtorrent(Forced::Here, "v1");
}

#[test]
fn from_libtorrent_forced_there() {
    from_libtorrent(Forced::There, "v1");
}

#[test]
fn a_hybrid_from_libtorrent_forced_here() {
    from_libtorrent(Forced::Here, "hybrid");
}

/// libtorrent calls gannet.
fn to_libtorrent(forced: Forced, format: &str) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::libtorrent(&lab, &payload, format, None);
    let seed = gannet::seed_with(&lab, &torrent, &payload, &[], forced.here());
    let out = lab.folder("out");
    let leech = libtorrent::leech(&lab, &torrent, &out, &[seed.address()], forced.there());
    libtorrent::finish(leech, &payload, &out);
}

#[test]
fn to_libtorrent_forced_here() {
    to_libtorrent(Forced::Here, "v1");
}

#[test]
fn to_libtorrent_forced_there() {
    to_libtorrent(Forced::There, "v1");
}

#[test]
fn a_hybrid_to_libtorrent_forced_there() {
    to_libtorrent(Forced::There, "hybrid");
}
