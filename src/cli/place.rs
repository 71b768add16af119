//! Data that is already there, for `seed` and `verify`.

use std::path::Path;

use super::exit::{Failure, shown};
use crate::base::printable;
use crate::metainfo::Info;
use crate::storage::path_below;

/// Catches the usual slip: the folder around the data, or one file of it, in place of the data itself. A path where
/// nothing is passes.
pub(super) fn check(info: &Info, path: &Path) -> Result<(), Failure> {
    let Ok(meta) = path.metadata() else { return Ok(()) };
    let inner = path.join(info.name());
    if info.is_single_file() && meta.is_dir() {
        let hint = if inner.is_file() { format!("; did you mean {}?", shown(&inner)) } else { String::new() };
        return Err(Failure::usage(format!("{}: a folder, but the torrent is a single file{hint}", shown(path))));
    }
    if !info.is_single_file() && !meta.is_dir() {
        return Err(Failure::usage(format!(
            "{}: a file, but the torrent is a folder of files; give the folder '{}'",
            shown(path),
            printable(info.name())
        )));
    }
    let has_any =
        |folder: &Path| info.files().iter().any(|f| !f.attr.pad && folder.join(path_below(f, folder)).exists());
    if !info.is_single_file() && !has_any(path) && inner.is_dir() && has_any(&inner) {
        return Err(Failure::usage(format!(
            "{}: none of the torrent's files is there; did you mean {}?",
            shown(path),
            shown(&inner)
        )));
    }
    Ok(())
}
