//! Small files that must be whole or be their former selves, whenever the power goes: resume data above all.
//!
//! ```text
//! NAME.tmp  written and synced  ──►  NAME becomes NAME.bak  ──►  NAME.tmp becomes NAME  ──►  folder synced
//! ```
//!
//! At every moment `NAME` or `NAME.bak` is a whole generation. [`load`] takes the newest that its reader accepts.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::StorageError;

/// Which generation [`load`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// What was saved last.
    Current,
    /// The one before: the last is missing or was refused.
    Previous,
}

/// What a folder has to be able to do to keep state; each call as the system's call of the same kind.
pub trait Folder {
    /// Makes or replaces a file, and syncs its contents.
    ///
    /// # Errors
    /// As the system says. There may be a part of the file then.
    fn write_synced(&mut self, name: &OsStr, bytes: &[u8]) -> io::Result<()>;

    /// Gives a file another name, in place of the one that had it.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&mut self, from: &OsStr, to: &OsStr) -> io::Result<()>;

    /// Syncs the names in the folder.
    ///
    /// # Errors
    /// As the system says.
    fn sync(&mut self) -> io::Result<()>;

    /// Reads a file that is no longer than `max_len` bytes.
    ///
    /// # Errors
    /// As the system says, and for a longer one.
    fn read(&self, name: &OsStr, max_len: u64) -> io::Result<Vec<u8>>;
}

/// Replaces the file `name` in `folder`, and keeps what was there as `.bak`. One save of the same name at a time.
///
/// # Errors
/// As the system says; the file is then what it was, or is found by [`load_from`] as the one before.
pub fn save_in(folder: &mut impl Folder, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(name, ".tmp");
    folder.write_synced(&temporary, bytes)?;
    match folder.rename(name, &beside(name, ".bak")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    folder.rename(&temporary, name)?;
    folder.sync()
}

/// Reads the file `name` in `folder`, or the generation before it: the first that is there, is no longer than `max_len`
/// bytes and that `parse` accepts. None if there is none at all.
///
/// # Errors
/// What `parse` said of the newest, if it accepts neither; else `None` for files that cannot be read, which is logged.
pub fn load_from<T, E: std::fmt::Display>(
    folder: &impl Folder,
    name: &OsStr,
    max_len: u64,
    parse: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<Option<(T, Generation)>, E> {
    let mut first_error = None;
    for (name, generation) in [(name.to_owned(), Generation::Current), (beside(name, ".bak"), Generation::Previous)] {
        match folder.read(&name, max_len) {
            Ok(bytes) => match parse(&bytes) {
                Ok(value) => return Ok(Some((value, generation))),
                Err(e) => {
                    tracing::warn!(name = %name.display(), "not used: {e}");
                    first_error.get_or_insert(e);
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!(name = %name.display(), "cannot be read: {e}"),
        }
    }
    first_error.map_or(Ok(None), Err)
}

/// [`save_in`] the folder of `path`, which is made if it is not there.
///
/// # Errors
/// As [`save_in`].
pub fn save(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let (mut folder, name) = place(path);
    fs::create_dir_all(&folder.0).map_err(|e| StorageError::new(path, "make its folder", e))?;
    save_in(&mut folder, name, bytes).map_err(|e| StorageError::new(path, "save", e))
}

/// [`load_from`] the folder of `path`.
///
/// # Errors
/// As [`load_from`].
pub fn load<T, E: std::fmt::Display>(
    path: &Path,
    max_len: u64,
    parse: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<Option<(T, Generation)>, E> {
    let (folder, name) = place(path);
    load_from(&folder, name, max_len, parse)
}

/// Shows other processes that a file of state is in use, as long as it lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Locks the file of state at `path`, by a file `.lock` beside it, which goes when the lock goes. `None` if another
/// process has it, or another part of this one. Its folder is made if it is not there.
///
/// # Errors
/// As the system says: the file system may know no locks.
pub fn lock(path: &Path) -> Result<Option<Lock>, StorageError> {
    let fail = |e: io::Error| StorageError::new(path, "lock", e);
    let (folder, name) = place(path);
    fs::create_dir_all(&folder.0).map_err(fail)?;
    let path = folder.0.join(beside(name, ".lock"));
    loop {
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        crate::sys::private(&mut options);
        let file = options.open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(e)) => return Err(fail(e)),
        }
        // Whoever had it may have removed it meanwhile.
        let named = File::open(&path).and_then(|named| crate::sys::inode(&named));
        if named.is_ok_and(|named| crate::sys::inode(&file).is_ok_and(|locked| named == locked)) {
            return Ok(Some(Lock { file, path }));
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Removes the file and the generation before it.
///
/// # Errors
/// As the system says; that there was none is no error.
pub fn remove(path: &Path) -> Result<(), StorageError> {
    for ending in ["", ".bak", ".tmp"] {
        let path = path.with_file_name(beside(path.file_name().unwrap_or_default(), ending));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StorageError::new(path, "remove", e)),
            _ => {}
        }
    }
    Ok(())
}

fn beside(name: &OsStr, ending: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(ending);
    name
}

fn place(path: &Path) -> (Real, &OsStr) {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (Real(folder.to_owned()), path.file_name().unwrap_or_default())
}

/// A folder of the system's.
struct Real(PathBuf);

impl Folder for Real {
    fn write_synced(&mut self, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        crate::sys::private(&mut options);
        let written = options.open(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        });
        if written.is_err() {
            let _ = fs::remove_file(path);
        }
        written
    }

    fn rename(&mut self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn sync(&mut self) -> io::Result<()> {
        match File::open(&self.0)?.sync_all() {
            // Some file systems cannot sync folders.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        }
    }

    fn read(&self, name: &OsStr, max_len: u64) -> io::Result<Vec<u8>> {
        let file = File::open(self.0.join(name))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > max_len {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no file, or too long"));
        }
        let mut bytes = Vec::new();
        file.take(max_len).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Result<Vec<u8>, String> {
        bytes.strip_prefix(b"ok ").map(<[u8]>::to_vec).ok_or_else(|| "damaged".into())
    }

    fn beside(path: &Path, ending: &str) -> PathBuf {
        path.with_file_name(super::beside(path.file_name().unwrap(), ending))
    }

    fn load_text(path: &Path) -> Result<Option<(Vec<u8>, Generation)>, String> {
        load(path, 100, whole)
    }

    #[test]
    fn k3_generations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/state");
        let found = |text: &[u8], generation| Ok(Some((text.to_vec(), generation)));
        assert_eq!(load_text(&path), Ok(None));
        save(&path, b"ok 1").unwrap();
        assert_eq!(load_text(&path), found(b"1", Generation::Current));
        save(&path, b"ok 2").unwrap();
        save(&path, b"ok 3").unwrap();
        assert_eq!(load_text(&path), found(b"3", Generation::Current));
        for damage in [&b""[..], b"nonsense", &[b'x'; 101]] {
            fs::write(&path, damage).unwrap();
            assert_eq!(load_text(&path), found(b"2", Generation::Previous));
        }
        // Between the two renames of a save.
        fs::remove_file(&path).unwrap();
        fs::write(beside(&path, ".tmp"), b"ok half").unwrap();
        assert_eq!(load_text(&path), found(b"2", Generation::Previous));
        save(&path, b"ok 4").unwrap();
        assert_eq!(load_text(&path), found(b"4", Generation::Current));
        fs::write(&path, b"bad").unwrap();
        fs::write(beside(&path, ".bak"), b"bad").unwrap();
        assert_eq!(load_text(&path), Err("damaged".into()));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!((load_text(&path), fs::read_dir(path.parent().unwrap()).unwrap().count()), (Ok(None), 0));
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/state");
        let first = lock(&path).unwrap().unwrap();
        assert!(lock(&path).unwrap().is_none() && lock(&dir.path().join("new/other")).unwrap().is_some());
        drop(first);
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 0);
        assert!(lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_save_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        save(&path, b"ok 1").unwrap();
        fs::create_dir(beside(&path, ".tmp")).unwrap();
        let error = save(&path, b"ok 2").unwrap_err();
        assert_eq!(
            (error.path.as_path(), load_text(&path)),
            (path.as_path(), Ok(Some((b"1".to_vec(), Generation::Current))))
        );
    }
}
