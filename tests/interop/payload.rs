//! Data to be carried: made from a seed, and compared byte by byte where it arrives.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::lab::Lab;

/// A power of two that no file's length is a multiple of.
pub const PIECE_LENGTH: u32 = 64 << 10;

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One file of about 3 MiB whose last piece ends in the middle of a block.
    Single,
    /// Folders, files that share pieces, files smaller than a block, names that are not ASCII, no bytes at all.
    Tree,
}

/// Data that lies in a lab, complete.
pub struct Payload {
    /// The folder that holds it: what most clients are told.
    pub parent: PathBuf,
    /// What the torrent is called.
    pub name: &'static str,
    shape: Shape,
}

impl Payload {
    /// Writes it below `lab`.
    pub fn new(lab: &Lab, shape: Shape) -> Self {
        let (name, files): (_, &[(&str, usize)]) = match shape {
            Shape::Single => ("one file.bin", &[("", (3 << 20) + 12_345)]),
            Shape::Tree => (
                "a tree",
                &[
                    ("a.bin", (1 << 20) + 1),
                    ("empty", 0),
                    ("sub/b.bin", 700_001),
                    ("sub/deep/er/block.bin", 16_384),
                    ("sub/deep/er/one byte", 1),
                    ("sub/empty too", 0),
                    ("sub/grüße 鳥.bin", 70_000),
                    ("z.bin", (512 << 10) + 77),
                ],
            ),
        };
        let parent = lab.folder("source");
        for (index, (path, length)) in files.iter().enumerate() {
            let path = if path.is_empty() { parent.join(name) } else { parent.join(name).join(path) };
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let mut bytes = vec![0; *length];
            fastrand::Rng::with_seed(385 + index as u64).fill(&mut bytes);
            fs::write(path, bytes).expect("a file");
        }
        Self { parent, name, shape }
    }

    /// The file or folder itself.
    pub fn path(&self) -> PathBuf {
        self.parent.join(self.name)
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        read_tree(&self.path()).values().map(|bytes| bytes.len() as u64).sum()
    }

    /// How `got` differs, or nothing. `without_empty`: files of no bytes may be missing there.
    pub fn difference(&self, got: &Path, without_empty: bool) -> Option<String> {
        let (ours, theirs) = (read_tree(&self.path()), read_tree(got));
        if self.shape == Shape::Single && got.is_dir() {
            return Some(format!("{} is a folder", got.display()));
        }
        for (path, bytes) in &ours {
            match theirs.get(path) {
                None if bytes.is_empty() && without_empty => {}
                None => return Some(format!("{path:?} is missing")),
                Some(other) if other.len() != bytes.len() => {
                    return Some(format!("{path:?} has {} bytes, not {}", other.len(), bytes.len()));
                }
                Some(other) => {
                    if let Some(at) = (0..bytes.len()).find(|&at| bytes[at] != other[at]) {
                        return Some(format!("{path:?} differs from byte {at} on"));
                    }
                }
            }
        }
        theirs.keys().find(|path| !ours.contains_key(*path)).map(|path| format!("{path:?} should not be there"))
    }

    /// Fails the test unless `folder` holds the same data under the same name, and nothing else.
    pub fn assert_same(&self, folder: &Path) {
        if let Some(difference) = self.difference(&folder.join(self.name), false) {
            panic!("in {}: {difference}", folder.display());
        }
        let others: Vec<_> =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(others, [self.name], "in {}", folder.display());
    }
}

/// Every file below `root`, by its path below it (empty if `root` is itself a file).
fn read_tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if let Ok(bytes) = fs::read(&path) {
            found.insert(path.strip_prefix(root).expect("below the root").to_owned(), bytes);
        }
    }
    found
}
