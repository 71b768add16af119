//! Before the first byte from a stranger: nothing can be written but what the command is for.

use std::path::{Path, PathBuf};

use super::exit::shown;
use super::{Global, torrent_file};
use crate::sys::{self, Confined};

/// From here on only what lies below `folders` can be written, and no program be started, unless `--no-sandbox` was said. Those
/// that are not there are made first: one that comes later would be outside. Called before there are threads, which it
/// would not cover. Where the system cannot do it the command runs all the same; `gannet doctor` tells.
pub(super) fn enter(global: &Global, folders: &[&Path]) {
    if global.no_sandbox {
        return tracing::info!("not confined: --no-sandbox");
    }
    for folder in folders {
        // What is wrong with a folder is told by whoever is to write to it.
        let _ = std::fs::create_dir_all(folder);
    }
    let names = || folders.iter().map(|folder| shown(folder)).collect::<Vec<_>>().join(", ");
    match sys::confine(folders) {
        Ok(Confined::Fully) if folders.is_empty() => tracing::info!("confined: nothing can be written"),
        Ok(Confined::Fully) => tracing::info!("confined: only these folders can be written to: {}", names()),
        Ok(Confined::Partly) => tracing::info!("confined, as far as this kernel can, to these folders: {}", names()),
        Ok(Confined::Not) => tracing::info!("not confined: the system has no Landlock"),
        Err(error) => tracing::info!("not confined: {error}"),
    }
}

/// The folder that `--save-torrent` writes to.
pub(super) fn of_saved_torrent(target: &Path) -> PathBuf {
    if torrent_file::means_folder(target) { target.to_owned() } else { torrent_file::folder_of(target).to_owned() }
}
