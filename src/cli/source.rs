//! Where torrents come from: files, standard input, web addresses, magnet links.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::exit::{Failure, io_words, shown};
use crate::base::printable;
use crate::metainfo::{Magnet, Metainfo};
use crate::net::egress::Egress;
use crate::session::Origin;

/// Torrent files are never larger; the parser has the same limit.
const MAX_TORRENT_LEN: usize = crate::metainfo::limits::MAX_TORRENT_LEN;

/// What a SOURCE on the command line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// `-`
    Stdin,
    /// An existing or at least plausible file.
    File(PathBuf),
    /// An `http` or `https` address.
    Web(String),
    /// A magnet link, or one made of a bare info-hash.
    Magnet(String),
}

impl Source {
    /// Reads what the user wrote. A file wins over an info-hash of the same letters.
    pub(super) fn parse(text: &str) -> Self {
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        if text == "-" {
            Self::Stdin
        } else if lower.starts_with("magnet:") {
            Self::Magnet(text.to_owned())
        } else if lower.starts_with("http://") || lower == "https://" {
            Self::Web(text.to_owned())
        } else if let Some(link) = link_of_hash(text).filter(|_| !Path::new(text).exists()) {
            Self::Magnet(link)
        } else {
            Self::File(text.into())
        }
    }
}

/// A magnet link for a bare info-hash: 40 hex or 32 base32 digits (v1), 64 hex digits (v2).
fn link_of_hash(text: &str) -> Option<String> {
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    let base32 = text.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'a'..=b'z' | b'2'..=b'7'));
    match text.len() {
        40 if hex => Some(format!("magnet:?xt=urn:btih:{text}")),
        32 if base32 => Some(format!("magnet:?xt=urn:btih:{text}")),
        // The multihash prefix of SHA-256 with 32 bytes (BEP 52).
        64 if hex => Some(format!("magnet:?xt=urn:btmh:1220{text}")),
        _ => None,
    }
}

/// Reads a torrent that lies on this machine.
pub(super) fn read_local(text: &str) -> Result<Metainfo, Failure> {
    match Source::parse(text) {
        Source::Stdin => parse("standard input", &read_stdin()?),
        Source::File(path) => parse(&shown(&path), &read_file(&path)?),
        Source::Web(_) => Err(Failure::usage(format!(
            "{}: this command reads a .torrent file; fetch it first, for example with curl",
            printable(text)
        ))),
        Source::Magnet(_) => Err(no_metadata(text)),
    }
}

/// What is known of a torrent wherever it is: of a magnet link what the link says.
pub(super) async fn find(text: &str, egress: &Egress) -> Result<Origin, Failure> {
    match Source::parse(text) {
        Source::Magnet(link) => Ok(magnet(&link)?.into()),
        _ => Ok(read(text, egress).await?.into()),
    }
}

/// Refuses the name of a file that is not there.
pub(super) fn is_there(text: &str) -> Result<(), Failure> {
    match Source::parse(text) {
        Source::File(path) => path.metadata().map(drop).map_err(|e| Failure::disk(&path, &e)),
        _ => Ok(()),
    }
}

/// Reads a magnet link.
pub(super) fn magnet(link: &str) -> Result<Magnet, Failure> {
    Magnet::parse(link).map_err(|e| Failure::invalid(format!("{}: {e}", short(link))))
}

/// Reads a torrent from wherever it is; what is on the web by `egress`.
pub(super) async fn read(text: &str, egress: &Egress) -> Result<Metainfo, Failure> {
    match Source::parse(text) {
        Source::Web(address) => {
            let bytes = super::fetch::fetch(&address, MAX_TORRENT_LEN, egress).await?;
            parse(&super::address::public_part(&address), &bytes)
        }
        _ => read_local(text),
    }
}

/// Why a magnet link is not enough.
fn no_metadata(text: &str) -> Failure {
    Failure::invalid(format!(
        "{}: a magnet link names a torrent without describing it, and this command asks no peers; use the .torrent file",
        short(text)
    ))
}

/// The beginning of a link, which is all one needs to know it again; what follows may hold a passkey.
pub(super) fn short(text: &str) -> String {
    let head = text.split('&').next().unwrap_or(text);
    let head: String = printable(head).chars().take(100).collect();
    if head.len() < text.len() { format!("{head}...") } else { head }
}

/// Parses what came from `place`.
pub(super) fn parse(place: &str, bytes: &[u8]) -> Result<Metainfo, Failure> {
    let start = bytes.get(..15).unwrap_or(bytes).to_ascii_lowercase();
    if start.starts_with(b"<!doctype html") || start.starts_with(b"<html") {
        return Err(Failure::invalid(format!("{place}: a web page, not a torrent; look for the download link on it")));
    }
    Metainfo::parse(bytes).map_err(|e| Failure::invalid(format!("{place}: {e}")))
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = File::open(path).map_err(|e| Failure::disk(path, &e))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(Failure::invalid(format!("{}: a folder, not a torrent file", shown(path))));
    }
    limited(file).map_err(|e| Failure::disk(path, &e))?.ok_or_else(|| too_large(&shown(path)))
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let bytes = limited(io::stdin().lock())
        .map_err(|e| Failure::new(super::exit::Code::Disk, format!("standard input: {}", io_words(&e))))?;
    bytes.ok_or_else(|| too_large("standard input"))
}

fn too_large(place: &str) -> Failure {
    Failure::invalid(format!("{place}: larger than 32 MiB, which no torrent is"))
}

/// All bytes, or `None` when there are too many.
fn limited(source: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    source.take(MAX_TORRENT_LEN as u64 + 1).read_to_end(&mut bytes)?;
    let fits = bytes.len() <= MAX_TORRENT_LEN;
    Ok(fits.then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let hash = "0123456789abcdef0123456789ABCDEF01234567";
        for (text, want) in [
            ("-", Source::Stdin),
            ("a.torrent", Source::File("a.torrent".into())),
            ("./-", Source::File("./-".into())),
            ("MAGNET:?xt=x", Source::Magnet("MAGNET:?xt=x".into())),
            ("https://a/b", Source::Web("https://a/b".into())),
            ("HTTP://a/b", Source::Web("HTTP://a/b".into())),
            ("httpd", Source::File("httpd".into())),
            ("ünïcödé-file", Source::File("ünïcödé-file".into())),
            (hash, Source::Magnet(format!("magnet:?xt=urn:btih:{hash}"))),
            (&hash[1..], Source::File(hash[1..].into())),
        ] {
            assert_eq!(Source::parse(text), want, "{text}");
        }
        assert!(matches!(Source::parse(&"a7".repeat(16)), Source::Magnet(_)));
        assert!(matches!(Source::parse(&"0a".repeat(32)), Source::Magnet(link) if link.contains("btmh:1220")));
    }

    #[test]
    fn secrets_of_links_are_not_repeated() {
        let failure = no_metadata("magnet:?xt=urn:btih:aa&tr=http://t/SECRET");
        assert!(!failure.message.contains("SECRET") && failure.message.starts_with("magnet:?xt=urn:btih:aa..."));
    }
}
