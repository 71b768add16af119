use std::io;
use std::path::{Path, PathBuf};

/// Why the disk did not do what a torrent needs: the file, what was tried, and the system's answer, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {operation}: {}", path.display(), cause(source))]
pub struct StorageError {
    /// The file or folder.
    pub path: PathBuf,
    /// What was tried, as in "cannot ...".
    pub operation: &'static str,
    /// What came of it. Part of the line above, so not told as a source once more.
    #[source]
    pub source: io::Error,
}

/// What to do about a [`StorageError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No space, quota or size limit left: may pass when somebody frees some.
    Full,
    /// The file system is mounted read-only, or the storage was opened so.
    ReadOnly,
    /// Not allowed.
    Permission,
    /// The file is not there.
    Missing,
    /// The file is not what it was or must be: shorter, longer, replaced, a link, no file at all.
    Changed,
    /// Anything else, a broken disk above all.
    Io,
}

impl StorageError {
    pub(crate) fn new(path: impl Into<PathBuf>, operation: &'static str, source: impl Into<io::Error>) -> Self {
        Self { path: path.into(), operation, source: source.into() }
    }

    pub(crate) fn changed(path: impl Into<PathBuf>, operation: &'static str, why: &'static str) -> Self {
        Self::new(path, operation, io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// A job that panicked, which is our fault and no disk's.
    pub(crate) fn internal(path: &Path, operation: &'static str) -> Self {
        Self::new(path, operation, io::Error::other("internal error, please report it"))
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        use io::ErrorKind as K;
        match self.source.kind() {
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => ErrorKind::Full,
            K::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            K::PermissionDenied => ErrorKind::Permission,
            K::NotFound => ErrorKind::Missing,
            K::UnexpectedEof
            | K::InvalidData
            | K::InvalidInput
            | K::NotADirectory
            | K::IsADirectory
            | K::StaleNetworkFileHandle => ErrorKind::Changed,
            _ if self.source.raw_os_error() == Some(libc::ELOOP) => ErrorKind::Changed,
            _ => ErrorKind::Io,
        }
    }
}

/// The system's words without its number, in lower case as they stand within a line.
fn cause(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof if error.raw_os_error().is_none() => "the file is too short".into(),
        _ => error.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_and_a_kind() {
        let error = |errno| StorageError::new("/d/file", "write", io::Error::from_raw_os_error(errno));
        assert_eq!(error(libc::ENOSPC).to_string(), "/d/file: cannot write: no space left on device");
        let kinds = [
            (libc::ENOSPC, ErrorKind::Full),
            (libc::EDQUOT, ErrorKind::Full),
            (libc::EFBIG, ErrorKind::Full),
            (libc::EROFS, ErrorKind::ReadOnly),
            (libc::EACCES, ErrorKind::Permission),
            (libc::EPERM, ErrorKind::Permission),
            (libc::ENOENT, ErrorKind::Missing),
            (libc::ELOOP, ErrorKind::Changed),
            (libc::ENOTDIR, ErrorKind::Changed),
            (libc::ESTALE, ErrorKind::Changed),
            (libc::EIO, ErrorKind::Io),
            (libc::ENXIO, ErrorKind::Io),
        ];
        for (errno, kind) in kinds {
            assert_eq!(error(errno).kind(), kind, "{errno}");
        }
        let short = StorageError::new("f", "read", io::Error::from(io::ErrorKind::UnexpectedEof));
        assert_eq!(
            (short.to_string().as_str(), short.kind()),
            ("f: cannot read: the file is too short", ErrorKind::Changed)
        );
    }
}
