//! Torrents of mktorrent, transmission-create and libtorrent: we must see in them what they see.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{STORED, data, stored, verify};
use crate::metainfo::{File, Info, Metainfo};

#[derive(Deserialize)]
struct Expected {
    name: String,
    v1: Option<String>,
    v2: Option<String>,
    piece_length: u32,
    pieces: u32,
    private: bool,
    trackers: Vec<String>,
    web_seeds: Vec<String>,
    files: Vec<ExpectedFile>,
}

#[derive(Deserialize, PartialEq, Debug)]
struct ExpectedFile {
    path: String,
    length: u64,
    offset: u64,
    pad: bool,
    executable: bool,
    root: Option<String>,
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/torrents/expected.json"))).unwrap()
}

#[test]
fn seen_as_their_makers_see_them() {
    let table = expected();
    assert_eq!(table.len(), STORED.iter().filter(|(name, _)| !name.starts_with("gannet")).count());
    for (name, expected) in table {
        let torrent = Metainfo::parse(&stored(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let info = &torrent.info;
        let hash = info.info_hash();
        assert_eq!(hash.as_v1().map(|h| h.to_string()), expected.v1, "{name}");
        assert_eq!(hash.as_v2().map(|h| h.to_string()), expected.v2, "{name}");
        assert_eq!(info.name(), expected.name);
        assert_eq!(info.geometry().piece_length(), expected.piece_length, "{name}");
        assert_eq!(info.geometry().piece_count(), expected.pieces, "{name}");
        assert_eq!(info.is_private(), expected.private, "{name}");
        assert_eq!(torrent.announce.concat(), expected.trackers, "{name}");
        assert_eq!(torrent.web_seeds, expected.web_seeds, "{name}");
        // libtorrent lists files and pad files as version 2 would lay them out: that moves empty files, and shows pad
        // files in v2-only torrents, which have none.
        let v2_only = hash.as_v1().is_none();
        let (their_pads, theirs): (Vec<_>, Vec<_>) = expected.files.into_iter().partition(|f| f.pad);
        let (our_pads, ours): (Vec<_>, Vec<_>) = info.files().iter().partition(|f| f.attr.pad);
        let seen: Vec<ExpectedFile> = ours.iter().zip(&theirs).map(|(ours, theirs)| seen(info, ours, theirs)).collect();
        assert_eq!(seen, theirs, "{name}");
        assert_eq!(ours.len(), theirs.len(), "{name}");
        if !v2_only {
            let ours: Vec<_> = our_pads.iter().map(|f| (f.offset, f.length)).collect();
            let theirs: Vec<_> = their_pads.iter().map(|f| (f.offset, f.length)).collect();
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(info.missing_layers().count(), 0);
    }
}

fn seen(info: &Info, file: &File, theirs: &ExpectedFile) -> ExpectedFile {
    let below: Vec<&str> = file.raw_components().map(|c| std::str::from_utf8(c).unwrap()).collect();
    ExpectedFile {
        path: if info.is_single_file() { below.concat() } else { format!("{}/{}", info.name(), below.join("/")) },
        length: file.length,
        offset: if file.length == 0 { theirs.offset } else { file.offset },
        pad: file.attr.pad,
        executable: file.attr.executable,
        root: file.pieces_root.map(|r| r.iter().map(|b| format!("{b:02x}")).collect()),
    }
}

#[test]
fn their_hashes_fit_the_data() {
    let many = |name: &str| {
        let seed = ["B.txt", "a.txt", "empty", "sub/d-e.bin", "sub/dir/c.bin", "sub/dir2/last.bin", "z empty"];
        let lengths = [3, 20_000, 0, 16_384, 70_000, 40_001, 0];
        let n = seed.iter().position(|s| *s == name).unwrap();
        data(10 + n, lengths[n])
    };
    for name in expected().keys().filter(|n| !n.contains("names")) {
        let torrent = Metainfo::parse(&stored(name)).unwrap();
        let contents: Vec<Vec<u8>> = if name.contains("single") {
            vec![data(1, 50_001)]
        } else {
            torrent.info.files().iter().filter(|f| !f.attr.pad).map(|f| many(f.path.as_str())).collect()
        };
        verify(&torrent, &contents);
    }
}

#[test]
fn what_is_optional() {
    let torrent = Metainfo::parse(&stored("mktorrent-many")).unwrap();
    let tiers = [vec!["udp://a.example:1/announce", "http://b.example/announce"], vec!["http://c.example/announce"]];
    assert_eq!(torrent.announce, tiers);
    assert_eq!(torrent.web_seeds, ["http://w.example/"]);
    assert_eq!(torrent.comment.as_deref(), Some("made for tests"));
    assert_eq!(torrent.created_by.as_deref(), Some("mktorrent 1.1"));
    assert_eq!(torrent.info.source(), Some("SRC"));
    assert_eq!(torrent.creation_date, None);

    let torrent = Metainfo::parse(&stored("lt-hybrid-many")).unwrap();
    assert_eq!(torrent.nodes, [("router.example".to_owned(), 6881)]);
    assert_eq!(torrent.creation_date, Some(1_700_000_000));
    let magnet = torrent.magnet();
    assert_eq!(magnet.info_hash, torrent.info.info_hash());
    assert_eq!(magnet.trackers.len(), 3);
    assert!(magnet.to_string().contains("&xt=urn:btmh:1220"));
    assert!(torrent.info.matches(&magnet.info_hash));
}

/// Names that our own disks should not have; the originals are still known, to find data that is there.
#[test]
fn names_and_originals() {
    for name in ["lt-hybrid-names", "lt-v1-names"] {
        let torrent = Metainfo::parse(&stored(name)).unwrap();
        let mut files: Vec<_> = torrent.info.files().iter().filter(|f| !f.attr.pad).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let paths: Vec<&str> = files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["_aux.c", "etc", "ünter ordner/naïve.txt"]);
        assert_eq!(torrent.info.disk_path(files[1]).to_str(), Some("Grüße – 日本/etc"));
        #[cfg(unix)]
        {
            let originals: Vec<_> = files.iter().map(|f| f.original_path()).collect();
            assert_eq!(originals, [Some("aux.c".into()), Some("etc.".into()), None]);
        }
    }
}

#[test]
fn a_hybrid_without_layers_still_has_its_v1_hashes() {
    let whole = Metainfo::parse(&stored("lt-hybrid-many")).unwrap().info;
    let mut info = Info::parse(whole.raw(), None).unwrap();
    let missing: Vec<usize> = info.missing_layers().collect();
    assert_eq!(missing.len(), 3);
    let pieces: Vec<_> = info.geometry().pieces().collect();
    assert!(pieces.iter().all(|p| info.piece_hash(*p).is_some()));
    for file in missing {
        let mut layer = whole.piece_layer(file).unwrap().to_vec();
        layer[0][0] ^= 1;
        assert!(info.set_piece_layer(file, layer.clone()).is_err());
        layer[0][0] ^= 1;
        info.set_piece_layer(file, layer).unwrap();
    }
    assert!(pieces.iter().all(|p| info.piece_hash(*p) == whole.piece_hash(*p)));

    let v2 = Metainfo::parse(&stored("lt-v2-many")).unwrap().info;
    let info = Info::parse(v2.raw(), None).unwrap();
    let known = |i: &Info| i.geometry().pieces().filter(|p| i.piece_hash(*p).is_some()).count();
    assert_eq!((known(&info), known(&v2)), (2, 12));
}
