use std::path::{Component, Path, PathBuf};

use super::{Backend, Preallocate};
use crate::base::Geometry;
use crate::metainfo::{File, Info};
use crate::sys::path_of;

/// What lies where in a torrent, as far as files are concerned.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The torrent's name as it is written to disk: one safe component.
    pub name: String,
    /// Whether the torrent is one file called `name` rather than a folder of that name.
    pub single_file: bool,
    /// All files, in the torrent's order, which is that of their positions.
    pub files: Vec<LayoutFile>,
    /// The pieces.
    pub geometry: Geometry,
}

/// One file of a [`Layout`].
#[derive(Clone, Debug)]
pub struct LayoutFile {
    /// Below the torrent's folder, of plain components only. Not looked at in a single-file torrent.
    pub path: PathBuf,
    /// Position of its first byte in the torrent.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// A pad file: nothing on disk stands for it, it reads as zeros. Also for links (BEP 47), which are never made.
    pub pad: bool,
    /// Whether those who may read the file shall be able to execute it (BEP 47 "x").
    pub executable: bool,
}

impl Layout {
    /// The files of a torrent in `place`. Data that is only read may lie under the names that it had where the torrent
    /// was made: see [`path_below`].
    pub fn new(info: &Info, place: &Place) -> Self {
        let path = |file: &File| match place {
            Place::Exact(folder) if !info.is_single_file() => path_below(file, folder),
            _ => file.path.to_path_buf(),
        };
        let files = info.files().iter().map(|file| LayoutFile {
            path: path(file),
            offset: file.offset,
            length: file.length,
            // Links are never made, so none can be missing.
            pad: file.attr.pad || file.attr.symlink,
            executable: file.attr.executable,
        });
        Self {
            name: info.name().to_owned(),
            single_file: info.is_single_file(),
            files: files.collect(),
            geometry: info.geometry().clone(),
        }
    }
}

/// Where `file` lies below `folder`: under its safe name, unless only a file of its original name is there.
pub fn path_below(file: &File, folder: &Path) -> PathBuf {
    let safe = file.path.to_path_buf();
    let is_there = |path: &Path| folder.join(path).symlink_metadata().is_ok();
    let original = file.original_path().and_then(path_of).filter(|original| is_there(original));
    match original {
        Some(original) if !is_there(&safe) => original,
        _ => safe,
    }
}

/// Where the data of a torrent lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// In this folder, under the torrent's name. The folder is made if it is not there.
    Folder(PathBuf),
    /// Exactly here: the file of a single-file torrent, the folder of another.
    Exact(PathBuf),
}

/// How the files of a torrent are treated.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How pieces are written.
    pub backend: Backend,
    /// Whether the space is taken before the first byte.
    pub preallocate: Preallocate,
    /// Never write, open for reading only.
    pub read_only: bool,
    /// Whether a file that is longer than the torrent's may be cut. Without it that is an error.
    pub overwrite: bool,
    /// Which files are wanted, by number; `None` is all. Files beyond the list are wanted.
    pub wanted: Option<Vec<bool>>,
}

/// A place taken apart: a folder that the user named, and what lies below it, where no link is followed.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) folder: PathBuf,
    /// The torrent's file or folder below it; empty if it is `folder` itself.
    pub(super) below: PathBuf,
}

impl Place {
    pub(super) fn resolve(&self, name: &str) -> std::io::Result<Resolved> {
        match self {
            Self::Folder(folder) => Ok(Resolved { folder: folder.clone(), below: PathBuf::from(name) }),
            Self::Exact(path) => {
                // The user may name a link; what it leads to is the torrent's place.
                let path = match path.canonicalize() {
                    Ok(path) => path,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                        parent.canonicalize()?.join(path.file_name().ok_or(e)?)
                    }
                    Err(e) => return Err(e),
                };
                let below = path.file_name().map(PathBuf::from).unwrap_or_default();
                let folder = if below.as_os_str().is_empty() { Some(path.as_path()) } else { path.parent() };
                Ok(Resolved { folder: folder.unwrap_or(&path).to_path_buf(), below })
            }
        }
    }
}

/// Whether `path` is one or more plain names: no root, no `..`, no prefix.
pub(super) fn is_plain(path: &Path) -> bool {
    !path.as_os_str().is_empty() && path.components().all(|c| matches!(c, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_under_its_original_name() {
        let raw =
            b"d5:filesld6:lengthi3e4:pathl5:aux.ceed6:lengthi3e4:pathl4:d\xff.x4:etc.eee4:name1:n12:piece lengthi\
                    16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
        let info = Info::parse(raw, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let original: PathBuf = path_of([b"d\xff.x".as_slice(), b"etc."]).unwrap();
        let safe: Vec<PathBuf> = info.files().iter().map(|file| file.path.to_path_buf()).collect();
        let paths = |place: &Place| -> Vec<PathBuf> {
            Layout::new(&info, place).files.into_iter().map(|file| file.path).collect()
        };
        let exact = Place::Exact(root.to_owned());
        assert_eq!(paths(&exact), safe, "nothing is there");
        std::fs::write(root.join("aux.c"), "abc").unwrap();
        std::fs::create_dir_all(root.join(&original).parent().unwrap()).unwrap();
        std::fs::write(root.join(&original), "def").unwrap();
        assert_eq!(paths(&exact), [Path::new("aux.c"), &original]);
        assert_eq!(paths(&Place::Folder(root.to_owned())), safe, "what is written has safe names");
        std::fs::write(root.join(&safe[0]), "abc").unwrap();
        assert_eq!(paths(&exact), [safe[0].clone(), original], "the safe name comes first");
    }
}
