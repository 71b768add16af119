//! Whole torrents: those of other programs, hostile ones, and our own there and back.

mod build;
mod hostile;
mod others;

use super::{Attributes, Format, Metainfo, PieceHash, Plan, merkle};
use sha1::{Digest, Sha1};

/// The data of the torrents in `testdata/torrents`.
fn data(seed: usize, length: u64) -> Vec<u8> {
    (0..usize::try_from(length).unwrap()).map(|i| (i % 251 + i / 251 * 3 + seed).to_le_bytes()[0]).collect()
}

macro_rules! stored {
    ($($name:literal)*) => {
        /// The torrents in `testdata/torrents`: name and bytes.
        const STORED: &[(&str, &[u8])] = &[$(($name, include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"), "/testdata/torrents/", $name, ".torrent"
        )))),*];
    };
}

stored! {
    "gannet-hybrid-many"
    "gannet-v1-many"
    "gannet-v2-many"
    "lt-hybrid-32k-many"
    "lt-hybrid-32k-single"
    "lt-hybrid-many"
    "lt-hybrid-names"
    "lt-hybrid-notail-many"
    "lt-hybrid-notail-single"
    "lt-hybrid-single"
    "lt-v1-many"
    "lt-v1-names"
    "lt-v1-padded-many"
    "lt-v1-padded-single"
    "lt-v1-single"
    "lt-v2-64k-many"
    "lt-v2-64k-single"
    "lt-v2-many"
    "lt-v2-single"
    "mktorrent-many"
    "mktorrent-single"
    "transmission-many"
    "transmission-single"
}

/// The bytes of a torrent in `testdata/torrents`.
fn stored(name: &str) -> Vec<u8> {
    STORED.iter().find(|(n, _)| *n == name).map(|(_, bytes)| bytes.to_vec()).unwrap_or_else(|| panic!("no {name}"))
}

/// Hashes what `plan` says, as a session would.
fn finish(plan: &Plan, contents: &[Vec<u8>]) -> Vec<u8> {
    let (mut v1, mut v2) = (Vec::new(), Vec::new());
    for piece in plan.pieces() {
        let mut bytes = Vec::new();
        for span in piece.spans {
            let start = usize::try_from(span.offset).unwrap();
            bytes.extend_from_slice(&contents[span.file][start..start + span.len as usize]);
        }
        let leaves: Vec<_> = bytes.chunks(16_384).map(merkle::leaf).collect();
        v2.push(merkle::piece_root(&leaves, piece.width));
        bytes.resize(bytes.len() + piece.padding as usize, 0);
        v1.push(Sha1::digest(&bytes).into());
    }
    match plan.format() {
        Format::V1 => plan.finish(&v1, &[]),
        Format::V2 => plan.finish(&[], &v2),
        Format::Hybrid => plan.finish(&v1, &v2),
    }
    .unwrap()
}

/// Checks every piece of `torrent` against `contents` (one for each file that is no padding), by way of the positions
/// that the parsed torrent gives, not those of the plan.
fn verify(torrent: &Metainfo, contents: &[Vec<u8>]) {
    let info = &torrent.info;
    let g = info.geometry();
    let end = info.files().iter().map(|f| f.offset + f.length).max().unwrap();
    let end = end.max(g.position(g.pieces().next_back().unwrap()) + 1);
    let mut space = vec![0; usize::try_from(end.next_multiple_of(g.piece_length().into())).unwrap()];
    let written = info.files().iter().filter(|f| !f.attr.pad);
    for (file, bytes) in written.zip(contents) {
        assert_eq!(file.length, bytes.len() as u64);
        space[usize::try_from(file.offset).unwrap()..][..bytes.len()].copy_from_slice(bytes);
    }
    let mut data_len = 0;
    for piece in g.pieces() {
        let bytes = &space[usize::try_from(g.position(piece)).unwrap()..];
        let on_wire = &bytes[..g.piece_len(piece) as usize];
        let data = &bytes[..g.data_len(piece) as usize];
        data_len += data.len();
        let sha1: [u8; 20] = Sha1::digest(on_wire).into();
        let leaves: Vec<_> = data.chunks(16_384).map(merkle::leaf).collect();
        match info.piece_hash(piece).unwrap() {
            PieceHash::V1(v1) => assert_eq!(*v1, sha1, "piece {piece}"),
            PieceHash::V2 { root, width } => assert_eq!(root, merkle::piece_root(&leaves, width), "piece {piece}"),
            PieceHash::Hybrid { v1, root, width } => {
                assert_eq!((*v1, root), (sha1, merkle::piece_root(&leaves, width)), "piece {piece}");
            }
        }
    }
    if info.info_hash().as_v2().is_some() {
        assert_eq!(data_len as u64, info.total_size());
    }
}

const PLAIN: Attributes = Attributes { pad: false, executable: false, hidden: false, symlink: false };
