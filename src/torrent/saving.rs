//! What is kept of a torrent between runs, and how much of it is to be believed.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::Bitfield;
use crate::metainfo::Info;
use crate::resume::{FileStamp, MAX_RESUME_LEN, ResumeData};
use crate::storage::{Storage, StorageError, state_file};

/// Counters and times that go on from run to run.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved {
    pub(super) path: PathBuf,
    pub(super) added: u64,
    pub(super) completed: Option<u64>,
    pub(super) uploaded: u64,
    pub(super) downloaded: u64,
    pub(super) peers: Vec<std::net::SocketAddr>,
}

/// What an earlier run says is there.
pub(super) struct Trusted {
    /// Pieces to be believed (after a sample, if not `clean`).
    pub(super) have: Bitfield,
    /// Pieces that may be there, and have to be hashed to know.
    pub(super) doubtful: Bitfield,
    /// The run ended in good order.
    pub(super) clean: bool,
}

pub(super) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Reads the state of an earlier run. Without one, or with one that cannot be believed, everything has to be hashed.
pub(super) fn load(path: &Path, info: &Info, storage: &Storage) -> (Saved, Option<Trusted>) {
    let fresh = Saved { added: seconds_since_1970(), ..Saved::default() };
    let Ok(Some((data, generation))) = state_file::load(path, MAX_RESUME_LEN as u64, ResumeData::from_bytes) else {
        return (fresh, None);
    };
    if !data.fits(&info.info_hash(), info.geometry().piece_count()) {
        return (fresh, None);
    }
    let saved = Saved {
        added: data.added,
        completed: data.completed,
        uploaded: data.uploaded,
        downloaded: data.downloaded,
        peers: data.peers.clone(),
        path: PathBuf::new(),
    };
    let clean = data.clean && generation == state_file::Generation::Current;
    let Ok(now) = storage.file_identities() else { return (saved, None) };
    if now.len() != data.files.len() {
        return (saved, None);
    }
    // After a clean end a file must be as it was. Else it may have been written to since; its size and identity tell.
    let unchanged = |then: &Option<FileStamp>, now: &Option<FileStamp>| match (then, now) {
        (Some(then), Some(now)) => {
            then.size == now.size && then.inode == now.inode && (!clean || then.mtime_ns == now.mtime_ns)
        }
        (None, None) => true,
        _ => false,
    };
    let mut have = data.have.clone();
    let mut doubtful = Bitfield::new(have.len());
    let geometry = info.geometry();
    for (file, (then, now)) in (0u32..).zip(data.files.iter().zip(&now)) {
        if unchanged(then, now) {
            continue;
        }
        if file >= storage.file_count() {
            // The part file holds pieces of many files.
            return (saved, None);
        }
        for piece in storage.file_map().pieces_of(file, geometry.piece_length()) {
            if let Ok(piece) = geometry.piece(piece) {
                have.clear(piece);
                doubtful.set(piece);
            }
        }
    }
    if !clean {
        geometry.pieces().filter(|piece| !have.has(*piece)).for_each(|piece| {
            doubtful.set(piece);
        });
    }
    (saved, Some(Trusted { have, doubtful, clean }))
}

/// Writes the state. What it claims must have been synced before. Blocks: for a disk thread.
pub(super) fn save(
    saved: &Saved,
    info: &Info,
    storage: &Storage,
    have: Bitfield,
    clean: bool,
) -> Result<(), StorageError> {
    let data = ResumeData {
        have,
        files: storage.file_identities()?,
        clean,
        uploaded: saved.uploaded,
        downloaded: saved.downloaded,
        completed: saved.completed,
        peers: saved.peers.clone(),
        ..ResumeData::new(info.info_hash(), info.geometry().piece_count(), saved.added)
    };
    match data.to_bytes() {
        Ok(bytes) => state_file::save(&saved.path, &bytes),
        Err(error) => {
            tracing::warn!(%error, "state is not saved");
            Ok(())
        }
    }
}
