//! Torrent files that are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::exit::{Code, Failure, shown};
use super::screen;
use crate::base::BLOCK_LEN;
use crate::metainfo::Metainfo;
use crate::storage::{FileToHash, PieceToHash, Progress, Span, Target, hash_files, path_below};

/// Where a torrent goes.
pub(super) enum Output {
    Stdout,
    File(PathBuf),
}

impl Output {
    /// Where `output` says, else `NAME.torrent` in `folder`.
    pub(super) fn new(output: Option<&Path>, folder: &Path, name: &str) -> Self {
        match output {
            Some(path) if path.as_os_str() == "-" => Self::Stdout,
            Some(path) => Self::File(path.to_owned()),
            None => Self::File(folder.join(file_name(name))),
        }
    }

    /// Refused before an hour of hashing rather than after it.
    pub(super) fn check(&self, force: bool) -> Result<(), Failure> {
        let Self::File(path) = self else { return Ok(()) };
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Err(Failure::usage(format!("{}: a folder; name a file", shown(path)))),
            Ok(_) if !force => Err(exists(path)),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::disk(path, &e)),
            _ => {
                let folder = folder_of(path);
                fs::metadata(folder).map_err(|e| Failure::disk(folder, &e))?;
                // The folder may be read-only, or somebody else's.
                let draft = draft_of(path);
                let tried = File::create_new(&draft).and_then(|_| fs::remove_file(&draft));
                tried.map_err(|e| Failure::disk(path, &e))
            }
        }
    }

    /// All or nothing: the file appears under its name when it is whole.
    pub(super) fn write(&self, torrent: &[u8], force: bool) -> Result<(), Failure> {
        let Self::File(path) = self else { return screen::output_bytes(torrent) };
        let refused = |e: io::Error| Failure::disk(path, &e);
        let draft = draft_of(path);
        let written = File::create_new(&draft).and_then(|mut file| {
            file.write_all(torrent)?;
            file.sync_all()
        });
        // Without --force a file that came meanwhile is not replaced.
        let moved = written.and_then(|()| if force { fs::rename(&draft, path) } else { place_new(&draft, path) });
        if moved.is_err() {
            let _ = fs::remove_file(&draft);
        }
        match moved {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
            other => other.map_err(refused),
        }
    }
}

/// What is to be the file at `path` is called so until it is whole.
fn draft_of(path: &Path) -> PathBuf {
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    hidden.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(hidden)
}

/// Gives `draft` the name `path` only if nothing has it. File systems without hard links get a look before the move.
fn place_new(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Ok(()) => fs::remove_file(draft),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Err(_) if fs::symlink_metadata(path).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(draft, path),
    }
}

pub(super) fn exists(path: &Path) -> Failure {
    Failure::usage(format!("{}: already there; --force writes over it, -o names another file", shown(path)))
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What the file of a torrent of that name is called.
fn file_name(name: &str) -> String {
    // A name from --name may hold a separator; that is refused later, where names are checked.
    format!("{}.torrent", name.replace('/', "_"))
}

/// Writes `metainfo` for `--save-torrent`: as the file `target`, or into it if it is a folder. A file that is there already
/// is left alone.
pub(super) fn save(metainfo: &Metainfo, target: &Path) -> Result<(), Failure> {
    let as_folder = means_folder(target);
    let path = if as_folder { target.join(file_name(metainfo.info.name())) } else { target.to_owned() };
    match same(metainfo, &path) {
        Some(true) => return Ok(()),
        Some(false) => {
            return Err(Failure::usage(format!("{}: already there, and it is not this torrent", shown(&path))));
        }
        None => {}
    }
    if as_folder {
        fs::create_dir_all(target).map_err(|e| Failure::disk(target, &e))?;
    }
    Output::File(path).write(&metainfo.encode(), false)
}

/// The same torrent with the hashes of pieces that peers have not told (BEP 52), from the data, which lies in `folder` and is
/// complete.
pub(super) fn with_hashes_of_data(metainfo: &Metainfo, folder: &Path) -> Result<Metainfo, Failure> {
    let mut whole = metainfo.clone();
    let info = &metainfo.info;
    let folder = if info.is_single_file() { folder.to_owned() } else { folder.join(info.name()) };
    let piece_length = info.geometry().piece_length();
    for number in info.missing_layers() {
        let Some(file) = info.files().get(number) else { continue };
        let (path, length) = (folder.join(path_below(file, &folder)), file.length);
        let piece = |n: u32| {
            let offset = u64::from(n) * u64::from(piece_length);
            let len = length.checked_sub(offset)?.min(piece_length.into());
            let spans = vec![Span { target: Target::File { file: 0, offset }, len }];
            Some(PieceToHash { spans, padding: 0, width: piece_length / BLOCK_LEN })
        };
        let count = u32::try_from(length.div_ceil(piece_length.into())).unwrap_or(u32::MAX);
        let files = [FileToHash { path: path.clone(), length }];
        let hashes = hash_files(&files, piece_length, count, &piece, (false, true), None, &Progress::default())?;
        let set = whole.info.set_piece_layer(number, hashes.v2);
        set.map_err(|_| Failure::new(Code::Mismatch, format!("{}: changed since it was downloaded", shown(&path))))?;
    }
    Ok(whole)
}

/// Whether `--save-torrent` names a folder: one that is there, or is to be made.
pub(super) fn means_folder(target: &Path) -> bool {
    target.as_os_str().to_string_lossy().ends_with('/') || target.is_dir()
}

/// Whether the file at `path` is the same torrent; none if nothing is there.
pub(super) fn same(metainfo: &Metainfo, path: &Path) -> Option<bool> {
    let meta = fs::symlink_metadata(path).ok()?;
    let readable = meta.len() <= crate::metainfo::limits::MAX_TORRENT_LEN as u64;
    let there = if readable { fs::read(path).ok() } else { None };
    let there = there.and_then(|bytes| Metainfo::parse(&bytes).ok());
    Some(there.is_some_and(|there| there.info.info_hash() == metainfo.info.info_hash()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::Builder;

    fn torrent(name: &str) -> Metainfo {
        let mut builder = Builder::file(name, 5);
        builder.format = crate::metainfo::Format::V1;
        Metainfo::parse(&builder.plan().unwrap().finish(&[[7; 20]], &[]).unwrap()).unwrap()
    }

    #[test]
    fn saved_where_it_is_told_and_over_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (torrent("a"), torrent("b"));
        for target in [dir.path().to_owned(), dir.path().join("new/"), dir.path().join("x.torrent")] {
            save(&a, &target).unwrap();
            save(&a, &target).unwrap();
        }
        for path in ["a.torrent", "new/a.torrent", "x.torrent"] {
            let path = dir.path().join(path);
            assert_eq!(fs::read(&path).unwrap(), a.encode());
            assert_eq!((same(&a, &path), same(&b, &path)), (Some(true), Some(false)));
        }
        assert!(save(&b, &dir.path().join("x.torrent")).is_err());
        assert_eq!(same(&a, &dir.path().join("none")), None);
    }
}
