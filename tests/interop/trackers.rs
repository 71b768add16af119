//! gannet and another client find each other through opentracker, and in no other way.

use crate::clients::makers::NO_TRACKER;
use crate::clients::opentracker::Opentracker;
use crate::clients::{Crypto, aria2, gannet, libtorrent, makers};
use crate::lab::{Lab, Tool};
use crate::payload::{Payload, Shape};

type Url = fn(&Opentracker) -> String;

/// gannet learns of the seed, tells that it has completed, and that it leaves.
fn finds(shape: Shape, url: Url) {
    let Some(lab) = Lab::with(&[Tool::Opentracker, Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, shape);
    let hash = makers::libtorrent(&lab, &payload, "v1", None).wire_hash;
    let mut tracker = Opentracker::start(&lab, &[hash]);
    let torrent = makers::libtorrent(&lab, &payload, "v1", Some(&url(&tracker)));
    let _seed = libtorrent::seed(&lab, &torrent, &payload, &[], Crypto::Usual);
    tracker.until("a seeder", hash, |counts| counts.seeders == 1);
    // A farewell is sent once, and waits for nobody for long: on a machine that is busy it may come too late.
    let heard = (1..=3).any(|n| {
        let before = tracker.counts(hash).expect("an answer").seeders;
        gannet::get(&lab, &torrent, &payload, &lab.folder(&format!("out{n}")), &[]);
        tracker.until("that gannet completed", hash, |counts| counts.downloaded == n);
        tracker.saw(hash, |counts| counts.seeders == before && counts.leechers == 0)
    });
    assert!(heard, "the tracker never saw that gannet left");
}

#[test]
fn gannet_finds_a_seed_by_http() {
    finds(Shape::Tree, Opentracker::http);
}

#[test]
fn gannet_finds_a_seed_by_udp() {
    finds(Shape::Single, Opentracker::udp);
}

/// gannet seeds and tells the tracker; aria2 learns of it there, and calls.
fn is_found(url: Url) {
    let Some(lab) = Lab::with(&[Tool::Opentracker, Tool::Aria2, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let hash = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]).wire_hash;
    let mut tracker = Opentracker::start(&lab, &[hash]);
    let torrent = makers::mktorrent(&lab, &payload, &url(&tracker), &[]);
    let _seed = gannet::seed(&lab, &torrent, &payload, &[]);
    tracker.until("gannet as a seeder", hash, |counts| counts.seeders == 1);
    let out = lab.folder("out");
    aria2::finish(aria2::leech(&lab, &torrent, &out, Crypto::Usual), &payload, &out);
}

#[test]
fn aria2_finds_gannet_by_http() {
    is_found(Opentracker::http);
}

#[test]
fn aria2_finds_gannet_by_udp() {
    is_found(Opentracker::udp);
}

/// A v2 torrent goes by the first 20 bytes of its info-hash at trackers.
#[test]
fn gannet_finds_a_v2_seed() {
    let Some(lab) = Lab::with(&[Tool::Opentracker, Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let hash = makers::libtorrent(&lab, &payload, "v2", None).wire_hash;
    let mut tracker = Opentracker::start(&lab, &[hash]);
    let torrent = makers::libtorrent(&lab, &payload, "v2", Some(&tracker.udp()));
    let _seed = libtorrent::seed(&lab, &torrent, &payload, &[], Crypto::Usual);
    tracker.until("a seeder", hash, |counts| counts.seeders == 1);
    gannet::get(&lab, &torrent, &payload, &lab.folder("out"), &[]);
}
