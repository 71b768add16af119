use std::fs::File;
use std::sync::Arc;

use super::{Storage, StorageError, Target};
use crate::base::{Block, PieceIndex};
use crate::sys::{self, Cached};

/// A part of a block on its way to a socket.
#[derive(Clone, Debug)]
pub enum SendSpan {
    /// Bytes of a file, for `sendfile`.
    File {
        /// The file. Not to be written through.
        file: Arc<File>,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// That many zeros: padding.
    Zeros(u32),
}

/// A step of a read: a run of bytes in one open file, or zeros.
struct Run {
    number: u32,
    file: Option<Arc<File>>,
    offset: u64,
    len: u64,
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
        let (mut rest, behind) = buf.split_at_mut(inside.min(buf.len()));
        behind.fill(0);
        self.runs(piece, begin, rest.len() as u64, |run| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(usize::try_from(run.len).unwrap_or(usize::MAX));
            rest = behind;
            match &run.file {
                Some(file) => sys::read_at(file, part, run.offset).map_err(|e| self.error(run.number, "read", e)),
                None => {
                    part.fill(0);
                    Ok(())
                }
            }
        })
    }

    /// Where the bytes of a block lie, appended to `spans` in order: for sending without reading.
    ///
    /// # Errors
    /// A file that cannot be opened. That it may be too short comes out when it is sent.
    pub fn spans_for_send(&self, block: Block, spans: &mut Vec<SendSpan>) -> Result<(), StorageError> {
        self.runs(block.piece(), block.begin(), u64::from(block.len()), |run| {
            let len = u32::try_from(run.len).unwrap_or(u32::MAX);
            spans.push(match run.file {
                Some(file) => SendSpan::File { file, offset: run.offset, len },
                None => SendSpan::Zeros(len),
            });
            Ok(())
        })
    }

    /// Whether sending or reading the block would not wait for the disk. Looks at the ends of each part of it.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn is_cached(&self, block: Block) -> Result<Cached, StorageError> {
        let mut cached = Cached::Yes;
        self.runs(block.piece(), block.begin(), u64::from(block.len()), |run| {
            if let (Some(file), Cached::Yes) = (&run.file, cached) {
                cached = sys::is_cached(file, run.offset, run.len);
            }
            Ok(())
        })?;
        Ok(cached)
    }

    /// Brings a piece into the page cache, and returns when it is there.
    ///
    /// # Errors
    /// As [`Storage::read`].
    pub fn read_ahead(&self, piece: PieceIndex) -> Result<(), StorageError> {
        let len = u64::from(self.geometry.piece_len(piece));
        self.runs(piece, 0, len, |run| {
            if let Some(file) = &run.file {
                sys::will_need(file, run.offset, run.len);
            }
            Ok(())
        })?;
        // The hint does not wait. Reading does, and tells of media errors.
        let mut scratch = vec![0; 1 << 17];
        let mut begin = 0;
        while u64::from(begin) < len {
            let step = scratch.len().min(usize::try_from(len - u64::from(begin)).unwrap_or(usize::MAX));
            self.read_piece(piece, begin, &mut scratch[..step])?;
            begin += u32::try_from(step).unwrap_or(u32::MAX);
        }
        Ok(())
    }

    /// Opens what a range of a piece lies in, and hands it on in order. The range is inside the piece.
    fn runs(
        &self,
        piece: PieceIndex,
        begin: u32,
        len: u64,
        mut visit: impl FnMut(Run) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut position = self.geometry.position(piece) + u64::from(begin);
        for span in self.map.spans(position, len) {
            let run = match span.target {
                Target::Zeros => Run { number: 0, file: None, offset: 0, len: span.len },
                Target::File { file, offset } => {
                    let (number, offset) = match self.part_offset(file, piece, position) {
                        Some(offset) => (self.part.number, offset),
                        None => (file, offset),
                    };
                    Run { number, file: Some(self.open_to_read(number)?.file.clone()), offset, len: span.len }
                }
            };
            visit(run)?;
            position += span.len;
        }
        Ok(())
    }
}
