//! Small files that must be whole or be their former selves, whenever the power goes: resume data above all.
//!
//! ```text
//! NAME.tmp  written and synced  ──►  NAME becomes NAME.bak  ──►  NAME.tmp becomes NAME  ──►  folder synced
//! ```
//!
//! At every moment `NAME` or `NAME.bak` is a whole generation. [`load`] takes the newest that its reader accepts.

use std::ffi::OsString;
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

/// Replaces the file at `path`, and keeps what was there as `.bak`. Its folder is made if it is not there. One save of
/// the same path at a time.
///
/// # Errors
/// As the system says; the file is then what it was, or is found by [`load`] as the one before.
pub fn save(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let fail = |operation| move |e: io::Error| StorageError::new(path, operation, e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(fail("make its folder"))?;
    let temporary = beside(path, ".tmp");
    write_synced(&temporary, bytes).map_err(|e| {
        let _ = fs::remove_file(&temporary);
        StorageError::new(path, "save", e)
    })?;
    match fs::rename(path, beside(path, ".bak")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail("save")(e)),
        _ => {}
    }
    fs::rename(&temporary, path).map_err(fail("save"))?;
    sync_folder(folder).map_err(fail("sync its folder"))
}

/// Reads the file at `path`, or the generation before it: the first that is there, is no longer than `max_len` bytes and
/// that `parse` accepts. None if there is none at all.
///
/// # Errors
/// What `parse` said of the newest, if it accepts neither; else `None` for files that cannot be read, which is logged.
pub fn load<T, E: std::fmt::Display>(
    path: &Path,
    max_len: u64,
    parse: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<Option<(T, Generation)>, E> {
    let mut first_error = None;
    for (path, generation) in [(path.to_path_buf(), Generation::Current), (beside(path, ".bak"), Generation::Previous)]
    {
        match read_bounded(&path, max_len) {
            Ok(bytes) => match parse(&bytes) {
                Ok(value) => return Ok(Some((value, generation))),
                Err(e) => {
                    tracing::warn!(path = %path.display(), "not used: {e}");
                    first_error.get_or_insert(e);
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!(path = %path.display(), "cannot be read: {e}"),
        }
    }
    first_error.map_or(Ok(None), Err)
}

/// Removes the file and the generation before it.
///
/// # Errors
/// As the system says; that there was none is no error.
pub fn remove(path: &Path) -> Result<(), StorageError> {
    for path in [path.to_path_buf(), beside(path, ".bak"), beside(path, ".tmp")] {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StorageError::new(path, "remove", e)),
            _ => {}
        }
    }
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(ending);
    path.with_file_name(name)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    crate::sys::private(&mut options);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn read_bounded(path: &Path, max_len: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > max_len {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no file, or too long"));
    }
    let mut bytes = Vec::new();
    file.take(max_len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems cannot sync folders.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Result<Vec<u8>, String> {
        bytes.strip_prefix(b"ok ").map(<[u8]>::to_vec).ok_or_else(|| "damaged".into())
    }

    fn load_text(path: &Path) -> Result<Option<(Vec<u8>, Generation)>, String> {
        load(path, 100, whole)
    }

    #[test]
    fn generations() {
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
