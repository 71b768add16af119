//! Which files of a folder go into a torrent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::exit::{Failure, shown};
use crate::sys::is_executable;

/// Folders within folders that are followed. A torrent may not have more either.
const MAX_DEPTH: usize = 64;

/// A file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Names below the folder that was walked.
    pub(super) components: Vec<Vec<u8>>,
    pub(super) length: u64,
    pub(super) executable: bool,
}

/// What is left out, and what was.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Patterns of `--exclude`, on the path below the folder.
    paths: GlobSet,
    /// Patterns without a `/`, on any name.
    names: GlobSet,
    /// Names with a dot in front, too.
    hidden: bool,
    /// Left out and worth a warning: symbolic links, sockets and the like.
    pub(super) skipped: Vec<(PathBuf, &'static str)>,
    /// How many were left out because they are hidden.
    pub(super) hidden_count: usize,
}

impl Walk {
    pub(super) fn new(exclude: &[String], hidden: bool) -> Result<Self, Failure> {
        let (mut paths, mut names) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in exclude {
            let pattern = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|e| Failure::usage(format!("--exclude '{}': {}", text.escape_debug(), e.kind())))?;
            if pattern.contains('/') {
                paths.add(glob)
            } else {
                names.add(glob)
            };
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|e| Failure::usage(format!("--exclude: {e}")));
        Ok(Self { paths: build(paths)?, names: build(names)?, hidden, ..Self::default() })
    }

    /// All files below `root`, sorted by path, byte by byte: the same folder always gives the same list.
    pub(super) fn files(&mut self, root: &Path) -> Result<Vec<Found>, Failure> {
        let mut found = Vec::new();
        let mut folders = vec![(root.to_owned(), PathBuf::new())];
        while let Some((folder, below)) = folders.pop() {
            if below.components().count() >= MAX_DEPTH {
                return Err(Failure::usage(format!("{}: more than {MAX_DEPTH} folders deep", shown(&folder))));
            }
            let refused = |e: io::Error| Failure::disk(&folder, &e);
            for entry in fs::read_dir(&folder).map_err(refused)? {
                let entry = entry.map_err(refused)?;
                let path = entry.path();
                let relative = below.join(entry.file_name());
                if self.names.is_match(Path::new(&entry.file_name())) || self.paths.is_match(&relative) {
                    continue;
                }
                if !self.hidden && entry.file_name().as_encoded_bytes().starts_with(b".") {
                    self.hidden_count += 1;
                    continue;
                }
                let kind = entry.file_type().map_err(|e| Failure::disk(&path, &e))?;
                if kind.is_dir() {
                    folders.push((path, relative));
                } else if kind.is_file() {
                    let meta = entry.metadata().map_err(|e| Failure::disk(&path, &e))?;
                    let components = relative.components().map(|c| c.as_os_str().as_encoded_bytes().to_vec()).collect();
                    found.push(Found { path, components, length: meta.len(), executable: is_executable(&meta) });
                } else {
                    let why = if kind.is_symlink() { "a symbolic link" } else { "not a regular file" };
                    self.skipped.push((path, why));
                }
            }
        }
        found.sort_by(|a, b| a.components.cmp(&b.components));
        self.skipped.sort();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(walk: &mut Walk, root: &Path) -> Vec<String> {
        let files = walk.files(root).unwrap();
        files.iter().map(|f| String::from_utf8(f.components.join(&b'/')).unwrap()).collect()
    }

    #[test]
    fn sorted_and_filtered() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for path in ["b/2", "b/1", "a", "b-c", "b/cache/x", ".git/config", "z.tmp", "b/y.tmp"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), path).unwrap();
        }
        let mut walk = Walk::new(&["*.tmp".to_owned(), "b/cache/".to_owned()], false).unwrap();
        assert_eq!(names(&mut walk, root), ["a", "b/1", "b/2", "b-c"]);
        assert_eq!(walk.hidden_count, 1);
        let mut walk = Walk::new(&["b/**".to_owned()], true).unwrap();
        assert_eq!(names(&mut walk, root), [".git/config", "a", "b-c", "z.tmp"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "a").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(".", dir.path().join("loop")).unwrap();
        let mut walk = Walk::new(&[], false).unwrap();
        assert_eq!(names(&mut walk, dir.path()), ["a"]);
        assert_eq!(walk.skipped.len(), 2);
    }
}
