//! Magnet links: gannet learns from another client what a torrent is, and the other way round.

use crate::clients::makers::{NO_TRACKER, Torrent};
use crate::clients::opentracker::Opentracker;
use crate::clients::{Crypto, aria2, gannet, libtorrent, makers, transmission};
use crate::lab::{Lab, Tool};
use crate::payload::{Payload, Shape};

/// gannet has nothing but the link, and a seed.
fn from_libtorrent(format: &str) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = makers::libtorrent(&lab, &payload, format, None);
    let seed = libtorrent::seed(&lab, &torrent, &payload, &[], Crypto::Usual);
    let saved = lab.folder("saved");
    let (address, saved_to) = (seed.address(), saved.display().to_string());
    let options = ["--peer", &address, "--save-torrent", &saved_to];
    let events = gannet::get_told(&lab, &torrent.by_link(""), &payload, &lab.folder("out"), &options);
    let metadata = events.iter().find(|event| event["event"] == "metadata").expect("what it is");
    assert_eq!(metadata["name"], payload.name);
    let ours = Torrent::load(saved.join(format!("{}.torrent", payload.name)));
    assert_eq!(ours.link, torrent.link);
    // What libtorrent makes of it: all hashes are there.
    drop(libtorrent::seed(&lab, &ours, &payload, &[], Crypto::Usual));
}

#[test]
fn v1_from_libtorrent() {
    from_libtorrent("v1");
}

#[test]
fn v2_from_libtorrent() {
    from_libtorrent("v2");
}

#[test]
fn hybrid_from_libtorrent() {
    from_libtorrent("hybrid");
}

#[test]
fn v1_from_aria2() {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let seed = aria2::seed(&lab, &torrent, &payload, Crypto::Usual);
    gannet::get(&lab, &torrent.by_link(""), &payload, &lab.folder("out"), &[seed.address()]);
}

#[test]
fn v1_from_transmission() {
    let Some(lab) = Lab::with(&[Tool::Transmission, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let seed = transmission::seed(&lab, &torrent, &payload, Crypto::Usual);
    gannet::get(&lab, &torrent.by_link(""), &payload, &lab.folder("out"), &[seed.address()]);
}

/// The address of the seed stands in the link itself (BEP 9, `x.pe`); `info` needs no more.
#[test]
fn the_link_names_a_peer() {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::libtorrent(&lab, &payload, "hybrid", None);
    let seed = libtorrent::seed(&lab, &torrent, &payload, &[], Crypto::Usual);
    let link = torrent.by_link(&format!("&x.pe={}", seed.address()));
    let (told, known) = (gannet::info(&lab, &link.path), gannet::info(&lab, &torrent.path));
    for key in ["name", "info_hash_v1", "info_hash_v2", "files", "piece_length", "total_size"] {
        assert_eq!(told[key], known[key], "{key}");
    }
    gannet::get(&lab, &link, &payload, &lab.folder("out"), &[]);
}

/// libtorrent has nothing but the link, and calls gannet.
fn to_libtorrent(format: &str) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = gannet::create(&lab, &payload, format, &[]);
    let seed = gannet::seed(&lab, &torrent, &payload, &[]);
    let out = lab.folder("out");
    let leech = libtorrent::leech(&lab, &torrent.by_link(""), &out, &[seed.address()], Crypto::Usual);
    libtorrent::finish(leech, &payload, &out);
}

#[test]
fn v1_to_libtorrent() {
    to_libtorrent("v1");
}

#[test]
fn v2_to_libtorrent() {
    to_libtorrent("v2");
}

#[test]
fn hybrid_to_libtorrent() {
    to_libtorrent("hybrid");
}

/// What `gannet share` prints is all that libtorrent needs.
#[test]
fn shared_with_libtorrent() {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let (seed, torrent) = gannet::share(&lab, &payload, "hybrid");
    let out = lab.folder("out");
    let leech = libtorrent::leech(&lab, &torrent, &out, &[seed.address()], Crypto::Usual);
    libtorrent::finish(leech, &payload, &out);
    payload.assert_same(&payload.parent);
}

/// aria2 is told of gannet by the tracker that the link names.
#[test]
fn v1_to_aria2() {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Opentracker]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let hash = gannet::create(&lab, &payload, "v1", &[]).wire_hash;
    let mut tracker = Opentracker::start(&lab, &[hash]);
    let torrent = gannet::create(&lab, &payload, "v1", &["--force", "--tracker", &tracker.http()]);
    let _seed = gannet::seed(&lab, &torrent, &payload, &[]);
    tracker.until("gannet as a seeder", hash, |counts| counts.seeders == 1);
    let out = lab.folder("out");
    let leech = aria2::leech_by_link(&lab, &torrent.by_link(&format!("&tr={}", tracker.http())), &out);
    aria2::finish(leech, &payload, &out);
}

/// gannet calls Transmission, which asks it what the torrent is.
#[test]
fn v1_to_transmission() {
    let Some(lab) = Lab::with(&[Tool::Transmission]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = gannet::create(&lab, &payload, "v1", &[]);
    let out = lab.folder("out");
    let leech = transmission::leech_by_link(&lab, &torrent.by_link(""), &out);
    let _seed = gannet::seed(&lab, &torrent, &payload, &[leech.address()]);
    transmission::finish(leech, &lab, &payload, &out);
}
