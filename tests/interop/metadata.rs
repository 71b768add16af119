//! Torrent files: what gannet makes is what others read, and the other way round.

use serde_json::{Value, json};

use crate::clients::makers::{NO_TRACKER, Torrent};
use crate::clients::opentracker::hex;
use crate::clients::{Crypto, aria2, gannet, libtorrent, makers, transmission};
use crate::lab::{Lab, Tool};
use crate::payload::{PIECE_LENGTH, Payload, Shape};

/// The two views of one torrent, without what they are free to differ in: padding, tiers, "no comment".
fn assert_agree(lab: &Lab, torrent: &Torrent) -> Value {
    let without_padding = |info: &Value| -> Vec<Value> {
        let files = info["files"].as_array().unwrap_or_else(|| panic!("no files: {info}"));
        let real = files.iter().filter(|file| file["pad"] != true);
        real.map(|file| json!({"path": file["path"], "length": file["length"]})).collect()
    };
    let (ours, theirs) = (gannet::info(lab, &torrent.path), libtorrent::info(lab, &torrent.path));
    for key in [
        "name",
        "version",
        "info_hash_v1",
        "info_hash_v2",
        "total_size",
        "piece_length",
        "piece_count",
        "web_seeds",
        "private",
    ] {
        assert_eq!(ours[key], theirs[key], "{key}\ngannet: {ours}\nlibtorrent: {theirs}");
    }
    for key in ["comment", "created_by"] {
        let text = |info: &Value| info[key].as_str().unwrap_or("").to_owned();
        assert_eq!(text(&ours), text(&theirs), "{key}");
    }
    assert_eq!(without_padding(&ours), without_padding(&theirs), "gannet: {ours}\nlibtorrent: {theirs}");
    let tiers = ours["trackers"].as_array().unwrap_or_else(|| panic!("no trackers: {ours}"));
    let flat: Vec<Value> = tiers.iter().flat_map(|tier| tier.as_array().cloned().unwrap_or_default()).collect();
    assert_eq!(Value::from(flat), theirs["trackers"]);
    ours
}

/// Of one format and shape: libtorrent reads the same in it as gannet, and finds the data as the hashes in it say.
fn created(shape: Shape, format: &str) {
    let Some(lab) = Lab::with(&[Tool::Libtorrent, Tool::Aria2, Tool::Transmission]) else { return };
    let payload = Payload::new(&lab, shape);
    let piece_length = PIECE_LENGTH.to_string();
    let torrent = gannet::create(
        &lab,
        &payload,
        format,
        &["--piece-length", &piece_length, "--tracker", NO_TRACKER, "--comment", "for all to read"],
    );
    let info = assert_agree(&lab, &torrent);
    assert_eq!(info["version"], format);
    assert_eq!(info["piece_length"], PIECE_LENGTH);
    assert_eq!(info["total_size"], payload.length());
    assert_eq!(info["comment"], "for all to read");
    // The others cannot be asked about a hybrid: aria2 1.36 computes a wrong info-hash, Transmission 3 does not read it.
    if format == "v1" {
        assert_eq!(info["info_hash_v1"], hex(&torrent.wire_hash));
        assert_eq!(aria2::info_hash(&lab, &torrent.path), hex(&torrent.wire_hash));
        assert_eq!(transmission::info_hash(&lab, &torrent.path), hex(&torrent.wire_hash));
    }
    drop(libtorrent::seed(&lab, &torrent, &payload, &[], Crypto::Usual));
}

#[test]
fn libtorrent_reads_a_v1_file_by_gannet() {
    created(Shape::Single, "v1");
}

#[test]
fn libtorrent_reads_a_v1_tree_by_gannet() {
    created(Shape::Tree, "v1");
}

#[test]
fn libtorrent_reads_a_v2_file_by_gannet() {
    created(Shape::Single, "v2");
}

#[test]
fn libtorrent_reads_a_v2_tree_by_gannet() {
    created(Shape::Tree, "v2");
}

#[test]
fn libtorrent_reads_a_hybrid_file_by_gannet() {
    created(Shape::Single, "hybrid");
}

#[test]
fn libtorrent_reads_a_hybrid_tree_by_gannet() {
    created(Shape::Tree, "hybrid");
}

/// The others find the data as the hashes in a torrent of gannet's say, and seed it.
#[test]
fn others_seed_by_a_torrent_by_gannet() {
    let Some(lab) = Lab::with(&[Tool::Transmission, Tool::Aria2]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    let torrent = gannet::create(&lab, &payload, "v1", &[]);
    drop(aria2::seed(&lab, &torrent, &payload, Crypto::Usual));
    drop(transmission::seed(&lab, &torrent, &payload, Crypto::Usual));
}

#[test]
fn gannet_reads_mktorrent() {
    let Some(lab) = Lab::with(&[Tool::Libtorrent, Tool::Mktorrent]) else { return };
    for shape in [Shape::Single, Shape::Tree] {
        let lab_of_shape = Payload::new(&lab, shape);
        let more = ["-c", "grüße", "-p", "-s", "a source", "-w", "http://127.0.0.1:1/seed/", "-a", "udp://127.0.0.1:1"];
        let torrent = makers::mktorrent(&lab, &lab_of_shape, "http://127.0.0.1:1/announce,http://127.0.0.1:2/a", &more);
        let info = assert_agree(&lab, &torrent);
        assert_eq!(info["source"], "a source");
        assert_eq!(info["private"], true);
        assert_eq!(info["trackers"][0].as_array().map(Vec::len), Some(2), "two trackers in the first tier: {info}");
    }
}

#[test]
fn gannet_reads_transmission_create() {
    let Some(lab) = Lab::with(&[Tool::Libtorrent, Tool::Transmission]) else { return };
    for shape in [Shape::Single, Shape::Tree] {
        let payload = Payload::new(&lab, shape);
        assert_agree(&lab, &makers::transmission_create(&lab, &payload, None, &["-c", "a comment"]));
        assert_agree(&lab, &makers::transmission_create(&lab, &payload, Some(NO_TRACKER), &["-p"]));
    }
}

#[test]
fn gannet_reads_libtorrent() {
    let Some(lab) = Lab::with(&[Tool::Libtorrent]) else { return };
    let payload = Payload::new(&lab, Shape::Tree);
    for format in ["v1", "v2", "hybrid"] {
        assert_agree(&lab, &makers::libtorrent(&lab, &payload, format, Some(NO_TRACKER)));
    }
}
