//! The other clients among themselves, without gannet: if one of these fails, the harness or the machine is at fault.

use crate::clients::makers::NO_TRACKER;
use crate::clients::opentracker::{Opentracker, hex};
use crate::clients::{Crypto, aria2, libtorrent, makers, transmission};
use crate::lab::{Lab, Tool};
use crate::payload::{Payload, Shape};

#[test]
fn libtorrent_to_aria2_through_an_http_tracker() {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Libtorrent, Tool::Opentracker, Tool::Mktorrent]) else { return };
    through_tracker(&lab, Shape::Tree, Opentracker::http);
}

#[test]
fn libtorrent_to_aria2_through_a_udp_tracker() {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Libtorrent, Tool::Opentracker, Tool::Mktorrent]) else { return };
    through_tracker(&lab, Shape::Single, Opentracker::udp);
}

fn through_tracker(lab: &Lab, shape: Shape, url: fn(&Opentracker) -> String) {
    let payload = Payload::new(lab, shape);
    let hash = makers::mktorrent(lab, &payload, NO_TRACKER, &[]).wire_hash;
    let mut tracker = Opentracker::start(lab, &[hash]);
    let torrent = makers::mktorrent(lab, &payload, &url(&tracker), &[]);
    let _seed = libtorrent::seed(lab, &torrent, &payload, &[], Crypto::Usual);
    tracker.until("a seeder", hash, |counts| counts.seeders == 1);
    let out = lab.folder("out");
    aria2::finish(aria2::leech(lab, &torrent, &out, Crypto::Usual), &payload, &out);
}

#[test]
fn aria2_to_libtorrent() {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Libtorrent, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Single);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let seed = aria2::seed(&lab, &torrent, &payload, Crypto::Usual);
    let out = lab.folder("out");
    libtorrent::finish(libtorrent::leech(&lab, &torrent, &out, &[seed.address()], Crypto::Usual), &payload, &out);
}

#[test]
fn transmission_to_libtorrent() {
    let Some(lab) = Lab::with(&[Tool::Transmission, Tool::Libtorrent, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let seed = transmission::seed(&lab, &torrent, &payload, Crypto::Usual);
    let out = lab.folder("out");
    libtorrent::finish(libtorrent::leech(&lab, &torrent, &out, &[seed.address()], Crypto::Usual), &payload, &out);
}

#[test]
fn libtorrent_to_transmission() {
    let Some(lab) = Lab::with(&[Tool::Transmission, Tool::Libtorrent, Tool::Mktorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = makers::mktorrent(&lab, &payload, NO_TRACKER, &[]);
    let out = lab.folder("out");
    let leech = transmission::leech(&lab, &torrent, &out, Crypto::Usual);
    let _seed = libtorrent::seed(&lab, &torrent, &payload, &[leech.address()], Crypto::Usual);
    transmission::finish(leech, &lab, &payload, &out);
}

#[test]
fn libtorrent_to_libtorrent_in_every_format() {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    for format in ["v1", "v2", "hybrid"] {
        let torrent = makers::libtorrent(&lab, &payload, format, None);
        let seed = libtorrent::seed(&lab, &torrent, &payload, &[], Crypto::Usual);
        let out = lab.folder(&format!("out-{format}"));
        libtorrent::finish(libtorrent::leech(&lab, &torrent, &out, &[seed.address()], Crypto::Usual), &payload, &out);
    }
}

/// v1 only: of a hybrid torrent aria2 1.36 computes a wrong info-hash, and Transmission 3 cannot read it.
#[test]
fn every_client_names_the_same_info_hash() {
    let Some(lab) = Lab::with(&[Tool::Aria2, Tool::Libtorrent, Tool::Transmission]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = makers::libtorrent(&lab, &payload, "v1", None);
    let ours = hex(&torrent.wire_hash);
    assert_eq!(libtorrent::info(&lab, &torrent.path)["info_hash_v1"], ours);
    assert_eq!(aria2::info_hash(&lab, &torrent.path), ours);
    assert_eq!(transmission::info_hash(&lab, &torrent.path), ours);
}

#[test]
fn differences_are_seen() {
    let lab = Lab::with(&[]).expect("nothing is needed");
    let payload = Payload::new(&lab, Shape::Tree);
    let out = lab.folder("out/sub");
    let copy = |from: &str, to: &str| {
        let to = lab.path("out").join(to);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(payload.path().join(from), to).expect("a copy");
    };
    let names = ["a.bin", "sub/b.bin", "sub/deep/er/block.bin", "sub/deep/er/one byte", "sub/grüße 鳥.bin", "z.bin"];
    names.iter().for_each(|name| copy(name, name));
    let root = lab.path("out");
    assert_eq!(payload.difference(&root, true), None);
    assert!(payload.difference(&root, false).is_some_and(|why| why.contains("missing")));
    copy("empty", "empty");
    copy("empty", "sub/empty too");
    assert_eq!(payload.difference(&root, false), None);
    copy("empty", "one more");
    assert!(payload.difference(&root, false).is_some_and(|why| why.contains("should not")));
    std::fs::remove_file(root.join("one more")).expect("removed");
    let mut bytes = std::fs::read(out.join("b.bin")).expect("a file");
    bytes[700_000] ^= 1;
    std::fs::write(out.join("b.bin"), bytes).expect("a file");
    assert!(payload.difference(&root, false).is_some_and(|why| why.contains("from byte 700000")));
    copy("empty", "sub/b.bin");
    assert!(payload.difference(&root, false).is_some_and(|why| why.contains("0 bytes, not 700001")));
}
