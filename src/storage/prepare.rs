use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::write::MIN_MAPPED;
use super::{Backend, Choice, FileState, Options, Preallocate, Storage, StorageError};
use crate::sys::{self, Access, Allocation, Dir, FileSystem, Glances};

/// Why a file is not used.
pub(super) const TOO_LONG: &str = "it is longer than in the torrent; move it away, or allow overwriting";

/// The back end for a folder: maps only where they are known to be safe and no slower (preallocated files on a local
/// file system), else `pwrite`.
pub(super) fn choose(dir: &Dir, options: &Options) -> Choice {
    let (backend, reason) = if options.read_only {
        (Backend::Pwrite, "nothing is written".into())
    } else if options.backend == Backend::Pwrite {
        (Backend::Pwrite, "asked for".into())
    } else if options.preallocate == Preallocate::Sparse {
        (Backend::Pwrite, "files are sparse: a full disk would be a signal in a map".into())
    } else if cfg!(target_pointer_width = "32") {
        (Backend::Pwrite, "the address space is too small for maps".into())
    } else if options.backend == Backend::Mmap {
        (Backend::Mmap, "asked for".into())
    } else {
        match sys::file_system(dir) {
            FileSystem::Mappable(name) => (Backend::Mmap, format!("preallocated files on {name}")),
            FileSystem::Known(name) => (Backend::Pwrite, format!("maps are not the tool for {name}")),
            FileSystem::Unknown => (Backend::Pwrite, "the file system is not known".into()),
        }
    };
    Choice { backend, reason }
}

impl Storage {
    /// Makes ready to write: compares the free space with what is missing, makes folders and empty files, cuts longer
    /// ones (only with [`Options::overwrite`]), and takes the space of all wanted files unless they are to be sparse,
    /// small ones apart: those are never mapped, so a full disk is an error of the write, and there may be a great many.
    /// What lies in the files stays. May take a while. In a read-only storage it does nothing.
    ///
    /// # Errors
    /// [`super::ErrorKind::Full`] before anything is written when the space is too small; else as the system says,
    /// with space that was taken for the file in question given back.
    pub fn prepare(&self) -> Result<(), StorageError> {
        if self.options.read_only {
            return Ok(());
        }
        self.reserve_space()?;
        self.make_folders()?;
        let allocate = self.options.preallocate == Preallocate::Full;
        let (mut supported, mut tried) = (true, false);
        let mut glances = Glances::new(&self.dir);
        for (number, file) in (0u32..).zip(&self.files) {
            if !file.wanted {
                continue;
            }
            let found = glances.file_len(&file.path).map_err(|e| self.error(number, "use", e))?;
            if found.is_some_and(|len| len > file.length) {
                if !self.options.overwrite {
                    return Err(self.changed(number, "use the file", TOO_LONG));
                }
                self.cut(number, file.length)?;
            }
            if file.length == 0 {
                if found.is_none() {
                    self.open_to_write(number)?;
                }
            } else if allocate && supported && file.length >= MIN_MAPPED {
                let before = self.taken(number, file, &mut glances)?;
                supported = self.allocate(number, file.length, found)?;
                if supported {
                    self.reserved.take(file.length.saturating_sub(before));
                }
                file.allocated.store(supported, Ordering::Relaxed);
            } else if allocate && !tried {
                // One is enough to find out that nothing may be written here.
                self.open_to_write(number)?;
                tried = true;
            }
        }
        if !supported {
            self.use_pwrite("the file system cannot preallocate".into());
        }
        Ok(())
    }

    /// Reserves what is missing, so that no other torrent is promised the same space.
    fn reserve_space(&self) -> Result<(), StorageError> {
        let Some(free) = sys::available(&self.dir) else { return Ok(()) };
        let mut missing = 0u64;
        let mut glances = Glances::new(&self.dir);
        for (number, file) in (0u32..).zip(&self.files).filter(|(_, file)| file.wanted) {
            missing = missing.saturating_add(file.length.saturating_sub(self.taken(number, file, &mut glances)?));
        }
        match self.reserved.set(missing, free) {
            0 => Ok(()),
            lacking => {
                let why = format!("no space left: {} missing", size(lacking));
                let why = io::Error::new(io::ErrorKind::StorageFull, why);
                Err(StorageError::new(self.path(), "store the torrent", why))
            }
        }
    }

    /// Bytes on the disk that a file has.
    fn taken<'a>(&self, number: u32, file: &'a FileState, glances: &mut Glances<'a>) -> Result<u64, StorageError> {
        let found = glances.stat(&file.path).map_err(|e| self.error(number, "use", e))?;
        #[allow(clippy::unnecessary_cast, reason = "the type differs from system to system")]
        Ok(found.map_or(0, |stat| u64::try_from(stat.st_blocks as i64).unwrap_or(0).saturating_mul(512)))
    }

    pub(super) fn make_folders(&self) -> Result<(), StorageError> {
        let mut made: HashSet<&Path> = HashSet::new();
        for (number, file) in (0u32..).zip(&self.files) {
            if let Some(folder) = file.path.parent()
                && file.wanted
                && made.insert(folder)
            {
                let changed = self.dir.make_folders(folder).map_err(|e| self.error(number, "make its folder", e))?;
                self.unsynced().folders.extend(changed);
            }
        }
        Ok(())
    }

    fn cut(&self, number: u32, len: u64) -> Result<(), StorageError> {
        let file = self.open_to_write(number)?;
        self.mark_dirty(number);
        file.file.set_len(len).map_err(|e| self.error(number, "cut", e))
    }

    /// Whether the space of the file is taken; not if the file system cannot do it.
    pub(super) fn allocate(&self, number: u32, len: u64, found: Option<u64>) -> Result<bool, StorageError> {
        let file = self.open_to_write(number)?;
        self.mark_dirty(number);
        match sys::allocate(&file.file, len) {
            Ok(allocation) => Ok(allocation == Allocation::Done),
            Err(e) => {
                // What the call took before it failed would stay taken.
                let _ = file.file.set_len(found.unwrap_or(0));
                self.open.forget(number);
                if found.is_none() {
                    let _ = self.dir.remove(self.name(number));
                    if let Some(state) = self.files.get(number as usize) {
                        state.inode.store(0, Ordering::Relaxed);
                    }
                }
                Err(self.error(number, "take the space for", e))
            }
        }
    }

    /// Gives wanted files the attributes they have in the torrent (BEP 47 "x"): once they are complete.
    ///
    /// # Errors
    /// As the system says.
    pub fn apply_attributes(&self) -> Result<(), StorageError> {
        for (number, file) in (0u32..).zip(&self.files) {
            if file.wanted && file.executable && !self.options.read_only {
                let open = self.dir.file(&file.path, Access::Read).map_err(|e| self.error(number, "open", e))?;
                sys::make_executable(&open).map_err(|e| self.error(number, "make executable", e))?;
            }
        }
        Ok(())
    }
}

/// Bytes, as people say it.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let number = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", number / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number / 1e6),
        _ => format!("{:.1} GB", number / 1e9),
    }
}
