use std::sync::atomic::Ordering;

use super::{Storage, StorageError};
use crate::resume::FileStamp;
use crate::sys;

impl Storage {
    /// Makes sure that all that was written before the call outlives a loss of power: the contents of every file
    /// touched, maps included, and the names of those made. Takes as long as the disk takes.
    ///
    /// # Errors
    /// The first that any file gave; the others are synced all the same. After an error the pieces written since the
    /// last good sync are unknown and must be hashed again: the system may have dropped them, and a second sync would
    /// say that all is well.
    pub fn sync(&self) -> Result<(), StorageError> {
        let unsynced = std::mem::take(&mut *self.unsynced());
        let mut outcome = Ok(());
        for &number in &unsynced.files {
            // Before the sync: a write that comes later marks the file again.
            self.dirty(number).store(false, Ordering::Release);
            if let Err(e) = self.sync_file(number) {
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
        // A file that was replaced or removed under its name takes writes to nowhere.
        let named = self.dir.stat(self.name(number)).map_err(|e| self.error(number, "sync", e))?;
        let same = named.map(|n| sys::same_file(&n, &open.file)).transpose();
        match same.map_err(|e| self.error(number, "sync", e))? {
            Some(true) => Ok(()),
            found => {
                self.open.forget(number);
                let why = if found.is_some() {
                    "the file was replaced while in use"
                } else {
                    "the file was removed while in use"
                };
                Err(StorageError::changed(self.dir.path().join(self.name(number)), "sync", why))
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
        let stat = |number: u32| {
            let pad = self.files.get(number as usize).is_some_and(|f| f.pad);
            let found = if pad { Ok(None) } else { self.dir.stat(self.name(number)) };
            Ok(found.map_err(|e| self.error(number, "look at", e))?.map(|s| sys::stamp(&s)))
        };
        (0..=self.part.number).map(stat).collect()
    }
}
