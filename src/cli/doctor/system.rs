//! Asks the system.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::facts::{Folder, System};
use crate::cli::exit::io_words;
use crate::sys::{self, Confined, Dir, FileSystem};

/// What it tells of the folders for downloads (`.` where none is said) and for state, and of itself. May hang with a
/// network file system.
pub(super) fn look(dir: Option<PathBuf>, state_dir: &Path, no_sandbox: bool) -> System {
    System {
        folder: folder(dir.as_deref().unwrap_or(Path::new("."))),
        state: folder(state_dir),
        open_files: sys::open_file_limit(),
        free_memory: sys::available_memory(),
        clock_is_kept: sys::is_clock_kept(),
        clock: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        hashing: crate::hash::tier(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        confined: (!no_sandbox).then(try_sandbox),
    }
}

/// What the system makes of it: in a thread of its own, as there is no way back.
fn try_sandbox() -> Confined {
    let tried = std::thread::spawn(|| sys::confine(&[])).join();
    tried.ok().and_then(Result::ok).unwrap_or(Confined::Not)
}

fn folder(path: &Path) -> Folder {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut folder = Folder { exists: path.exists(), path, refused: None, file_system: None, free: None };
    let nearest = folder.path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    match Dir::open(nearest) {
        Ok(dir) => {
            folder.free = sys::available(&dir);
            folder.file_system = match sys::file_system(&dir) {
                FileSystem::Mappable(name) | FileSystem::Known(name) => Some(name),
                FileSystem::Unknown => None,
            };
            folder.refused = write(nearest).err().map(|error| io_words(&error));
        }
        Err(error) => folder.refused = Some(io_words(&error)),
    }
    folder
}

/// Makes a file, and removes it.
fn write(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".gannet-doctor-{}-{:08x}", std::process::id(), fastrand::u32(..)));
    let made = File::create_new(&path).and_then(|file| std::io::Write::write_all(&mut &file, b"gannet"));
    // If it was not made there is nothing to remove.
    let _ = std::fs::remove_file(&path);
    made
}
