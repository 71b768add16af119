//! From a torrent's description to open files and the knowledge of what is in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::saving::{self, Saved};
use super::shared::expected;
use super::{Failure, Fault, Inner, Spec};
use crate::base::{Bitfield, Geometry, PieceIndex};
use crate::metainfo::Info;
use crate::resume::Believed;
use crate::storage::state_file::{self, Lock};
use crate::storage::{Checked, ErrorKind, Layout, Options, PieceState, Place, Progress, Storage, StorageError, check};
use crate::swarm::Priority;

/// Pieces hashed again as a sample where state was left behind by a run that did not end in good order.
const SAMPLES: u32 = 64;

/// Who is about to end still has the lock for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How often it is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A torrent whose files are open.
pub(super) struct Opened {
    pub(super) storage: Arc<Storage>,
    /// Verified pieces.
    pub(super) have: Bitfield,
    /// Those of them that are known to outlive a loss of power.
    pub(super) lasting: Bitfield,
    pub(super) saved: Saved,
    /// Nobody else works on it. None where it is only read.
    pub(super) lock: Option<Lock>,
}

impl Failure {
    pub(super) fn from_disk(error: StorageError, advice: &str) -> Self {
        Self { fault: Fault::Disk, message: format!("{error}{advice}"), path: Some(error.path) }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let advice = match error.kind() {
            ErrorKind::Full => "; free some space and run the same command again",
            ErrorKind::ReadOnly | ErrorKind::Permission => "; choose another folder, or change its permissions",
            _ => "",
        };
        Self::from_disk(error, advice)
    }
}

/// Opens the files, finds out what is in them, and takes the space for the rest. Blocks: for a disk thread.
pub(super) fn open(inner: &Inner, spec: &Spec, info: &Info, progress: &Progress) -> Result<Opened, Failure> {
    let options = Options {
        backend: spec.torrent.backend,
        preallocate: spec.torrent.preallocate,
        read_only: matches!(spec.torrent.place, Place::Exact(_)),
        overwrite: spec.torrent.overwrite,
        wanted: spec.torrent.selected.clone(),
    };
    let read_only = options.read_only;
    let state_path = state_path(spec, info);
    let lock = lock(&state_path, read_only, progress)?;
    let storage = Storage::open(Layout::new(info, &spec.torrent.place), &spec.torrent.place, options)?;
    inner.wanted_bytes.store(wanted_bytes(&storage), Ordering::Relaxed);

    let (mut saved, believed) = saving::load(&state_path, info, &storage);
    let hashed = spec.torrent.hashed_since.and_then(|since| saving::just_hashed(since, info, &storage));
    let nothing = Bitfield::new(info.geometry().piece_count());
    let (have, lasting) = match (hashed, believed) {
        (Some(hashed), _) => (recheck(info, &storage, hashed, progress)?.0, nothing),
        (None, Some(believed)) => recheck(info, &storage, believed, progress)?,
        (None, None) => (full_check(info, &storage, progress)?, nothing),
    };
    if have.has_more_than(&lasting) {
        // What an earlier run wrote, or somebody else, may be in the system's memory only.
        storage.sync_all_next();
    }
    if read_only && have.is_none() {
        let path = storage.path();
        let message = format!("{}: none of the torrent's data is there", path.display());
        return Err(Failure { fault: Fault::Disk, message, path: Some(path) });
    }
    storage.prepare()?;
    tracing::info!(name = info.name(), backend = ?storage.backend(), reason = storage.backend_reason(), "storage");
    inner.have_bytes.store(bytes_of(&storage, have.iter()), Ordering::Relaxed);
    saved.path = state_path;
    Ok(Opened { storage: Arc::new(storage), have, lasting, saved, lock })
}

/// Two that write to the same files and the same state would spoil both.
fn lock(state: &Path, read_only: bool, progress: &Progress) -> Result<Option<Lock>, Failure> {
    if read_only {
        return Ok(None);
    }
    let start = Instant::now();
    loop {
        match state_file::lock(state) {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Ok(None) if start.elapsed() < LOCK_PATIENCE && !progress.cancel.load(Ordering::Relaxed) => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Ok(None) => {
                let why =
                    "another gannet downloads this torrent at the moment; wait for it, or name another --state-dir";
                return Err(Failure::new(Fault::Usage, why));
            }
            Err(error) => {
                tracing::info!(%error, "no lock for the state");
                return Ok(None);
            }
        }
    }
}

fn state_path(spec: &Spec, info: &Info) -> PathBuf {
    spec.state_dir.join(format!("{}.resume", info.info_hash()))
}

/// Believes what a clean state and unchanged files prove, and hashes the rest. Returns the pieces that are there, and
/// those of them that were synced.
fn recheck(
    info: &Info,
    storage: &Storage,
    believed: Believed,
    progress: &Progress,
) -> Result<(Bitfield, Bitfield), Failure> {
    let Believed { have: lasting, doubtful, clean } = believed;
    if !clean {
        let sample = sample(&lasting);
        if run_check(info, storage, Some(&sample), progress)?.have.count() < sample.count() {
            tracing::warn!("resume data claims what is not on disk: everything is checked");
            return Ok((full_check(info, storage, progress)?, Bitfield::new(lasting.len())));
        }
    }
    let mut have = lasting.clone();
    if doubtful.is_none() {
        progress.bytes.store(wanted_bytes(storage), Ordering::Relaxed);
        return Ok((have, lasting));
    }
    for piece in run_check(info, storage, Some(&doubtful), progress)?.have.iter() {
        have.set(piece);
    }
    Ok((have, lasting))
}

/// Some of the pieces, spread evenly.
fn sample(have: &Bitfield) -> Bitfield {
    let mut sample = Bitfield::new(have.len());
    let step = (have.count() / SAMPLES).max(1) as usize;
    have.iter().step_by(step).for_each(|piece| {
        sample.set(piece);
    });
    sample
}

fn full_check(info: &Info, storage: &Storage, progress: &Progress) -> Result<Bitfield, Failure> {
    Ok(run_check(info, storage, None, progress)?.have)
}

fn run_check(info: &Info, storage: &Storage, only: Option<&Bitfield>, progress: &Progress) -> Result<Checked, Failure> {
    let mut checked = check(storage, &|piece| expected(info, piece), only, None, progress);
    if checked.cancelled {
        return Err(Failure::new(Fault::Internal, "stopped"));
    }
    let unreadable = checked.states.contains(&PieceState::Unreadable);
    match checked.errors.pop() {
        Some(error) if unreadable => Err(error.into()),
        _ => Ok(checked),
    }
}

fn wanted_bytes(storage: &Storage) -> u64 {
    (0..storage.file_count()).filter(|f| storage.is_wanted(*f)).map(|f| storage.file_len(f)).sum()
}

/// Bytes of wanted files in these pieces.
pub(super) fn bytes_of(storage: &Storage, pieces: impl Iterator<Item = PieceIndex>) -> u64 {
    pieces.map(|piece| wanted_in(storage, piece)).sum()
}

fn wanted_in(storage: &Storage, piece: PieceIndex) -> u64 {
    use crate::storage::Target;
    let geometry = storage.geometry();
    let spans = storage.file_map().spans(geometry.position(piece), u64::from(geometry.piece_len(piece)));
    let wanted = spans.filter(|span| match span.target {
        Target::File { file, .. } => storage.is_wanted(file),
        _ => false,
    });
    wanted.map(|span| span.len).sum()
}

/// How many pieces each wanted file lacks, by its number; 0 for the others.
pub(super) fn missing_pieces(storage: &Storage, have: &Bitfield) -> Vec<u32> {
    let mut missing = vec![0; storage.file_count() as usize];
    let geometry = storage.geometry();
    for piece in geometry.pieces().filter(|piece| !have.has(*piece)) {
        let (position, len) = (geometry.position(piece), u64::from(geometry.piece_len(piece)));
        for file in storage.file_map().files(position, len).filter(|file| storage.is_wanted(*file)) {
            if let Some(count) = missing.get_mut(file as usize) {
                *count += 1;
            }
        }
    }
    missing
}

/// One entry per piece: those of no wanted file are skipped, and all where nothing may be written.
pub(super) fn priorities(geometry: &Geometry, storage: &Storage) -> Vec<Priority> {
    let mut priorities = vec![Priority::Skip; geometry.piece_count() as usize];
    if storage.is_read_only() {
        return priorities;
    }
    for file in (0..storage.file_count()).filter(|f| storage.is_wanted(*f) && storage.file_len(*f) > 0) {
        let pieces = storage.file_map().pieces_of(file, geometry.piece_length());
        if let Some(wanted) = priorities.get_mut(pieces.start as usize..pieces.end as usize) {
            wanted.fill(Priority::Normal);
        }
    }
    priorities
}
