//! Data to move, and the torrent of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::args::{Format, PieceLength};
use super::super::exit::{Code, Failure, shown};
use super::super::hashing;
use super::super::scratch::{Scratch, is_same, make_file};
use super::Bench;
use crate::metainfo::{self, Builder, Metainfo};

/// What the torrent is called.
const NAME: &str = "payload";

/// Random data in a folder that goes with it, and its torrent.
pub(super) struct Payload {
    pub(super) metainfo: Arc<Metainfo>,
    pub(super) size: u64,
    /// The data.
    pub(super) data: PathBuf,
    /// The `.torrent` file.
    pub(super) torrent: PathBuf,
}

/// What to make.
pub(super) struct Wanted<'a> {
    pub(super) size: u64,
    pub(super) piece_length: PieceLength,
    pub(super) format: Format,
    /// Announce address.
    pub(super) tracker: &'a str,
}

impl Payload {
    /// Makes the data and the torrent in `scratch`.
    pub(super) fn make(wanted: &Wanted<'_>, scratch: &Scratch, bench: &Bench<'_>) -> Result<Self, Failure> {
        let data = scratch.path().join("seeded").join(NAME);
        make_file(&data, wanted.size, || bench.stop.check())?;
        let file = std::fs::File::open(&data).map_err(|e| Failure::disk(&data, &e))?;
        // Now rather than in the midst of what is measured.
        file.sync_all().map_err(|e| Failure::disk(&data, &e))?;

        let internal = |e: metainfo::MetainfoError| Failure::new(Code::Bug, format!("bench: {e}"));
        let mut builder = builder(wanted.size, wanted.piece_length, wanted.format);
        builder.announce = vec![vec![wanted.tracker.to_owned()]];
        let plan = builder.plan().map_err(internal)?;
        let hashes = hashing::hash(&plan, std::slice::from_ref(&data), None, &bench.global.output)?;
        bench.stop.check()?;
        let bytes = plan.finish(&hashes.v1, &hashes.v2).map_err(internal)?;
        let torrent = scratch.path().join("payload.torrent");
        std::fs::write(&torrent, &bytes).map_err(|e| Failure::disk(&torrent, &e))?;
        let metainfo = Arc::new(Metainfo::parse(&bytes).map_err(internal)?);
        Ok(Self { metainfo, size: wanted.size, data, torrent })
    }

    /// The 20 bytes that peers call it by.
    pub(super) fn wire_hash(&self) -> [u8; 20] {
        self.metainfo.info.info_hash().wire()
    }

    /// Where a client that downloads into `folder` puts it.
    pub(super) fn copy_in(&self, folder: &Path) -> PathBuf {
        folder.join(NAME)
    }

    /// Whether what was downloaded into `folder` is the same, byte by byte.
    pub(super) fn is_in(&self, folder: &Path) -> Result<bool, Failure> {
        is_same(&self.data, &self.copy_in(folder), self.size)
    }

    /// An error unless it is.
    pub(super) fn insist(&self, folder: &Path) -> Result<(), Failure> {
        if self.is_in(folder)? {
            return Ok(());
        }
        let path = shown(&self.copy_in(folder));
        Err(Failure::new(Code::Bug, format!("{path}: differs from what was seeded; this is a bug, please report it")))
    }
}

fn builder(size: u64, piece_length: PieceLength, format: Format) -> Builder {
    let mut builder = Builder::file(NAME, size);
    builder.format = match format {
        Format::V1 => metainfo::Format::V1,
        Format::V2 => metainfo::Format::V2,
        Format::Hybrid => metainfo::Format::Hybrid,
    };
    builder.piece_length = match piece_length {
        PieceLength::Auto => None,
        PieceLength::Fixed(length) => Some(length),
    };
    // So that nobody beyond this machine hears of it (BEP 27).
    builder.private = true;
    builder
}

/// How long the pieces of `size` bytes are.
pub(super) fn piece_length(choice: PieceLength, size: u64) -> Result<u32, Failure> {
    let plan = builder(size, choice, Format::V1).plan();
    plan.map(|plan| plan.piece_length()).map_err(|e| Failure::usage(format!("--piece-length: {e}")))
}
