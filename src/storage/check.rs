use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::scan::{self, Kinds, Progress};
use super::{ErrorKind, READ_AHEAD, Storage, StorageError, Window};
use crate::base::{AlignedBytes, Bitfield, PieceIndex};
use crate::hash::{Expected, Hashed, PiecesHasher};
use crate::sys::{self, Glances};

/// The most errors that are kept; the first are telling.
const MAX_ERRORS: usize = 16;

/// What lies on disk of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceState {
    /// The right bytes.
    Good,
    /// Other bytes.
    Bad,
    /// A file that holds a part of it is not there, or ends before.
    Missing,
    /// The disk did not give the bytes: see [`Checked::errors`].
    Unreadable,
    /// Not looked at: not asked for, stopped before, or what it must hash to is not known yet.
    Unchecked,
}

/// What [`check`] found.
#[derive(Debug)]
pub struct Checked {
    /// The good pieces.
    pub have: Bitfield,
    /// Every piece, by number.
    pub states: Vec<PieceState>,
    /// What went wrong with reading, the first few.
    pub errors: Vec<StorageError>,
    /// Whether it was stopped before all was looked at.
    pub cancelled: bool,
}

/// A file that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// Its number in the torrent.
    pub file: u32,
    /// Where it is or should be.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not there.
    Missing,
    /// Cannot be looked at or read, or is no regular file.
    Unreadable,
    /// Longer or shorter than in the torrent, with so many pieces that are not good.
    Length {
        /// Bytes it has.
        found: u64,
        /// Pieces of it that are not good.
        pieces: u32,
    },
    /// As long as it must be, with so many pieces that are not good (which files beside it may be to blame for).
    Wrong {
        /// Pieces of it that are not good.
        pieces: u32,
    },
}

/// A file as it was found before reading began.
#[derive(Clone, Copy)]
enum Found {
    Missing,
    Unreadable,
    Len(u64),
}

/// Hashes what lies on disk, on all cores (or `threads`), and tells piece by piece what it is. `expected` says what a
/// piece must hash to, as far as that is known; `only` names the pieces to look at, if not all.
///
/// What is missing costs nothing, and what was never written (a hole in a preallocated file) next to nothing.
/// [`Progress::bytes`] grows to the length of all pieces asked for.
pub fn check(
    storage: &Storage,
    expected: &(dyn Fn(PieceIndex) -> Option<Expected> + Sync),
    only: Option<&Bitfield>,
    threads: Option<usize>,
    progress: &Progress,
) -> Checked {
    let geometry = storage.geometry();
    let count = geometry.piece_count();
    let errors = Mutex::new(Vec::new());
    let files = storage.found(&errors);
    let checker = Checker { storage, expected, progress, files, errors, zeros: Mutex::default() };
    let states = Mutex::new(vec![PieceState::Unchecked; count as usize]);

    let all = scan::on_all_cores(count, geometry.piece_length(), threads, &progress.cancel, |group, buf| {
        let asked = group.filter_map(|n| geometry.piece(n).ok()).filter(|p| only.is_none_or(|only| only.has(*p)));
        let found = checker.group(&asked.collect::<Vec<_>>(), buf);
        let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
        for (piece, state) in found {
            states[piece.idx()] = state;
        }
    });

    let states = states.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut have = Bitfield::new(count);
    for piece in geometry.pieces().filter(|p| states[p.idx()] == PieceState::Good) {
        have.set(piece);
    }
    let errors = checker.errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    Checked { have, states, errors, cancelled: !all }
}

impl Storage {
    /// Hashes a piece as it lies on disk, and compares it with what it must be.
    ///
    /// # Errors
    /// As [`Storage::read`].
    pub fn hash_piece(&self, piece: PieceIndex, expected: &Expected) -> Result<Hashed, StorageError> {
        let hashed = self.hash(&[(piece, *expected)], &mut AlignedBytes::default())?;
        Ok(hashed.first().copied().unwrap_or(Hashed::Bad))
    }

    /// The same for pieces of equal length, side by side; `buf` is memory to do it in.
    fn hash(&self, pieces: &[(PieceIndex, Expected)], buf: &mut AlignedBytes) -> Result<Vec<Hashed>, StorageError> {
        let Some((first, expected)) = pieces.first() else { return Ok(Vec::new()) };
        let kinds = Kinds { v1: expected.v1().is_some(), v2: expected.v2().is_some() };
        let data_lens = pieces.iter().map(|(piece, _)| self.geometry.data_len(*piece)).collect();
        let hashes = scan::hash_pieces(data_lens, self.geometry.piece_len(*first), kinds, buf, |n, begin, part| {
            let (piece, _) = pieces[n];
            if begin % READ_AHEAD == 0 {
                self.read_ahead(Window::of(piece, begin))?;
            }
            self.read_piece(piece, begin, part)
        })?;
        Ok(hashes.into_iter().zip(pieces).map(|(hash, (_, expected))| hash.check(expected)).collect())
    }

    /// How long each file is, the part file behind them.
    fn found(&self, errors: &Mutex<Vec<StorageError>>) -> Vec<Found> {
        let mut glances = Glances::new(&self.dir);
        (0..=self.part.number)
            .map(|number| {
                if self.files.get(number as usize).is_some_and(|f| f.pad) {
                    return Found::Missing;
                }
                match glances.file_len(self.name(number)) {
                    Ok(Some(len)) => Found::Len(len),
                    Ok(None) => Found::Missing,
                    Err(e) => {
                        note(errors, self.error(number, "use", e));
                        Found::Unreadable
                    }
                }
            })
            .collect()
    }
}

fn note(errors: &Mutex<Vec<StorageError>>, error: StorageError) {
    let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
    if errors.len() < MAX_ERRORS {
        errors.push(error);
    }
}

/// Lengths of a piece and width of its tree: what the hashes of zeros depend on.
type ZeroKey = (u32, u32, Option<u32>);

struct Checker<'a> {
    storage: &'a Storage,
    expected: &'a (dyn Fn(PieceIndex) -> Option<Expected> + Sync),
    progress: &'a Progress,
    files: Vec<Found>,
    errors: Mutex<Vec<StorageError>>,
    /// Pieces of zeros, as they were found to hash.
    zeros: Mutex<FxHashMap<ZeroKey, Zeros>>,
}

#[derive(Clone, Copy)]
struct Zeros {
    v1: Option<[u8; 20]>,
    v2: Option<[u8; 32]>,
}

/// What is known of a piece before it is read.
enum Before {
    Known(PieceState),
    Hole,
    Data,
}

impl Checker<'_> {
    /// The states of some pieces in ascending order. Neighbours with data are read at once.
    fn group(&self, pieces: &[PieceIndex], buf: &mut AlignedBytes) -> Vec<(PieceIndex, PieceState)> {
        let mut states = Vec::with_capacity(pieces.len());
        let mut run: Vec<(PieceIndex, Expected)> = Vec::new();
        for &piece in pieces {
            let Some(expected) = (self.expected)(piece) else {
                self.count(piece);
                continue;
            };
            if run.last().is_some_and(|(last, _)| last.get() + 1 != piece.get()) {
                self.run(&mut run, buf, &mut states);
            }
            match self.before(piece) {
                Before::Data => run.push((piece, expected)),
                Before::Known(state) => {
                    self.count(piece);
                    states.push((piece, state));
                }
                Before::Hole => {
                    self.count(piece);
                    states.push((
                        piece,
                        if self.is_zeros(piece, &expected) { PieceState::Good } else { PieceState::Bad },
                    ));
                }
            }
        }
        self.run(&mut run, buf, &mut states);
        states
    }

    fn count(&self, piece: PieceIndex) {
        let len = u64::from(self.storage.geometry().piece_len(piece));
        self.progress.bytes.fetch_add(len, Ordering::Relaxed);
    }

    fn before(&self, piece: PieceIndex) -> Before {
        let geometry = self.storage.geometry();
        let mut hole = true;
        for place in self.storage.places(geometry.position(piece), u64::from(geometry.piece_len(piece))) {
            let Some(number) = place.file else { continue };
            match self.files[number as usize] {
                Found::Len(len) if place.offset.saturating_add(place.len) <= len => {}
                Found::Unreadable => return Before::Known(PieceState::Unreadable),
                _ => return Before::Known(PieceState::Missing),
            }
            if hole && let Ok(open) = self.storage.open_to_read(number) {
                hole = sys::data_from(&open.file, place.offset).is_none_or(|data| data >= place.offset + place.len);
            } else {
                // What is wrong with it comes out when it is read.
                hole = false;
            }
        }
        if hole { Before::Hole } else { Before::Data }
    }

    fn is_zeros(&self, piece: PieceIndex, expected: &Expected) -> bool {
        let geometry = self.storage.geometry();
        let (data, wire) = (geometry.data_len(piece), geometry.piece_len(piece));
        let key = (data, wire, expected.v2().map(|tree| tree.width));
        let known = self.zeros.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let known = known.filter(|z| z.v1.is_some() || expected.v1().is_none()).unwrap_or_else(|| {
            let hasher = PiecesHasher::new(vec![data], wire, expected.v1().is_some(), expected.v2().is_some());
            let hash = hasher.finish().pop();
            let (v1, leaves) = hash.map_or((None, None), |hash| (hash.v1, hash.v2));
            let v2 = expected.v2().zip(leaves);
            let v2 = v2.map(|(tree, leaves)| crate::hash::merkle_root(leaves, tree.width, crate::hash::ZERO_HASH));
            let zeros = Zeros { v1, v2 };
            self.zeros.lock().unwrap_or_else(PoisonError::into_inner).insert(key, zeros);
            zeros
        });
        expected.v1().is_none_or(|v1| known.v1 == Some(v1)) && expected.v2().is_none_or(|v2| known.v2 == Some(v2.root))
    }

    /// Reads and hashes neighbours, and empties the list.
    fn run(
        &self,
        run: &mut Vec<(PieceIndex, Expected)>,
        buf: &mut AlignedBytes,
        states: &mut Vec<(PieceIndex, PieceState)>,
    ) {
        let geometry = self.storage.geometry();
        let equal = run.chunk_by(|(a, _), (b, _)| geometry.piece_len(*a) == geometry.piece_len(*b));
        for pieces in equal.flat_map(|equal| equal.chunks(scan::side_by_side(geometry.piece_length()))) {
            match self.storage.hash(pieces, buf) {
                Ok(found) => states.extend(pieces.iter().map(|(piece, _)| *piece).zip(found.into_iter().map(state))),
                // Which of them it is comes out when each is read by itself.
                Err(_) if pieces.len() > 1 => {
                    for piece in pieces.chunks(1) {
                        let found = self.storage.hash(piece, buf).map(|found| found.into_iter().map(state).collect());
                        let found = found.unwrap_or_else(|e| vec![self.unreadable(e)]);
                        states.extend(piece.iter().map(|(piece, _)| *piece).zip(found));
                    }
                }
                Err(e) => states.extend(pieces.iter().map(|(piece, _)| *piece).zip([self.unreadable(e)])),
            }
            pieces.iter().for_each(|(piece, _)| self.count(*piece));
        }
        run.clear();
    }

    fn unreadable(&self, error: StorageError) -> PieceState {
        let state = match error.kind() {
            // It was longer a moment ago.
            ErrorKind::Missing | ErrorKind::Changed => PieceState::Missing,
            _ => PieceState::Unreadable,
        };
        note(&self.errors, error);
        state
    }
}

fn state(hashed: Hashed) -> PieceState {
    match hashed {
        Hashed::Good => PieceState::Good,
        Hashed::Bad => PieceState::Bad,
    }
}

impl Checked {
    /// The wanted files that are not as they must be, by number. For a check of all pieces.
    pub fn file_problems(&self, storage: &Storage) -> Vec<FileProblem> {
        let mut problems = Vec::new();
        let found = storage.found(&Mutex::default());
        for (file, found) in (0..storage.file_count()).zip(found) {
            let Some(path) = storage.file_path(file).filter(|_| storage.is_wanted(file)) else { continue };
            let pieces = storage.file_map().pieces_of(file, storage.geometry().piece_length());
            let states = self.states.get(pieces.start as usize..pieces.end as usize).unwrap_or_default();
            let wrong = states.iter().filter(|s| !matches!(s, PieceState::Good | PieceState::Unchecked)).count();
            let unreadable = states.contains(&PieceState::Unreadable);
            let pieces = u32::try_from(wrong).unwrap_or(u32::MAX);
            let problem = match found {
                Found::Missing => Problem::Missing,
                Found::Unreadable => Problem::Unreadable,
                Found::Len(found) if found != storage.file_len(file) => Problem::Length { found, pieces },
                Found::Len(_) if unreadable => Problem::Unreadable,
                Found::Len(_) if wrong > 0 => Problem::Wrong { pieces },
                Found::Len(_) => continue,
            };
            problems.push(FileProblem { file, path, problem });
        }
        problems
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test's numbers are small")]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::tests::{content, layout, open, piece_of, write_all};
    use super::super::{Layout, Options};
    use super::*;
    use crate::hash::{LEAF_LEN, MerkleRoot, ZERO_HASH, leaf_hashes, merkle_root, sha1};

    fn expected(layout: &Layout, content: &[u8], kind: usize) -> impl Fn(PieceIndex) -> Option<Expected> + Sync {
        let all: Vec<Expected> = layout
            .geometry
            .pieces()
            .map(|piece| {
                let bytes = piece_of(layout, content, piece);
                let width = (bytes.len().div_ceil(LEAF_LEN) as u32).next_power_of_two();
                let tree = MerkleRoot { root: merkle_root(leaf_hashes(&[bytes]), width, ZERO_HASH), width };
                match kind {
                    0 => Expected::V1(sha1(&[bytes])),
                    1 => Expected::V2(tree),
                    _ => Expected::Hybrid(sha1(&[bytes]), tree),
                }
            })
            .collect();
        move |piece| all.get(piece.idx()).copied()
    }

    #[test]
    fn good_bad_missing() {
        // 2 MiB pieces are too long to be held.
        for (piece_length, lengths) in
            [(32_768, vec![10, 400_000, 0, -500, 1, 3_000_000, 3]), (2 << 20, vec![3 << 20, 500_000])]
        {
            let layout = layout(piece_length, &lengths);
            let content = content(&layout);
            for kind in 0..3 {
                let dir = tempfile::tempdir().unwrap();
                let expected = expected(&layout, &content, kind);
                let storage = open(&dir, &layout, Options::default()).unwrap();
                let progress = Progress::default();
                let nothing = check(&storage, &expected, None, None, &progress);
                assert!(nothing.states.iter().all(|s| *s == PieceState::Missing) && nothing.have.is_none());
                assert_eq!(progress.bytes.into_inner(), content.len() as u64);
                write_all(&storage, &layout, &content);
                let all = check(&storage, &expected, None, None, &Progress::default());
                assert!(all.have.is_full() && all.errors.is_empty() && !all.cancelled, "{:?}", all.states);
                // The empty file is not there: no piece says so.
                let empty = lengths.iter().position(|l| *l == 0).map(|n| n as u32);
                let problems = all.file_problems(&storage);
                assert_eq!(problems.iter().map(|p| p.file).collect::<Vec<_>>(), Vec::from_iter(empty));
                // One byte of the second file, in its first piece.
                let path = storage.file_path(1).unwrap();
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[3] ^= 1;
                std::fs::write(&path, &bytes).unwrap();
                let one = check(&storage, &expected, None, Some(1), &Progress::default());
                assert_eq!(one.states.iter().filter(|s| **s != PieceState::Good).count(), 1);
                let wrong = Problem::Wrong { pieces: 1 };
                assert!(one.file_problems(&storage).contains(&FileProblem {
                    file: 1,
                    path: path.clone(),
                    problem: wrong
                }));
                // Cut in half: the pieces behind are missing, not bad.
                bytes[3] ^= 1;
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                let half = check(&storage, &expected, None, None, &Progress::default());
                assert!(half.states.contains(&PieceState::Missing) && !half.states.contains(&PieceState::Bad));
                let found = bytes.len() as u64 / 2;
                let problem = half.file_problems(&storage).into_iter().find(|p| p.file == 1).unwrap().problem;
                assert!(matches!(problem, Problem::Length { found: f, .. } if f == found), "{problem:?}");
            }
        }
    }

    #[test]
    fn holes_are_zeros() {
        // The middle third is zeros in the torrent, and preallocated on disk as all the rest.
        let layout = layout(65_536, &[65_536 * 12]);
        let mut content = content(&layout);
        content[65_536 * 4..65_536 * 8].fill(0);
        let dir = tempfile::tempdir().unwrap();
        let storage = open(&dir, &layout, Options::default()).unwrap();
        storage.prepare().unwrap();
        for kind in 0..3 {
            let checked = check(&storage, &expected(&layout, &content, kind), None, None, &Progress::default());
            assert_eq!(checked.have.iter().map(PieceIndex::get).collect::<Vec<_>>(), [4, 5, 6, 7]);
            assert_eq!(checked.states[0], PieceState::Bad);
        }
    }

    #[test]
    fn some_pieces_and_none_when_stopped() {
        let layout = layout(16_384, &[16_384 * 40]);
        let content = content(&layout);
        let dir = tempfile::tempdir().unwrap();
        let storage = open(&dir, &layout, Options::default()).unwrap();
        write_all(&storage, &layout, &content);
        let mut only = Bitfield::new(40);
        for n in [3, 4, 5, 30] {
            only.set(layout.geometry.piece(n).unwrap());
        }
        let checked = check(&storage, &expected(&layout, &content, 0), Some(&only), None, &Progress::default());
        assert_eq!(checked.have, only);
        assert_eq!(checked.states.iter().filter(|s| **s == PieceState::Unchecked).count(), 36);
        let stopped = Progress { cancel: AtomicBool::new(true), ..Progress::default() };
        let checked = check(&storage, &expected(&layout, &content, 0), None, None, &stopped);
        assert!(checked.cancelled && checked.have.is_none());
    }

    #[test]
    fn links_and_folders_are_reported() {
        let layout = layout(16_384, &[100, 100]);
        let content = content(&layout);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("torrent/d0/f0")).unwrap();
        std::fs::create_dir_all(dir.path().join("torrent/d1")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("torrent/d1/f1")).unwrap();
        let storage = open(&dir, &layout, Options { read_only: true, ..Options::default() }).unwrap();
        let checked = check(&storage, &expected(&layout, &content, 0), None, None, &Progress::default());
        assert_eq!((checked.states.as_slice(), checked.errors.len()), ([PieceState::Unreadable].as_slice(), 2));
        assert!(checked.file_problems(&storage).iter().all(|p| p.problem == Problem::Unreadable));
    }
}
