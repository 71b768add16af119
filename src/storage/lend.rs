use std::sync::Arc;

use super::{Storage, StorageError, scan};
use crate::base::{Block, PieceIndex};
use crate::sys::{self, Cached, SendMap};

/// Files from this length on are lent as maps: for shorter ones mapping costs more than the copy that it saves.
const MAP_FROM: u64 = 1 << 20;

/// Bytes read ahead at a time: a piece, or this much of a longer one. With one seek in so many bytes a hard disk still
/// reads three quarters of the time, and nobody waits long for the first block.
pub const READ_AHEAD: u32 = 4 << 20;

/// A part of what is on its way to a socket.
#[derive(Clone, Debug)]
pub enum SendSpan {
    /// Bytes of a file.
    Mapped {
        /// The file, for the system's eyes only.
        map: Arc<SendMap>,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// The next so many of the bytes that were copied.
    Copied(u32),
}

/// What a socket can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lending {
    /// Bytes out of maps of files: a plain socket's way, where the system copies from its page cache.
    Mapped,
    /// Bytes in our memory only, because they are to be changed or counted on the way.
    Copied,
}

/// Whether bytes can be lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lent {
    /// They were.
    All,
    /// The disk has to be waited for: not before [`Storage::read_ahead`].
    Cold,
    /// Not without reading them on a thread that may wait: the file is not open, the system does not tell what is in
    /// memory, or the read failed, and will tell why when it is repeated.
    Unsure,
}

/// What is read ahead at once: a piece, or a part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    piece: PieceIndex,
    begin: u32,
}

impl Window {
    /// The one that byte `begin` of `piece` is in.
    pub fn of(piece: PieceIndex, begin: u32) -> Self {
        Self { piece, begin: begin - begin % READ_AHEAD }
    }
}

impl Storage {
    /// Lends `len` bytes from byte `begin` of `piece` on, to be sent: appended to `spans` in order, and to `copied` what
    /// is not in maps. Never waits for the disk, unless memory is taken away from the page cache at that very moment.
    /// Unless all of them can be lent nothing is appended.
    pub fn lend(
        &self,
        piece: PieceIndex,
        begin: u32,
        len: u32,
        lending: Lending,
        spans: &mut Vec<SendSpan>,
        copied: &mut Vec<u8>,
    ) -> Lent {
        let (first_span, first_byte) = (spans.len(), copied.len());
        let position = self.geometry.position(piece) + u64::from(begin);
        for place in self.places(position, u64::from(len)) {
            let lent = match place.file {
                Some(number) => self.lend_of_file(number, place.offset, place.len, lending, spans, copied),
                None => {
                    copied.resize(copied.len() + usize::try_from(place.len).unwrap_or(0), 0);
                    spans.push(SendSpan::Copied(u32::try_from(place.len).unwrap_or(u32::MAX)));
                    Lent::All
                }
            };
            if lent != Lent::All {
                spans.truncate(first_span);
                copied.truncate(first_byte);
                return lent;
            }
        }
        Lent::All
    }

    fn lend_of_file(
        &self,
        number: u32,
        offset: u64,
        len: u64,
        lending: Lending,
        spans: &mut Vec<SendSpan>,
        copied: &mut Vec<u8>,
    ) -> Lent {
        // Opening may wait for the disk.
        let Some(open) = self.open.find(number, false) else { return Lent::Unsure };
        match open.is_cached(offset, len) {
            Cached::Yes => {}
            Cached::No => return Lent::Cold,
            Cached::Unknown => return Lent::Unsure,
        }
        let Ok(short) = u32::try_from(len) else { return Lent::Unsure };
        let file_len = self.file_len(number);
        if lending == Lending::Mapped
            && file_len >= MAP_FROM
            && let Some(map) = open.send_map(file_len)
        {
            spans.push(SendSpan::Mapped { map, offset, len: short });
            return Lent::All;
        }
        let at = copied.len();
        copied.resize(at + short as usize, 0);
        match sys::read_at(&open.file, &mut copied[at..], offset) {
            Ok(()) => {
                spans.push(SendSpan::Copied(short));
                Lent::All
            }
            Err(_) => Lent::Unsure,
        }
    }

    /// Whether the block would wait for the disk: a quick look at its first byte. Not so where nobody can tell.
    pub fn is_cold(&self, block: Block) -> bool {
        let position = self.geometry.position(block.piece()) + u64::from(block.begin());
        self.places(position, 1).any(|place| {
            let open = place.file.and_then(|number| self.open.find(number, false));
            open.is_some_and(|open| open.is_cached(place.offset, place.len) == Cached::No)
        })
    }

    /// Brings a window into the page cache, and returns when it is there.
    ///
    /// # Errors
    /// As [`Storage::read`].
    pub fn read_ahead(&self, window: Window) -> Result<(), StorageError> {
        let Window { piece, begin } = window;
        let len = self.geometry.piece_len(piece).saturating_sub(begin).min(READ_AHEAD);
        let mut cold = false;
        self.runs(self.geometry.position(piece) + u64::from(begin), u64::from(len), |run| {
            if let Some(open) = &run.open
                && open.is_cached(run.offset, run.len) != Cached::Yes
            {
                sys::will_need(&open.file, run.offset, run.len);
                cold = true;
            }
            Ok(())
        })?;
        if !cold {
            return Ok(());
        }
        // The hint does not wait. Reading does, and tells of media errors.
        scan::read_in_order(len, |done, buf| self.read_piece(piece, begin + done, buf))
    }
}
