//! L1: `.torrent` files and magnet links, to and from checked values; v1, v2 and hybrid in one model.
//!
//! For: parsing, checking, naming and building torrents.
//! Must not know: peers, trackers, files on disk, the network.
//! Main types: [`Metainfo`], [`Info`], [`SafePath`], [`Magnet`], [`Builder`].
//! BEPs: 3, 9 (link), 12, 17, 19, 27, 47, 52, 53.
//!
//! What is parsed is checked once and for all: lengths add up, every piece has its hash, every path stays below its
//! folder and is its own. What is optional (trackers, web seeds, comments) is taken where it makes sense and left out
//! where it does not, so that nobody loses a torrent to a broken comment.

mod build;
mod encode;
mod error;
mod file_list;
mod file_tree;
mod info;
mod layout;
pub mod limits;
mod magnet;
pub mod merkle;
mod names;
mod optional;
mod path;
#[cfg(test)]
mod tests;
mod web_seed;

pub use build::{Builder, Format, Plan, PlannedPiece, SourceFile, Span};
pub use error::MetainfoError;
pub use info::{Attributes, File, Info, PieceHash};
pub use magnet::Magnet;
pub use path::SafePath;
pub use web_seed::{Speaks, WebSeedUrl};

use crate::base::bencode::{BencodeError, Dictionary, Limits};
use crate::base::printable;

/// A parsed `.torrent` file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metainfo {
    /// What the info-hash names.
    pub info: Info,
    /// Trackers in tiers, in the order of the file (BEP 12): not shuffled. At most [`limits::MAX_URLS`].
    pub announce: Vec<Vec<String>>,
    /// `url-list`: web servers that have the files (BEP 19).
    pub web_seeds: Vec<String>,
    /// `httpseeds`: web servers that speak a protocol of their own (BEP 17).
    pub http_seeds: Vec<String>,
    /// Hosts and ports of DHT nodes (BEP 5).
    pub nodes: Vec<(String, u16)>,
    /// As it stands in the file: show it through [`Printable`](crate::base::Printable).
    pub comment: Option<String>,
    /// The program that made the file. As [`Metainfo::comment`].
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
}

impl Metainfo {
    /// Checks the bytes of a `.torrent` file.
    ///
    /// # Errors
    /// A [`MetainfoError`] for anything that is not a sound torrent. What is optional never is an error.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() > limits::MAX_TORRENT_LEN {
            return Err(MetainfoError::TooLarge(bytes.len()));
        }
        let metainfo = Self::parse_incomplete(bytes)?;
        if let Some(file) = metainfo.info.missing_layers().next() {
            let path = metainfo.info.files().get(file).map(|f| printable(f.path.as_str())).unwrap_or_default();
            return Err(MetainfoError::LayerMissing(path));
        }
        Ok(metainfo)
    }

    /// The same for what was kept of a torrent that came by its info dictionary: piece layers may be missing, and with them
    /// it may be longer, up to [`limits::MAX_KEPT_LEN`].
    ///
    /// # Errors
    /// As [`Metainfo::parse`], but for layers that are missing.
    pub fn parse_incomplete(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() > limits::MAX_KEPT_LEN {
            return Err(MetainfoError::TooLarge(bytes.len()));
        }
        // Some servers and editors put a line break behind it.
        let bytes = if bytes.ends_with(b"e") { bytes } else { bytes.trim_ascii_end() };
        let dict = Dictionary::parse(bytes, Limits::TORRENT)?;
        let raw_info = dict.raw(b"info").ok_or(MetainfoError::Missing("info"))?;
        let layers = dict.raw(b"piece layers");
        let info = Info::parse_within(raw_info, layers, Limits::TORRENT).map_err(|error| match error {
            MetainfoError::Bencode(BencodeError::NotADictionary) => MetainfoError::Malformed("info"),
            other => other,
        })?;
        Ok(Self {
            info,
            announce: optional::announce(&dict),
            web_seeds: optional::urls(&dict, b"url-list"),
            http_seeds: optional::urls(&dict, b"httpseeds"),
            nodes: optional::nodes(&dict),
            comment: optional::string(&dict, b"comment.utf-8").or_else(|| optional::string(&dict, b"comment")),
            created_by: optional::string(&dict, b"created by"),
            creation_date: dict.field(b"creation date").ok().flatten(),
        })
    }

    /// A torrent of which nothing else is known.
    pub fn from_info(info: Info) -> Self {
        Self {
            info,
            announce: Vec::new(),
            web_seeds: Vec::new(),
            http_seeds: Vec::new(),
            nodes: Vec::new(),
            comment: None,
            created_by: None,
            creation_date: None,
        }
    }

    /// The torrent that `magnet` names, with the trackers and web seeds of the link.
    pub fn from_magnet(info: Info, magnet: &Magnet) -> Self {
        Self {
            announce: magnet.trackers.iter().map(|url| vec![url.clone()]).collect(),
            web_seeds: magnet.web_seeds.clone(),
            ..Self::from_info(info)
        }
    }

    /// The link that names this torrent, with its trackers and web seeds.
    pub fn magnet(&self) -> Magnet {
        let mut magnet = Magnet::new(self.info.info_hash());
        magnet.name = Some(self.info.name().to_owned());
        magnet.trackers = self.announce.iter().flatten().take(limits::MAX_MAGNET_URLS).cloned().collect();
        magnet.web_seeds = self.web_seeds.iter().take(limits::MAX_MAGNET_URLS).cloned().collect();
        magnet
    }
}
