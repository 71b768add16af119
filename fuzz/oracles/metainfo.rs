//! Torrents: whatever is taken can be written to disk safely and checked completely.

use gannet::Metainfo;
use gannet::hash::{sha1, sha256};
use gannet::metainfo::limits::{MAX_COMPONENT_LEN, MAX_PATH_DEPTH, MAX_PATH_LEN};
use gannet::metainfo::{File, Info, Magnet, SafePath};
use std::collections::HashSet;
use std::path::Component;

pub fn run(data: &[u8]) {
    // A torrent, or an info dictionary from peers.
    let parsed = Metainfo::parse(data);
    if let Ok(whole) = &parsed {
        let kept = Metainfo::parse_incomplete(data).unwrap();
        assert_eq!(kept.info.info_hash(), whole.info.info_hash());
        assert!(data.windows(whole.info.raw().len()).any(|window| window == whole.info.raw()), "made up");
        assert_eq!(whole.info.missing_layers().next(), None);
        for piece in whole.info.geometry().pieces() {
            assert!(whole.info.piece_hash(piece).is_some(), "{piece} cannot be checked");
        }
        let link = whole.magnet().to_string();
        assert_eq!(Magnet::parse(&link).unwrap().info_hash, whole.info.info_hash());
        check(&whole.info);
    }
    if let Ok(info) = Info::parse(data, None) {
        assert_eq!(info.raw(), data);
        check(&info);
    }
    if let Ok(Metainfo { info, .. }) = parsed {
        let again = Info::parse(info.raw(), None).unwrap();
        assert_eq!(again.info_hash(), info.info_hash());
        assert_eq!(again.files().len(), info.files().len());
    }
}

fn check(info: &Info) {
    let hash = info.info_hash();
    assert!(hash.as_v1().is_none_or(|v1| v1.0 == sha1(&[info.raw()])));
    assert!(hash.as_v2().is_none_or(|v2| v2.0 == sha256(&[info.raw()])));
    assert!(hash.as_v1().is_some() || hash.as_v2().is_some());

    let geometry = info.geometry();
    let wire: u64 = geometry.pieces().map(|piece| u64::from(geometry.piece_len(piece))).sum();
    let data: u64 = geometry.pieces().map(|piece| u64::from(geometry.data_len(piece))).sum();
    assert!(data <= wire && info.total_size() <= wire);
    assert!(info.total_size() > 0 && geometry.piece_count() > 0);

    assert_eq!(
        info.files().iter().filter(|file| !file.attr.pad).map(|file| file.length).sum::<u64>(),
        info.total_size()
    );
    let mut end = 0;
    for file in info.files() {
        assert!(file.offset >= end, "files overlap");
        end = file.offset + file.length;
    }
    let mut seen = HashSet::new();
    for file in info.files().iter().filter(|file| !file.attr.pad) {
        check_path(&file.path);
        check_place(info, file);
        assert!(seen.insert(file.path.as_str().to_lowercase()), "two files in one place");
        if let Some(target) = &file.symlink {
            check_path(target);
        }
    }
    // No file is the folder of another.
    for path in &seen {
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        assert!(folders.into_iter().all(|folder| !seen.contains(folder)), "{path}");
    }
}

fn check_path(path: &SafePath) {
    assert!(path.as_str().len() <= MAX_PATH_LEN && path.components().count() <= MAX_PATH_DEPTH);
    for part in path.components() {
        assert!(!part.is_empty() && part != "." && part != ".." && part.len() <= MAX_COMPONENT_LEN, "{part:?}");
        assert!(!part.contains(['/', '\\', '\0']) && !part.chars().any(char::is_control), "{part:?}");
    }
}

/// Below the folder that it is downloaded to, and nowhere else.
fn check_place(info: &Info, file: &File) {
    let place = info.disk_path(file);
    assert!(place.components().all(|part| matches!(part, Component::Normal(_))), "{place:?}");
    assert!(place.components().next().is_some());
}
