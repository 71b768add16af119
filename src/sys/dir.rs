use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

/// A folder, and the only way to what lies below it: names are resolved without ever following a symbolic link or
/// leaving it, whatever stands there (`openat2` on Linux, one component after the other else).
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// The same, open to be read, if that is allowed: a sync of its file system tells of the errors since this was opened.
    readable: Option<OwnedFd>,
    path: PathBuf,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be read.
    Read,
    /// To be read and written; it must be there.
    Write,
    /// To be read and written; made, and it must not be there.
    CreateNew,
}

/// Reading the folder itself is not asked for: who may pass through it may use it.
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

impl Dir {
    /// The folder at `path`, which the user named: links on the way are the user's own and are followed.
    ///
    /// # Errors
    /// As the system says; also if it is no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, passing(FOLDER), Mode::empty())?;
        let readable = rustix::fs::openat(&fd, ".", FOLDER | OFlags::RDONLY, Mode::empty()).ok();
        Ok(Self { fd, readable, path: path.to_path_buf() })
    }

    /// Where it is, as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The regular file `path` below the folder. A pipe or device is refused, and opening one never waits.
    ///
    /// # Errors
    /// As the system says: not found, a link (`ELOOP`), no regular file (invalid input).
    pub fn file(&self, path: &Path, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
            Access::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.below(path, flags)?;
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    /// Makes the folder `path` below this one, and all on the way to it. Returns the folders whose contents changed
    /// (the parents of what was made).
    ///
    /// # Errors
    /// As the system says.
    pub fn make_folders(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        let mut at = PathBuf::new();
        for name in names(path)? {
            let made =
                self.parent(&at.join(name), |dir, name| match rustix::fs::mkdirat(dir, name, Mode::from(0o777)) {
                    Ok(()) => Ok(true),
                    Err(rustix::io::Errno::EXIST) => Ok(false),
                    Err(e) => Err(e.into()),
                })?;
            if made {
                changed.push(at.clone());
            }
            at.push(name);
        }
        // What was there already may be a file or a link: this says so.
        self.below(path, passing(FOLDER))?;
        Ok(changed)
    }

    /// Removes the file `path` below the folder.
    ///
    /// # Errors
    /// As the system says.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.parent(path, |dir, name| Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?))
    }

    /// Makes sure that the names in folder `path` below this one outlive a loss of power. A folder that may not be
    /// read cannot be synced, which is no error.
    ///
    /// # Errors
    /// As the system says.
    pub fn sync(&self, path: &Path) -> io::Result<()> {
        match self.below(path, FOLDER | OFlags::RDONLY) {
            Ok(fd) => match rustix::fs::fsync(fd) {
                // Some file systems cannot sync folders.
                Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
                Err(e) => Err(e.into()),
            },
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The folder itself, for questions about its file system.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The folder itself, open to be read.
    pub(super) fn readable(&self) -> Option<&OwnedFd> {
        self.readable.as_ref()
    }

    /// Does something to the last name of `path`, in the folder that the names before lead to.
    fn parent<T>(&self, path: &Path, act: impl FnOnce(&OwnedFd, &OsStr) -> io::Result<T>) -> io::Result<T> {
        let name = path.file_name().ok_or_else(outside)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => act(&self.below(parent, passing(FOLDER))?, name),
            _ => act(&self.fd, name),
        }
    }

    fn below(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        if names(path)?.is_empty() {
            return Ok(rustix::fs::openat(&self.fd, ".", flags, Mode::empty())?);
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::ResolveFlags;
            let mode = if flags.contains(OFlags::CREATE) { Mode::from(0o666) } else { Mode::empty() };
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            loop {
                match rustix::fs::openat2(&self.fd, path, flags | OFlags::NOFOLLOW, mode, resolve) {
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    // An old kernel, or a sandbox that does not know the call.
                    Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => break,
                    opened => return Ok(opened?),
                }
            }
        }
        self.below_stepwise(path, flags)
    }

    /// One component after the other, none of which may be a link.
    fn below_stepwise(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let names = names(path)?;
        let (last, folders) = names.split_last().ok_or_else(outside)?;
        let mut at: Option<OwnedFd> = None;
        for name in folders {
            let from = at.as_ref().unwrap_or(&self.fd);
            at = Some(rustix::fs::openat(from, *name, passing(FOLDER) | OFlags::NOFOLLOW, Mode::empty())?);
        }
        let mode = if flags.contains(OFlags::CREATE) { Mode::from(0o666) } else { Mode::empty() };
        Ok(rustix::fs::openat(at.as_ref().unwrap_or(&self.fd), *last, flags | OFlags::NOFOLLOW, mode)?)
    }
}

/// Looks at many files, one after the other. The folder of the last one stays open, so that its neighbours cost one call
/// each instead of three. To be kept for one pass: a folder that is moved or made meanwhile may be missed.
#[derive(Debug)]
pub struct Glances<'a> {
    dir: &'a Dir,
    /// The folder of the last file, if it is there.
    folder: Option<(&'a Path, Option<OwnedFd>)>,
}

impl<'a> Glances<'a> {
    /// Below `dir`.
    pub fn new(dir: &'a Dir) -> Self {
        Self { dir, folder: None }
    }

    /// What `path` below the folder is, a link itself and not what it points to; none if there is nothing.
    ///
    /// # Errors
    /// As the system says.
    pub fn stat(&mut self, path: &'a Path) -> io::Result<Option<Stat>> {
        let name = path.file_name().ok_or_else(outside)?;
        let Some(folder) = self.folder_of(path)? else { return Ok(None) };
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether there is a regular file at `path`, and how long it is.
    ///
    /// # Errors
    /// As the system says, and for anything else than a regular file.
    pub fn file_len(&mut self, path: &'a Path) -> io::Result<Option<u64>> {
        let Some(stat) = self.stat(path)? else { return Ok(None) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(u64::try_from(stat.st_size).ok()),
            FileType::Symlink => Err(io::Error::new(io::ErrorKind::InvalidInput, "is a symbolic link")),
            FileType::Directory => Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder")),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    fn folder_of(&mut self, path: &'a Path) -> io::Result<Option<&OwnedFd>> {
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return Ok(Some(&self.dir.fd));
        };
        if self.folder.as_ref().is_none_or(|(last, _)| *last != parent) {
            let opened = match self.dir.below(parent, passing(FOLDER)) {
                Ok(fd) => Some(fd),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            };
            self.folder = Some((parent, opened));
        }
        Ok(self.folder.as_ref().and_then(|(_, opened)| opened.as_ref()))
    }
}

/// `flags` to pass through a folder rather than to read it, where the system knows the difference.
fn passing(flags: OFlags) -> OFlags {
    #[cfg(target_os = "linux")]
    return flags | OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    return flags | OFlags::RDONLY;
}

/// The names in `path`, which must be plain ones.
fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    path.components()
        .map(|c| match c {
            Component::Normal(name) => Ok(name),
            _ => Err(outside()),
        })
        .collect()
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "path leaves the folder")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_outside() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(outer.path().join("secret"), b"x").unwrap();
        symlink("../secret", root.join("relative")).unwrap();
        symlink(outer.path().join("secret"), root.join("absolute")).unwrap();
        symlink("..", root.join("folder")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        std::fs::create_dir(root.join("sub")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::from(0o600)).unwrap();
        let dir = Dir::open(&root).unwrap();
        let paths = ["../secret", "/etc/hostname", "relative", "absolute", "folder/secret", "dangling", "pipe", "sub"];
        for path in paths.map(Path::new) {
            for access in [Access::Read, Access::Write, Access::CreateNew] {
                assert!(dir.file(path, access).is_err(), "{path:?} {access:?}");
            }
            let stepwise = dir.below_stepwise(path, OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK);
            assert!(stepwise.is_err() || path == Path::new("pipe"), "{path:?}");
        }
        for path in ["folder/new", "../new", "/tmp/new", "relative/new", "pipe", "relative"].map(Path::new) {
            assert!(dir.make_folders(path).is_err(), "{path:?}");
        }
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2, "nothing was made outside");
        assert!(!root.join("nowhere").exists());
    }

    #[test]
    fn making_and_opening() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let changed = dir.make_folders(Path::new("a/b/c")).unwrap();
        assert_eq!(changed, ["", "a", "a/b"].map(PathBuf::from));
        assert!(dir.make_folders(Path::new("a/b/c")).unwrap().is_empty());
        let file = Path::new("a/b/c/f");
        assert_eq!(dir.file(file, Access::Write).unwrap_err().kind(), io::ErrorKind::NotFound);
        let file_len = |path| Glances::new(&dir).file_len(path);
        assert_eq!(file_len(file).unwrap(), None);
        assert_eq!(file_len(Path::new("no/such")).unwrap(), None);
        dir.file(file, Access::CreateNew).unwrap();
        std::fs::write(root.path().join(file), b"abc").unwrap();
        assert_eq!(dir.file(file, Access::CreateNew).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        dir.file(file, Access::Write).unwrap();
        assert_eq!(file_len(file).unwrap(), Some(3), "opening does not empty it");
        assert!(file_len(Path::new("a/b")).is_err());
        let mut glances = Glances::new(&dir);
        for (path, len) in [("a/b/c/f", Some(3)), ("a/b/c/g", None), ("no/f", None), ("no/g", None), ("f", None)] {
            assert_eq!(glances.file_len(Path::new(path)).unwrap(), len, "{path}");
        }
        assert!(glances.file_len(Path::new("a/b")).is_err() && glances.file_len(Path::new("../f")).is_err());
        dir.sync(Path::new("")).unwrap();
        dir.sync(Path::new("a/b/c")).unwrap();
        dir.remove(file).unwrap();
        assert_eq!(file_len(file).unwrap(), None);
    }
}
