use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::mapping::{Fault, Mapping};
use super::open_files::OpenFile;
use super::{Backend, Storage, StorageError};
use crate::base::PieceIndex;
use crate::sys;

/// Shorter files are not mapped: a map costs more than the few writes it saves (libtorrent's limit, 40 blocks).
pub(super) const MIN_MAPPED: u64 = 40 * 16_384;

impl Storage {
    /// Writes a verified piece. `data` is its bytes in order, from its first; what goes beyond the piece, and what is
    /// padding, is dropped. Bytes of unwanted files go where [`super`] says.
    ///
    /// # Errors
    /// As the system says; the piece may then be there in part and must not be had.
    pub fn write_piece(&self, piece: PieceIndex, data: &[&[u8]]) -> Result<(), StorageError> {
        self.write_part(piece, 0, data)
    }

    /// Writes a part of a piece, from byte `begin` of it on: for pieces too large to be held until verified.
    ///
    /// # Errors
    /// As [`Storage::write_piece`].
    pub fn write_part(&self, piece: PieceIndex, begin: u32, data: &[&[u8]]) -> Result<(), StorageError> {
        let len: u64 = data.iter().map(|s| s.len() as u64).sum();
        let len = len.min(u64::from(self.geometry.piece_len(piece).saturating_sub(begin)));
        let position = self.geometry.position(piece) + u64::from(begin);
        let mut rest = Cursor { slices: data, taken: 0 };
        let mut slices = Vec::with_capacity(data.len());
        for place in self.places(position, len) {
            slices.clear();
            rest.take(place.len, &mut slices);
            if let Some(number) = place.file {
                self.write_file(number, place.offset, &slices)?;
            }
        }
        Ok(())
    }

    /// Where in the part file the byte at `position` of the torrent lies; none if it lies in its own `file`.
    pub(super) fn part_offset(&self, file: u32, position: u64) -> Option<u64> {
        if !self.files.get(file as usize)?.in_part {
            return None;
        }
        let piece_length = u64::from(self.geometry.piece_length());
        let piece = u32::try_from(position / piece_length).ok()?;
        let place = self.part.pieces.binary_search(&piece).ok()?;
        Some(place as u64 * piece_length + position % piece_length)
    }

    fn write_file(&self, number: u32, offset: u64, slices: &[&[u8]]) -> Result<(), StorageError> {
        let open = self.open_to_write(number)?;
        let written = match self.mapping(number, &open) {
            Some(mapping) => match mapping.write(offset, slices) {
                Ok(()) => Ok(()),
                Err(Fault) => self.write_after_fault(number, &open, offset, slices),
            },
            None => sys::write_at(&open.file, slices, offset).map_err(|e| self.error(number, "write", e)),
        };
        if written.is_ok() && !self.is_allocated(number) {
            self.reserved.take(slices.iter().map(|slice| slice.len() as u64).sum());
        }
        // After the write: a sync that runs meanwhile may or may not cover it, so the next one has to.
        self.mark_dirty(number);
        written
    }

    /// Whether the space of a file was taken before.
    fn is_allocated(&self, number: u32) -> bool {
        self.files.get(number as usize).is_some_and(|file| file.allocated.load(Ordering::Relaxed))
    }

    /// The map of a file that may be written through one.
    fn mapping<'a>(&self, number: u32, open: &'a Arc<OpenFile>) -> Option<&'a Mapping> {
        let file = self.files.get(number as usize)?;
        if file.length < MIN_MAPPED || !file.allocated.load(Ordering::Relaxed) {
            return None;
        }
        let map = || {
            if self.choice.lock().unwrap_or_else(PoisonError::into_inner).backend != Backend::Mmap {
                return None;
            }
            match Mapping::new(&open.file, file.length) {
                Ok(mapping) => Some(mapping),
                Err(e) => {
                    self.use_pwrite(format!("a file cannot be mapped: {e}"));
                    None
                }
            }
        };
        open.mapping.get_or_init(map).as_ref()
    }

    /// The map did not take the bytes, and cannot say why; the file can. Either it is no longer as long as it was, or
    /// the system names the cause when the bytes are written the other way (or takes them).
    fn write_after_fault(
        &self,
        number: u32,
        open: &Arc<OpenFile>,
        offset: u64,
        slices: &[&[u8]],
    ) -> Result<(), StorageError> {
        self.open.forget(number);
        let file = self.files.get(number as usize);
        let length = file.map_or(0, |f| f.length);
        if let Some(file) = file {
            file.allocated.store(false, Ordering::Relaxed);
        }
        let found = open.file.metadata().map_err(|e| self.error(number, "write", e))?.len();
        if found < length {
            return Err(self.changed(number, "write", "the file was cut while in use"));
        }
        sys::write_at(&open.file, slices, offset).map_err(|e| self.error(number, "write", e))
    }

    pub(super) fn mark_dirty(&self, number: u32) {
        if !self.dirty(number).swap(true, Ordering::AcqRel) {
            self.unsynced().files.push(number);
        }
    }
}

/// Takes slices apart at the borders of files.
struct Cursor<'a, 'b> {
    slices: &'b [&'a [u8]],
    /// Bytes of the first slice that are gone.
    taken: usize,
}

impl<'a> Cursor<'a, '_> {
    fn take(&mut self, len: u64, out: &mut Vec<&'a [u8]>) {
        let mut left = len;
        while left > 0
            && let Some((first, rest)) = self.slices.split_first()
        {
            let available = &first[self.taken..];
            let n = available.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if n > 0 {
                out.push(&available[..n]);
            }
            left -= n as u64;
            if n == available.len() {
                self.slices = rest;
                self.taken = 0;
            } else {
                self.taken += n;
            }
        }
    }
}
