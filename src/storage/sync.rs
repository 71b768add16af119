use std::sync::atomic::Ordering;

use super::{Storage, StorageError};
use crate::resume::FileStamp;
use crate::sys::{self, Glances};

/// More files than this are synced in one call, with all else that waits on their file system: a commit of the journal
/// for each of twenty thousand takes longer than all their bytes.
const SYNC_TOGETHER: usize = 64;

impl Storage {
    /// Has the system begin to write what waits in memory to disk, so that little is left for the next
    /// [`Storage::sync`]. Promises nothing, and may wait where the disk's queue is full.
    pub fn start_writing_back(&self) {
        let files = self.unsynced().files.clone();
        if files.len() > SYNC_TOGETHER {
            return;
        }
        for number in files {
            if let Ok(open) = self.open_existing(number) {
                sys::start_writing_back(&open.file);
            }
        }
    }

    /// Makes sure that all that was written before the call outlives a loss of power: the contents of every file
    /// touched, maps included, and the names of those made. Takes as long as the disk takes.
    ///
    /// # Errors
    /// The first that any file gave; the others are synced all the same. After an error the pieces written since the
    /// last good sync are unknown and must be hashed again: the system may have dropped them, and a second sync would
    /// say that all is well.
    pub fn sync(&self) -> Result<(), StorageError> {
        let mut unsynced = std::mem::take(&mut *self.unsynced());
        // Neighbours one after the other.
        unsynced.files.sort_unstable();
        let mut glances = Glances::new(&self.dir);
        let mut outcome = Ok(());
        // Before the sync: a write that comes later marks the file again.
        for &number in &unsynced.files {
            self.dirty(number).store(false, Ordering::Release);
        }
        let together = unsynced.files.len() > SYNC_TOGETHER
            && match sys::sync_file_system(&self.dir) {
                Ok(synced) => synced,
                Err(e) => {
                    outcome = Err(StorageError::new(self.path(), "sync", e));
                    true
                }
            };
        for &number in &unsynced.files {
            let synced = if together { self.check_name(number, &mut glances) } else { self.sync_file(number) };
            if let Err(e) = synced {
                self.mark_dirty(number);
                outcome = outcome.and(Err(e));
            }
        }
        for folder in unsynced.folders {
            if let Err(e) = self.dir.sync(&folder) {
                let path = self.dir.path().join(&folder);
                self.unsynced().folders.insert(folder);
                outcome = outcome.and(Err(StorageError::new(path, "sync", e)));
            }
        }
        outcome
    }

    fn sync_file(&self, number: u32) -> Result<(), StorageError> {
        let open = self.open_existing(number)?;
        open.file.sync_data().map_err(|e| self.error(number, "sync", e))?;
        // Not by a folder that was opened before: syncing takes time.
        self.check_name(number, &mut Glances::new(&self.dir))
    }

    /// A file that was replaced or removed under its name takes writes to nowhere.
    fn check_name<'a>(&'a self, number: u32, glances: &mut Glances<'a>) -> Result<(), StorageError> {
        let Some(before) = self.files.get(number as usize).map(|f| f.inode.load(Ordering::Relaxed)) else {
            return Ok(());
        };
        let named = glances.stat(self.name(number)).map_err(|e| self.error(number, "sync", e))?;
        match named.map(|n| before == 0 || sys::stamp(&n).inode == before) {
            Some(true) => Ok(()),
            found => {
                self.open.forget(number);
                let why = if found.is_some() {
                    "the file was replaced while in use"
                } else {
                    "the file was removed while in use"
                };
                Err(self.changed(number, "sync", why))
            }
        }
    }

    /// What distinguishes each file now from another state of it, for resuming: by file number, and behind them all
    /// the file of unwanted bytes. None where there is no file (pad files never have one). After a [`Storage::sync`],
    /// or sizes and times may still change.
    ///
    /// # Errors
    /// As the system says.
    pub fn file_identities(&self) -> Result<Vec<Option<FileStamp>>, StorageError> {
        let mut glances = Glances::new(&self.dir);
        let stat = |number: u32| {
            let pad = self.files.get(number as usize).is_some_and(|f| f.pad);
            let found = if pad { Ok(None) } else { glances.stat(self.name(number)) };
            Ok(found.map_err(|e| self.error(number, "look at", e))?.map(|s| sys::stamp(&s)))
        };
        (0..=self.part.number).map(stat).collect()
    }
}
