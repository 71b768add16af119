use std::path::{Component, Path, PathBuf};

use super::{Backend, Preallocate};
use crate::base::Geometry;

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
