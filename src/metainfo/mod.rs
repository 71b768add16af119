//! L1: `.torrent` files and magnet links, to and from checked values; v1, v2 and hybrid in one model.
//!
//! For: parsing, checking, naming and building torrents.
//! Must not know: peers, trackers, files on disk, the network.
//! BEPs: 3, 9 (link), 12, 17, 19, 27, 47, 52, 53.

/// A parsed `.torrent` file.
#[derive(Clone, Debug)]
pub struct Metainfo {}
