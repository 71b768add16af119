//! What is kept of a torrent between runs, and how much of it is to be believed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::Bitfield;
use crate::metainfo::Info;
use crate::resume::{Believed, FileNow, MAX_RESUME_LEN, ResumeData, believe};
use crate::storage::{Storage, StorageError, state_file};

/// Times of files are told in steps of the system's tick, and may lie so far before the time that a clock shows.
const CLOCK_STEP: Duration = Duration::from_millis(20);

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

pub(super) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Reads the state of an earlier run. Without one, or with one that cannot be believed, everything has to be hashed.
pub(super) fn load(path: &Path, info: &Info, storage: &Storage) -> (Saved, Option<Believed>) {
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
    let Ok(now) = files_now(storage, &data) else { return (saved, None) };
    let newest = generation == state_file::Generation::Current;
    (saved, believe(&data, newest, &now, info.geometry()))
}

/// The files, and behind them the one that holds pieces of many.
fn files_now(storage: &Storage, then: &ResumeData) -> Result<Vec<FileNow>, StorageError> {
    let piece_length = storage.geometry().piece_length();
    let files = (0u32..).zip(storage.file_identities()?).map(|(file, stamp)| {
        let own = file < storage.file_count();
        FileNow {
            stamp,
            pieces: own.then(|| storage.file_map().pieces_of(file, piece_length)),
            // The bytes that a file shares with its neighbours' pieces lie elsewhere while it is not wanted.
            moved: own && storage.file_path(file).is_some() && then.wants(file) != storage.is_wanted(file),
        }
    });
    Ok(files.collect())
}

/// What is there if all of it was hashed, from `since` on: files that may have been written to after that are doubtful, and
/// so are those that are not as long as they should be.
pub(super) fn just_hashed(since: SystemTime, info: &Info, storage: &Storage) -> Option<Believed> {
    let since = i128::try_from(since.duration_since(UNIX_EPOCH).ok()?.saturating_sub(CLOCK_STEP).as_nanos()).ok()?;
    let geometry = info.geometry();
    let mut doubtful = Bitfield::new(geometry.piece_count());
    for (file, stamp) in (0..storage.file_count()).zip(storage.file_identities().ok()?) {
        let untouched =
            stamp.is_some_and(|stamp| stamp.size == storage.file_len(file) && i128::from(stamp.mtime_ns) < since);
        let pad = storage.file_path(file).is_none();
        for piece in storage.file_map().pieces_of(file, geometry.piece_length()).filter(|_| !pad && !untouched) {
            geometry.piece(piece).ok().map(|piece| doubtful.set(piece));
        }
    }
    let mut have = Bitfield::new(geometry.piece_count());
    geometry.pieces().filter(|piece| !doubtful.has(*piece)).for_each(|piece| {
        have.set(piece);
    });
    Some(Believed { have, doubtful, clean: true })
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
        wanted: Some((0..storage.file_count()).map(|file| storage.is_wanted(file)).collect()),
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
