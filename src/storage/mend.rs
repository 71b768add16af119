//! After trouble with the disk: what is still there, and can it go on?

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::{Progress, Storage, StorageError, check};
use crate::base::{Bitfield, PieceIndex};
use crate::hash::Expected;
use crate::sys::{self, Glances};

/// What [`Storage::mend`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Pieces that were in doubt, and are on the disk.
    pub good: Vec<PieceIndex>,
    /// Pieces that were in doubt or had, and are not.
    pub lost: Vec<PieceIndex>,
}

impl Storage {
    /// Has the next [`Storage::sync`] cover every file, whoever wrote to it: pieces that were found, and not fetched, may
    /// be in the system's memory only.
    pub fn sync_all_next(&self) {
        let files = (0u32..).zip(&self.files).filter(|(_, file)| !file.pad && (file.wanted || !file.in_part));
        files.for_each(|(number, _)| self.mark_dirty(number));
    }

    /// Looks whether the disk can be written to again, as [`Storage::prepare`] does, and which pieces are there: those in
    /// `doubt`, read from the disk itself, and those of `have` whose files were removed, replaced or cut. May take a
    /// while.
    ///
    /// # Errors
    /// It cannot go on yet, and why.
    pub fn mend(
        &self,
        expected: &(dyn Fn(PieceIndex) -> Option<Expected> + Sync),
        have: &Bitfield,
        doubt: &Bitfield,
    ) -> Result<Mended, StorageError> {
        let mut suspects = doubt.clone();
        for file in self.look_again(have)? {
            for piece in self.map.pieces_of(file, self.geometry.piece_length()) {
                if let Ok(piece) = self.geometry.piece(piece)
                    && have.has(piece)
                {
                    suspects.set(piece);
                }
            }
        }
        self.prepare()?;
        if suspects.is_none() {
            return Ok(Mended::default());
        }
        self.forget_cached(doubt);
        let checked = check(self, expected, Some(&suspects), None, &Progress::default());
        let (good, lost) = suspects.iter().partition(|piece| checked.have.has(*piece));
        Ok(Mended { good, lost })
    }

    /// Files that are not what they were, as far as `have` needs them. They are closed, and whatever has their names now
    /// is what will be used.
    fn look_again(&self, have: &Bitfield) -> Result<Vec<u32>, StorageError> {
        let mut changed = Vec::new();
        let mut glances = Glances::new(&self.dir);
        for (number, file) in (0u32..).zip(&self.files) {
            if file.pad {
                continue;
            }
            let found = glances.stat(&file.path).map_err(|e| self.error(number, "use", e))?;
            let before = file.inode.load(Ordering::Relaxed);
            let same = found.as_ref().is_some_and(|stat| before == 0 || sys::stamp(stat).inode == before);
            let size = found.as_ref().map_or(0, |stat| sys::stamp(stat).size);
            if same && size >= self.needed_len(number, have) && !file.suspect.load(Ordering::Acquire) {
                continue;
            }
            file.suspect.store(false, Ordering::Release);
            self.open.forget(number);
            file.inode.store(0, Ordering::Relaxed);
            file.allocated.store(false, Ordering::Relaxed);
            file.dirty.store(false, Ordering::Release);
            changed.push(number);
        }
        self.unsynced().files.retain(|n| changed.binary_search(n).is_err());
        Ok(changed)
    }

    /// The least bytes that a file must have for the pieces that are had.
    fn needed_len(&self, number: u32, have: &Bitfield) -> u64 {
        let Some(file) = self.files.get(number as usize).filter(|file| !file.in_part) else { return 0 };
        let mut last = self.map.pieces_of(number, self.geometry.piece_length()).rev();
        let last = last.find_map(|piece| self.geometry.piece(piece).ok().filter(|piece| have.has(*piece)));
        let Some(last) = last else { return 0 };
        let (position, len) = (self.geometry.position(last), u64::from(self.geometry.piece_len(last)));
        let ends = self.places(position, len).filter(|place| place.file == Some(number));
        ends.map(|place| place.offset + place.len).max().unwrap_or(0).min(file.length)
    }

    /// What is read of these pieces next comes from the disk, not from the system's memory, which may hold what could not
    /// be written.
    fn forget_cached(&self, pieces: &Bitfield) {
        let mut files = BTreeSet::new();
        for piece in pieces.iter() {
            let (position, len) = (self.geometry.position(piece), u64::from(self.geometry.piece_len(piece)));
            files.extend(self.places(position, len).filter_map(|place| place.file));
        }
        for number in files {
            // Mapped pages stay in memory.
            self.open.forget(number);
            if let Ok(open) = self.open_to_read(number) {
                sys::drop_cached(&open.file);
            }
        }
    }
}
