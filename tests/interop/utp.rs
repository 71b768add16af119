//! uTP (BEP 29) with other clients, in both directions: gannet with `--no-tcp`, so that there is no other way.

use serde_json::Value;

use crate::clients::{Carrier, Crypto, gannet, libtorrent, makers, transmission};
use crate::lab::{Lab, Tool};
use crate::payload::{Payload, Shape};

/// gannet downloads from the seed at `seed`; every connection that it tells of is uTP.
fn download(lab: &Lab, torrent: &makers::Torrent, payload: &Payload, seed: &str, encryption: &str) {
    let options = ["--no-tcp", "--encryption", encryption, "--peer", seed];
    let events = gannet::get_told(lab, torrent, payload, &lab.folder("out"), &options);
    let connected: Vec<&Value> = events.iter().filter(|event| event["state"] == "connected").collect();
    assert!(!connected.is_empty(), "{events:?}");
    assert!(connected.iter().all(|event| event["utp"] == true), "{connected:?}");
    let encrypted = encryption == "require";
    assert!(connected.iter().all(|event| event["encrypted"] == encrypted), "{connected:?}");
}

fn from_libtorrent(crypto: Crypto, encryption: &str) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::libtorrent(&lab, &payload, "v1", None);
    let seed = libtorrent::seed_over(&lab, &torrent, &payload, &[], crypto, Carrier::Utp);
    download(&lab, &torrent, &payload, &seed.address(), encryption);
}

#[test]
fn from_libtorrent_plain() {
    from_libtorrent(Crypto::Usual, "off");
}

#[test]
fn from_libtorrent_encrypted() {
    from_libtorrent(Crypto::Forced, "require");
}

/// libtorrent calls gannet.
fn to_libtorrent(crypto: Crypto, encryption: &str) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = makers::libtorrent(&lab, &payload, "hybrid", None);
    let seed = gannet::seed_by_utp(&lab, &torrent, &payload, &[], encryption);
    let out = lab.folder("out");
    let leech = libtorrent::leech_over(&lab, &torrent, &out, &[seed.address()], crypto, Carrier::Utp);
    libtorrent::finish(leech, &payload, &out);
}

#[test]
fn to_libtorrent_plain() {
    to_libtorrent(Crypto::Usual, "off");
}

#[test]
fn to_libtorrent_encrypted() {
    to_libtorrent(Crypto::Forced, "require");
}

#[test]
fn from_transmission() {
    let Some(lab) = Lab::with(&[Tool::Transmission]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::transmission_create(&lab, &payload, None, &[]);
    let seed = transmission::seed_over(&lab, &torrent, &payload, Crypto::Usual, Carrier::Utp);
    download(&lab, &torrent, &payload, &seed.address(), "off");
}

/// It never calls loopback addresses, so gannet calls it.
#[test]
fn to_transmission() {
    let Some(lab) = Lab::with(&[Tool::Transmission]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::transmission_create(&lab, &payload, None, &[]);
    let out = lab.folder("out");
    let leech = transmission::leech_over(&lab, &torrent, &out, Crypto::Usual, Carrier::Utp);
    let _seed = gannet::seed_by_utp(&lab, &torrent, &payload, &[leech.address()], "off");
    transmission::finish(leech, &lab, &payload, &out);
}
