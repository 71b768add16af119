//! Torrents that were not made by gannet.

use std::fs;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::libtorrent;
use super::opentracker::hex;
use crate::lab::Lab;
use crate::payload::{PIECE_LENGTH, Payload};
use crate::process::run;

/// A tracker that is not there, where a maker insists on one.
pub const NO_TRACKER: &str = "http://127.0.0.1:1/announce";

/// A torrent file.
pub struct Torrent {
    /// Where it is; or a magnet link, which clients take in its place.
    pub path: PathBuf,
    /// A magnet link with the info-hashes and nothing else.
    pub link: String,
    /// The info-hash as handshakes and trackers have it: of v1 if it has one, else the beginning of that of v2.
    pub wire_hash: [u8; 20],
}

impl Torrent {
    /// Reads the info-hash of a torrent file, without any code of gannet.
    pub fn load(path: PathBuf) -> Self {
        let bytes = fs::read(&path).expect("a torrent file");
        let info = value_of(&bytes, b"info").expect("an info dictionary");
        let v1: Option<[u8; 20]> = value_of(info, b"pieces").map(|_| Sha1::digest(info).into());
        let v2: Option<[u8; 32]> = value_of(info, b"meta version").map(|_| Sha256::digest(info).into());
        let wire_hash = v1.or(v2.and_then(|v2| v2[..20].try_into().ok())).expect("an info-hash");
        let topics = v1.map(|v1| format!("xt=urn:btih:{}", hex(&v1))).into_iter();
        let topics: Vec<String> = topics.chain(v2.map(|v2| format!("xt=urn:btmh:1220{}", hex(&v2)))).collect();
        Self { path, link: format!("magnet:?{}", topics.join("&")), wire_hash }
    }

    /// The same torrent, of which nothing is known but its link, with `more` at the end of it.
    pub fn by_link(&self, more: &str) -> Self {
        let link = format!("{}{more}", self.link);
        Self { path: link.clone().into(), link, wire_hash: self.wire_hash }
    }
}

/// The bencoded value of a key of a bencoded dictionary.
fn value_of<'a>(dictionary: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut rest = dictionary.strip_prefix(b"d")?;
    while !rest.starts_with(b"e") {
        let (name, after) = rest.split_at(end_of_value(rest)?);
        let (value, after) = after.split_at(end_of_value(after)?);
        if name.ends_with(key) && name.len() == key.len() + key.len().to_string().len() + 1 {
            return Some(value);
        }
        rest = after;
    }
    None
}

/// The length of the value that `bytes` begins with.
fn end_of_value(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'i' => Some(bytes.iter().position(|&byte| byte == b'e')? + 1),
        b'l' | b'd' => {
            let mut at = 1;
            while *bytes.get(at)? != b'e' {
                at += end_of_value(&bytes[at..])?;
            }
            Some(at + 1)
        }
        _ => {
            let colon = bytes.iter().position(|&byte| byte == b':')?;
            let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
            Some(colon + 1 + length)
        }
    }
}

/// mktorrent: v1.
pub fn mktorrent(lab: &Lab, payload: &Payload, tracker: &str, more: &[&str]) -> Torrent {
    let path = fresh(lab, "mktorrent.torrent");
    let mut command = lab.command("mktorrent");
    command.args(["-l", &PIECE_LENGTH.ilog2().to_string(), "-a", tracker, "-o"]).arg(&path).args(more);
    run("mktorrent", command.arg(payload.path()));
    Torrent::load(path)
}

/// transmission-create: v1.
pub fn transmission_create(lab: &Lab, payload: &Payload, tracker: Option<&str>, more: &[&str]) -> Torrent {
    let path = fresh(lab, "transmission.torrent");
    let mut command = lab.command("transmission-create");
    command.args(["-s", &(PIECE_LENGTH / 1024).to_string(), "-o"]).arg(&path).args(more);
    if let Some(tracker) = tracker {
        command.args(["-t", tracker]);
    }
    run("transmission-create", command.arg(payload.path()));
    Torrent::load(path)
}

/// libtorrent: `format` is `v1`, `v2` or `hybrid`.
pub fn libtorrent(lab: &Lab, payload: &Payload, format: &str, tracker: Option<&str>) -> Torrent {
    let path = fresh(lab, "libtorrent.torrent");
    let mut command = libtorrent::command(lab);
    command.arg("create").arg(payload.path()).arg(&path).args(["--format", format]);
    command.args(["--piece-length", &PIECE_LENGTH.to_string()]);
    if let Some(tracker) = tracker {
        command.args(["--tracker", tracker]);
    }
    run("libtorrent_peer.py create", &mut command);
    Torrent::load(path)
}

/// The path of a file that does not exist yet: mktorrent does not overwrite.
fn fresh(lab: &Lab, name: &str) -> PathBuf {
    let path = lab.folder("torrents").join(name);
    if Path::exists(&path) {
        fs::remove_file(&path).expect("a file that can be removed");
    }
    path
}
