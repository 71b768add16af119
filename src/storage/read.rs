use std::sync::Arc;

use super::open_files::OpenFile;
use super::{Storage, StorageError, Target};
use crate::base::{Block, PieceIndex};
use crate::sys;

/// A step of a read: a run of bytes in one open file, or zeros.
pub(super) struct Run {
    number: u32,
    pub(super) open: Option<Arc<OpenFile>>,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A run of bytes on disk.
pub(super) struct OnDisk {
    /// In which file, the part file among them; none for padding.
    pub(super) file: Option<u32>,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Storage {
    /// Reads a block. `buf` is filled from its start; at most the block's bytes.
    ///
    /// # Errors
    /// As the system says; [`super::ErrorKind::Missing`] and [`super::ErrorKind::Changed`] when there is no such file
    /// or it ends before.
    pub fn read(&self, block: Block, buf: &mut [u8]) -> Result<(), StorageError> {
        let len = buf.len().min(block.len() as usize);
        self.read_piece(block.piece(), block.begin(), &mut buf[..len])
    }

    /// Reads from byte `begin` of `piece` on until `buf` is full. Behind the piece's end all is zeros.
    ///
    /// # Errors
    /// As [`Storage::read`].
    pub fn read_piece(&self, piece: PieceIndex, begin: u32, buf: &mut [u8]) -> Result<(), StorageError> {
        let inside = self.geometry.piece_len(piece).saturating_sub(begin) as usize;
        let (inside, behind) = buf.split_at_mut(inside.min(buf.len()));
        behind.fill(0);
        self.read_range(self.geometry.position(piece) + u64::from(begin), inside)
    }

    /// Reads from `position` of the torrent on until `buf` is full, over the borders of pieces.
    pub(super) fn read_range(&self, position: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        let mut rest = buf;
        self.runs(position, rest.len() as u64, |run| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(usize::try_from(run.len).unwrap_or(usize::MAX));
            rest = behind;
            match &run.open {
                Some(open) => sys::read_at(&open.file, part, run.offset).map_err(|e| self.error(run.number, "read", e)),
                None => {
                    part.fill(0);
                    Ok(())
                }
            }
        })
    }

    /// Opens what a range of the torrent lies in, and hands it on in order.
    pub(super) fn runs(
        &self,
        position: u64,
        len: u64,
        mut visit: impl FnMut(Run) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        for place in self.places(position, len) {
            let open = place.file.map(|number| self.open_to_read(number)).transpose()?;
            let number = place.file.unwrap_or(0);
            visit(Run { number, open, offset: place.offset, len: place.len })?;
        }
        Ok(())
    }

    /// Where a range of the torrent lies on disk, in order, the part file considered.
    pub(super) fn places(&self, position: u64, len: u64) -> impl Iterator<Item = OnDisk> + '_ {
        let mut at = position;
        self.map.spans(position, len).flat_map(move |span| {
            let start = at;
            at += span.len;
            self.places_of(start, span)
        })
    }

    /// Within the part file, what belongs to different pieces lies apart.
    fn places_of(&self, position: u64, span: super::Span) -> impl Iterator<Item = OnDisk> + '_ {
        let piece_length = u64::from(self.geometry.piece_length());
        let in_part = match span.target {
            Target::File { file, .. } => self.files.get(file as usize).is_some_and(|f| f.in_part),
            Target::Zeros => false,
        };
        let mut done = 0;
        std::iter::from_fn(move || {
            if done >= span.len {
                return None;
            }
            let at = position + done;
            let left = span.len - done;
            let len = if in_part { left.min(piece_length - at % piece_length) } else { left };
            let place = match span.target {
                Target::Zeros => OnDisk { file: None, offset: 0, len },
                Target::File { file, offset } => match self.part_offset(file, at) {
                    Some(offset) => OnDisk { file: Some(self.part.number), offset, len },
                    None => OnDisk { file: Some(file), offset: offset + done, len },
                },
            };
            done += len;
            Some(place)
        })
    }
}
