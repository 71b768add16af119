//! L3: the files of one torrent.
//!
//! For: opening, preallocating, reading, writing verified pieces, checking what lies on disk.
//! Must not know: peers, who asked, what a piece is worth.
//! Main types: [`Storage`], [`Layout`], [`StorageError`]; pure: [`FileMap`].
//! BEPs: 47 (pad files, attributes).
//!
//! ```text
//! open      looks, makes nothing   ──►  check (what lies there already?)  ──►  prepare   folders, space
//!                                                                                 │
//!           sync  ◄──  write_piece, read, lend, from any thread  ◄──────┘
//! ```
//!
//! Bytes of files that are not wanted, but share a piece with wanted ones, lie in `.NAME.gannet-part` beside the
//! torrent's file or folder, piece after piece (those that several files share). Later runs read them from there.

mod check;
mod error;
mod file_map;
mod hash_files;
mod layout;
mod lend;
mod mapping;
mod mend;
mod open_files;
mod prepare;
mod read;
mod reserve;
mod scan;
pub mod state_file;
mod sync;
mod write;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::sys::Cached;
pub use check::{Checked, FileProblem, PieceState, Problem, check};
pub use error::{ErrorKind, StorageError};
pub use file_map::{FileMap, Overlap, Placed, Span, Spans, Target};
pub use hash_files::{FileToHash, PieceHashes, PieceToHash, hash_files};
pub use layout::{Layout, LayoutFile, Options, Place, path_below};
pub use lend::{Lending, Lent, READ_AHEAD, SendSpan, Window};
pub use mend::Mended;
pub use scan::Progress;

use crate::base::{Geometry, PieceIndex};
use crate::sys::{self, Access, Dir, Glances};
use open_files::{OpenFile, OpenFiles};
use reserve::Reservation;

/// How verified pieces reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Memory maps where they are the right tool for the file system, else `pwrite`.
    #[default]
    Auto,
    /// Memory maps.
    Mmap,
    /// `pwrite`.
    Pwrite,
}

/// Whether space is taken before the first byte is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocate {
    /// All of it, so that a full disk is an error before the download and not in it.
    #[default]
    Full,
    /// None of it: files grow as pieces come.
    Sparse,
}

/// The files of one torrent. Shared between threads; every call is complete in itself.
#[derive(Debug)]
pub struct Storage {
    dir: Dir,
    /// The torrent's own file or folder below `dir`.
    below: PathBuf,
    files: Box<[FileState]>,
    part: PartFile,
    map: FileMap,
    geometry: Geometry,
    options: Options,
    open: OpenFiles,
    unsynced: Mutex<Unsynced>,
    choice: Mutex<Choice>,
    reserved: Reservation,
}

#[derive(Debug)]
struct FileState {
    /// Below `Storage::dir`.
    path: PathBuf,
    length: u64,
    pad: bool,
    executable: bool,
    /// Asked for; never so for a pad file.
    wanted: bool,
    /// Bytes of shared pieces live in the part file instead.
    in_part: bool,
    /// Its space is taken, so that it may be mapped.
    allocated: AtomicBool,
    /// Written to since the last sync, and so in `Unsynced`.
    dirty: AtomicBool,
    /// Something was wrong with it that may have taken bytes away.
    suspect: AtomicBool,
    /// Which file it was when it was first opened; 0 before. Another one under its name is never used.
    inode: AtomicU64,
}

/// Where the bytes of unwanted files go that come with wanted pieces.
#[derive(Debug)]
struct PartFile {
    path: PathBuf,
    /// Its number among the open files, behind all others.
    number: u32,
    /// The pieces that several files share: the n-th one has the n-th place. Independent of what is wanted, so that
    /// places keep their meaning when that changes.
    pieces: Box<[u32]>,
    dirty: AtomicBool,
}

#[derive(Debug, Default)]
struct Unsynced {
    files: Vec<u32>,
    folders: BTreeSet<PathBuf>,
}

/// The back end in use, and why.
#[derive(Clone, Debug)]
struct Choice {
    backend: Backend,
    reason: String,
}

impl Storage {
    /// Looks at the place of a torrent. Makes the folder of [`Place::Folder`] (unless read-only) and nothing else:
    /// check what lies there, then call [`Storage::prepare`], then write.
    ///
    /// # Errors
    /// A folder that cannot be opened; a path that leaves it; something else than a regular file, or a longer file
    /// (without [`Options::overwrite`]), where a file of the torrent has to be. With [`Options::read_only`] files are
    /// not looked at yet.
    pub fn open(layout: Layout, place: &Place, options: Options) -> Result<Self, StorageError> {
        let Layout { name, single_file, files, geometry } = layout;
        let named = match place {
            Place::Folder(path) | Place::Exact(path) => path,
        };
        let fail = |operation| move |e: io::Error| StorageError::new(named.clone(), operation, e);
        if !layout::is_plain(Path::new(&name)) {
            return Err(StorageError::changed(&name, "use the torrent's name", "not a plain file name"));
        }
        if let (Place::Folder(folder), false) = (place, options.read_only) {
            std::fs::create_dir_all(folder).map_err(fail("make the folder"))?;
        }
        let place = place.resolve(&name).map_err(fail("open"))?;
        let dir = Dir::open(&place.folder).map_err(fail("open"))?;

        let placed = files.iter().map(|f| Placed { offset: f.offset, length: f.length, pad: f.pad });
        let map = FileMap::new(placed).map_err(|e| StorageError::new(named, "lay out", io::Error::other(e)))?;
        let part = PartFile {
            path: PathBuf::from(format!(".{name}.gannet-part")),
            number: u32::try_from(files.len()).unwrap_or(u32::MAX),
            pieces: map.shared_pieces(geometry.piece_length()).into(),
            dirty: AtomicBool::new(false),
        };
        let mut states = Vec::with_capacity(files.len());
        for (n, file) in files.into_iter().enumerate() {
            let asked = options.wanted.as_ref().and_then(|w| w.get(n)).copied().unwrap_or(true);
            let path = if single_file { place.below.clone() } else { place.below.join(&file.path) };
            if !file.pad && (!layout::is_plain(&path) || !single_file && !layout::is_plain(&file.path)) {
                return Err(StorageError::changed(dir.path().join(path), "use", "path leaves the folder"));
            }
            states.push(FileState {
                path,
                length: file.length,
                pad: file.pad,
                executable: file.executable,
                wanted: asked && !file.pad,
                in_part: false,
                allocated: AtomicBool::new(false),
                dirty: AtomicBool::new(false),
                suspect: AtomicBool::new(false),
                inode: AtomicU64::new(0),
            });
        }
        if !options.read_only {
            find_places(&dir, &mut states, &options)?;
        }
        let choice = prepare::choose(&dir, &options);
        let reserved = Reservation::none(sys::file_system_number(&dir));
        Ok(Self {
            dir,
            below: place.below,
            files: states.into(),
            part,
            map,
            geometry,
            options,
            open: OpenFiles::default(),
            unsynced: Mutex::default(),
            choice: Mutex::new(choice),
            reserved,
        })
    }

    /// The torrent's pieces.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Where the files lie in the torrent.
    pub fn file_map(&self) -> &FileMap {
        &self.map
    }

    /// How many files there are, pad files included.
    pub fn file_count(&self) -> u32 {
        self.part.number
    }

    /// The torrent's own file or folder.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(&self.below)
    }

    /// Where file number `file` is on disk; none for a pad file.
    pub fn file_path(&self, file: u32) -> Option<PathBuf> {
        self.files.get(file as usize).filter(|f| !f.pad).map(|f| self.dir.path().join(&f.path))
    }

    /// Bytes of file number `file`; 0 beyond the last.
    pub fn file_len(&self, file: u32) -> u64 {
        self.files.get(file as usize).map_or(0, |f| f.length)
    }

    /// Whether file number `file` is wanted; never a pad file.
    pub fn is_wanted(&self, file: u32) -> bool {
        self.files.get(file as usize).is_some_and(|f| f.wanted)
    }

    /// Whether any byte of `piece` belongs to a wanted file.
    pub fn is_piece_wanted(&self, piece: PieceIndex) -> bool {
        let (position, len) = (self.geometry.position(piece), u64::from(self.geometry.piece_len(piece)));
        self.map.files(position, len).any(|f| self.is_wanted(f))
    }

    /// [`Backend::Mmap`] or [`Backend::Pwrite`]. May change from the former to the latter, where maps turn out not to
    /// work.
    pub fn backend(&self) -> Backend {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner).backend
    }

    /// Why it is that back end, in a few words for the log.
    pub fn backend_reason(&self) -> String {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner).reason.clone()
    }

    /// Whether it was opened never to be written to.
    pub fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    /// Closes all files; they are opened again when they are needed.
    pub fn close_files(&self) {
        self.open.clear();
    }

    fn use_pwrite(&self, reason: String) {
        let mut choice = self.choice.lock().unwrap_or_else(PoisonError::into_inner);
        if choice.backend != Backend::Pwrite {
            tracing::info!(folder = %self.dir.path().display(), "pieces are written by pwrite: {reason}");
            *choice = Choice { backend: Backend::Pwrite, reason };
        }
    }

    fn unsynced(&self) -> std::sync::MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of a file or of the part file, below the folder.
    fn name(&self, number: u32) -> &Path {
        self.files.get(number as usize).map_or(&self.part.path, |f| &f.path)
    }

    fn error(&self, number: u32, operation: &'static str, source: impl Into<io::Error>) -> StorageError {
        let error = StorageError::new(self.dir.path().join(self.name(number)), operation, source);
        if matches!(error.kind(), ErrorKind::Changed | ErrorKind::Missing)
            && let Some(file) = self.files.get(number as usize)
        {
            file.suspect.store(true, Ordering::Release);
        }
        error
    }

    /// As [`StorageError::changed`], of file number `number`.
    fn changed(&self, number: u32, operation: &'static str, why: &'static str) -> StorageError {
        self.error(number, operation, io::Error::new(io::ErrorKind::InvalidData, why))
    }

    fn dirty(&self, number: u32) -> &AtomicBool {
        self.files.get(number as usize).map_or(&self.part.dirty, |f| &f.dirty)
    }

    /// File number `number` (or the part file), open to be read.
    fn open_to_read(&self, number: u32) -> Result<Arc<OpenFile>, StorageError> {
        let open = || self.same_as_before(number, self.dir.file(self.name(number), Access::Read)?);
        self.open.get(number, false, |n| self.keep_open(n), open).map_err(|e| self.error(number, "open", e))
    }

    /// File number `number` (or the part file), open to be written. Made if it was never there, with its folders.
    fn open_to_write(&self, number: u32) -> Result<Arc<OpenFile>, StorageError> {
        if self.options.read_only {
            return Err(self.error(number, "write", io::ErrorKind::ReadOnlyFilesystem));
        }
        let open = || self.same_as_before(number, self.open_or_make(number)?);
        self.open.get(number, true, |n| self.keep_open(n), open).map_err(|e| self.error(number, "open", e))
    }

    /// File number `number` (or the part file), open to be written, if it is there.
    fn open_existing(&self, number: u32) -> Result<Arc<OpenFile>, StorageError> {
        let open = || self.same_as_before(number, self.dir.file(self.name(number), Access::Write)?);
        self.open.get(number, true, |n| self.keep_open(n), open).map_err(|e| self.error(number, "open", e))
    }

    fn open_or_make(&self, number: u32) -> io::Result<File> {
        let name = self.name(number);
        let known = self.files.get(number as usize).is_some_and(|f| f.inode.load(Ordering::Relaxed) != 0);
        if known {
            // One that was there and went away took pieces with it: an empty new one would hide that.
            return self.dir.file(name, Access::Write);
        }
        let folder = name.parent().unwrap_or(Path::new(""));
        let make = || self.dir.file(name, Access::CreateNew);
        let made = match make() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let changed = self.dir.make_folders(folder)?;
                self.unsynced().folders.extend(changed);
                make()
            }
            made => made,
        };
        match made {
            Ok(_) => {
                let folders = &mut self.unsynced().folders;
                if !folders.contains(folder) {
                    folders.insert(folder.to_path_buf());
                }
                made
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.dir.file(name, Access::Write),
            Err(e) => Err(e),
        }
    }

    /// Files are closed and opened again as others are needed: what is opened must be what was opened before.
    fn same_as_before(&self, number: u32, file: File) -> io::Result<File> {
        if let Some(state) = self.files.get(number as usize) {
            let inode = sys::inode(&file)?;
            let before = state.inode.compare_exchange(0, inode, Ordering::Relaxed, Ordering::Relaxed);
            if before.is_err_and(|before| before != inode) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the file was replaced while in use"));
            }
        }
        Ok(file)
    }

    fn keep_open(&self, number: u32) -> bool {
        self.dirty(number).load(Ordering::Relaxed)
    }
}

/// Decides which files' bytes live in the part file, by what is there.
fn find_places(dir: &Dir, files: &mut [FileState], options: &Options) -> Result<(), StorageError> {
    let mut glances = Glances::new(dir);
    let in_part = files.iter().map(|file| {
        if file.pad {
            return Ok(false);
        }
        let found = glances.file_len(&file.path);
        let found = found.map_err(|e| StorageError::new(dir.path().join(&file.path), "use", e))?;
        if file.wanted && !options.overwrite && found.is_some_and(|len| len > file.length) {
            return Err(StorageError::changed(dir.path().join(&file.path), "use the file", prepare::TOO_LONG));
        }
        // An unwanted file that is there in full is as good a place as the wanted ones.
        Ok(!file.wanted && found != Some(file.length))
    });
    let in_part: Vec<bool> = in_part.collect::<Result<_, _>>()?;
    for (file, in_part) in files.iter_mut().zip(in_part) {
        file.in_part = in_part;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "a test's numbers are small")]
mod tests;
