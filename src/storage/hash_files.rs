use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::scan::{self, Kinds, Progress};
use super::{READ_AHEAD, Span, StorageError, Target};
use crate::base::AlignedBytes;
use crate::hash::{ZERO_HASH, merkle_root};
use crate::sys::{self, Cached};

/// The most files that one thread keeps open while it hashes.
const MAX_OPEN: usize = 64;

/// A file to make a torrent of.
#[derive(Clone, Debug)]
pub struct FileToHash {
    /// Where it is. The user named it or its folder: links are followed.
    pub path: PathBuf,
    /// Its length when the pieces were laid out; it must still have it.
    pub length: u64,
}

/// What one piece of a torrent to be consists of.
#[derive(Clone, Debug)]
pub struct PieceToHash {
    /// Its data in order: ranges of files, by their number in the list of files.
    pub spans: Vec<Span>,
    /// Zeros behind them, for SHA-1 only (BEP 47).
    pub padding: u32,
    /// Leaves that its SHA-256 tree is padded to.
    pub width: u32,
}

/// The hashes of all pieces, in order; empty for a version that was not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PieceHashes {
    /// SHA-1.
    pub v1: Vec<[u8; 20]>,
    /// Roots of the pieces' SHA-256 trees.
    pub v2: Vec<[u8; 32]>,
}

/// Reads files once, on all cores (or `threads`), and hashes `piece_count` pieces of at most `piece_length` bytes of them.
/// `piece` tells what each consists of.
///
/// # Errors
/// A file that cannot be read, or that is not as long as it was; with an `Interrupted` source when
/// [`Progress::cancel`] was set.
pub fn hash_files(
    files: &[FileToHash],
    piece_length: u32,
    piece_count: u32,
    piece: &(dyn Fn(u32) -> Option<PieceToHash> + Sync),
    (v1, v2): (bool, bool),
    threads: Option<usize>,
    progress: &Progress,
) -> Result<PieceHashes, StorageError> {
    let count = piece_count as usize;
    let hashes =
        PieceHashes { v1: vec![[0; 20]; if v1 { count } else { 0 }], v2: vec![[0; 32]; if v2 { count } else { 0 }] };
    let hashes = Mutex::new(hashes);
    let failed = Mutex::new(None);
    let stop = AtomicBool::new(false);
    scan::on_all_cores(piece_count, piece_length, threads, &stop, |group, buf| {
        let mut source = Source { files, open: FxHashMap::default(), progress };
        let first = group.start as usize;
        let outcome = if progress.cancel.load(Ordering::Relaxed) {
            let path = files.first().map(|f| f.path.clone()).unwrap_or_default();
            Err(StorageError::new(path, "go on", io::Error::new(io::ErrorKind::Interrupted, "stopped")))
        } else {
            let pieces: Vec<PieceToHash> = group.map_while(piece).collect();
            source.hash(&pieces, Kinds { v1, v2 }, buf)
        };
        match outcome {
            Ok(done) => {
                let mut hashes = hashes.lock().unwrap_or_else(PoisonError::into_inner);
                for (n, hash) in done.v1.into_iter().enumerate() {
                    hashes.v1[first + n] = hash;
                }
                for (n, hash) in done.v2.into_iter().enumerate() {
                    hashes.v2[first + n] = hash;
                }
            }
            Err(e) => {
                stop.store(true, Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    // A file that grew has a tail that is in no piece.
    for file in files {
        let len = file.path.metadata().map_err(|e| StorageError::new(&file.path, "read", e))?.len();
        if len != file.length {
            return Err(StorageError::changed(&file.path, "read", "the file changed while it was hashed"));
        }
    }
    Ok(hashes.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Source<'a> {
    files: &'a [FileToHash],
    open: FxHashMap<u32, Arc<File>>,
    progress: &'a Progress,
}

impl Source<'_> {
    fn hash(
        &mut self,
        pieces: &[PieceToHash],
        kinds: Kinds,
        buf: &mut AlignedBytes,
    ) -> Result<PieceHashes, StorageError> {
        let mut hashes = PieceHashes::default();
        for equal in pieces.chunk_by(|a, b| a.wire_len() == b.wire_len()) {
            let wire_len = equal.first().map_or(0, PieceToHash::wire_len);
            for pieces in equal.chunks(scan::side_by_side(wire_len)) {
                let data_lens = pieces.iter().map(PieceToHash::data_len).collect();
                let hashed = scan::hash_pieces(data_lens, wire_len, kinds, buf, |n, begin, part| {
                    if begin % READ_AHEAD == 0 {
                        self.read_ahead(&pieces[n], begin)?;
                    }
                    self.read_piece(&pieces[n], begin, part)
                })?;
                for (hash, piece) in hashed.into_iter().zip(pieces) {
                    hashes.v1.extend(hash.v1);
                    hashes.v2.extend(hash.v2.map(|leaves| merkle_root(leaves, piece.width, ZERO_HASH)));
                }
            }
        }
        Ok(hashes)
    }

    /// Sees to it that what comes from byte `begin` of a piece on is in memory.
    fn read_ahead(&mut self, piece: &PieceToHash, begin: u32) -> Result<(), StorageError> {
        let len = piece.wire_len().saturating_sub(begin).min(READ_AHEAD);
        let mut cold = false;
        self.runs(piece, begin, len, |file, offset, range| {
            let len = range.len() as u64;
            if sys::is_cached(file, offset, len) != Cached::Yes {
                sys::will_need(file, offset, len);
                cold = true;
            }
            Ok(())
        })?;
        if !cold {
            return Ok(());
        }
        scan::read_in_order(len, |done, buf| self.fill(piece, begin + done, buf))
    }

    /// Fills `buf` with the piece's bytes from `begin` on. Padding is zeros.
    fn read_piece(&mut self, piece: &PieceToHash, begin: u32, buf: &mut [u8]) -> Result<(), StorageError> {
        self.fill(piece, begin, buf)?;
        let data = piece.data_len().saturating_sub(begin) as usize;
        self.progress.bytes.fetch_add(data.min(buf.len()) as u64, Ordering::Relaxed);
        Ok(())
    }

    fn fill(&mut self, piece: &PieceToHash, begin: u32, buf: &mut [u8]) -> Result<(), StorageError> {
        let data = (piece.data_len().saturating_sub(begin) as usize).min(buf.len());
        let (data, padding) = buf.split_at_mut(data);
        padding.fill(0);
        // As many as the data, which fit.
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.runs(piece, begin, len, |file, offset, range| sys::read_at(file, &mut data[range], offset))
    }

    /// Visits the runs of bytes in files that `len` bytes of the piece's data from `begin` on lie in: the file, where in it,
    /// and which of those bytes.
    fn runs(
        &mut self,
        piece: &PieceToHash,
        begin: u32,
        len: u32,
        mut visit: impl FnMut(&File, u64, Range<usize>) -> io::Result<()>,
    ) -> Result<(), StorageError> {
        let (first, last) = (u64::from(begin), u64::from(begin) + u64::from(len));
        let mut at = 0;
        for span in &piece.spans {
            let (start, end) = (at.max(first), (at + span.len).min(last));
            if let Target::File { file: number, offset } = span.target
                && start < end
            {
                let Some(named) = self.files.get(number as usize) else {
                    return Err(StorageError::new(PathBuf::new(), "read", io::ErrorKind::NotFound));
                };
                let file = self.open(number, named)?;
                let within = |position: u64| usize::try_from(position - first).unwrap_or(usize::MAX);
                visit(&file, offset + (start - at), within(start)..within(end))
                    .map_err(|e| StorageError::new(&named.path, "read", e))?;
            }
            at += span.len;
        }
        Ok(())
    }

    fn open(&mut self, number: u32, named: &FileToHash) -> Result<Arc<File>, StorageError> {
        if let Some(file) = self.open.get(&number) {
            return Ok(file.clone());
        }
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        let file = Arc::new(File::open(&named.path).map_err(|e| StorageError::new(&named.path, "read", e))?);
        self.open.insert(number, file.clone());
        Ok(file)
    }
}

impl PieceToHash {
    /// A piece is at most 512 MiB.
    fn data_len(&self) -> u32 {
        u32::try_from(self.spans.iter().map(|s| s.len).sum::<u64>()).unwrap_or(u32::MAX)
    }

    fn wire_len(&self) -> u32 {
        self.data_len().saturating_add(self.padding)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test's numbers are small")]
mod tests {
    use super::super::{FileMap, Placed};
    use super::*;
    use crate::hash::{LEAF_LEN, leaf_hashes, sha1};

    #[test]
    fn once_over_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let lengths = [70_000, 0, 5, 200_000, 3 << 20];
        let content = |n: usize, len: usize| (0..len).map(|i| (i * (n + 3) % 250) as u8).collect::<Vec<u8>>();
        let files: Vec<FileToHash> = lengths
            .iter()
            .enumerate()
            .map(|(n, &len)| {
                let path = dir.path().join(n.to_string());
                std::fs::write(&path, content(n, len)).unwrap();
                FileToHash { path, length: len as u64 }
            })
            .collect();
        // Files begin on pieces, as in a hybrid torrent. The larger pieces are too long to be held.
        for piece_length in [65_536u32, 2 << 20] {
            let (mut at, mut placed, mut v1, mut v2) = (0u64, vec![], vec![], vec![]);
            for (n, &length) in lengths.iter().enumerate() {
                placed.push(Placed { offset: at, length: length as u64, pad: false });
                at = (at + length as u64).next_multiple_of(u64::from(piece_length));
                for piece in content(n, length).chunks(piece_length as usize) {
                    let zeros = vec![0; piece_length as usize - piece.len()];
                    v1.push(sha1(&[piece, &zeros]));
                    v2.push(merkle_root(leaf_hashes(&[piece]), piece_length / LEAF_LEN as u32, ZERO_HASH));
                }
            }
            let map = FileMap::new(placed).unwrap();
            let piece = |n: u32| {
                let spans = map.spans(u64::from(n) * u64::from(piece_length), u64::from(piece_length));
                let spans: Vec<Span> = spans.filter(|s| s.target != Target::Zeros).collect();
                let data: u64 = spans.iter().map(|s| s.len).sum();
                Some(PieceToHash { spans, padding: piece_length - data as u32, width: piece_length / LEAF_LEN as u32 })
            };
            let count = v1.len() as u32;
            let hash = |files: &[FileToHash], kinds, progress: &Progress| {
                hash_files(files, piece_length, count, &piece, kinds, None, progress)
            };
            let progress = Progress::default();
            let both = hash(&files, (true, true), &progress).unwrap();
            assert!(both == PieceHashes { v1: v1.clone(), v2: v2.clone() });
            assert_eq!(progress.bytes.into_inner(), lengths.iter().sum::<usize>() as u64);
            assert!(hash(&files, (true, false), &Progress::default()).unwrap() == PieceHashes { v1, v2: vec![] });
            assert!(hash(&files, (false, true), &Progress::default()).unwrap() == PieceHashes { v1: vec![], v2 });

            let stopped = Progress { cancel: AtomicBool::new(true), ..Progress::default() };
            let error = hash(&files, (true, true), &stopped).unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::Interrupted);
            let mut other = files.clone();
            other[3].length -= 1;
            assert!(hash(&other, (true, true), &Progress::default()).unwrap_err().to_string().contains("changed"));
            other[3].path = dir.path().join("none");
            assert!(hash(&other, (true, true), &Progress::default()).is_err());
        }
    }
}
